"""Write and read embeddings of single-cell images: an AnnData with the values of a network for each cell."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd

from cellstamp.errors import InputError
from cellstamp.h5sc.cell_tables import NewTable, TableKind, check_cells, is_store, is_written
from cellstamp.h5sc.feature_rows import FeatureRows
from cellstamp.h5sc.layout import CELL_ID, OURS
from cellstamp.h5sc.new_file import bytes_of_columns, bytes_of_values
from cellstamp.h5sc.opening import mark_of, marked_file
from cellstamp.h5sc.reader import read_h5sc
from cellstamp.h5sc.tables import as_text
from cellstamp.location import Location

EMBEDDING = TableKind("embedding", "Call embed with overwrite=True")
ABOUT = "embedding"
"""Name in ``uns`` of the model and the settings that made the table."""

_EMPTY = ("layers", "obsp", "varm", "varp")


@dataclass(frozen=True)
class Crops:
    """Tables of the single-cell images that are embedded.

    Attributes
    ----------
    path
        Their file or store.
    tables
        Everything but the images.
    """

    path: Location
    tables: anndata.AnnData

    @classmethod
    def of(cls, path: Location) -> Crops:
        """Read the tables.

        Raises
        ------
        InputError
            If the file is missing, or is not an `.h5sc` file.
        """
        return cls(path, read_h5sc(path, images=False))

    def origin(self) -> dict[str, str]:
        """Return what decides the images, as JSON values: copies of a file of cellstamp are equal."""
        ids = np.ascontiguousarray(self.tables.obs[CELL_ID].to_numpy())
        own = self.tables.uns.get(OURS, {})
        images = own.get("fingerprint") or str(mark_of(marked_file(self.path)))
        return {
            "cells": f"{len(ids):,}, digest {hashlib.sha256(ids.data).hexdigest()[:16]}",
            "images": f"of {self.path.name}, digest {hashlib.sha256(str(images).encode()).hexdigest()[:16]}",
        }

    def elements(self, n_columns: int, about: Mapping[str, Any]) -> dict[str, Any]:
        """Return the elements of an `AnnData` without ``X``."""
        uns = {name: value for name, value in self.tables.uns.items() if name != "single_cell_images"}
        return {
            "obs": _with_plain_text(self.tables.obs),
            "var": pd.DataFrame(index=as_text(f"embedding_{number}" for number in range(n_columns))),
            "obsm": dict(self.tables.obsm),
            "uns": {**uns, ABOUT: dict(about)},
            **{name: {} for name in _EMPTY},
        }


def _with_plain_text(obs: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose text is stored in the encoding that older readers know, see `as_text`."""
    columns = {}
    for name, column in obs.items():
        if isinstance(column.dtype, pd.CategoricalDtype) and pd.api.types.is_string_dtype(column.cat.categories):
            categories = as_text(column.cat.categories)
            column = pd.Series(pd.Categorical.from_codes(column.cat.codes, categories, ordered=column.cat.ordered))
        elif pd.api.types.is_string_dtype(column.dtype):
            column = column.astype(object)
        columns[name] = column.array
    return pd.DataFrame(columns, index=as_text(obs.index))


def write_embedding(path: Path, crops: Crops, n_columns: int, about: Mapping[str, Any], rows: FeatureRows) -> None:
    """Write an embedding to a file, or to a store if its name ends so, and bring it to the disk.

    Parameters
    ----------
    about
        Model and settings.
    rows
        Values of each cell.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    shape = crops.tables.n_obs, n_columns
    elements = crops.elements(n_columns, about)
    n_bytes = bytes_of_columns(elements["obs"]) + bytes_of_values(*shape)
    NewTable(path, elements, shape, n_bytes).finish(((*block, {}) for block in rows.blocks()), {})


def read_embedding(images: Location) -> anndata.AnnData:
    """Read the embedding beside a file or store of single-cell images.

    Returns
    -------
    anndata.AnnData
        ``X`` float32 (n_cells, n_columns), in memory.

    Raises
    ------
    InputError
        If it is missing or damaged.
    """
    found = EMBEDDING.beside(images)
    if not is_written(found):
        raise InputError(f"{images} has no embedding {found.name}: call cellstamp.embed")
    table = EMBEDDING.read(found)
    check_cells(table, found, images)
    return table


def origin_of(table: Location) -> dict[str, str] | None:
    """Return model, settings and images of an embedding; None: the file or folder is something else.

    Raises
    ------
    InputError
        If it is damaged.
    """
    if is_store(table) and not is_written(table):
        return None
    with EMBEDDING.opened(table) as file:
        if f"uns/{ABOUT}/origin" not in file:
            return None
        return dict(json.loads(str(anndata.io.read_elem(file[f"uns/{ABOUT}/origin"]))))


def describe_embedding(table: Location) -> str:
    """Return the number of columns and the model of an embedding.

    Raises
    ------
    InputError
        If it is damaged.
    """
    with EMBEDDING.opened(table) as file:
        n_columns = file["X"].shape[1]
        return f"{n_columns} columns of {anndata.io.read_elem(file[f'uns/{ABOUT}/model'])}"
