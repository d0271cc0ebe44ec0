"""The segmentation step: same cells for any block size, matching ids, atomic output."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt, find_objects, gaussian_filter, label
from skimage.draw import disk, ellipse

from cellstamp import (
    ConfigError,
    HDF5CellExtraction,
    InputError,
    OutputError,
    Project,
    SegmentationConfig,
    ThresholdSegmentation,
)
from cellstamp.segment.blocks import NameNuclei, tiles
from cellstamp.segment.cells import numbered
from cellstamp.segment.nuclei import find_nuclei
from cellstamp.segment.nucleus_settings import NucleusSettings
from cellstamp.segment.threshold import count_levels, otsu, smoothed
from cellstamp.source.find.elements import find_image
from cellstamp.source.load.store import load_image
from listening import to_ctrl_c

REPOSITORY = Path(__file__).parents[1]
JUMP = REPOSITORY.parent / "shared" / "data" / "jump_BR00117006_A01"
SMALL = {"window": 21, "min_distance": 3, "min_area": 20, "expansion": 4, "smoothing": 1.0}
"""For nuclei of a few pixels, so that images can be small."""
SETTINGS = NucleusSettings("local", 1.0, 21, 3, 20, level=3000.0)


def blobs(side: int = 260, seed: int = 0, density: float = 1.0) -> np.ndarray:
    """Bright ellipses, some of which touch, on a noisy ground: uint16 (side, side)."""
    rng = np.random.default_rng(seed)
    image = np.zeros((side, side))
    for _ in range(int(density * side * side / 300)):
        y, x = rng.uniform(0, side, 2)
        radii = rng.uniform(3, 7, 2)
        image[ellipse(y, x, *radii, shape=image.shape, rotation=rng.uniform(0, 3))] = rng.uniform(5000, 9000)
    return np.clip(gaussian_filter(image, 1) + rng.normal(500, 100, image.shape), 0, None).astype(np.uint16)


def project_with(folder: Path, image: np.ndarray, **keys: Any) -> Project:
    section = {"threads": 1, "cache": str(folder / "cache"), **SMALL, **keys}
    project = Project(folder / "project", {"ThresholdSegmentation": section}, overwrite=False)
    n_channels = 1 if image.ndim == 2 else len(image)
    project.load_input_from_array(image, channel_names=["nuclei", "other"][:n_channels])
    return project


def masks_of(project: Project) -> tuple[np.ndarray, np.ndarray]:
    labels = project.sdata.labels
    return np.asarray(labels["seg_all_nucleus"]), np.asarray(labels["seg_all_cytosol"])


def segmented(folder: Path, image: np.ndarray, **keys: Any) -> tuple[np.ndarray, np.ndarray]:
    project = project_with(folder, image, **keys)
    project.segment()
    return masks_of(project)


def small_clumps(mask: np.ndarray, largest: int) -> np.ndarray:
    """Return a mask of the background, and of clumps of at most `largest` pixels in height and width."""
    clumps, _ = label(mask)
    small = mask == 0
    for number, place in enumerate(find_objects(clumps), start=1):
        if max(part.stop - part.start for part in place) <= largest:
            small[place] |= clumps[place] == number
    return small


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    """The masks of `blobs` when they are found in one piece."""
    return segmented(tmp_path_factory.mktemp("whole"), blobs())


class InterruptsAt(io.StringIO):
    """A terminal whose user presses Ctrl-C when the progress bar has come so far."""

    def __init__(self, percent: int) -> None:
        super().__init__()
        self._percent: float = percent

    def write(self, text: str) -> int:
        shown = re.search(r"segmenting: +(\d+)%", text)
        if shown and int(shown[1]) >= self._percent:
            self._percent = np.inf
            os.kill(os.getpid(), signal.SIGINT)
        return super().write(text)


class TestMasks:
    def test_ids_are_1_to_n_in_reading_order_and_the_same_in_both(self, whole) -> None:
        nuclei, cells = whole
        assert nuclei.dtype == cells.dtype == np.uint32
        n = int(nuclei.max())
        assert n > 100
        for mask in whole:
            assert np.unique(mask).tolist() == list(range(n + 1))
        tops = [int(np.flatnonzero((nuclei == cell).any(axis=1))[0]) for cell in (1, n // 2, n)]
        assert tops == sorted(tops)

    def test_cells_hold_their_nuclei_and_reach_so_far_beyond_and_no_further(self, whole) -> None:
        nuclei, cells = whole
        assert np.array_equal(cells[nuclei > 0], nuclei[nuclei > 0])
        assert np.array_equal(cells > 0, distance_transform_edt(nuclei == 0) <= SMALL["expansion"])

    def test_no_nucleus_is_smaller_than_the_smallest(self, whole) -> None:
        assert np.bincount(whole[0].ravel())[1:].min() >= SMALL["min_area"]

    def test_disks_are_found_as_they_are_and_two_that_touch_told_apart(self, tmp_path: Path) -> None:
        image = np.full((1, 120, 160), 2000, np.uint16)
        truth = np.zeros(image.shape[1:], bool)
        centers = [(30, 30), (30, 110), (80, 60), (80, 77), (95, 130)]
        for center in centers:
            truth[disk(center, 9)] = True
        image[0, truth] = 50000
        nuclei, _ = segmented(tmp_path, image, window=41, min_distance=5)
        assert [int(nuclei[center]) for center in centers] == [1, 2, 3, 4, 5]
        assert np.mean((nuclei > 0) == truth) > 0.99

    def test_without_expansion_cells_are_nuclei(self, tmp_path: Path) -> None:
        nuclei, cells = segmented(tmp_path, blobs(100), expansion=0)
        assert np.array_equal(nuclei, cells)
        assert nuclei.any()

    def test_otsu_takes_what_is_brighter_than_its_threshold(self, tmp_path: Path) -> None:
        image = blobs(120)
        nuclei, _ = segmented(tmp_path, image, method="otsu", min_area=1)
        smooth = smoothed(image, 1.0)
        level = otsu(*count_levels(smooth)).level
        assert np.all(smooth[nuclei > 0] > level - 1000)
        assert np.mean((nuclei > 0) == (smooth > level)) > 0.95

    def test_the_channel_is_found_by_its_name(self, tmp_path: Path) -> None:
        image = np.stack([np.zeros((90, 90), np.uint16), blobs(90)])
        project = project_with(tmp_path, image, nucleus_channel="other")
        project.segment()
        nuclei, _ = masks_of(project)
        assert np.array_equal(nuclei, segmented(tmp_path / "alone", blobs(90))[0])

    def test_they_lie_where_the_image_lies(self, tmp_path: Path) -> None:
        from spatialdata.transformations import Affine, get_transformation, set_transformation

        project = project_with(tmp_path, blobs(90))
        sdata = project.sdata
        there = Affine([[0.5, 0, 7], [0, 0.25, 9], [0, 0, 1]], input_axes=("x", "y"), output_axes=("x", "y"))
        set_transformation(sdata["input_image"], there, "slide", write_to_sdata=sdata)
        project.segment()
        found = get_transformation(project.sdata["seg_all_nucleus"], get_all=True)
        assert set(found) == {"global", "slide"}
        axes = {"input_axes": ("x", "y"), "output_axes": ("x", "y")}
        assert np.allclose(found["slide"].to_affine_matrix(**axes), there.to_affine_matrix(**axes))
        assert np.allclose(found["global"].to_affine_matrix(**axes), np.eye(3))

    def test_an_extraction_takes_them(self, tmp_path: Path) -> None:
        config = {
            "ThresholdSegmentation": {"threads": 1, "cache": str(tmp_path / "cache"), **SMALL},
            "HDF5CellExtraction": {"threads": 1, "image_size": 48, "cache": str(tmp_path / "cache")},
        }
        project = Project(tmp_path / "project", config)
        project.load_input_from_array(blobs(160))
        assert isinstance(project.segmentation_f, ThresholdSegmentation)
        assert isinstance(project.extraction_f, HDF5CellExtraction)
        project.segment()
        assert project.get_project_status()["nucleus_centers"]
        assert project.get_project_status()["cytosol_centers"]
        project.extract()
        n_cells = int(masks_of(project)[0].max())
        assert 0 < project.h5sc.n_obs <= n_cells
        assert project.h5sc.var["channels"].tolist()[:2] == ["seg_all_nucleus", "seg_all_cytosol"]


@pytest.mark.once
class TestBlocks:
    @pytest.mark.parametrize(("block_size", "threads"), [(64, 1), (97, 1), (130, 2)])
    def test_the_same_whatever_blocks_and_workers(self, tmp_path: Path, whole, block_size: int, threads: int) -> None:
        nuclei, cells = segmented(tmp_path, blobs(), block_size=block_size, threads=threads)
        assert np.array_equal(nuclei, whole[0])
        assert np.array_equal(cells, whole[1])

    @settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        seed=st.integers(0, 2**32 - 1),
        side=st.integers(60, 150),
        block=st.integers(20, 90),
        density=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
        method=st.sampled_from(["local", "otsu"]),
    )
    def test_blocks_of_any_size_make_the_nuclei_of_the_whole(
        self, tmp_path_factory, seed, side, block, density, method
    ):
        store = tmp_path_factory.mktemp("any") / "store.zarr"
        load_image(store, blobs(side, seed, density))
        how = NucleusSettings(method, 1.0, 21, 3, 20, level=3000.0)
        task = NameNuclei(find_image(store), 0, how)
        (expected,) = map(task, tiles((side, side), side))
        found, sizes = np.zeros((side, side), np.uint64), {}
        for part in map(task, tiles((side, side), block)):
            found[part.rect.top : part.rect.bottom, part.rect.left : part.rect.right] = part.pixels
            for name, n_pixels in zip(part.names.tolist(), part.n_pixels.tolist(), strict=True):
                sizes[name] = sizes.get(name, 0) + n_pixels
        certain = small_clumps(expected.pixels > 0, how.reach)
        assert np.array_equal(found[certain], expected.pixels[certain])
        there = dict(zip(expected.names.tolist(), expected.n_pixels.tolist(), strict=True))
        names = np.unique(found[certain & (found > 0)]).tolist()
        assert {name: sizes[name] for name in names} == {name: there[name] for name in names}

    def test_in_a_clump_larger_than_what_is_looked_at_no_id_comes_twice(self, tmp_path: Path) -> None:
        """Such a clump may be divided a little differently than in one piece."""
        rough = gaussian_filter(np.random.default_rng(0).normal(size=(400, 400)), 4)
        clump = np.where(rough > -0.2 * rough.std(), 9000, 100).astype(np.uint16)
        keys = {"method": "otsu", "smoothing": 0}
        expected, _ = segmented(tmp_path / "whole", clump, **keys)
        nuclei, cells = segmented(tmp_path / "blocks", clump, block_size=60, **keys)
        n = int(nuclei.max())
        assert n == pytest.approx(int(expected.max()), rel=0.05)
        assert np.unique(nuclei).tolist() == np.unique(cells).tolist() == list(range(n + 1))
        assert np.mean((nuclei > 0) == (expected > 0)) > 0.95

    def test_a_window_that_is_nucleus_all_over(self) -> None:
        labels, seeds = find_nuclei(
            np.full((30, 30), 9000, np.uint16), NucleusSettings("otsu", 0, 21, 3, 20, level=3000.0)
        )
        assert np.all(labels == 1)
        assert seeds.tolist() == [0]

    def test_what_is_looked_at_around_a_block_is_what_is_needed(self, tmp_path: Path) -> None:
        """With much less, nuclei at the edge of a block would not be those of the whole."""
        load_image(tmp_path / "store.zarr", blobs(150))
        task = NameNuclei(find_image(tmp_path / "store.zarr"), 0, SETTINGS)
        assert 40 < task.settings.halo < 60
        (expected,) = map(task, tiles((150, 150), 150))
        labels, _ = find_nuclei(blobs(150)[:75, :75], SETTINGS)
        assert not np.array_equal(labels > 0, expected.pixels[:75, :75] > 0)

    def test_names_become_ids_in_order_and_others_go(self) -> None:
        names = np.array([[0, 7, 7], [900, 0, 2**63]], np.uint64)
        assert numbered(names, np.array([7, 2**63], np.uint64)).tolist() == [[0, 1, 1], [0, 0, 2]]
        assert numbered(names, np.zeros(0, np.uint64)).tolist() == [[0, 0, 0], [0, 0, 0]]

    def test_otsu_of_blocks_is_that_of_the_whole(self) -> None:
        from skimage.filters import threshold_otsu

        image = smoothed(blobs(200), 1.0)
        parts = [count_levels(np.ascontiguousarray(part)) for part in (image[:90], image[90:])]
        keys, counts = (np.concatenate(column) for column in zip(*parts, strict=True))
        assert otsu(keys, counts) == otsu(*count_levels(image))
        assert otsu(keys, counts).level == pytest.approx(threshold_otsu(image, nbins=4096), rel=0.01)


class TestSeparability:
    """Otsu's eta: variance between the classes / variance of all."""

    def test_it_is_that_of_the_formula(self) -> None:
        image = smoothed(blobs(120), 1.0)
        split = otsu(*count_levels(image))
        bright, dark = image[image > split.level], image[image <= split.level]
        between = sum(part.size / image.size * (part.mean() - image.mean()) ** 2 for part in (bright, dark))
        assert split.separability == pytest.approx(between / image.var(), rel=1e-3)
        assert split.upper == pytest.approx(bright.size / image.size, abs=1e-3)

    def test_of_two_brightnesses_it_is_1_and_of_one_there_is_none(self) -> None:
        two = np.repeat(np.array([3, 800], np.float32), [90, 10])
        assert otsu(*count_levels(two)).separability == pytest.approx(1)
        assert otsu(*count_levels(two)).upper == pytest.approx(0.1)
        assert otsu(*count_levels(two[:90])).is_flat

    @pytest.mark.parametrize("seed", range(3))
    def test_of_noise_it_is_2_by_pi_and_doubtful(self, seed: int) -> None:
        noise = np.random.default_rng(seed).poisson(100, (400, 400))
        split = otsu(*count_levels(smoothed(noise, 1.5)))
        assert split.separability == pytest.approx(2 / np.pi, abs=0.01)
        assert split.is_doubtful

    @pytest.mark.parametrize("density", [0.003, 0.02, 0.3, 1.0, 2.5])
    def test_of_nuclei_it_is_not_doubtful_however_few_they_are(self, density: float) -> None:
        assert not otsu(*count_levels(smoothed(blobs(400, density=density), 1.5))).is_doubtful


