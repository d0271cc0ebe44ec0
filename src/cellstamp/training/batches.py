"""Batches of stamps as numpy arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.engines.threads import Threads, one_ahead, usable_cores
from cellstamp.training.memory import Recycler
from cellstamp.training.order import BLOCK_SIZE, BatchOrder, check_number
from cellstamp.training.stamps import FloatName, Paths, StampSet


def iter_batches(
    path: Paths,
    batch_size: int = 256,
    shuffle: bool = False,  # noqa: FBT001, FBT002  # one word in every loader there is
    seed: int = 0,
    *,
    channels: Any = None,
    cells: Any = None,
    labels: Any = None,
    dtype: FloatName = "float32",
    block_size: int = BLOCK_SIZE,
    drop_last: bool = False,
    n_threads: int | None = None,
) -> Iterator[tuple[NDArray[Any], ...]]:
    """Go through the images of one `.h5sc` file, or of several as one, in batches.

    Each cell comes once. The next batch is read while the caller works on the last one.

    Parameters
    ----------
    path
        A file, or a list of files, which must have images of one size. Files that scportrait wrote will do.
    batch_size
        Cells in a batch; the last one may have fewer.
    shuffle
        Whether they come in random order.
    seed
        Of that order: the same seed, the same order. Another one for each epoch.
    channels
        Names or numbers (from 0, masks first) of the planes wanted, in the order wanted; None for all. Files must have
        the same ones, named alike.
    cells
        Ids, in the order wanted; or true or false for each cell of all files; or the name of a boolean column of `obs`;
        or a list of one of these for each file. Ids are looked for in every file. None for all cells.
    labels
        One for each file; or one for each cell of all files, whether it is chosen by ``cells`` or not; or a list of one
        array for each file; or the name of a column of `obs`. None for none.
    dtype
        ``"float32"`` or ``"float16"``. What is stored as an integer is divided by the largest one of its type, so that
        all values are from 0 to 1.
    block_size
        So many neighbours in the file stay together when they are shuffled: then one call reads them all. 1 mixes all.
    drop_last
        Whether a last batch that has fewer cells is left out.
    n_threads
        That read and decode; None for one for each core.

    Yields
    ------
    images : numpy.ndarray
        (batch_size, n_channels, y, x) of ``dtype``; an array of its own each time.
    labels : numpy.ndarray
        (batch_size,), as they were given; only if they were.
    ids : numpy.ndarray
        uint64 (batch_size,): ids of the cells.

    Raises
    ------
    ConfigError
        If there is no such channel, cell or column (the message names the nearest, or examples), if there are more or
        fewer labels than cells, or if a number is not what it must be.
    InputError
        If a file is not there, is no `.h5sc` file, has images of another size or other channels than the first, was
        changed meanwhile, or is damaged.
    """
    stamps = StampSet(path, channels=channels, cells=cells, labels=labels, dtype=dtype)
    order = BatchOrder(len(stamps), batch_size, shuffle, seed, block_size, drop_last)
    threads = Threads(usable_cores() if n_threads is None else check_number("n_threads", n_threads, least=1))
    memory = Recycler()
    return one_ahead(lambda numbers: _batch(stamps, numbers, threads, memory), order.batches(epoch=0))


def _batch(
    stamps: StampSet, numbers: NDArray[np.int64], threads: Threads, memory: Recycler
) -> tuple[NDArray[Any], ...]:
    images = memory.empty((len(numbers), *stamps.shape), stamps.dtype)
    stamps.read(numbers, images, threads)
    labels = () if stamps.labels is None else (stamps.labels[numbers],)
    return (images, *labels, stamps.ids(numbers))
