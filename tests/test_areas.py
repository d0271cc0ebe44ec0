"""Reading an image at pixels of another size: means of areas and linear interpolation, compared with scikit-image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
from numpy.typing import NDArray

from cellstamp.source.find.pixel_sizes import CropGrid, crop_grid
from cellstamp.source.read.sampled import SampledArray
from cellstamp.source.values import Rect, Way
from pixel_stores import write_array

RNG = np.random.default_rng(3)
IMAGE = RNG.integers(0, 65_536, (2, 90, 120)).astype(np.uint16)


def sampled(folder: Path, scale: Any, image: NDArray[Any] = IMAGE) -> SampledArray:
    handle = write_array(folder / "a.zarr", "images/a/s0", image, (1, 31, 47))
    grid = crop_grid(handle, (1.0, 1.0), scale) if np.isscalar(scale) else crop_grid(handle, scale, 1.0)
    assert grid is not None
    return grid.place(handle, "area")


def every(array: SampledArray) -> Rect:
    return Rect(0, array.shape[-2], 0, array.shape[-1])


def means(image: NDArray[Any], over: int, of: int = 1) -> NDArray[Any]:
    """Means over ``over / of`` pixels, those at the end over fewer."""
    fine = image.astype(np.float64).repeat(of, -1).repeat(of, -2)
    n_rows, n_columns = (int(np.ceil(side / over - 0.5)) for side in fine.shape[-2:])
    return np.stack(
        [
            [
                [plane[over * i : over * (i + 1), over * j : over * (j + 1)].mean() for j in range(n_columns)]
                for i in range(n_rows)
            ]
            for plane in fine
        ]
    )


@pytest.mark.parametrize("factor", [2, 3, 5, 6, 30])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
def test_integer_factors_are_the_means_of_blocks(tmp_path: Path, factor: int, dtype: str) -> None:
    image = (IMAGE if dtype == "uint16" else IMAGE / (257 if dtype == "uint8" else 65_535)).astype(dtype)
    found = sampled(tmp_path, factor, image)
    expected = skimage.measure.block_reduce(image.astype(np.float64), (1, factor, factor), np.mean)
    assert found.shape == expected.shape
    pixels = found.read(every(found))
    assert pixels.dtype == np.dtype(dtype)
    if dtype.startswith("u"):
        np.testing.assert_array_equal(pixels, np.rint(expected))
    else:
        np.testing.assert_allclose(pixels, expected, rtol=1e-6)


@pytest.mark.parametrize(("factor", "of"), [(1.5, 2), (1.25, 4), (2.2, 5), (0.7 / 0.4, 4)])
def test_other_factors_are_means_of_areas(tmp_path: Path, factor: float, of: int) -> None:
    image = (IMAGE / 65_535).astype(np.float64)
    found = sampled(tmp_path, factor, image)
    expected = means(image, round(factor * of), of)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.read(every(found)), expected, rtol=1e-6)


@pytest.mark.parametrize("factor", [0.5, 0.25, 0.2, 0.625, 0.75, 0.9 / 1.2, 1 / 3])
def test_smaller_pixels_are_bilinear(tmp_path: Path, factor: float) -> None:
    image = (IMAGE / 65_535).astype(np.float64)
    found = sampled(tmp_path, factor, image)
    sides = [2, round(90 / factor), round(120 / factor)]
    assert list(found.shape) == sides
    expected = skimage.transform.resize(image, sides, order=1, mode="edge", anti_aliasing=False)
    got = found.read(every(found))
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


def test_integers_are_rounded(tmp_path: Path) -> None:
    found = sampled(tmp_path, 0.5)
    expected = skimage.transform.resize(
        IMAGE, (2, 180, 240), order=1, mode="edge", anti_aliasing=False, preserve_range=True
    )
    np.testing.assert_array_equal(found.read(every(found)), np.rint(expected.round(6)))


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    image = (IMAGE / 65_535).astype(np.float64)
    found = sampled(tmp_path, (2.0, 0.5), image)  # half the pixels in y, double in x
    columns = skimage.measure.block_reduce(image, (1, 1, 2), np.mean)
    expected = skimage.transform.resize(columns, (2, 180, 60), order=1, mode="edge", anti_aliasing=False)
    np.testing.assert_allclose(found.read(every(found)), expected, rtol=1e-9)


@pytest.mark.parametrize("scale", [3, 1.7, 0.6])
def test_pixels_do_not_depend_on_the_area_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: float
) -> None:
    found = sampled(tmp_path, scale)
    complete = found.read(every(found))
    height, width = found.grid
    for rect in (Rect(3, 17, 5, 29), Rect(height - 4, height, width - 7, width), Rect(0, 1, 0, 1)):
        np.testing.assert_array_equal(found.read(rect), complete[:, *rect.slices(every(found))])
    outside = found.read(Rect(-3, 4, -2, 5))
    assert not outside[:, :3].any()
    np.testing.assert_array_equal(outside[:, 3:, 2:], complete[:, :4, :5])
    monkeypatch.setattr("cellstamp.source.read.sampled._PIECE_BYTES", 3_000)
    np.testing.assert_array_equal(found.read(every(found)), complete)


TURNS: dict[str, tuple[Way, Any]] = {
    "mirrored": (((3, 0, 0), (0, -3, 120)), lambda blocks: blocks[:, :, ::-1]),
    "turned": (((0, 3, 0), (-3, 0, 120)), lambda blocks: blocks[:, :, ::-1].swapaxes(1, 2)),
    "exchanged": (((0, 3, 0), (3, 0, 0)), lambda blocks: blocks.swapaxes(1, 2)),
    "shifted": (((3, 0, -6), (0, 3, 9)), lambda blocks: np.pad(blocks, ((0, 0), (2, 0), (0, 0)))[:, :, 3:]),
}


@pytest.mark.parametrize("name", TURNS)
def test_images_with_parallel_axes_are_exact(tmp_path: Path, name: str) -> None:
    way, turn = TURNS[name]
    handle = write_array(tmp_path / "a.zarr", "images/a/s0", IMAGE, (1, 31, 47))
    expected = turn(np.rint(skimage.measure.block_reduce(IMAGE.astype(float), (1, 3, 3), np.mean)))
    found = SampledArray(handle, expected.shape[1:], way, "area")
    np.testing.assert_array_equal(found.read(every(found)), expected)


@pytest.mark.parametrize("degrees", [0.05, 20, 45, -70])
def test_turned_images_are_means_of_positions(tmp_path: Path, degrees: float) -> None:
    y, x = np.mgrid[:200, :220]
    image = (y * 2.0 + x * 3.0)[None] + RNG.random((1, 200, 220))  # a slope and noise, which means remove
    sine, cosine = np.sin(np.radians(degrees)) * 8, np.cos(np.radians(degrees)) * 8
    handle = write_array(tmp_path / "a.zarr", "images/a/s0", image, (1, 64, 64))
    middle = np.array([100, 110]) - np.array([[cosine, -sine], [sine, cosine]]) @ [5, 5]
    way: Way = ((cosine, -sine, middle[0]), (sine, cosine, middle[1]))
    found = SampledArray(handle, (10, 10), way, "area").read(Rect(0, 10, 0, 10))[0]
    at = np.array(way) @ [*(np.mgrid[:10, :10] + 0.5).reshape(2, -1), np.ones(100)]
    expected = (at[0] - 0.5) * 2 + (at[1] - 0.5) * 3 + 0.5
    assert np.abs(found.ravel() - expected).max() < 0.2


@pytest.mark.parametrize("factor", [1.3, 3, 4])
def test_turned_images_are_as_bright_at_their_edge(tmp_path: Path, factor: float) -> None:
    """Positions off the image don't count; a pixel whose centre is off it is 0."""
    sine, cosine = np.sin(0.5) * factor, np.cos(0.5) * factor
    handle = write_array(tmp_path / "a.zarr", "images/a/s0", np.full((1, 60, 70), 3.0), (1, 64, 64))
    way: Way = ((cosine, -sine, 9.5), (sine, cosine, -30.25))
    found = SampledArray(handle, (70, 80), way, "area").read(Rect(0, 70, 0, 80))[0]
    rows, columns = np.array(way) @ [*(np.mgrid[:70, :80] + 0.5).reshape(2, -1), np.ones(70 * 80)]
    is_on = (rows >= 0) & (rows < 60) & (columns >= 0) & (columns < 70)
    assert 100 < is_on.sum() < is_on.size - 100
    np.testing.assert_allclose(found.ravel(), np.where(is_on, 3.0, 0.0), rtol=1e-12)


