"""What a new user meets first: defaults, crops of a measured size, up-to-date results, short summaries."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cellstamp import HDF5CellExtraction, Project, ThresholdSegmentation, read_h5sc
from cellstamp.config import ExtractionConfig
from cellstamp.engines.cores import default_workers, quota_cores
from cellstamp.engines.threads import usable_cores
from cellstamp.errors import ConfigError, OutputError

CONFIG = {"threads": 1, "image_size": 40, "border": "pad", "progress": False}


@pytest.fixture
def make_step(tmp_path: Path, sample_store: Callable[..., Path]) -> Callable[..., HDF5CellExtraction]:
    store = sample_store()
    masks = {"image": "image", "segmentation_mask": ["nucleus", "cytosol"]}
    return lambda **keys: HDF5CellExtraction({**CONFIG, **masks, **keys}, tmp_path / "out", filehandler=store)


def log_of(step: HDF5CellExtraction) -> str:
    return (Path(step.directory) / step.log_name).read_text()


class TestCores:
    def write(self, folder: Path, group: str, **files: str) -> None:
        (folder / group).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / group / name.replace("__", ".")).write_text(text)

    @pytest.fixture(autouse=True)
    def _many_cores(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("cellstamp.engines.cores.usable_cores", lambda: 64)

    @pytest.mark.parametrize(
        ("limit", "cores"),
        [("max 100000", 64), ("250000 100000", 2), ("50000 100000", 1), ("12800000 100000", 64), ("", 64), ("0 0", 64)],
    )
    def test_quota_of_cgroup_v2(self, tmp_path: Path, limit: str, cores: int) -> None:
        (tmp_path / "proc").write_text("0::/job/step\n")
        self.write(tmp_path, "job/step", cpu__max=limit)
        assert quota_cores(tmp_path / "proc", tmp_path) == cores

    def test_the_tightest_quota_above_counts(self, tmp_path: Path) -> None:
        (tmp_path / "proc").write_text("0::/job/step\n")
        self.write(tmp_path, "job", cpu__max="300000 100000")
        self.write(tmp_path, "job/step", cpu__max="800000 100000")
        assert quota_cores(tmp_path / "proc", tmp_path) == 3

    @pytest.mark.parametrize("group", ["/docker/abc", "/"])
    @pytest.mark.parametrize(("quota", "cores"), [("400000", 4), ("-1", 64)])
    def test_quota_of_cgroup_v1(self, tmp_path: Path, group: str, quota: str, cores: int) -> None:
        (tmp_path / "proc").write_text(f"7:cpu,cpuacct:{group}\n3:memory:/other\n1:name=systemd:/x\n")
        self.write(tmp_path, "cpu", cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000")
        assert quota_cores(tmp_path / "proc", tmp_path) == cores

    def test_no_cgroups(self, tmp_path: Path) -> None:
        assert quota_cores(tmp_path / "none", tmp_path) == 64


def test_affinity_limits_the_workers() -> None:
    assert 1 <= default_workers() <= usable_cores()
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from cellstamp import ExtractionConfig;"
    code += "print(ExtractionConfig.parse({'image_size': 64}).threads)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"1\n"


def test_memory_limits_the_workers() -> None:
    assert default_workers(1e-9) == 1
    assert ExtractionConfig.parse({"image_size": 64, "target_ram_utilization": 1e-9}).threads == 1
    assert ExtractionConfig.parse({"image_size": 64, "target_ram_utilization": 1e-9, "threads": 3}).threads == 3


def test_temporary_files_go_to_the_systems_folder(tmp_path: Path) -> None:
    assert ExtractionConfig.parse({"image_size": 64}).cache == Path(tempfile.gettempdir())
    step = HDF5CellExtraction({"image_size": 64}, tmp_path)
    step.create_temp_dir()
    assert Path(step._tmp_dir_path).parent == Path(tempfile.gettempdir())
    step.clear_temp_dir()


def test_a_system_without_a_writable_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp', '/']")

    monkeypatch.setattr(tempfile, "gettempdir", fail)
    with pytest.raises(ConfigError, match=r"cache: the system has no writable folder .*Set cache to one"):
        ExtractionConfig.parse({"image_size": 64})


class TestWithoutAConfig:
    def test_a_project_extracts(self, tmp_path: Path, make_cells: Callable[..., tuple[np.ndarray, ...]]) -> None:
        image, nucleus, cytosol = make_cells()
        project = Project(tmp_path)
        project.load_input_from_array(image)
        project.load_segmentation(nucleus, cytosol)
        project.extract()
        assert project.h5sc.uns["cellstamp"]["settings"]["image_size_measured"]
        assert not (tmp_path / "config.yml").exists()
        assert project.segmentation_f is not None

    def test_a_project_segments(self, tmp_path: Path) -> None:
        yy, xx = np.mgrid[:60, :60]
        spot = ((yy - 30) ** 2 + (xx - 30) ** 2 < 100) * 5000
        project = Project(tmp_path)
        project.load_input_from_array((spot + 100)[None].astype(np.uint16))
        project.segment()
        assert project.nuc_seg_status

    def test_a_section_without_keys(self, tmp_path: Path) -> None:
        (tmp_path / "config.yml").write_text("ThresholdSegmentation:\nHDF5CellExtraction:\n  image_size: 32\n")
        assert Project(tmp_path).segmentation_f.config == {}
        step = ThresholdSegmentation(tmp_path / "config.yml", tmp_path)
        assert step.config == {}
        step.check_config()

    def test_a_written_config_names_the_size(self) -> None:
        with pytest.raises(
            ConfigError, match='image_size: missing; must be an even integer >= 2, a length like "30 um", or "auto"'
        ):
            ExtractionConfig.parse({"threads": 2})


class TestMeasuredSize:
    def masks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """100 squares of 5 pixels in both masks; one is 31 wide in the cytosol, and another one 21."""
        nucleus = np.zeros((400, 400), np.uint32)
        for cell in range(100):
            y, x = 20 + 36 * (cell // 10), 20 + 36 * (cell % 10)
            nucleus[y - 2 : y + 3, x - 2 : x + 3] = cell + 1
        cytosol = nucleus.copy()
        cytosol[20, 5:36], cytosol[20, 46:67] = 1, 2
        return np.ones((1, 400, 400), np.uint16), nucleus, cytosol

    @pytest.fixture
    def extract(self, tmp_path: Path, sample_store: Callable[..., Path]) -> Callable[..., HDF5CellExtraction]:
        store = sample_store(cells=self.masks())
        masks = {"image": "image", "segmentation_mask": ["nucleus", "cytosol"], "image_size": "auto", "border": "pad"}

        def run(**keys: object) -> HDF5CellExtraction:
            step = HDF5CellExtraction({**CONFIG, **masks, **keys}, tmp_path / "out", filehandler=store)
            step()
            return step

        return run

    def test_the_smallest_even_size_that_holds_99_percent(self, extract: Callable[..., HDF5CellExtraction]) -> None:
        step = extract()
        data = read_h5sc(step.output_path)
        assert data.obsm["single_cell_images"].shape[-2:] == (22, 22)
        settings = data.uns["cellstamp"]["settings"]
        assert settings["image_size"] == 22
        assert settings["image_size_measured"]
        assert data.obs["exceeds_crop"].sum() == 1
        assert "image_size auto: 22 holds 99% of 100 cells completely" in log_of(step)

    def test_of_the_selected_cells(self, extract: Callable[..., HDF5CellExtraction]) -> None:
        assert read_h5sc(extract(cells=[50, 51]).output_path).obsm["single_cell_images"].shape[-1] == 6

    def test_the_same_as_the_number(self, extract: Callable[..., HDF5CellExtraction]) -> None:
        extract()
        again = extract(image_size=22)
        assert "Up to date" in log_of(again)


def test_a_measured_size_larger_than_the_image(tmp_path: Path, sample_store: Callable[..., Path]) -> None:
    mask = np.zeros((40, 200), np.uint32)
    mask[20, 10:190] = 1
    store = sample_store(cells=(np.ones((1, 40, 200), np.uint16), mask, None))
    config = {**CONFIG, "image": "image", "segmentation_mask": "nucleus", "image_size": "auto", "border": "drop"}
    with pytest.raises(ConfigError, match="image_size = 'auto': the cells of 'nucleus' need 180, which must not be"):
        HDF5CellExtraction(config, tmp_path / "out", filehandler=store)()


def test_a_measured_size_larger_than_the_image_for_two_masks(tmp_path: Path, sample_store: Callable[..., Path]) -> None:
    nucleus, cytosol = np.zeros((2, 60, 100), np.uint32)
    nucleus[5:15, 5:15], nucleus[45:55, 85:95], cytosol[2:18, 2:18], cytosol[42:58, 82:98] = 1, 2, 2, 1
    store = sample_store(cells=(np.ones((1, 60, 100), np.uint16), nucleus, cytosol))
    config = {**CONFIG, "image": "image", "segmentation_mask": ["nucleus", "cytosol"], "image_size": "auto"}
    with pytest.raises(ConfigError, match=r"same cells under the same ids\? cellstamp\.match_masks gives them"):
        HDF5CellExtraction({**config, "border": "drop"}, tmp_path / "out", filehandler=store)()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "scaled per cell and channel: not comparable between cells"),
        ({"normalization_scope": "image"}, "scaled per channel of the image: comparable between cells of this image"),
        ({"normalize_output": False}, "divided by 65535: comparable between cells and images"),
    ],
)
def test_the_file_and_the_log_say_whether_intensities_compare(
    make_step: Callable[..., HDF5CellExtraction], keys: dict[str, object], words: str
) -> None:
    step = make_step(**keys)
    step()
    assert read_h5sc(step.output_path).uns["cellstamp"]["settings"]["intensities"] == words
    assert log_of(step).count("they are not comparable between cells") == (not keys)


class TestManyRemovedCells:
    def test_are_no_warning_if_other_settings_are_refused(
        self, make_step: Callable[..., HDF5CellExtraction], recwarn: pytest.WarningsRecorder
    ) -> None:
        make_step(border="drop", image_size=20)()
        with pytest.raises(OutputError, match="image_size: 20 -> 60"):
            make_step(border="drop", image_size=60)()
        assert not [warning for warning in recwarn if "image_size 60" in str(warning.message)]

    def test_are_a_warning(self, make_step: Callable[..., HDF5CellExtraction]) -> None:
        step = make_step(image_size=60, border="drop")
        words = r"12 of 16 cells \(75%\) are too close to the image border for image_size 60.*border to 'pad'"
        with pytest.warns(UserWarning, match=words):
            step()
        assert "12 of 16 cells (75%)" in log_of(step)

    @pytest.mark.filterwarnings("error")
    def test_none_is_not(self, make_step: Callable[..., HDF5CellExtraction]) -> None:
        make_step(image_size=60)()


class TestFinished:
    def test_is_up_to_date(self, make_step: Callable[..., HDF5CellExtraction], capsys: pytest.CaptureFixture) -> None:
        first = make_step(progress="auto")
        first()
        path = Path(first.output_path)
        before = path.stat().st_mtime_ns
        capsys.readouterr()
        again = make_step(threads=2, progress="auto")
        again()
        assert again.output_path == first.output_path
        assert path.stat().st_mtime_ns == before
        assert capsys.readouterr().out == f"Up to date: 16 cells -> {path}\n"
        assert log_of(again).endswith(f"Up to date: 16 cells -> {path}\n")
        again(overwrite=True)
        assert path.stat().st_mtime_ns != before

    def test_partial_is_up_to_date(self, make_step: Callable[..., HDF5CellExtraction]) -> None:
        step = make_step()
        step(partial=True, n_cells=3)
        before = Path(step.output_path).stat().st_mtime_ns
        step(partial=True, n_cells=3)
        assert Path(step.output_path).stat().st_mtime_ns == before
        step(partial=True, n_cells=3, seed=1)
        assert "seed_1" in step.output_path

    @pytest.mark.parametrize(
        ("keys", "named"),
        [
            ({"image_size": 42}, r"image_size: 40 -> 42"),
            ({"apply_masks": False}, r"apply_masks: True -> False"),
            ({"cells": [3, 6]}, r"cells: 16 -> 2"),
            ({"channels": ["ch1"]}, r"channels: \['ch0', 'ch1', 'ch2'\] -> \['ch1'\]"),
        ],
    )
    def test_other_settings_are_named(
        self, make_step: Callable[..., HDF5CellExtraction], keys: dict[str, object], named: str
    ) -> None:
        make_step()()
        wanted = rf"data already exists with different settings or input \(.*{named}.*\)\. Set overwrite=True"
        with pytest.raises(OutputError, match=wanted):
            make_step(**keys)()

    @pytest.mark.parametrize("element", ["images/image/s0", "labels/cytosol/s0"])
    def test_changed_pixels_are_noticed(self, make_step: Callable[..., HDF5CellExtraction], element: str) -> None:
        step = make_step()
        step()
        array = Path(step.filehandler) / element
        chunk = next(path for path in sorted(array.glob("c/**/*")) if path.is_file())
        os.utime(chunk, ns=(1, 1))
        with pytest.raises(OutputError, match=rf"\({element.split('/')[1]} has changed\)"):
            step()

    def test_a_file_of_another_program(self, make_step: Callable[..., HDF5CellExtraction]) -> None:
        step = make_step()
        step()
        Path(step.output_path).write_bytes(b"not HDF5")
        wanted = r"data already exists, and cannot be read \(.*single_cells\.h5sc is .*\)\. Set overwrite=True"
        with pytest.raises(OutputError, match=wanted):
            step()


@pytest.mark.once
class TestSummary:
    @pytest.mark.parametrize("progress", ["auto", False])
    def test_a_script_prints_it_once(self, tmp_path: Path, make_step: Callable[..., object], progress: object) -> None:
        step = make_step()
        config = {**step.config, "progress": progress}
        code = (
            "from cellstamp import HDF5CellExtraction\n"
            f"HDF5CellExtraction({config!r}, 'out', filehandler={str(step.filehandler)!r})()"
        )
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=tmp_path, text=True)
        assert out.stdout.count("Extracted 16 of 16 cells") == (progress == "auto")
        assert out.stdout.count("\n") == (progress == "auto")


class TestRepr:
    def test_of_an_extraction(self, make_step: Callable[..., HDF5CellExtraction]) -> None:
        step = make_step()
        lines = repr(step).splitlines()
        assert lines[0] == f"HDF5CellExtraction in {step.directory}"
        assert f"  cells from: {step.filehandler}" in lines
        assert "  image_size: 40" in lines
        assert "  threads: 1" in lines
        assert lines[-1] == "  result: none yet; call this step, like step()"
        step()
        assert repr(step).endswith(f"read it with cellstamp.read_h5sc({step.output_path!r})")

    def test_of_steps_without_a_config(self, tmp_path: Path) -> None:
        project = Project(tmp_path)
        assert "image_size: auto" in repr(project.extraction_f)
        assert f"threads: {default_workers()} (default)" in repr(project.extraction_f)
        assert repr(project.extraction_f).endswith("none yet; call project.extract()")
        assert repr(project.segmentation_f).endswith("none yet; call project.segment()")

    def test_of_an_invalid_step(self, tmp_path: Path) -> None:
        assert "image_size: [2]" in repr(HDF5CellExtraction({"image_size": [2]}, tmp_path))
