"""Compile the kernels before an extraction, or on demand: once for each machine, version and type of pixels."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import product
from typing import Any, get_args

from cellstamp.cells.load_kernels import load_kernels
from cellstamp.cells.task import MeasuringTypes
from cellstamp.compiling.cache_folders import Types, find_folder, is_in_temporary_directory, is_kept
from cellstamp.config_rules import StampType
from cellstamp.engines.base import Engine
from cellstamp.errors import InputError, OutputError
from cellstamp.report import format_seconds
from cellstamp.source.find.elements import PIXEL_TYPES
from cellstamp.source.read.arrays import ids_type
from cellstamp.source.read.interpolation import Loops

_REMEDY = "set NUMBA_CACHE_DIR to a folder that stays and that you can write to"


def compile_kernels(
    types: Types,
    loops: Sequence[Loops],
    engine: Engine,
    tell: Callable[[str], None],
    measuring: Sequence[MeasuringTypes] = (),
) -> None:
    """Compile kernels, and loops that sample pixels, in workers of the engine, unless they are cached.

    Parameters
    ----------
    types, loops, measuring
        Kernels, compiled by one worker, loops, each by one, and kernels of features.
    tell
        Called with a line before and a line after compiling.
    """
    kernels, others = ([each for each in some if not is_kept(each)] for some in ([types], loops))
    features = [each for each in measuring if not is_kept(each)]
    missing: list[Types | Loops | MeasuringTypes] = [*kernels, *others, *features]
    if not missing:
        return
    seconds = "10 to 60 s" if kernels or features else "1 to 10 s"
    tell(f"Compiling for {', and for '.join(map(str, missing))}: {seconds}; not counted in cells/s")
    started = time.perf_counter()
    _run(engine, load_kernels, kernels)
    _run(engine, _load_loops, others)
    _run(engine, _load_measuring, features)
    tell(f"Compiled in {format_seconds(time.perf_counter() - started)}, {_where(missing)}")


def _run(engine: Engine, load: Callable[[Any], None], missing: Sequence[Any]) -> None:
    if missing:
        with closing(engine.run(load, missing, lambda: len(missing))) as outcomes:
            for _ in outcomes:
                pass


def _load_loops(loops: Loops) -> None:
    # imported here: it loads compiled code
    from cellstamp.source.read.loops import load_loops

    load_loops(loops)


def _load_measuring(types: MeasuringTypes) -> None:
    # imported here: it loads compiled code
    from cellstamp.cells.load_measuring import load_measuring

    load_measuring(types)


def compile_for_later(
    images: Sequence[str], masks: Sequence[str], dtypes: Sequence[str], tell: Callable[[str], None]
) -> None:
    """Compile the kernels for all combinations of data types in this process, unless they are cached, and keep them.

    Parameters
    ----------
    images, masks, dtypes
        Data types of images, of masks and of single-cell images.
    tell
        Called with a line for types that are cached; for others, with one before and one after compiling.

    Raises
    ------
    InputError
        A data type is invalid.
    OutputError
        Compiled code could not be kept.
    """
    _check("image", images, PIXEL_TYPES)
    _check("masks", masks, [name for name in PIXEL_TYPES if "int" in name])
    _check("dtype", dtypes, get_args(StampType))
    ids = [ids_type([mask]).name for mask in masks]
    for types in dict.fromkeys(Types(*each) for each in product(ids, images, dtypes)):
        measuring = MeasuringTypes(*types)
        if is_kept(types) and is_kept(measuring):
            tell(f"Already compiled for {types}, with features")
        else:
            tell(f"Compiling for {types}, with features: 10 to 60 s")
            tell(f"Compiled in {_compile_and_keep(types, measuring)}, kept in {find_folder()}")


def _check(what: str, names: Sequence[str], allowed: Sequence[str]) -> None:
    for name in names:
        if name not in allowed:
            raise InputError(f"{what}: {name!r} is not one of {', '.join(allowed)}")


def _compile_and_keep(types: Types, measuring: MeasuringTypes) -> str:
    started = time.perf_counter()
    load_kernels(types)
    _load_measuring(measuring)
    if not (is_kept(types) and is_kept(measuring)):
        raise OutputError(f"Compiled {_where([types, measuring])}")
    return format_seconds(time.perf_counter() - started)


def _where(compiled: Sequence[Types | Loops | MeasuringTypes]) -> str:
    folder = find_folder()
    if folder is None:
        return f"for this process only: no folder for the cache is writable ({_REMEDY})"
    if not all(map(is_kept, compiled)):
        return (
            f"but it could not be kept in {folder}: most likely no space is left there. New workers compile again, "
            f"which is counted in cells/s ({_REMEDY})"
        )
    if is_in_temporary_directory(folder):
        return f"kept in {folder}, since neither cellstamp's folder nor the home directory is writable ({_REMEDY})"
    return "kept for later runs"
