"""Warnings that point at the user's own line."""

import sys
import warnings


def warn(message: str) -> None:
    """Warn with a `UserWarning` that names the line outside this package from which it was reached."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)
