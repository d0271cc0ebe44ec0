"""Our step in the hands of a project that is not ours, as scportrait's `Project` is one.

A stand-in does what that was seen to do. The folder ``interop`` has the tests with the real one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cellstamp import HDF5CellExtraction, read_h5sc
from cellstamp.errors import ConfigError
from stores import make_sample, write_store


class Handler:
    """Knows where the store is, and nothing else that a step may use."""

    __slots__ = ("sdata_path",)

    def __init__(self, sdata_path: str) -> None:
        self.sdata_path = sdata_path


class ForeignProject:
    """Makes and calls its step as scportrait's project does; ``overwrite`` is told to the step when it is given."""

    def __init__(self, folder: Path, store: Path, *, overwrite: bool = False) -> None:
        self.step = HDF5CellExtraction(
            {"threads": 1, "image_size": 32, "cache": str(folder / "cache")},
            str(folder / "extraction"),
            project_location=str(folder),
            debug=False,
            overwrite=overwrite,
            project=self,
            filehandler=Handler(str(store)),
            from_project=True,
        )

    def extract(self, *, partial: bool = False, n_cells: int | None = None, overwrite: bool | None = None) -> Path:
        if overwrite is not None:
            self.step.overwrite_run_path = overwrite
        self.step(partial=partial, n_cells=n_cells, seed=42, output_folder_name=None)
        assert self.step.output_path is not None
        return Path(self.step.output_path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("foreign") / "sample.zarr", make_sample())


def test_full_and_partial_run(tmp_path: Path, store: Path) -> None:
    project = ForeignProject(tmp_path, store)
    full = project.extract()
    assert str(full) == project.step.extraction_file
    part = project.extract(partial=True, n_cells=3)
    assert part.parent.name == "partial_data_ncells_3_seed_42"
    assert read_h5sc(part).n_obs == 3 < read_h5sc(full).n_obs


def test_overwriting_is_allowed_for_the_call_it_is_said_in(tmp_path: Path, store: Path) -> None:
    project = ForeignProject(tmp_path, store)
    first = project.extract().stat().st_mtime_ns
    second = project.extract(overwrite=True).stat().st_mtime_ns
    assert second > first
    assert project.extract().stat().st_mtime_ns == second


def test_overwriting_is_forbidden_for_the_call_it_is_said_in(tmp_path: Path, store: Path) -> None:
    project = ForeignProject(tmp_path, store, overwrite=True)
    first = project.extract().stat().st_mtime_ns
    assert project.extract(overwrite=False).stat().st_mtime_ns == first
    assert project.extract().stat().st_mtime_ns > first


def test_what_is_said_of_a_run_that_failed_is_forgotten(tmp_path: Path, store: Path) -> None:
    project = ForeignProject(tmp_path, store)
    first = project.extract().stat().st_mtime_ns
    with pytest.raises(ConfigError, match="needs n_cells"):
        project.extract(partial=True, overwrite=True)
    assert project.extract().stat().st_mtime_ns == first


def test_the_path_of_a_segmentation_is_no_argument(tmp_path: Path, store: Path) -> None:
    """scportrait documents one, and takes none either."""
    step = ForeignProject(tmp_path, store).step
    with pytest.raises(TypeError, match="unexpected keyword argument 'input_segmentation_path'"):
        step(input_segmentation_path="segmentation.h5")
    with pytest.raises(ConfigError, match=r"partial = 'segmentation\.h5': must be True or False \(the filehandler"):
        step("segmentation.h5")
