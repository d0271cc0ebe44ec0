"""Columns of the cells in a file, a store or an `AnnData`, each read when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from cellstamp.errors import InputError
from cellstamp.h5sc.layout import CELL_ID
from cellstamp.h5sc.opening import Mark, OpenStore, is_finished, mark_of, marked_file, open_h5sc
from cellstamp.location import Location, is_remote, location_of

Read = Callable[[], Any]
"""Returns one value for each row of the table."""
Open = Callable[[], Any]
"""Returns a context manager with the opened table."""


@dataclass(frozen=True)
class Reader:
    """Reads a column of ``obs``.

    Attributes
    ----------
    column
        Returns all values.
    value
        Row -> value. Nothing else is read.
    """

    column: Read
    value: Callable[[int], Any]


POSITIONS = "spatial"
"""Name of the centres of cells in ``obsm``."""
MOST_COORDINATES = 50
"""Number of columns of an embedding; a PCA often has more, which nobody looks at."""


@dataclass(frozen=True)
class CellColumns:
    """The columns of a table of cells.

    Attributes
    ----------
    where
        The table, for messages.
    path
        Its file or store; None: in memory.
    cell_ids
        uint64 (n_rows,).
    obs, features, embeddings
        Readers by name: of ``obs``, of ``X``, and of arrays in ``obsm``.
    feature_row
        Row -> values of all features, in their order.
    """

    where: str
    path: Location | None
    cell_ids: NDArray[np.uint64]
    obs: dict[str, Reader]
    features: dict[str, Read]
    embeddings: dict[str, Read]
    feature_row: Callable[[int], NDArray[Any]]


def columns_of_images(h5sc: Any) -> dict[str, Reader]:
    """Return readers of the columns of ``obs`` of a file, a store, or an `AnnData`."""
    if isinstance(h5sc, anndata.AnnData):
        return _of_frame(h5sc.obs)
    path = location_of(h5sc)
    with open_h5sc(path) as file:
        opened = _SameTable(open_h5sc, path, _cell_ids(file)).open
        return {name: _of_file(opened, name) for name in _names(file["obs"])}


def columns_of_features(features: Any) -> CellColumns:
    """Return the columns of a table of features: a path, or an `AnnData`.

    Raises
    ------
    InputError
        If there is no table at the path, or it does not name its cells.
    """
    if isinstance(features, anndata.AnnData):
        return _of_anndata(features)
    path = location_of(features)
    with open_table(path) as file:
        if CELL_ID not in file["obs"]:
            raise _unnamed(str(path))
        obs, embeddings, cell_ids = _names(file["obs"]), _embeddings(file), _cell_ids(file)
        names = list(map(str, anndata.io.read_elem(file["var"]).index))
        opened = _SameTable(open_table, path, cell_ids).open
        return CellColumns(
            str(path),
            path,
            cell_ids,
            {name: _of_file(opened, name) for name in obs},
            {name: partial(_read_number, opened, "X", number) for number, name in enumerate(names)},
            {
                f"{name}-{k}": partial(_read_number, opened, f"obsm/{name}", k)
                for name, values in embeddings.items()
                for k in _coordinates(values)
            },
            partial(_read_row, opened),
        )


def _of_anndata(data: anndata.AnnData) -> CellColumns:
    if CELL_ID not in data.obs:
        raise _unnamed("features: the AnnData")

    return CellColumns(
        "the AnnData of features",
        None,
        data.obs[CELL_ID].to_numpy().astype(np.uint64),
        _of_frame(data.obs),
        {} if data.X is None else {str(name): _in_memory(data.X, number) for number, name in enumerate(data.var_names)},
        {
            f"{name}-{k}": _in_memory(values, k)
            for name, values in data.obsm.items()
            if name != POSITIONS
            for k in _coordinates(values)
        },
        lambda row: _dense(data.X[[row]]),
    )


def _unnamed(where: str) -> InputError:
    return InputError(
        f"{where} is not a table of features of single-cell images: its obs lacks {CELL_ID}, the ids of the cells. Use "
        "the features.h5ad beside the images, or an AnnData made from it"
    )


@contextmanager
def open_table(path: Location) -> Iterator[Any]:
    """Open an AnnData file or store for reading.

    Raises
    ------
    InputError
        If it is missing, damaged, or something else.
    """
    if not is_finished(path):
        raise InputError(f"features: there is no file {path}")
    try:
        with _opened(path) as file:
            missing = [name for name in ("obs", "var") if name not in file]
            if missing:
                raise InputError(f"features: {path} is not an AnnData file: it lacks {', '.join(missing)}")
            yield file
    except (OSError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        message = f"features: {path} is not an AnnData file, or it is damaged: {' '.join(str(error).split())}"
        raise InputError(message) from error


def check_cells(table: Any, path: Location, cell_ids: NDArray[np.uint64]) -> None:
    """Check that an opened table has these cells in this order.

    Raises
    ------
    InputError
        If it has others: it was replaced since its ids were read.
    """
    if not np.array_equal(_cell_ids(table), cell_ids):
        raise InputError(f"{path} was replaced by one with other cells: open the gallery again")


def _cell_ids(table: Any) -> NDArray[np.uint64]:
    return np.asarray(anndata.io.read_elem(table[f"obs/{CELL_ID}"]) if f"obs/{CELL_ID}" in table else [], np.uint64)


class _SameTable:
    """Opens a table, and checks its cells if another program has changed the file since."""

    def __init__(self, opened: Callable[[Any], Any], path: Location, cell_ids: NDArray[np.uint64]) -> None:
        self._opened, self._path, self._cell_ids = opened, path, cell_ids
        self._mark: Mark | None = None

    @contextmanager
    def open(self) -> Iterator[Any]:
        with self._opened(self._path) as file:
            # a folder that replaces another one has another inode
            mark = mark_of(self._path if isinstance(self._path, Path) else marked_file(self._path))
            if mark != self._mark:
                check_cells(file, self._path, self._cell_ids)
                self._mark = mark
            yield file


def _opened(path: Location) -> Any:
    if is_remote(path):
        return OpenStore(path)
    return nullcontext(zarr.open_group(str(path), mode="r")) if path.is_dir() else h5py.File(str(path), "r")


def _names(table: Any) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in table.attrs["column-order"]]


def _embeddings(file: Any) -> dict[str, Any]:
    """Return the arrays in ``obsm``, without the positions of cells, which ``obs`` has."""
    if "obsm" not in file:
        return {}
    return {name: file["obsm"][name] for name in file["obsm"] if name != POSITIONS}


def _coordinates(values: Any) -> range:
    """Return the numbers of the coordinates of an array in ``obsm``, none if it is something else."""
    if getattr(values, "ndim", None) != 2 or not hasattr(values, "dtype"):
        return range(0)
    return range(min(int(values.shape[1]), MOST_COORDINATES))


def _of_frame(table: pd.DataFrame) -> dict[str, Reader]:
    return {str(name): Reader(partial(table.__getitem__, name), table[name].iloc.__getitem__) for name in table}


def _in_memory(matrix: Any, number: int) -> Read:
    return lambda: _dense(matrix[:, [number]])


def _dense(values: Any) -> NDArray[Any]:
    return np.asarray(values.todense() if hasattr(values, "todense") else values).ravel()


def _of_file(opened: Open, name: str) -> Reader:
    def column() -> Any:
        with opened() as file:
            return anndata.io.read_elem(file[f"obs/{name}"])

    def value(row: int) -> Any:
        with opened() as file:
            return _value_at(file[f"obs/{name}"], row)

    return Reader(column, value)


def _value_at(element: Any, row: int) -> Any:
    """Read one value of a column of a stored table: plain, categorical, or with a mask of missing ones."""
    if hasattr(element, "shape"):
        value = element[row]
        return value.decode() if isinstance(value, bytes) else value
    if "codes" in element:
        code = int(element["codes"][row])
        return None if code < 0 else anndata.io.read_elem(element["categories"])[code]
    return None if bool(element["mask"][row]) else element["values"][row]


def _read_number(opened: Open, element: str, number: int) -> NDArray[Any]:
    """Read a column of ``X``, or of an array in ``obsm``."""
    with opened() as file:
        matrix = file[element]
        if hasattr(matrix, "shape"):
            return np.asarray(matrix[:, number])
        return _dense(anndata.io.read_elem(matrix)[:, [number]])  # sparse


def _read_row(opened: Open, row: int) -> NDArray[Any]:
    with opened() as file:
        matrix = file["X"]
        return _dense(matrix[row] if hasattr(matrix, "shape") else anndata.io.read_elem(matrix)[[row]])


def read_centers(h5sc: Any) -> NDArray[np.float64] | None:
    """Read the centres of cells: float64 (n_cells, 2), x, y in pixels of the image. None: the file has none."""
    if isinstance(h5sc, anndata.AnnData):
        found = h5sc.obsm.get(POSITIONS)
        return None if found is None else np.asarray(found, np.float64)
    with open_h5sc(location_of(h5sc)) as file:
        if f"obsm/{POSITIONS}" not in file:
            return None
        return np.asarray(anndata.io.read_elem(file[f"obsm/{POSITIONS}"]), np.float64)
