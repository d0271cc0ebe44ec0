"""What is extracted and SpatialData: the file's table annotates the mask, in memory and in the project's store."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import spatialdata
from spatialdata.models import TableModel

import restatement
from cellstamp import HDF5CellExtraction, Project, read_h5sc
from cellstamp.errors import InputError, OutputError
from cellstamp.source.library_messages import quiet
from cellstamp.source.load import staging
from cellstamp.source.load.store import open_sdata
from conftest import make_cells, write_store
from stores import CYTOSOL, NUCLEUS

# anndata's own doing, when rows of a table are taken
pytestmark = pytest.mark.filterwarnings("ignore:The 'mode.chained_assignment' option:DeprecationWarning")

REPOSITORY = Path(__file__).parents[1]
IMAGE, NUCLEI, CELLS = make_cells()
IDS, XY = restatement.centers(NUCLEI)


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    return {"threads": 1, "image_size": 40, "cache": str(tmp_path / "cache"), "progress": False}


both_formats = pytest.mark.parametrize("project", [2, 3], ids=["zarr 2", "zarr 3"], indirect=True)


@pytest.fixture
def project(request: pytest.FixtureRequest, tmp_path: Path, config: dict[str, Any]) -> Project:
    """A project with an extraction, its store in either format."""
    masks = {NUCLEUS: NUCLEI, CYTOSOL: CELLS}
    write_store(tmp_path / "project" / "scportrait.sdata", IMAGE, masks, zarr_format=getattr(request, "param", 3))
    project = Project(tmp_path / "project", config)
    project.extract()
    return project


def file_of(project: Project) -> Path:
    return Path(str(project.extraction_f.output_path))


def snapshot(store: Path) -> dict[str, bytes]:
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def check_table(table: anndata.AnnData, region: str = NUCLEUS) -> None:
    """The table has every cell, where it is, and what it belongs to."""
    assert table.obs["scportrait_cell_id"].tolist() == IDS.tolist()
    assert np.allclose(table.obs[["x", "y"]].to_numpy(), XY, rtol=0, atol=1e-9)
    assert np.array_equal(table.obs[["x", "y"]].to_numpy(), table.obsm["spatial"])
    assert isinstance(table.obs["region"].dtype, pd.CategoricalDtype)
    assert table.obs["region"].astype(str).tolist() == [region] * IDS.size
    assert table.uns["spatialdata_attrs"] == {
        "region": region,
        "region_key": "region",
        "instance_key": "scportrait_cell_id",
    }
    TableModel().validate(table)


def check_joins(sdata: spatialdata.SpatialData, name: str, region: str = NUCLEUS) -> None:
    """SpatialData's own functions find the cells of the mask in the table."""
    assert name in spatialdata.get_element_annotators(sdata, region)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Element type `labels` not supported for 'right' join")
        _, matched = spatialdata.match_element_to_table(sdata, element_name=region, table_name=name)
    assert matched.obs["scportrait_cell_id"].tolist() == IDS.tolist()
    if np.lib.NumpyVersion(np.__version__) < "2.2.0":  # a deep copy of text arrays, as in get_values, crashes Python
        return
    values = spatialdata.get_values("x", sdata=sdata, element_name=region, table_name=name)
    assert np.allclose(values.loc[IDS, "x"].to_numpy(float), XY[:, 0])


# --- in memory -------------------------------------------------------------------------------------------------------


def by_anndata(path: Path) -> anndata.AnnData:
    return anndata.read_h5ad(path)


def by_us(path: Path) -> anndata.AnnData:
    return read_h5sc(path)


def by_us_without_images(path: Path) -> anndata.AnnData:
    return read_h5sc(path, images=False)


@pytest.mark.parametrize("read", [by_anndata, by_us, by_us_without_images])
def test_the_file_is_a_table_of_the_mask(project: Project, read: Callable[[Path], anndata.AnnData]) -> None:
    table = read(file_of(project))
    check_table(table)
    sdata = project.sdata
    sdata["cells"] = table
    check_joins(sdata, "cells")


@pytest.mark.parametrize("mask", [NUCLEUS, CYTOSOL])
def test_of_one_mask_the_table_annotates_that(tmp_path: Path, config: dict[str, Any], mask: str) -> None:
    store = write_store(tmp_path / "s.zarr", IMAGE, {mask: NUCLEI})
    step = HDF5CellExtraction(config, tmp_path / "out", filehandler=store)
    step()
    sdata = open_sdata(store)
    sdata["cells"] = read_h5sc(str(step.output_path), images=False)
    check_table(sdata["cells"], mask)
    check_joins(sdata, "cells", mask)


@both_formats
def test_a_table_in_memory_goes_to_the_disk_and_back(tmp_path: Path, project: Project) -> None:
    sdata = project.sdata
    sdata["cells"] = read_h5sc(file_of(project), images=False)
    with quiet():
        sdata.write(tmp_path / "copy.zarr")
    again = open_sdata(tmp_path / "copy.zarr")
    check_table(again["cells"])
    check_joins(again, "cells")


# --- in the project's store ------------------------------------------------------------------------------------------


