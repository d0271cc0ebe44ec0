"""Import the functions of users that measure cells, and check their results."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import ConfigError, InputError

Function = Callable[[NDArray[np.bool_], NDArray[Any]], Mapping[str, float]]

_SIGNATURE = "f(masks, image) -> dict[str, float]"


def find_function(path: str) -> Function:
    """Import a function by its dotted path.

    Raises
    ------
    ConfigError
        If there is no such function.
    """
    module, _, name = path.rpartition(".")
    if module == "__main__":
        raise ConfigError(
            f"features: {path!r} is in the main script, which workers do not import. Move the function to a module, "
            "and give its path, such as my_module.my_function"
        )
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"features: cannot import {path!r}: {type(error).__name__}: {error}. Give the dotted path of a function "
            f"{_SIGNATURE} in a module that workers can import"
        ) from error
    if not callable(function):
        raise ConfigError(f"features: {path!r} is {type(function).__name__}, and must be a function {_SIGNATURE}")
    found: Function = function
    return found


def source_digest(path: str) -> str:
    """Return a digest of a function's source code, or of its name if the code is unknown."""
    try:
        source = inspect.getsource(find_function(path))
    except (OSError, TypeError):  # compiled functions, and objects that are callable
        source = path
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def measure_with(
    path: str, function: Function, masks: NDArray[np.bool_], image: NDArray[Any], cell: int
) -> Mapping[str, float]:
    """Call a function with the pixels of a cell, and check its result.

    Parameters
    ----------
    masks
        bool (n_masks, y, x).
    image
        (n_channels, y, x).
    cell
        Id of the cell, for messages.

    Raises
    ------
    InputError
        If the function fails, or does not return a dict of names and numbers.
    """
    try:
        result = function(masks, image)
    except Exception as error:
        raise InputError(f"features: {path} failed at cell {cell}: {type(error).__name__}: {error}") from error
    if not isinstance(result, Mapping):
        raise InputError(f"features: {path} returned {type(result).__name__} for cell {cell}: it must return a dict")
    for name, value in result.items():
        if not isinstance(name, str) or not name:
            raise InputError(f"features: {path} returned the name {name!r} for cell {cell}: names must be text")
        if not _is_number(value):
            raise InputError(
                f"features: {path} returned {name!r} = {value!r} for cell {cell}: values must be single numbers"
            )
    return result


def _is_number(value: object) -> bool:
    """Return whether a value is a single number of Python or numpy, or a boolean."""
    if isinstance(value, np.ndarray):
        return value.ndim == 0 and value.dtype.kind in "biuf"
    return isinstance(value, Real | np.bool_)


def in_order(path: str, result: Mapping[str, float], names: Sequence[str], cell: int) -> list[float]:
    """Return the values of a result in the order of the names of the first cell.

    Raises
    ------
    InputError
        If the names differ.
    """
    if result.keys() != set(names):
        missing, further = sorted(set(names) - result.keys()), sorted(result.keys() - set(names))
        raise InputError(
            f"features: {path} returned other names for cell {cell} than for the first cell (missing: "
            f"{', '.join(missing) or 'none'}; further: {', '.join(further) or 'none'}). It must return the same for all"
        )
    return [float(result[name]) for name in names]
