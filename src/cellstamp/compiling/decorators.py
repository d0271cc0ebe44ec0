"""Decorators that compile functions in the same way, and keep their code in one folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function at its first call with arguments of some types, or load compiled code.

    It releases the GIL, and doesn't check indices.
    """
    return _kept(njit(nogil=True, boundscheck=False)(function))


def compiled_part(function: Callable[..., Any]) -> Any:
    """Compile a function that only compiled functions call, without an entry for Python, which saves compile time.

    Calling it from Python crashes the process.
    """
    without_entry: Any = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # numba's types lack them
    return _kept(njit(nogil=True, boundscheck=False, **without_entry)(function))


def _kept(dispatcher: Any) -> Any:
    """Keep the compiled code; with NUMBA_DISABLE_JIT there is none."""
    if not hasattr(dispatcher, "enable_caching"):
        return dispatcher
    try:
        from cellstamp.compiling.cache import KeptCode

        dispatcher._cache = KeptCode(dispatcher.py_func)
    except (ImportError, AttributeError, TypeError):
        with suppress(RuntimeError):  # another numba: if it finds no folder, nothing is kept
            dispatcher.enable_caching()
    except RuntimeError:
        pass  # no folder
    return dispatcher
