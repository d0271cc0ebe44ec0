"""Write a column of cells into a table of features, a file or a store, without changing anything else in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from cellstamp.errors import OutputError
from cellstamp.h5sc.cell_columns import check_cells, open_table
from cellstamp.h5sc.layout import ANNOTATION, CELL_ID, EXCEEDS, INSTANCE_ID, MEASURED_IN_PART, REGION
from cellstamp.h5sc.tables import quiet_writing
from cellstamp.system import acquire_lock, release_and_remove, remove, replace_file, replace_folder, sync_file

RESERVED = (CELL_ID, REGION, INSTANCE_ID, EXCEEDS, MEASURED_IN_PART, ANNOTATION, "x", "y", "_index")
"""Columns that cellstamp writes."""


def has_column(path: Path, name: str) -> bool:
    """Return whether ``obs`` of a table has a column with this name."""
    with open_table(path) as file:
        return name in file["obs"]


def write_column(path: Path, name: str, column: pd.Series[Any], cell_ids: NDArray[np.uint64]) -> None:
    """Write a column into ``obs`` of a table, or replace it. The table is copied, changed, and renamed when complete.

    Other processes that write a column to it wait.

    Parameters
    ----------
    path
        File or store.
    name
        Name of the column.
    column
        Booleans or a categorical of text, one for each row.
    cell_ids
        uint64 (n_rows,): the cells of the rows.

    Raises
    ------
    InputError
        If the table is damaged, or has other cells.
    OutputError
        If it cannot be written.
    """
    aside, lock = path.with_name(f".{path.name}.{os.getpid()}"), path.with_name(f".{path.name}.lock")
    write, finish = (_into_store, replace_folder) if path.is_dir() else (_into_file, replace_file)
    try:
        with _alone(lock):
            with open_table(path) as table:  # a damaged table raises here, not while it is written
                check_cells(table, path, cell_ids)
            try:
                write(path, aside, name, column)
                finish(aside, path)
            finally:
                remove(aside)
    except OSError as error:
        raise OutputError(f"{path}: the column {name!r} cannot be written: {error.strerror or error}") from error


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    lock = acquire_lock(path, wait=True)
    try:
        yield
    finally:
        release_and_remove(lock, path)


def _into_file(path: Path, aside: Path, name: str, column: pd.Series[Any]) -> None:
    shutil.copyfile(path, aside)
    with h5py.File(aside, "r+") as file:
        _put(file["obs"], name, column)
    sync_file(aside)


def _into_store(path: Path, aside: Path, name: str, column: pd.Series[Any]) -> None:
    remove(aside)
    shutil.copytree(path, aside)
    is_consolidated = zarr.open_group(str(aside), mode="r").metadata.consolidated_metadata is not None
    group = zarr.open_group(str(aside), mode="r+", use_consolidated=False)
    with quiet_writing():
        _put(group["obs"], name, column)
        if is_consolidated:  # readers would miss the new column
            zarr.consolidate_metadata(str(aside))
    for file in aside.rglob("*"):
        if file.is_file():
            sync_file(file)


def _put(obs: Any, name: str, column: pd.Series[Any]) -> None:
    if name in obs:
        del obs[name]
    anndata.io.write_elem(obs, name, column.array if column.dtype == "category" else column.to_numpy())
    before = [each.decode() if isinstance(each, bytes) else str(each) for each in obs.attrs["column-order"]]
    order = [*before, *([] if name in before else [name])]
    obs.attrs["column-order"] = order if isinstance(obs, zarr.Group) else pd.array(order, dtype=object).to_numpy()
