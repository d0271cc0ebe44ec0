"""Order in which cells are read: random, with neighbours in the file together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import ConfigError

BLOCK_SIZE = 8
"""Default number of neighbours in the file that stay together."""


def check_number(name: str, value: object, least: int) -> int:
    """Return a number as an int, or raise `ConfigError` if it is not an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        message = f"{name} = {value!r}: must be an integer of at least {least}"
        raise ConfigError(message)
    return int(value)


@dataclass(frozen=True)
class BatchOrder:
    """The cells of each batch.

    Attributes
    ----------
    n_cells
        Number of cells.
    batch_size
        Number of cells in a batch.
    shuffle
        Whether cells are in random order, different in each epoch.
    seed
        Seed of that order.
    block_size
        Number of neighbours in the file that shuffling keeps together. 1 shuffles all cells.
    drop_last
        Whether to omit a last batch with fewer cells.

    Raises
    ------
    ConfigError
        If one of them is invalid.
    """

    n_cells: int
    batch_size: int
    shuffle: bool
    seed: int
    block_size: int = BLOCK_SIZE
    drop_last: bool = False

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("block_size", 1), ("seed", 0)):
            check_number(name, getattr(self, name), least)

    def __len__(self) -> int:
        rest = 0 if self.drop_last else self.batch_size - 1
        return (self.n_cells + rest) // self.batch_size

    def batches(self, epoch: int) -> Iterator[NDArray[np.int64]]:
        """Yield the indices of the cells of each batch, int64 (n,); every cell once."""
        cells = self._shuffled(epoch) if self.shuffle else np.arange(self.n_cells)
        for number in range(len(self)):
            yield cells[number * self.batch_size : (number + 1) * self.batch_size]

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng((self.seed, epoch))
        # blocks start at another cell in each epoch, so that cells get other neighbours
        shift = int(rng.integers(self.block_size))
        starts = np.arange(-shift, self.n_cells, self.block_size)
        cells = (rng.permutation(starts)[:, None] + np.arange(self.block_size)).ravel()
        return cells[(cells >= 0) & (cells < self.n_cells)]
