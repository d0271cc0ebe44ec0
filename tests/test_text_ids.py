"""Cells that tables and files name by text, or in columns of many names: they are found in the mask, or told how."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import spatialdata
from spatialdata.models import Image2DModel, Labels2DModel, ShapesModel, TableModel
from spatialdata.transformations import Scale

import restatement
from cellstamp import HDF5CellExtraction, Project, read_h5sc
from cellstamp.errors import ConfigError
from cellstamp.source.find.id_files import read_ids
from cellstamp.source.library_messages import quiet
from cellstamp.source.load.store import open_sdata
from conftest import make_cells

IMAGE, NUCLEI, CELLS = make_cells()
ALL, XY = restatement.centers(CELLS)
TEXTS = [f"aaaa{'abcdefghijklmnop'[n]}icg-1" for n in range(len(ALL))]
GOOD = np.isin(ALL, [6, 9, 33, 48])
CHOSEN = ALL[GOOD].tolist()
CHOSEN_TEXTS = [text for text, good in zip(TEXTS, GOOD, strict=True) if good]
MICRONS = 0.2125


def make_table(region: str, **columns: Any) -> anndata.AnnData:
    """A table as Xenium has it: cells are named by text; last cell first."""
    obs = pd.DataFrame({"cell_id": TEXTS, "region": pd.Categorical([region] * len(ALL)), "good": GOOD})
    obs["cluster"] = pd.Categorical(np.where(GOOD, "T", "B"))
    for name, values in columns.items():
        obs[name] = values
    with quiet():
        table = anndata.AnnData(obs=obs, obsm={"spatial": XY * MICRONS})[::-1].copy()
        return TableModel.parse(table, region=region, region_key="region", instance_key="cell_id")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a store with the mask `cell_labels`, circles in microns, and tables."""

    def write(
        tables: dict[str, anndata.AnnData], *, shapes: bool = True, name: str = "s.zarr", mask: Any = CELLS
    ) -> Path:
        with quiet():
            circles = ShapesModel.parse(
                XY * MICRONS,
                geometry=0,
                radius=3.0,
                index=pd.Index(TEXTS),
                transformations={"global": Scale([1 / MICRONS, 1 / MICRONS], axes=("x", "y"))},
            )
            sdata = spatialdata.SpatialData(
                images={"image": Image2DModel.parse(IMAGE, dims=("c", "y", "x"))},
                labels={"cell_labels": Labels2DModel.parse(mask, dims=("y", "x"))},
                shapes={"cell_circles": circles} if shapes else {},
                tables=tables,
            )
            sdata.write(tmp_path / name)
        return tmp_path / name

    return write


Write = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., list[int]]:
    """Extract cells; returns their ids."""

    def run(handler: Any, cells: Any, **config: Any) -> list[int]:
        keys = {"threads": 1, "image_size": 40, "cache": str(tmp_path / "cache"), "image": "image", "cells": cells}
        keys |= {"cytosol_labels": "cell_labels", **config}
        step = HDF5CellExtraction(keys, tmp_path / "out", overwrite=True, filehandler=handler)
        step()
        found: list[int] = read_h5sc(step.output_path).obs["scportrait_cell_id"].tolist()
        return found

    return run


Run = Callable[..., list[int]]

pytestmark = [
    pytest.mark.filterwarnings("ignore:The table is annotating"),
    pytest.mark.filterwarnings("ignore:The 'mode.chained_assignment' option:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Transforming to str index"),
]


