"""Tasks for the tests of the engines: importable by worker processes, and light."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from waiting import wait_until


@dataclass(frozen=True)
class Batch:
    """A number that can be told in a message."""

    number: int

    def __str__(self) -> str:
        return f"batch number {self.number}"


def number_of(batch: Batch) -> int:
    """What a task does that does nothing."""
    return batch.number


@dataclass(frozen=True)
class Square:
    """Leaves a file for each run, and returns the square; the last run of a batch says which process it was in."""

    folder: Path

    def __call__(self, batch: Batch) -> int:
        with (self.folder / f"{batch.number}").open("a") as file:
            file.write(f"{os.getpid()}\n")
        return batch.number**2


@dataclass(frozen=True)
class Fail:
    """Fails with an error at one batch."""

    at: int
    error: type[Exception]

    def __call__(self, batch: Batch) -> int:
        if batch.number == self.at:
            raise self.error("something is wrong here")
        return batch.number


@dataclass(frozen=True)
class Small:
    """Has small results: the number of a batch, and the dask task that it is a part of. One batch kills its worker."""

    deadly: int | None = None
    small_results = True

    def __call__(self, batch: Batch) -> tuple[int, str]:
        from distributed import get_worker

        if batch.number == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return batch.number, str(get_worker().get_current_task())


def count_batches_here(batch: Batch) -> tuple[int, int]:
    """Return the number of a batch, and how many batches its dask worker has."""
    from distributed import get_worker

    states = [task.state for task in get_worker().state.tasks.values()]
    return batch.number, sum(state in ("ready", "executing") for state in states)


@dataclass(frozen=True)
class EndsScheduler:
    """Ends the scheduler while a worker is looked at (its ``signature``), or while it gets ready (``warm_up``)."""

    at: str
    scheduler: int
    caller: int

    def _end(self, at: str) -> None:
        if at == self.at and os.getpid() != self.caller:
            os.kill(self.scheduler, signal.SIGKILL)

    def signature(self) -> str:
        self._end("signature")
        return "always the same"

    def warm_up(self) -> None:
        self._end("warm_up")

    def __call__(self, batch: Batch) -> int:
        return batch.number


@dataclass(frozen=True)
class Die:
    """Ends this process at one batch, by a signal or by exiting."""

    at: int
    by_signal: bool = True

    def __call__(self, batch: Batch) -> int:
        if batch.number == self.at:
            if self.by_signal:
                os.kill(os.getpid(), signal.SIGKILL)
            os._exit(7)
        return batch.number


@dataclass(frozen=True)
class DieOnce:
    """Ends this process the first time it gets certain batches; otherwise runs another task."""

    at: int | tuple[int, ...]
    folder: Path
    by_signal: bool = True
    then: Callable[[Batch], Any] = number_of

    def __call__(self, batch: Batch) -> Any:
        places = (self.at,) if isinstance(self.at, int) else self.at
        mark = self.folder / f"died-{batch.number}"
        if batch.number in places and not mark.exists():
            mark.touch()
            Die(batch.number, self.by_signal)(batch)
        return self.then(batch)


@dataclass(frozen=True)
class AfterEarlier:
    """Runs another task; at one batch only when the test has received the results of all earlier ones.

    The test leaves a file ``received-N`` for each.
    """

    at: int
    folder: Path
    then: Callable[[Batch], Any]

    def __call__(self, batch: Batch) -> Any:
        if batch.number == self.at:
            wait_until(lambda: all((self.folder / f"received-{n}").exists() for n in range(self.at)))
        return self.then(batch)


@dataclass(frozen=True)
class Span:
    """A batch of numbers that can be divided."""

    numbers: range

    def __str__(self) -> str:
        return f"numbers {self.numbers[0]} to {self.numbers[-1]}"

    def halves(self) -> tuple[Span, ...]:
        middle = len(self.numbers) // 2
        return (Span(self.numbers[:middle]), Span(self.numbers[middle:])) if middle else ()


@dataclass(frozen=True)
class DieAtNumber:
    """Ends this process at every batch with a certain number."""

    culprit: int

    def __call__(self, span: Span) -> range:
        if self.culprit in span.numbers:
            os.kill(os.getpid(), signal.SIGKILL)
        return span.numbers


class DieOnArrival:
    """Ends any other process it is sent to, before that has begun with a batch."""

    def __reduce__(self) -> tuple[Callable[[int], None], tuple[int]]:
        return _leave, (os.getpid(),)

    def __call__(self, batch: Batch) -> int:
        return batch.number


def _leave(home: int) -> None:
    if os.getpid() != home:
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Wait:
    """At one batch: says its process id, waits until someone opens a pipe for writing, and may then end its process."""

    at: int
    folder: Path
    then_die: bool = False

    def __call__(self, batch: Batch) -> int:
        if batch.number == self.at:
            self.say()
            (self.folder / "pipe").open("rb").close()
            if self.then_die:
                os.kill(os.getpid(), signal.SIGKILL)
        return batch.number

    def say(self) -> None:
        """Say the process id of this worker."""
        aside = self.folder / "pid.new"
        aside.write_text(str(os.getpid()))
        aside.rename(self.folder / "pid")

    def prepare(self) -> Wait:
        """Make the pipe; here, before there are workers."""
        os.mkfifo(self.folder / "pipe")
        return self

    def release(self) -> None:
        """Let the worker go on; blocks until it waits."""
        (self.folder / "pipe").open("wb").close()

    def kill(self) -> None:
        """End the worker that waits; whoever takes its place says so in its turn."""
        worker = self.worker()
        worker.kill()
        # one that is about to die could still take the release meant for the next
        worker.wait()
        (self.folder / "pid").unlink()

    def worker(self) -> psutil.Process:
        """The process that waits, as soon as it does."""
        wait_until((self.folder / "pid").exists)
        return psutil.Process(int((self.folder / "pid").read_text()))


def imported_modules(batch: Batch) -> dict[str, str | None]:
    """What a worker has imported, and where its main module came from."""
    return {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}


def environment(batch: Batch) -> dict[str, str]:
    """The environment variables of a worker."""
    return dict(os.environ)


N_THREADS = psutil.Process().num_threads()
"""Of the process that has imported this, and with it numpy."""


def n_threads_at_import(batch: Batch) -> int:
    return N_THREADS


def oom_score(batch: Batch) -> int:
    """How much sooner than others the system kills this process if memory runs out."""
    return int(Path("/proc/self/oom_score_adj").read_text())


def descendants() -> set[psutil.Process]:
    """Every process below this one."""
    return set(psutil.Process().children(recursive=True))


@dataclass(frozen=True)
class Arrays:
    """Returns arrays of some sizes, filled with the number of the batch."""

    sizes: tuple[int, ...]

    def __call__(self, batch: Batch) -> list[np.ndarray]:
        return [np.full(size, batch.number, np.uint8) for size in self.sizes]


@dataclass(frozen=True)
class PageFaults:
    """Takes and frees the same memory again and again; returns how many of its pages had to be taken anew."""

    def __call__(self, batch: Batch) -> int:
        return page_faults()


def page_faults() -> int:
    """Pages that this process is given while it takes and frees 1 MiB, less than a huge page, again and again."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(40):
        np.ones(2**20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@dataclass(frozen=True)
class Large:
    """A batch that fills any pipe."""

    number: int
    content: bytes = bytes(2**24)


def content_of(batch: Large) -> tuple[int, bytes]:
    """A large result that takes the pipe, since bytes are no buffer."""
    return batch.number, batch.content


class LocalError(Exception):
    """Cannot be pickled: it has a file."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.file = open(os.devnull)  # noqa: PTH123, SIM115 - as errors of other libraries hold


def fail_with_a_file(batch: Batch) -> int:
    """Fail with an error that cannot be pickled."""
    raise LocalError("nobody can pickle this")


@dataclass(frozen=True)
class Busy:
    """Says its process id, and computes for ever."""

    folder: Path

    def __call__(self, batch: Batch) -> int:
        Wait(-1, self.folder).say()
        while True:
            pass
