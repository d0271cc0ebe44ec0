"""Find the chunks of all cells in the shards of a store, to read them without zarr."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

from cellstamp.compression import Codec
from cellstamp.errors import InputError
from cellstamp.location import UNLISTED, Location
from cellstamp.zarr_store.remote_shards import Index, read_indexes
from cellstamp.zarr_store.shards import read_index, shard_path

_CODECS: dict[str, Codec] = {"blosc": "lz4", "zstd": "zstd"}
"""By their names in zarr. Blosc's bytes say which of its compressors made them."""
_KEYS = {"name": "default", "configuration": {"separator": "/"}}
_LITTLE = {"endian": "little"}


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


def find_chunks(store: Location, images: zarr.Array[Any]) -> FoundChunks | None:
    """Read the indexes of all shards.

    Parameters
    ----------
    store
        Location of the store.
    images
        Its array of images (n_cells, n_planes, y, x).

    Returns
    -------
    FoundChunks or None
        None: the images are stored in a way that only zarr reads.

    Raises
    ------
    InputError
        If a shard is damaged or missing. Zarr reads zeros in its place, which only cells without pixels have.
    """
    found = _inner_codecs(images)
    if found is None or str(store).startswith(UNLISTED):
        return None
    n_cells, rows_per_shard = int(images.shape[0]), int((images.shards or (1,))[0])
    n_shards = -(-n_cells // rows_per_shard)
    table = np.zeros((2, n_shards * rows_per_shard), np.int64)
    indexes = _indexes(store, n_shards, rows_per_shard)
    for number in range(n_shards):
        index = indexes.get(number)
        if index is None:
            problem = "damaged: its index is incomplete" if number in indexes else "missing"
            raise InputError(f"{shard_path(store, number)} is {problem}. Extract again, or restore the file")
        table[:, number * rows_per_shard : (number + 1) * rows_per_shard] = index
    offsets, sizes = table[:, :n_cells]
    numbers = np.arange(n_cells) // rows_per_shard
    codec = _CODECS[found[0]] if found else None
    return FoundChunks(numbers, offsets, sizes if found else -sizes, codec)


def _indexes(store: Location, n_shards: int, rows_per_shard: int) -> dict[int, Index | None]:
    """Return the indexes of the shards that exist, by number; None: the shard is damaged."""
    if not isinstance(store, Path):
        return read_indexes(store, rows_per_shard)
    paths = ((number, shard_path(store, number)) for number in range(n_shards))
    found = {number: (path, read_index(path, rows_per_shard)) for number, path in paths}
    return {number: index for number, (path, index) in found.items() if index is not None or path.exists()}


def _inner_codecs(images: zarr.Array[Any]) -> tuple[str, ...] | None:
    """Return the compressors of chunks with all planes of a cell; None if they are stored in another way."""
    about: dict[str, Any] = json.loads(json.dumps(images.metadata.to_dict(), default=str))
    shape, (outer, *others) = list(images.shape), about.get("codecs") or [{}]
    if about["zarr_format"] != 3 or others or outer.get("name") != "sharding_indexed":
        return None
    sharding = outer["configuration"]
    serializer, *compressors = sharding["codecs"]
    is_ours = (
        sharding["chunk_shape"] == [1, *shape[1:]]
        and about["chunk_grid"]["configuration"]["chunk_shape"][1:] == shape[1:]
        and sharding["index_location"] == "end"
        and [codec["name"] for codec in sharding["index_codecs"]] == ["bytes", "crc32c"]
        and about["chunk_key_encoding"] == _KEYS
        and serializer["name"] == "bytes"
        and serializer.get("configuration", _LITTLE) == _LITTLE
        and not np.any(images.fill_value)
    )
    names = tuple(codec["name"] for codec in compressors)
    return names if is_ours and len(names) < 2 and _CODECS.keys() >= {*names} else None
