"""Kernels of features against scikit-image and numpy: integers are equal, floats up to rounding."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.measure import regionprops_table

from cellstamp.cells.kernels.crops import cut_stamps
from cellstamp.cells.kernels.crops import new_scratch as new_crop_scratch
from cellstamp.cells.kernels.masks import new_mask_scratch
from cellstamp.cells.kernels.measure import kinds_of, measure_cells, n_measured, new_scratch
from cellstamp.features.declared import SHAPES, declared_features
from cellstamp.source.outlines import NO_OUTLINES
from examples import examples

pytestmark = pytest.mark.once

PROPERTIES = tuple(dict.fromkeys(shape.name.split("-")[0] for shape in SHAPES))
INTEGERS = {"area", "bbox-0", "bbox-1", "bbox-2", "bbox-3"}
CELL = 7
TYPES = [(np.uint32, np.uint16), (np.uint64, np.uint8), (np.uint32, np.float32), (np.uint32, np.float64)]


def measure(labels: np.ndarray, image: np.ndarray, **groups: bool) -> dict[str, float]:
    """All features of a cell in a window that is the complete image, by name."""
    height, width = labels.shape[1:]
    (found,), (is_cut,) = measure_windows(labels, image, np.array([[0, 0, height, width]]), **groups)
    assert is_cut.tolist() == [mask[[0, -1]].any() or mask[:, [0, -1]].any() for mask in labels == CELL]
    return found


def measure_windows(
    labels: np.ndarray, image: np.ndarray, windows: np.ndarray, **groups: bool
) -> tuple[list[dict[str, float]], np.ndarray]:
    """All features in windows (n, 4): first row and column, height and width; and whether these cut each mask off."""
    n_masks, n_windows = len(labels), len(windows)
    masks, names = ("nucleus", "cell")[-n_masks:], [f"c{number}" for number in range(len(image))]
    chosen = [name for name, is_on in groups.items() if is_on] or ["shape", "intensity"]
    features = declared_features(chosen, masks, names)
    on = {"shapes": "shape" in chosen, "intensities": "intensity" in chosen}
    out = np.full((n_windows, n_measured(n_masks, len(image), **on)), -1.0)
    assert out.shape[1] == len(features)
    ids, size = np.full(n_windows, CELL, labels.dtype), int(windows[:, 2:].max())
    is_cut, is_empty = np.empty((2, n_windows, n_masks), np.bool_)
    windows = np.hstack([windows, np.ones_like(windows)])
    groups, scratch = (on["shapes"], on["intensities"]), new_scratch(n_masks, len(image), size, image.dtype)
    measuring = windows, groups, kinds_of(image.dtype), out, is_cut, is_empty, scratch
    outlines = (np.arange(n_masks), np.zeros(2, np.int64), NO_OUTLINES.arrays)
    measure_cells(labels, image, ids, outlines, measuring, new_mask_scratch(n_masks, size))
    return [dict(zip((feature.name for feature in features), row.tolist(), strict=True)) for row in out], is_cut


def filled(labels: np.ndarray) -> np.ndarray:
    return np.stack([ndimage.binary_fill_holes(mask == CELL) for mask in labels])


def expected_shape(mask: np.ndarray) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = regionprops_table(mask.astype(np.uint8), properties=PROPERTIES)
    return {name: float(values[0]) for name, values in table.items()}


def assert_shape(found: dict[str, float], expected: dict[str, float]) -> None:
    for name in INTEGERS:
        assert found[name] == expected[name], name
    length = expected["axis_major_length"]
    # rounding errors of scikit-image: it subtracts variances, and takes roots of the difference
    loose = {"axis_minor_length": 1e-6 * length, "eccentricity": 1e-6, "axis_major_length": 1e-9}
    for name in expected:
        if name == "orientation":
            continue
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=loose.get(name, 0), err_msg=name)
    if expected["eccentricity"] > 1e-3:  # a circle has no orientation
        turned = found["orientation"] - expected["orientation"]
        assert abs(np.sin(turned)) < 1e-6, "orientation"  # +90 and -90 degrees are the same


def expected_values(values: np.ndarray) -> dict[str, float]:
    values = values.astype(np.float64)
    if not values.size:
        names = ["mean", "std", "min", "max", "median", *(f"quantile-{share}" for share in SHARES)]
        return {**dict.fromkeys(names, np.nan), "sum": 0.0}
    return {
        "mean": values.mean(),
        "std": values.std(),
        "min": values.min(),
        "max": values.max(),
        "sum": values.sum(),
        "median": float(np.median(values)),
        **{f"quantile-{share}": float(np.quantile(values, share)) for share in SHARES},
    }


LARGEST = {np.uint8: 255, np.uint16: 65535, np.float32: 2**24, np.float64: 2**40}
SHARES = (0.05, 0.25, 0.75, 0.95)


@st.composite
def drawn_masks(draw: Any, n_masks: int = 2) -> np.ndarray:
    """Masks of any form, from single pixels to blobs: with holes, in pieces, on the edge, or empty."""
    # kernels take 64 columns at a time
    shape = draw(st.tuples(st.integers(2, 40), st.one_of(st.integers(2, 40), st.integers(60, 200))))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    masks = []
    for _ in range(n_masks):
        noise = ndimage.gaussian_filter(rng.standard_normal(shape), draw(st.sampled_from([0, 0.7, 1.5, 4])))
        masks.append(noise > np.quantile(noise, draw(st.sampled_from([0.0, 0.3, 0.7, 0.95, 1.0]))))
    return np.stack(masks).astype(np.uint32) * CELL


@given(drawn_masks())
@examples(800)
def test_shapes_are_those_of_scikit_image(labels: np.ndarray) -> None:
    found = measure(labels, np.zeros((1, *labels.shape[1:]), np.uint16), shape=True)
    masks = filled(labels)
    for mask, prefix in zip(masks, ("nucleus", "cell"), strict=True):
        own = {name.removeprefix(f"{prefix}__"): value for name, value in found.items() if name.startswith(prefix)}
        if mask.any():
            assert_shape(own, expected_shape(mask))
        else:
            assert own["area"] == 0
            assert all(np.isnan(value) for name, value in own.items() if name not in ("area", "area_ratio"))
    nucleus, cell = masks.sum(axis=(1, 2))
    assert found["nucleus__area_ratio"] == pytest.approx(nucleus / cell if cell else np.nan, nan_ok=True)


@pytest.mark.parametrize(
    "mask",
    [
        np.ones((1, 1)),
        np.ones((1, 9)),
        np.ones((9, 1)),
        np.eye(12),
        np.eye(12)[::-1],
        np.ones((8, 8)),
        np.pad(np.zeros((5, 5)), 2, constant_values=1),  # a ring: its hole is filled
        np.add.outer(np.arange(15), np.arange(15)) < 15,
        np.kron(np.eye(2), np.ones((3, 3))),  # two pieces that touch at a corner
        np.kron(np.array([[1, 0], [0, 0], [0, 1]]), np.ones((3, 3))),  # rows between two pieces are empty
        np.hypot(*np.mgrid[-150:151, -150:151]) < 150,
    ],
)
def test_shapes_of_special_masks(mask: np.ndarray) -> None:
    labels = np.pad(mask, 3).astype(np.uint32)[None] * CELL
    found = measure(labels, np.zeros((1, *labels.shape[1:]), np.uint16), shape=True)
    assert_shape(
        {name.removeprefix("cell__"): value for name, value in found.items()}, expected_shape(filled(labels)[0])
    )


@pytest.mark.parametrize(("of_labels", "of_image"), TYPES)
@given(st.data())
@example(None)
@examples(300)
def test_intensities_are_those_of_numpy(of_labels: Any, of_image: Any, data: Any) -> None:
    labels = np.full((2, 3, 3), CELL, np.uint32) if data is None else data.draw(drawn_masks())
    rng = np.random.default_rng(0 if data is None else data.draw(st.integers(0, 2**32)))
    most = (
        3 if data is None else min(data.draw(st.sampled_from([1, 2, 5, 255, 8192, 2**50])), LARGEST[of_image])
    )  # few values: many are equal
    image = rng.integers(0, most, (2, *labels.shape[1:]), endpoint=True).astype(of_image)
    found = measure(labels.astype(of_labels), image, intensity=True)
    nucleus, cell = filled(labels)
    for compartment, mask in (("nucleus", nucleus), ("cell", cell), ("cytoplasm", cell & ~nucleus)):
        for number, channel in enumerate(image):
            for name, value in expected_values(channel[mask]).items():
                own = found[f"{compartment}__intensity_{name}__c{number}"]
                if name in ("min", "max", "sum"):
                    assert own == value or np.isnan(own) & np.isnan(value)
                np.testing.assert_allclose(own, value, rtol=1e-6, atol=1e-12, err_msg=f"{compartment} {name}")


@pytest.mark.parametrize("of_image", [np.uint8, np.uint16, np.float32])
def test_memory_of_earlier_cells_changes_nothing(of_image: Any) -> None:
    rng = np.random.default_rng(1)
    labels, corners = np.zeros((2, 400, 400), np.uint32), []
    for number, side in enumerate([70, 32, 64, 31, 33, 1, 65, 96, 95, 97, 8, 3]):
        y, x = 100 * (number // 4), 100 * (number % 4)
        labels[1, y + 1 : y + 1 + side, x + 1 : x + 1 + side] = CELL * (rng.random((side, side)) < 0.7)
        labels[0, y : y + side // 2, x + side // 3 : x + side] = CELL
        corners.append([y, x, 100, 100])
    image = rng.integers(0, LARGEST[of_image], (2, 400, 400), endpoint=True).astype(of_image)
    windows = np.array(corners)
    together, _ = measure_windows(labels, image, windows)
    alone = [measure_windows(labels, image, window[None])[0][0] for window in windows]
    np.testing.assert_equal(together, alone)


@given(st.data())
@examples(100)
def test_cells_are_measured_alike_while_they_are_cut(data: Any) -> None:
    labels = data.draw(drawn_masks())
    size = 2 * data.draw(st.integers(1, 60))
    labels = np.pad(labels, ((0, 0), (0, size), (0, size)))  # a window at each corner has pixels, and maybe all of one
    image = np.random.default_rng(4).integers(0, 5000, (2, *labels.shape[1:])).astype(np.uint16)
    corners = np.array([[0, 0], [labels.shape[1] - size, 0], [0, labels.shape[2] - size], [1, 1]])
    alone, is_cut = measure_windows(labels, image, np.column_stack([corners, np.full((4, 2), size)]))
    together, on_edge = cut_windows(labels, image, corners, size)
    np.testing.assert_equal(together, np.array([list(each.values()) for each in alone]))
    np.testing.assert_array_equal(on_edge, is_cut)


def cut_windows(labels: np.ndarray, image: np.ndarray, corners: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The same features of square windows from the kernel that cuts them."""
    n_cells, n_masks, n_channels = len(corners), len(labels), len(image)
    windows = np.column_stack([corners, np.full((n_cells, 2), size), np.ones((n_cells, 4), np.int64)])
    out = np.empty((n_cells, n_measured(n_masks, n_channels, shapes=True, intensities=True)))
    is_cut, is_empty = np.empty((2, n_cells, n_masks), np.bool_)
    scratch = new_scratch(n_masks, len(image), size, image.dtype)
    measuring = windows, (True, True), kinds_of(image.dtype), out, is_cut, is_empty, scratch
    stamps, boxes = np.zeros((n_cells, 4, size, size), np.uint16), np.zeros((n_cells, 4, 4), np.int64)
    outlines = (np.arange(n_masks), np.zeros(2, np.int64), NO_OUTLINES.arrays)
    how = (True, True, np.array([[0.0, 1.0]] * n_channels), 1.0)
    ids, tops, lefts = np.full(n_cells, CELL, labels.dtype), *np.ascontiguousarray(corners.T)
    results = stamps, boxes, np.zeros(n_cells, np.bool_), measuring
    cut_stamps(labels, image, ids, tops, lefts, outlines, how, *results, new_crop_scratch(n_masks, size))
    return out, is_cut


