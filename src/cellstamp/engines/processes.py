"""Batches in worker processes of this machine.

Every worker is a `ProcessPoolExecutor` of one process. That gives what one pool of many does not: a worker keeps to
neighbouring batches, and when it dies it is known which batch it had.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from cellstamp.engines.base import Outcome, Results, failed, outcome
from cellstamp.engines.clean import clean_context, end_with_parent
from cellstamp.engines.spans import Spans
from cellstamp.errors import CellstampError, WorkerError

B = TypeVar("B")
R = TypeVar("R")

_QUEUED = 2
"""Batches a worker has at least: the one it works on, and the next, so that it need not wait."""


class ProcessEngine:
    """Runs batches in worker processes; see `cellstamp.engines.base.Engine`.

    Parameters
    ----------
    n_workers
        How many processes.
    preload
        Modules that workers need: the server that workers are forked from imports them once, beginning now.
    """

    def __init__(self, n_workers: int, preload: Sequence[str] = ()) -> None:
        self.n_workers = n_workers
        self._context = clean_context(preload)

    def run(self, task: Callable[[B], R], batches: Sequence[B], limit: Callable[[], int]) -> Results[R]:
        """Run ``task`` on every batch; see `Engine.run`.

        Raises
        ------
        WorkerError
            If a worker dies; the message names the batch it had.
        """
        n_workers = max(1, min(self.n_workers, len(batches)))
        waiting = Spans(batches, n_workers)
        finished: Finished[B, R] = SimpleQueue()
        in_flight = 0
        with ExitStack() as stack:
            workers = [_Worker[B, R](self._new_pool(task, stack)) for _ in range(n_workers)]
            while waiting or in_flight:
                while waiting and in_flight < limit():
                    number, worker = min(enumerate(workers), key=lambda item: item[1].load)
                    # far ahead while much is left, so that a writer that halts does not halt the workers; less and less
                    # towards the end, when what one has been given can no longer be taken by another
                    if worker.load >= max(_QUEUED, len(waiting) // (2 * n_workers)):
                        break
                    worker.submit(waiting.take(number), finished)
                    in_flight += 1
                worker, future = finished.get()
                yield _result(future, worker.take(future))
                in_flight -= 1

    def _new_pool(self, task: Callable[[Any], Any], stack: ExitStack) -> ProcessPoolExecutor:
        pool = ProcessPoolExecutor(1, mp_context=self._context, initializer=_Installed.install, initargs=(task,))
        stack.callback(pool.shutdown, cancel_futures=True)
        return pool


class _Worker(Generic[B, R]):
    """One process, and the batches it has."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool
        self._batches: dict[Future[Outcome[R]], B] = {}

    @property
    def load(self) -> int:
        """How many batches it has, those included that are done and not yet taken."""
        return len(self._batches)

    def submit(self, batch: B, finished: Finished[B, R]) -> None:
        """Give the worker a batch; when it is done, its future is put into ``finished``."""
        try:
            future: Future[Outcome[R]] = self._pool.submit(_Installed.run, batch)
        except BrokenProcessPool as error:
            raise _death(self._lost(batch)) from error
        self._batches[future] = batch
        future.add_done_callback(lambda done: finished.put((self, done)))

    def take(self, future: Future[Outcome[R]]) -> B:
        """Which batch a future that is done stands for; the worker no longer has it."""
        return self._batches.pop(future)

    def _lost(self, refused: B) -> B:
        """The batch that a dead worker was at: the first that has not come to an end, else the one refused."""
        unfinished = (batch for future, batch in self._batches.items() if not future.done() or future.exception())
        return next(unfinished, refused)


Finished = SimpleQueue[tuple[_Worker[B, R], Future[Outcome[R]]]]
"""Where workers put what is done."""


class _Installed:
    """The task of this worker process, kept here so that it is sent once and not with every batch."""

    task: Callable[[Any], Any]

    @classmethod
    def install(cls, task: Callable[[Any], Any]) -> None:
        """Keep the task; the first thing that happens in a worker."""
        # Ctrl-C in a terminal reaches every process of the job: it is the parent who stops the workers
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=end_with_parent, daemon=True).start()
        cls.task = task

    @classmethod
    def run(cls, batch: Any) -> Outcome[Any]:
        """Run the task on a batch."""
        return outcome(cls.task(batch))


def _result(future: Future[Outcome[R]], batch: object) -> Outcome[R]:
    """What a batch came to, or its error, naming the batch."""
    error = future.exception()
    if isinstance(error, BrokenProcessPool):
        raise _death(batch) from error
    if error is not None and not isinstance(error, CellstampError):
        raise failed(batch, error) from error
    return future.result()


def _death(batch: object) -> WorkerError:
    return WorkerError(
        f"a worker process died while it had a batch of {batch}. It was killed from outside, most often because memory "
        "ran out: lower threads or max_batch_size, or give the job more memory"
    )
