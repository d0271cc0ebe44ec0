"""Find the chunks of all cells in the shards of a store, to read them without zarr."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

from cellstamp.compression import Codec
from cellstamp.errors import InputError
from cellstamp.zarr_store.shards import read_index, shard_path

_CODECS: dict[type, Codec] = {BloscCodec: "lz4", ZstdCodec: "zstd"}


class FoundChunks(NamedTuple):
    """The chunks of all cells, one for each.

    Attributes
    ----------
    numbers
        int64 (n_cells,): number of each cell's shard.
    offsets, sizes
        int64 (n_cells,): first byte and bytes of each chunk in its shard; the size of a missing chunk is 0.
    codec
        Codec of the chunks; None: they are not compressed.
    """

    numbers: NDArray[np.int64]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    codec: Codec | None


def find_chunks(store: Path, images: zarr.Array[Any]) -> FoundChunks | None:
    """Read the indexes of all shards.

    Parameters
    ----------
    store
        Folder of the store.
    images
        Its array of images (n_cells, n_planes, y, x).

    Returns
    -------
    FoundChunks or None
        None: the images are stored in a way that only zarr reads.

    Raises
    ------
    InputError
        If a shard is damaged.
    """
    found = _inner_codecs(images)
    if found is None:
        return None
    n_cells, rows_per_shard = int(images.shape[0]), int((images.shards or (1,))[0])
    n_shards = -(-n_cells // rows_per_shard)
    table = np.zeros((2, n_shards * rows_per_shard), np.int64)
    for number in range(n_shards):
        path, own = shard_path(store, number), slice(number * rows_per_shard, (number + 1) * rows_per_shard)
        index = read_index(path, rows_per_shard)
        if index is not None:
            table[:, own] = index
        elif path.exists():
            raise InputError(f"{path} is damaged: its index is incomplete. Extract again, or restore the file")
    offsets, sizes = table[:, :n_cells]
    numbers = np.arange(n_cells) // rows_per_shard
    codec = _CODECS[type(found[0])] if found else None
    return FoundChunks(numbers, offsets, sizes if found else -sizes, codec)


def _inner_codecs(images: zarr.Array[Any]) -> tuple[Any, ...] | None:
    """Return the compressor in chunks with all planes of a cell; None if they are stored in another way."""
    codecs: Sequence[Any] = getattr(images.metadata, "codecs", ())
    if len(codecs) != 1 or not isinstance(codecs[0], ShardingCodec):
        return None
    sharding = codecs[0]
    shape: tuple[int, ...] = images.shape
    shards: tuple[int, ...] = images.shards or ()
    is_ours = (
        images.chunks == (1, *shape[1:])
        and shards[1:] == shape[1:]
        and sharding.index_location.value == "end"
        and [type(codec) for codec in sharding.index_codecs] == [BytesCodec, Crc32cCodec]
        and images.metadata.chunk_key_encoding.name == "default"  # type: ignore[union-attr]
        and images.metadata.chunk_key_encoding.separator == "/"  # type: ignore[union-attr]
        and not np.any(images.fill_value)
    )
    serializer, *compressors = sharding.codecs
    is_plain = isinstance(serializer, BytesCodec) and all(type(codec) in _CODECS for codec in compressors)
    return tuple(compressors) if is_ours and is_plain and len(compressors) < 2 else None
