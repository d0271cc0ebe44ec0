"""Kernels against the plain restatement: every float16 bit of every plane must be the same."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

import restatement
from cellstamp.cells.kernels.blur import gaussian_weights
from cellstamp.cells.kernels.crops import cut_stamps, new_scratch
from cellstamp.cells.kernels.holes import fill_holes
from cellstamp.cells.kernels.quantiles import normalise
from cellstamp.cells.kernels.rounding import round_to_half
from cellstamp.source.outlines import NO_OUTLINES
from examples import examples

pytestmark = pytest.mark.once

QUANTILES = [(0.0, 1.0), (0.001, 0.999), (0.4, 0.6), (0.25, 0.2500001), (0.0, 0.5), (0.9, 1.0), (0.99999, 1.0), None]
# Not every pair of types: each is compiled on its own, and what depends on a type depends on only one of the two.
TYPES = [
    (np.uint32, np.uint16),
    (np.uint32, np.uint8),
    (np.uint64, np.uint16),
    (np.uint32, np.float32),
    (np.uint32, np.float64),
]
DTYPES = ["float16", "float32", "uint8", "uint16"]
SIZES = st.one_of(st.sampled_from([2, 4, 6, 8, 10]), st.integers(1, 40).map(lambda half: 2 * half), st.just(128))


class Cutter:
    """Cuts into buffers that stay what the last call made them, as a worker does."""

    def __init__(self, n_cells: int, n_planes: int, size: int, dtype: str = "float16") -> None:
        self.dtype = dtype
        in_memory = np.uint16 if dtype == "float16" else dtype
        self.stamps = np.zeros((n_cells, n_planes, size, size), in_memory)
        self.boxes = np.zeros((n_cells, n_planes, 4), np.int64)
        self.on_edge = np.zeros(n_cells, np.bool_)
        self.scratch: tuple = ()

    def cut(self, scene: Scene) -> np.ndarray:
        ids = np.array(scene.ids, scene.labels.dtype)
        tops, lefts = np.array(scene.corners, np.int64).T
        levels = float(np.iinfo(self.dtype).max) if self.dtype.startswith("uint") else 1.0
        how = (scene.apply_masks, scene.limits is None and scene.quantiles is not None, scene.pairs(), levels)
        n_masks = len(scene.labels)
        self.scratch = self.scratch or new_scratch(n_masks, self.stamps.shape[2])
        planes = np.arange(n_masks)
        args = (scene.labels, scene.image, ids, tops, lefts, (planes, np.zeros(2, np.int64), NO_OUTLINES.arrays), how)
        cut_stamps(*args, self.stamps, self.boxes, self.on_edge, None, self.scratch)
        return self.stamps[: ids.size].view(self.dtype)


@dataclass
class Scene:
    """Labels (n_masks, y, x) and image (c, y, x), and the windows to cut: ids and first (row, column)."""

    size: int
    labels: np.ndarray
    image: np.ndarray
    ids: list[int]
    corners: list[tuple[int, int]]
    quantiles: tuple[float, float] | None
    apply_masks: bool = True
    limits: list[tuple[float, float]] | None = None

    def pairs(self) -> np.ndarray:
        largest = 1.0 if self.image.dtype.kind == "f" else float(np.iinfo(self.image.dtype).max)
        return np.array(self.limits or [self.quantiles or (0.0, largest)] * len(self.image), np.float64)

    def windows(self) -> list[tuple]:
        return [(..., slice(top, top + self.size), slice(left, left + self.size)) for top, left in self.corners]

    def reaches_edge(self) -> list[bool]:
        here = [self.labels[-1][window] == cell for cell, window in zip(self.ids, self.windows(), strict=True)]
        return [bool(m[0].any() or m[-1].any() or m[:, 0].any() or m[:, -1].any()) for m in here]

    def expected(self, dtype: str) -> np.ndarray:
        stamps = []
        how = {"apply_masks": self.apply_masks, "limits": self.limits, "dtype": dtype}
        for cell, window in zip(self.ids, self.windows(), strict=True):
            cell = self.labels.dtype.type(cell)
            stamps.append(restatement.stamp(self.labels[window], self.image[window], cell, self.quantiles, **how))
        return np.stack(stamps)


def zero_outside(stamps: np.ndarray, boxes: np.ndarray) -> bool:
    rest = stamps.copy()
    for index in np.ndindex(stamps.shape[:2]):
        top, bottom, left, right = boxes[index]
        assert 0 <= top <= bottom <= stamps.shape[2]
        assert 0 <= left <= right <= stamps.shape[3]
        rest[index][top:bottom, left:right] = 0
    return not rest.any()


def assert_as_restated(scene: Scene, cutter: Cutter | None = None) -> None:
    n_planes = len(scene.labels) + len(scene.image)
    cutter = cutter or Cutter(len(scene.ids), n_planes, scene.size)
    got = cutter.cut(scene)
    assert restatement.same_bits(got, scene.expected(cutter.dtype))
    assert cutter.on_edge[: len(scene.ids)].tolist() == scene.reaches_edge()
    assert zero_outside(cutter.stamps, cutter.boxes)


# --- drawn scenes -----------------------------------------------------------------------------------------------------


@st.composite
def shapes(draw, height: int, width: int, n_ids: int):
    """One shape: which id it paints (0 erases: holes and gaps), and a boolean (height, width) of where."""
    cell = draw(st.integers(0, n_ids))
    y, x = np.ogrid[:height, :width]
    cy, cx = draw(st.integers(-2, height + 1)), draw(st.integers(-2, width + 1))
    ry, rx = (draw(st.integers(0, max(1, side * 2 // 3))) for side in (height, width))
    kind = draw(st.sampled_from(["box", "disc", "ring", "frame", "diagonal", "dots", "pixel"]))
    if kind == "box":
        return cell, (abs(y - cy) <= ry) & (abs(x - cx) <= rx)
    if kind == "disc":
        return cell, ((y - cy) / (ry + 0.5)) ** 2 + ((x - cx) / (rx + 0.5)) ** 2 <= 1
    if kind == "ring":
        distance = np.hypot(y - cy, x - cx)
        return cell, (distance <= ry) & (distance > ry - 1 - rx // 4)
    if kind == "frame":
        return cell, np.maximum(abs(y - cy), abs(x - cx)) == ry
    if kind == "diagonal":
        return cell, (y - cy == x - cx) | (y - cy == cx - x) | np.zeros((height, width), bool)
    if kind == "dots":
        rng = np.random.default_rng(draw(st.integers(0, 2**32)))
        return cell, rng.random((height, width)) < draw(st.sampled_from([0.02, 0.3, 0.5, 0.7, 0.98]))
    return cell, (y == cy) & (x == cx)


@st.composite
def masks(draw, height: int, width: int, ids: list[int], dtype):
    labels = np.zeros((height, width), dtype)
    for index, where in draw(st.lists(shapes(height, width, len(ids)), max_size=6)):
        labels[where] = dtype([0, *ids][index])
    return labels


@st.composite
def channels(draw, height: int, width: int, dtype):
    if np.dtype(dtype).kind == "f":
        # numbers with every bit of their type, some of them equal
        return (draw(channels(height, width, np.uint32)) / 2**32).astype(dtype)
    largest = int(np.iinfo(dtype).max)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["noise", "constant", "zero", "saturated", "dim", "sparse", "ramp", "half saturated"]))
    if kind == "noise":
        return rng.integers(0, largest, (height, width), dtype, endpoint=True)
    if kind in ("constant", "zero", "saturated"):
        value = {"constant": draw(st.integers(1, largest)), "zero": 0, "saturated": largest}[kind]
        return np.full((height, width), value, dtype)
    if kind == "dim":
        return rng.integers(0, 4, (height, width), dtype)
    if kind == "sparse":
        return np.where(rng.random((height, width)) < 0.05, dtype(largest), dtype(0))
    if kind == "ramp":
        return (np.arange(height * width, dtype=np.uint64) % np.uint64(largest)).astype(dtype).reshape(height, width)
    noise = rng.integers(0, largest, (height, width), dtype, endpoint=True)
    return np.maximum(noise, dtype(largest // 2)) * dtype(2) | dtype(1)


@st.composite
def quantile_ranges(draw):
    if draw(st.booleans()):
        return draw(st.sampled_from(QUANTILES))
    lower, upper = sorted(draw(st.tuples(st.floats(0, 1), st.floats(0, 1)).filter(lambda pair: pair[0] != pair[1])))
    return lower, upper


@st.composite
def scenes(draw, size=None, types=None, n_masks=None, n_channels=None):
    size = size or draw(SIZES)
    label_type, image_type = types or draw(st.sampled_from(TYPES))
    largest = int(np.iinfo(label_type).max) // 2
    ids = draw(st.lists(st.integers(1, largest), min_size=1, max_size=3, unique=True))
    height, width = size + draw(st.integers(0, 9)), size + draw(st.integers(0, 9))
    corners = [(draw(st.integers(0, height - size)), draw(st.integers(0, width - size))) for _ in ids]
    n_masks, n_channels = n_masks or draw(st.integers(1, 2)), n_channels or draw(st.integers(1, 3))
    labels = np.stack([draw(masks(height, width, ids, label_type)) for _ in range(n_masks)])
    image = np.stack([draw(channels(height, width, image_type)) for _ in range(n_channels)])
    return Scene(size, labels, image, ids, corners, draw(quantile_ranges()), apply_masks=draw(st.booleans()))


@examples(200)
@given(scenes())
def test_stamps_are_those_of_the_restatement(scene):
    assert_as_restated(scene)


@examples(100)
@given(scenes(types=(np.uint32, np.uint16)), st.sampled_from(DTYPES), st.data())
def test_stamps_of_every_dtype_and_of_fixed_limits(scene, dtype, data):
    limits = st.tuples(st.floats(0, 70000), st.floats(0, 70000)).map(sorted)
    scene.limits = data.draw(st.none() | st.lists(limits, min_size=len(scene.image), max_size=len(scene.image)))
    assert_as_restated(scene, Cutter(len(scene.ids), len(scene.labels) + len(scene.image), scene.size, dtype))


@pytest.mark.parametrize("apply_masks", [True, False])
def test_limits_that_nearly_are_one(apply_masks):
    labels, image = np.zeros((1, 2, 2), np.uint32), np.array([[[0, 55746], [60367, 41743]]], np.uint16)
    assert_as_restated(Scene(2, labels, image, [1], [(0, 0)], None, apply_masks, [(0.0, 2.3e-311)]))


def test_without_masks_a_window_of_integers_is_the_pixels_themselves():
    rng = np.random.default_rng(0)
    for dtype in ("uint8", "uint16"):
        image = rng.integers(0, np.iinfo(dtype).max, (2, 30, 30), dtype, endpoint=True)
        labels = np.zeros((1, 30, 30), np.uint32)
        labels[0, 12:20, 10:22] = 1
        cutter = Cutter(1, 3, 16, dtype)
        stamps = cutter.cut(Scene(16, labels, image, [1], [(5, 7)], None, apply_masks=False))
        assert np.array_equal(stamps[0, 1:], image[:, 5:21, 7:23])


@examples(60)
@given(st.data())
def test_buffers_are_used_again_and_again(data):
    size = data.draw(SIZES)
    common = {"size": size, "types": TYPES[0], "n_masks": 2, "n_channels": 2}
    cutter = Cutter(3, 4, size)
    for scene in data.draw(st.lists(scenes(**common), min_size=2, max_size=4)):
        assert_as_restated(scene, cutter)


@examples(150)
@given(hnp.arrays(np.bool_, st.sampled_from([(2, 2), (4, 4), (6, 6), (8, 8), (10, 10)])), st.sampled_from(QUANTILES))
def test_any_small_mask(mask, quantiles):
    image = np.random.default_rng(mask.sum()).integers(0, 2**16, (1, *mask.shape), np.uint16)
    scene = Scene(len(mask), mask[np.newaxis].astype(np.uint32) * 7, image, [7], [(0, 0)], quantiles)
    assert_as_restated(scene)


@pytest.mark.parametrize("size", [2, 4, 30, 64, 130, 256])
@pytest.mark.parametrize(
    "fill", ["empty", "full", "one pixel", "one corner", "edges", "disc", "nested rings", "spiral", "closed spiral"]
)
def test_every_size_of_crop(size, fill):
    y, x = np.mgrid[:size, :size]
    distance = np.hypot(y - size / 2, x - size / 2)
    mask = {
        "empty": distance < 0,
        "full": distance >= 0,
        "one pixel": (y == size // 2) & (x == size // 3),
        "one corner": (y == size - 1) & (x == 0),
        "edges": (np.minimum(y, x) == 0) | (np.maximum(y, x) == size - 1),
        "disc": distance < 0.3 * size,
        "nested rings": np.floor(distance) % 6 < 2,
        "spiral": spiral(size),
        "closed spiral": spiral(size) | ((x == 0) & (y == 1)),
    }[fill]
    rng = np.random.default_rng(size)
    image = rng.integers(0, 2**16, (2, size, size), np.uint16)
    labels = np.stack([mask, ndimage.binary_dilation(mask)]).astype(np.uint32)
    for quantiles in (*QUANTILES[:4], None):
        assert_as_restated(Scene(size, labels, image, [1], [(0, 0)], quantiles))


def test_every_size_of_crop_at_every_edge_of_a_larger_image():
    rng = np.random.default_rng(3)
    labels = np.zeros((1, 40, 50), np.uint32)
    labels[0, 10:30, 15:40] = 9
    labels[0, 14:20, 20:30] = 0
    image = rng.integers(0, 2**16, (1, 40, 50), np.uint16)
    # windows that cut the cell at each side, also through its hole
    corners = [(top, left) for top in (0, 5, 17, 24) for left in (0, 12, 25, 34)]
    assert_as_restated(Scene(16, labels, image, [9] * len(corners), corners, (0.01, 0.99)))


def test_a_cell_without_pixels_in_its_cell_mask_has_empty_channels():
    labels = np.zeros((2, 20, 20), np.uint32)
    labels[0, 5:12, 5:12] = 4
    labels[1, 5:12, 5:12] = 5
    image = np.full((1, 20, 20), 1000, np.uint16)
    cutter = Cutter(2, 3, 16)
    assert_as_restated(Scene(16, labels, image, [4, 5], [(1, 1), (1, 1)], (0.0, 1.0)), cutter)
    assert cutter.stamps[:, :, 8, 8].astype(bool).tolist() == [[True, False, False], [False, True, True]]
    # an empty box is how it is told that the cell mask has no pixel here
    assert cutter.boxes[0, 2].tolist() == [0, 0, 0, 0]


def spiral(size: int) -> np.ndarray:
    """A wall one pixel thick along a corridor that leads from the edge to the middle: the longest way for a filler."""
    wall = np.zeros((size, size), bool)

    def free(y: int, x: int, steps: int) -> bool:
        y, x = y + steps * dy, x + steps * dx
        return not (0 <= y < size and 0 <= x < size) or not wall[y, x]

    y, x, dy, dx = 0, 0, 0, 1
    wall[y, x] = turned = True
    while True:
        while 0 <= y + dy < size and 0 <= x + dx < size and free(y, x, 1) and free(y, x, 2):
            y, x, turned = y + dy, x + dx, False
            wall[y, x] = True
        if turned:
            return wall
        dy, dx, turned = dx, -dy, True


# --- single kernels ---------------------------------------------------------------------------------------------------


def test_weights_are_those_of_scipy():
    one = np.zeros(21)
    one[10] = 1
    assert gaussian_weights().tolist() == ndimage.gaussian_filter1d(one, 1, truncate=4)[10:15].tolist()


@examples(300)
@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 2**32), st.floats(0.3, 0.95))
@example(3, 3, 0, 0.95)
def test_holes_are_those_of_scipy(height, width, seed, density):
    mask = (np.random.default_rng(seed).random((height, width)) < density).astype(np.uint8)
    expected = ndimage.binary_fill_holes(mask)
    fill_holes(mask, np.empty((height * width // 2 + 1, 3), np.int64))
    assert np.array_equal(mask, expected)


def test_holes_of_every_mask_of_4_by_4_pixels():
    gaps = np.empty((8, 3), np.int64)
    for inner in itertools.product([0, 1], repeat=4):
        # only the inner pixels can be holes; of the outer ones each matters by itself
        for outer in range(0, 2**12, 7):
            bits = [outer >> k & 1 for k in range(12)]
            mask = np.array(
                [bits[:4], [bits[4], *inner[:2], bits[5]], [bits[6], *inner[2:], bits[7]], bits[8:]], np.uint8
            )
            expected = ndimage.binary_fill_holes(mask)
            fill_holes(mask, gaps)
            assert np.array_equal(mask, expected)


@pytest.mark.parametrize("n_pixels", [1, 2, 4, 64, 65, 130, 400])
@pytest.mark.parametrize("kind", ["noise", "ties", "zeros"])
def test_every_rank_and_what_lies_between(n_pixels, kind):
    rng = np.random.default_rng(n_pixels)
    numbers = {
        "noise": rng.random(n_pixels) * 1e5,
        "ties": rng.integers(0, 4, n_pixels) / 3,
        "zeros": np.zeros(n_pixels),
    }
    work = np.empty(n_pixels + 128)
    for count in sorted({0, 1, n_pixels // 2, n_pixels - 1, n_pixels}):
        window = np.zeros(n_pixels)
        window[:count] = numbers[kind][:count]
        at = np.unique(np.concatenate([np.linspace(0, 1, 2 * n_pixels + 1), rng.random(20), [1e-9, 1 - 1e-9]]))
        for lower, upper in itertools.pairwise(at):
            values = window.copy()
            normalise(values, count, n_pixels, lower, upper, work)
            expected = restatement.normalised(window, (lower, upper))
            assert np.array_equal(values[:count], expected[:count])
            # what is not listed is taken to be 0 afterwards too
            assert not expected[count:].any()


def as_halves(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    halves = np.empty(values.size, np.uint16)
    round_to_half(values, values.view(np.uint64), values.size, halves)
    return halves


def test_rounding_at_every_float16_and_at_every_tie():
    # every float16 from 0 to 65504, subnormal ones included; the middle between neighbours is a tie, exact in float64
    halves = np.arange(0x7C00, dtype=np.uint16)
    exact = halves.view(np.float16).astype(np.float64)
    ties = (exact[1:] + exact[:-1]) / 2
    assert np.array_equal(as_halves(exact), halves)
    for values in (ties, np.nextafter(ties, 0), np.nextafter(ties, np.inf), np.nextafter(exact[:-1], np.inf)):
        assert np.array_equal(as_halves(values), values.astype(np.float16).view(np.uint16))
    assert np.array_equal(as_halves(np.nextafter(exact[1:], 0)), halves[1:])


@examples(200)
@given(hnp.arrays(np.float64, 50, elements=st.one_of(st.floats(0, 65504), st.floats(0, 1e-4), st.floats(0, 1))))
def test_rounding_of_anything(values):
    values = np.abs(values)
    assert np.array_equal(as_halves(values), values.astype(np.float16).view(np.uint16))