class TestWhatIsThere:
    def test_masks_are_not_replaced_unless_asked(self, tmp_path: Path) -> None:
        project = project_with(tmp_path, blobs(90))
        project.segment()
        before = masks_of(project)
        with pytest.raises(
            OutputError, match=r"labels/seg_all_nucleus, labels/seg_all_cytosol already exist\. .* them"
        ):
            project.segment()
        project.segmentation_f.config["min_area"] = 60
        project.segment(overwrite=True)
        after = masks_of(project)
        assert 0 < after[0].max() < before[0].max()
        with pytest.raises(OutputError, match="already exist"):
            project.segment()

    @pytest.mark.parametrize("threads", [1, 2])
    @pytest.mark.parametrize("percent", [5, 35])
    def test_an_interrupted_run_leaves_what_was_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, percent: int
    ) -> None:
        project = project_with(tmp_path, blobs(400), block_size=60, progress=True)
        project.load_segmentation(nucleus=np.eye(400, dtype=np.uint16))
        project.segmentation_f.config["threads"] = threads
        monkeypatch.setattr(sys, "stderr", InterruptsAt(percent))
        with to_ctrl_c(), pytest.raises(KeyboardInterrupt, match=r"^$"):
            project.segment(overwrite=True)
        assert np.array_equal(np.asarray(project.sdata["seg_all_nucleus"]), np.eye(400))
        assert not project.cyto_seg_status
        assert not list((tmp_path / "cache").iterdir())
        assert not list((tmp_path / "project").glob(".*"))

    def test_a_damaged_image_is_told_and_leaves_no_mask(self, tmp_path: Path) -> None:
        project = project_with(tmp_path, blobs(200), block_size=100, threads=2)
        (chunk,) = (tmp_path / "project" / "scportrait.sdata" / "images" / "input_image" / "s0" / "c").rglob("0/0/0")
        chunk.write_bytes(chunk.read_bytes()[:100])
        with pytest.raises(InputError, match=r"'input_image' cannot be read: .*, rows \d+ to \d+"):
            project.segment()
        assert not project.nuc_seg_status
        assert not list((tmp_path / "cache").iterdir())

    @pytest.mark.parametrize("value", [0, 700])
    def test_an_image_without_nuclei_is_told_and_nothing_written(self, tmp_path: Path, value: int) -> None:
        project = project_with(tmp_path, np.full((1, 64, 64), value, np.uint16))
        message = r"No nucleus found in channel 'nuclei' of image 'input_image': all pixels have about the same"
        with pytest.warns(UserWarning, match=message):
            project.segment()
        assert not project.nuc_seg_status
        assert "No nucleus found" in (Path(project.segmentation_f.directory) / "processing.log").read_text()

    def test_masks_that_stay_when_no_nucleus_is_found_are_told(self, tmp_path: Path) -> None:
        project = project_with(tmp_path, blobs(64), min_area=3000)
        project.load_segmentation(nucleus=np.eye(64, dtype=np.uint16))
        message = r"at least 3000 pixels\. .* No masks were written; the existing seg_all_nucleus is unchanged$"
        with pytest.warns(UserWarning, match=message):
            project.segment(overwrite=True)
        assert np.array_equal(np.asarray(project.sdata["seg_all_nucleus"]), np.eye(64))

    @pytest.mark.parametrize(("method", "keys"), [("local", "floor or min_area"), ("otsu", "min_area")])
    def test_the_fix_for_an_image_without_nuclei_fits_the_method(self, tmp_path: Path, method: str, keys: str) -> None:
        project = project_with(tmp_path, blobs(64), min_area=3000, method=method)
        with pytest.warns(UserWarning, match=rf"Check nucleus_channel, or lower {keys}\. No masks were written$"):
            project.segment()

    def test_nuclei_that_are_found_in_noise_are_doubted(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).poisson(100, (1, 400, 400)).astype(np.uint16)
        project = project_with(tmp_path, noise)
        message = r"Found [\d,]+ nuclei in channel 'nuclei' of image 'input_image', but .* is 0\.6[34], below 0\.65"
        with pytest.warns(UserWarning, match=message):
            project.segment()
        assert project.nuc_seg_status

    def test_a_step_without_a_project(self, tmp_path: Path) -> None:
        load_image(tmp_path / "store.zarr", blobs(90))
        config = {"threads": 1, "cache": str(tmp_path / "cache"), **SMALL}
        ThresholdSegmentation(config, tmp_path / "out", filehandler=tmp_path / "store.zarr")()
        assert (tmp_path / "store.zarr" / "labels" / "seg_all_nucleus").is_dir()
        assert re.search(r"Segmented \d+ nuclei and cells -> ", (tmp_path / "out" / "processing.log").read_text())

    def test_the_closing_line_of_one_nucleus(self, tmp_path: Path, capsys) -> None:
        image = np.full((90, 90), 500, np.uint16)
        image[disk((45, 45), 6)] = 9000
        project = project_with(tmp_path, image, progress=True)
        capsys.readouterr()
        project.segment()
        assert capsys.readouterr().out.startswith("Segmented 1 nucleus and cell -> ")

    def test_progress_and_a_closing_line(self, tmp_path: Path, capsys) -> None:
        project = project_with(tmp_path, blobs(90), progress=True)
        capsys.readouterr()
        project.segment()
        out, err = capsys.readouterr()
        assert re.fullmatch(r"Segmented \d+ nuclei and cells -> .* in [\d.]+ s\n", out)
        assert "segmenting: 100%" in err


