"""Find the bytes of the images of a finished file, to read them without HDF5, or read them with HDF5."""

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

from cellstamp.compression import Compression
from cellstamp.errors import InputError
from cellstamp.h5sc.layout import CELL_ID, IMAGES
from cellstamp.h5sc.opening import open_h5sc
from cellstamp.system import RawFile

_DTYPES = tuple(map(np.dtype, ("float16", "float32", "uint8", "uint16")))
_FILTERS: dict[tuple[int, ...], Compression | None] = {
    (): None,
    (h5py.h5z.FILTER_DEFLATE,): "gzip",
    (h5py.h5z.FILTER_LZF,): "lzf",
}


@dataclass(frozen=True)
class Mark:
    """Size, time of modification and inode of a file: they show whether it was replaced or modified."""

    n_bytes: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Mark:
        """Return the mark of a file with this status."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


@dataclass(frozen=True)
class ChunkIndex:
    """Bytes of planes in their file.

    Attributes
    ----------
    offsets
        int64 (n_cells, n_planes): first byte of each plane.
    sizes
        int32 (n_cells, n_planes): bytes of each plane. Negative for a plane that is not compressed, 0 for one that is
        zero and not stored.
    compression
        HDF5 filter, or None.
    """

    offsets: NDArray[np.int64]
    sizes: NDArray[np.int32]
    compression: Compression | None


@dataclass(frozen=True)
class StoredStamps:
    """Cells and planes of a file, and the bytes of its images.

    Attributes
    ----------
    obs
        Table of cells.
    channel_names
        Names of all planes, masks first.
    index
        Bytes of the planes. None: the images are stored in a way that only HDF5 reads.
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
        """Ids of the cells (n_cells,), in the order of the file."""
        return np.asarray(self.obs[CELL_ID], np.uint64)


def look_into(path: Path) -> StoredStamps:
    """Read the tables of a file, and find the bytes of its images.

    Raises
    ------
    InputError
        If the file is missing, or is not an `.h5sc` file.
    """
    with open_h5sc(path) as file, RawFile(path) as raw:
        mark = Mark.of(raw.status())
        images = file["obsm"][IMAGES]
        obs, var = anndata.io.read_elem(file["obs"]), anndata.io.read_elem(file["var"])
        if CELL_ID not in obs or "channels" not in var or (len(obs), len(var)) != images.shape[:2]:
            message = (
                f"{path} is not an .h5sc file: obs must have {CELL_ID} and one row for each of the {images.shape[0]} "
                f"cells, var must have channels and one row for each of the {images.shape[1]} planes"
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
    """Find the planes of images that are stored without chunks, the default of h5py."""
    start = images.id.get_offset()
    if start is None:
        return None
    n_bytes = images.dtype.itemsize * images.shape[2] * images.shape[3]
    numbers = np.arange(images.shape[0] * images.shape[1]).reshape(images.shape[:2])
    return ChunkIndex(start + numbers * n_bytes, np.full(numbers.shape, -n_bytes, np.int32), None)


def _places(images: h5py.Dataset) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Find all chunks in one pass through the index of HDF5; a request for one chunk also takes a pass."""
    offsets, sizes = np.zeros(images.shape[:2], np.int64), np.zeros(images.shape[:2], np.int32)
    is_plain = images.compression is None

    def note(chunk: Any) -> None:
        place = chunk.chunk_offset[:2]
        offsets[place] = chunk.byte_offset
        sizes[place] = -chunk.size if is_plain or chunk.filter_mask else chunk.size

    images.id.chunk_iter(note)
    return offsets, sizes


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

    def __init__(self, path: Path, rows: NDArray[np.int64], planes: NDArray[np.int64]) -> None:
        self._path, self._rows, self._planes = path, rows, planes
        self._opened: tuple[int, h5py.File] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the open file."""
        return type(self), (self._path, self._rows, self._planes)

    def read(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Read images by their index among the chosen cells: (n, n_planes, y, x), as stored."""
        file = self._file()  # a local name: another thread may replace the attribute meanwhile
        images = file["obsm"][IMAGES]
        return np.stack([images[row][self._planes] for row in self._rows[numbers].tolist()])

    def _file(self) -> h5py.File:
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            opened = self._opened = os.getpid(), open_h5sc(self._path)
        return opened[1]
