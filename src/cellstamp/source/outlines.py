"""Outlines of cells as flat arrays: polygons with holes, in pixels of the image."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.source.values import Way, in_digits

_HALF_WAY = 1e-5
"""Distance in pixels below which a centre is half-way between two pixels: vertices may be float32, as Xenium's are.
Means of fewer than 50,000 pixels are half-way, or further from it.
"""
_SAME_AREA = 1e-9
"""Relative difference of areas that are equal: rings that touch don't change the sums, whose bits are kept."""
_GROWTH = 1.5
"""Room for vertices, as a multiple of the number needed now."""
_AT_A_TIME = 2**14
"""Cells whose outlines are copied at a time, to measure them."""
_FLAT = 1e-9
"""Area of a cell without an area, relative to a square around it: rounding errors are smaller, slivers larger."""
_MAYBE_FLAT = 1e-3
"""Area in pixels from which cells are not examined; a line of 1,000 pixels has a smaller rounding error."""

Offsets = NDArray[np.int64]


@dataclass(frozen=True)
class Outlines:
    """Polygons of cells, as flat arrays. Pixel i of the image covers [i, i + 1).

    Attributes
    ----------
    xy
        float64 (n_vertices, 2): x and y in pixels of the image.
    rings
        int64 (n_rings + 1,): first vertex of each ring, and the end. The last vertex of a ring repeats its first.
    polygons
        int64 (n_polygons + 1,): first ring of each polygon, and the end; the first ring is the outer one.
    cells
        int64 (n_cells + 1,): first polygon of each cell, and the end.
    """

    xy: NDArray[np.float64]
    rings: Offsets
    polygons: Offsets
    cells: Offsets

    def __len__(self) -> int:
        return self.cells.size - 1

    @property
    def arrays(self) -> tuple[NDArray[np.float64], Offsets, Offsets, Offsets]:
        """Return the arrays, for kernels."""
        return self.xy, self.rings, self.polygons, self.cells

    def take(self, cells: NDArray[np.int64]) -> Outlines:
        """Return the outlines of some cells, by number; -1: a cell without polygons."""
        polygons, new_cells = _members(self.cells, cells)
        rings, new_polygons = _members(self.polygons, polygons)
        vertices, new_rings = _members(self.rings, rings)
        return Outlines(self.xy[vertices], new_rings, new_polygons, new_cells)

    def grouped(self, counts: NDArray[np.int64]) -> Outlines:
        """Return consecutive cells as one: ``counts`` of each new cell."""
        return Outlines(self.xy, self.rings, self.polygons, self.cells[_offsets(counts)])

    def boxes(self) -> NDArray[np.int64]:
        """Return the box of the pixel centres around each cell, int64 (n, 4): first row, last row, first column, last.

        A cell that is smaller than a pixel may have a last row before its first. Each cell must have a polygon.
        """
        first = self.rings[self.polygons[self.cells[:-1]]]
        low, high = (reduce.reduceat(self.xy, first, axis=0) for reduce in (np.minimum, np.maximum))
        (left, top), (right, bottom) = np.ceil(low - 0.5).T, np.floor(high - 0.5).T
        return np.stack([top, bottom, left, right], axis=1).astype(np.int64)

    def are_flat(self, areas: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return for each cell whether its area, as `areas_and_centroids` returns it, is 0 up to rounding.

        Vertices on one line have no area, but its sum has rounding errors. Each cell must have a polygon.
        """
        flat = ~(areas >= _MAYBE_FLAT)
        candidates = np.flatnonzero(flat)
        if candidates.size:
            chosen = self.take(candidates)
            first = chosen.rings[chosen.polygons[chosen.cells[:-1]]]
            sides = np.maximum.reduceat(chosen.xy, first, axis=0) - np.minimum.reduceat(chosen.xy, first, axis=0)
            flat[candidates] = areas[candidates] <= _FLAT * sides.max(axis=1) ** 2
        return flat

    def areas_and_centroids(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the area of each cell in pixels, float64 (n,), and the centroid of this area, x and y, (n, 2).

        Both are those of the area that is drawn: by the even-odd rule in each polygon, and polygons that overlap count
        once. Holes count as missing, whatever the direction of their rings. A cell without an area has NaN as centroid.
        """
        areas, centroids = self.sums()
        with np.errstate(invalid="ignore"):
            doubtful = np.flatnonzero(np.isfinite(areas) & ~self._surround(centroids))
        for cell, drawn in self.take(doubtful).drawn_areas() if doubtful.size else ():
            if not math.isclose(drawn.area, areas[doubtful[cell]], rel_tol=_SAME_AREA):
                areas[doubtful[cell]] = drawn.area
                centroids[doubtful[cell]] = (drawn.centroid.x, drawn.centroid.y) if drawn.area else np.nan
        return areas, centroids

    def drawn_areas(self) -> Iterator[tuple[int, Any]]:
        """Yield the number of each cell whose rings cross or touch, and the area that is drawn, shapely's geometry."""
        import shapely

        cells = shapely.from_ragged_array(
            shapely.GeometryType.MULTIPOLYGON, self.xy, (self.rings, self.polygons, self.cells)
        )
        for number in np.flatnonzero(~shapely.is_valid(cells)).tolist():
            yield number, shapely.union_all(shapely.make_valid(shapely.get_parts(cells[number])))

    def _surround(self, centroids: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which cells are one ring that leads once around its centroid, and so crosses itself nowhere.

        Most cells do, and ``shapely.is_valid`` takes several times as long.
        """
        first = self.rings[self.polygons[self.cells]]
        x, y = np.ascontiguousarray(self.xy.T)
        n_vertices, (x0, y0) = np.diff(first), centroids.T
        x -= np.repeat(x0, n_vertices)
        y -= np.repeat(y0, n_vertices)
        turn = x[:-1] * y[1:] - x[1:] * y[:-1]
        is_below = y < 0
        upward = is_below[:-1] > is_below[1:]
        turn[first[1:-1] - 1], upward[first[1:-1] - 1] = 0, False  # no line leads from one cell to the next
        low, high = np.minimum.reduceat(turn, first[:-1]), np.maximum.reduceat(turn, first[:-1])
        once = np.add.reduceat(upward, first[:-1], dtype=np.int64) == 1
        n_rings = np.diff(self.polygons[self.cells])
        return np.asarray((n_rings == 1) & once & ((low >= 0) | (high <= 0)))

    def sums(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return areas and centroids as `areas_and_centroids`, by sums that are right if no rings cross or overlap.

        Source: P. Bourke, "Calculating the area and centroid of a polygon" (1988).
        """
        x, y = np.ascontiguousarray(self.xy.T)
        # relative to its first vertex, a ring's sums are exact if its vertices are corners of pixels
        n_vertices, x0, y0 = np.diff(self.rings), x[self.rings[:-1]], y[self.rings[:-1]]
        x -= np.repeat(x0, n_vertices)
        y -= np.repeat(y0, n_vertices)
        cross = x[:-1] * y[1:] - x[1:] * y[:-1]
        cross[self.rings[1:-1] - 1] = 0  # no line leads from one ring to the next
        rings = self.rings[:-1]
        twice = np.add.reduceat(cross, rings)
        moment_x = np.add.reduceat((x[:-1] + x[1:]) * cross, rings) / 6 + x0 * (twice / 2)
        moment_y = np.add.reduceat((y[:-1] + y[1:]) * cross, rings) / 6 + y0 * (twice / 2)
        is_outer = np.zeros(n_vertices.size, np.bool_)
        is_outer[self.polygons[:-1]] = True
        sign = np.where(is_outer == (twice >= 0), 1.0, -1.0)
        first = self.polygons[self.cells[:-1]]
        area, x, y = (np.add.reduceat(sign * each, first) for each in (twice / 2, moment_x, moment_y))
        with np.errstate(divide="ignore", invalid="ignore"):
            return area, np.stack([x / area, y / area], axis=1)


def centers_of(centroids: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return centres as those of labels, x and y: the centre of pixel [0, 0] is (0, 0), not (0.5, 0.5).

    Centres that are half-way between two pixels up to rounding errors are exactly there, as those of labels are: crops
    are at rounded centres.
    """
    xy = centroids - 0.5
    half_way = np.floor(xy) + 0.5
    return np.where(np.abs(xy - half_way) < _HALF_WAY, half_way, xy)


def outlines_of(geometries: NDArray[Any]) -> Outlines:
    """Return shapely's polygons and multipolygons (none of them empty) as outlines."""
    import shapely

    if (shapely.get_type_id(geometries) == shapely.GeometryType.POLYGON).all() and not (
        shapely.get_num_interior_rings(geometries).any()
    ):
        # usual, and twice as fast: shapely makes an object of each ring below
        rings, each = _offsets(shapely.get_num_coordinates(geometries)), np.arange(len(geometries) + 1)
        return Outlines(shapely.get_coordinates(geometries), rings, each, each)
    kind, xy, offsets = shapely.to_ragged_array(geometries, include_z=False)
    rings, polygons, *cells = (np.asarray(each, np.int64) for each in offsets)
    own = cells[0] if kind == shapely.GeometryType.MULTIPOLYGON else np.arange(len(geometries) + 1)
    polygons = _complete(polygons, own)
    rings, polygons = _without_empty(_complete(rings, polygons), polygons)
    polygons, own = _without_empty(polygons, own)
    return Outlines(np.ascontiguousarray(xy), rings, polygons, own)


def _complete(offsets: Offsets, above: Offsets) -> Offsets:
    """Add empty members at the end, which shapely before 2.1 leaves out; ``above`` counts all members."""
    return np.append(offsets, np.full(above[-1] + 1 - offsets.size, offsets[-1]))


def _without_empty(offsets: Offsets, above: Offsets) -> tuple[Offsets, Offsets]:
    """Leave out empty rings or polygons; ``above`` are the offsets of those that have them as members."""
    is_full = np.diff(offsets) > 0
    if is_full.all():
        return offsets, above
    return np.append(offsets[:-1][is_full], offsets[-1]), _offsets(is_full.astype(np.int64))[above]


class OutlineCollector:
    """Collects outlines part by part; millions of them are in memory once only.

    Parameters
    ----------
    n_vertices
        Number of vertices to make room for; it grows if there are more. Room that is not used takes no memory.
    """

    def __init__(self, n_vertices: int = 0) -> None:
        self._xy = np.empty((n_vertices, 2))
        self._n_vertices = self._n_cells = 0
        self._offsets: list[tuple[Offsets, Offsets, Offsets]] = []

    def __len__(self) -> int:
        return self._n_cells

    def add(self, part: Outlines) -> None:
        """Add outlines after those that have been added."""
        end = self._n_vertices + len(part.xy)
        if end > len(self._xy):
            # the system moves a large array without copying it
            self._xy.resize((int(_GROWTH * end), 2), refcheck=False)
        self._xy[self._n_vertices : end] = part.xy
        self._n_vertices = end
        self._n_cells += len(part)
        self._offsets.append((part.rings, part.polygons, part.cells))

    def outlines(self) -> Outlines:
        """Return all outlines; valid until the next are added."""
        if not self._offsets:
            return NO_OUTLINES
        rings, polygons, cells = (_joined_offsets(each) for each in zip(*self._offsets, strict=True))
        return Outlines(self._xy[: self._n_vertices], rings, polygons, cells)


def _joined_offsets(parts: Iterable[Offsets]) -> Offsets:
    return _offsets(np.concatenate([np.diff(part) for part in parts]))


def _offsets(counts: NDArray[np.int64]) -> Offsets:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])


def _members(offsets: Offsets, chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], Offsets]:
    """Return the numbers of all members of the chosen groups, and their new offsets; -1: a group without members."""
    first = offsets[chosen]
    counts = np.where(chosen < 0, 0, offsets[chosen + 1] - first)
    new = _offsets(counts)
    return np.arange(new[-1]) + np.repeat(first - new[:-1], counts), new


