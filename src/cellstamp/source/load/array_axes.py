"""Arrays whose axes are known (named dimensions, or said by the user) -> stacks, and one plane of them as a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cellstamp.errors import InputError
from cellstamp.source.load.pixels import Pixels, as_pixels
from cellstamp.source.load.plane_choice import PlaneChoice, chosen
from cellstamp.source.load.stacks import Stack, letters, named_along

_AXES = "tczyx"


def array_stack(array: Any, axes: str | None = None) -> Stack:
    """Return an array with its axes, and the names of its channels where it has them.

    Parameters
    ----------
    array
        numpy, zarr, dask, xarray, or `Pixels`.
    axes
        Letters of its axes, out of t, c, z, y and x; None: its own (xarray, zarr), else "cyx" or "yx".

    Raises
    ------
    InputError
        When the axes are not those of an image.
    """
    known = axes or _own_axes(array)
    pixels = array if isinstance(array, Pixels) else as_pixels(_data(array) if known else array)
    n_axes = len(pixels.shape)
    if known is None and n_axes not in (2, 3):
        raise InputError(
            f"image of shape {pixels.shape}: must have the axes (c, y, x), or (y, x) for one channel. Name its axes "
            "in their order, and choose planes: axes='zcyx', z=0"
        )
    known = known or "cyx"[-n_axes:]
    if not isinstance(known, str) or len(known) != n_axes or len(set(known)) < n_axes or not set(known) <= set(_AXES):
        raise InputError(f"axes = {axes!r}: must hold one of the letters t, c, z, y, x for each axis of {pixels.shape}")
    return Stack(pixels, known, named_along(known, pixels.shape, "c", _own_names(array, known)))


def mask_plane(mask: Any, where: str, choice: PlaneChoice) -> Any:
    """Return a mask as it is, when it is one plane; else the plane that was chosen.

    Parameters
    ----------
    mask
        An array, (y, x), or with z, t or both before them.
    where
        What to call it in a message.
    choice
        The plane.
    """
    axes = _own_axes(mask)
    if axes is None and choice != PlaneChoice() and len(getattr(mask, "shape", ())) > 2:
        axes = "".join(axis for axis in "tz" if getattr(choice, axis) is not None) + "yx"
    if axes in (None, "yx"):
        return mask
    return chosen(array_stack(mask, axes), choice, where)


def _own_axes(array: Any) -> str | None:
    """Letters of named dimensions (xarray, zarr); None when an array has none, or others than those of images."""
    dims = getattr(array, "dims", None) or getattr(getattr(array, "metadata", None), "dimension_names", None)
    if not isinstance(dims, Sequence) or not all(isinstance(name, str) and name for name in dims):
        return None
    found = letters(dims)
    return found if {"y", "x"} <= set(found) <= set(_AXES) else None


def _own_names(array: Any, axes: str) -> Sequence[str]:
    """Names of the channels of an xarray, where they are texts."""
    dims, coordinates = getattr(array, "dims", ()), getattr(array, "coords", {})
    if "c" not in axes or len(dims) != len(axes) or dims[axes.index("c")] not in coordinates:
        return ()
    values = np.asarray(coordinates[dims[axes.index("c")]]).tolist()
    return values if all(isinstance(value, str) for value in values) else ()


def _data(array: Any) -> Any:
    """The array inside of one with named dimensions."""
    return array.data if hasattr(array, "dims") and hasattr(array, "data") else array
