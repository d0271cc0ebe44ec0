"""Read columns of a table from its zarr group."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from cellstamp.errors import InputError


def read_column(obs: Any, name: str, where: str) -> NDArray[Any]:
    """Read a column of a table's ``obs`` from its zarr group: numbers, text, or categories.

    Raises
    ------
    InputError
        If the column is missing, or has missing values.
    """
    if name not in obs:
        there = ", ".join(sorted(key for key in obs if key != obs.attrs.get("_index"))) or "none"
        raise InputError(f"{where}: the table has no column '{name}'; it has {there}")
    values, missing = column_of(obs[name])
    if missing.any():
        raise InputError(f"{where}: the column '{name}' has no value in {missing.sum()} rows; each row needs one")
    return values


def column_of(node: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the values of a column as anndata stores it, and a boolean array of missing ones."""
    if isinstance(node, zarr.Array):
        values = np.asarray(node[...])
        values = values if values.dtype.kind in "uifb" else values.astype(object)  # text of any dtype
        return values, np.zeros(values.shape, bool)
    if "categories" in node:
        categories, _ = column_of(node["categories"])
        codes = np.asarray(node["codes"][...])
        return categories[codes] if len(categories) else codes, codes < 0
    return np.asarray(node["values"][...]), np.asarray(node["mask"][...], bool)
