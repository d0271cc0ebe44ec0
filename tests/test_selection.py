"""The key ``cells``: each way to choose gives the rows of the full extraction, and what cannot be meant is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import spatialdata
import yaml

import restatement
from cellstamp import HDF5CellExtraction, Project
from cellstamp.errors import ConfigError
from cellstamp.h5sc.validate import errors_in
from cellstamp.source.library_messages import quiet
from conftest import make_cells
from conftest import write_store as write_with_tables
from stores import CYTOSOL, NUCLEUS

SIZE = 40
IMAGE, NUCLEI, CELLS = make_cells()
ALL = np.unique(NUCLEI)[1:].astype(np.int64)
"""3, 6, ..., 48: four rows of four; their centres are farther than half a window from the border."""
CHOSEN = [6, 9, 33, 48]


def make_table(mask: str = NUCLEUS, regions: list[str] | None = None, **columns: Any) -> anndata.AnnData:
    """A table with a row for each cell, last cell first, that annotates a mask; columns are by ascending id."""
    obs = pd.DataFrame({"cell_id": ALL.astype(np.int32)} | columns, index=[f"cell {cell}" for cell in ALL])
    obs["region"] = pd.Categorical([mask] * len(ALL) if regions is None else regions)
    obs["good"] = np.isin(ALL, CHOSEN)
    named = sorted(set(obs["region"]))
    with quiet():
        return spatialdata.models.TableModel.parse(
            anndata.AnnData(obs=obs.iloc[::-1]), region=named, region_key="region", instance_key="cell_id"
        )


@pytest.fixture(scope="module")
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    third = len(ALL) // 2
    tables = {
        "measured": make_table(
            text=["a"] * len(ALL),
            area=np.ones(len(ALL), np.float32),
            maybe=pd.array([None, *[True] * (len(ALL) - 2), None], "boolean"),
            surely=pd.array(np.isin(ALL, CHOSEN), "boolean"),
            never=[False] * len(ALL),
        ),
        "of_cytosol": make_table(CYTOSOL),
        "of_both": make_table(regions=[NUCLEUS] * third + [CYTOSOL] * (len(ALL) - third)),
        "of_others": make_table("tissue"),
        "with_negatives": make_table(cell_id=np.where(ALL == 9, -1, ALL)),
        "plain": anndata.AnnData(obs=pd.DataFrame({"good": [True]}, index=["0"])),
    }
    masks = {NUCLEUS: NUCLEI, CYTOSOL: CELLS}
    path = tmp_path_factory.mktemp("chosen") / "s.zarr"
    with pytest.warns(UserWarning, match="The table is annotating"):
        return write_with_tables(path, IMAGE, masks, tables=tables, zarr_format=getattr(request, "param", 3))


def read(store: Path) -> spatialdata.SpatialData:
    with quiet(), pytest.warns(UserWarning, match="The table is annotating"):
        return spatialdata.read_zarr(store)


@pytest.fixture
def make_step(tmp_path: Path, store: Path) -> Callable[..., HDF5CellExtraction]:
    def make(cells: Any, handler: Any = None, folder: str = "out", **config: Any) -> HDF5CellExtraction:
        keys = {"threads": 1, "image_size": SIZE, "cache": str(tmp_path / "cache"), "cells": cells, **config}
        return HDF5CellExtraction(keys, tmp_path / folder, filehandler=handler or store)

    return make


MakeStep = Callable[..., HDF5CellExtraction]


def csv_of(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def rows_of(step: HDF5CellExtraction) -> dict[int, tuple[bytes, ...]]:
    """Each cell's centre and planes as they are in the file."""
    with h5py.File(str(step.output_path)) as file:
        images, ids = file["obsm/single_cell_images"], file["obs/scportrait_cell_id"][:].tolist()
        assert ids == sorted(ids)
        chunks = [(images.id.read_direct_chunk((row, 0, 0, 0))[1],) for row in range(len(ids))]
        spatial = file["obsm/spatial"][:]
    return {cell: (xy.tobytes(), *planes) for cell, xy, planes in zip(ids, spatial, chunks, strict=True)}


WAYS: dict[str, Callable[[Path], Any]] = {
    "list": lambda folder: [48, 9, 6, 33, 9],
    "array": lambda folder: np.array(CHOSEN, np.uint64),
    "ids alone": lambda folder: csv_of(folder / "c.csv", "48\n9\n\n33\n 6 \n9\n"),
    "header": lambda folder: str(csv_of(folder / "c.csv", "good ones\n48\n9\n33\n6")),
    "columns": lambda folder: csv_of(folder / "c.csv", ",area,Cell_ID\n0,7,48\n1,8,9.0\n2,6,33\n3,,6\n"),
    "semicolons": lambda folder: csv_of(folder / "c.csv", "\ufefflabel;area\r\n48;1,5\r\n9;2\r\n33;2\r\n6;2\r\n"),
    "comment": lambda folder: csv_of(folder / "c.csv", "# ids\n48\n9\n33\n6\n"),
    "boolean": lambda folder: {"table": "measured", "column": "good"},
    "nullable boolean": lambda folder: {"table": "measured", "column": "surely"},
    "of the other mask": lambda folder: {"table": "of_cytosol", "column": "good"},
}


