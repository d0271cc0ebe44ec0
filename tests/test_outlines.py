"""Outlines: drawn pixel by pixel as shapely decides, their centres, and their flat arrays."""

from __future__ import annotations

import pickle
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from shapely import MultiPolygon, Point, Polygon, affinity

from cellstamp.cells.kernels.outlines import draw_cells
from cellstamp.source.find.outline_files import most_vertices
from cellstamp.source.outlines import NO_CELLS, NO_OUTLINES, ChosenOutlines, OutlineCollector, centers_of, outlines_of

pytestmark = pytest.mark.once

SIZE = 20
# positions on pixel centres, on pixel borders, and anywhere; also out of the window
PLACES = st.one_of(st.integers(-16, 56).map(lambda half: half / 2), st.floats(-6, 26, width=32))
RINGS = st.lists(st.tuples(PLACES, PLACES), min_size=3, max_size=9)


def drawn(geometry: Polygon | MultiPolygon, corner: tuple[int, int] = (0, 0), size: int = SIZE) -> np.ndarray:
    masks = np.full((1, size, size), 7, np.uint8)
    draw_cells(outlines_of(np.array([geometry])).arrays, *np.array([corner]).T, masks)
    return masks[0]


def contained(geometry: Polygon | MultiPolygon, corner: tuple[int, int] = (0, 0), size: int = SIZE) -> np.ndarray:
    y, x = np.mgrid[:size, :size] + 0.5 + np.array(corner)[:, None, None]
    return shapely.contains_xy(geometry, x, y)


@given(RINGS, st.sampled_from([0, 1_000_003]))
@example([(0.5, 0.5), (6.5, 0.5), (6.5, 6.5), (0.5, 6.5)], 0)  # lines through the centres of pixels
@example([(2, 2), (9, 9), (9, 2), (2, 9)], 0)  # a bow tie
@example([(3, 3), (3.2, 3), (3.1, 17)], 0)  # a sliver between centres
@example([(-50, -50), (80, -50), (80, 80), (-50, 80)], 0)  # around the window
@example([(30, 30), (40, 30), (40, 40)], 0)  # outside of it
@settings(max_examples=300, deadline=None)
def test_a_polygon_has_the_pixels_whose_centres_it_contains(ring: list[tuple[float, float]], start: int) -> None:
    polygon = affinity.translate(Polygon(ring), start, start)
    assume(polygon.area > 0)  # GEOS takes a flat ring along two sides of a rectangle for the rectangle
    corner = (start, start)
    np.testing.assert_array_equal(drawn(polygon, corner), contained(polygon, corner))


@given(st.floats(0, 1), st.floats(-1, 1), st.lists(st.floats(-30, 50), min_size=4, max_size=8))
@settings(max_examples=100, deadline=None)
def test_nearly_collinear_lines_are_decided_exactly(offset: float, slope: float, along: list[float]) -> None:
    ring = [(x, 10 + offset + slope * (x - 10)) for x in along]
    polygon = Polygon(ring)
    np.testing.assert_array_equal(drawn(polygon), contained(polygon))


@given(RINGS, RINGS)
@settings(max_examples=100, deadline=None)
def test_holes_and_several_polygons(one: list[tuple[float, float]], other: list[tuple[float, float]]) -> None:
    first, second = shapely.make_valid(Polygon(one)), shapely.make_valid(Polygon(other))
    for combined in (first.difference(second), first.union(second)):
        parts = [each for each in shapely.get_parts(combined) if each.geom_type == "Polygon"]
        if parts:
            cell = MultiPolygon(parts)
            np.testing.assert_array_equal(drawn(cell), contained(cell))


def test_overlapping_polygons_of_a_cell_are_joined() -> None:
    squares = [shapely.box(2, 2, 9, 9), shapely.box(5, 5, 14, 14)]
    np.testing.assert_array_equal(drawn(MultiPolygon(squares)), contained(shapely.union_all(squares)))


@given(st.lists(RINGS, min_size=1, max_size=4))
@settings(deadline=None)
def test_centroids_and_areas_are_those_of_shapely(rings: list[list[tuple[float, float]]]) -> None:
    crossing = [Polygon(ring) for ring in rings]
    valid = [shapely.make_valid(cell) for cell in crossing]
    kept = [k for k, cell in enumerate(valid) if cell.geom_type in ("Polygon", "MultiPolygon") and cell.area > 1e-3]
    expected = [valid[k] for k in kept]
    for cells in (crossing, valid) if kept else ():
        areas, centroids = outlines_of(np.array([cells[k] for k in kept])).areas_and_centroids()
        np.testing.assert_allclose(areas, shapely.area(expected), rtol=1e-6)
        np.testing.assert_allclose(centroids, shapely.get_coordinates(shapely.centroid(expected)), rtol=1e-6, atol=1e-6)


