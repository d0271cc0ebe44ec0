"""Which batch goes to which worker: everyone walks a stretch of neighbours, and helps where most is left."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Generic, TypeVar

B = TypeVar("B")


class Spans(Generic[B]):
    """Deals out a sequence to workers, each its own contiguous span.

    Parameters
    ----------
    items
        The sequence.
    n_workers
        How many spans to begin with, about equally long.
    """

    def __init__(self, items: Sequence[B], n_workers: int) -> None:
        self._items = items
        bounds = [len(items) * k // n_workers for k in range(n_workers + 1)]
        self._spans = [range(start, end) for start, end in pairwise(bounds)]

    def __len__(self) -> int:
        """Items not yet dealt out."""
        return sum(map(len, self._spans))

    def add(self) -> int:
        """Let one more worker help, and return its number; it has nothing of its own to begin with."""
        self._spans.append(range(0))
        return len(self._spans) - 1

    def take(self, worker: int) -> B:
        """The next item for a worker: of its own span, else of the far half of the longest span left.

        Raises
        ------
        IndexError
            If everything has been dealt out.
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