@given(hnp.arrays(np.uint16, st.integers(1, 300), elements=st.integers(0, 65535)))
@examples(400)
def test_quantiles_of_any_number_of_values(values: np.ndarray) -> None:
    found = measure(np.full((1, 1, values.size), CELL, np.uint32), values[None, None], intensity=True)
    for name, value in expected_values(values).items():
        assert found[f"cell__intensity_{name}__c0"] == pytest.approx(value, rel=1e-12, abs=1e-12)


def test_cells_of_more_pixels_than_counts_have_bits_for() -> None:
    image = np.random.default_rng(3).integers(0, 3, (1, 300, 300)).astype(np.uint16)
    image[0, :, :280] = 7  # 84,000 equal values
    found = measure(np.full((1, 300, 300), CELL, np.uint32), image, intensity=True)
    for name, value in expected_values(image.ravel()).items():
        assert found[f"cell__intensity_{name}__c0"] == pytest.approx(value, rel=1e-12)


def test_pixels_of_other_cells_and_holes() -> None:
    labels = np.zeros((1, 9, 9), np.uint32)
    labels[0, 2:7, 2:7] = CELL
    labels[0, 3, 3], labels[0, 5, 5], labels[0, 0] = 0, 9, 9  # a hole, a hole with another cell, a neighbour
    image = np.ones((1, 9, 9), np.uint16)
    found = measure(labels, image)
    assert (found["cell__area"], found["cell__intensity_sum__c0"]) == (25, 25)
