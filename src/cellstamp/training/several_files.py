"""Read the images of several files as one sequence."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from os import PathLike
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cellstamp.decoding import load_decoders
from cellstamp.engines.threads import Threads
from cellstamp.errors import ConfigError
from cellstamp.h5sc.chunks import look_into
from cellstamp.h5sc.layout import FILE_NAME, STORE_NAME
from cellstamp.h5sc.stamp_file import Encoded, Piece, Plain, StampFile
from cellstamp.location import Location, is_path, location_of
from cellstamp.training.choice import check_alike, choose_labels, choose_planes, choose_rows

Paths = str | PathLike[str] | list[str | PathLike[str]] | tuple[str | PathLike[str], ...]
FloatName = Literal["float32", "float16"]
Fetched = tuple[NDArray[np.int64], Encoded | Plain]
"""Places in a batch, and the images read for them."""


class StampSet:
    """The chosen images of one or several files, in one sequence. Picklable.

    Parameters
    ----------
    paths, channels, cells, labels, dtype
        Arguments of `cellstamp.iter_batches`.

    Attributes
    ----------
    files
        The files, with their chosen cells and channels.
    labels
        Labels (n_cells,), or None.
    shape
        Shape of one image: (n_channels, y, x).
    dtype
        Pixel type of the returned images.
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
            listed = ", ".join(str(file.path) for file in self.files)
            message = f"cells: chooses no cell of {listed}; must choose at least one"
            raise ConfigError(message)

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the chosen channels."""
        return self.files[0].channel_names

    def load(self) -> None:
        """Load compiled code, for processes forked afterwards."""
        load_decoders()

    def ids(self, numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Return the ids of cells, uint64 (n,), by their places in the sequence."""
        ids = np.empty(len(numbers), np.uint64)
        for file, rows, places in self._by_file(numbers):
            ids[places] = file.ids[rows]
        return ids

    def in_file_order(self) -> NDArray[np.int64]:
        """Return the places of all cells in the order in which their images are stored, int64 (n_cells,)."""
        starts = self._ends - [len(file) for file in self.files]
        parts = zip(self.files, starts, strict=True)
        return np.concatenate([start + file.in_file_order(np.arange(len(file))) for file, start in parts])

    def read(self, numbers: NDArray[np.int64], out: NDArray[Any], threads: Threads) -> None:
        """Read images.

        Parameters
        ----------
        numbers
            int64 (n,): their places in the sequence, from 0 to ``len(self) - 1``.
        out
            (n, n_channels, y, x) of ``dtype``, C-contiguous.
        threads
            Threads that read and decode.

        Raises
        ------
        InputError
            If a file was removed or modified, or is damaged.
        """
        threads.each(partial(_read_piece, out), self._pieces(numbers))

    def fetch(self, numbers: NDArray[np.int64]) -> list[Fetched]:
        """Read the encoded images, for `decode` in this or another process.

        Raises
        ------
        InputError
            If a file was removed or modified, or ends too early.
        """
        return [(piece.places, piece.fetch()) for piece in self._pieces(numbers)]

    def _pieces(self, numbers: NDArray[np.int64]) -> list[Piece]:
        pieces: list[Piece] = []
        for file, rows, places in self._by_file(numbers):
            file.check()
            pieces += file.pieces(rows, places)
        return pieces

    def _by_file(self, numbers: NDArray[np.int64]) -> Iterator[tuple[StampFile, NDArray[np.int64], NDArray[np.int64]]]:
        """Yield each file with some of the cells, their places in it, and their places in ``numbers``."""
        which = np.searchsorted(self._ends, numbers, side="right")
        for number in np.unique(which).tolist():
            places = np.flatnonzero(which == number)
            file = self.files[number]
            yield file, numbers[places] - (self._ends[number] - len(file)), places


def decode(fetched: list[Fetched], out: NDArray[Any], threads: Threads) -> None:
    """Decode the result of `StampSet.fetch`; ``out`` and ``threads`` as in `StampSet.read`.

    Raises
    ------
    InputError
        If a file is damaged.
    """
    threads.each(partial(_decode_piece, out), fetched)


def _decode_piece(out: NDArray[Any], piece: Fetched) -> None:
    places, stamps = piece
    stamps.decode(out, places)


def _read_piece(out: NDArray[Any], piece: Piece) -> None:
    _decode_piece(out, (piece.places, piece.fetch()))


def _dtype(dtype: Any) -> np.dtype[Any]:
    for allowed in (np.dtype("float32"), np.dtype("float16")):
        if dtype in (allowed.name, allowed, allowed.type):
            return allowed
    message = f"dtype = {dtype!r}: must be 'float32' or 'float16'"
    raise ConfigError(message)


def _paths(paths: Paths) -> list[Location]:
    given = [paths] if is_path(paths) else paths
    if not isinstance(given, (list, tuple)) or not all(is_path(path) for path in given):
        message = (
            f"path: is {type(paths).__name__}; must be the path of an .h5sc file or zarr store, or a list of paths. In "
            f"a project's folder, it is extraction/data/{FILE_NAME} or {STORE_NAME}"
        )
        raise ConfigError(message)
    listed = [location_of(path) for path in given]
    if not listed:
        message = "path = []: must have at least one path of an .h5sc file"
        raise ConfigError(message)
    return listed
