"""Batches in worker processes of this machine.

Each worker has its own connection, for batches and for results. That gives what a pool with shared queues does not: a
worker keeps to neighbouring batches; when it dies, its connection ends, even in the middle of a result; and it is known
which batch it had.
"""

from __future__ import annotations

import pickle
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import connection
from typing import Generic, Self, TypeVar

from cellstamp.engines.base import Outcome, Results, failed
from cellstamp.engines.descriptors import OPEN_FILES
from cellstamp.engines.forking import Child, ServerDiedError, exit_text, running_server
from cellstamp.engines.interpreter import Surroundings
from cellstamp.engines.parcels import Parcel, Slots, unpack
from cellstamp.engines.retries import Attempt, try_again
from cellstamp.engines.spans import Spans
from cellstamp.engines.worker import Failure
from cellstamp.errors import CellstampError, WorkerError

B = TypeVar("B")
R = TypeVar("R")

_QUEUED = 2
"""Batches a worker has at least: the one it works on, and the next, so that it need not wait."""
_AHEAD = 4
"""Batches a worker has at most, so that a writer that halts for a moment does not halt the workers."""
_PATIENCE = 5.0
"""Seconds that workers have to end, all together, before they are killed."""
_KILLED = 2
"""When so many workers were killed from outside, one fewer is started: most likely there is not memory for all."""
_SERVER_DEATHS = 3
"""When the server that workers are forked from dies so often without a result in between, it is not started again."""
_DESCRIPTORS = 2
"""Open files that a worker takes in this process: the connection to it, and the memory for results."""


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
        Called with a line about each worker that died, and when fewer workers continue.

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
    ) -> None:
        self.n_workers = n_workers
        self._log, self._warn, self._preload = log, warn, tuple(preload)
        running_server(self._preload)

    def run(self, task: Callable[[B], R], batches: Sequence[B], limit: Callable[[], int]) -> Results[R]:
        """Run ``task`` on every batch; see `Engine.run`.

        Raises
        ------
        WorkerError
            If workers die at a batch that cannot be divided; the message names it. If no worker can be started.
        ConfigError
            If this process may not open as many files as the workers need.
        """
        n_workers = max(1, min(self.n_workers, len(batches)))
        with (
            OPEN_FILES.room_for(n_workers, _DESCRIPTORS),
            _ProcessRun[B, R](task, Spans(batches, n_workers), self._preload, self._log, self._warn) as crew,
        ):
            crew.start(n_workers)
            yield from crew.results(limit)


