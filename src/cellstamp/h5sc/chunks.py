"""Find the bytes of the images of a finished file, to read them without HDF5, or read them with HDF5."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from cellstamp.compression import Codec, Compression
from cellstamp.encoded_cells import n_chunks_of
from cellstamp.errors import InputError
from cellstamp.h5sc.chunk_table import ChunkTable, read_chunk_table
from cellstamp.h5sc.layout import CELL_ID, IMAGES
from cellstamp.h5sc.opening import Mark, marked_file, open_h5sc
from cellstamp.location import Location
from cellstamp.remote_file import RemoteFile, open_to_read
from cellstamp.system import RawFile
from cellstamp.zarr_store.shard_index import find_chunks

_DTYPES = tuple(map(np.dtype, ("float16", "float32", "uint8", "uint16")))
_FILTERS: dict[tuple[int, ...], Compression | None] = {
    (): None,
    (h5py.h5z.FILTER_DEFLATE,): "gzip",
    (h5py.h5z.FILTER_LZF,): "lzf",
}


@dataclass(frozen=True)
class Shards:
    """Files that hold the chunks of a zarr store.

    Attributes
    ----------
    store
        Location of the store.
    numbers
        int64 (n_cells,): number of each cell's shard.
    """

    store: Location
    numbers: NDArray[np.int64]

    def of(self, rows: NDArray[np.int64]) -> Shards:
        """Return the shards of some cells."""
        return Shards(self.store, self.numbers[rows])


@dataclass(frozen=True)
class ChunkIndex:
    """Bytes of chunks in their file.

    Attributes
    ----------
    offsets
        int64 (n_cells, n_chunks): first byte of each chunk.
    sizes
        int32 (n_cells, n_chunks): bytes of each chunk. Negative for one that is not compressed, 0 for one that is zero
        and not stored.
    compression
        Codec of the chunks, or None.
    planes_per_chunk
        Number of planes of a cell in a chunk.
    shards
        Files of the cells; None: all chunks are in one file.
    """

    offsets: NDArray[np.int64]
    sizes: NDArray[np.int32]
    compression: Codec | None
    planes_per_chunk: int
    shards: Shards | None = None

    def of(self, rows: NDArray[np.int64], chunks: NDArray[np.int64]) -> ChunkIndex:
        """Return the index of some chunks of some cells."""
        chosen = np.ix_(rows, chunks)
        shards = None if self.shards is None else self.shards.of(rows)
        return replace(self, offsets=self.offsets[chosen], sizes=self.sizes[chosen], shards=shards)


@dataclass(frozen=True)
class StoredStamps:
    """Cells and planes of a file, and the bytes of its images.

    Attributes
    ----------
    cell_ids
        uint64 (n_cells,), in the order of the file.
    channel_names
        Names of all planes, masks first.
    index
        Bytes of the chunks. None: the images are stored in a way that only HDF5 reads.
    """

    path: Location
    mark: Mark
    cell_ids: NDArray[np.uint64]
    channel_names: tuple[str, ...]
    image_size: int
    dtype: np.dtype[Any]
    index: ChunkIndex | None

    def __len__(self) -> int:
        return len(self.cell_ids)

    @cached_property
    def obs(self) -> pd.DataFrame:
        """Table of cells, read when it is first used: of a million cells, this takes seconds.

        Raises
        ------
        InputError
            If the file was removed or modified.
        """
        with open_h5sc(self.path) as file, open_to_read(marked_file(self.path)) as raw:
            if Mark.of(raw.status()) != self.mark:
                raise InputError(f"{self.path} was modified while it was opened: open it again")
            obs: pd.DataFrame = anndata.io.read_elem(file["obs"])
            return obs


def look_into(path: Location) -> StoredStamps:
    """Read the tables of a file, and find the bytes of its images.

    Raises
    ------
    InputError
        If the file is missing, or is not an `.h5sc` file.
    """
    with open_h5sc(path) as file, open_to_read(marked_file(path)) as raw:
        mark = Mark.of(raw.status())
        images, var = file[f"obsm/{IMAGES}"], anndata.io.read_elem(file["var"])
        ids = anndata.io.read_elem(file[f"obs/{CELL_ID}"]) if f"obs/{CELL_ID}" in file else ()
        if "channels" not in var or (len(ids), len(var)) != images.shape[:2]:
            message = (
                f"{path} is not an .h5sc file: obs must have {CELL_ID} and one row for each of the {images.shape[0]} "
                f"cells, var must have channels and one row for each of the {images.shape[1]} planes"
            )
            raise InputError(message)
        names = tuple(map(str, var["channels"]))
        if isinstance(raw, RemoteFile) or isinstance(images, zarr.Array):
            index = _sharded(path, images)
        else:
            index = _index(file, images, raw)
        return StoredStamps(path, mark, np.asarray(ids, np.uint64), names, images.shape[2], images.dtype, index)


def _index(file: h5py.File, images: h5py.Dataset, raw: RawFile) -> ChunkIndex | None:
    if images.dtype not in _DTYPES or file.userblock_size or images.shape[2] != images.shape[3]:
        return None
    if images.chunks is None:
        return _contiguous(images)
    properties = images.id.get_create_plist()
    filters = tuple(properties.get_filter(number)[0] for number in range(properties.get_nfilters()))
    if (images.chunks[0], *images.chunks[2:]) != (1, *images.shape[2:]):
        return None
    if filters not in _FILTERS or np.any(images.fillvalue):
        return None
    table = read_chunk_table(file, images, raw)
    offsets, sizes = _listed(images) if table is None else _of_table(images, table)
    index = ChunkIndex(offsets, sizes, _FILTERS[filters], images.chunks[1])
    return _by_plane(index, images) if index.compression is None else index


def _sharded(path: Location, images: zarr.Array[Any]) -> ChunkIndex | None:
    found = find_chunks(path, images) if images.dtype in _DTYPES and images.shape[2] == images.shape[3] else None
    if found is None:
        return None
    numbers, offsets, sizes, codec = found
    shards = Shards(path, numbers)
    return ChunkIndex(offsets[:, np.newaxis], sizes[:, np.newaxis].astype(np.int32), codec, images.shape[1], shards)


def _contiguous(images: h5py.Dataset) -> ChunkIndex | None:
    """Find the planes of images that are stored without chunks, the default of h5py."""
    start = images.id.get_offset()
    if start is None:
        return None
    n_bytes = images.dtype.itemsize * images.shape[2] * images.shape[3]
    numbers = np.arange(images.shape[0] * images.shape[1]).reshape(images.shape[:2])
    return ChunkIndex(start + numbers * n_bytes, np.full(numbers.shape, -n_bytes, np.int32), None, 1)


def _of_table(images: h5py.Dataset, table: ChunkTable) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    sizes = np.where(table.unfiltered, -table.sizes, table.sizes).astype(np.int32)
    return table.offsets.reshape(len(images), -1), sizes.reshape(len(images), -1)


def _listed(images: h5py.Dataset) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Have HDF5 list all chunks in one pass through its index; a request for one chunk also takes a pass."""
    per_chunk, is_plain = images.chunks[1], images.compression is None
    shape = images.shape[0], n_chunks_of(images.shape[1], per_chunk)
    offsets, sizes = np.zeros(shape, np.int64), np.zeros(shape, np.int32)

    def note(chunk: Any) -> None:
        place = chunk.chunk_offset[0], chunk.chunk_offset[1] // per_chunk
        offsets[place] = chunk.byte_offset
        sizes[place] = -chunk.size if is_plain or chunk.filter_mask else chunk.size

    images.id.chunk_iter(note)
    return offsets, sizes