TURNS = np.linspace(0, 2 * np.pi, 6)[:-1]
CROSSING = {
    "bow tie": Polygon([(4, 4), (12, 14.5), (12, 4), (4, 14)]),
    "bow tie of equal lobes": Polygon([(2, 2), (9, 9), (9, 2), (2, 9)]),
    "bow tie in two parts": MultiPolygon([Polygon([(2, 2), (9, 9), (9, 2), (2, 9)]), shapely.box(12, 12, 16, 17)]),
    "star": Polygon(np.stack([9 + 8 * np.cos(2 * TURNS), 10 + 8 * np.sin(2 * TURNS)], axis=1)),
    "hole across the border": Polygon([(2, 2), (12, 2), (12, 12), (2, 12)], [[(8, 4), (17, 4), (17, 9), (8, 9)]]),
    "parts that overlap": MultiPolygon([shapely.box(2, 2, 12, 12), shapely.box(2, 2, 8, 12)]),
    "parts with a common border": MultiPolygon([shapely.box(2, 2, 8, 12), shapely.box(8, 2, 13, 9)]),
    "a loop": Polygon([(2, 2), (12, 2), (12, 12), (5, 12), (5, 9), (14, 9), (14, 15), (2, 15)]),
}


@pytest.mark.parametrize("name", CROSSING)
def test_invalid_polygons_have_the_area_and_the_centroid_of_what_is_drawn(name: str) -> None:
    cell, fine = CROSSING[name], 40
    areas, centroids = outlines_of(np.array([shapely.box(0, 0, 2, 3), cell])).areas_and_centroids()
    assert (areas[0], *centroids[0]) == (6, 1, 1.5)
    y, x = np.nonzero(drawn(affinity.scale(cell, fine, fine, origin=(0, 0)), size=SIZE * fine))
    np.testing.assert_allclose(areas[1], y.size / fine**2, rtol=0.01)
    np.testing.assert_allclose(centroids[1], ((x.mean() + 0.5) / fine, (y.mean() + 0.5) / fine), atol=0.02)


def test_overlapping_outlines_of_a_cell_count_once() -> None:
    """As those of several nuclei of one cell."""
    nuclei = outlines_of(np.array([shapely.box(20, 20, 30, 30), shapely.box(20, 20, 26, 30), shapely.box(1, 1, 2, 2)]))
    areas, centroids = nuclei.grouped(np.array([2, 1])).areas_and_centroids()
    np.testing.assert_allclose(areas, [100, 1])
    np.testing.assert_allclose(centroids, [[25, 25], [1.5, 1.5]])


@pytest.mark.parametrize(
    "cell",
    [
        Polygon([(0, 0), (4, 0), (4, 2), (6, 2), (6, 0.5), (9, 0.5), (9, 7), (0, 7)]),  # concave
        Polygon([(0, 0), (3, 0), (3, 3), (7, 3), (7, 7), (3, 7), (3, 3), (0, 3)]),  # pixels that touch at a corner
        MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(3, 0, 7, 5)]),
        shapely.box(0, 0, 9, 7).difference(shapely.box(1, 1, 2, 3)),
    ],
)
def test_outlines_that_do_not_cross_keep_every_bit(cell: Polygon | MultiPolygon) -> None:
    outlines = outlines_of(np.array([affinity.translate(affinity.scale(cell, 0.7, 1.3), 0.1, 0.2)]))
    for of_sums, found in zip(outlines.sums(), outlines.areas_and_centroids(), strict=True):
        np.testing.assert_array_equal(of_sums, found)


@pytest.mark.parametrize("step", [1, -1])
def test_a_hole_is_missing_from_the_area_whatever_the_direction_of_its_ring(step: int) -> None:
    hole = [(2, 2), (4, 2), (4, 4), (2, 4)]
    polygon = Polygon([(0, 0), (10, 0), (10, 10), (0, 10)], [hole[::step]])
    areas, centroids = outlines_of(np.array([polygon])).areas_and_centroids()
    assert areas[0] == 96
    np.testing.assert_allclose(centroids[0], np.array([500 - 12, 500 - 12]) / 96)


def test_centres_are_those_of_labels() -> None:
    centroids = np.array([[3.0, 2.5], [10.999_999_9, 4.25]])
    np.testing.assert_array_equal(centers_of(centroids), [[2.5, 2.0], [10.5, 3.75]])