class _ProcessRun(Generic[B, R]):
    """The workers of one run and what is left for them to do; a context manager that ends with all of them gone."""

    def __init__(
        self,
        task: Callable[[B], R],
        spans: Spans[B],
        preload: Sequence[str],
        log: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self._task, self._spans, self._preload = pickle.dumps(task), spans, preload
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
        """Start the workers.

        Raises
        ------
        WorkerError
            If not even one can be started.
        """
        for number in range(n_workers):
            if not self._add(number):
                break

    def _add(self, number: int) -> bool:
        """Start a worker; if the system has no room for another one, continue with those there are."""
        try:
            self._workers[number] = self._new_worker()
        except WorkerError as error:
            if not self._workers:
                raise
            self._warn(f"{error}. Continuing with {_workers(len(self._workers))}")
            return False
        return True

    def _new_worker(self) -> _Worker[B, R]:
        """Start a worker, and its server again when that has died."""
        while True:
            try:
                return _Worker(self._task, self._preload)
            except ServerDiedError as error:
                self._log(f"the process that workers are forked from died ({error}); it is started again")
                self._count_server_death(str(error))

    def _count_server_death(self, end: str) -> None:
        self._n_server_deaths += 1
        if self._n_server_deaths >= _SERVER_DEATHS:
            raise WorkerError(
                f"the process that workers are forked from died {self._n_server_deaths} times in a row (the last "
                f"time: {end}). {_hint(was_killed=end.startswith('killed'))}"
            )

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
        """Submit as many batches as may be."""
        while self._n_waiting and self._in_flight < limit():
            number, worker = min(self._workers.items(), key=lambda item: item[1].load)
            # less and less towards the end: what one has been given can no longer be taken by another
            if worker.load >= max(_QUEUED, min(_AHEAD, self._n_waiting // (2 * len(self._workers)))):
                break
            worker.submit(self._again.popleft() if self._again else Attempt(self._spans.take(number)))

    def _first_with_news(self) -> int:
        """Wait until a worker has a result, or is dead."""
        ready = connection.wait([worker.results for worker in self._workers.values()])
        return next(number for number, worker in self._workers.items() if worker.results in ready)

    def _replace(self, number: int) -> None:
        """Put another worker in the place of a dead one, and have done again what was lost with it."""
        dead = self._workers.pop(number)
        dead.close(time.monotonic() + _PATIENCE)
        self._again.extend(self._lost_with(dead))
        self._n_killed += dead.was_killed
        if self._workers and dead.was_killed and self._n_killed % _KILLED == 0:
            self._warn(
                f"{self._n_killed} workers were killed, most likely because memory ran out: going on with "
                f"{len(self._workers)} instead of {len(self._workers) + 1}. Lower threads or max_batch_size, or give "
                "the job more memory"
            )
        elif self._n_waiting:
            self._add(number)

    def _lost_with(self, dead: _Worker[B, R]) -> Sequence[Attempt[B]]:
        """Return what has to be done again after a worker died."""
        if not dead.jobs:
            self._log(f"a worker died ({dead.end}) that had no batch")
            return ()
        # a worker does one batch after the other: it died at the first that has not come to an end
        suspect, *others = dead.jobs
        if dead.exit_code is not None:
            return [*try_again(suspect, end=dead.end, hint=dead.hint, log=self._log), *others]
        # something ended its server, too; the batch is not to blame until that is known of a worker
        self._log(f"a worker died ({dead.end}) while it had a batch of {suspect.batch}; the batch runs again")
        self._count_server_death(dead.end)
        return dead.jobs


class _Worker(Generic[B, R]):
    """One process, the batches it has, and the memory that their results come in.

    Attributes
    ----------
    jobs
        What it has been given and has not returned, in order.
    results
        Where its results come from; it ends when the process does.
    """

    def __init__(self, task: bytes, preload: Sequence[str]) -> None:
        self.jobs: deque[Attempt[B]] = deque()
        self._slots = Slots()
        # the one used last is used again first, so that the others take memory only when a writer halts
        self._free = list(range(_AHEAD))
        try:
            self._child = Child(preload, self._slots.file)
        except BaseException:
            self._slots.close()
            raise
        self.results = self._child.connection
        # a dead one is noticed by the end of its results; so below
        with suppress(OSError):
            self.results.send(Surroundings.here())
            self.results.send_bytes(task)

    def dismiss(self) -> None:
        """Have the process end when it has nothing more to do."""
        with suppress(OSError):
            self.results.send(None)

    def kill(self) -> None:
        """Have the process end now, whatever it is doing."""
        self._child.kill()

    def close(self, deadline: float) -> None:
        """Wait until the process has ended, kill it at the deadline (of `time.monotonic`), and give its memory up."""
        self._child.wait(deadline)
        self._slots.close()

    @property
    def load(self) -> int:
        """How many batches it has, the one included whose result was taken last and is not yet released."""
        return _AHEAD - len(self._free)

    def submit(self, job: Attempt[B]) -> None:
        """Give the worker a batch; wait, if need be, until it reads. It never waits for anybody to read from it."""
        self.jobs.append(job)
        with suppress(OSError):
            self.results.send((job.batch, self._free.pop()))

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
        if not isinstance(arrived, Failure):
            return arrived  # type: ignore[no-any-return]  # whatever comes through a connection is Any
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
    def exit_code(self) -> int | None:
        """How it ended; None if nobody knows."""
        return self._child.exit_code

    @property
    def was_killed(self) -> bool:
        """Whether a dead worker was ended by the signal that nothing but a kill sends."""
        return self.exit_code == -signal.SIGKILL

    @property
    def hint(self) -> str:
        """What may help when workers end like this one."""
        return _hint(was_killed=self.was_killed)

    @property
    def end(self) -> str:
        """How a dead worker ended."""
        return exit_text(self.exit_code)


def _hint(*, was_killed: bool) -> str:
    if was_killed:
        return "Most often memory has run out: lower threads or max_batch_size, or give the job more memory"
    return "What they wrote to the standard error may say why"


def _workers(number: int) -> str:
    return f"{number} worker" + "s" * (number != 1)