def _by_plane(index: ChunkIndex, images: h5py.Dataset) -> ChunkIndex:
    """Return the bytes of each plane of chunks that are not compressed, so that only chosen planes are read."""
    n_bytes = images.dtype.itemsize * images.shape[2] * images.shape[3]
    number = np.arange(images.shape[1])
    chunk, place = number // index.planes_per_chunk, number % index.planes_per_chunk
    sizes = np.where(index.sizes[:, chunk] < 0, -n_bytes, 0).astype(np.int32)
    return ChunkIndex(index.offsets[:, chunk] + place * n_bytes, sizes, None, 1)


class SlicedStamps:
    """Read images with HDF5, for files stored in ways that cellstamp does not decode itself.

    Picklable; each process opens the file.

    Parameters
    ----------
    path
        The file.
    rows, planes
        Rows of the cells, int64 (n_cells,), and numbers of the planes, int64 (n_planes,).
    """

    def __init__(self, path: Location, rows: NDArray[np.int64], planes: NDArray[np.int64]) -> None:
        self._path, self._rows, self._planes = path, rows, planes
        self._opened: tuple[int, h5py.File] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the open file."""
        return type(self), (self._path, self._rows, self._planes)

    def read(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Read images by their index among the chosen cells: (n, n_planes, y, x), as stored."""
        file = self._file()  # a local name: another thread may replace the attribute meanwhile
        images = file[f"obsm/{IMAGES}"]
        return np.stack([images[row][self._planes] for row in self._rows[numbers].tolist()])

    def _file(self) -> h5py.File:
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            opened = self._opened = os.getpid(), open_h5sc(self._path)
        return opened[1]
