"""Columns of the cells in a file, a store or an `AnnData`, each read when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import anndata
import h5py
import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import InputError
from cellstamp.h5sc.layout import CELL_ID
from cellstamp.h5sc.opening import ROOT, OpenStore, open_h5sc
from cellstamp.location import Location, location_of

Read = Callable[[], Any]
"""Returns one value for each row of the table."""

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
    """

    where: str
    path: Location | None
    cell_ids: NDArray[np.uint64]
    obs: dict[str, Read]
    features: dict[str, Read]
    embeddings: dict[str, Read]


def columns_of_images(h5sc: Any) -> dict[str, Read]:
    """Return readers of the columns of ``obs`` of a file, a store, or an `AnnData`."""
    if isinstance(h5sc, anndata.AnnData):
        return {str(name): partial(h5sc.obs.__getitem__, name) for name in h5sc.obs}
    path = location_of(h5sc)
    with open_h5sc(path) as file:
        names = _names(file["obs"])
    return {name: partial(_read, open_h5sc, path, "obs", name) for name in names}


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
        obs, embeddings = _names(file["obs"]), _embeddings(file)
        names = list(map(str, anndata.io.read_elem(file["var"]).index))
        return CellColumns(
            str(path),
            path,
            np.asarray(anndata.io.read_elem(file["obs"][CELL_ID]), np.uint64),
            {name: partial(_read, open_table, path, "obs", name) for name in obs},
            {name: partial(_read_feature, path, number) for number, name in enumerate(names)},
            {
                f"{name}-{k}": partial(_read_coordinate, path, name, k)
                for name, values in embeddings.items()
                for k in _coordinates(values)
            },
        )


def _of_anndata(data: anndata.AnnData) -> CellColumns:
    if CELL_ID not in data.obs:
        raise _unnamed("features: the AnnData")

    def feature(number: int) -> Any:
        values = data.X[:, number]
        return np.asarray(values.todense() if hasattr(values, "todense") else values).ravel()

    return CellColumns(
        "the AnnData of features",
        None,
        data.obs[CELL_ID].to_numpy().astype(np.uint64),
        {str(name): partial(data.obs.__getitem__, name) for name in data.obs},
        {} if data.X is None else {str(name): partial(feature, number) for number, name in enumerate(data.var_names)},
        {
            f"{name}-{k}": partial(_coordinate, data, name, k)
            for name, values in data.obsm.items()
            if name != POSITIONS
            for k in _coordinates(values)
        },
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
    if not path.exists():
        raise InputError(f"features: there is no file {path}")
    try:
        with OpenStore(path) if (path / ROOT).exists() else h5py.File(str(path), "r") as file:
            missing = [name for name in ("obs", "var") if name not in file]
            if missing:
                raise InputError(f"features: {path} is not an AnnData file: it lacks {', '.join(missing)}")
            yield file
    except (OSError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        message = f"features: {path} is not an AnnData file, or it is damaged: {' '.join(str(error).split())}"
        raise InputError(message) from error


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


def _read(opened: Callable[[Any], Any], path: Location, table: str, name: str) -> Any:
    with opened(path) as file:
        return anndata.io.read_elem(file[table][name])


def _read_feature(path: Location, number: int) -> NDArray[Any]:
    with open_table(path) as file:
        if hasattr(file["X"], "shape"):
            return np.asarray(file["X"][:, number])
        return np.asarray(anndata.io.read_elem(file["X"])[:, [number]].todense()).ravel()


def _read_coordinate(path: Location, name: str, number: int) -> NDArray[Any]:
    with open_table(path) as file:
        return np.asarray(file["obsm"][name][:, number])


def _coordinate(data: anndata.AnnData, name: str, number: int) -> NDArray[Any]:
    return np.asarray(data.obsm[name])[:, number]


def read_centers(h5sc: Any) -> NDArray[np.float64] | None:
    """Read the centres of cells: float64 (n_cells, 2), x, y in pixels of the image. None: the file has none."""
    if isinstance(h5sc, anndata.AnnData):
        found = h5sc.obsm.get(POSITIONS)
        return None if found is None else np.asarray(found, np.float64)
    with open_h5sc(location_of(h5sc)) as file:
        if POSITIONS not in file["obsm"]:
            return None
        return np.asarray(anndata.io.read_elem(file["obsm"][POSITIONS]), np.float64)
