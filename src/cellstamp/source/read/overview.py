"""A view of an image or of labels that is no larger than what can be shown of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import ConfigError
from cellstamp.source.location import reachable
from cellstamp.source.ome import metadata_of
from cellstamp.source.read.arrays import ArrayHandle
from cellstamp.source.store_root import open_root
from cellstamp.source.values import Rect

LONGEST_SIDE = 1500
"""Pixels of a view along its longer side, at most."""

_BLOCK = 1024
"""Pixels along a side that are read at once, or a chunk, if that is larger."""


@dataclass(frozen=True)
class View:
    """Pixels for a picture.

    Attributes
    ----------
    pixels
        (c, y, x) float32, means of the pixels shown as one; or (y, x), ids.
    area
        What of the full-resolution image is asked for.
    extent
        Left, right, top and bottom of what the pixels show, in pixels of the full-resolution image: a little more than
        the area, where that is no whole number of them.
    """

    pixels: NDArray[Any]
    area: Rect
    extent: tuple[float, float, float, float]


def area_of(region: Any, shape: tuple[int, int]) -> Rect:
    """The part of an image that is asked for: ``[(first row, end), (first column, end)]``; None: all of it.

    Raises
    ------
    ConfigError
        When it is no such thing, or not inside the image.
    """
    if region is None:
        return Rect(0, shape[0], 0, shape[1])
    try:
        (top, bottom), (left, right) = ((index(first), index(end)) for first, end in region)
    except (TypeError, ValueError):
        top = bottom = left = right = -1
    if not (0 <= top < bottom <= shape[0] and 0 <= left < right <= shape[1]):
        raise ConfigError(
            f"region = {region!r}: must be [(first row, end), (first column, end)], whole numbers, inside the image of "
            f"{shape[0]} x {shape[1]} pixels (y, x), like [(0, {min(500, shape[0])}), (0, {min(500, shape[1])})]"
        )
    return Rect(top, bottom, left, right)


def view_image(image: ArrayHandle, channels: Sequence[int], region: Any = None, *, side: int = LONGEST_SIDE) -> View:
    """Read channels of an image for a picture of at most `side` pixels.

    A coarser resolution level is read where it shows enough; each chunk is decoded once, a block at a time.
    """
    area = area_of(region, (image.shape[1], image.shape[2]))
    with reachable(image.store):
        level = _level_for(image, "images", area, side)
        rect = _scaled(area, image, level)
        step = _step(rect, side)
        planes = _means(level.pick(channels), rect, step)
    return View(planes, area, _extent(planes.shape[-2:], rect, step, image, level))


def view_labels(labels: ArrayHandle, region: Any = None, *, side: int = LONGEST_SIDE) -> View:
    """Read labels for a picture of at most `side` pixels: every so many pixels one, as ids have no mean."""
    area = area_of(region, (labels.shape[0], labels.shape[1]))
    with reachable(labels.store):
        level = _level_for(labels, "labels", area, side)
        rect = _scaled(area, labels, level)
        step = _step(rect, side)
        ids = _sample(level, rect, step)
    return View(ids, area, _extent(ids.shape, rect, step, labels, level))


def _level_for(full: ArrayHandle, kind: str, area: Rect, side: int) -> ArrayHandle:
    """The coarsest resolution level that still has as many pixels of the area as the picture."""
    needed = min(side, max(area.shape))
    fitting = [level for level in _levels(full, kind) if max(_scaled(area, full, level).shape) >= needed]
    return min(fitting, key=lambda level: level.shape[-1] * level.shape[-2], default=full)


def _levels(full: ArrayHandle, kind: str) -> list[ArrayHandle]:
    """All resolution levels of an element, the full one first."""
    root = open_root(full.store)
    element = f"{kind}/{full.name}"
    datasets = metadata_of(root, element)["multiscales"][0]["datasets"]
    arrays: list[tuple[str, Any]] = [
        (f"{element}/{each['path']}", root[f"{element}/{each['path']}"]) for each in datasets
    ]
    return [full, *(_resized(full, path, array) for path, array in arrays[1:])]


def _resized(full: ArrayHandle, path: str, array: Any) -> ArrayHandle:
    y, x = full.axes.index("y"), full.axes.index("x")
    shape = (*full.shape[:-2], array.shape[y], array.shape[x])
    chunks = (*full.chunks[:-2], array.chunks[y], array.chunks[x])
    return replace(full, path=path, shape=shape, chunks=chunks)


def _scaled(area: Rect, full: ArrayHandle, level: ArrayHandle) -> Rect:
    """The same area in pixels of a resolution level: all that it touches."""
    (height, width), (rows, columns) = full.shape[-2:], level.shape[-2:]
    return Rect(
        area.top * rows // height,
        -(-area.bottom * rows // height),
        area.left * columns // width,
        -(-area.right * columns // width),
    )


def _extent(
    shape: Sequence[int], rect: Rect, step: int, full: ArrayHandle, level: ArrayHandle
) -> tuple[float, float, float, float]:
    y, x = (whole / part for whole, part in zip(full.shape[-2:], level.shape[-2:], strict=True))
    bottom, right = rect.top + shape[0] * step, rect.left + shape[1] * step
    return rect.left * x, right * x, rect.top * y, bottom * y


def _step(rect: Rect, side: int) -> int:
    return max(1, -(-max(rect.shape) // side))


def _means(level: ArrayHandle, rect: Rect, step: int) -> NDArray[np.float32]:
    """Means of squares of `step` pixels, of each channel; at the far edges of what is left of them."""
    rows, columns = (-(-n // step) for n in rect.shape)
    sums, counts = np.zeros((level.shape[0], rows, columns)), np.zeros((rows, columns))
    for block in _blocks(level, rect):
        (ys, y), (xs, x) = (_runs(*span, step) for span in _spans(block, rect))
        place = np.s_[y : y + ys.size, x : x + xs.size]
        counts[place] += np.outer(_lengths(ys, block.shape[0]), _lengths(xs, block.shape[1]))
        for channels in level.channels():  # those of one chunk
            pixels = np.add.reduceat(level.read(block, channels), ys, axis=1, dtype=np.float64)
            sums[(*channels, *place)] += np.add.reduceat(pixels, xs, axis=2)
    return np.asarray(sums / counts, np.float32)


def _sample(level: ArrayHandle, rect: Rect, step: int) -> NDArray[Any]:
    """Every so many pixels one, beginning with the first."""
    rows, columns = (-(-n // step) for n in rect.shape)
    ids = np.zeros((rows, columns), level.dtype)
    for block in _blocks(level, rect):
        (top, _), (left, _) = _spans(block, rect)
        part = level.read(block)[-top % step :: step, -left % step :: step]
        y, x = -(-top // step), -(-left // step)
        ids[y : y + part.shape[0], x : x + part.shape[1]] = part
    return ids


def _blocks(level: ArrayHandle, rect: Rect) -> list[Rect]:
    """Divide an area where chunks end, so that each is decoded once, into blocks of a moderate size."""
    rows, columns = (
        _cuts(first, end, chunk)
        for (first, end), chunk in zip(
            ((rect.top, rect.bottom), (rect.left, rect.right)), level.chunks[-2:], strict=True
        )
    )
    return [Rect(*row, *column) for row, column in product(rows, columns)]


def _cuts(first: int, end: int, chunk: int) -> list[tuple[int, int]]:
    width = max(1, _BLOCK // chunk) * chunk
    starts = [first, *range((first // width + 1) * width, end, width)]
    return list(zip(starts, [*starts[1:], end], strict=True))


def _spans(block: Rect, rect: Rect) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and end of a block's rows and columns, counted from those of the area."""
    return (block.top - rect.top, block.bottom - rect.top), (block.left - rect.left, block.right - rect.left)


def _runs(first: int, end: int, step: int) -> tuple[NDArray[np.int64], int]:
    """Where in a block its pixels begin to belong to another pixel of the view; and to which the first ones belong."""
    return np.array([0, *range(step - first % step, end - first, step)]), first // step


def _lengths(starts: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    return np.diff(starts, append=size)
