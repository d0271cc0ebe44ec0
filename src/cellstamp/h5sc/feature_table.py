"""Write and read the table of features beside the single-cell images: an AnnData, as a file or as a zarr store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellstamp.errors import InputError
from cellstamp.features.declared import Feature
from cellstamp.h5sc.cell_tables import NewTable, TableKind, check_cells, is_written
from cellstamp.h5sc.feature_rows import FeatureRows
from cellstamp.h5sc.layout import ANNOTATION, CELL_ID, EXCEEDS, FEATURES_NAMES, MEASURED_IN_PART, OURS, Layout
from cellstamp.h5sc.new_file import bytes_of_tables, bytes_of_values
from cellstamp.h5sc.tables import as_text, marks, tables_of
from cellstamp.location import Location

FEATURES = TableKind("features", "Extract again")
RowReader = Callable[[NDArray[np.int64]], NDArray[Any]]
"""Ascending rows -> their values (n_rows, n_columns)."""
_COLUMNS = ("group", "compartment", "channel", "unit")


def features_beside(path: Location) -> Location:
    """Return the path of the features of a file or store of single-cell images, or of a table of features: itself."""
    return path if path.name in FEATURES_NAMES else FEATURES.beside(path)


def features_name(name: str) -> str:
    """Return the name of the features of a file or store with this name."""
    return FEATURES.file_name(name)


def elements_of(layout: Layout, features: Sequence[Feature]) -> dict[str, Any]:
    """Return the parts of a table of features that depend on no pixels; rows are named when they are written."""
    tables = tables_of(layout)
    tables["obs"][MEASURED_IN_PART] = False
    index = as_text(feature.name for feature in features)
    var = pd.DataFrame(index=index)
    for name in _COLUMNS:
        var[name] = pd.Series([getattr(each, name) for each in features], index=index, dtype=object)
    return {**tables, "var": var, "uns": {ANNOTATION: layout.annotation()}}


def bytes_of_features(layout: Layout, n_features: int) -> int:
    """Return how many bytes a table of features takes at most."""
    return bytes_of_tables(layout) + bytes_of_values(layout.shape[0], n_features)


class FeatureWriter:
    """Writes a table of features to a file, or to a store if its name ends so.

    Parameters
    ----------
    path
        The table. Its cells and features are written now, while workers start.
    layout
        Cells of the images.
    features
        Names and kinds, in the order of the values.

    Raises
    ------
    OutputError
        If it cannot be written.
    """

    def __init__(self, path: Path, layout: Layout, features: Sequence[Feature]) -> None:
        shape = layout.shape[0], len(features)
        n_bytes = bytes_of_features(layout, len(features))
        self._table = NewTable(path, elements_of(layout, features), shape, n_bytes)

    def finish(self, about: Mapping[str, Any], exceeding: NDArray[np.int64], rows: FeatureRows) -> int:
        """Write the values, and bring the table to the disk; return how many cells were measured in part.

        Parameters
        ----------
        about
            Content of ``uns/cellstamp``, that of the images.
        exceeding
            Rows of the cells that extend beyond their crops.
        rows
            For each cell: whether it was measured in part, and its features.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        exceeds, in_part = marks(rows.n_rows, exceeding), np.zeros(rows.n_rows, np.bool_)

        def blocks() -> Iterator[tuple[slice, NDArray[np.float32], dict[str, NDArray[np.bool_]]]]:
            for which, values in rows.blocks():
                in_part[which] = values[:, 0] != 0
                yield which, values[:, 1:], {MEASURED_IN_PART: in_part[which], EXCEEDS: exceeds[which]}

        self._table.finish(blocks(), {OURS: dict(about)})
        return int(in_part.sum())


def read_features(path: Location) -> anndata.AnnData:
    """Read the features of a file or store of single-cell images.

    Returns
    -------
    anndata.AnnData
        ``X`` float32 (n_cells, n_features), in memory.

    Raises
    ------
    InputError
        If they are missing or damaged, or have other cells than the images.
    """
    if not has_features(path):
        message = f"{path} has no features: set the key features to True, and extract again with overwrite=True"
        raise InputError(message)
    found = features_beside(path)
    table = FEATURES.read(found)
    if found != path:
        check_cells(table, found, path)
    return table


def has_features(path: Location) -> bool:
    """Return whether a file or store of single-cell images has complete features beside it."""
    return is_written(features_beside(path))


def names_of_features(path: Location) -> list[str]:
    """Return the names of the features of a file of single-cell images; none if it has no features.

    Raises
    ------
    InputError
        If they are damaged.
    """
    if not has_features(path):
        return []
    with FEATURES.opened(features_beside(path)) as file:
        return list(map(str, anndata.io.read_elem(file["var"]).index))


def n_rows(found: Location) -> int:
    """Return the number of cells in a table of features.

    Raises
    ------
    InputError
        If it is damaged.
    """
    with FEATURES.opened(found) as file:
        return int(file["X"].shape[0])


def read_feature(path: Location, number: int) -> NDArray[np.float32]:
    """Read one feature of a file of single-cell images, by its number: float32 (n_cells,).

    Raises
    ------
    InputError
        If it is damaged, or has other cells than the images.
    """
    found = features_beside(path)
    with FEATURES.opened(found) as file:
        check_cells(file[f"obs/{CELL_ID}"][...], found, path)
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
    with FEATURES.opened(found) as file:
        obs, values = anndata.io.read_elem(file["obs"]), file["X"]
        names = list(map(str, anndata.io.read_elem(file["var"]).index))
        return obs.assign(**{name: values[:, k] for k, name in enumerate(names) if name in text}), names


def inputs_of(found: Location) -> dict[str, Any]:
    """Return settings and inputs of a table of features, see `cellstamp.pipeline.resume_check.made_from`.

    Empty: the table does not say.

    Raises
    ------
    InputError
        If the table is damaged.
    """
    name = f"uns/{OURS}/made_from"
    with FEATURES.opened(found) as file:
        return dict(json.loads(str(anndata.io.read_elem(file[name])))) if name in file else {}


@contextmanager
def opened_values(path: Location) -> Iterator[tuple[list[str], RowReader]]:
    """Open the features of a file of single-cell images: their names, and a function that reads ascending rows.

    Errors of the block are raised unchanged.

    Raises
    ------
    InputError
        If they are damaged, or have other cells; also by the function.
    """
    found = features_beside(path)
    with FEATURES.opened_for_long(found) as file:

        def read(rows: NDArray[np.int64]) -> NDArray[Any]:
            with FEATURES.readable(found):
                return _rows_of(file["X"], rows)

        with FEATURES.readable(found):
            check_cells(file[f"obs/{CELL_ID}"][...], found, path)
            names = list(map(str, anndata.io.read_elem(file["var"]).index))
        yield names, read


def _rows_of(values: Any, rows: NDArray[np.int64]) -> NDArray[Any]:
    if rows[-1] - rows[0] + 1 == rows.size:
        return np.asarray(values[rows[0] : rows[-1] + 1])
    by_row = values.oindex if hasattr(values, "oindex") else values  # zarr, or HDF5
    return np.asarray(by_row[rows, slice(None)])


def describe_features(path: Location) -> str:
    """Return the number of features of a file of single-cell images, and the names of their groups.

    Raises
    ------
    InputError
        If they are damaged.
    """
    with FEATURES.opened(features_beside(path)) as file:
        groups = anndata.io.read_elem(file["var"])["group"]
    return f"{len(groups)}: {', '.join(dict.fromkeys(map(str, groups)))}"
