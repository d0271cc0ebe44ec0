"""Write and read the table of features beside the single-cell images: an AnnData, as a file or as a zarr store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellstamp.errors import InputError, writing
from cellstamp.features.declared import Feature
from cellstamp.h5sc.feature_rows import FeatureRows
from cellstamp.h5sc.layout import (
    ANNOTATION,
    FEATURES_FILE,
    FEATURES_NAMES,
    FEATURES_STORE,
    FILE_NAME,
    MEASURED_IN_PART,
    OURS,
    STORE_NAME,
    Layout,
)
from cellstamp.h5sc.new_file import bytes_of_tables, new_file
from cellstamp.h5sc.opening import ROOT, OpenStore
from cellstamp.h5sc.reader import as_plain
from cellstamp.h5sc.tables import as_text, mark_exceeding, tables_of, write_to_file, write_to_store
from cellstamp.location import Location, reachable
from cellstamp.system import sync_file

_NAMES = {FILE_NAME: FEATURES_FILE, STORE_NAME: FEATURES_STORE}
_COLUMNS = ("group", "compartment", "channel", "unit")
_CHUNK_BYTES = 2**22
_PER_FEATURE = 2**10
"""Bytes of a row of ``var`` in a file, at most."""
_ENCODING: dict[str, Any] = {"encoding-type": "array", "encoding-version": "0.2.0"}


def features_beside(path: Location) -> Location:
    """Return the path of the features of a file or store of single-cell images, or of a table of features: itself."""
    return path if path.name in FEATURES_NAMES else path.with_name(features_name(path.name))


def features_name(name: str) -> str:
    """Return the name of the features of a file or store with this name."""
    return _NAMES.get(name, f"{name}.features.{'zarr' if name.endswith('.zarr') else 'h5ad'}")


@dataclass(frozen=True)
class FeatureTable:
    """Everything in a table of features but the values.

    Attributes
    ----------
    layout
        Cells of the images.
    features
        Names and kinds, in the order of the values.
    about
        Content of ``uns/cellstamp``, that of the images.
    exceeding
        Rows of the cells that extend beyond their crops.
    """

    layout: Layout
    features: Sequence[Feature]
    about: Mapping[str, Any]
    exceeding: NDArray[np.int64]

    def elements(self) -> dict[str, Any]:
        """Return the elements of an `AnnData` without ``X``; rows are named when they are written."""
        tables = tables_of(self.layout)
        mark_exceeding(tables, self.exceeding)
        tables["obs"][MEASURED_IN_PART] = False
        index = as_text(feature.name for feature in self.features)
        columns = {name: [getattr(each, name) for each in self.features] for name in _COLUMNS}
        var = pd.DataFrame(index=index)
        for name, values in columns.items():
            var[name] = pd.Series(values, index=index, dtype=object)
        return {**tables, "var": var, "uns": {ANNOTATION: self.layout.annotation(), OURS: dict(self.about)}}


def bytes_of_features(layout: Layout, n_features: int) -> int:
    """Return how many bytes a table of features takes at most."""
    return bytes_of_tables(layout) + n_features * (4 * layout.shape[0] + _PER_FEATURE)


def write_features(path: Path, table: FeatureTable, rows: FeatureRows) -> None:
    """Write a table of features to a file, or to a store if its name ends so, and bring it to the disk.

    Parameters
    ----------
    rows
        For each cell: whether it was measured in part, and its features.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    with writing(path):
        write = _write_store if path.suffix == ".zarr" else _write_file
        write(path, table, rows)


def _write_file(path: Path, table: FeatureTable, rows: FeatureRows) -> None:
    shape = table.layout.shape[0], len(table.features)
    path.unlink(missing_ok=True)  # an interrupted run left it
    with new_file(path, bytes_of_features(table.layout, len(table.features))) as file:
        write_to_file(file, table.elements())
        values = file.create_dataset("X", shape, np.float32)
        values.attrs.update(_ENCODING)
        _fill(values, file[f"obs/{MEASURED_IN_PART}"], rows)
    sync_file(path)


