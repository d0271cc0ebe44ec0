"""Whether the C library keeps memory that a process has freed, while a run takes the same again and again.

Dask starts workers with ``MALLOC_TRIM_THRESHOLD_=65536``: freed memory goes back to the system at once, and glibc no
longer adapts to what is used. Every chunk that is decoded then takes new pages, and reading takes two to three times as
long.
"""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of ``mallopt``, from glibc's malloc.h."""
_KEPT, _LARGEST = 2**30, 2**25
"""Free memory that may be kept, and the largest piece that may be kept of it (glibc allows no more)."""
_DEFAULT = 2**17
"""What both are if nothing else is said."""


def keep_freed() -> None:
    """Keep freed memory from now on, where dask's settings, or the user's, are against it."""
    if "MALLOC_TRIM_THRESHOLD_" in os.environ:
        _set(_KEPT, _LARGEST)


def give_back() -> None:
    """Give freed memory back, and from now on do as the environment says."""
    if "MALLOC_TRIM_THRESHOLD_" in os.environ:
        _set(_from_environment("MALLOC_TRIM_THRESHOLD_"), _from_environment("MALLOC_MMAP_THRESHOLD_"))
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _set(trim: int, mmap: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, trim)
        mallopt(_MMAP_THRESHOLD, mmap)


def _from_environment(name: str) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else _DEFAULT
