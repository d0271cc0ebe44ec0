"""Batches in worker processes of this machine.

Every worker is a `ProcessPoolExecutor` of one process. That gives what one pool of many does not: a worker keeps to
neighbouring batches, and when it dies it is known which batch it had.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from multiprocessing.context import BaseContext
from queue import SimpleQueue
from typing import Any, Generic, Self, TypeVar

from cellstamp.engines.base import Outcome, Results, failed, outcome
from cellstamp.engines.clean import clean_context, end_with_parent
from cellstamp.engines.parcels import Parcel, Slots, pack, unpack
from cellstamp.engines.spans import Spans
from cellstamp.errors import CellstampError, WorkerError

B = TypeVar("B")
R = TypeVar("R")

_QUEUED = 2
"""Batches a worker has at least: the one it works on, and the next, so that it need not wait."""
_AHEAD = 4
"""Batches a worker has at most, so that a writer that halts for a moment does not halt the workers."""


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
            workers = [stack.enter_context(_Worker[B, R](task, self._context)) for _ in range(n_workers)]
            while waiting or in_flight:
                while waiting and in_flight < limit():
                    number, worker = min(enumerate(workers), key=lambda item: item[1].load)
                    # less and less towards the end: what one has been given can no longer be taken by another
                    if worker.load >= max(_QUEUED, min(_AHEAD, len(waiting) // (2 * n_workers))):
                        break
                    worker.submit(waiting.take(number), finished)
                    in_flight += 1
                worker, future = finished.get()
                with worker.taking(future) as result:
                    yield result
                in_flight -= 1


class _Worker(Generic[B, R]):
    """One process, the batches it has, and the memory that their results come in; ends when the context is left."""

    def __init__(self, task: Callable[[B], R], context: BaseContext) -> None:
        self._slots = Slots()
        # the one used last is used again first, so that the others take memory only when a writer halts
        self._free = list(range(_AHEAD))
        self._batches: dict[Future[Outcome[Parcel]], B] = {}
        self._pool = ProcessPoolExecutor(
            1, mp_context=context, initializer=_Installed.install, initargs=(task, self._slots)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._slots.close()

    @property
    def load(self) -> int:
        """How many batches it has, those included that are done and not yet taken."""
        return len(self._batches)

    def submit(self, batch: B, finished: Finished[B, R]) -> None:
        """Give the worker a batch; when it is done, its future is put into ``finished``."""
        try:
            future: Future[Outcome[Parcel]] = self._pool.submit(_Installed.run, batch, self._free.pop())
        except BrokenProcessPool as error:
            raise _death(self._lost(batch)) from error
        self._batches[future] = batch
        future.add_done_callback(lambda done: finished.put((self, done)))

    @contextmanager
    def taking(self, future: Future[Outcome[Parcel]]) -> Iterator[Outcome[R]]:
        """Take the result of a future that is done; its memory is used for another when the block is left."""
        arrived = _result(future, self._batches.pop(future))
        yield Outcome(unpack(arrived.value, self._slots), arrived.pid, arrived.rss)
        self._free.append(arrived.value.slot)

    def _lost(self, refused: B) -> B:
        """The batch that a dead worker was at: the first that has not come to an end, else the one refused."""
        unfinished = (batch for future, batch in self._batches.items() if not future.done() or future.exception())
        return next(unfinished, refused)


Finished = SimpleQueue[tuple[_Worker[B, R], Future[Outcome[Parcel]]]]
"""Where workers put what is done."""


class _Installed:
    """The task of this worker process and the memory for its results: sent once and not with every batch."""

    task: Callable[[Any], Any]
    slots: Slots

    @classmethod
    def install(cls, task: Callable[[Any], Any], slots: Slots) -> None:
        """Keep both; the first thing that happens in a worker."""
        # Ctrl-C in a terminal reaches every process of the job: it is the parent who stops the workers
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=end_with_parent, daemon=True).start()
        cls.task, cls.slots = task, slots

    @classmethod
    def run(cls, batch: Any, slot: int) -> Outcome[Parcel]:
        """Run the task on a batch."""
        return outcome(pack(cls.task(batch), cls.slots, slot))


def _result(future: Future[Outcome[Parcel]], batch: object) -> Outcome[Parcel]:
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