def _write_store(path: Path, table: FeatureTable, rows: FeatureRows) -> None:
    n_cells, n_features = table.layout.shape[0], len(table.features)
    group = write_to_store(path, table.elements())
    chunk = min(n_cells, max(1, _CHUNK_BYTES // (4 * n_features)))
    values = group.create_array(
        "X", shape=(n_cells, n_features), chunks=(chunk, n_features), dtype="float32", attributes=_ENCODING
    )
    _fill(values, group[f"obs/{MEASURED_IN_PART}"], rows)
    for file in path.rglob("*"):
        if file.is_file():
            sync_file(file)


def _fill(values: Any, in_part: Any, rows: FeatureRows) -> None:
    for which, block in rows.blocks():
        in_part[which] = block[:, 0] != 0
        values[which] = block[:, 1:]


def read_features(path: Location) -> anndata.AnnData:
    """Read the features of a file or store of single-cell images.

    Returns
    -------
    anndata.AnnData
        ``X`` float32 (n_cells, n_features), in memory.

    Raises
    ------
    InputError
        If they are missing or damaged.
    """
    if not has_features(path):
        message = f"{path} has no features: set the key features to True, and extract again with overwrite=True"
        raise InputError(message)
    found = features_beside(path)
    try:
        if found.suffix != ".zarr":
            return anndata.io.read_h5ad(str(found))
        data = anndata.io.read_zarr(str(found))
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise _damaged(found, error) from error
    data.uns = as_plain(dict(data.uns))
    return data


def has_features(path: Location) -> bool:
    """Return whether a file or store of single-cell images has complete features beside it."""
    found = features_beside(path)
    with reachable(str(found)):
        return (found / ROOT).exists() if found.suffix == ".zarr" else found.is_file()


def names_of_features(path: Location) -> list[str]:
    """Return the names of the features of a file of single-cell images; none if it has no features.

    Raises
    ------
    InputError
        If they are damaged.
    """
    if not has_features(path):
        return []
    with _opened(features_beside(path)) as file:
        return list(map(str, anndata.io.read_elem(file["var"]).index))


def read_feature(path: Location, number: int) -> NDArray[np.float32]:
    """Read one feature of a file of single-cell images, by its number: float32 (n_cells,).

    Raises
    ------
    InputError
        If it is damaged.
    """
    with _opened(features_beside(path)) as file:
        return np.asarray(file["X"][:, number], np.float32)


def read_columns(found: Location, text: str) -> tuple[pd.DataFrame, list[str]]:
    """Read ``obs`` of a table of features, and the features that a text names.

    Parameters
    ----------
    found
        The table.
    text
        Only these features are read, since all of them take hundreds of bytes for each cell.

    Returns
    -------
    pandas.DataFrame, list of str
        The columns, and the names of all features.

    Raises
    ------
    InputError
        If the table is damaged.
    """
    with _opened(found) as file:
        obs, values = anndata.io.read_elem(file["obs"]), file["X"]
        names = list(map(str, anndata.io.read_elem(file["var"]).index))
        return obs.assign(**{name: values[:, k] for k, name in enumerate(names) if name in text}), names


@contextmanager
def _opened(found: Location) -> Iterator[Any]:
    try:
        with OpenStore(found) if found.suffix == ".zarr" else h5py.File(str(found), "r") as file:
            yield file
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise _damaged(found, error) from error


def describe_features(path: Location) -> str:
    """Return the number of features of a file of single-cell images, and the names of their groups.

    Raises
    ------
    InputError
        If they are damaged.
    """
    with _opened(features_beside(path)) as file:
        groups = anndata.io.read_elem(file["var"])["group"]
    return f"{len(groups)}: {', '.join(dict.fromkeys(map(str, groups)))}"


def _damaged(found: Location, error: Exception) -> InputError:
    return InputError(f"{found} is damaged: {' '.join(str(error).split())}. Extract again")
