"""Decorators that compile functions in the same way, and keep their code in one folder; and pointers for intrinsics."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from numba import njit

_WITHOUT_ENTRY: Any = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Options of numba that its types lack."""


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function at its first call with arguments of some types, or load compiled code.

    It releases the GIL, and doesn't check indices.
    """
    return _kept(njit(nogil=True, boundscheck=False)(function))


def compiled_part(function: Callable[..., Any]) -> Any:
    """Compile a function that only compiled functions call, without an entry for Python, which saves compile time.

    Calling it from Python crashes the process.
    """
    return _kept(njit(nogil=True, boundscheck=False, **_WITHOUT_ENTRY)(function))


def compiled_inline(function: Callable[..., Any]) -> Any:
    """Compile a function into each place that calls it, for functions called once per row of pixels or per record.

    An array is seven arguments of a call in machine code, and numba counts its owners: these calls took a
    third of the time of the lzf encoder. Calling it from Python crashes the process.
    """
    return _kept(njit(nogil=True, boundscheck=False, forceinline=True, **_WITHOUT_ENTRY)(function))


def pointer_to(context: Any, builder: Any, signature: Any, args: Any, array: int, at: int) -> Any:
    """Return a pointer to item ``args[at]`` of the one-dimensional array ``args[array]``, without checking bounds.

    The other arguments are those of numba's code generator: intrinsics write LLVM code themselves.
    """
    data = context.make_array(signature.args[array])(context, builder, args[array]).data
    return builder.gep(data, [args[at]])


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