def csv_of(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def selection(folder: Path) -> Path:
    """A selection as Xenium Explorer exports it."""
    rows = "".join(f"{text},Unassigned,12,55.3\n" for text in CHOSEN_TEXTS)
    head = "#Selection name: Selection 1\n#Area (µm^2): 1234.5\n"
    return csv_of(folder / "selection.csv", f"{head}Cell ID,Cluster,Transcripts,Area (µm^2)\n{rows}")


WAYS: dict[str, Callable[[Path], Any]] = {
    "column": lambda folder: {"table": "table", "column": "good"},
    "list of text": lambda folder: CHOSEN_TEXTS[::-1],
    "series of text": lambda folder: pd.Series(CHOSEN_TEXTS),
    "Xenium Explorer": selection,
    "text alone": lambda folder: csv_of(folder / "c.csv", "\n".join(CHOSEN_TEXTS)),
    "text with a heading": lambda folder: csv_of(folder / "c.csv", "\n".join(["good ones", *CHOSEN_TEXTS])),
    "quoted": lambda folder: csv_of(folder / "c.csv", "\n".join(f'"{text}"' for text in ["cell_id", *CHOSEN_TEXTS])),
}


@pytest.mark.parametrize(
    ("way", "region"), [*((way, "cell_circles") for way in WAYS), ("column", "cell_labels"), ("quoted", "cell_labels")]
)
def test_text_ids_are_joined_through_the_tables_column(
    tmp_path: Path, write: Write, run: Run, way: str, region: str
) -> None:
    # labels are not the rows' numbers: the ids 3, 6, 9, ...
    store = write({"table": make_table(region, cell_labels=ALL.astype(np.int64))})
    assert run(store, WAYS[way](tmp_path)) == CHOSEN


@pytest.mark.parametrize("way", ["column", "list of text"])
def test_a_table_in_memory_is_joined_too(tmp_path: Path, write: Write, run: Run, way: str) -> None:
    sdata = open_sdata(write({"table": make_table("cell_circles", cell_labels=ALL)}))
    assert run(sdata, WAYS[way](tmp_path)) == CHOSEN


def test_the_index_of_a_table_may_hold_the_texts(write: Write, run: Run) -> None:
    table = make_table("cell_labels")
    table.obs_names = [f"cellid_{cell:09d}-1" for cell in ALL[::-1]]
    table.obs["cell_id"] = ALL[::-1]
    store = write({"table": table, "other": make_table("cell_circles")})
    assert run(store, [f"cellid_{cell:09d}-1" for cell in CHOSEN]) == CHOSEN


def test_a_project_that_was_loaded_from_such_a_store(tmp_path: Path, write: Write) -> None:
    store = write({"table": make_table("cell_circles", cell_labels=ALL)})
    keys = {"threads": 1, "image_size": 40, "cache": str(tmp_path / "cache")}
    project = Project(tmp_path / "project", keys | {"cells": {"table": "table", "column": "good"}})
    with quiet():
        project.load_input_from_sdata(store, "image", cytosol_segmentation_name="cell_labels")
    project.extract()
    assert project.h5sc.obs["scportrait_cell_id"].tolist() == CHOSEN


@pytest.mark.parametrize(("name", "dtype"), [("mask_id", np.int32), ("mask_id", np.float64), ("leiden", np.uint8)])
def test_the_column_with_the_masks_ids_can_be_named(write: Write, run: Run, name: str, dtype: Any) -> None:
    store = write({"table": make_table("cell_circles", **{name: ALL.astype(dtype)})})
    assert run(store, {"table": "table", "column": "good", "ids": name}) == CHOSEN


@pytest.mark.parametrize("region", ["cell_circles", "cell_labels"])
def test_centres_of_a_table_of_circles_follow_their_transformation(write: Write, run: Run, region: str) -> None:
    table = make_table(region, cell_labels=ALL)
    if region == "cell_labels":
        table.obsm["spatial"] = table.obsm["spatial"] / MICRONS
    assert run(write({"table": table}), CHOSEN, centers="table") == CHOSEN


# --- what cannot be joined --------------------------------------------------------------------------------------------

TOLD = (
    r"the table 'table' names cells by text \('aaaapicg-1', 'aaaaoicg-1', 'aaaanicg-1', \.\.\.\), the mask "
    r"'cell_labels' by integers \(3, 6, 9, \.\.\.\)"
)


def code_in(message: str) -> str:
    return message[message.index("import spatialdata") :]


@pytest.mark.parametrize("way", ["column", "list of text", "Xenium Explorer"])
def test_the_code_that_the_error_prints_joins_them(tmp_path: Path, write: Write, run: Run, way: str) -> None:
    store, cells = write({"table": make_table("cell_circles")}), WAYS[way](tmp_path)
    with pytest.raises(ConfigError, match=TOLD) as told:
        run(store, cells)
    names: dict[str, Any] = {}
    with quiet():
        exec(code_in(str(told.value)), names)
    assert run(names["sdata"], cells) == CHOSEN


def test_the_code_joins_no_row_to_the_neighbour_of_a_cell_that_the_mask_lacks(write: Write, run: Run) -> None:
    absent = np.isin(ALL, CHOSEN[:2])
    mask = np.where(np.isin(CELLS, CHOSEN[:2]), 0, CELLS)
    store, cells = write({"table": make_table("cell_circles")}, mask=mask), {"table": "table", "column": "good"}
    with pytest.raises(ConfigError, match="names cells by text") as told:
        run(store, cells)
    names: dict[str, Any] = {}
    with quiet():
        exec(code_in(str(told.value)), names)
    obs = names["sdata"]["table"].obs
    np.testing.assert_array_equal(obs["cell_labels"], np.where(absent, 0, ALL)[::-1])
    with pytest.raises(ConfigError, match="2 of 4 cells have no id in the mask"):
        run(names["sdata"], cells)
    obs["good"] &= obs["cell_labels"] > 0
    assert run(names["sdata"], cells) == CHOSEN[2:]


@pytest.mark.parametrize(
    "columns",
    [{}, {"cell_labels": 1}, {"label": np.arange(len(ALL)) % 3}, {"cell_labels": -ALL}, {"cell_labels": ALL + 0.5}],
    ids=["none", "the same for all", "clusters", "negative", "fractions"],
)
def test_a_column_that_holds_no_ids_joins_nothing(write: Write, run: Run, columns: dict[str, Any]) -> None:
    store = write({"table": make_table("cell_circles", **columns)}, shapes=False)
    with pytest.raises(ConfigError, match=rf"{TOLD}.*the key ids, beside table and column; if not, add such a column"):
        run(store, {"table": "table", "column": "good"})


def test_columns_that_disagree_are_an_error_with_the_key_that_chooses(write: Write, run: Run) -> None:
    table = make_table("cell_circles", cell_label=ALL, label=ALL[::-1])
    store = write({"table": table})
    cells = {"table": "table", "column": "good"}
    told = r"column 'good': the columns 'cell_label' and 'label' of the table have different ids\. Name the one with "
    with pytest.raises(ConfigError, match=told) as error:
        run(store, cells)
    ids = re.search(r"the mask 'cell_labels', like (ids: (\w+)), beside table", str(error.value))
    assert ids is not None
    assert run(store, cells | {"ids": ids[2]}) == CHOSEN


@pytest.mark.parametrize(
    "columns",
    [
        {"cell_label": ALL, "label": ALL},
        {"cell_label": ALL, "label": ALL.astype(np.float64)},
        {"cell_label": ALL, "label": np.arange(len(ALL)) % 3},
        {"cell_labels": ALL, "label": ALL[::-1]},
    ],
    ids=["equal", "another type", "clusters", "named like the mask"],
)
def test_columns_that_agree_or_hold_no_ids_are_no_choice(write: Write, run: Run, columns: dict[str, Any]) -> None:
    store = write({"table": make_table("cell_circles", **columns)})
    assert run(store, {"table": "table", "column": "good"}) == CHOSEN


def test_a_text_that_no_table_has(write: Write, run: Run) -> None:
    store = write({"table": make_table("cell_circles", cell_labels=ALL)})
    with pytest.raises(ConfigError, match=r"cells: 1 of 2 cells are not in table 'table', .*: 'aaaazicg-1'$"):
        run(store, [TEXTS[0], "aaaazicg-1"])
    told = r"cells: the cells are named by text \('x'\), but ids in the mask 'cell_labels' are integers .*no table in"
    with pytest.raises(ConfigError, match=told):
        run(store, ["x"])


def test_cells_without_an_id_in_the_mask_are_counted(write: Write, run: Run) -> None:
    labels = np.where(np.isin(ALL, CHOSEN[:2]), 0, ALL)
    store = write({"table": make_table("cell_circles", cell_labels=labels)})
    for cells in ({"table": "table", "column": "good"}, CHOSEN_TEXTS):
        with pytest.raises(ConfigError, match=r"2 of 4 cells have no id in the mask \(0 or NA\)\. Leave them out"):
            run(store, cells)


def test_text_that_is_two_rows(write: Write, run: Run) -> None:
    table = make_table("cell_circles", cell_labels=ALL)
    table.obs["cell_id"] = table.obs["cell_id"].replace(TEXTS[1], TEXTS[0])
    with pytest.raises(
        ConfigError, match=r"'aaaaaicg-1' names 2 rows of cell_labels in table 'table'; it must name one"
    ):
        run(write({"table": table}), [TEXTS[0]])


def test_the_column_that_is_named_must_hold_ids(write: Write, run: Run) -> None:
    store = write({"table": make_table("cell_circles")})
    with pytest.raises(ConfigError, match=r"the column 'mask_id' \(ids\) is missing; the table has cell_id, region"):
        run(store, {"table": "table", "column": "good", "ids": "mask_id"})
    with pytest.raises(ConfigError, match=r"the column 'cluster' must have integer ids \(it has text\)"):
        run(store, {"table": "table", "column": "good", "ids": "cluster"})


def test_the_code_printed_for_a_column_of_categories_makes_one_of_true_and_false(write: Write, run: Run) -> None:
    sdata = open_sdata(write({"table": make_table("cell_circles", cell_labels=ALL)}))
    with pytest.raises(ConfigError, match=r"it has text.*Choose one value: sdata\['table'\]") as told:
        run(sdata, {"table": "table", "column": "cluster"})
    code = str(told.value).rpartition("Choose one value: ")[2]
    exec(code, {"sdata": sdata})
    expected = GOOD if code.endswith("'T'") else ~GOOD
    assert run(sdata, {"table": "table", "column": "chosen"}) == ALL[expected].tolist()


# --- files of programs ------------------------------------------------------------------------------------------------

NUMBERS: dict[str, str] = {
    "MCMICRO": "CellID,DNA_1,X_centroid,Y_centroid,Area\n6,3.5,10.2,11.9,100\n9,3.1,40,50,120\n",
    "CellProfiler": "ImageNumber,ObjectNumber,AreaShape_Area\n1,6,100\n1,9,120\n",
    "steinbock": "Object,CD3,CD8\n6,0.1,0.2\n9,0.3,0.4\n",
    "CosMx, one field": "fov,cell_ID,Area\n3,6,100\n3,9,120\n",
    "MERSCOPE": "EntityID,fov,volume\n1137899000002100006,1,5.5\n1137899000002100009,2,6.5\n",
    "Proseg": "cell,centroid_x,volume\n6,10.2,5.5\n9,40.1,6.5\n",
    "squidpy": ",instance_id,library_id\nA-6,6,slide\nA-9,9,slide\n",
    "napari": "index,label,area,eccentricity\n1,6,100,0.3\n2,9,120,0.5\n",
    "QuPath with labels": "Image\tName\tLabel\tCentroid X µm\nslide.tif\tCell\t6\t10,5\nslide.tif\tCell\t9\t20,5\n",
    "scanpy": ",cell_id,n_counts,leiden\nAAAC-1,6,100,0\nAAAG-1,9,120,1\n",
    "own obs": ",scportrait_cell_id,label,x,y\n0,6,a,1.5,2.5\n1,9,b,3.5,4.5\n",
    "named like the mask": "cell_id,cell_labels\naaaaficg-1,6\naaaafaaa-1,9\n",
    "the same twice": "cell_id,label\n6,6\n9,9\n",
    "pandas with gaps": "\ufeffLabel;area\r\n6.0;1,5\r\n9.0;2\r\n",
    "comments": "# made by hand\n# on a Monday\nlabel\n6\n9\n",
}

TEXT_FILES: dict[str, tuple[str, list[str]]] = {
    "Xenium Explorer": (
        "#Selection name: A\nCell ID,Cluster\naaaaficg-1,x\naaaafaaa-1,y\n",
        ["aaaaficg-1", "aaaafaaa-1"],
    ),
    "sopa": ("cell_id,region\naaaa-1,cells\nbbbb-1,cells\n", ["aaaa-1", "bbbb-1"]),
    "Baysor": ("cell,x,y,n_transcripts\nCRabc-1,10.5,2.5,88\n", ["CRabc-1"]),
    "Visium HD": ("barcode,cluster\ncellid_000000001-1,2\n", ["cellid_000000001-1"]),
    "QuPath": (
        "Image\tObject ID\tClassification\nslide.tif\t3f2a9c1e-8a4b-4a8e-9d0e-1234567890ab\tTumor\n",
        ["3f2a9c1e-8a4b-4a8e-9d0e-1234567890ab"],
    ),
    "scanpy without a column": (",n_counts\nAAAC-1,6\nAAAG-1,9\n", ["AAAC-1", "AAAG-1"]),
    "UUIDs alone": ("3f2a9c1e-8a4b\n412b9c1e-8a4b\n", ["3f2a9c1e-8a4b", "412b9c1e-8a4b"]),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_in_files_of_programs(tmp_path: Path, kind: str) -> None:
    found = read_ids(csv_of(tmp_path / "c.csv", NUMBERS[kind]), masks=["cell_labels"])
    assert [number % 100 for number in sorted(found.numbers)] == [6, 9]
    assert not found.texts


@pytest.mark.parametrize("kind", TEXT_FILES)
def test_texts_in_files_of_programs(tmp_path: Path, kind: str) -> None:
    content, expected = TEXT_FILES[kind]
    found = read_ids(csv_of(tmp_path / "c.csv", content))
    assert found.texts == set(expected)
    assert (found.numbers, found.first) == (frozenset(), None)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("cell_id,label\n6,3\n9,5\n", r"several columns may hold the ids: cell_id, label\. Name one: cells = \{'path"),
        ("fov,cell_ID\n1,6\n2,6\n", r"cells of 2 images \(column 'fov': 1, 2\), and their ids repeat; keep only the"),
        ("ImageNumber,ObjectNumber\n1,6\n1,9\n2,6\n", r"cells of 2 images \(column 'ImageNumber': 1, 2\)"),
        ("area,name\n6,1\n", r"no column of ids found; it has area, name; .* or name it: cells = \{'path"),
        (",area\n0,6\n1,9\n", r"no column of ids found; it has , area; "),
        ("6\naaaa-1\n", r"line 2: 'aaaa-1' is not a cell id; ids are integers"),
        ("cell_id\naaaa-1\n7\n", r"line 2: 'aaaa-1' is not a cell id; ids are integers"),
        ("cell_id,area\naaaa-1,2\n,3\n", r"line 2: 'aaaa-1' is not a cell id"),
        ("#one\n#two\nlabel\n6\nx9\n", r"line 5: 'x9' is not a cell id"),
    ],
)
def test_a_file_of_which_it_is_unclear_what_it_means(tmp_path: Path, content: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_ids(csv_of(tmp_path / "c.csv", content))


@pytest.mark.parametrize("content", ["cell_id,label\n6,3\n9,5\n", "area,name\n6,1\n9,2\n"])
def test_what_the_error_says_to_write_chooses_the_column(tmp_path: Path, write: Write, run: Run, content: str) -> None:
    store, path = write({}), csv_of(tmp_path / "c.csv", content)
    with pytest.raises(ConfigError, match=r"[Nn]ame (it|one): cells") as told:
        run(store, str(path))
    config: dict[str, Any] = {}
    found = re.search(r"cells = \{.*\}", str(told.value))
    assert found
    exec(found[0], config)
    assert run(store, config["cells"]) == [6, 9]
    with pytest.raises(ConfigError, match=r"the column 'areas' is missing; the file has "):
        run(store, {"path": str(path), "ids": "areas"})


def test_what_is_chosen_is_said_in_the_file(tmp_path: Path, write: Write, run: Run) -> None:
    path = csv_of(tmp_path / "c.csv", "a,b\n1,6\n")
    run(write({}), {"path": path, "ids": "b"})
    settings = read_h5sc(tmp_path / "out/data/single_cells.h5sc").uns["cellstamp"]["settings"]
    assert settings["cells"] == str(path)


@pytest.mark.parametrize(
    "cells", [["a", 3], [3, "a"], ["a", ""], [b"a"], {"path": "c.csv"}, {"table": "t", "ids": "b"}]
)
def test_choices_that_cannot_be_meant(tmp_path: Path, cells: Sequence[Any]) -> None:
    step = HDF5CellExtraction({"threads": 1, "image_size": 40, "cache": str(tmp_path), "cells": cells}, tmp_path)
    with pytest.raises(ConfigError, match=r"cells = .*: must be a list of cell ids \(integers >= 1, or all of them"):
        step()
