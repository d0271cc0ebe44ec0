"""Find out the axes of arrays: from `axes`, named dimensions or the shape; take one plane of an array as a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cellstamp.errors import InputError
from cellstamp.source.load.pixels import Pixels, as_pixels, without_axes
from cellstamp.source.load.plane_choice import PlaneChoice, chosen
from cellstamp.source.load.stacks import Stack, letters, named_along

_AXES = "tczyx"
_MOST_CHANNELS = 16
"""Most channels that are recognised as a last axis."""
_SMALLEST_SIDE = 64
"""Smallest sides, in pixels, of an image whose channels are recognised as a last axis."""


def assumed_axes(array: Any) -> str | None:
    """Return "yxc" if an array without named axes has the shape of an image with the channels last, else None."""
    if _own_axes(array) is not None:
        return None
    shape = array.shape if isinstance(array, Pixels) else as_pixels(array).shape
    is_last = len(shape) == 3 and 0 < shape[2] <= _MOST_CHANNELS and min(shape[:2]) >= _SMALLEST_SIDE
    return "yxc" if is_last else None


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
    if not isinstance(known, str) or len(known) != n_axes or len(set(known)) < n_axes or not set(known) <= set(_AXES):
        raise InputError(f"axes = {axes!r}: must have one of the letters t, c, z, y, x for each axis of {pixels.shape}")
    return Stack(pixels, known, named_along(known, pixels.shape, "c", _own_names(array, known)))


def _check_three_axes(shape: tuple[int, ...], choice: PlaneChoice) -> None:
    """Refuse three axes without names that may be others than (c, y, x)."""
    if choice.given:
        axis = "t" if choice.z is None else "z"
        raise InputError(
            f"image of shape {shape}: {axis} is given, but an array of three axes is (c, y, x) unless you name them. "
            f"For a stack, give axes='{axis}yx'"
        )
    n_channels, *sides = shape
    if 0 not in shape and n_channels > min(sides):
        position, name = (1, "second") if sides[0] < sides[1] else (-1, "last")
        raise InputError(
            f"image of shape {shape}: as (c, y, x), it has more channels ({n_channels}) than pixels on a side "
            f"({min(sides)}). If its channels are the {name} axis, load np.moveaxis(array, {position}, 0). If the axes "
            "are right, give axes='cyx'"
        )


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
