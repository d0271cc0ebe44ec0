"""Clocks on functions, and eyes on processes."""

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
    """Adds up what calls took.

    Attributes
    ----------
    cpu, wall
        Seconds, of all cores (or of one thread, by the clock given), and by the clock on the wall.
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
        """Microseconds for each of ``n``."""
        return {"core_us": 1e6 * self.cpu / n, "wall_us": 1e6 * self.wall / n}

    def without(self, *parts: Meter) -> Meter:
        """What is left when parts of it, measured by meters of their own, are taken away."""
        cpu, wall = sum(part.cpu for part in parts), sum(part.wall for part in parts)
        return Meter(self.clock, self.cpu - cpu, self.wall - wall)


@contextmanager
def watched(owner: type, name: str, around: Callable[..., Any]) -> Iterator[None]:
    """Have every call of a method go through ``around(method, self, ...)`` while the block runs."""
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
    """Seconds of all cores that this process, its children, and the children that have ended used."""
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
    """Bytes that files under a folder have on the disk; the folder may be changing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            found = path.lstat()
            total += found.st_blocks * 512 if stat.S_ISREG(found.st_mode) else 0
        except OSError:
            continue
    return total


class Watch:
    """Looks at a process and its children, and at a folder, again and again until the block ends.

    Memory is PSS (memory that processes share is counted once, in parts), where the system tells it, else RSS.

    Attributes
    ----------
    total, caller, workers
        Most bytes seen: of all processes together, of the process itself, and of its children together.
    scratch
        Most bytes seen in the folder.
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