NO_OUTLINES = Outlines(np.empty((0, 2)), *[np.zeros(1, np.int64)] * 3)


@dataclass(frozen=True)
class ChosenOutlines:
    """Outlines of some cells of many, in one or two masks. Only theirs are pickled.

    Attributes
    ----------
    every
        Outlines of all cells.
    chosen
        int64 (n_masks, n): numbers of the cells in each mask; -1: a cell without polygons.
    """

    every: Outlines
    chosen: NDArray[np.int64]

    def __getitem__(self, which: slice | NDArray[Any]) -> ChosenOutlines:
        """Return some of the cells."""
        return ChosenOutlines(self.every, self.chosen[:, which]) if len(self.chosen) else NO_CELLS

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickle the chosen cells only; without masks that are outlines, the name of `NO_CELLS`."""
        if not len(self.chosen):
            return "NO_CELLS"
        return type(self), (self.outlines(), np.arange(self.chosen.size).reshape(self.chosen.shape))

    def outlines(self) -> Outlines:
        """Return the outlines of the chosen cells, one mask after the other."""
        return self.every.take(self.chosen.ravel()) if len(self.chosen) else NO_OUTLINES


NO_CELLS = ChosenOutlines(NO_OUTLINES, np.empty((0, 0), np.int64))
"""Of masks that are labels."""


@dataclass(frozen=True)
class OutlineMask:
    """A mask that is given as outlines of cells. Workers get it without its outlines: a batch has its cells'.

    Attributes
    ----------
    store
        Folder or URL of the store.
    name
        Name of the element.
    path
        Its file.
    shape
        Height and width of the image in pixels.
    way
        From the coordinates in the file to pixels of the image.
    ids
        uint64 (n,), ascending.
    numbers
        int64 (n,): numbers of the cells in ``every``.
    centers
        float64 (n, 2): x and y, see `centers_of`.
    every
        Outlines of the cells of all masks.
    names
        (n,): ids of the cells in the element, integers or texts.
    unpaired
        Ids in the element of the cells that are left out, since they have no nucleus.
    """

    store: str
    name: str
    path: str
    shape: tuple[int, int]
    way: Way
    ids: NDArray[np.uint64]
    numbers: NDArray[np.int64]
    centers: NDArray[np.float64]
    every: Outlines
    names: NDArray[Any]
    unpaired: NDArray[Any] = field(default_factory=lambda: np.empty(0, np.int64))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the mask without its cells."""
        none = np.empty(0, np.int64)
        nothing = (none.astype(np.uint64), none, np.empty((0, 2)), NO_OUTLINES, none)
        return type(self), (self.store, self.name, self.path, self.shape, self.way, *nothing)

    @property
    def dtype(self) -> str:
        """Return ``"outlines"``, in place of the dtype of labels."""
        return "outlines"

    @property
    def is_numbered(self) -> bool:
        """Return whether cells were numbered, because their ids in the element are text, 0 or negative."""
        return self.names.dtype.kind not in "iu" or not np.array_equal(self.names, self.ids)

    def ids_of(self, names: NDArray[Any]) -> NDArray[np.uint64]:
        """Return the ids of cells by their ids in the element, as numbers or as texts; 0: none."""
        import pandas as pd

        own = self.names if self.names.dtype.kind in "iu" else self.names.astype(str)
        if (own.dtype.kind in "iu") != (names.dtype.kind in "iu"):
            own, names = own.astype(str), names.astype(str)
        at = pd.Index(own).get_indexer(pd.Index(names))
        return np.where(at < 0, 0, self.ids[at]).astype(np.uint64)

    def is_unpaired(self, names: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which of these ids in the element, numbers or texts, are those of cells left out without a nucleus."""
        own = self.unpaired
        if own.dtype.kind not in "iu" or names.dtype.kind not in "iu":
            own, names = own.astype(str), names.astype(str)
        return np.isin(names, own)

    def numbers_of(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the numbers of cells in ``every``; -1: none with this id."""
        if not self.ids.size:
            return np.full(ids.size, -1)
        at = np.minimum(np.searchsorted(self.ids, ids), self.ids.size - 1)
        return np.where(self.ids[at] == ids, self.numbers[at], -1)

    def median_side(self) -> float:
        """Return the side in pixels of a square with the median area of cells; 0 without cells.

        Of many cells, every n-th is measured.
        """
        numbers = self.numbers[self.numbers >= 0]
        areas, _ = self.every.take(numbers[:: 1 + numbers.size // _AT_A_TIME]).areas_and_centroids()
        return float(np.sqrt(np.median(areas))) if areas.size else 0.0

    def is_on_image(self) -> NDArray[np.bool_]:
        """Return for each cell whether its centre is on the image."""
        height, width = self.shape
        x, y = np.round(self.centers).T
        return np.asarray((x >= 0) & (x < width) & (y >= 0) & (y < height))

    def lines(self, top: int, bottom: int, left: int, right: int) -> list[NDArray[np.float64]]:
        """Return the rings of the cells in an area of the image, float64 (n, 2) each, for a picture."""
        outlines = self.every.take(self.numbers)
        first, last, begin, end = outlines.boxes().T
        is_shown = (first < bottom) & (last >= top) & (begin < right) & (end >= left)
        shown = outlines.take(np.flatnonzero(is_shown))
        return np.split(shown.xy, shown.rings[1:-1]) if len(shown) else []

    def boxes(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the boxes of cells that it has, as `Outlines.boxes`."""
        numbers = self.numbers_of(ids)
        parts = (numbers[start : start + _AT_A_TIME] for start in range(0, max(numbers.size, 1), _AT_A_TIME))
        return np.concatenate([self.every.take(part).boxes() for part in parts])

    def signature(self) -> str:
        """Return a digest of the content of the file, and of its position on the image."""
        return self._digest

    def sample(self) -> str:
        """Return a digest that copies of the file share."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        import fsspec

        with fsspec.open(self.path) as file:
            content = hashlib.file_digest(file, "sha256")
        content.update(in_digits(self.way).encode())
        return content.hexdigest()