def test_some_outlines_are_pickled_and_drawn_as_before() -> None:
    cells = [shapely.box(1, 1, 4 + k, 5) for k in range(6)] + [
        MultiPolygon([shapely.box(0, 0, 2, 2), shapely.box(5, 5, 8, 9)])
    ]
    collector = OutlineCollector()
    collector.add(outlines_of(np.array(cells[:3])))
    collector.add(outlines_of(np.array(cells[3:])))
    chosen = ChosenOutlines(collector.outlines(), np.array([[6, -1, 2]]))
    copy = pickle.loads(pickle.dumps(chosen))
    masks = np.zeros((3, 12, 12), np.uint8)
    draw_cells(copy.outlines().arrays, np.zeros(3, int), np.zeros(3, int), masks)
    np.testing.assert_array_equal(masks[0], contained(cells[6], size=12))
    assert not masks[1].any()
    np.testing.assert_array_equal(masks[2], contained(cells[2], size=12))
    assert len(copy.every) == 3


def test_polygons_without_holes_are_converted_as_beside_one_with_a_hole() -> None:
    simple = [Point(3, 4).buffer(2), shapely.box(1, 2, 4, 6), Polygon([(0, 0, 7), (4, 0, 7), (0, 4, 7)])]
    alone = outlines_of(np.array(simple))
    beside = outlines_of(np.array([*simple, shapely.box(0, 0, 9, 9).difference(shapely.box(2, 2, 4, 4))]))
    for found, expected in zip(alone.arrays, beside.take(np.arange(3)).arrays, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_vertices_are_collected_whether_or_not_room_was_made_for_them() -> None:
    cells = np.array([shapely.box(k, 1, k + 4, 5) for k in range(6)])
    for room in (0, 10, 100):
        collector = OutlineCollector(room)
        collector.add(outlines_of(cells[:2]))
        collector.add(outlines_of(cells[2:]))
        np.testing.assert_array_equal(collector.outlines().xy, shapely.get_coordinates(cells))


def test_a_file_has_at_most_the_vertices_that_its_size_allows(tmp_path: Path) -> None:
    cells = [Point(9 * k, 4).buffer(2).union(shapely.box(9 * k, 4, 9 * k + 1, 8)) for k in range(2000)]
    geopandas.GeoDataFrame(geometry=cells).to_parquet(tmp_path / "cells.parquet", row_group_size=700)
    n_vertices = shapely.get_num_coordinates(cells).sum()
    assert n_vertices <= most_vertices(str(tmp_path / "cells.parquet"), "cells") < 1.2 * n_vertices


def test_boxes_hold_the_centres_of_pixels() -> None:
    outlines = outlines_of(np.array([shapely.box(1, 2, 4, 6), shapely.box(1.6, 2.4, 3.4, 4.6)]))
    np.testing.assert_array_equal(outlines.boxes(), [[2, 5, 1, 3], [2, 4, 2, 2]])


def test_cells_without_outlines_are_empty() -> None:
    masks = np.ones((2, 4, 4), np.uint8)
    draw_cells(NO_OUTLINES.take(np.array([-1, -1])).arrays, np.zeros(2, int), np.zeros(2, int), masks)
    assert not masks.any()


def test_batches_of_labels_carry_nothing() -> None:
    assert NO_CELLS[np.array([3, 5])] is NO_CELLS
    assert pickle.loads(pickle.dumps(NO_CELLS)) is NO_CELLS
    assert NO_CELLS.outlines() is NO_OUTLINES


@pytest.mark.parametrize("flat", [Polygon([(0, 0), (1, 1), (2, 2)]), Polygon([(0, 0), (4, 4), (2, 2), (0, 0)])])
@pytest.mark.parametrize("place", [(0, 0, 1), (30_011.3, 17.123, 1 / 0.2125), (7.7, 5.1, 1e-4)])
def test_flat_cells_are_found_in_spite_of_rounding(flat: Polygon, place: tuple[float, float, float]) -> None:
    right, down, by = place
    cells = [flat, Polygon([(0, 0), (1, 0), (1, 1)]), Polygon([(0, 0), (9, 0.001), (9, 0)])]
    moved = [affinity.affine_transform(each, [by, by / 3, -by / 7, by, right, down]) for each in cells]
    outlines = outlines_of(np.array(moved))
    assert outlines.are_flat(outlines.areas_and_centroids()[0]).tolist() == [True, False, False]
