"""`repr(project)`: its image, masks, results and next step, from metadata; a new folder is announced."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellstamp import cell_images, iter_batches, read_h5sc
from cellstamp.engines.cores import default_workers
from cellstamp.errors import InputError, OutputError
from cellstamp.h5sc.validate import errors_in
from cellstamp.pipeline.folder import UNFINISHED
from cellstamp.pipeline.project import Project


def line(project: Project, name: str) -> str:
    (found,) = [text for text in repr(project).splitlines() if text.startswith(f"  {name}: ")]
    return found.removeprefix(f"  {name}: ")


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    return {"HDF5CellExtraction": {"threads": 1, "image_size": 40, "cache": str(tmp_path / "cache"), "progress": False}}


def test_it_follows_the_project(tmp_path: Path, config: dict[str, Any], make_cells: Any) -> None:
    image, nucleus, cytosol = make_cells()
    project = Project(tmp_path / "project", config)
    assert repr(project).splitlines()[0] == f"Project in {tmp_path / 'project'}"
    assert [line(project, name) for name in ("image", "masks", "results")] == ["none"] * 3
    assert line(project, "next step").startswith("load an image, like project.load_input_from_tif_files(")
    project.load_input_from_array(image, ["dna", "er", "golgi"])
    assert line(project, "image") == f"{image.shape} (c, y, x) uint16, channels dna, er, golgi"
    assert line(project, "next step") == "call project.load_segmentation(nucleus=..., cytosol=...)"
    project.load_segmentation(nucleus)
    assert line(project, "masks") == "seg_all_nucleus (16 cells)"
    project.load_segmentation(cells=cytosol)
    assert line(project, "masks") == "seg_all_nucleus (16 cells), seg_all_cytosol (16 cells)"
    assert line(project, "next step") == "call project.extract()"
    project.extract(partial=True, n_cells=1)
    project.extract()
    assert line(project, "results").startswith("extraction/data (.h5sc file, 16 cells), extraction/")
    assert line(project, "results").endswith("(.h5sc file, 1 cell)")
    assert line(project, "next step") == "read the single-cell images with project.h5sc"
    assert repr(Project(project.directory)) == repr(project)


def test_results_of_all_formats(tmp_path: Path, config: dict[str, Any], make_cells: Any) -> None:
    project = Project(tmp_path / "project", config)
    image, nucleus, _ = make_cells()
    project.load_input_from_array(image)
    project.load_segmentation(nucleus)
    project.extract()
    project.extraction_f.config["file_format"] = "zarr"
    project.extract()
    assert line(project, "results") == "extraction/data (zarr store, 16 cells), extraction/data (.h5sc file, 16 cells)"
    url = "s3://bucket/run/other/single_cells.zarr"
    note = tmp_path / "project/extraction/other/single_cells.url"
    note.parent.mkdir()
    note.write_text(url)
    assert line(project, "results").startswith(f"extraction/other (zarr store, {url}), extraction/data (zarr store, 16")


def test_without_a_config_segment_comes_next(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.load_input_from_array(np.zeros((1, 20, 20), np.uint8))
    assert line(project, "next step").startswith("call project.segment(), or project.load_segmentation(")


def test_masks_of_another_program_without_centres(project_store: Any) -> None:
    project = Project(project_store().parent)
    assert line(project, "masks") == "seg_all_nucleus (uint32), seg_all_cytosol (uint32)"


@pytest.mark.parametrize("damaged", ["images/input_image", "labels/seg_all_nucleus", "points/centers_seg_all_nucleus"])
def test_a_damaged_store_is_described(tmp_path: Path, make_cells: Any, damaged: str) -> None:
    image, nucleus, _ = make_cells()
    project = Project(tmp_path / "project")
    project.load_input_from_array(image)
    project.load_segmentation(nucleus)
    for path in (Path(project.sdata_path) / damaged).rglob("*"):
        if path.is_file():
            path.write_bytes(b"\x00")
    assert "can't be read: " in repr(project)
    assert ("can't be read" in line(project, "image")) == damaged.startswith("images")


def test_damaged_results_and_stores_of_other_kinds(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    (tmp_path / "project").mkdir()
    Path(project.sdata_path).write_text("not a folder")
    result = tmp_path / "project" / "extraction" / "data" / "single_cells.h5sc"
    result.parent.mkdir(parents=True)
    result.write_text("not HDF5")
    assert "single_cells.h5sc is not an HDF5 file" in line(project, "results")
    assert line(project, "image") == "none"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "''"),
        (b"data/x.zarr\n", "'data/x.zarr'"),
        (b"s3://a\ns3://b", r"'s3://a\\ns3://b'"),
        (b"\xff" * 100, "'.*'"),
    ],
)
def test_a_file_that_must_have_a_url(tmp_path: Path, content: bytes, told: str) -> None:
    note = tmp_path / "project/extraction/data/single_cells.url"
    note.parent.mkdir(parents=True)
    note.write_bytes(content)
    project = Project(tmp_path / "project")
    assert f"can't be read: {note}: " in line(project, "results")
    assert project.get_project_status()["extraction"]
    told = (
        rf"single_cells\.url: {told}(\.\.\.)? is not a URL: .* like s3://bucket/run/data/single_cells\.zarr\. Write it"
    )
    for read in (lambda: project.h5sc, lambda: project.features, lambda: read_h5sc(note)):
        with pytest.raises(InputError, match=told):
            read()


def test_a_file_with_a_url_instead_of_the_url(tmp_path: Path) -> None:
    note = tmp_path / "single_cells.url"
    note.write_text("s3://bucket/run/data/single_cells.zarr\n")
    told = r"is a text file with the URL of a store\. Give the URL: s3://bucket/run/data/single_cells\.zarr$"
    for read in (read_h5sc, cell_images, errors_in, iter_batches):
        with pytest.raises(InputError, match=told):
            list(read(note))


def test_spatialdata_is_not_imported_and_no_pixel_is_read(tmp_path: Path, make_cells: Any) -> None:
    image, nucleus, cytosol = make_cells()
    project = Project(tmp_path / "project")
    project.load_input_from_array(image)
    project.load_segmentation(nucleus, cytosol)
    for chunk in Path(project.sdata_path).glob("*/*/s*/c/**/*"):
        if chunk.is_file():
            chunk.write_bytes(b"damaged")
    code = f"""
