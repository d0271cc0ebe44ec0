"""Stamps of several files as one sequence."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cellstamp.decoding import load_decoders, to_float
from cellstamp.engines.threads import Threads
from cellstamp.errors import ConfigError
from cellstamp.h5sc.chunks import look_into
from cellstamp.training.choice import check_alike, choose_labels, choose_planes, choose_rows
from cellstamp.training.files import Encoded, Piece, Plain, StampFile

Paths = str | PathLike[str] | list[str | PathLike[str]] | tuple[str | PathLike[str], ...]
FloatName = Literal["float32", "float16"]
Fetched = tuple[NDArray[np.int64], Encoded | Plain]
"""Stamps that were read, and their places in a batch."""


class StampSet:
    """The chosen stamps of one file or of several, one after the other; picklable.

    Parameters
    ----------
    paths, channels, cells, labels, dtype
        As `cellstamp.iter_batches` takes them.

    Attributes
    ----------
    files
        The files, each with the cells and channels chosen.
    labels
        (n_cells,), or None.
    shape
        Of one stamp: (n_channels, y, x).
    dtype
        Of the stamps given out.
    """

    def __init__(self, paths: Paths, *, channels: Any, cells: Any, labels: Any, dtype: FloatName) -> None:
        self.dtype = _dtype(dtype)
        stored = [look_into(path) for path in _paths(paths)]
        check_alike(stored)
        planes, rows = choose_planes(stored, channels), choose_rows(stored, cells)
        self.labels = choose_labels(stored, rows, labels)
        self.files = tuple(StampFile(*parts) for parts in zip(stored, rows, planes, strict=True))
        self._ends = np.cumsum([len(file) for file in self.files])
        self.shape = (planes[0].size, stored[0].image_size, stored[0].image_size)
        if not len(self):
            message = f"cells: none of the cells of {', '.join(str(file.path) for file in self.files)} are chosen"
            raise ConfigError(message)

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Of the channels chosen."""
        return self.files[0].channel_names

    def load(self) -> None:
        """Load compiled code: processes that are forked after it have it."""
        load_decoders()

    def ids(self, numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Ids of some cells, by their place in the sequence."""
        ids = np.empty(len(numbers), np.uint64)
        for file, rows, places in self._by_file(numbers):
            ids[places] = file.ids[rows]
        return ids

    def read(self, numbers: NDArray[np.int64], out: NDArray[Any], threads: Threads) -> None:
        """Read stamps.

        Parameters
        ----------
        numbers
            int64 (n,): their places in the sequence, from 0 to ``len(self) - 1``.
        out
            (n, n_channels, y, x) of ``dtype``, C-contiguous.
        threads
            Who decodes.

        Raises
        ------
        InputError
            If a file was removed, has changed, or is damaged.
        """
        threads.each(partial(_read_piece, out), self._pieces(numbers))

    def fetch(self, numbers: NDArray[np.int64]) -> list[Fetched]:
        """Bring the bytes of stamps here, for `decode` to decode, here or in another process.

        Raises
        ------
        InputError
            If a file was removed, has changed, or ends too early.
        """
        return [(piece.places, piece.fetch()) for piece in self._pieces(numbers)]

    def _pieces(self, numbers: NDArray[np.int64]) -> list[Piece]:
        pieces: list[Piece] = []
        for file, rows, places in self._by_file(numbers):
            file.check()
            pieces += file.pieces(rows, places)
        return pieces

    def _by_file(self, numbers: NDArray[np.int64]) -> Iterator[tuple[StampFile, NDArray[np.int64], NDArray[np.int64]]]:
        """Each file that has some of the cells, their places in it, and those among ``numbers``."""
        which = np.searchsorted(self._ends, numbers, side="right")
        for number in np.unique(which).tolist():
            places = np.flatnonzero(which == number)
            file = self.files[number]
            yield file, numbers[places] - (self._ends[number] - len(file)), places


def decode(fetched: list[Fetched], out: NDArray[Any], threads: Threads) -> None:
    """Decode what `StampSet.fetch` has read; ``out`` and ``threads`` as `StampSet.read` takes them.

    Raises
    ------
    InputError
        If a file is damaged.
    """
    threads.each(partial(_decode_piece, out), fetched)


def _decode_piece(out: NDArray[Any], piece: Fetched) -> None:
    places, stamps = piece
    for place, stamp in zip(places.tolist(), stamps.decode(), strict=True):
        to_float(stamp, out[place])


def _read_piece(out: NDArray[Any], piece: Piece) -> None:
    _decode_piece(out, (piece.places, piece.fetch()))


def _dtype(dtype: Any) -> np.dtype[Any]:
    for allowed in (np.dtype("float32"), np.dtype("float16")):
        if dtype in (allowed.name, allowed, allowed.type):
            return allowed
    message = f"dtype = {dtype!r}: must be 'float32' or 'float16'"
    raise ConfigError(message)


def _paths(paths: Paths) -> list[Path]:
    given = [paths] if isinstance(paths, (str, PathLike)) else paths
    if not isinstance(given, (list, tuple)) or not all(isinstance(path, (str, PathLike)) for path in given):
        message = (
            f"path: must be the path of an .h5sc file, or a list of paths; is {type(paths).__name__} (a project's is "
            "project.extraction_f.output_path)"
        )
        raise ConfigError(message)
    listed = [Path(path) for path in given]
    if not listed:
        message = "path = []: must be the path of an .h5sc file, or a list of at least one"
        raise ConfigError(message)
    return listed
