"""The interface of engines, and what they share: outcomes and errors of batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import psutil

from cellstamp.errors import WorkerError

B = TypeVar("B")
R = TypeVar("R")


@dataclass(frozen=True)
class Outcome(Generic[R]):
    """The result of one batch, and the worker that made it.

    Attributes
    ----------
    value
        What the task returned.
    pid
        Process id of the worker; negative for one that may be on another machine.
    rss
        Resident memory of the worker after the batch, in bytes; 0 if it may be on another machine.
    """

    value: R
    pid: int
    rss: int


Results = Generator[Outcome[R], None, None]


class Engine(Protocol):
    """Runs a task on batches.

    Attributes
    ----------
    n_workers
        Number of batches it works on at the same time.
    """

    n_workers: int

    def run(self, task: Callable[[B], R], batches: Sequence[B], limit: Callable[[], int]) -> Results[R]:
        """Run ``task`` on every batch.

        Parameters
        ----------
        task
            Picklable callable. Each worker has one copy, so it may keep open files and read data.
        batches
            Neighbours share data, so a worker gets neighbours where possible.
        limit
            Returns the number of batches that may be in flight: submitted, and not yet taken from the iterator. A batch
            counts as taken when the next one is requested. Called before every submission.

        Yields
        ------
        Outcome
            In order of completion. Large arrays of a result are valid until the next one is requested. Closing the
            iterator early stops the workers.

        Raises
        ------
        WorkerError
            The task fails. The message names the batch. A `CellstampError` of the task is raised unchanged.
        """
        ...


def outcome(value: R) -> Outcome[R]:
    """Wrap the value that a task returned in this process."""
    return Outcome(value, os.getpid(), psutil.Process().memory_info().rss)


def failed(batch: object, error: BaseException) -> WorkerError:
    """Return an error that names the batch."""
    return WorkerError(f"a batch failed ({batch}): {type(error).__name__}: {error}")