def test_the_grid_ends_where_the_image_does(tmp_path: Path) -> None:
    handle = write_array(tmp_path / "a.zarr", "images/a/s0", IMAGE, (1, 31, 47))
    assert crop_grid(handle, (0.5, 0.5), None) is None
    assert crop_grid(handle, (0.3, 0.3), 0.1 * 3) is None
    assert crop_grid(handle, (0.2, 0.2), 0.6) == CropGrid((30, 40), (3.0, 3.0))
    assert crop_grid(handle, (0.6, 0.6), 0.2) == CropGrid((270, 360), (1 / 3, 1 / 3))
    assert crop_grid(handle, (1, 1), 4) == CropGrid((22, 30), (4.0, 4.0))  # 22.5 rows: no centre on the image
    assert crop_grid(handle, (1, 1), 7) == CropGrid((13, 17), (7.0, 7.0))


def test_a_pixel_belongs_to_the_image_when_its_centre_does(tmp_path: Path) -> None:
    handle = write_array(tmp_path / "a.zarr", "images/a/s0", IMAGE, (1, 31, 47))
    beyond = SampledArray(handle, (4, 4), ((3, 0, -2), (0, 3, -1)), "area").read(Rect(0, 4, 0, 4))
    assert not beyond[:, 0].any()  # its centre is half a pixel above the image
    inside = IMAGE[:, 1:10, 2:11].reshape(2, 3, 3, 3, 3).mean(axis=(2, 4))
    np.testing.assert_array_equal(beyond[:, 1:, 1:], np.rint(inside))
    # the part on the image
    np.testing.assert_array_equal(beyond[:, 1, 0], np.rint(IMAGE[:, 1:4, :2].mean(axis=(1, 2))))
