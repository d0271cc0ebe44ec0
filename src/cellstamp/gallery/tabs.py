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
    _open: set[str] = field(default_factory=set)
    _closing: set[str] = field(default_factory=set)
    _deadline: float | None = None

    def open(self, tab: str) -> None:
        """Note that a tab is open."""
        self._open.add(tab)

    def say_goodbye(self, tab: str) -> None:
        """Note that a tab says that it is being closed or loaded again, before or after its connection ends."""
        if tab in self._open:
            self._closing.add(tab)
        else:
            self._deadline = self.now() + self.closed

    def disconnect(self, tab: str) -> None:
        """Note that the connection of a tab has ended."""
        self._open.discard(tab)
        self._deadline = self.now() + (self.closed if tab in self._closing else self.lost)
        self._closing.discard(tab)

    def are_gone(self) -> bool:
        """Return whether all tabs are closed for good. A tab that has not been opened yet may still come."""
        return not self._open and self._deadline is not None and self.now() >= self._deadline
