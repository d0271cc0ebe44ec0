"""Read batches of single-cell images as numpy arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.engines.threads import Threads, one_ahead, usable_cores
from cellstamp.reused_memory import Recycler
from cellstamp.training.order import BLOCK_SIZE, BatchOrder, check_number
from cellstamp.training.several_files import FloatName, Paths, StampSet


def iter_batches(
    path: Paths,
    batch_size: int = 256,
    shuffle: bool = False,  # noqa: FBT001, FBT002  # the name in other loaders
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
    """Iterate over the images of one or several `.h5sc` files in batches.

    Returns each cell once. Reads the next batch while the caller works on the current one.

    Parameters
    ----------
    path
        Path of a file, or a list of paths. All images must have one size. Files of scportrait work too.
    batch_size
        Number of cells in a batch; the last batch may have fewer.
    shuffle
        Whether to return cells in random order.
    seed
        Seed of that order. Pass another seed in each epoch.
    channels
        Names or numbers of channels and masks, in the order of the result. Numbers start at 0, masks first. None: all
        planes; all files must then have the same ones.
    cells
        Ids, in the order of the result; each id is searched in every file. Or a boolean for each cell of all files, the
        name of a boolean column of ``obs``, or a list with one of these for each file. None: all cells.
    labels
        One label for each file; or one for each cell of all files, chosen or not; or a list with one array for each
        file; or the name of a column of ``obs``, or of a feature. None: no labels.
    dtype
        ``"float32"`` or ``"float16"``. Stored integers are divided by the largest value of their type, so that all
        values are from 0 to 1.
    block_size
        Number of neighbours in the file that shuffling keeps together, for one call to read. 1 shuffles all cells.
    drop_last
        Whether to omit a last batch with fewer cells.
    n_threads
        Number of threads that read and decode. None: one for each core.

    Yields
    ------
    images : numpy.ndarray
        (batch_size, n_channels, y, x) of ``dtype``; a new array for each batch.
    labels : numpy.ndarray
        (batch_size,), in the given type; only with ``labels``.
    ids : numpy.ndarray
        uint64 (batch_size,): cell ids.

    Raises
    ------
    ConfigError
        If a channel, cell or column is unknown, the numbers of labels and cells differ, or an argument is invalid.
    InputError
        If a file is missing, damaged, modified meanwhile, or not an `.h5sc` file, or its image size or channels differ
        from the first.
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
