"""Run several batches as one task of a cluster: each task costs its scheduler and the caller milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

B = TypeVar("B")
R = TypeVar("R")

_LARGEST = 16
"""Most batches in a group: a lost worker's group is done again."""
_PER_WORKER = 8
"""Least number of groups for each worker, so that all workers end at about the same time."""


def may_be_grouped(task: object) -> bool:
    """Check whether a task says that its results are small, and valid after its next call."""
    return bool(getattr(task, "small_results", False))


@dataclass(frozen=True)
class Group(Generic[B]):
    """Neighbouring batches for one worker."""

    batches: tuple[B, ...]

    def __str__(self) -> str:
        first, last = self.batches[0], self.batches[-1]
        return str(first) if first is last else f"{len(self.batches)} batches, from {first} to {last}"

    def halves(self) -> tuple[Group[B], ...]:
        """Return its batches one by one; of a single batch, the halves if it has any."""
        (first, *others) = self.batches
        parts: Sequence[Any] = self.batches if others else getattr(first, "halves", tuple)()
        return tuple(Group((part,)) for part in parts)


def in_groups(batches: Sequence[B], n_workers: int) -> list[Group[B]]:
    """Divide batches into groups of neighbours, which are larger the more batches there are for each worker."""
    size = max(1, min(_LARGEST, len(batches) // (_PER_WORKER * n_workers)))
    return [Group(tuple(batches[start : start + size])) for start in range(0, len(batches), size)]


class GroupTask(Generic[B, R]):
    """Callable that runs a task on the batches of a group, and returns the results; picklable as the task is."""

    def __init__(self, task: Callable[[B], R]) -> None:
        self._task = task

    def __call__(self, group: Group[B]) -> list[R]:
        """Run the task on each batch."""
        return [self._task(batch) for batch in group.batches]

    def signature(self) -> object:
        """Return the task's signature of its data, or None."""
        return self._task.signature() if hasattr(self._task, "signature") else None

    def warm_up(self) -> None:
        """Load what the task loads before its first batch."""
        if hasattr(self._task, "warm_up"):
            self._task.warm_up()
