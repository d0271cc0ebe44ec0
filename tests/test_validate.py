"""What is wrong with a file is found and told; nothing is found where nothing is wrong."""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pytest

from cellstamp import HDF5CellExtraction, read_h5sc
from cellstamp.errors import InputError
from cellstamp.h5sc.validate import errors_in
from commands import run_command
from stamp_files import store_anew
from stores import make_sample, write_store

IMAGES = "obsm/single_cell_images"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    store = write_store(folder / "s.zarr", make_sample())
    step = HDF5CellExtraction({"threads": 1, "image_size": 32, "cache": str(folder)}, folder / "out", filehandler=store)
    step()
    return Path(str(step.output_path))


def _garbage(file: h5py.File) -> None:
    file[IMAGES].id.write_direct_chunk((3, 0, 0, 0), b"\xff" * 40)


def _too_bright(file: h5py.File) -> None:
    file[IMAGES][5, 2, 7, 8] = 1.5


def _no_number(file: h5py.File) -> None:
    file[IMAGES][5, 2, 7, 8] = np.nan


def _twice(file: h5py.File) -> None:
    ids = file["obs/scportrait_cell_id"]
    ids[4] = ids[5]


def _background(file: h5py.File) -> None:
    file["obs/scportrait_cell_id"][0] = 0


def _attribute(file: h5py.File) -> None:
    file[IMAGES].attrs["n_cells"] = 44


def _sum(file: h5py.File) -> None:
    file["uns/cellstamp/cells_removed_at_border"][()] = 1


def _not_chosen(file: h5py.File) -> None:
    file["uns/cellstamp/cells_not_chosen"][()] = 2


def _moved(file: h5py.File) -> None:
    file["obs/x"][3] += 1


def _without_centres(file: h5py.File) -> None:
    del file["obsm/spatial"]


def _two_regions(file: h5py.File) -> None:
    del file["obs/region/categories"]
    anndata.io.write_elem(file["obs/region"], "categories", np.array(["seg_all_nucleus", "tissue"], object))
    file["obs/region/codes"][5] = 1


def _of_another(file: h5py.File) -> None:
    file["uns/spatialdata_attrs/region"][()] = "tissue"


def _of_nothing(file: h5py.File) -> None:
    del file["uns/spatialdata_attrs"]


def _one_missing(file: h5py.File) -> None:
    """A file with the same stamps, but for those of one cell, which were never written."""
    old = file[IMAGES]
    new = file.create_dataset("new", old.shape, old.dtype, chunks=old.chunks, compression="lzf")
    for row in range(len(old)):
        if row != 7:
            new[row] = old[row]
    new.attrs.update(old.attrs)
    del file[IMAGES]
    file.move("new", IMAGES)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_garbage, r"cell \d+ \(row 3\), planes 0 to 4: cannot be read: .+"),
        (_too_bright, r"cell \d+ \(row 5\), plane 2: values outside 0 to 1"),
        (_no_number, r"cell \d+ \(row 5\), plane 2: values outside 0 to 1"),
        (_twice, r"obs/scportrait_cell_id: 1 ids are repeated, such as \d+"),
        (_background, r"obs/scportrait_cell_id: the id 0 is invalid; ids must be at least 1"),
        (_attribute, r".* has the shape \(43, 5, 32, 32\), but its attribute n_cells is 44"),
        (_sum, r"uns/cellstamp: .* add up to 44, but cells_in_mask is 72"),
        (_not_chosen, r"uns/cellstamp: .* add up to 74, but cells_in_mask is 72"),
        (_moved, r"obs/x and obs/y differ from obsm/spatial"),
        (_without_centres, r"obs/x and obs/y differ from obsm/spatial"),
        (_two_regions, r"obs/region: must be one mask, is seg_all_nucleus, tissue"),
        (_of_another, r"uns/spatialdata_attrs: must be \{'region': 'seg_all_nucleus', .*\}, is \{.*'tissue'.*\}"),
        (_of_nothing, r"uns/spatialdata_attrs: must be \{'region': 'seg_all_nucleus', .*\}, is None"),
        (_one_missing, r"42 chunks are stored, but 43 cells with 5 planes in chunks of 5 need 43"),
    ],
)
def test_each_fault_is_told(tmp_path: Path, whole: Path, damage: Callable[[h5py.File], Any], told: str) -> None:
    damaged = tmp_path / "damaged.h5sc"
    shutil.copy(whole, damaged)
    with h5py.File(damaged, "r+") as file:
        damage(file)
    (fault,) = errors_in(damaged)
    assert re.fullmatch(told, fault)
    named = re.search(r"cell (\d+) \(row (\d+)\)", fault)
    assert named is None or int(named[1]) == read_h5sc(whole).obs["scportrait_cell_id"].iloc[int(named[2])]
    result = run_command("validate", damaged)
    assert result.exit_code == 1
    assert f"{damaged} is invalid:\n  {fault}\n" in result.stderr


