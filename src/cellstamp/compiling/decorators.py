"""Decorators of compiled functions: all are compiled alike, and their code is kept in one folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function when it is first called with arguments of some types, or load what was compiled before.

    It runs without Python's lock, and its indices are not checked.
    """
    return _kept(njit(nogil=True, boundscheck=False)(function))


def compiled_part(function: Callable[..., Any]) -> Any:
    """Compile a function that only compiled functions call: without the entry for Python that takes a fifth as long.

    Calling it from Python crashes the process.
    """
    without_entry: Any = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # numba's types lack them
    return _kept(njit(nogil=True, boundscheck=False, **without_entry)(function))


def _kept(dispatcher: Any) -> Any:
    """Have the code kept; with NUMBA_DISABLE_JIT there is none."""
    if not hasattr(dispatcher, "enable_caching"):
        return dispatcher
    try:
        from cellstamp.compiling.cache import KeptCode

        dispatcher._cache = KeptCode(dispatcher.py_func)
    except (ImportError, AttributeError, TypeError):
        with suppress(RuntimeError):  # a numba that works otherwise: where it finds no folder, nothing is kept
            dispatcher.enable_caching()
    except RuntimeError:
        pass  # no folder
    return dispatcher
