"""Batches in this process, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from cellstamp.engines.base import Results, failed, outcome
from cellstamp.errors import CellstampError

B = TypeVar("B")
R = TypeVar("R")


class SerialEngine:
    """Runs the batches in this process, one after the other."""

    n_workers = 1

    def run(self, task: Callable[[B], R], batches: Sequence[B], limit: Callable[[], int]) -> Results[R]:
        """Run ``task`` on every batch, in order; see `Engine.run`. One batch at a time is within any limit."""
        del limit
        for batch in batches:
            yield outcome(_run_here(task, batch))


def _run_here(task: Callable[[B], R], batch: B) -> R:
    try:
        return task(batch)
    except CellstampError:
        raise
    except Exception as error:
        raise failed(batch, error) from error
