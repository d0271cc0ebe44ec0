"""Measure functions and processes."""

from __future__ import annotations

import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil


@dataclass
class Meter:
    """Sum the time of calls.

    Attributes
    ----------
    cpu, wall
        CPU seconds, of all cores or of the given clock; and wall-clock seconds.
    """

    clock: Callable[[], float] = time.process_time
    cpu: float = 0.0
    wall: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure the block."""
        cpu, wall = self.clock(), time.perf_counter()
        try:
            yield
        finally:
            self.cpu += self.clock() - cpu
            self.wall += time.perf_counter() - wall

    def per(self, n: float) -> dict[str, float]:
        """Return the microseconds per item for ``n`` items."""
        return {"core_us": 1e6 * self.cpu / n, "wall_us": 1e6 * self.wall / n}

    def without(self, *parts: Meter) -> Meter:
        """Return the time without parts that other meters have measured."""
        cpu, wall = sum(part.cpu for part in parts), sum(part.wall for part in parts)
        return Meter(self.clock, self.cpu - cpu, self.wall - wall)


@contextmanager
def watched(owner: type, name: str, around: Callable[..., Any]) -> Iterator[None]:
    """Route every call of a method through ``around(method, self, ...)`` while the block runs."""
    method = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        return around(method, *args, **kwargs)

    setattr(owner, name, call)
    try:
        yield
    finally:
        setattr(owner, name, method)


@contextmanager
def metered(owner: type, name: str) -> Iterator[Meter]:
    """Measure every call of a method while the block runs."""
    meter = Meter()

    def around(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with meter.running():
            return method(*args, **kwargs)

    with watched(owner, name, around):
        yield meter


def tree_cpu() -> float:
    """Return the CPU seconds of this process and its children, including children that have ended."""
    me = psutil.Process()
    total = 0.0
    for process in (me, *me.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def folder_bytes(folder: Path) -> int:
    """Return the disk usage of a folder in bytes; its files may change meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        try:
            found = path.lstat()
            total += found.st_blocks * 512 if stat.S_ISREG(found.st_mode) else 0
        except OSError:
            continue
    return total


class Watch:
    """Sample the memory of a process and its children, and the size of a folder, until the block ends.

    Memory is PSS, which divides shared memory between processes, or RSS on systems without PSS.

    Attributes
    ----------
    total, caller, workers
        Peak bytes of all processes together, of the process itself, and of its children together.
    scratch
        Peak bytes of the folder.
    """

    INTERVAL = 0.2

    def __init__(self, pid: int, folder: Path) -> None:
        self._process, self._folder = psutil.Process(pid), folder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look_on)
        self.total = self.caller = self.workers = self.scratch = 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look_on(self) -> None:
        while not self._stop.wait(self.INTERVAL):
            self._look()

    def _look(self) -> None:
        try:
            children = self._process.children(recursive=True)
        except psutil.Error:
            return
        caller, workers = _memory(self._process), sum(map(_memory, children))
        self.total = max(self.total, caller + workers)
        self.caller, self.workers = max(self.caller, caller), max(self.workers, workers)
        self.scratch = max(self.scratch, folder_bytes(self._folder))


def _memory(process: psutil.Process) -> int:
    try:
        info = process.memory_full_info()
    except psutil.Error:
        return 0
    return int(getattr(info, "pss", info.rss))
