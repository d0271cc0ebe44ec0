"""Batches in worker processes of this machine.

Each worker has two pipes of its own, for batches and for results. That gives what a pool with shared queues does not: a
worker keeps to neighbouring batches; when it dies, its pipe ends, even in the middle of a result; and it is known which
batch it had.
"""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, Generic, Self, TypeVar

from cellstamp.engines.base import Outcome, Results, failed, outcome
from cellstamp.engines.clean import end_with_parent, start_server, worker_context
from cellstamp.engines.parcels import Parcel, Slots, pack, unpack
from cellstamp.engines.retries import Job, portable, try_again
from cellstamp.engines.spans import Spans
from cellstamp.errors import CellstampError

B = TypeVar("B")
R = TypeVar("R")

_QUEUED = 2
"""Batches a worker has at least: the one it works on, and the next, so that it need not wait."""
_AHEAD = 4
"""Batches a worker has at most, so that a writer that halts for a moment does not halt the workers."""
_PATIENCE = 5.0
"""Seconds that a process has to end before it is killed."""
_KILLED = 2
"""When so many workers were killed from outside, one fewer goes on: most likely there is not memory for all."""


class ProcessEngine:
    """Runs batches in worker processes; see `cellstamp.engines.base.Engine`.

    When a worker dies, another takes its place and its batches. A batch at which workers die again and again is divided
    (if it has a method ``halves``) until what remains cannot be.

    Parameters
    ----------
    n_workers
        How many processes.
    preload
        Modules that workers need: the server that workers are forked from imports them once, beginning now.
    log, warn
        Told of workers that died, and of going on with fewer.
    """

    def __init__(
        self,
        n_workers: int,
        preload: Sequence[str] = (),
        *,
        log: Callable[[str], None] = lambda line: None,
        warn: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.n_workers = n_workers
        self._log, self._warn = log, warn
        start_server(preload)

    def run(self, task: Callable[[B], R], batches: Sequence[B], limit: Callable[[], int]) -> Results[R]:
        """Run ``task`` on every batch; see `Engine.run`.

        Raises
        ------
        WorkerError
            If workers die at a batch that cannot be divided; the message names it.
        """
        n_workers = max(1, min(self.n_workers, len(batches)))
        with _Crew(task, Spans(batches, n_workers), n_workers, self._log, self._warn) as crew:
            yield from crew.results(limit)


@dataclass(frozen=True)
class _Failure:
    """The error that a batch ended with."""

    error: Exception


class _Crew(Generic[B, R]):
    """The workers of one run and what is left for them to do; a context manager that ends with all of them gone."""

    def __init__(
        self,
        task: Callable[[B], R],
        spans: Spans[B],
        n_workers: int,
        log: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self._task, self._spans = task, spans
        self._log, self._warn = log, warn
        self._again: deque[Job[B]] = deque()
        self._workers = {number: _Worker[B, R](task) for number in range(n_workers)}
        self._n_killed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            for worker in self._workers.values():
                worker.terminate()
        for worker in self._workers.values():
            worker.close()

    def results(self, limit: Callable[[], int]) -> Results[R]:
        """Yield what the batches come to, in order of completion."""
        while self._n_waiting or self._in_flight:
            self._hand_out(limit)
            number = self._first_with_news()
            worker = self._workers[number]
            arrived = worker.receive()
            if arrived is None:
                self._replace(number)
                continue
            yield worker.unpack(arrived)
            worker.release(arrived)

    @property
    def _n_waiting(self) -> int:
        return len(self._spans) + len(self._again)

    @property
    def _in_flight(self) -> int:
        return sum(worker.load for worker in self._workers.values())

    def _hand_out(self, limit: Callable[[], int]) -> None:
        """Submit as many batches as may be."""
        while self._n_waiting and self._in_flight < limit():
            number, worker = min(self._workers.items(), key=lambda item: item[1].load)
            # less and less towards the end: what one has been given can no longer be taken by another
            if worker.load >= max(_QUEUED, min(_AHEAD, self._n_waiting // (2 * len(self._workers)))):
                break
            worker.submit(self._again.popleft() if self._again else Job(self._spans.take(number)))

    def _first_with_news(self) -> int:
        """Wait until a worker has a result, or is dead."""
        ready = connection.wait([worker.results for worker in self._workers.values()])
        return next(number for number, worker in self._workers.items() if worker.results in ready)

    def _replace(self, number: int) -> None:
        """Put another worker in the place of a dead one, and have done again what was lost with it."""
        dead = self._workers.pop(number)
        dead.close()
        if not dead.jobs:
            self._log(f"a worker died ({dead.end}) that had no batch")
        else:
            # a worker does one batch after the other: it died at the first that has not come to an end
            suspect, *others = dead.jobs
            again = try_again(suspect, end=dead.end, hint=dead.hint, log=self._log)
            self._again.extend([*again, *others])
        self._n_killed += dead.was_killed
        if self._workers and dead.was_killed and self._n_killed % _KILLED == 0:
            self._warn(
                f"{self._n_killed} workers were killed, most likely because memory ran out: going on with "
                f"{len(self._workers)} instead of {len(self._workers) + 1}. Lower threads or max_batch_size, or give "
                "the job more memory"
            )
        else:
            self._workers[number] = _Worker(self._task)


class _Worker(Generic[B, R]):
    """One process, the batches it has, and the memory that their results come in.

    Attributes
    ----------
    jobs
        What it has been given and has not returned, in order.
    results
        Where its results come from; it ends when the process does.
    """

    def __init__(self, task: Callable[[B], R]) -> None:
        self.jobs: deque[Job[B]] = deque()
        self._slots = Slots()
        # the one used last is used again first, so that the others take memory only when a writer halts
        self._free = list(range(_AHEAD))
        context = worker_context()
        orders, self._orders = context.Pipe(duplex=False)
        self.results, results = context.Pipe(duplex=False)
        self._process = context.Process(target=_serve, args=(task, orders, results, self._slots), daemon=True)
        self._process.start()
        # only the worker has these ends now: its pipe ends when it does
        orders.close()
        results.close()

    def close(self) -> None:
        """Have the process end when it has nothing more to do, wait for that, and give its memory up."""
        self._orders.close()
        self._process.join(_PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self.results.close()
        self._slots.close()

    def terminate(self) -> None:
        """Have the process end now, whatever it is at."""
        self._process.terminate()

    @property
    def load(self) -> int:
        """How many batches it has, the one included whose result was taken last and is not yet released."""
        return _AHEAD - len(self._free)

    def submit(self, job: Job[B]) -> None:
        """Give the worker a batch; wait, if need be, until it reads. It never waits for anybody to read from it."""
        self.jobs.append(job)
        # a dead one is noticed by the end of its results
        with suppress(OSError):
            self._orders.send((job.batch, self._free.pop()))

    def receive(self) -> Outcome[Parcel] | None:
        """Take a result; None if the worker has died.

        Raises
        ------
        WorkerError
            If the batch failed. A `CellstampError` is passed on as it is.
        """
        try:
            arrived = self.results.recv()
        except (EOFError, OSError):
            return None
        job = self.jobs.popleft()
        if not isinstance(arrived, _Failure):
            return arrived  # type: ignore[no-any-return]  # whatever comes through a pipe is Any
        if isinstance(arrived.error, CellstampError):
            raise arrived.error
        raise failed(job.batch, arrived.error) from arrived.error

    def unpack(self, arrived: Outcome[Parcel]) -> Outcome[R]:
        """Open a result; its large arrays are valid until it is released."""
        return Outcome(unpack(arrived.value, self._slots), arrived.pid, arrived.rss)

    def release(self, arrived: Outcome[Parcel]) -> None:
        """Use a result's memory for another one."""
        self._free.append(arrived.value.slot)

    @property
    def was_killed(self) -> bool:
        """Whether a dead worker was ended by the signal that nothing but a kill sends."""
        return bool(self._process.exitcode == -signal.SIGKILL)

    @property
    def hint(self) -> str:
        """What may help when workers end like this one."""
        if self.was_killed:
            return "Most often memory has run out: lower threads or max_batch_size, or give the job more memory"
        return "What they wrote to the standard error may say why"

    @property
    def end(self) -> str:
        """How a dead worker ended."""
        code = self._process.exitcode
        return f"exit code {code}" if code is None or code >= 0 else f"killed by {signal.Signals(-code).name}"


def _serve(task: Callable[[Any], Any], orders: Any, results: Any, slots: Slots) -> None:
    """What a worker does: batch after batch, until there are no more."""
    # Ctrl-C in a terminal reaches every process of the job: it is the parent who stops the workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    with suppress(EOFError):
        while True:
            batch, slot = orders.recv()
            try:
                done: object = outcome(pack(task(batch), slots, slot))
            except Exception as error:  # noqa: BLE001 - it is raised where it can be told
                done = _Failure(portable(error))
            results.send(done)
