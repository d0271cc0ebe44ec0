"""In which order cells are read: all the same, but near ones together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import ConfigError

BLOCK_SIZE = 8
"""Neighbours in the file that stay together, unless told otherwise."""


def check_number(name: str, value: object, least: int) -> int:
    """See that a number is a whole one, and large enough."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        message = f"{name} = {value!r}: must be a whole number of at least {least}"
        raise ConfigError(message)
    return int(value)


@dataclass(frozen=True)
class BatchOrder:
    """Which cells are in which batch.

    Attributes
    ----------
    n_cells
        How many there are.
    batch_size
        Cells of a batch.
    shuffle
        Whether cells are in random order, another one in each epoch.
    seed
        Of that order; the same seed gives the same order.
    block_size
        So many neighbours in the file stay together when cells are shuffled, and are read together; 1 mixes all.
    drop_last
        Whether a last batch of fewer cells is left out.

    Raises
    ------
    ConfigError
        If one of them is not what it must be.
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
        """Give the places of each batch's cells, of every cell once."""
        cells = self._shuffled(epoch) if self.shuffle else np.arange(self.n_cells)
        for number in range(len(self)):
            yield cells[number * self.batch_size : (number + 1) * self.batch_size]

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng((self.seed, epoch))
        # blocks begin elsewhere in each epoch, so that cells have other companions
        shift = int(rng.integers(self.block_size))
        starts = np.arange(-shift, self.n_cells, self.block_size)
        cells = (rng.permutation(starts)[:, None] + np.arange(self.block_size)).ravel()
        return cells[(cells >= 0) & (cells < self.n_cells)]
