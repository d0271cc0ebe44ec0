"""Compile the kernels before an extraction is timed: once for each machine, version and type of pixels."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

from cellstamp.cells.warm import load_kernels
from cellstamp.compiling.cache_folders import Types, find_folder, is_in_temporary_directory, is_kept
from cellstamp.engines.base import Engine
from cellstamp.report import format_seconds

_REMEDY = "set NUMBA_CACHE_DIR to a folder that stays and that you can write to"


def compile_kernels(types: Types, engine: Engine, tell: Callable[[str], None]) -> None:
    """Compile the kernels for these types in one worker of the engine, unless they are cached.

    Parameters
    ----------
    tell
        Called with a line before and a line after compiling.
    """
    if is_kept(types):
        return
    tell(f"Compiling for {types}: 10 to 60 s; not counted in cells/s")
    started = time.perf_counter()
    with closing(engine.run(load_kernels, [types], lambda: 1)) as outcomes:
        for _ in outcomes:
            pass
    tell(f"Compiled in {format_seconds(time.perf_counter() - started)}, {_where(types)}")


def _where(types: Types) -> str:
    folder = find_folder()
    if folder is None:
        return f"for this process only: no folder for the cache is writable ({_REMEDY})"
    if not is_kept(types):
        return (
            f"but it could not be kept in {folder}: most likely no space is left there. New workers compile again, "
            f"which is counted in cells/s ({_REMEDY})"
        )
    if is_in_temporary_directory(folder):
        return f"kept in {folder}, since neither cellstamp's folder nor the home directory is writable ({_REMEDY})"
    return "kept for later runs"
