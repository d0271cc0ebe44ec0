"""Merge stretches of files, so that few requests read many chunks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FILE = 2**40
"""Position of the first byte of file 1, if stretches are in several files: that of file ``n`` is ``n * FILE``."""


class Run(NamedTuple):
    """Bytes of one file that are read together.

    Attributes
    ----------
    file, begin
        Number of the file, and first byte in it.
    place
        Place of the bytes in the memory for all runs.
    """

    file: int
    begin: int
    place: slice


class Runs(NamedTuple):
    """Stretches of files, merged.

    Attributes
    ----------
    begins
        int64 (n_runs,): first position of each run.
    places
        int64 (n_runs + 1,): first byte of each run in the memory for all of them; the last one is their sum.
    starts
        int64 (n_stretches,): first byte of each stretch in this memory.
    """

    begins: NDArray[np.int64]
    places: NDArray[np.int64]
    starts: NDArray[np.int64]

    def not_empty(self) -> Iterator[Run]:
        """Yield the runs, in the order of the files."""
        for begin, start, stop in zip(
            self.begins.tolist(), self.places[:-1].tolist(), self.places[1:].tolist(), strict=True
        ):
            if stop > start:
                yield Run(begin // FILE, begin % FILE, slice(start, stop))


def merge(positions: NDArray[np.int64], sizes: NDArray[np.int64], gap: int) -> Runs:
    """Merge stretches with at most ``gap`` unneeded bytes between them.

    Parameters
    ----------
    positions
        int64 (n,): first byte of each stretch; see `FILE`.
    sizes
        int64 (n,): its bytes.
    """
    order = np.argsort(positions, kind="stable")
    begins, ends = positions[order], positions[order] + sizes[order]
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = begins[1:] > np.maximum.accumulate(ends)[:-1] + gap
    firsts = np.flatnonzero(is_first)
    run_begins, run_ends = begins[firsts], np.maximum.reduceat(ends, firsts)
    places = np.concatenate([np.zeros(1, np.int64), np.cumsum(run_ends - run_begins)])
    starts = np.empty(len(order), np.int64)
    starts[order] = begins + (places[:-1] - run_begins)[np.cumsum(is_first) - 1]
    return Runs(run_begins, places, starts)
