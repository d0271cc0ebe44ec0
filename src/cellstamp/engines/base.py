"""What an engine is, and the engine that needs nothing: this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import psutil

from cellstamp.errors import CellstampError, WorkerError

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
        Process id of the worker; a negative number for one that may be on another machine.
    rss
        Resident memory of the worker when it was done, in bytes; 0 if it may not be this machine's.
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
        How many batches it works on at the same time.
    """

    n_workers: int

    def run(self, task: Callable[[B], R], batches: Sequence[B], limit: Callable[[], int]) -> Results[R]:
        """Run ``task`` on every batch.

        Parameters
        ----------
        task
            Picklable callable; one copy of it lives in each worker, so it may keep what it has opened or read.
        batches
            Neighbours share data: a worker is given neighbours as far as possible.
        limit
            How many batches may be submitted and not yet taken from the iterator (a batch counts as taken when the next
            one is asked for). Asked again before every submission.

        Yields
        ------
        Outcome
            In order of completion. Large arrays of a result may be memory that is used again when the next one is asked
            for. Closing the iterator before its end stops the workers.

        Raises
        ------
        WorkerError
            If the task fails; the message names the batch. A `CellstampError` of the task's is passed on as it is.
        """
        ...


def outcome(value: R) -> Outcome[R]:
    """Wrap what a task returned in this process."""
    return Outcome(value, os.getpid(), psutil.Process().memory_info().rss)


def failed(batch: object, error: BaseException) -> WorkerError:
    """Say which batch an error was at; our own errors say enough by themselves."""
    return WorkerError(f"a batch failed ({batch}): {type(error).__name__}: {error}")


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
