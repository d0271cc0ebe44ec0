"""Functions that run on a dask worker. Others may share the worker, so all state can be dropped."""

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
"""Attribute of a dask worker that holds our state."""
_IDLE = 600.0
"""Seconds until an unused copy of a task is dropped: its caller may have died."""


@dataclass(frozen=True)
class Findings:
    """Versions and data of a worker, or of the caller.

    Attributes
    ----------
    versions
        Compared part of the versions of Python, cellstamp and some packages, by name.
    signature
        Result of the task's method ``signature``.
    """

    versions: dict[str, str]
    signature: object


@dataclass(frozen=True)
class Order:
    """The task to run, and its slot.

    Attributes
    ----------
    run
        Name of the run.
    task
        The pickled task.
    slot
        Batches with the same slot are neighbours, and use the same copy of the task.
    """

    run: str
    task: bytes
    slot: int


@dataclass(frozen=True)
class Failure:
    """The error of a failed batch."""

    error: Exception


def probe(packages: Sequence[str], task: bytes) -> Findings:
    """Return the versions, and the task's ``signature`` of its data (if it has this method)."""
    versions = {"cellstamp": __version__, "Python": _minor(platform.python_version())}
    for package in packages:
        try:
            versions[package] = _minor(version(package))
        except PackageNotFoundError:
            versions[package] = "missing"
    copy = pickle.loads(task)
    return Findings(versions, copy.signature() if hasattr(copy, "signature") else None)


def warm_up(task: bytes) -> None:
    """Load slow modules before the first batch, with the task's ``warm_up`` (if it has this method)."""
    copy = pickle.loads(task)
    if hasattr(copy, "warm_up"):
        copy.warm_up()


def _minor(text: str) -> str:
    return ".".join(text.split(".")[:2])


def carry_out(order: Order, batch: Any) -> Any:
    """Run the task on a batch; return its result, or a `Failure`."""
    from distributed import get_worker

    try:
        with _kept_by(get_worker()).borrow(order) as task:
            # copy: the result waits here until it is fetched, while the task reuses its memory
            return _copied(task(batch))
    except Exception as error:  # noqa: BLE001 - the caller raises it
        return Failure(portable(error))


def forget(run: str, dask_worker: Any = None) -> None:
    """Drop all state of a run."""
    _kept_by(dask_worker).end(run)


def n_kept(dask_worker: Any = None) -> int:
    """Return the number of copies of tasks."""
    return len(_kept_by(dask_worker).copies)


def _kept_by(worker: Any) -> _Kept:
    kept: _Kept = worker.__dict__.setdefault(_KEPT, _Kept())
    return kept


@dataclass(eq=False)
class _Copy:
    """A task, its lock (one thread at a time), and the time of its last use."""

    task: Callable[[Any], Any]
    lock: threading.Lock = field(default_factory=threading.Lock)
    used: float = 0.0


class _Kept:
    """Copies of tasks in one process, one for each slot.

    Attributes
    ----------
    copies
        Copies by run and slot.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended: set[str] = set()
        self.copies: dict[tuple[str, int], _Copy] = {}

    @contextmanager
    def borrow(self, order: Order) -> Iterator[Callable[[Any], Any]]:
        """Yield the copy for a slot as soon as it is free."""
        with self._lock:
            copy = self._find(order)
        with copy.lock:
            yield copy.task

    def _find(self, order: Order) -> _Copy:
        copy = self.copies.get((order.run, order.slot)) or _Copy(pickle.loads(order.task))
        copy.used = time.monotonic()
        # a batch may start after its run has ended: then nothing is kept
        if order.run not in self._ended:
            self.copies = {key: other for key, other in self.copies.items() if copy.used - other.used < _IDLE}
            self.copies[order.run, order.slot] = copy
            keep_freed()
        return copy

    def end(self, run: str) -> None:
        """Drop the copies of a run, and keep no new ones."""
        with self._lock:
            self._ended.add(run)
            self.copies = {key: copy for key, copy in self.copies.items() if key[0] != run}
            if not self.copies:
                give_back()


def _copied(value: Any) -> Any:
    """Return a copy of a value; its large arrays are copied once."""
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(value, 5, buffer_callback=buffers.append)
    return pickle.loads(pickled, buffers=[bytearray(buffer.raw()) for buffer in buffers])
