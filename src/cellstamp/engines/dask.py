"""Batches on the workers of a dask cluster.

Each thread of a worker is a slot with a span of neighbouring batches, as in the process engine. A batch is submitted to
the worker of its slot only. So the batch that a worker died at is known, unchecked workers get none, and neighbouring
chunks are decoded by the same worker.
"""

from __future__ import annotations

import asyncio
import pickle
import queue
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from cellstamp.engines.base import Outcome, Results, failed
from cellstamp.engines.dask_roster import Roster, no_workers
from cellstamp.engines.dask_worker import Failure, Order, carry_out
from cellstamp.engines.grouped import GroupTask, in_groups, may_be_grouped
from cellstamp.engines.retries import Attempt, try_again
from cellstamp.engines.spans import Spans
from cellstamp.errors import CellstampError, WorkerError

if TYPE_CHECKING:
    from distributed import Client, Future

B = TypeVar("B")
R = TypeVar("R")

_QUEUED, _AHEAD = 2, 4
"""Least and largest number of batches of a slot, as in the process engine."""
_LOOK = 1.0
"""Seconds between two counts of the workers."""
_FETCHING = 8
"""Results fetched at the same time, since the connections to workers may be slow."""
_HINT = "Most often memory has run out: lower max_batch_size, or give the workers more memory (--memory-limit)"


@dataclass(frozen=True)
class WorkerMemory:
    """Bytes of memory per thread of the worker with the least memory."""

    address: str
    n_bytes: int