class TestFaults:
    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("threads", 0),
            ("cache", 3),
            ("image", 7),
            ("nucleus_channel", 1.5),
            ("method", "magic"),
            ("smoothing", -1),
            ("window", 20),
            ("floor", "0.6"),
            ("min_distance", 0),
            ("min_area", 0),
            ("expansion", -1),
            ("block_size", 0),
            ("engine", "dask"),
            ("progress", "yes"),
        ],
    )
    def test_each_key_is_checked(self, key: str, value: Any) -> None:
        with pytest.raises(ConfigError, match=rf"ThresholdSegmentation config: 1 error\n  {key} = .*: must be"):
            SegmentationConfig.parse({"threads": 1, "cache": ".", key: value})

    def test_all_faults_come_at_once(self) -> None:
        with pytest.raises(ConfigError) as caught:  # noqa: PT011 - its whole text is compared
            SegmentationConfig.parse({"threads": "4", "expnsion": 3})
        assert str(caught.value).split("\n  ") == [
            "ThresholdSegmentation config: 2 errors",
            "threads = '4': must be an integer >= 1 (got a str)",
            "expnsion = 3: unknown key; did you mean 'expansion'?",
        ]

    def test_keys_that_contradict_each_other(self) -> None:
        with pytest.raises(ConfigError, match="min_distance = 60: must be less than half of window = 101"):
            SegmentationConfig.parse({"threads": 1, "cache": ".", "min_distance": 60})

    def test_a_project_refuses_a_faulty_section_before_it_keeps_it(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="window = 4: must be an odd integer >= 3"):
            Project(tmp_path, {"ThresholdSegmentation": {"threads": 1, "cache": ".", "window": 4}})
        assert not (tmp_path / "config.yml").exists()

    def test_a_channel_that_there_is_not(self, tmp_path: Path) -> None:
        project = project_with(tmp_path, blobs(60), nucleus_channel="DAPI")
        with pytest.raises(
            ConfigError,
            match=r"nucleus_channel = 'DAPI': image .* has no channel .*; its channels are nuclei",
        ):
            project.segment()

    def test_pixels_that_cannot_be_worked_with(self, tmp_path: Path) -> None:
        image = blobs(60).astype(np.float32)
        image[5, 5] = np.nan
        with pytest.raises(InputError, match="NaN or infinity in rows 0 to 60"):
            project_with(tmp_path, image).segment()

    def test_masks_are_not_written_into_a_zip_file_or_to_a_server(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "s.zip", "w") as file:
            file.writestr("zarr.json", "{}")
        config = {"threads": 1, "cache": str(tmp_path / "cache")}
        for store in (tmp_path / "s.zip", "http://127.0.0.1/s.zarr"):
            with pytest.raises(InputError, match=r"is not a folder on a disk: the masks must be written to it"):
                ThresholdSegmentation(config, tmp_path / "out", filehandler=store)()

    def test_a_file_handler_that_is_no_store(self, tmp_path: Path) -> None:
        config = {"threads": 1, "cache": str(tmp_path / "cache")}
        with pytest.raises(InputError, match="filehandler is NoneType: must be the path of a SpatialData zarr store"):
            ThresholdSegmentation(config, tmp_path / "out")()

    def test_what_it_needs_is_named_when_it_is_missing(self, tmp_path: Path, monkeypatch) -> None:
        loaded = project_with(tmp_path, blobs(60))
        monkeypatch.setitem(sys.modules, "skimage", None)
        with pytest.raises(ConfigError, match=r"needs scikit-image: install with pip install 'cellstamp\[segmentation"):
            loaded.segment()


