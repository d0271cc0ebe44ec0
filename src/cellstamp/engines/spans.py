"""Assign batches to workers: each works through a span of neighbours, then helps with the longest span left."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Generic, TypeVar

B = TypeVar("B")


class Spans(Generic[B]):
    """Divides a sequence among workers, one contiguous span each.

    Parameters
    ----------
    items
        The sequence.
    n_workers
        Number of spans at the start, of about equal length.
    """

    def __init__(self, items: Sequence[B], n_workers: int) -> None:
        self._items = items
        bounds = [len(items) * k // n_workers for k in range(n_workers + 1)]
        self._spans = [range(start, end) for start, end in pairwise(bounds)]

    def __len__(self) -> int:
        """Number of items not yet taken."""
        return sum(map(len, self._spans))

    def add(self) -> int:
        """Add a worker with an empty span, and return its number."""
        self._spans.append(range(0))
        return len(self._spans) - 1

    def take(self, worker: int) -> B:
        """Return the next item of a worker's span; if that is empty, take the far half of the longest span first.

        Raises
        ------
        IndexError
            All items have been taken.
        """
        if not self._spans[worker]:
            self._spans[worker] = self._far_half()
        span = self._spans[worker]
        self._spans[worker] = span[1:]
        return self._items[span[0]]

    def _far_half(self) -> range:
        longest = max(range(len(self._spans)), key=lambda worker: len(self._spans[worker]))
        span = self._spans[longest]
        middle = len(span) // 2
        self._spans[longest] = span[:middle]
        return span[middle:]