import sys
from cellstamp import Project
text = repr(Project({str(tmp_path / "project")!r}))
assert "uint16" in text and "16 cells" in text and "can't" not in text, text
assert "spatialdata" not in sys.modules, "imported"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unfinished_run_is_shown(tmp_path: Path, config: dict[str, Any], make_cells: Any) -> None:
    project = Project(tmp_path / "project", config)
    image, nucleus, _ = make_cells()
    project.load_input_from_array(image)
    project.load_segmentation(nucleus)
    unfinished = tmp_path / "project" / "extraction" / f"{UNFINISHED}data"
    unfinished.mkdir(parents=True)
    assert line(project, "unfinished") == "extraction/data; project.extract() with the same settings resumes it"
    unfinished.rmdir()
    project.extract()
    assert "  unfinished: " not in repr(project)
    unfinished.mkdir()
    assert "project.extract(overwrite=True) with the same settings resumes it" in line(project, "unfinished")
    unfinished.with_name(f"{UNFINISHED}other").mkdir()
    assert line(project, "unfinished") == "extraction/data, extraction/other"
    for folder in unfinished.parent.glob(f"{UNFINISHED}*"):
        folder.rmdir()


class TestNewFolder:
    def test_reading_from_it_says_that_it_is_empty(self, tmp_path: Path) -> None:
        project = Project(tmp_path / "typo")
        for read in (lambda: project.h5sc, project.extract, project.add_table):
            with pytest.raises(InputError, match="typo is new and empty: check its name, or load an image"):
                read()

    def test_reading_from_it_does_not_make_it(self, tmp_path: Path) -> None:
        project = Project(tmp_path / "typo")
        assert "image: none" in repr(project)
        assert not any(project.get_project_status().values())
        for read in (
            lambda: project.h5sc,
            lambda: project.input_image,
            lambda: project.sdata,
            project.plot_input_image,
        ):
            with pytest.raises(InputError, match=r"is new and empty|there is no image|no SpatialData store here"):
                read()
        for step in (project.segment, project.extract, project.add_table):
            with pytest.raises(InputError, match=r"is new and empty|there is no image|no SpatialData store here"):
                step()
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("write", ["configuration", "image", "log"])
    def test_writing_makes_it(self, tmp_path: Path, config: dict[str, Any], write: str) -> None:
        project = Project(tmp_path / "a" / "new", config if write == "configuration" else None)
        if write == "image":
            project.load_input_from_array(np.ones((1, 40, 50), np.uint16), ["DAPI"])
        elif write == "log":
            project.log("a line")
        assert (tmp_path / "a" / "new").is_dir()

    @pytest.mark.parametrize("name", ["file", "file/project"])
    def test_a_file_in_its_place_is_refused_at_once(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "file").write_text("mine")
        with pytest.raises(OutputError, match=r"file is a file: give the path of a folder for results and log"):
            Project(tmp_path / name)

    def test_it_is_announced_until_it_is_made(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        project = Project(tmp_path / "typo")
        assert capsys.readouterr().out == f"New, empty project in {tmp_path / 'typo'}\n"
        project.log("a line")
        Project(tmp_path / "typo")
        assert capsys.readouterr().out == ""

    def test_not_with_progress_off(
        self, tmp_path: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        Project(tmp_path / "typo", config)
        assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("threads", "wanted"), [(None, default_workers()), (3, 3), ("many", default_workers())])
def test_number_of_workers(tmp_path: Path, threads: Any, wanted: int) -> None:
    """Loaders use the `threads` of the extraction step, or the default of this machine."""
    project = Project(tmp_path / "project")
    if threads is not None:
        project.extraction_f.config["threads"] = threads
    assert project._n_workers == wanted
    project.extraction_f = None
    assert project._n_workers == default_workers()
