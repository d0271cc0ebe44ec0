"""Read an image or labels at the resolution of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import ConfigError
from cellstamp.location import reachable
from cellstamp.source.ome import metadata_of
from cellstamp.source.read.arrays import ArrayHandle, PixelArray
from cellstamp.source.store_root import open_root
from cellstamp.source.values import Rect

LONGEST_SIDE = 1500
"""Largest number of pixels along the longer side of a view."""

_BLOCK = 1024
"""Side in pixels of the blocks that are read at once, or of a chunk, if that is larger."""


@dataclass(frozen=True)
class View:
    """Pixels for a picture.

    Attributes
    ----------
    pixels
        (c, y, x) float32: means of squares of pixels; or (y, x): ids.
    area
        Requested area of the full-resolution image.
    extent
        Left, right, top and bottom of `pixels`, in pixels of the full-resolution image. It is a little larger than the
        area unless that is a multiple of the squares.
    """

    pixels: NDArray[Any]
    area: Rect
    extent: tuple[float, float, float, float]


def area_of(region: Any, shape: tuple[int, int]) -> Rect:
    """Return the area of a region ``[(first row, end), (first column, end)]``; None: the complete image.

    Raises
    ------
    ConfigError
        If the region is invalid or not inside the image.
    """
    if region is None:
        return Rect(0, shape[0], 0, shape[1])
    try:
        (top, bottom), (left, right) = ((index(first), index(end)) for first, end in region)
    except (TypeError, ValueError):
        top = bottom = left = right = -1
    if not (0 <= top < bottom <= shape[0] and 0 <= left < right <= shape[1]):
        raise ConfigError(
            f"region = {region!r}: must be [(first row, end), (first column, end)], integers, inside the image of "
            f"{shape[0]} x {shape[1]} pixels (y, x), like [(0, {min(500, shape[0])}), (0, {min(500, shape[1])})]"
        )
    return Rect(top, bottom, left, right)


def view_image(image: PixelArray, channels: Sequence[int], region: Any = None, *, side: int = LONGEST_SIDE) -> View:
    """Read channels of an image for a picture of at most `side` pixels.

    The coarsest sufficient resolution level is read. Each chunk is decoded once, a block at a time.
    """
    area = area_of(region, (image.shape[1], image.shape[2]))
    with reachable(image.store):
        level = _level_for(image, "images", area, side)
        rect = _scaled(area, image, level)
        step = _step(rect, side)
        planes = _means(level.pick(channels), rect, step)
    return View(planes, area, _extent(planes.shape[-2:], rect, step, image, level))


def view_labels(labels: PixelArray, region: Any = None, *, side: int = LONGEST_SIDE) -> View:
    """Read labels for a picture of at most `side` pixels: every n-th pixel, as ids have no mean."""
    area = area_of(region, (labels.shape[0], labels.shape[1]))
    with reachable(labels.store):
        level = _level_for(labels, "labels", area, side)
        rect = _scaled(area, labels, level)
        step = _step(rect, side)
        ids = _sample(level, rect, step)
    return View(ids, area, _extent(ids.shape, rect, step, labels, level))


def _level_for(full: PixelArray, kind: str, area: Rect, side: int) -> PixelArray:
    """Return the coarsest resolution level that has at least as many pixels of the area as the picture."""
    needed = min(side, max(area.shape))
    fitting = [level for level in _levels(full, kind) if max(_scaled(area, full, level).shape) >= needed]
    return min(fitting, key=lambda level: level.shape[-1] * level.shape[-2], default=full)


def _levels(full: PixelArray, kind: str) -> list[PixelArray]:
    """Return all resolution levels of an element, the full one first; samples of another grid have only this one."""
    if not isinstance(full, ArrayHandle):
        return [full]
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


def _scaled(area: Rect, full: PixelArray, level: PixelArray) -> Rect:
    """Return the area in pixels of a resolution level, rounded outwards."""
    (height, width), (rows, columns) = full.shape[-2:], level.shape[-2:]
    return Rect(
        area.top * rows // height,
        -(-area.bottom * rows // height),
        area.left * columns // width,
        -(-area.right * columns // width),
    )


def _extent(
    shape: Sequence[int], rect: Rect, step: int, full: PixelArray, level: PixelArray
) -> tuple[float, float, float, float]:
    y, x = (whole / part for whole, part in zip(full.shape[-2:], level.shape[-2:], strict=True))
    bottom, right = rect.top + shape[0] * step, rect.left + shape[1] * step
    return rect.left * x, right * x, rect.top * y, bottom * y


def _step(rect: Rect, side: int) -> int:
    return max(1, -(-max(rect.shape) // side))


def _means(level: PixelArray, rect: Rect, step: int) -> NDArray[np.float32]:
    """Return the means of squares of `step` pixels for each channel; squares at the far edges may be smaller."""
    rows, columns = (-(-n // step) for n in rect.shape)
    sums, counts = np.zeros((level.shape[0], rows, columns)), np.zeros((rows, columns))
    for block in _blocks(level, rect):
        (ys, y), (xs, x) = (_squares(*span, step) for span in _spans(block, rect))
        window = np.s_[y : y + ys.size, x : x + xs.size]
        counts[window] += np.outer(np.diff(ys, append=block.shape[0]), np.diff(xs, append=block.shape[1]))
        for channels in level.channels():  # those of one chunk
            pixels = np.add.reduceat(level.read(block, channels), ys, axis=1, dtype=np.float64)
            sums[(*channels, *window)] += np.add.reduceat(pixels, xs, axis=2)
    return np.asarray(sums / counts, np.float32)


def _sample(level: PixelArray, rect: Rect, step: int) -> NDArray[Any]:
    """Return every `step`-th pixel along both axes, beginning with the first."""
    rows, columns = (-(-n // step) for n in rect.shape)
    ids = np.zeros((rows, columns), level.dtype)
    for block in _blocks(level, rect):
        (top, _), (left, _) = _spans(block, rect)
        part = level.read(block)[-top % step :: step, -left % step :: step]
        y, x = -(-top // step), -(-left // step)
        ids[y : y + part.shape[0], x : x + part.shape[1]] = part
    return ids


def _blocks(level: PixelArray, rect: Rect) -> list[Rect]:
    """Divide an area into blocks along the borders of chunks, so that each chunk is decoded once."""
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
    """Return the first and the end of a block's rows and columns, relative to the area."""
    return (block.top - rect.top, block.bottom - rect.top), (block.left - rect.left, block.right - rect.left)


def _squares(first: int, end: int, step: int) -> tuple[NDArray[np.int64], int]:
    """Return the starts of squares of `step` pixels in a block, along one axis, and the number of the first square."""
    return np.array([0, *range(step - first % step, end - first, step)]), first // step
