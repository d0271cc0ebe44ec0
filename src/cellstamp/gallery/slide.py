"""Where cells lie on the slide: a picture of all centres, and the pixels around a cell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import CellstampError

_LEAST_SIDE, _LONGEST_SIDE, _PER_CELL = 64, 320, 6
"""Pixels of the longer side of the picture of all centres: for few cells and many, and times the root of their number,
so that single cells can be seen."""
_SURROUNDINGS = 320
"""Largest number of pixels along a side of the surroundings."""


@dataclass(frozen=True)
class Overview:
    """A picture of all centres.

    Attributes
    ----------
    pixels
        uint8 (y, x): the more cells, the brighter.
    origin, scale
        Position of its corner (x, y), and side of its pixels, both in pixels of the image.
    """

    pixels: NDArray[np.uint8]
    origin: tuple[float, float]
    scale: float


def overview_of(centers: NDArray[np.float64] | None) -> Overview | None:
    """Count the centres in squares of the slide. None: no centres."""
    if centers is None or not len(centers) or not np.isfinite(centers).all():
        return None
    low, high = centers.min(axis=0), centers.max(axis=0)
    side = int(np.clip(_PER_CELL * np.sqrt(len(centers)), _LEAST_SIDE, _LONGEST_SIDE))
    scale = max(float((high - low).max()) / (side - 1), 1e-9)
    places = ((centers - low) / scale).astype(np.int64)
    width, height = (places.max(axis=0) + 1).tolist()
    counts = np.bincount(places[:, 1] * width + places[:, 0], minlength=width * height).reshape(height, width)
    bright = 255 * np.sqrt(counts / max(1, counts.max()))
    return Overview(np.where(counts, np.maximum(bright, 60), 0).astype(np.uint8), (float(low[0]), float(low[1])), scale)


@dataclass(frozen=True)
class Surroundings:
    """Pixels of the slide around a cell.

    Attributes
    ----------
    planes
        float32 (n_channels, y, x), from black (0) to white (1).
    names
        Channels.
    extent
        Left, right, top and bottom in pixels of the image.
    """

    planes: NDArray[np.float32]
    names: tuple[str, ...]
    extent: tuple[float, float, float, float]


def surroundings_of(store: Path | None, x: float, y: float, side: int) -> Surroundings | None:
    """Read the pixels around a position from the store of a project.

    Parameters
    ----------
    store
        The store; None: there is none.
    side
        Side of the area, in pixels of the image.

    Returns
    -------
    Surroundings or None
        None: the store has no image with this position.
    """
    if store is None or not store.is_dir():
        return None
    try:
        return _read(store, x, y, side)
    except CellstampError:  # a store that was changed, or has another image: the gallery works without it
        return None


def _read(store: Path, x: float, y: float, side: int) -> Surroundings | None:
    from cellstamp.source.find.elements import find_image
    from cellstamp.source.names import IMAGE_NAME
    from cellstamp.source.read.overview import view_image

    source = find_image(store, IMAGE_NAME)
    height, width = source.image.shape[-2:]
    if not (0 <= x <= width and 0 <= y <= height):
        return None
    rows, columns = (_around(place, side, length) for place, length in ((y, height), (x, width)))
    view = view_image(source.image, range(len(source.channel_names)), [rows, columns], side=_SURROUNDINGS)
    return Surroundings(np.stack([_stretched(each) for each in view.pixels]), source.channel_names, view.extent)


def _around(place: float, side: int, length: int) -> tuple[int, int]:
    """Return the first and the end of an interval around a place, moved so that it lies in the image."""
    first = max(0, min(int(place) - side // 2, length - side))
    return first, min(length, first + side)


def _stretched(plane: NDArray[Any]) -> NDArray[np.float32]:
    low, high = np.quantile(plane, [0.01, 0.998])
    stretched: NDArray[np.float32] = np.clip((plane - low) / max(high - low, 1e-9), 0, 1).astype(np.float32)
    return stretched
