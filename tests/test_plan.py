"""Which cells are kept, and what the batches promise to those that read and cut them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import restatement
from cellstamp.cells.plan import (
    BATCH_BYTES,
    TILE_SIDE,
    cells_per_batch,
    inside_image,
    plan_batches,
    sample_cells,
    tile_shape,
    window_corners,
)
from cellstamp.errors import ConfigError
from cellstamp.source.values import TILES_ABREAST, Centers, Rect
from examples import examples

pytestmark = pytest.mark.once


def centers(xy, ids=None) -> Centers:
    xy = np.asarray(xy, dtype=np.float64).reshape(-1, 2)
    ids = np.arange(1, len(xy) + 1) if ids is None else ids
    return Centers(np.asarray(ids, dtype=np.uint64), xy)


# --- kept and removed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "kept"),
    [
        (4.0, False), (4.4999, False), (4.5, False), (4.5001, True), (5.0, True), (5.5, True), (15.0, True),
        (15.4999, True), (15.5, False), (16.0, False), (0.0, False), (19.0, False),
    ],
)  # fmt: skip
def test_a_cell_is_kept_when_its_rounded_centre_is_more_than_half_a_window_from_both_edges(x, kept):
    # an image 20 pixels wide, windows of 8 pixels: 4 < x < 16; halves are rounded to even
    assert inside_image(centers([[x, 50]]), 8, (100, 20)).tolist() == [kept]
    assert inside_image(centers([[50, x]]), 8, (20, 100)).tolist() == [kept]


@examples(200)
@given(
    st.integers(1, 60), st.integers(1, 60), st.integers(1, 20),
    st.lists(st.tuples(st.integers(0, 240), st.integers(0, 240)), max_size=20),
)  # fmt: skip
def test_kept_cells_and_windows_are_those_of_the_restatement(height, width, half, quarters):
    cells = centers(np.array(quarters, dtype=float) / 4)
    kept = inside_image(cells, 2 * half, (height, width))
    assert kept.tolist() == [restatement.is_kept(xy, 2 * half, (height, width)) for xy in cells.xy]
    corners = window_corners(cells, 2 * half)
    assert [(y, x) for x, y in corners.tolist()] == [restatement.corner(xy, 2 * half) for xy in cells.xy]
    # the window of a kept cell lies inside the image
    inside = corners[kept]
    assert (inside >= 0).all()
    assert (inside + 2 * half <= [width, height]).all()


# --- drawing ----------------------------------------------------------------------------------------------------------


@examples(100)
@given(st.integers(1, 200), st.integers(0, 2**32), st.data())
def test_a_preview_has_exactly_as_many_cells_as_asked_for(n, seed, data):
    ids = np.sort(np.random.default_rng(seed).choice(2**50, n, replace=False)).astype(np.uint64) + 1
    cells = centers(np.random.default_rng(seed).random((n, 2)), ids)
    n_cells = data.draw(st.integers(1, n))
    drawn = sample_cells(cells, n_cells, seed)
    expected = np.sort(np.random.default_rng(seed).choice(ids, n_cells, replace=False))
    assert drawn.ids.tolist() == expected.tolist()
    assert drawn.xy.tolist() == cells.xy[np.searchsorted(ids, drawn.ids)].tolist()
    again = sample_cells(cells, np.int32(n_cells), seed)
    assert again.ids.tolist() == drawn.ids.tolist()


def test_another_seed_draws_other_cells():
    cells = centers(np.zeros((1000, 2)))
    assert sample_cells(cells, 50, 1).ids.tolist() != sample_cells(cells, 50, 2).ids.tolist()


@pytest.mark.parametrize("n_cells", [None, 0, -3, True, 2.5, "5"])
def test_a_preview_without_a_usable_number_says_how_many_there_are(n_cells):
    with pytest.raises(ConfigError, match=rf"needs n_cells, an integer from 1 to 7 .*; got {n_cells!r}"):
        sample_cells(centers(np.zeros((7, 2))), n_cells, 42)


def test_a_preview_of_more_cells_than_there_are_says_how_many_there_are():
    with pytest.raises(ConfigError, match="n_cells = 8 is more than the 7 cells that can be extracted"):
        sample_cells(centers(np.zeros((7, 2))), 8, 42)


# --- tiles ------------------------------------------------------------------------------------------------------------


@examples(200)
@given(
    st.tuples(st.integers(1, 20000), st.integers(1, 20000)),
    st.lists(st.tuples(st.integers(1, 6000), st.integers(1, 6000)), min_size=1, max_size=3),
    st.integers(1, 400),
    st.integers(1, 2**33),
)
def test_tiles_are_whole_chunks_within_the_memory_limit(shape, chunks, bytes_per_pixel, limit):
    tile = tile_shape(shape, chunks, bytes_per_pixel=bytes_per_pixel, limit=limit)
    free = tile_shape(shape, chunks, bytes_per_pixel=bytes_per_pixel, limit=2**62)
    for axis in (0, 1):
        chunk = max(sides[axis] for sides in chunks)
        # without a limit: whole chunks of the largest array, as many as fit TILE_SIDE but at least one, or the image
        assert free[axis] == shape[axis] or free[axis] % chunk == 0
        assert free[axis] <= max(TILE_SIDE, chunk)
        assert free[axis] > TILE_SIDE // 2 or free[axis] == shape[axis]
        assert 1 <= tile[axis] <= free[axis]
    assert tile[0] * tile[1] * bytes_per_pixel <= max(limit, bytes_per_pixel)
    if free[0] * free[1] * bytes_per_pixel <= limit:
        assert tile == free


def test_a_tile_shrinks_no_more_than_it_must():
    assert tile_shape((5000, 5000), [(1000, 1000)], bytes_per_pixel=10, limit=40_000_000) == (2000, 2000)
    assert tile_shape((5000, 5000), [(1000, 1000)], bytes_per_pixel=10, limit=39_999_999) == (1000, 2000)
    assert tile_shape((9000, 9000), [(5000, 5000)], bytes_per_pixel=14, limit=100 * 2**20) == (2500, 2500)


def test_batches_are_limited_by_cells_and_by_bytes():
    assert cells_per_batch(1000, 1) == 1000
    assert cells_per_batch(1000, BATCH_BYTES // 10) == 10
    assert cells_per_batch(1000, BATCH_BYTES * 10) == 1


# --- batches ----------------------------------------------------------------------------------------------------------


@st.composite
def jobs(draw):
    """Kept cells of an image, and how they are to be divided."""
    size = 2 * draw(st.integers(1, 30))
    height, width = size + draw(st.integers(2, 500)), size + draw(st.integers(2, 500))
    chunks = draw(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=1, max_size=3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_cells = draw(st.integers(1, 300))
    spread = draw(st.sampled_from([1.0, 0.1]))
    xy = rng.random((n_cells, 2)) * [width, height] * spread + [size // 2, size // 2]
    cells = centers(xy, np.sort(rng.choice(2**40, n_cells, replace=False)) + 1)
    cells = cells[inside_image(cells, size, (height, width))]
    tile = tile_shape((height, width), chunks, bytes_per_pixel=1, limit=draw(st.sampled_from([2**40, 10**4, 300, 1])))
    return cells, size, (height, width), tile, np.max(chunks, axis=0).tolist(), draw(st.integers(1, 100))


def planned(job):
    cells, size, shape, tile, chunk, max_batch_size = job
    return plan_batches(cells, size, shape, tile=tile, chunk=tuple(chunk), max_batch_size=max_batch_size)


@examples(200)
@given(jobs().filter(lambda job: len(job[0]) > 0))
def test_batches_keep_their_promises(job):
    cells, size, (height, width), tile, _, max_batch_size = job
    batches = planned(job)
    # every cell once, with its own id and window
    rows = np.concatenate([batch.rows for batch in batches])
    assert np.sort(rows).tolist() == list(range(len(cells)))
    assert np.concatenate([batch.ids for batch in batches]).tolist() == cells.ids[rows].tolist()
    corners = [(y, x) for batch in batches for y, x in zip(batch.tops.tolist(), batch.lefts.tolist(), strict=True)]
    assert corners == [restatement.corner(xy, size) for xy in cells.xy[rows]]
    image = Rect(0, height, 0, width)
    for batch in batches:
        assert 1 <= len(batch) <= max_batch_size
        assert (np.diff(batch.rows) > 0).all()
        area, region = batch.tile.area, batch.tile.region
        assert image.holds(area)
        assert image.holds(region)
        assert (area.top % tile[0], area.left % tile[1]) == (0, 0)
        # a reader keeps strips as wide as a window: no further may a region reach, and never below or to the right
        assert area.top - region.top < size
        assert area.left - region.left < size
        assert region.bottom <= area.bottom
        assert region.right <= area.right
        for top, left in zip(batch.tops.tolist(), batch.lefts.tolist(), strict=True):
            assert region.holds(Rect(top, top + size, left, left + size))
            assert area.holds(Rect(top + size - 1, top + size, left + size - 1, left + size))


@examples(100)
@given(jobs().filter(lambda job: len(job[0]) > 0))
def test_a_region_is_what_cells_from_here_on_need_and_no_more_than_whole_chunks(job):
    _, size, _, _, chunk, _ = job
    by_tile: dict[Rect, list] = {}
    for batch in planned(job):
        by_tile.setdefault(batch.tile.area, []).append(batch)
    for area, batches in by_tile.items():
        for first, batch in enumerate(batches):
            region, rest = batch.tile.region, batches[first:]
            top, left = (min(getattr(other, side).min() for other in rest) for side in ("tops", "lefts"))
            bottom, right = (max(getattr(other, side).max() for other in rest) + size for side in ("tops", "lefts"))
            needs = (top, bottom, area.top, area.bottom), (left, right, area.left, area.right)
            got = (region.top, region.bottom), (region.left, region.right)
            for (start, end, least, last), (begin, stop), side in zip(needs, got, chunk, strict=True):
                assert begin == start if start <= least else least <= begin <= start < begin + side
                assert end <= stop <= last
                assert stop < end + side


@examples(50)
@given(jobs().filter(lambda job: len(job[0]) > 0))
def test_a_tile_is_walked_from_top_to_bottom(job):
    for before, after in itertools.pairwise(planned(job)):
        if before.tile.area == after.tile.area:
            assert before.tops.max() <= after.tops.min()
            assert before.tile.region.holds(after.tile.region)


def dense(tiles: tuple[int, int], tile: int, per_tile: int = 3):
    """A batch list of an image with cells everywhere."""
    height, width = tiles[0] * tile, tiles[1] * tile
    y, x = np.mgrid[0 : tiles[0] * per_tile, 0 : tiles[1] * per_tile] * (tile / per_tile) + tile / (2 * per_tile)
    order = np.random.default_rng(5).permutation(x.size)
    cells = centers(np.stack([x.ravel(), y.ravel()], axis=1)[order])
    cells = cells[inside_image(cells, 4, (height, width))]
    return plan_batches(cells, 4, (height, width), tile=(tile, tile), chunk=(tile, tile), max_batch_size=4)


@pytest.mark.parametrize("tiles", [(1, 1), (1, 20), (20, 1), (5, 7), (4, 8), (6, 19)])
def test_neighbours_follow_each_other(tiles):
    batches = dense(tiles, 60)
    areas = list(dict.fromkeys(batch.tile.area for batch in batches))
    # each tile is visited once: its batches stand together
    visits = 1 + sum(a.tile.area != b.tile.area for a, b in itertools.pairwise(batches))
    assert visits == len(areas) == tiles[0] * tiles[1]
    turn = {(area.top // 60, area.left // 60): at for at, area in enumerate(areas)}
    for (row, column), at in turn.items():
        # strips some tiles wide, row by row: the tile to the left was the one before, the tile above not long ago
        if column % TILES_ABREAST:
            assert turn[row, column - 1] == at - 1
        if row:
            assert 0 < at - turn[row - 1, column] <= TILES_ABREAST


def test_a_tiles_cells_are_divided_evenly():
    cells = centers(np.full((1001, 2), 50.0))
    batches = plan_batches(cells, 4, (100, 100), tile=(100, 100), chunk=(100, 100), max_batch_size=1000)
    assert [len(batch) for batch in batches] == [501, 500]


def test_a_batch_says_which_cells_it_holds():
    cells = centers([[50, 50], [51, 50]], [7, 2**40])
    (batch,) = plan_batches(cells, 4, (100, 100), tile=(100, 100), chunk=(10, 10), max_batch_size=9)
    assert str(batch) == "2 cells, ids 7 to 1099511627776"
