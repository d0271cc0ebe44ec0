"""Make polygons of rings of coordinates, as JSON files have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ring = Sequence[Sequence[float]] | NDArray[np.float64]
"""Corners (x, y); the last may repeat the first."""
Part = Sequence[Ring]
"""The outer ring of a polygon, then its holes."""

_LEAST_CORNERS = 3


def shapes_of(cells: Sequence[Sequence[Part]]) -> NDArray[Any]:
    """Make a polygon or multipolygon of the parts of each cell; None where no part has three corners.

    Raises
    ------
    TypeError, ValueError, IndexError
        If coordinates are not pairs of numbers.
    """
    import shapely

    xy: list[NDArray[np.float64]] = []
    rings, parts, ends = [0], [0], [0]
    for cell in cells:
        for part in cell:
            closed = [ring for ring in map(_closed, part) if ring is not None]
            if not part or _closed(part[0]) is None:
                continue
            for ring in closed:
                xy.append(ring)
                rings.append(rings[-1] + len(ring))
            parts.append(parts[-1] + len(closed))
        ends.append(len(parts) - 1)
    made = np.full(len(cells), None, object)
    if xy:
        offsets = tuple(np.asarray(each) for each in (rings, parts, ends))
        made = shapely.from_ragged_array(shapely.GeometryType.MULTIPOLYGON, np.concatenate(xy), offsets)
    counts = np.diff(ends)
    made[counts == 1] = shapely.get_geometry(made[counts == 1], 0)
    made[counts == 0] = None
    return made


def _closed(ring: Ring) -> NDArray[np.float64] | None:
    """Return a ring whose last corner repeats its first; None if it has less than three corners."""
    corners = np.array([corner[:2] for corner in ring], np.float64)
    if len(corners) and not np.array_equal(corners[0], corners[-1]):
        corners = np.concatenate([corners, corners[:1]])
    return corners if len(corners) > _LEAST_CORNERS else None