class DaskEngine:
    """Runs batches on a dask cluster; see `cellstamp.engines.base.Engine`.

    Workers may join and leave. Each new worker is checked first: its versions, and the task's ``signature`` of its data
    (if the task has this method), must be the same as here.

    An outcome's ``pid`` is a negative number, one for each thread of a worker. Its ``rss`` is 0: workers may be on
    other machines, and dask limits their memory.

    Parameters
    ----------
    client
        Client of the cluster; it stays open.
    packages
        Packages whose major and minor versions must be the same on the workers.
    log, warn
        Called with one line about workers that join, leave, or cannot be used.
    patience
        Seconds to wait for a worker when none is running.

    Raises
    ------
    WorkerError
        The cluster has no workers.
    """

    def __init__(
        self,
        client: Client,
        packages: Sequence[str] = (),
        *,
        log: Callable[[str], None] = lambda line: None,
        warn: Callable[[str], None] = lambda line: None,
        patience: float = 60.0,
    ) -> None:
        self._client, self._packages, self._patience = client, packages, patience
        self._log, self._warn = log, warn
        try:
            client.wait_for_workers(1, timeout=patience)
        except TimeoutError as error:
            raise no_workers(client, patience) from error
        self.n_workers = sum(client.nthreads().values())

    def smallest_memory(self) -> WorkerMemory | None:
        """Return the least memory per thread of any worker; None if no worker has a limit."""
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        limits = [
            WorkerMemory(address, worker["memory_limit"] // worker["nthreads"])
            for address, worker in workers.items()
            if worker["memory_limit"]
        ]
        return min(limits, key=lambda memory: memory.n_bytes, default=None)

    def run(self, task: Callable[[B], R], batches: Sequence[B], limit: Callable[[], int]) -> Results[R]:
        """Run ``task`` on every batch; see `Engine.run`. Batches with small results are sent in groups.

        Raises
        ------
        WorkerError
            Workers die at a batch that cannot be divided (the message names it), a worker cannot be used, no worker is
            left, or the scheduler is lost.
        """
        if len(batches) and may_be_grouped(task):
            groups = in_groups(batches, self.n_workers)
            with closing(self._run(GroupTask(task), groups, limit)) as outcomes:
                for outcome in outcomes:
                    yield from (Outcome(value, outcome.pid, outcome.rss) for value in outcome.value)
        elif len(batches):
            yield from self._run(task, batches, limit)

    def _run(self, task: Callable[[B], R], batches: Sequence[B], limit: Callable[[], int]) -> Results[R]:
        current = _DaskRun[B, R](self._client, task, batches, self._packages, self._log, self._warn, self._patience)
        with current:
            yield from current.results(limit)


@dataclass(eq=False)
class _Flight(Generic[B]):
    """A batch in flight: submitted, and its result not yet taken.

    Attributes
    ----------
    slot
        Slot it was submitted to.
    number
        Order of submission; a slot runs its batches in this order.
    made
        Whether its worker has finished it.
    landed
        Whether its result or error has arrived here.
    lost
        Whether its worker left before the result arrived.
    """

    attempt: Attempt[B]
    slot: int
    number: int
    future: Future[Any]
    made: bool = False
    landed: bool = False
    lost: bool = False


class _DaskRun(Generic[B, R]):
    """The slots of one run and their remaining batches; a context manager that cleans up the cluster."""

    def __init__(
        self,
        client: Client,
        task: Callable[[B], R],
        batches: Sequence[B],
        packages: Sequence[str],
        log: Callable[[str], None],
        warn: Callable[[str], None],
        patience: float,
    ) -> None:
        self._client, self._patience = client, patience
        self._log, self._warn = log, warn
        self._run, self._task = uuid.uuid4().hex, pickle.dumps(task)
        self._roster = Roster(client, packages, self._task)
        self._spans = Spans(batches, 1)
        self._batches = batches
        self._slots: dict[int, str] = {}
        self._refused: set[str] = set()
        self._again: deque[Attempt[B]] = deque()
        self._flights: set[_Flight[B]] = set()
        self._news: queue.SimpleQueue[tuple[_Flight[B], Any]] = queue.SimpleQueue()
        self._fetchers = ThreadPoolExecutor(_FETCHING, thread_name_prefix="cellstamp-fetch")
        self._n_submitted = 0
        self._looked = self._seen = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for flight in self._flights:
            flight.lost = True
            flight.future.release()
        self._roster.forget(self._run)
        self._fetchers.shutdown(wait=False, cancel_futures=True)

    def results(self, limit: Callable[[], int]) -> Results[R]:
        """Yield the results of the batches, in order of completion."""
        self._begin()
        while self._n_waiting or self._flights:
            self._hand_out(limit)
            self._look()
            flight, arrived = self._next_news()
            if flight is not None and self._take(flight, arrived):
                yield Outcome(arrived, -1 - flight.slot, 0)

    @property
    def _n_waiting(self) -> int:
        return len(self._spans) + len(self._again)

    # --- batches go out ---

    def _hand_out(self, limit: Callable[[], int]) -> None:
        """Submit as many batches as the limit allows."""
        loads = Counter(dict.fromkeys(self._slots, 0))
        loads.update(flight.slot for flight in self._flights if flight.slot in self._slots)
        while self._slots and self._n_waiting and len(self._flights) < limit():
            slot = self._place_for_next(loads)
            # fewer towards the end: another slot cannot take a submitted batch
            if slot is None or loads[slot] >= max(_QUEUED, min(_AHEAD, self._n_waiting // (2 * len(self._slots)))):
                break
            self._submit(slot, self._again.popleft() if self._again else Attempt(self._spans.take(slot)))
            loads[slot] += 1

    def _place_for_next(self, loads: Counter[int]) -> int | None:
        """Return the slot with the fewest batches; a batch at which a worker died gets a worker to itself.

        When a worker dies at a batch, the end of the batch before may not be known here yet. That one is blamed
        then. Alone on a worker, it cannot be blamed again.
        """
        if self._again and self._again[0].deaths:
            closed = {self._slots[slot] for slot, n_batches in loads.items() if n_batches}
        else:
            closed = {self._slots.get(flight.slot, "") for flight in self._flights if flight.attempt.deaths}
        return min(
            (slot for slot in self._slots if self._slots[slot] not in closed), key=loads.__getitem__, default=None
        )

    def _submit(self, slot: int, attempt: Attempt[B]) -> None:
        self._n_submitted += 1
        try:
            future = self._client.submit(
                carry_out,
                Order(self._run, self._task, slot),
                attempt.batch,
                key=(f"cellstamp-{self._run}", self._n_submitted),
                workers=[self._slots[slot]],
                # without a priority, the scheduler may reorder batches submitted at about the same time
                priority=-self._n_submitted,
                pure=False,
            )
        except Exception as error:
            if self._roster.is_lost:
                raise self._roster.lost(error) from error
            raise
        flight = _Flight(attempt, slot, self._n_submitted, future)
        self._flights.add(flight)
        future.add_done_callback(lambda _: self._fetch_later(flight))

    def _fetch_later(self, flight: _Flight[B]) -> None:
        flight.made = True
        # the run may be over
        with suppress(RuntimeError):
            self._fetchers.submit(self._fetch, flight)

    def _fetch(self, flight: _Flight[B]) -> None:
        """Fetch a result, directly from the worker if possible, and release it on the cluster."""
        if flight.lost:
            return
        try:
            arrived: Any = self._client.gather(flight.future, direct=True)
        except BaseException as error:  # noqa: BLE001 - `_take` distinguishes dask's errors
            arrived = error
        flight.landed = True
        flight.future.release()
        self._news.put((flight, arrived))

    # --- results come in ---

    def _next_news(self) -> tuple[_Flight[B] | None, Any]:
        """Return the next arrival; nothing if workers should be counted first."""
        try:
            flight, arrived = self._news.get(timeout=_LOOK)
        except queue.Empty:
            return None, None
        return (None, None) if flight.lost else (flight, arrived)

    def _take(self, flight: _Flight[B], arrived: Any) -> bool:
        """Handle an arrival, and return whether it is a result."""
        self._flights.discard(flight)
        if isinstance(arrived, BaseException):
            self._again.extend(self._after_trouble(flight.attempt, arrived))
            return False
        if not isinstance(arrived, Failure):
            return True
        if isinstance(arrived.error, CellstampError):
            raise arrived.error
        raise failed(flight.attempt.batch, arrived.error) from arrived.error

    def _after_trouble(self, attempt: Attempt[B], error: BaseException) -> Sequence[Attempt[B]]:
        """Return the batches to retry after an error of the cluster."""
        from distributed import KilledWorker

        if self._roster.is_lost or isinstance(error, CancelledError | asyncio.CancelledError):
            raise self._roster.lost(error) from error
        if isinstance(error, KilledWorker | OSError):
            return try_again(attempt, end=type(error).__name__, hint=_HINT, log=self._log)
        raise failed(attempt.batch, error) from error

    # --- workers join and leave ---

    def _begin(self) -> None:
        """Give each thread of each worker a span."""
        threads = self._roster.threads()
        faults = self._roster.faults(threads)
        if faults:
            raise WorkerError("; ".join(faults.values()))
        # otherwise the first worker that is ready takes over the spans of the others
        self._roster.warm_up(threads)
        places = [address for address, n in threads.items() for _ in range(n)]
        self._log(f"on the dask cluster at {self._roster.address}: {len(threads)} workers, {len(places)} threads")
        self._spans = Spans(self._batches, max(1, len(places)))
        self._slots = dict(enumerate(places))

    def _look(self) -> None:
        """Count the workers, at most once per `_LOOK`."""
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return
        self._looked = now
        threads = self._roster.threads()
        for address in set(self._slots.values()) - set(threads):
            self._gone(address)
        self._welcome({a: n for a, n in threads.items() if a not in self._refused | set(self._slots.values())})
        if self._slots:
            self._seen = now
        elif now - self._seen > self._patience:
            raise no_workers(self._client, self._patience)

    def _welcome(self, threads: dict[str, int]) -> None:
        """Add workers that joined during the run."""
        if not threads:
            return
        faults = self._roster.faults(threads)
        for address, fault in faults.items():
            self._refused.add(address)
            self._warn(f"not using {fault}")
        for address in threads.keys() - faults.keys():
            self._log(f"a worker joined: {address}")
            for _ in range(threads[address]):
                self._slots[self._spans.add()] = address

    def _gone(self, address: str) -> None:
        """Retry the batches of a worker that left."""
        slots = [slot for slot, place in self._slots.items() if place == address]
        for slot in slots:
            del self._slots[slot]
        flights = [flight for flight in self._flights if flight.slot in slots and not flight.landed]
        if not flights:
            self._log(f"an idle worker left: {address}")
        flights.sort(key=lambda flight: flight.number)
        # a thread runs its batches in order: it died at the first one that is not finished
        suspects = {flight.slot: flight for flight in reversed(flights) if not flight.made}.values()
        for flight in flights:
            flight.lost = True
            flight.future.release()  # this also marks it as made
            self._flights.discard(flight)
        for flight in flights:
            if flight in suspects:
                self._again.extend(try_again(flight.attempt, end=f"{address} left", hint=_HINT, log=self._log))
            else:
                self._again.append(flight.attempt)