@both_formats
def test_a_table_comes_into_the_store(project: Project) -> None:
    format_before = staging.zarr_format(Path(project.sdata_path))
    project.add_table()
    assert staging.zarr_format(Path(project.sdata_path)) == format_before
    sdata = project.sdata
    assert list(sdata.tables) == ["single_cells"]
    assert list(sdata["single_cells"].obsm) == ["spatial"]
    check_table(sdata["single_cells"])
    check_joins(sdata, "single_cells")
    assert "table 'single_cells': 16 cells" in (Path(project.directory) / "processing.log").read_text()
    project.add_table("again")
    assert sorted(project.sdata.tables) == ["again", "single_cells"]
    assert np.array_equal(sdata["seg_all_nucleus"].to_numpy(), NUCLEI)


def test_the_store_goes_to_the_disk_and_back_with_its_table(tmp_path: Path, project: Project) -> None:
    project.add_table()
    with quiet():
        project.sdata.write(tmp_path / "copy.zarr")
    check_joins(open_sdata(tmp_path / "copy.zarr"), "single_cells")


def test_cells_can_be_chosen_by_the_table_made_of_an_extraction(project: Project) -> None:
    """From an extraction to a choice in scanpy's way, and to an extraction of the chosen."""
    project.add_table()
    sdata = project.sdata
    sdata["single_cells"].obs["left"] = sdata["single_cells"].obs["x"] < 100
    config = {**project.extraction_f.config, "cells": {"table": "single_cells", "column": "left"}}
    step = HDF5CellExtraction(config, Path(project.directory) / "left", filehandler=sdata)
    step()
    found = read_h5sc(str(step.output_path), images=False)
    assert found.obs["scportrait_cell_id"].tolist() == IDS[XY[:, 0] < 100].tolist()


def test_a_table_that_is_there_is_replaced_when_that_is_asked_for(project: Project) -> None:
    project.extract(partial=True, n_cells=3)
    project.add_table()
    before = snapshot(Path(project.sdata_path))
    with pytest.raises(OutputError, match=r"tables/single_cells already exists\. Set overwrite=True"):
        project.add_table()
    assert snapshot(Path(project.sdata_path)) == before
    project.extract(overwrite=True)
    project.add_table(overwrite=True)
    check_table(project.sdata["single_cells"])


def test_a_table_comes_whole_or_not_at_all(project: Project) -> None:
    store = Path(project.sdata_path)
    (store / "tables").write_text("in the way of a folder: permissions would not stop everyone")
    before = snapshot(store)
    with pytest.raises(OSError, match=r"tables"):
        project.add_table()
    assert snapshot(store) == before
    (store / "tables").unlink()
    project.add_table()
    check_table(project.sdata["single_cells"])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "name = '': a table's name must have only letters"),
        ("../x", "a table's name must have only letters"),
        (".hidden", "a table's name must have only letters"),
        ("__x", "a table's name must have only letters"),
        ("a b", "a table's name must have only letters"),
        (3, "name = 3: a table's name must have only letters"),
        ("input_image", "name = 'input_image': images/input_image in .* has this name; choose another"),
        ("SEG_all_nucleus", "labels/seg_all_nucleus in .* has this name; choose another"),
    ],
)
def test_a_name_that_cannot_be_used(project: Project, name: Any, told: str) -> None:
    before = snapshot(Path(project.sdata_path))
    with pytest.raises(InputError, match=told):
        project.add_table(name)
    assert snapshot(Path(project.sdata_path)) == before


def test_there_is_no_extraction_yet(tmp_path: Path, config: dict[str, Any]) -> None:
    project = Project(tmp_path / "project", config)
    project.load_input_from_array(IMAGE)
    project.load_segmentation(nucleus=NUCLEI)
    with pytest.raises(InputError, match="there is no extraction yet; call extract"):
        project.add_table()


def test_the_mask_has_left_the_store(tmp_path: Path, config: dict[str, Any]) -> None:
    write_store(tmp_path / "other.zarr", IMAGE, {"cells": CELLS}, image_name="image")
    project = Project(tmp_path / "project", config, overwrite=True)
    project.load_input_from_array(IMAGE)
    project.load_segmentation(nucleus=NUCLEI)
    project.extract()
    project.load_input_from_sdata(tmp_path / "other.zarr", "image", cytosol_segmentation_name="cells")
    with pytest.raises(
        InputError, match="the labels or shapes 'seg_all_nucleus' of the extraction's cells are missing"
    ):
        project.add_table()


def test_a_file_that_does_not_say_what_its_cells_are_of(project: Project) -> None:
    import h5py

    with h5py.File(file_of(project), "r+") as file:
        del file["uns/spatialdata_attrs"]
    with pytest.raises(InputError, match=r"does not name the mask of its cells\. Extract again"):
        project.add_table()
    assert not project.sdata.tables


# --- the documentation's example -------------------------------------------------------------------------------------


def test_the_example_in_the_documentation_runs(
    tmp_path: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (REPOSITORY / "docs" / "output.md").read_text()
    shown = re.search(r"## Join the cells to .*?```python\n(.*?)\n```.*?`(sdata\[.*?)`", page, re.DOTALL)
    assert shown is not None
    project = Project(tmp_path / "my_project", config)
    project.load_input_from_array(IMAGE)
    project.load_segmentation(nucleus=NUCLEI, cytosol=CELLS)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    with quiet():
        exec(shown[1], names)
    check_joins(names["project"].sdata, "single_cells")
    path = tmp_path / "my_project" / "extraction" / "data" / "single_cells.h5sc"
    with quiet():
        exec(shown[2], names | {"path": path, "read_h5sc": read_h5sc})
    check_joins(names["sdata"], "cells")
