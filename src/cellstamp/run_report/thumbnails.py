"""Make small PNG pictures of single-cell images."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cellstamp.pictures.mosaic import blended, shrunk

_SIDE = 128
"""Side of a picture in pixels, about."""
OUTLINE = (63, 193, 255)


def thumbnail(
    planes: NDArray[np.float32], mask: NDArray[np.float32] | None, colours: NDArray[np.float32] | None
) -> bytes:
    """Return the content of a PNG file.

    Parameters
    ----------
    planes
        float32 (c, y, x), 0 to 1.
    mask
        (y, x): the outline of values above 0.5 is drawn. None: no outline.
    colours
        (c, 3), 0 to 1. None: gray, for one channel.
    """
    shown = np.ones((1, 3), np.float32) if colours is None else colours
    picture = _enlarged(blended(_reduced(planes), shown))
    if mask is not None:
        picture[_outline(_enlarged(_reduced(mask) > 0.5))] = OUTLINE
    file = BytesIO()
    Image.fromarray(picture).save(file, "PNG", optimize=True)
    return file.getvalue()


def _reduced(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    return shrunk(planes, max(1, planes.shape[-1] // _SIDE))


def _enlarged(picture: NDArray[np.generic]) -> NDArray[np.generic]:
    times = max(1, _SIDE // picture.shape[0])
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def _outline(mask: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Return the pixels of a boolean mask beside others."""
    inside = np.pad(mask, 1).astype(np.bool_)
    kept = inside[1:-1, 1:-1] & inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    return np.asarray(mask, np.bool_) & ~kept
