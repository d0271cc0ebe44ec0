"""Connections that a fork of this process must not keep: the other end would not see that a process has ended."""

from __future__ import annotations

import os
import socket
import threading
import weakref
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

End = TypeVar("End", Connection, socket.socket)

_lock = threading.RLock()
"""Held while connections are opened or closed, and while this process forks: no fork sees one half open."""
_ends: weakref.WeakSet[Connection | socket.socket] = weakref.WeakSet()


def open_pair(make: Callable[[], tuple[End, End]]) -> tuple[End, End]:
    """Open a connection and return both ends; forks of this process close them."""
    with _lock:
        pair = make()
        _ends.update(pair)
    return pair


def keep_from_forks(end: Connection[Any, Any]) -> None:
    """Make forks of this process close an end of a connection that is open already."""
    with _lock:
        _ends.add(end)


def close(end: Connection | socket.socket) -> None:
    """Close an end of a connection; it may be closed already."""
    with _lock:
        end.close()


def _close_in_fork() -> None:
    for end in list(_ends):
        end.close()
    _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_close_in_fork)
