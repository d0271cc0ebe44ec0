"""Warnings that point at the user's own line."""

import sys
import warnings


class NoNucleusWarning(UserWarning):
    """A segmentation found no nucleus and wrote no masks."""


def warn(message: str, category: type[UserWarning] = UserWarning) -> None:
    """Warn, and point at the line outside this package that led here."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
