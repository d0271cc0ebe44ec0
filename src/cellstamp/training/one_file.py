"""Read the chosen images of one file, from any process."""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellstamp.compression import Compression
from cellstamp.decoding import SPARE, DamagedPlaneError, decode_planes
from cellstamp.errors import InputError
from cellstamp.h5sc.chunks import ChunkIndex, Mark, SlicedStamps, StoredStamps
from cellstamp.system import RawFile

_GAP = 2**14
"""Unneeded bytes that are read to save a call: reading them takes as long as the call."""
_PIECE_BYTES = 2**21
"""Decoded bytes that one thread reads together; they should fit into the cache of its core."""


class Piece(NamedTuple):
    """Images of one file that are read together, and their places in a batch."""

    file: StampFile
    rows: NDArray[np.int64]
    places: NDArray[np.int64]

    def fetch(self) -> Encoded | Plain:
        """Read their bytes."""
        return self.file.fetch(self.rows)


@dataclass(frozen=True)
class Plain:
    """Images read with HDF5: (n, n_planes, y, x) as stored."""

    stamps: NDArray[Any]

    def decode(self) -> NDArray[Any]:
        """Return the images, which HDF5 has decoded."""
        return self.stamps


@dataclass(frozen=True)
class Encoded:
    """The encoded images of some cells of a file, to be decoded in this or another process.

    Attributes
    ----------
    payload, starts, sizes, compression
        Arguments of `cellstamp.decoding.decode_planes`.
    side, dtype
        Side in pixels and pixel type of the planes.
    path, ids, channel_names
        File, cells and planes, for messages.
    """

    payload: NDArray[np.uint8]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    compression: Compression | None
    side: int
    dtype: np.dtype[Any]
    path: Path
    ids: NDArray[np.uint64]
    channel_names: tuple[str, ...]

    def decode(self) -> NDArray[Any]:
        """Return the decoded images: (n, n_planes, y, x) as stored.

        Raises
        ------
        InputError
            If the file is damaged.
        """
        plane_bytes = self.side**2 * self.dtype.itemsize
        out = np.empty(self.sizes.size * plane_bytes + SPARE, np.uint8)
        try:
            decode_planes(self.payload, self.starts, self.sizes, self.compression, out)
        except DamagedPlaneError as error:
            row, plane = divmod(error.plane, len(self.channel_names))
            message = f"{self.path} is damaged: {self.channel_names[plane]} of cell {self.ids[row]} cannot be decoded"
            raise InputError(message) from error
        return out[:-SPARE].view(self.dtype).reshape(len(self.ids), -1, self.side, self.side)


class StampFile:
    """Some planes of some cells of a file. Picklable; each process opens the file.

    Parameters
    ----------
    stored
        Cells and planes of the file.
    rows, planes
        Rows of the chosen cells and numbers of the chosen planes, in the order of the result.

    Attributes
    ----------
    ids
        uint64 (n_cells,): ids of the chosen cells.
    """

    def __init__(self, stored: StoredStamps, rows: NDArray[np.int64], planes: NDArray[np.int64]) -> None:
        self.path, self.dtype = stored.path, stored.dtype
        self.ids = stored.cell_ids[rows]
        self.channel_names = tuple(stored.channel_names[plane] for plane in planes)
        self._mark, self._side = stored.mark, stored.image_size
        self._source = _source(stored, rows, planes)
        self._handle: _Handle | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the open file."""
        return self.__dict__ | {"_handle": None}

    @property
    def plane_bytes(self) -> int:
        """Decoded bytes of one plane, in the stored type."""
        return self._side**2 * self.dtype.itemsize

    def pieces(self, rows: NDArray[np.int64], places: NDArray[np.int64]) -> list[Piece]:
        """Divide images into pieces to read together, in the order of the file."""
        first = self._source.offsets[rows, 0] if isinstance(self._source, ChunkIndex) else rows
        order = np.argsort(first, kind="stable")
        at_once = max(1, _PIECE_BYTES // (self.plane_bytes * len(self.channel_names)))
        parts = [order[start : start + at_once] for start in range(0, len(order), at_once)]
        return [Piece(self, rows[part], places[part]) for part in parts]

    def check(self) -> None:
        """Check that the file was not removed or modified.

        Raises
        ------
        InputError
            If it was.
        """
        self._open()

    def fetch(self, rows: NDArray[np.int64]) -> Encoded | Plain:
        """Read images without decoding them. Thread-safe.

        Raises
        ------
        InputError
            If the file was modified, or ends too early.
        """
        index = self._source
        if isinstance(index, SlicedStamps):
            return Plain(index.read(rows))
        offsets, sizes = index.offsets[rows].ravel(), index.sizes[rows].ravel().astype(np.int64)
        payload, starts = _read(self._open(), self.path, offsets, np.abs(sizes))
        how = (index.compression, self._side, self.dtype)
        return Encoded(payload, starts, sizes, *how, self.path, self.ids[rows], self.channel_names)

    def _open(self) -> _Handle:
        # a local name: another thread may replace the attribute meanwhile
        handle = self._handle
        if handle is None or handle.pid != os.getpid():
            handle = self._handle = _Handle(self.path)
        handle.check(self._mark)
        return handle


class _Handle:
    """A file open for reading in this process, closed when the handle is freed: keep the handle while reading."""

    def __init__(self, path: Path) -> None:
        self._path, self.pid = path, os.getpid()
        try:
            self._file = RawFile(path)
        except OSError as error:
            message = f"{path} can no longer be opened: {error.strerror}"
            raise InputError(message) from error
        self.read_into = self._file.read_into
        weakref.finalize(self, self._file.close)

    def check(self, mark: Mark) -> None:
        if Mark.of(self._file.status()) != mark:
            message = f"{self._path} was modified after it was opened: create the dataset or the iterator again"
            raise InputError(message)


def _source(stored: StoredStamps, rows: NDArray[np.int64], planes: NDArray[np.int64]) -> ChunkIndex | SlicedStamps:
    """Return the bytes of the chosen planes, or a reader that uses HDF5."""
    if stored.index is None:
        return SlicedStamps(stored.path, rows, planes)
    chosen = np.ix_(rows, planes)
    return ChunkIndex(stored.index.offsets[chosen], stored.index.sizes[chosen], stored.index.compression)


def _read(
    handle: _Handle, path: Path, offsets: NDArray[np.int64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read stretches of a file, neighbours together; return the bytes, and the first byte of each stretch in them."""
    order = np.argsort(offsets, kind="stable")
    begins, ends = offsets[order], offsets[order] + sizes[order]
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = begins[1:] > np.maximum.accumulate(ends)[:-1] + _GAP
    firsts = np.flatnonzero(is_first)
    run_begins, run_ends = begins[firsts], np.maximum.reduceat(ends, firsts)
    places = np.concatenate([np.zeros(1, np.int64), np.cumsum(run_ends - run_begins)])
    payload = np.empty(places[-1] + SPARE, np.uint8)
    for begin, start, stop in zip(run_begins.tolist(), places[:-1].tolist(), places[1:].tolist(), strict=True):
        _read_run(handle, path, begin, payload.data[start:stop])
    starts = np.empty(len(order), np.int64)
    starts[order] = begins + (places[:-1] - run_begins)[np.cumsum(is_first) - 1]
    return payload, starts


def _read_run(handle: _Handle, path: Path, begin: int, target: memoryview) -> None:
    done = 0
    while done < len(target):
        n_bytes = handle.read_into(target[done:], begin + done)
        if n_bytes == 0:
            message = f"{path} is damaged: it ends at byte {begin + done:,}, before its last image"
            raise InputError(message)
        done += n_bytes
