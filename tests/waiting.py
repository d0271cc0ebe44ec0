"""Waiting for what another process does, without taking the processor that it needs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def wait_until(look: Callable[[], Found]) -> Found:
    """Look every millisecond until something is found (until it is true), and return it."""
    never = threading.Event()
    while not (found := look()):
        never.wait(0.001)
    return found
