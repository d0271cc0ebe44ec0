"""Find out the axes of arrays: from `axes`, named dimensions or the shape; take one plane of an array as a mask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cellstamp.errors import InputError
from cellstamp.source.load.pixels import Pixels, as_pixels, without_axes
from cellstamp.source.load.plane_choice import PlaneChoice, chosen
from cellstamp.source.load.stacks import Stack, letters, named_along
from cellstamp.warnings import warn

_AXES = "tczyx"
_UNKNOWN_AXES = "iq"
"""Letters of axes to which a file gives no meaning."""
_SPARE_LETTERS = "ijklm"
"""Letters for axes of length 1 that the user does not name."""
_MOST_CHANNELS = 16
"""Most channels that are recognised as a last axis."""
_SMALLEST_SIDE = 64
"""Smallest sides, in pixels, of an image whose channels are recognised as a last axis."""


def assumed_axes(array: Any) -> str | None:
    """Return "yxc" if an array without named axes has the shape of an image with the channels last, else None."""
    if _own_axes(array) is not None:
        return None
    shape = array.shape if isinstance(array, Pixels) else as_pixels(array).shape
    return "yxc" if _has_channels_last(shape) else None


def _has_channels_last(shape: Sequence[int]) -> bool:
    return len(shape) == 3 and 0 < shape[2] <= _MOST_CHANNELS and min(shape[:2]) >= _SMALLEST_SIDE


def array_stack(array: Any, axes: str | None = None, choice: PlaneChoice | None = None) -> Stack:
    """Return an array with its axes, and the names of its channels if it has them.

    Parameters
    ----------
    array
        numpy, zarr, dask, xarray, or `Pixels`.
    axes
        A letter for each axis: t, c, z, y or x. None: the array's own (xarray, zarr), else "cyx" or "yx".
    choice
        Planes that the user chose.

    Raises
    ------
    InputError
        If the axes are not those of an image; if three axes without names can't be (c, y, x), because c is larger than
        a side; or if z or t is given for three axes without names.
    """
    known = axes or _own_axes(array)
    pixels = array if isinstance(array, Pixels) else as_pixels(_data(array) if known else array)
    n_axes = len(pixels.shape)
    if known is None and n_axes not in (2, 3):
        raise InputError(
            f"image of shape {pixels.shape}: must have the axes (c, y, x), or (y, x) for one channel. For other axes, "
            "give their letters in order, and choose planes, like axes='zcyx', z=0"
        )
    if known is None and n_axes == 3:
        _check_three_axes(pixels.shape, choice or PlaneChoice())
    known = known or "cyx"[-n_axes:]
    _check_axes(known, pixels.shape)
    return Stack(pixels, known, named_along(known, pixels.shape, "c", _own_names(array, known)))


def _check_axes(axes: Any, shape: Sequence[int], where: str = "") -> None:
    """Refuse letters that are not one of t, c, z, y, x for each axis."""
    n_axes = len(shape)
    if not isinstance(axes, str) or len(axes) != n_axes or len(set(axes)) < n_axes or not set(axes) <= set(_AXES):
        raise InputError(f"{where}axes = {axes!r}: must have one of the letters t, c, z, y, x for each axis of {shape}")


def _check_three_axes(shape: tuple[int, ...], choice: PlaneChoice) -> None:
    """Refuse three axes without names that may be others than (c, y, x)."""
    if choice.given:
        axis = "t" if choice.z is None else "z"
        raise InputError(
            f"image of shape {shape}: {axis} is given, but an array of three axes is (c, y, x) unless you name them. "
            f"For a stack, give axes='{axis}yx'"
        )
    _check_channels(shape, "", "load np.moveaxis(array, {position}, 0)")


def _check_channels(shape: tuple[int, ...], where: str, fix: str) -> None:
    """Refuse (c, y, x) with more channels than pixels on a side."""
    n_channels, *sides = shape
    if 0 not in shape and n_channels > min(sides):
        position, name, axes = (1, "second", "ycx") if sides[0] < sides[1] else (-1, "last", "yxc")
        raise InputError(
            f"{where}image of shape {shape}: as (c, y, x), it has more channels ({n_channels}) than pixels on a side "
            f"({min(sides)}). If its channels are the {name} axis, {fix.format(position=position, axes=axes)}. If the "
            "axes are right, give axes='cyx'"
        )


def file_stack(stack: Stack, axes: str | None, where: str) -> Stack:
    """Return the image of a file with the axes that the user names, or that its shape suggests if the file names none.

    Parameters
    ----------
    stack
        The image, with the axes of its file.
    axes
        A letter for each axis, or for each axis longer than 1: t, c, z, y or x. None: three axes whose first one has no
        meaning in the file follow the rule of arrays, see `assumed_axes`.
    where
        Name of the file for messages.

    Raises
    ------
    InputError
        If `axes` does not fit the image, or the order of three axes is unclear.

    Warns
    -----
    UserWarning
        If the axes are assumed to be (y, x, c).
    """
    shape = stack.pixels.shape
    long = [axis for axis, (letter, n) in enumerate(zip(stack.axes, shape, strict=True)) if n != 1 or letter in "yx"]
    sizes = tuple(shape[axis] for axis in long)
    if axes is not None:
        is_full = isinstance(axes, str) and len(axes) == len(shape)
        _check_axes(axes, shape if is_full else sizes, f"{where}: ")
        return _with_letters(stack, range(len(shape)) if is_full else long, axes)
    if len(long) != 3 or stack.axes[long[0]] not in _UNKNOWN_AXES or stack.names is not None:
        return stack
    if _has_channels_last(sizes):
        warn(
            f"{where}: the file does not name the axes of its image {sizes}. They are assumed to be y, x, c: give "
            "axes='yxc', or axes='cyx' if they are c, y, x"
        )
        return _with_letters(stack, long, "yxc")
    _check_channels(sizes, f"{where}: ", "give axes='{axes}'")
    return stack


def _with_letters(stack: Stack, places: Iterable[int], axes: str) -> Stack:
    """Return a stack with other letters for some axes; names along a new y or x are dropped."""
    letters_of = dict(zip(places, axes, strict=True))
    spare = iter(letter for letter in _SPARE_LETTERS if letter not in axes)
    named = "".join(letters_of[axis] if axis in letters_of else next(spare) for axis in range(len(stack.axes)))
    names = stack.names
    if names is not None and any(n > 1 and letter in "yx" for letter, n in zip(named, names.shape, strict=True)):
        names = None
    return replace(stack, axes=named, names=names)


def mask_plane(mask: Any, where: str, choice: PlaneChoice) -> Any:
    """Return a mask unchanged if it is one plane, else the chosen plane.

    Parameters
    ----------
    mask
        An array (y, x), or with z, t or both before these axes.
    where
        Name of the mask for messages.
    choice
        The plane.
    """
    axes = _own_axes(mask)
    if axes is None and choice.given:
        mask, axes = _with_axes(mask, choice)
    if axes is None or (axes == "yx" and not choice.given):
        return mask
    return chosen(array_stack(mask, axes), choice, where)


def _with_axes(mask: Any, choice: PlaneChoice) -> tuple[Any, str | None]:
    """Return a mask without surplus axes of length 1, and its axes by the choice; None if they stay unclear."""
    pixels = mask if isinstance(mask, Pixels) else as_pixels(mask)
    wanted = [axis for axis in "tz" if getattr(choice, axis) is not None]
    n_leading = len(pixels.shape) - 2
    if n_leading < 0:
        return mask, None
    singles = [axis for axis in range(n_leading) if pixels.shape[axis] == 1]
    # in (t, c, z, y, x), the axis that can't be chosen is c
    surplus = sorted(singles, key=lambda axis: axis in (0, n_leading - 1))[: max(0, n_leading - len(wanted))]
    kept = [axis for axis in range(len(pixels.shape)) if axis not in surplus]
    missing = len(wanted) - (len(kept) - 2)
    absent = [axis for axis in wanted if getattr(choice, axis) == 0] + [axis for axis in "tz" if axis in wanted]
    named = [axis for axis in wanted if axis not in list(dict.fromkeys(absent))[: max(0, missing)]]
    return without_axes(pixels, kept), "".join([*named, "yx"]) if len(named) == len(kept) - 2 else None


def _own_axes(array: Any) -> str | None:
    """Return the letters of named dimensions (xarray, zarr); None if there are none, or not those of an image."""
    dims = getattr(array, "dims", None) or getattr(getattr(array, "metadata", None), "dimension_names", None)
    if not isinstance(dims, Sequence) or not all(isinstance(name, str) and name for name in dims):
        return None
    found = letters(dims)
    return found if {"y", "x"} <= set(found) <= set(_AXES) else None


def _own_names(array: Any, axes: str) -> Sequence[str]:
    """Return the names of the channels of an xarray, if they are text."""
    dims, coordinates = getattr(array, "dims", ()), getattr(array, "coords", {})
    if "c" not in axes or len(dims) != len(axes) or dims[axes.index("c")] not in coordinates:
        return ()
    values = np.asarray(coordinates[dims[axes.index("c")]]).tolist()
    return values if all(isinstance(value, str) for value in values) else ()


def _data(array: Any) -> Any:
    """Return the array inside an xarray."""
    return array.data if hasattr(array, "dims") and hasattr(array, "data") else array
