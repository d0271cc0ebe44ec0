"""Say how a process ended."""

from __future__ import annotations

import signal

_KILLED = -9
"""Exit code after SIGKILL; Windows has no signals."""
_CRASHES = 2**31
"""From here on, Windows' exit codes are numbers of errors, which are written in hexadecimal."""


def was_killed(code: int | None) -> bool:
    """Return whether SIGKILL ended the process, as when memory runs out."""
    return code == _KILLED


def how_it_ended(code: int | None) -> str:
    """Say how a process ended.

    Parameters
    ----------
    code
        Exit code, or the negative number of a signal; None if unknown.
    """
    if code is None:
        return "exit code unknown, because the process that forked it died too"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}" if code < _CRASHES else f"exit code 0x{code:08X}"
