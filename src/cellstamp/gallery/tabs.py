"""Count the open tabs of a page, to end its server when the last one is closed for good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

CLOSED, LOST = 3.0, 600.0
"""Seconds to wait for a tab after one was closed, since it may be loading again, and after its connection was lost: a
browser unloads tabs in the background, and loads them again when they are shown."""


@dataclass
class Tabs:
    """Open tabs.

    Parameters
    ----------
    now
        Returns the time in seconds.
    closed, lost
        See `CLOSED` and `LOST`.
    """

    now: Callable[[], float]
    closed: float = CLOSED
    lost: float = LOST
    _open: int = 0
    _deadline: float | None = field(default=None)

    def open(self) -> None:
        """Note that a tab is open."""
        self._open += 1
        self._deadline = None

    def say_goodbye(self) -> None:
        """Note that a tab says that it is being closed, or loaded again; its connection ends a moment later."""
        self._deadline = self.now() + self.closed

    def disconnect(self) -> None:
        """Note that the connection of a tab has ended."""
        self._open -= 1
        if self._deadline is None:
            self._deadline = self.now() + self.lost

    def are_gone(self) -> bool:
        """Return whether all tabs are closed for good. A tab that has not been opened yet may still come."""
        return self._open == 0 and self._deadline is not None and self.now() >= self._deadline
