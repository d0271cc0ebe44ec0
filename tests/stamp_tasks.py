"""What may happen to a batch; importable by workers, and light. Not a test module."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
from zarr.storage import LocalStore

from cellstamp.cells.task import StampTask
from cellstamp.errors import InputError


class _Ending(StampTask):
    """Cuts stamps until a batch has the cell 40, and then does what `end` does."""

    def __call__(self, batch: Any) -> Any:
        if 40 in batch.ids:
            self.end()
        return super().__call__(batch)

    def end(self) -> None:
        raise NotImplementedError


class Refused(_Ending):
    """Ends with an error of our own."""

    def end(self) -> None:
        raise InputError("broken on purpose")


class Failing(_Ending):
    """Ends with somebody else's error."""

    def end(self) -> None:
        raise KeyError("broken on purpose")


class Interrupted(_Ending):
    """Ends as with Ctrl-C."""

    def end(self) -> None:
        raise KeyboardInterrupt("on purpose")


class Killed(_Ending):
    """Ends its process, as a lack of memory would."""

    def end(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class KilledOnce(_Ending):
    """Ends its process, the first time; a file beside the store remembers."""

    def end(self) -> None:
        mark = Path(self._source.image.store).with_name("killed-once")
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class SchedulerKilled(_Ending):
    """Ends the scheduler; a file beside the store says which process that is."""

    def end(self) -> None:
        file = Path(self._source.image.store).with_name("scheduler.pid")
        if file.exists():
            os.kill(int(file.read_text()), signal.SIGKILL)
            file.unlink()


class Counting(StampTask):
    """Leaves a line for each chunk that is decoded, in a file of its process; in the folder of that name."""

    def __init__(self, source: Any, recipe: Any, folder: Path) -> None:
        super().__init__(source, recipe)
        self._folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._source, self._recipe, self._folder)

    def __call__(self, batch: Any) -> Any:
        if not hasattr(LocalStore, "counted"):
            _count_in(self._folder / str(os.getpid()))
        return super().__call__(batch)


def _count_in(path: Path) -> None:
    """Have this process write down what it fetches from now on."""
    get = LocalStore.get
    file = path.open("a", buffering=1)

    async def noting(store: Any, key: str, *args: Any, **kwargs: Any) -> Any:
        if "/c/" in key:
            file.write(f"{key}\n")
        return await get(store, key, *args, **kwargs)

    LocalStore.get, LocalStore.counted = noting, True  # type: ignore[method-assign, attr-defined]


class Hungry(_Ending):
    """Takes 4 GiB, all of it touched."""

    def end(self) -> None:
        np.ones(2**32, np.uint8).sum()
