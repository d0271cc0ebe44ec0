"""Names, shapes, types and attributes of the `.h5sc` file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.compression import Codec
from cellstamp.encoded_cells import n_chunks_of

if TYPE_CHECKING:
    from cellstamp.config_rules import StampType

IMAGES = "single_cell_images"
"""Name of the images in ``obsm``, and of their settings in ``uns``."""

OURS = "cellstamp"
"""Name in ``uns`` of the version, inputs and settings that made the file."""

CELL_ID = "scportrait_cell_id"
INSTANCE_ID = "instance_id"
"""Column of ``obs`` for cells that are given as shapes: their ids in the shapes element, integers or texts."""
EXCEEDS = "exceeds_crop"
"""Column of ``obs``: whether a cell extends beyond its crop."""
MEASURED_IN_PART = "measured_in_part"
"""Column of ``obs`` in a table of features: whether a cell extends beyond the pixels in which it was measured."""
REGION = "region"
ANNOTATION = "spatialdata_attrs"
"""Name in ``uns`` of SpatialData's table metadata: the annotated mask, and the columns that match rows to it."""

FILE_NAME = "single_cells.h5sc"
STORE_NAME = "single_cells.zarr"
FEATURES_FILE = "features.h5ad"
FEATURES_STORE = "features.zarr"
"""Table of features beside a file, and beside a store."""
FEATURES_NAMES = (FEATURES_FILE, FEATURES_STORE)
URL_NAME = "single_cells.url"
"""File with the URL of a store."""
RESULT_NAMES = (FILE_NAME, STORE_NAME, URL_NAME)
REMOVED_NAME = "removed_classes.csv"
"""List of the removed cells beside a file, as in scportrait; earlier versions wrote it for all formats."""
PER_CHANNEL = "per channel"
"""Stored instead of quantiles that differ between channels; ``uns/cellstamp`` has them."""

HDF5_BOUND = ("v110", "v110")
"""Oldest and newest HDF5 format used; its chunk index is a quarter the size of the oldest format's."""


CHUNK_BYTES = 2**20
"""Largest chunk of several planes, uncompressed: HDF5's chunk cache before version 2.0 holds no larger ones."""


def removed_name(name: str) -> str:
    """Return the name of the list of removed cells of a file, a store, or a file with a URL: one for each result."""
    suffix = PurePath(name).suffix
    return f"removed_classes{suffix}.csv" if suffix in {".zarr", ".url"} else REMOVED_NAME


def planes_per_chunk(n_planes: int, plane_bytes: int, compression: Codec | None) -> int:
    """Return the number of planes in a chunk: all of a cell that fit into `CHUNK_BYTES`, in chunks of equal size.

    The last chunk of a cell may lack a few planes, which are stored as zeros. Only without compression they would take
    space, so the number then divides ``n_planes``.
    """
    most = min(n_planes, max(1, CHUNK_BYTES // plane_bytes))
    if compression is None:
        return max(number for number in range(1, most + 1) if n_planes % number == 0)
    return -(-n_planes // -(-n_planes // most))


@dataclass(frozen=True)
class Layout:
    """Cells, planes and pixel type of a file.

    Attributes
    ----------
    cell_ids
        uint64 (n_cells,), in the order of the images.
    centers
        float64 (n_cells, 2): unrounded x, y in pixels.
    mask_names, channel_names
        In the order of the planes: masks first.
    image_size
        Side of a single-cell image in pixels.
    normalization_ranges
        Quantiles of each channel, or None without normalisation.
    compression
        Codec of the chunks, or None.
    dtype
        Pixel type of the images.
    region
        Name of the mask or shapes that the cells annotate; None: the first mask.
    instances
        (n_cells,): ids of the cells in these shapes, integers or texts; None: ``cell_ids``.
    begun_with
        Planes per chunk of an interrupted run that this one resumes. None: see `planes_per_chunk`.
    """

    cell_ids: NDArray[np.uint64]
    centers: NDArray[np.float64]
    mask_names: tuple[str, ...]
    channel_names: tuple[str, ...]
    image_size: int
    normalization_ranges: tuple[tuple[float, float], ...] | None
    compression: Codec | None
    dtype: StampType = "float16"
    region: str | None = None
    instances: NDArray[Any] | None = None
    begun_with: int | None = None

    @property
    def normalization_range(self) -> tuple[float, float] | tuple[str, str]:
        """The quantiles as the format stores them: one pair, or words for none and for several pairs."""
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
        """Kind of each plane: mask or image channel."""
        return ["mask"] * len(self.mask_names) + ["image_channel"] * len(self.channel_names)

    @property
    def annotated(self) -> str:
        """The mask, or the shapes, that the cells annotate."""
        return self.region or self.mask_names[0]

    def annotation(self) -> dict[str, str]:
        """Return SpatialData's table metadata."""
        key = CELL_ID if self.instances is None else INSTANCE_ID
        return {"region": self.annotated, "region_key": REGION, "instance_key": key}

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n_cells, n_masks + n_channels, size, size)."""
        return self.cell_ids.size, len(self.names), self.image_size, self.image_size

    @property
    def chunks(self) -> tuple[int, int, int, int]:
        """(1, planes per chunk, size, size)."""
        return 1, self.planes_per_chunk, self.image_size, self.image_size

    @property
    def planes_per_chunk(self) -> int:
        """Number of planes of a cell that are stored together."""
        return self.begun_with or planes_per_chunk(len(self.names), self._plane_bytes, self.compression)

    @property
    def chunks_per_cell(self) -> int:
        """Number of chunks of a cell."""
        return n_chunks_of(len(self.names), self.planes_per_chunk)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of an uncompressed chunk."""
        return self.planes_per_chunk * self._plane_bytes

    @property
    def _plane_bytes(self) -> int:
        return np.dtype(self.dtype).itemsize * self.image_size**2

    def _counts(self) -> dict[str, int]:
        return {
            "n_cells": self.cell_ids.size,
            "n_channels": len(self.names),
            "n_masks": len(self.mask_names),
            "n_image_channels": len(self.channel_names),
            "image_size": self.image_size,
        }

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the dataset of images."""
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
        """Return the settings in ``uns``."""
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
