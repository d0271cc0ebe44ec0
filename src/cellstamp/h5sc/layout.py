"""The `.h5sc` file: names, shapes, types and attributes, declared apart from how they are computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cellstamp.rules import StampType

IMAGES = "single_cell_images"
"""Name of the stamps in ``obsm`` and of their description in ``uns``."""

OURS = "cellstamp"
"""Name in ``uns`` of what made the file, and from what."""

CELL_ID = "scportrait_cell_id"
EXCEEDS = "exceeds_crop"
"""Name in ``obs`` of whether a cell reaches out of its crop."""
REGION = "region"
ANNOTATION = "spatialdata_attrs"
"""Name in ``uns`` of what SpatialData wants to know of a table: what it annotates, and by which columns."""

FILE_NAME = "single_cells.h5sc"
REMOVED_NAME = "removed_classes.csv"
PER_CHANNEL = "per channel"
"""In place of a quantile where channels have different ones; ``uns/cellstamp`` has them."""

HDF5_BOUND = ("v110", "v110")
"""Oldest and newest HDF5 format used; its chunk index is a quarter the size of the oldest format's."""


@dataclass(frozen=True)
class Layout:
    """All that a file says about its stamps.

    Attributes
    ----------
    cell_ids
        uint64 (n_cells,), in the order of the stamps.
    centers
        float64 (n_cells, 2): unrounded x, y in pixels.
    mask_names, channel_names
        In the order of the planes: masks first.
    image_size
        Side of a stamp in pixels.
    normalization_ranges
        Quantiles of each channel, or None for stamps that are not normalised.
    compression
        HDF5 filter.
    dtype
        Of the stamps.
    """

    cell_ids: NDArray[np.uint64]
    centers: NDArray[np.float64]
    mask_names: tuple[str, ...]
    channel_names: tuple[str, ...]
    image_size: int
    normalization_ranges: tuple[tuple[float, float], ...] | None
    compression: Literal["lzf", "gzip"] | None
    dtype: StampType = "float16"

    @property
    def normalization_range(self) -> tuple[float, float] | tuple[str, str]:
        """The quantiles as the format has room for: one pair, or words where there is none, or more than one."""
        if self.normalization_ranges is None:
            return "None", "None"
        pairs = set(self.normalization_ranges)
        return pairs.pop() if len(pairs) == 1 else (PER_CHANNEL, PER_CHANNEL)

    @property
    def names(self) -> list[str]:
        """Names of all planes."""
        return [*self.mask_names, *self.channel_names]

    @property
    def kinds(self) -> list[str]:
        """What each plane is."""
        return ["mask"] * len(self.mask_names) + ["image_channel"] * len(self.channel_names)

    @property
    def region(self) -> str:
        """The mask that says which cells there are: the first."""
        return self.mask_names[0]

    def annotation(self) -> dict[str, str]:
        """Which element the table annotates, and how its rows are matched with that."""
        return {"region": self.region, "region_key": REGION, "instance_key": CELL_ID}

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n_cells, n_masks + n_channels, size, size)."""
        return self.cell_ids.size, len(self.names), self.image_size, self.image_size

    @property
    def chunks(self) -> tuple[int, int, int, int]:
        """One plane of one cell."""
        return 1, 1, self.image_size, self.image_size

    def _counts(self) -> dict[str, int]:
        return {
            "n_cells": self.cell_ids.size,
            "n_channels": len(self.names),
            "n_masks": len(self.mask_names),
            "n_image_channels": len(self.channel_names),
            "image_size": self.image_size,
        }

    def attributes(self) -> dict[str, Any]:
        """Attributes of the stamps' dataset."""
        return {
            "encoding-type": "array",
            "encoding-version": "0.2.0",
            **self._counts(),
            "normalization": self.normalization_ranges is not None,
            "normalization_range": list(self.normalization_range),
            "channel_names": np.array([name.encode() for name in self.names]),
            "channel_mapping": np.array([kind.encode() for kind in self.kinds]),
            "compression": str(self.compression),
        }

    def description(self) -> dict[str, Any]:
        """What ``uns`` says about the stamps."""
        lower, upper = self.normalization_range
        return {
            **self._counts(),
            "normalization": self.normalization_ranges is not None,
            "normalization_range_lower": lower,
            "normalization_range_upper": upper,
            "channel_names": np.array(self.names, dtype=object),
            "channel_mapping": np.array(self.kinds, dtype=object),
            "compression": str(self.compression),
        }