def test_the_example_configuration_is_one() -> None:
    sections = yaml.safe_load((REPOSITORY / "configs" / "segmentation.yml").read_text())
    parsed = SegmentationConfig.parse(sections["ThresholdSegmentation"])
    assert parsed == SegmentationConfig.parse({"threads": 2, "cache": "./cache"})
    assert set(sections["ThresholdSegmentation"]) == set(SegmentationConfig.model_fields)


@pytest.mark.skipif(not JUMP.is_dir(), reason="needs the real images in ../shared")
def test_nuclei_of_a_real_image_are_those_of_its_given_mask(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", {"ThresholdSegmentation": {"threads": 1, "cache": str(tmp_path)}})
    project.load_input_from_array(tifffile.imread(JUMP / "image.tif"), channel_names=["DNA", "AGP", "RNA"])
    project.segment()
    assert f1(masks_of(project)[0], tifffile.imread(JUMP / "labels_nucleus.tif")) > 0.95


def f1(found: np.ndarray, given: np.ndarray) -> float:
    """Share of cells that have a partner with which they share more than half of what both cover."""
    shape = int(given.max()) + 1, int(found.max()) + 1
    shared = np.zeros(shape, np.int64)
    np.add.at(shared, (given.ravel(), found.ravel()), 1)
    union = shared.sum(axis=1, keepdims=True) + shared.sum(axis=0, keepdims=True) - shared
    n_pairs = (shared[1:, 1:] > 0.5 * union[1:, 1:]).sum()
    return float(2 * n_pairs / ((shared[1:].sum(axis=1) > 0).sum() + (shared[:, 1:].sum(axis=0) > 0).sum()))
