"""What a dask worker is asked to do. It may be somebody's for other things, too: all that is kept can be dropped."""

from __future__ import annotations

import pickle
import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from cellstamp import __version__
from cellstamp.engines.retries import portable

_KEPT = "cellstamp_tasks"
"""Attribute of a dask worker: copies of tasks, by run."""


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


def _minor(text: str) -> str:
    return ".".join(text.split(".")[:2])


def carry_out(order: Order, batch: Any) -> Any:
    """Run the task on a batch; return what it made, or a `Failure`."""
    from distributed import get_worker

    try:
        with _tasks_of(get_worker()).setdefault(order.run, _Copies()).borrow(order) as task:
            # what is returned waits here until it is fetched, while the task uses its memory again
            return _copied(task(batch))
    except Exception as error:  # noqa: BLE001 - it is raised where it can be told
        return Failure(portable(error))


def forget(run: str, dask_worker: Any = None) -> None:
    """Drop all that was kept for a run."""
    _tasks_of(dask_worker).pop(run, None)


def kept(dask_worker: Any = None) -> list[str]:
    """The runs of which something is kept."""
    return list(_tasks_of(dask_worker))


def _tasks_of(worker: Any) -> dict[str, _Copies]:
    copies: dict[str, _Copies] = worker.__dict__.setdefault(_KEPT, {})
    return copies


class _Copies:
    """Copies of a task in one process, each used by one thread at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slots: set[int] = set()
        self._free: dict[int, Callable[[Any], Any]] = {}

    @contextmanager
    def borrow(self, order: Order) -> Iterator[Callable[[Any], Any]]:
        """The copy that had the neighbours of a batch; while that is at work, another one, so that nobody waits."""
        slot, task = self._take(order.slot)
        task = pickle.loads(order.task) if task is None else task
        try:
            yield task
        finally:
            with self._lock:
                self._free[slot] = task

    def _take(self, slot: int) -> tuple[int, Callable[[Any], Any] | None]:
        with self._lock:
            if slot not in self._slots:
                self._slots.add(slot)
                return slot, None
            if slot not in self._free:
                # as many copies as threads at most: one that is not at work has been made, or may be made now
                slot = next(iter(self._free), slot)
            return slot, self._free.pop(slot, None)


def _copied(value: Any) -> Any:
    """A copy of what may be memory that is used again, its large arrays copied once."""
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(value, 5, buffer_callback=buffers.append)
    return pickle.loads(pickled, buffers=[bytearray(buffer.raw()) for buffer in buffers])
