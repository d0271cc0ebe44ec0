"""Where the stamps of a finished file lie, so that they can be read without HDF5; and reading with it, where not."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellstamp.errors import InputError
from cellstamp.h5sc.layout import CELL_ID, IMAGES
from cellstamp.h5sc.opening import open_h5sc

_DTYPES = tuple(map(np.dtype, ("float16", "float32", "uint8", "uint16")))
_FILTERS = {(): None, (h5py.h5z.FILTER_DEFLATE,): "gzip", (h5py.h5z.FILTER_LZF,): "lzf"}


@dataclass(frozen=True)
class Mark:
    """Tells a file from what it may be changed into: its size, when it was changed, and its number on the disk."""

    n_bytes: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Mark:
        """The mark of a file with this status."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


@dataclass(frozen=True)
class ChunkIndex:
    """Where the planes of some stamps lie in their file.

    Attributes
    ----------
    offsets
        int64 (n_cells, n_planes): the first byte of each plane.
    sizes
        int32 (n_cells, n_planes): its bytes; negative if it is stored as it is, 0 if it is not stored, being zero.
    compression
        HDF5 filter.
    """

    offsets: NDArray[np.int64]
    sizes: NDArray[np.int32]
    compression: str | None


@dataclass(frozen=True)
class StoredStamps:
    """What is in a file.

    Attributes
    ----------
    obs
        The table of the cells.
    channel_names
        Of all planes, masks first.
    index
        Where the planes are; None if that way of storing them is none that we read ourselves.
    """

    path: Path
    mark: Mark
    obs: pd.DataFrame
    channel_names: tuple[str, ...]
    image_size: int
    dtype: np.dtype[Any]
    index: ChunkIndex | None

    @property
    def cell_ids(self) -> NDArray[np.uint64]:
        """(n_cells,), in the order of the stamps."""
        return np.asarray(self.obs[CELL_ID], np.uint64)


def look_into(path: Path) -> StoredStamps:
    """Read everything but the stamps, and where they are.

    Raises
    ------
    InputError
        If there is no such file, or it is no `.h5sc` file.
    """
    with open_h5sc(path) as file:
        mark = Mark.of(path.stat())
        images = file["obsm"][IMAGES]
        obs, var = anndata.io.read_elem(file["obs"]), anndata.io.read_elem(file["var"])
        if CELL_ID not in obs or "channels" not in var or (len(obs), len(var)) != images.shape[:2]:
            message = (
                f"{path} is not an .h5sc file: it must have a row of obs, with {CELL_ID}, for each of the "
                f"{images.shape[0]} cells, and a row of var, with channels, for each of the {images.shape[1]} planes"
            )
            raise InputError(message)
        names = tuple(map(str, var["channels"]))
        return StoredStamps(path, mark, obs, names, images.shape[2], images.dtype, _index(file, images))


def _index(file: h5py.File, images: h5py.Dataset) -> ChunkIndex | None:
    if images.dtype not in _DTYPES or file.userblock_size or images.shape[2] != images.shape[3]:
        return None
    if images.chunks is None:
        return _contiguous(images)
    properties = images.id.get_create_plist()
    filters = tuple(properties.get_filter(number)[0] for number in range(properties.get_nfilters()))
    if images.chunks != (1, 1, *images.shape[2:]) or filters not in _FILTERS or np.any(images.fillvalue):
        return None
    return ChunkIndex(*_places(images), _FILTERS[filters])


def _contiguous(images: h5py.Dataset) -> ChunkIndex | None:
    """The planes of stamps that are one block of memory, as a program writes them that asks for nothing else."""
    start = images.id.get_offset()
    if start is None:
        return None
    n_bytes = images.dtype.itemsize * images.shape[2] * images.shape[3]
    numbers = np.arange(images.shape[0] * images.shape[1]).reshape(images.shape[:2])
    return ChunkIndex(start + numbers * n_bytes, np.full(numbers.shape, -n_bytes, np.int32), None)


def _places(images: h5py.Dataset) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Go through HDF5's own index once; asked for one chunk after the other, it would go through it each time."""
    offsets, sizes = np.zeros(images.shape[:2], np.int64), np.zeros(images.shape[:2], np.int32)
    is_plain = images.compression is None

    def note(chunk: Any) -> None:
        place = chunk.chunk_offset[:2]
        offsets[place] = chunk.byte_offset
        sizes[place] = -chunk.size if is_plain or chunk.filter_mask else chunk.size

    images.id.chunk_iter(note)
    return offsets, sizes


class SlicedStamps:
    """Some stamps of a file, read with HDF5: for files whose stamps are stored in ways we do not read ourselves.

    Picklable; each process opens the file for itself.

    Parameters
    ----------
    path
        The file.
    rows, planes
        Which stamps, and which planes of them.
    """

    def __init__(self, path: Path, rows: NDArray[np.int64], planes: NDArray[np.int64]) -> None:
        self._path, self._rows, self._planes = path, rows, planes
        self._opened: tuple[int, h5py.File] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Take along no open file."""
        return type(self), (self._path, self._rows, self._planes)

    def read(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Read stamps by their place among those chosen: (n, n_planes, y, x), as stored."""
        file = self._file()  # a local name: another thread may open the file at the same time and replace this one
        images = file["obsm"][IMAGES]
        return np.stack([images[row][self._planes] for row in self._rows[numbers].tolist()])

    def _file(self) -> h5py.File:
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            opened = self._opened = os.getpid(), open_h5sc(self._path)
        return opened[1]
