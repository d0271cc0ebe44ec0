"""What the tests of the server and its workers run in other processes; importable, and light. Not a test module."""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellstamp.engines.processes import ProcessEngine
from engine_tasks import Batch, Busy, Square, Wait, number_of

PRELOAD_THAT_WAITS = """
import os
from pathlib import Path
folder = Path({folder!r})
if not (folder / "second").exists():
    (folder / "second").touch()
    (folder / "pid").write_text(str(os.getpid()))
    (folder / "importing").open("wb").close()
    (folder / "never").open("rb").close()
"""
"""Once, it says that it is imported, and then waits; the next time it is imported at once."""


class KillsServerOnArrival:
    """Ends the server of the first worker that it comes to, before that worker has begun."""

    def __init__(self, mark: Path) -> None:
        self.mark, self.home = mark, os.getpid()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if os.getpid() != self.home and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getppid(), signal.SIGKILL)

    def __call__(self, batch: Batch) -> int:
        return batch.number


@dataclass(frozen=True)
class KillsServerAndItself:
    """Ends the server and then this process at one batch, the first time, as when memory runs out."""

    at: int
    mark: Path

    def __call__(self, batch: Batch) -> int:
        if batch.number == self.at and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        return batch.number


@dataclass(frozen=True)
class KillsItself:
    """Ends this process at one batch, the first time."""

    at: int
    mark: Path

    def __call__(self, batch: Batch) -> int:
        if batch.number == self.at and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return batch.number


def squares(folder: str, start_method: str | None = None) -> list[int]:
    """Use two workers, in whichever process this is."""
    outcomes = ProcessEngine(2, start_method=start_method).run(
        Square(Path(folder)), [Batch(number) for number in range(8)], lambda: 4
    )
    return sorted(outcome.value for outcome in outcomes)


def work_until_killed(folder: str) -> None:
    """Have a worker that waits for ever."""
    list(ProcessEngine(1).run(Wait(0, Path(folder)), [Batch(0)], lambda: 1))


def compute_until_killed(folder: str) -> None:
    """Have a worker that computes for ever."""
    list(ProcessEngine(1).run(Busy(Path(folder)), [Batch(0)], lambda: 1))


def import_until_killed(folder: str) -> None:
    """Have a worker, or the server, that imports a module for ever."""
    sys.path.insert(0, folder)
    list(ProcessEngine(1, ["never_done"]).run(number_of, [Batch(0)], lambda: 1))


def count(n: int, n_workers: int) -> int:
    """Have batches done, and count them."""
    return sum(1 for _ in ProcessEngine(n_workers).run(number_of, [Batch(k) for k in range(n)], lambda: 4 * n_workers))


def has_open(descriptor: int) -> bool:
    """Whether this process has something open by a number."""
    with suppress(OSError):
        os.fstat(descriptor)
        return True
    return False


def look_around() -> tuple[Any, int]:
    """What a process that is somebody else's has of our settings: zarr's threads, and objects that are frozen."""
    import zarr

    return zarr.config.get("threading.max_workers"), gc.get_freeze_count()