# tables are what differs between the formats
@pytest.mark.parametrize(
    ("store", "way"), [*((3, way) for way in WAYS), (2, "boolean"), (2, "nullable boolean")], indirect=["store"]
)
def test_chosen_cells_are_the_rows_of_the_full_extraction(tmp_path: Path, make_step: MakeStep, way: str) -> None:
    full, chosen = make_step(None, folder="full"), make_step(WAYS[way](tmp_path))
    full()
    chosen()
    rows = rows_of(full)
    assert set(CHOSEN) < set(rows)
    assert rows_of(chosen) == {cell: rows[cell] for cell in CHOSEN}
    assert errors_in(str(chosen.output_path)) == []


def test_values_are_those_of_the_plain_restatement(make_step: MakeStep) -> None:
    step = make_step(CHOSEN, threads=2, max_batch_size=1)
    step()
    ids, _, stamps = restatement.extract([NUCLEI, CELLS], IMAGE, SIZE)
    with h5py.File(str(step.output_path)) as file:
        assert restatement.same_bits(file["obsm/single_cell_images"][:], stamps[np.isin(ids, CHOSEN)])


def test_of_a_table_of_two_masks_the_main_ones_rows_count(make_step: MakeStep) -> None:
    step = make_step({"table": "of_both", "column": "good"})
    step()
    assert list(rows_of(step)) == [6, 9]


@pytest.mark.parametrize("changed", [False, True], ids=["as it was read", "with another column"])
def test_a_table_of_a_spatialdata_object_is_read_as_it_is_in_memory(
    store: Path, make_step: MakeStep, *, changed: bool
) -> None:
    sdata, column = read(store), "good"
    if changed:
        column = "new"
        sdata["measured"].obs["new"] = pd.array(sdata["measured"].obs["cell_id"] == 9, "boolean")
    step = make_step({"table": "measured", "column": column}, sdata)
    step()
    assert list(rows_of(step)) == ([9] if changed else CHOSEN)


def test_counts_add_up_and_removed_cells_are_chosen_ones(tmp_path: Path, make_step: MakeStep) -> None:
    step = make_step([3, 6, 9, 12, 24, 27, 30, 33], image_size=60)
    step(partial=True, n_cells=1)
    file = Path(str(step.output_path))
    about = anndata.read_h5ad(file).uns["cellstamp"]
    assert about["cells_in_mask"] == 16
    assert about["cells_not_chosen"] == 8
    assert (about["cells_removed_at_border"], about["cells_not_drawn"], about["cells_written"]) == (6, 1, 1)
    assert set(rows_of(step)) < {30, 33}
    removed = (file.parent / "removed_classes.csv").read_text().split()
    assert list(map(int, removed)) == [3, 6, 9, 12, 24, 27]
    assert "not chosen: 8\n" in (Path(step.directory) / "partial_processing.log").read_text()
    assert errors_in(file) == []


def test_none_of_the_chosen_is_far_enough_from_the_border(make_step: MakeStep) -> None:
    step = make_step([3, 48], image_size=100)
    with pytest.warns(UserWarning, match=r"none of the 2 chosen cells of 'seg_all_nucleus' is more than 50 pixels"):
        step()
    assert step.output_path is None


def test_a_run_with_other_cells_does_not_go_on_with_this_one(make_step: MakeStep) -> None:
    texts = []
    for number, cells in enumerate(([6, 9], [6, 33])):
        step = make_step(cells, folder=str(number))
        step()
        with h5py.File(str(step.output_path)) as file:
            texts.append(json.loads(file["uns/cellstamp/made_from"].asstr()[()])["cells"])
    assert texts[0] != texts[1]


@pytest.mark.parametrize("column", [np.array, pd.Series, pd.Index], ids=["array", "Series", "Index"])
def test_a_project_keeps_ids_of_numpy_and_pandas_in_its_configuration(tmp_path: Path, column) -> None:
    keys = {"threads": np.int64(1), "image_size": SIZE, "cache": str(tmp_path), "cells": column(CHOSEN)}
    project = Project(tmp_path / "project", {"HDF5CellExtraction": keys})
    project.load_input_from_array(IMAGE)
    project.load_segmentation(nucleus=NUCLEI)
    project.extract()
    assert project.h5sc.obs["scportrait_cell_id"].tolist() == CHOSEN
    kept = yaml.safe_load((tmp_path / "project" / "config.yml").read_text())["HDF5CellExtraction"]
    assert kept == {"threads": 1, "image_size": SIZE, "cache": str(tmp_path), "cells": CHOSEN}


