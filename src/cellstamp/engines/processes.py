"""Batches in worker processes of this machine.

Each worker has a separate connection for batches and results, which a pool with shared queues does not offer. A worker
gets neighbouring batches. When it dies, its connection ends, even in the middle of a result, and its batch is known.
"""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any, Generic, Self, TypeVar

from cellstamp.engines.base import Outcome, Results, failed
from cellstamp.engines.forking import ServerDiedError
from cellstamp.engines.interpreter import Surroundings
from cellstamp.engines.open_files import OPEN_FILES
from cellstamp.engines.parcels import Parcel, unpack
from cellstamp.engines.retries import Attempt, try_again
from cellstamp.engines.spans import Spans
from cellstamp.engines.start_methods import Child, find_method
from cellstamp.engines.worker import Failure
from cellstamp.engines.worker_exits import how_it_ended, was_killed
from cellstamp.errors import CellstampError, WorkerError

B = TypeVar("B")
R = TypeVar("R")

_QUEUED = 2
"""Least number of batches a worker has: the current one and the next, so that it never waits."""
_AHEAD = 4
"""Largest number of batches a worker has: enough to keep it busy while the writer pauses."""
_PATIENCE = 5.0
"""Seconds until workers that don't end are killed, for all workers together."""
_KILLED = 2
"""After this number of killed workers, continue with one fewer: the likely cause is too little memory."""
_SERVER_DEATHS = 3
"""Number of deaths of the server, without a result in between, after which it is not restarted."""


class ProcessEngine:
    """Runs batches in worker processes; see `cellstamp.engines.base.Engine`.

    When a worker dies, another one replaces it and retries its batches. A batch at which several workers die is
    divided if it has a method ``halves``.

    Parameters
    ----------
    n_workers
        Number of processes.
    preload
        Modules that workers need. If workers are forked from a server, it imports them once, starting now.
    log, warn
        Called with one line when a worker dies, and when the run continues with fewer workers.
    start_method
        ``"fork"`` or ``"spawn"``; see `cellstamp.engines.start_methods`. None uses the fastest of this system.

    Attributes
    ----------
    n_workers
        Number of processes; lower than the parameter if the system cannot wait for that many.

    Raises
    ------
    WorkerError
        If the system refuses to start a process.
    """

    def __init__(
        self,
        n_workers: int,
        preload: Sequence[str] = (),
        *,
        log: Callable[[str], None] = lambda line: None,
        warn: Callable[[str], None] = lambda line: None,
        start_method: str | None = None,
    ) -> None:
        self._method = find_method(start_method)
        self.n_workers = min(n_workers, self._method.most_workers or n_workers)
        self._log, self._warn, self._preload = log, warn, tuple(preload)
        if self.n_workers < n_workers:
            log(f"this system can wait for at most {self.n_workers} workers: using {self.n_workers}, not {n_workers}")
        self._method.prepare(self._preload)

    def run(self, task: Callable[[B], R], batches: Sequence[B], limit: Callable[[], int]) -> Results[R]:
        """Run ``task`` on every batch; see `Engine.run`.

        Raises
        ------
        WorkerError
            Workers die at a batch that cannot be divided (the message names it), or no worker can start.
        ConfigError
            This process may not open as many files as the workers need.
        """
        n_workers = max(1, min(self.n_workers, len(batches)))
        with (
            OPEN_FILES.room_for(n_workers, self._method.n_files),
            _ProcessRun[B, R](task, Spans(batches, n_workers), self._start_worker, self._log, self._warn) as current,
        ):
            current.start(n_workers)
            yield from current.results(limit)

    def _start_worker(self) -> Child:
        return self._method.start(self._preload)


