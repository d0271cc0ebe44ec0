"""Images in PNG, BMP, JPEG and ``.npy`` files -> the pixels of channels. The content decides which reader is used."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import InputError
from cellstamp.source.load.file_kinds import kind_of_file
from cellstamp.source.load.pixels import Pixels, as_pixels
from cellstamp.warnings import warn

Paths = Sequence[str | os.PathLike[str]]

_COLOURS = ("red", "green", "blue", "alpha")


def are_pictures(paths: Paths) -> bool:
    """Whether all files are of the kinds that `open_pictures` reads."""
    return all(Path(path).is_file() and kind_of_file(Path(path)) in _READERS for path in paths)


def open_pictures(paths: Paths) -> list[Pixels]:
    """Open PNG, BMP, JPEG and ``.npy`` files as channels of an image.

    Returns
    -------
    list of Pixels
        Of each file (y, x), or (c, y, x) where it holds channels or colours; all of one size and dtype. ``.npy`` files
        are mapped into memory, others are decoded.

    Raises
    ------
    InputError
        When a file is damaged or holds no image, or when files differ in size or dtype.

    Warns
    -----
    UserWarning
        When a file is JPEG, which changes intensities.
    """
    opened = [_open(Path(path)) for path in paths]
    first = opened[0]
    for path, pixels in zip(paths, opened, strict=True):
        if (pixels.shape[-2:], pixels.dtype) != (first.shape[-2:], first.dtype):
            raise InputError(
                f"{os.fspath(path)}: {pixels.shape[-2:]} pixels (y, x) of {pixels.dtype}, but {os.fspath(paths[0])} "
                f"has {first.shape[-2:]} of {first.dtype}: all channels must have the same size and dtype"
            )
    return opened


def _open(path: Path) -> Pixels:
    kind = kind_of_file(path)
    if kind == "JPEG":
        warn(f"{path}: is a JPEG file, whose compression changes intensities; use the original image where you can")
    try:
        pixels = _READERS[kind](path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (OSError, ValueError, RuntimeError, EOFError) as error:
        raise InputError(f"{path}: cannot be read as a {kind} file: {error}; write or copy the file again") from error
    if len(pixels.shape) not in (2, 3):
        raise InputError(f"{path}: image of shape {pixels.shape}: must have the axes (c, y, x), or (y, x)")
    return pixels


def _mapped(path: Path) -> Pixels:
    return as_pixels(np.load(path, mmap_mode="r"))


def _decoder(name: str) -> Callable[[Path], Pixels]:
    def read(path: Path) -> Pixels:
        import imagecodecs

        # every bit of 16-bit colours, which Pillow drops; palettes as colours, which a picture's are
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
