"""Sample an image by areas: the mean over a pixel of the grid along axes that shrink, linear along others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.source.read.rounding import ROUNDING
from cellstamp.source.read.sampling import EDGE, blend, weigh


def average_areas(
    window: NDArray[Any],
    corner: NDArray[np.int64],
    sides: Sequence[int],
    way: NDArray[np.float64],
    first: NDArray[np.int64],
    out: NDArray[Any],
) -> None:
    """Write the pixels of a grid, each the mean of its area; see `cellstamp.source.read.sampling.blend`.

    Areas are exact if the axes of grid and array are parallel. Otherwise, a mean is that of bilinear values at regular
    positions on the array, at least one for each of its pixels along both axes.

    Parameters
    ----------
    sides
        Height and width of the sampled array.
    out
        (c, y, x), 0. Unchanged where the centre of the grid's pixel is not on the array.
    """
    linear = way[:, :2]
    is_turned, is_parallel = (np.abs(linear[index]).max() < ROUNDING for index in (([0, 1], [0, 1]), ([0, 1], [1, 0])))
    if not is_turned and not is_parallel:
        _average_positions(window, corner, sides, way, first, out)
        return
    # an image turned by 90 degrees is that of its columns
    axes = (1, 0) if is_turned else (0, 1)
    pixels = window.swapaxes(1, 2) if is_turned else window
    along = [
        _weights(way[own, axis], way[own, 2], int(first[axis]), out.shape[1 + axis], int(corner[own]), sides[own])
        for axis, own in enumerate(axes)
    ]
    # pixels outside of the window have no weight
    (at_rows, of_rows), (at_columns, of_columns) = along
    weigh(np.ascontiguousarray(pixels), at_rows, of_rows, at_columns, of_columns, out.dtype.kind != "f", out)


def _weights(
    scale: float, offset: float, first: int, n: int, corner: int, side: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the pixels of an array that pixels of a grid have along one axis, and their weights: (n, k) both.

    Parameters
    ----------
    scale, offset
        From coordinates in the grid to coordinates in the array.
    first, n
        Number of the first pixel of the grid, and how many.
    corner
        Number of the first pixel of the window, from which the pixels are counted.
    side
        Length of the array.
    """
    edges = _without_rounding(np.arange(first, first + n + 1) * scale + offset)
    low, high = np.minimum(edges[:-1], edges[1:]), np.maximum(edges[:-1], edges[1:])
    middle = (low + high) / 2
    if abs(scale) > 1 + ROUNDING:
        at = np.floor(low).astype(np.int64)[:, None] + np.arange(math.ceil(abs(scale)) + 1)
        weights = np.minimum(high[:, None], at + 1) - np.maximum(low[:, None], at)
        weights = np.where((at >= 0) & (at < side), np.maximum(weights, 0), 0)
    else:
        before = np.floor(middle - 0.5).astype(np.int64)
        share = middle - 0.5 - before
        at = np.clip(np.stack([before, before + 1], axis=1), 0, side - 1)
        weights = np.stack([1 - share, share], axis=1)
    weights[(middle < 0) | (middle >= side)] = 0
    return np.where(weights > 0, at - corner, 0), weights


def _without_rounding(values: NDArray[Any]) -> NDArray[np.float64]:
    nearest = np.rint(values)
    return np.where(np.abs(values - nearest) < ROUNDING, nearest, values)


def _average_positions(
    window: NDArray[Any],
    corner: NDArray[np.int64],
    sides: Sequence[int],
    way: NDArray[np.float64],
    first: NDArray[np.int64],
    out: NDArray[Any],
) -> None:
    """Write the mean of bilinear values at regular positions in each pixel of the grid, of those on the array."""
    n = math.ceil(float(np.linalg.norm(way[:, :2], axis=0).max()) - ROUNDING)
    total, values = np.zeros(out.shape), np.zeros(out.shape)
    area, is_partial = out.shape[1:], not _are_inside(sides, way, first, out.shape[1:])
    number: Any = np.zeros(area) if is_partial else n**2
    for steps in product((np.arange(n) + 0.5) / n - 0.5, repeat=2):
        moved = way.copy()
        moved[:, 2] += way[:, :2] @ steps
        values[...] = 0
        blend(window, corner, np.array(sides), moved, first, False, values)  # noqa: FBT003 - compiled
        total += values
        if is_partial:
            number += _on_array(sides, moved, first, area)
    if is_partial:
        total[:, ~_on_array(sides, way, first, area)] = 0
        number = np.maximum(number, 1)
    total /= number
    out[...] = np.rint(total) if out.dtype.kind != "f" else total


def _are_inside(
    sides: Sequence[int], way: NDArray[np.float64], first: NDArray[np.int64], area: tuple[int, ...]
) -> bool:
    """Return whether pixels of the grid are inside of an array, with their edges: their corners are."""
    y, x = np.array([[0, 0, area[0], area[0]], [0, area[1], 0, area[1]]]) + first[:, None]
    corners = way[:, :2] @ np.stack([y, x]) + way[:, 2:]
    return bool((corners >= 0).all() and (corners < np.array(sides)[:, None]).all())


def _on_array(
    sides: Sequence[int], way: NDArray[np.float64], first: NDArray[np.int64], area: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Return for which pixels of the grid `blend` has a value: bool (y, x)."""
    y, x = np.arange(area[0])[:, None] + first[0] + 0.5, np.arange(area[1]) + first[1] + 0.5
    rows, columns = (a * y + b * x + c + EDGE for a, b, c in way)
    return np.asarray((rows >= 0) & (rows < sides[0]) & (columns >= 0) & (columns < sides[1]))