class _ProcessRun(Generic[B, R]):
    """The workers of one run and their remaining batches; a context manager that ends all workers."""

    def __init__(
        self,
        task: Callable[[B], R],
        spans: Spans[B],
        start_worker: Callable[[], Child],
        log: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self._task, self._spans, self._start_worker = pickle.dumps(task), spans, start_worker
        self._log, self._warn = log, warn
        self._again: deque[Attempt[B]] = deque()
        self._workers: dict[int, _Worker[B, R]] = {}
        self._n_killed = self._n_server_deaths = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for worker in self._workers.values():
            if kind is None:
                worker.dismiss()
            else:
                worker.kill()
        deadline = time.monotonic() + _PATIENCE
        for worker in self._workers.values():
            worker.close(deadline)

    def start(self, n_workers: int) -> None:
        """Start the workers, all at the same time.

        Raises
        ------
        WorkerError
            No worker can start.
        """
        for number in range(n_workers):
            if not self._add(number):
                break
        for worker in self._workers.values():
            worker.introduce(self._task)

    def _add(self, number: int) -> bool:
        """Start a worker; if the system refuses, continue with the workers that run already."""
        try:
            self._workers[number] = self._new_worker()
        except WorkerError as error:
            if not self._workers:
                raise
            self._warn(f"{error}. Continuing with {_workers(len(self._workers))}")
            return False
        return True

    def _new_worker(self) -> _Worker[B, R]:
        """Start a worker, and restart its server if that has died."""
        while True:
            try:
                return _Worker(self._start_worker())
            except ServerDiedError as error:
                self._log(f"the process that forks workers died ({error}); restarting it")
                self._count_server_death(str(error))

    def _count_server_death(self, end: str) -> None:
        self._n_server_deaths += 1
        if self._n_server_deaths >= _SERVER_DEATHS:
            raise WorkerError(
                f"the process that forks workers died {self._n_server_deaths} times in a row (the last time: {end}). "
                f"{_hint(was_killed=end.startswith('killed'))}"
            )

    def results(self, limit: Callable[[], int]) -> Results[R]:
        """Yield the results of the batches, in order of completion."""
        while self._n_waiting or self._in_flight:
            self._hand_out(limit)
            number = self._first_with_news()
            worker = self._workers[number]
            arrived = worker.receive()
            if arrived is None:
                self._replace(number)
                continue
            self._n_server_deaths = 0
            yield worker.unpack(arrived)
            worker.release(arrived)

    @property
    def _n_waiting(self) -> int:
        return len(self._spans) + len(self._again)

    @property
    def _in_flight(self) -> int:
        return sum(worker.load for worker in self._workers.values())

    def _hand_out(self, limit: Callable[[], int]) -> None:
        """Submit as many batches as the limit allows."""
        while self._n_waiting and self._in_flight < limit():
            number, worker = min(self._workers.items(), key=lambda item: item[1].load)
            # fewer towards the end: another worker cannot take a submitted batch
            if worker.load >= max(_QUEUED, min(_AHEAD, self._n_waiting // (2 * len(self._workers)))):
                break
            worker.submit(self._again.popleft() if self._again else Attempt(self._spans.take(number)))

    def _first_with_news(self) -> int:
        """Wait until a worker has a result or has died."""
        ready = connection.wait([worker.results for worker in self._workers.values()])
        return next(number for number, worker in self._workers.items() if worker.results in ready)

    def _replace(self, number: int) -> None:
        """Replace a dead worker, and retry its batches."""
        dead = self._workers.pop(number)
        dead.close(time.monotonic() + _PATIENCE)
        self._again.extend(self._lost_with(dead))
        self._n_killed += dead.was_killed
        if self._workers and dead.was_killed and self._n_killed % _KILLED == 0:
            self._warn(
                f"{self._n_killed} workers were killed, most likely because memory ran out. Continuing with "
                f"{len(self._workers)} instead of {len(self._workers) + 1}. Lower threads or max_batch_size, or give "
                "the job more memory"
            )
        elif self._n_waiting and self._add(number):
            self._workers[number].introduce(self._task)

    def _lost_with(self, dead: _Worker[B, R]) -> Sequence[Attempt[B]]:
        """Return the batches to retry after a worker died."""
        if not dead.attempts:
            self._log(f"an idle worker died ({dead.end})")
            return ()
        # a worker runs its batches in order: it died at the first one without a result
        suspect, *others = dead.attempts
        if dead.exit_code is not None:
            return [*try_again(suspect, end=dead.end, hint=dead.hint, log=self._log), *others]
        # its server died too, so the batch may not be the cause
        self._log(f"a worker died ({dead.end}) while working on {suspect.batch}; retrying the batch")
        self._count_server_death(dead.end)
        return dead.attempts


class _Worker(Generic[B, R]):
    """One process, its batches, and the memory for their results.

    Attributes
    ----------
    attempts
        Submitted batches without a result, in order.
    """

    def __init__(self, child: Child) -> None:
        self.attempts: deque[Attempt[B]] = deque()
        # reuse the last slot first, so that the others need memory only when the writer pauses
        self._free = list(range(_AHEAD))
        self._child = child

    @property
    def results(self) -> Connection[Any, Any]:
        """Connection for its results; it ends when the process does."""
        return self._child.connection

    def introduce(self, task: bytes) -> None:
        """Send what comes before batches. A dead worker is noticed when its results end, here and below."""
        with suppress(OSError):
            self.results.send(Surroundings.here())
            self.results.send_bytes(task)

    def dismiss(self) -> None:
        """Ask the process to end after its last batch."""
        with suppress(OSError):
            self.results.send(None)

    def kill(self) -> None:
        """Kill the process."""
        self._child.kill()

    def close(self, deadline: float) -> None:
        """Wait for the process, kill it at the deadline (of `time.monotonic`), and release its memory."""
        self._child.wait(deadline)

    @property
    def load(self) -> int:
        """Number of its batches, including the one whose result is not yet released."""
        return _AHEAD - len(self._free)

    def submit(self, attempt: Attempt[B]) -> None:
        """Send a batch to the worker, which reads it at once."""
        self.attempts.append(attempt)
        with suppress(OSError):
            self.results.send((attempt.batch, self._free.pop()))

    def receive(self) -> Outcome[Parcel] | None:
        """Receive a result; None if the worker has died.

        Raises
        ------
        WorkerError
            The batch failed. A `CellstampError` is raised unchanged.
        """
        try:
            arrived = self.results.recv()
        except (EOFError, OSError):
            return None
        attempt = self.attempts.popleft()
        if not isinstance(arrived, Failure):
            return arrived  # type: ignore[no-any-return]  # a connection returns Any
        if isinstance(arrived.error, CellstampError):
            raise arrived.error
        raise failed(attempt.batch, arrived.error) from arrived.error

    def unpack(self, arrived: Outcome[Parcel]) -> Outcome[R]:
        """Unpack a result; its large arrays are valid until it is released."""
        return Outcome(unpack(arrived.value, self._child.memory), arrived.pid, arrived.rss)

    def release(self, arrived: Outcome[Parcel]) -> None:
        """Free a result's memory for another one."""
        self._free.append(arrived.value.slot)

    @property
    def exit_code(self) -> int | None:
        """Exit code, or the negative number of a signal; None if unknown."""
        return self._child.exit_code

    @property
    def was_killed(self) -> bool:
        """Whether SIGKILL ended a dead worker."""
        return was_killed(self.exit_code)

    @property
    def hint(self) -> str:
        """Advice for workers that end like this one."""
        return _hint(was_killed=self.was_killed)

    @property
    def end(self) -> str:
        """How a dead worker ended, in words."""
        return how_it_ended(self.exit_code)


def _hint(*, was_killed: bool) -> str:
    if was_killed:
        return "Most often memory has run out: lower threads or max_batch_size, or give the job more memory"
    return "See the messages on standard error"


def _workers(number: int) -> str:
    return f"{number} worker" + "s" * (number != 1)