# --- what cannot be meant --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        (
            [6, 7, 9],
            r"cells: 1 of 3 cells are not among the 16 cells of 'seg_all_nucleus' that have a centre: 7\. Give ids",
        ),
        (range(1, 40), r"cells: 26 of 39 cells are not among the 16 cells .*: 1, 2, 4, 5, 7, \.\.\.\. Give ids"),
        ([2**63 - 1], r"cells: 1 of 1 cells are not among .*: 9223372036854775807\."),
        (
            {"table": "measure", "column": "good"},
            r"cells = table 'measure', .*: this table is not in .*s\.zarr; it has m",
        ),
        (
            {"table": "measured", "column": "god"},
            r"column 'god': this column is missing; the table has cell_id, text, area, maybe, surely, never, region,",
        ),
        ({"table": "measured", "column": "text"}, r"must be a boolean column \(it has text\); the table"),
        ({"table": "measured", "column": "cell_id"}, r"must be a boolean column \(it has integers\)"),
        ({"table": "measured", "column": "area"}, r"must be a boolean column \(it has numbers\)"),
        ({"table": "measured", "column": "region"}, r"must be a boolean column"),
        ({"table": "measured", "column": "maybe"}, r"2 of 16 cells have a missing value \(NA\); set"),
        ({"table": "measured", "column": "never"}, r"the column is true for none of 16 cells"),
        (
            {"table": "of_others", "column": "good"},
            r"the table annotates tissue, not the cells' mask \(seg_all_nucleus or seg_all_cytosol\)\. Choose",
        ),
        (
            {"table": "with_negatives", "column": "good"},
            r"the table's column of ids, 'cell_id', must have integers \(it has negative numbers\)",
        ),
        ({"table": "plain", "column": "good"}, r"the table has no valid region_key \(N"),
    ],
)
@pytest.mark.parametrize("in_memory", [False, True])
def test_cells_that_cannot_be_meant(
    store: Path, make_step: MakeStep, cells: Any, told: str, *, in_memory: bool
) -> None:
    sdata = read(store) if in_memory else None
    if in_memory:
        told = told.replace(r".*s\.zarr", "the SpatialData object")
    with pytest.raises(ConfigError, match=told):
        make_step(cells, sdata)()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", r"the file has no ids"),
        ("cell_id\n", r"the file has no ids"),
        ("6\n9x\n", r"c\.csv', line 2: '9x' is not a cell id; ids are integers from 1 to 2\*\*63 - 1"),
        ("6x\n9\n", r"line 1: '6x' is not a cell id"),
        ("cell\n6\n\n9.5\n", r"line 4: '9\.5' is not a cell id"),
        ("6\n0\n", r"line 2: '0' is not a cell id"),
        ("-6\n9\n", r"line 1: '-6' is not a cell id"),
        (f"6\n{2**63}\n", r"line 2: '9223372036854775808' is not a cell id"),
        ("6\n" + "9" * 5000, r"line 2: '9{40}\.\.\.' is not a cell id"),
        ("cell_id,area\n6,1\n,2\n", r"line 3: '' is not a cell id"),
        ("area,cell_id\n6,1\n5\n", r"line 3: '' is not a cell id"),
        (
            "area,name\n6,1\n",
            r"no column of ids found; it has area, name; one must be named scp",
        ),
        ("6,1\n9,2\n", r"the file has 2 columns and no header; one must be named"),
        ("6\n7\n", r"c\.csv': 1 of 2 cells are not among the 16 cells of 'seg_all_nucleus' that have a centre: 7\."),
    ],
)
def test_a_file_that_cannot_be_meant(tmp_path: Path, make_step: MakeStep, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make_step(csv_of(tmp_path / "c.csv", text))()


def test_a_file_that_is_none(tmp_path: Path, make_step: MakeStep) -> None:
    with pytest.raises(ConfigError, match=r"cells = 'none\.csv': file not found \(/.*none\.csv\)"):
        make_step("none.csv")()
    with pytest.raises(ConfigError, match=r"this is a folder, not a CSV file"):
        make_step(tmp_path)()
    (tmp_path / "image.tif").write_bytes(bytes(range(256)))
    with pytest.raises(ConfigError, match=r"image\.tif': cannot be read as a CSV file"):
        make_step(tmp_path / "image.tif")()


def test_what_is_wrong_is_told_before_centres_are_computed(tmp_path: Path, store: Path, make_step: MakeStep) -> None:
    fresh = shutil.copytree(store, tmp_path / "fresh.zarr", ignore=shutil.ignore_patterns("points"))
    with pytest.raises(ConfigError, match="this column is missing"):
        make_step({"table": "measured", "column": "god"}, fresh)()
    assert not (fresh / "points").exists()
