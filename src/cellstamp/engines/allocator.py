"""Make the C library keep freed memory during a run, which needs the same memory again and again.

Dask sets ``MALLOC_TRIM_THRESHOLD_=65536`` in workers, which returns freed memory to the system at once. Each decoded
chunk then needs new pages, and reading takes two to three times as long.
"""

from __future__ import annotations

import os

from cellstamp.system import c_function, return_freed_memory

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of ``mallopt``, from glibc's malloc.h."""
_KEPT, _LARGEST = 2**30, 2**25
"""Bytes of free memory to keep, and the largest block that glibc can keep."""
_DEFAULT = 2**17
"""glibc's default for both, in bytes."""


def keep_freed() -> None:
    """Keep freed memory from now on, if the environment prevents that."""
    if "MALLOC_TRIM_THRESHOLD_" in os.environ:
        _set(_KEPT, _LARGEST)


def give_back() -> None:
    """Return freed memory to the system, and restore the environment's settings."""
    if "MALLOC_TRIM_THRESHOLD_" in os.environ:
        _set(_from_environment("MALLOC_TRIM_THRESHOLD_"), _from_environment("MALLOC_MMAP_THRESHOLD_"))
        return_freed_memory()


def _set(trim: int, mmap: int) -> None:
    mallopt = c_function("mallopt")
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, trim)
        mallopt(_MMAP_THRESHOLD, mmap)


def _from_environment(name: str) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else _DEFAULT
