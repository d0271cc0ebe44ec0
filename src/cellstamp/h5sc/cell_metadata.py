"""Read the metadata of cells: columns of ``obs``, centres, and features if there are some."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellstamp.h5sc.embedding_table import Crops
from cellstamp.h5sc.feature_table import has_features, opened_values
from cellstamp.h5sc.layout import CELL_ID, OURS


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
    _features: Any = None

    def of(self, rows: NDArray[np.int64]) -> pd.DataFrame:
        """Read the metadata of some cells, in this order."""
        frame: pd.DataFrame = self.obs.iloc[rows].reset_index(drop=True)
        if not self.feature_names:
            return frame
        stored, places = np.unique(rows, return_inverse=True)  # HDF5 reads ascending rows
        values = np.asarray(self._features[stored[0] : stored[-1] + 1] if _is_dense(stored) else self._read(stored))
        return frame.join(pd.DataFrame(values[places], columns=self.feature_names))

    def _read(self, rows: NDArray[np.int64]) -> Any:
        by_row = self._features.oindex if hasattr(self._features, "oindex") else self._features  # zarr, or HDF5
        return by_row[rows, slice(None)]


def _is_dense(rows: NDArray[np.int64]) -> bool:
    return int(rows[-1] - rows[0]) + 1 == rows.size


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
    with opened_values(crops.path) as (names, values):
        yield CellMetadata(obs, names, values)


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
