"""Write a column of cells into a table of features, a file or a store, without changing anything else in it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import anndata
import h5py
import pandas as pd
import zarr

from cellstamp.errors import InputError, OutputError
from cellstamp.h5sc.cell_columns import open_table
from cellstamp.h5sc.layout import ANNOTATION, CELL_ID, EXCEEDS, INSTANCE_ID, MEASURED_IN_PART, REGION
from cellstamp.h5sc.tables import quiet_shards
from cellstamp.system import remove, replace_file, replace_folder, sync_file

RESERVED = (CELL_ID, REGION, INSTANCE_ID, EXCEEDS, MEASURED_IN_PART, ANNOTATION, "x", "y", "_index")
"""Columns that cellstamp writes."""


def has_column(path: Path, name: str) -> bool:
    """Return whether ``obs`` of a table has a column with this name."""
    with open_table(path) as file:
        return name in file["obs"]


def write_column(path: Path, name: str, column: pd.Series[Any]) -> None:
    """Write a column into ``obs`` of a table, or replace it. The table is copied, changed, and renamed when complete.

    Parameters
    ----------
    path
        File or store.
    name
        Name of the column.
    column
        Booleans or a categorical, one for each row.

    Raises
    ------
    InputError
        If the table is damaged.
    OutputError
        If it cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with open_table(path):  # a damaged table raises here, not while it is written
        pass
    write, finish = (_into_store, replace_folder) if path.is_dir() else (_into_file, replace_file)
    try:
        write(path, aside, name, column)
        finish(aside, path)
    except InputError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: the column {name!r} cannot be written: {error.strerror or error}") from error
    finally:
        remove(aside)


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
    with quiet_shards():
        _put(group["obs"], name, column)
    if is_consolidated:  # by other programs: readers would miss the new column
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
