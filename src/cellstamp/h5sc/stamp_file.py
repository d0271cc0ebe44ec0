"""Read the chosen images of one file, from any process."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellstamp.decoding import SPARE, DamagedPlaneError, EncodedChunks, PlaneChoice, convert, decode_planes
from cellstamp.errors import InputError
from cellstamp.h5sc.chunks import ChunkIndex, SlicedStamps, StoredStamps
from cellstamp.h5sc.opening import Mark, marked_file
from cellstamp.location import Location, reachable
from cellstamp.remote_file import open_to_read
from cellstamp.reused_memory import Recycler
from cellstamp.stretches import FILE, Runs, merge
from cellstamp.zarr_store.remote_shards import read_remote_runs
from cellstamp.zarr_store.shards import shard_path

_GAP = 2**14
"""Unneeded bytes that are read to save a call: reading them takes as long as the call."""
_REMOTE_GAP = 2**20
"""The same for servers, whose answers take tens of milliseconds."""
_PAGES = 2**18
_PIECE_BYTES = 2**22
"""Decoded bytes that one thread reads together: few pieces cost little, many divide a batch evenly."""


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

    def decode(self, out: NDArray[Any], places: NDArray[np.int64]) -> None:
        """Convert the images, which HDF5 has decoded; see `Encoded.decode`."""
        for place, stamp in zip(places.tolist(), self.stamps, strict=True):
            convert(stamp, out[place])


@dataclass(frozen=True)
class Encoded:
    """The encoded images of some cells of a file, to be decoded in this or another process.

    Attributes
    ----------
    chunks, choice
        Arguments of `cellstamp.decoding.decode_planes`.
    dtype
        Stored pixel type.
    path, ids, channel_names
        File, cells and planes, for messages.
    """

    chunks: EncodedChunks
    choice: PlaneChoice
    dtype: np.dtype[Any]
    path: Location
    ids: NDArray[np.uint64]
    channel_names: tuple[str, ...]

    def decode(self, out: NDArray[Any], places: NDArray[np.int64]) -> None:
        """Decode the images.

        Parameters
        ----------
        out
            (n, n_planes, y, x), C-contiguous, of the stored type, or float32 or float16: then the largest value of an
            integer type becomes 1.
        places
            int64 (n_cells,): index of each cell in ``out``.

        Raises
        ------
        InputError
            If the file is damaged.
        """
        if out.dtype == self.dtype or (self.dtype.name, out.dtype.name) == ("float16", "float32"):
            self._decode(out, places)
            return
        stored = np.empty((len(places), *out.shape[1:]), self.dtype)
        self._decode(stored, np.arange(len(places)))
        Plain(stored).decode(out, places)

    def _decode(self, out: NDArray[Any], places: NDArray[np.int64]) -> None:
        try:
            decode_planes(self.chunks, self.choice, places, self.dtype, out.reshape(*out.shape[:2], -1))
        except DamagedPlaneError as error:
            name, cell = self.channel_names[error.plane], self.ids[error.cell]
            message = f"{self.path} is damaged: {name} of cell {cell} cannot be decoded"
            raise InputError(message) from error


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
        self._choice = PlaneChoice(planes, stored.index.planes_per_chunk if stored.index else 1)
        self._source = _source(stored, rows, planes, self._choice)
        self._handle: _Handle | None = None
        self._memory = Recycler(most_kept=16)

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
        order = self.in_file_order(rows)
        at_once = max(1, _PIECE_BYTES // (self.plane_bytes * len(self.channel_names)))
        parts = [order[start : start + at_once] for start in range(0, len(order), at_once)]
        return [Piece(self, rows[part], places[part]) for part in parts]

    def in_file_order(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the order of images on the disk: indices of ``rows``, int64 (n,)."""
        source = self._source
        if isinstance(source, SlicedStamps):
            return np.argsort(rows, kind="stable")
        files = source.shards.numbers[rows] if source.shards else np.zeros(len(rows), np.int64)
        return np.lexsort((source.offsets[rows, 0], files))

    def in_pieces(self) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Read all chosen images.

        Yields
        ------
        places, images
            int64 (n,): places of some cells among the chosen ones, in the order of the file; and their images
            (n, n_planes, y, x), as stored.

        Raises
        ------
        InputError
            If the file was removed or modified, or is damaged.
        """
        every = np.arange(len(self))
        for piece in self.pieces(every, every):
            images = np.empty((len(piece.rows), len(self.channel_names), self._side, self._side), self.dtype)
            piece.fetch().decode(images, np.arange(len(images)))
            yield piece.places, images

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
        sizes = index.sizes[rows].astype(np.int64)
        # chunks that are not stored have no offset
        positions = np.maximum(index.offsets[rows], 0)
        if index.shards is not None:
            positions += index.shards.numbers[rows, np.newaxis] * FILE
        gap = _GAP if isinstance(self.path, Path) else _REMOTE_GAP
        runs = merge(positions.ravel(), np.abs(sizes).ravel(), gap)
        chunks = EncodedChunks(self._read(runs, index), runs.starts.reshape(sizes.shape), sizes, index.compression)
        return Encoded(chunks, self._choice, self.dtype, self.path, self.ids[rows], self.channel_names)

    def _read(self, runs: Runs, index: ChunkIndex) -> NDArray[np.uint8]:
        """Read runs into memory, and leave room behind them for decoders."""
        # sizes differ: a multiple of some size can be used again
        n_bytes = int(runs.places[-1]) + SPARE
        payload = self._memory.empty((-(-n_bytes // _PAGES) * _PAGES,), np.dtype(np.uint8))[:n_bytes]
        if index.shards is None:
            handle = self._open()
            _read_runs(runs, payload.data, lambda number: (handle, self.path))
            return payload
        try:
            if isinstance(index.shards.store, Path):
                _read_runs(runs, payload.data, partial(_open_shard, index.shards.store))
            else:
                read_remote_runs(runs, payload.data, index.shards.store)
        finally:
            self._open()  # shards of a store that has replaced this one have other cells
        return payload

    def _open(self) -> _Handle:
        # a local name: another thread may replace the attribute meanwhile
        handle = self._handle
        if handle is None or handle.pid != os.getpid():
            handle = _Handle(marked_file(self.path))
            # an open root of a store says nothing about the store that has its path later
            is_store = not isinstance(self.path, Path) or self.path.is_dir()
            self._handle = None if is_store else handle
        handle.check(self._mark)
        return handle


class _Handle:
    """A file open for reading in this process, closed when the handle is freed: keep the handle while reading."""

    def __init__(self, path: Location) -> None:
        self._path, self.pid = path, os.getpid()
        try:
            with reachable(str(path)):
                self._file = open_to_read(path)
        except OSError as error:
            message = f"{path} can no longer be opened: {error.strerror}"
            raise InputError(message) from error
        self.read_into = self._file.read_into
        weakref.finalize(self, self._file.close)

    def check(self, mark: Mark) -> None:
        if Mark.of(self._file.status()) != mark:
            message = f"{self._path} was modified after it was opened: create the dataset or the iterator again"
            raise InputError(message)


def _source(
    stored: StoredStamps, rows: NDArray[np.int64], planes: NDArray[np.int64], choice: PlaneChoice
) -> ChunkIndex | SlicedStamps:
    """Return the bytes of the chunks with the chosen planes, or a reader that uses HDF5."""
    index = stored.index
    if index is None:
        return SlicedStamps(stored.path, rows, planes)
    return index.of(rows, choice.chunks)


def _open_shard(store: Path, number: int) -> tuple[_Handle, Path]:
    path = shard_path(store, number)
    return _Handle(path), path


def _read_runs(runs: Runs, target: memoryview, open_file: Callable[[int], tuple[_Handle, Location]]) -> None:
    """Read runs into memory, those of one file after the other.

    Parameters
    ----------
    open_file
        Returns the handle and the path of a file by its number.
    """
    number, opened = -1, None
    for run in runs.not_empty():
        if run.file != number or opened is None:
            number, opened = run.file, open_file(run.file)
        _read_run(*opened, run.begin, target[run.place])


def _read_run(handle: _Handle, path: Location, begin: int, target: memoryview) -> None:
    done = 0
    while done < len(target):
        n_bytes = handle.read_into(target[done:], begin + done)
        if n_bytes == 0:
            message = f"{path} is damaged: it ends at byte {begin + done:,}, before its last image"
            raise InputError(message)
        done += n_bytes
