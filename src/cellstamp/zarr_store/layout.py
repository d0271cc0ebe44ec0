"""The array of single-cell images in a zarr store: its chunks, shards and codecs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from cellstamp.encoding import BLOSC_LEVEL, ZSTD_LEVEL
from cellstamp.h5sc.layout import IMAGES, Layout

SHARD_BYTES = 2**27
"""Largest shard, uncompressed."""
MOST_ROWS = 512
"""Most cells in a shard."""


@dataclass(frozen=True)
class ShardedLayout(Layout):
    """Cells, planes and pixel type of a zarr store: a chunk has all planes of a cell, a shard many cells."""

    @property
    def planes_per_chunk(self) -> int:
        """Number of planes of a cell."""
        return len(self.names)

    @property
    def rows_per_shard(self) -> int:
        """Number of cells in a shard; it depends on the size of images only, so that all runs write equal shards."""
        return max(1, min(MOST_ROWS, SHARD_BYTES // self.chunk_bytes))

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return -(-self.shape[0] // self.rows_per_shard)

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the array of images, as JSON values."""
        return super().attributes() | {"channel_names": self.names, "channel_mapping": self.kinds}


def create_images(store: Path, layout: ShardedLayout) -> None:
    """Write the metadata of the array of images into a store: its shards are written one by one."""
    codecs: dict[str | None, Any] = {
        "lz4": BloscCodec(
            cname="lz4", clevel=BLOSC_LEVEL, shuffle="noshuffle", typesize=np.dtype(layout.dtype).itemsize
        ),
        "zstd": ZstdCodec(level=ZSTD_LEVEL),
        None: None,
    }
    zarr.create_array(
        store,
        name=f"obsm/{IMAGES}",
        shape=layout.shape,
        dtype=layout.dtype,
        chunks=layout.chunks,
        shards=(layout.rows_per_shard, *layout.chunks[1:]),
        compressors=codecs[layout.compression],
        filters=None,
        fill_value=0,
        attributes=layout.attributes(),
        zarr_format=3,
    )