def test_a_file_with_a_chunk_for_each_plane(tmp_path: Path, whole: Path) -> None:
    path = tmp_path / "old.h5sc"
    shutil.copy(whole, path)
    store_anew(path, chunks=(1, 1, 32, 32), compression="lzf")
    assert errors_in(path) == []
    with h5py.File(path, "r+") as file:
        file[IMAGES].id.write_direct_chunk((3, 1, 0, 0), b"\xff" * 40)
    (error,) = errors_in(path)
    assert re.fullmatch(r"cell \d+ \(row 3\), plane 1: cannot be read: .+", error)


def test_a_whole_file(whole: Path) -> None:
    assert errors_in(whole) == []
    result = run_command("validate", whole)
    assert (result.exit_code, result.output) == (0, f"{whole} is valid\n")


def test_a_file_of_the_first_version_is_whole_without_the_later_columns(tmp_path: Path, whole: Path) -> None:
    old = tmp_path / "old.h5sc"
    shutil.copy(whole, old)
    with h5py.File(old, "r+") as file:
        for name in ("obs/x", "obs/y", "obs/region", "uns/spatialdata_attrs", "uns/cellstamp/cells_not_chosen"):
            del file[name]
        file["obs"].attrs["column-order"] = ["scportrait_cell_id"]
    assert errors_in(old) == []


def _without_region(file: h5py.File) -> None:
    del file["obs/region"]


def _without_ids(file: h5py.File) -> None:
    del file["obs/scportrait_cell_id"]


@pytest.mark.parametrize("damage", [_without_region, _without_ids])
def test_a_file_that_cannot_even_be_judged(tmp_path: Path, whole: Path, damage: Callable[[h5py.File], Any]) -> None:
    damaged = tmp_path / "damaged.h5sc"
    shutil.copy(whole, damaged)
    with h5py.File(damaged, "r+") as file:
        damage(file)
    faults = errors_in(damaged)
    assert faults
    assert all("damaged, or another program wrote them" in fault for fault in faults)


def test_where_ids_cannot_be_read_rows_are_told(tmp_path: Path, whole: Path) -> None:
    damaged = tmp_path / "damaged.h5sc"
    shutil.copy(whole, damaged)
    with h5py.File(damaged, "r+") as file:
        _without_ids(file)
        _too_bright(file)
    assert errors_in(damaged)[-1] == "the cell of row 5, plane 2: values outside 0 to 1"


def test_a_file_that_anndata_wrote_of_some_cells(tmp_path: Path, whole: Path) -> None:
    some = tmp_path / "some.h5ad"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's own, about writing strings
        anndata.read_h5ad(whole)[:3].copy().write_h5ad(some)
    missing, planned, counted = errors_in(some)
    n_cells = read_h5sc(whole).n_obs
    names = "n_cells, n_channels, image_size, n_masks, n_image_channels, channel_names, compression, normalization"
    assert missing.startswith(f"obsm/single_cell_images lacks the attributes {names}, normalization_range. anndata's ")
    shape = "(3, 5, 32, 32)"
    assert planned.endswith(f"has the shape {shape}, but n_cells in uns/single_cell_images is {n_cells}")
    assert counted == f"uns/cellstamp: cells_written is {n_cells}, but there are 3 cells"


@pytest.mark.parametrize("rows", [slice(None), slice(3), [5, 2]])
def test_what_is_advised_for_a_file_that_anndata_wrote_works(tmp_path: Path, whole: Path, rows: Any) -> None:
    cells, some = read_h5sc(whole)[rows], tmp_path / "some.h5ad"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's own, about writing strings
        cells.write_h5ad(some)
        again = anndata.read_h5ad(some)
    assert "open such a file with anndata.read_h5ad. " in errors_in(some)[0]
    assert np.array_equal(again.obsm["single_cell_images"], cells.obsm["single_cell_images"][...])
    assert again.obs["scportrait_cell_id"].tolist() == cells.obs["scportrait_cell_id"].tolist()


def test_very_many_faults_are_cut_short(tmp_path: Path, whole: Path) -> None:
    damaged = tmp_path / "damaged.h5sc"
    shutil.copy(whole, damaged)
    with h5py.File(damaged, "r+") as file:
        file[IMAGES][:] = -1
    faults = errors_in(damaged)
    assert len(faults) == 21
    assert faults[-1] == "... and possibly more"


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "x.h5sc").write_text("hello")
    with pytest.raises(InputError, match=r"x\.h5sc is not an HDF5 file"):
        errors_in(tmp_path / "x.h5sc")
