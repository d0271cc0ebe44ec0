"""Convert the values of a mask to cell ids, and check them while they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import InputError
from cellstamp.source.load.pixels import Pixels, Region, without_axes
from cellstamp.warnings import warn

_WANTED = "must hold integers, 0 for background and a cell's id in it"


def as_ids(mask: Pixels, name: str, code: str = "mask") -> Pixels:
    """Return a mask as cell ids; values are checked when they are read.

    Parameters
    ----------
    mask
        Pixels, integers or floats. Axes of length 1 are dropped.
    name
        Its name in messages.
    code
        Python that gives the mask as an array, for messages.

    Returns
    -------
    Pixels
        (y, x) of an integer dtype; floats become uint32. Reading raises an `InputError` if a value is negative, not an
        integer, or too large to be exact.

    Raises
    ------
    InputError
        If it has more or fewer than two axes.

    Warns
    -----
    UserWarning
        When it is read, if it holds floats.
    """
    flat = _plane(mask, name, code)
    if flat.dtype.kind == "u":
        return flat
    if flat.dtype.kind == "i":
        return replace(flat, read=_checked(flat, lambda block, region: _check_sign(block, name, code)))
    return replace(flat, dtype=np.dtype(np.uint32), read=_reader_of_floats(flat, name, code))


def _reader_of_floats(mask: Pixels, name: str, code: str) -> Callable[[Region], NDArray[Any]]:
    """Return a reader of a mask of floats as uint32, which warns once, after a block has been checked."""
    checked = _checked(mask, lambda block, region: _check_floats(block, region, name, code))
    tell = cache(lambda: warn(f"{name} holds integers as {mask.dtype}: they are loaded as uint32"))

    def read(region: Region) -> NDArray[Any]:
        block = checked(region).astype(np.uint32)
        tell()
        return block

    return read


def _plane(mask: Pixels, name: str, code: str) -> Pixels:
    """Return the mask without axes of length 1."""
    kept = [axis for axis, size in enumerate(mask.shape) if size != 1]
    if len(mask.shape) > 2 and len(kept) == 2:
        return without_axes(mask, kept)
    if len(mask.shape) != 2:
        raise InputError(f"{name} of shape {mask.shape}: must be 2-D (y, x){_one_plane(mask.shape, code)}")
    return mask


def _one_plane(shape: tuple[int, ...], code: str) -> str:
    """Return advice on choosing a plane: the two longest axes are y and x."""
    if len(shape) < 3:
        return ""
    plane = [":" if axis in np.argsort(shape, kind="stable")[-2:] else "0" for axis in range(len(shape))]
    return f". It holds several planes; load one of them: {code}[{', '.join(plane)}]"


Check = Callable[[NDArray[Any], Region], None]


def _checked(mask: Pixels, check: Check) -> Callable[[Region], NDArray[Any]]:
    def read(region: Region) -> NDArray[Any]:
        block = mask.read(region)
        check(block, region)
        return block

    return read


def _check_sign(block: NDArray[Any], name: str, code: str) -> None:
    if block.size and block.min() < 0:
        raise InputError(
            f"{name}: the negative value {block.min():g}; cell ids are positive, 0 is background. If negative values "
            f"are background, load numpy.where({code} < 0, 0, {code}){_or_else(block, code)}"
        )


def _or_else(block: NDArray[Any], code: str) -> str:
    """Return a second fix: ids may start at 0 (-1 is background), or overflowed a signed type."""
    if block.min() == -1:
        return f". If 0 is a cell, load {code} + 1"
    if block.dtype.kind == "f":
        return ""
    return f". If ids above {np.iinfo(block.dtype).max} ran over, load {code}.astype('u{block.dtype}')"


def _check_floats(block: NDArray[Any], region: Region, name: str, code: str) -> None:
    wrong = (block != np.rint(block)) | np.isinf(block)  # NaN differs from itself
    if wrong.any():
        y, x = (int(at[0]) for at in np.nonzero(wrong))
        where = f"row {region[0].start + y}, column {region[1].start + x}"
        raise InputError(
            f"{name} of dtype {block.dtype}: {block[y, x]:g} in {where}; {_WANTED}. {_fix(block[y, x], code)}"
        )
    _check_sign(block, name, code)
    largest = min(2 ** (np.finfo(block.dtype).nmant + 1), 2**32 - 1)
    if block.size and block.max() > largest:
        raise InputError(
            f"{name} of dtype {block.dtype}: id {block.max():.0f}; {block.dtype} may have merged ids above {largest}. "
            f"Save the mask as uint32. If the ids are right, load {code}.astype('uint64')"
        )


def _fix(value: Any, code: str) -> str:
    if np.isnan(value):
        return f"If NaN is background, load numpy.nan_to_num({code})"
    if np.isinf(value):
        return f"If infinity is background, load numpy.nan_to_num({code}, posinf=0, neginf=0)"
    return f"If it holds probabilities, number the regions above a threshold: skimage.measure.label({code} > 0.5)"
