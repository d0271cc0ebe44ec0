"""Read the metadata of cells: columns of ``obs``, centres, and features if there are some."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellstamp.h5sc.embedding_table import Crops
from cellstamp.h5sc.feature_table import RowReader, has_features, opened_values
from cellstamp.h5sc.layout import CELL_ID, OURS

_ROWS = 5000
"""Rows that are read together for a digest."""


@dataclass(frozen=True)
class CellMetadata:
    """Metadata of the cells of a file. Features stay on the disk until rows are read.

    Attributes
    ----------
    obs
        Columns of all cells, the cell id first.
    feature_names
        Names of the features; empty without features.
    """

    obs: pd.DataFrame
    feature_names: list[str]
    _read_features: RowReader | None = None

    def of(self, rows: NDArray[np.int64]) -> pd.DataFrame:
        """Read the metadata of some cells, in this order.

        Raises
        ------
        InputError
            If the features are damaged.
        """
        frame: pd.DataFrame = self.obs.iloc[rows].reset_index(drop=True)
        if self._read_features is None:
            return frame
        stored, places = np.unique(rows, return_inverse=True)  # HDF5 reads ascending rows
        values = self._read_features(stored)
        return frame.join(pd.DataFrame(values[places], columns=self.feature_names))

    def beside(self, names: Iterable[str]) -> CellMetadata:
        """Return the metadata for a table that has more columns: ``obs_`` is added to equal names.

        Columns of ``obs`` also get other names than features.
        """
        features = _renamed(self.feature_names, {*names})
        obs = self.obs.set_axis(_renamed([*map(str, self.obs)], {*names, *features}), axis=1)
        return replace(self, obs=obs, feature_names=features)

    def digest(self, rows: NDArray[np.int64]) -> str:
        """Return a digest of the names and values of some cells, in this order."""
        digest = hashlib.sha256(repr([*self.obs, *self.feature_names]).encode())
        for start in range(0, rows.size, _ROWS):
            values = pd.util.hash_pandas_object(self.of(rows[start : start + _ROWS]), index=False)
            digest.update(values.to_numpy().tobytes())
        return digest.hexdigest()


def _renamed(columns: Sequence[str], taken: set[str]) -> list[str]:
    """Add ``obs_`` to columns with a name in `taken`, until it differs from all others."""
    known, found = {*columns, *taken}, []
    for column in columns:
        name = column
        while column in taken and name in known:
            name = f"obs_{name}"
        known.add(name)
        found.append(name)
    return found


@contextmanager
def cell_metadata(crops: Crops) -> Iterator[CellMetadata]:
    """Open the metadata of a file or store of single-cell images.

    Raises
    ------
    InputError
        If its features are damaged, or have other cells.
    """
    obs = _with_centres(crops)
    if not has_features(crops.path):
        yield CellMetadata(obs, [])
        return
    with opened_values(crops.path) as (names, read):
        yield CellMetadata(obs, names, read)


def _with_centres(crops: Crops) -> pd.DataFrame:
    obs, obsm = crops.tables.obs, crops.tables.obsm
    obs = obs[[CELL_ID, *(name for name in obs if name != CELL_ID)]]
    if "x" in obs or "spatial" not in obsm:
        return obs
    x, y = np.asarray(obsm["spatial"])[:, :2].T
    return obs.assign(x=x, y=y)


def pixel_size_of(crops: Crops) -> tuple[float, float] | None:
    """Return the micrometres per pixel of the single-cell images, along y and x; None if the file lacks them."""
    size = crops.tables.uns.get(OURS, {}).get("settings", {}).get("crop_pixel_size")
    return None if size is None else (float(size[0]), float(size[1]))
