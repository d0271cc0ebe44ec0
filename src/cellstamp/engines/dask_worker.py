"""What a dask worker is asked to do. It may be somebody's for other things, too: all that is kept can be dropped."""

from __future__ import annotations

import pickle
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from cellstamp import __version__
from cellstamp.engines.allocator import give_back, keep_freed
from cellstamp.engines.retries import portable

_KEPT = "cellstamp_tasks"
"""Attribute of a dask worker: what is kept there."""
_IDLE = 600.0
"""Seconds after which a copy of a task that nobody used is dropped: its caller may have died without a word."""


@dataclass(frozen=True)
class Findings:
    """What a worker is like, or the caller.

    Attributes
    ----------
    versions
        Of Python, of cellstamp, and of some packages; what is compared of them.
    signature
        What the task says of what it works on.
    """

    versions: dict[str, str]
    signature: object


@dataclass(frozen=True)
class Order:
    """Which task is to be run, and where.

    Attributes
    ----------
    run
        Name of the run.
    task
        The pickled task.
    slot
        Batches with the same slot are neighbours: they are given to the same copy of the task.
    """

    run: str
    task: bytes
    slot: int


@dataclass(frozen=True)
class Failure:
    """The error that a batch ended with."""

    error: Exception


def probe(packages: Sequence[str], task: bytes) -> Findings:
    """Look at versions, and at what the task works on (if it has a method ``signature``)."""
    versions = {"cellstamp": __version__, "Python": _minor(platform.python_version())}
    for package in packages:
        try:
            versions[package] = _minor(version(package))
        except PackageNotFoundError:
            versions[package] = "missing"
    copy = pickle.loads(task)
    return Findings(versions, copy.signature() if hasattr(copy, "signature") else None)


def warm_up(task: bytes) -> None:
    """Load what takes long, as the task says (if it has a method ``warm_up``), before there is work to wait for."""
    copy = pickle.loads(task)
    if hasattr(copy, "warm_up"):
        copy.warm_up()


def _minor(text: str) -> str:
    return ".".join(text.split(".")[:2])


def carry_out(order: Order, batch: Any) -> Any:
    """Run the task on a batch; return what it made, or a `Failure`."""
    from distributed import get_worker

    try:
        with _kept_by(get_worker()).borrow(order) as task:
            # what is returned waits here until it is fetched, while the task uses its memory again
            return _copied(task(batch))
    except Exception as error:  # noqa: BLE001 - it is raised where it can be told
        return Failure(portable(error))


def forget(run: str, dask_worker: Any = None) -> None:
    """Drop all that was kept for a run."""
    _kept_by(dask_worker).end(run)


def n_kept(dask_worker: Any = None) -> int:
    """How many copies of tasks are kept."""
    return len(_kept_by(dask_worker).copies)


def _kept_by(worker: Any) -> _Kept:
    kept: _Kept = worker.__dict__.setdefault(_KEPT, _Kept())
    return kept


@dataclass(eq=False)
class _Copy:
    """A task, who may use it (one thread at a time), and when it was asked for."""

    task: Callable[[Any], Any]
    lock: threading.Lock = field(default_factory=threading.Lock)
    used: float = 0.0


class _Kept:
    """Copies of tasks in one process, one for each slot.

    Attributes
    ----------
    copies
        By run and slot.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended: set[str] = set()
        self.copies: dict[tuple[str, int], _Copy] = {}

    @contextmanager
    def borrow(self, order: Order) -> Iterator[Callable[[Any], Any]]:
        """The copy that had the neighbours of a batch, as soon as it is free."""
        with self._lock:
            copy = self._find(order)
        with copy.lock:
            yield copy.task

    def _find(self, order: Order) -> _Copy:
        copy = self.copies.get((order.run, order.slot)) or _Copy(pickle.loads(order.task))
        copy.used = time.monotonic()
        # a batch may begin after its run was ended: nobody waits for it, and nothing is kept
        if order.run not in self._ended:
            self.copies = {key: other for key, other in self.copies.items() if copy.used - other.used < _IDLE}
            self.copies[order.run, order.slot] = copy
            keep_freed()
        return copy

    def end(self, run: str) -> None:
        """Drop the copies of a run, and keep none from now on."""
        with self._lock:
            self._ended.add(run)
            self.copies = {key: copy for key, copy in self.copies.items() if key[0] != run}
            if not self.copies:
                give_back()


def _copied(value: Any) -> Any:
    """A copy of what may be memory that is used again, its large arrays copied once."""
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(value, 5, buffer_callback=buffers.append)
    return pickle.loads(pickled, buffers=[bytearray(buffer.raw()) for buffer in buffers])
