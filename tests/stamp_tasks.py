"""What may happen to a batch; importable by workers, and light. Not a test module."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

from cellstamp.cells.stamps import StampTask
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


class Hungry(_Ending):
    """Takes 4 GiB, all of it touched."""

    def end(self) -> None:
        np.ones(2**32, np.uint8).sum()
