"""Open PNG, BMP, JPEG and ``.npy`` files as channels. The content decides which reader is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import InputError
from cellstamp.source.load.file_kinds import kind_of_file
from cellstamp.source.load.pixels import Pixels, as_pixels
from cellstamp.source.load.plane_choice import PlaneChoice
from cellstamp.warnings import warn

_STACKS = {3: "zyx", 4: "zcyx", 5: "tzcyx"}
"""Axes that a stack most likely has, by their number."""
_COLOURS = ("red", "green", "blue", "alpha")


def is_picture(path: Path) -> bool:
    """Return whether `open_picture` reads this kind of file."""
    return kind_of_file(path) in _READERS


def open_picture(path: Path, planes: PlaneChoice, series: int | None = None) -> Pixels:
    """Open a PNG, BMP, JPEG or ``.npy`` file as channels of an image.

    Parameters
    ----------
    path
        The file. ``.npy`` is mapped into memory, others are decoded.
    planes, series
        The user's choice. Such a file holds one image, so only the defaults and 0 are valid.

    Returns
    -------
    Pixels
        (y, x), or (c, y, x) if it has channels or colours.

    Raises
    ------
    InputError
        If the file is damaged or not an image, or if planes of it were chosen.

    Warns
    -----
    UserWarning
        If the file is JPEG, which changes intensities.
    """
    kind = kind_of_file(path)
    if kind == "JPEG":
        warn(f"{path}: is a JPEG file, whose compression changes intensities; use the original image where you can")
    try:
        pixels = _READERS[kind](path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (OSError, ValueError, RuntimeError, EOFError) as error:
        raise InputError(f"{path}: cannot be read as a {kind} file: {error}; write or copy the file again") from error
    is_stack = kind == "NumPy" and len(pixels.shape) in _STACKS
    if len(pixels.shape) not in (2, 3) or (is_stack and planes.given):
        ways = _ways(path, pixels) if is_stack else ""
        raise InputError(f"{path}: image of shape {pixels.shape}: must have the axes (c, y, x), or (y, x){ways}")
    if any(value not in (None, 0) for value in (planes.z, planes.t, series)):
        raise InputError(f"{path}: it is one image {pixels.shape}. Leave out z, t and series")
    return pixels


def _ways(path: Path, pixels: Pixels) -> str:
    """Return advice on loading planes of a stack from a ``.npy`` file."""
    axes = _STACKS[len(pixels.shape)]
    chosen = ", ".join(f"{axis}=0" for axis in "zt" if axis in axes)
    code = f"load_input_from_array(numpy.load({str(path)!r}), axes={axes!r}, {chosen})"
    return f". Load planes of a stack as an array: {code}"


def _mapped(path: Path) -> Pixels:
    return as_pixels(np.load(path, mmap_mode="r"))


def _decoder(name: str) -> Callable[[Path], Pixels]:
    def read(path: Path) -> Pixels:
        import imagecodecs

        # Pillow reduces 16-bit colours to 8 bits; imagecodecs also converts palettes to colours
        decoded: NDArray[Any] = getattr(imagecodecs, name)(path.read_bytes())
        if decoded.ndim == 2:
            return as_pixels(decoded)
        names = _COLOURS[: decoded.shape[-1]] if decoded.shape[-1] in (3, 4) else ("grey", "alpha")
        return replace(as_pixels(np.moveaxis(decoded, -1, 0)), names=names)

    return read


_READERS = {
    "PNG": _decoder("png_decode"),
    "BMP": _decoder("bmp_decode"),
    "JPEG": _decoder("jpeg_decode"),
    "NumPy": _mapped,
}
