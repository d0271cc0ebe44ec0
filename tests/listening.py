"""Signals in tests: whoever runs them may have them ignored, as `nohup` and the background jobs of a shell do."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def to_ctrl_c() -> Iterator[None]:
    """Listen to Ctrl-C in this process, as Python does that is started from a terminal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def as_started_from_a_terminal() -> None:
    """Have a process that is started ignore no signal (as ``preexec_fn``)."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_DFL)


def as_started_with_nohup() -> None:
    """Have a process that is started ignore all of them (as ``preexec_fn``)."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)
