"""Reading an array at the pixels of another grid: compared with scipy, and bounded in memory."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from scipy import ndimage

from cellstamp.source.read.arrays import ArrayHandle
from cellstamp.source.read.interpolation import Interpolation
from cellstamp.source.read.sampled import SampledArray
from cellstamp.source.read.stacked import ImageStack
from cellstamp.source.values import Rect, Way

RNG = np.random.default_rng(5)
GRID = (150, 131)
IDS = RNG.integers(0, 2**31, (90, 120)).astype(np.uint32)
PIXELS = RNG.random((2, 90, 120), np.float32)


def turned(degrees: float, scale: float = 1, shift: tuple[float, float] = (0, 0), *, mirrored: bool = False) -> Way:
    sine, cosine = np.sin(np.radians(degrees)) * scale, np.cos(np.radians(degrees)) * scale
    flip = -1 if mirrored else 1
    return (cosine, -sine * flip, shift[0]), (sine, cosine * flip, shift[1])


WAYS: dict[str, Way] = {
    "half the resolution": ((0.5, 0, 0), (0, 0.5, 0)),
    "double the resolution": ((2, 0, -100), (0, 2, -60)),
    "a third, with other sides": ((1 / 3, 0, 0), (0, 0.75, 0)),
    "shifted by a fraction": ((1, 0, 12.3), (0, 1, -7.75)),
    "mirrored": ((1, 0, 0), (0, -1, 120)),
    "turned by a right angle": ((0, 1, 0), (-1, 0, 118.5)),
    "turned": turned(33, 0.7, (20, 11)),
    "turned, mirrored and larger": turned(-71, 1.9, (-30, 60), mirrored=True),
    "sheared": ((0.9, 0.3, -10.2), (-0.15, 1.1, 3.1)),
    "elsewhere": ((1, 0, 500), (0, 1, 0)),
}


def handle(folder: Path, pixels: NDArray[Any], chunks: tuple[int, ...] = (31, 47), name: str = "a") -> ArrayHandle:
    whole = (*[1] * (pixels.ndim - 2), *chunks)
    array = zarr.create_array(
        str(folder / f"{name}.zarr"), name=name, shape=pixels.shape, chunks=whole, dtype=pixels.dtype
    )
    array[...] = pixels
    return ArrayHandle(str(folder / f"{name}.zarr"), name, name, pixels.shape, whole, str(pixels.dtype))


def by_scipy(pixels: NDArray[Any], way: Way, order: int) -> NDArray[Any]:
    """The convention of half a pixel, for scipy, whose pixel 0 has its centre at 0."""
    matrix = np.array(way)
    offset = matrix @ [0.5, 0.5, 1] - 0.5
    options: dict[str, Any] = {"output_shape": GRID, "order": order}
    mode = "nearest" if order else "grid-constant"
    return np.asarray(ndimage.affine_transform(pixels, matrix[:, :2], offset, mode=mode, **options))


def positions(way: Way) -> NDArray[np.float64]:
    y, x = np.mgrid[: GRID[0], : GRID[1]] + 0.5
    return np.stack([a * y + b * x + c for a, b, c in way])


def is_inside(way: Way, shape: tuple[int, int]) -> NDArray[np.bool_]:
    rows, columns = positions(way) + 1e-9
    return np.asarray((rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1]))


def is_tie(way: Way) -> NDArray[np.bool_]:
    """On a border of two pixels, where rounding errors decide in scipy, unless numbers are exact in binary."""
    exact = all(float(8 * value).is_integer() for row in way for value in row)
    offsets = np.abs(positions(way) - np.round(positions(way)))
    return np.asarray((offsets < 1e-9).any(axis=0) & (not exact))


EVERYTHING = Rect(0, *GRID[:1], 0, GRID[1])


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_labels_are_those_of_scipy(tmp_path: Path, way: Way) -> None:
    sampled = SampledArray(handle(tmp_path, IDS), GRID, way)
    expected = by_scipy(IDS, way, 0)
    assert sampled.shape == GRID
    found, ties = sampled.read(EVERYTHING), is_tie(way)
    assert ties.mean() < 0.2
    np.testing.assert_array_equal(found[~ties], expected[~ties])
    part = np.full((40, 50), 7, np.uint64)
    sampled.read_into(Rect(20, 60, 70, 120), part)
    np.testing.assert_array_equal(part, found[20:60, 70:120])


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_images_are_those_of_scipy(tmp_path: Path, way: Way) -> None:
    sampled = SampledArray(handle(tmp_path, PIXELS), GRID, way, "bilinear")
    inside = is_inside(way, (90, 120))
    found = sampled.read(EVERYTHING)
    for plane, pixels in zip(found, PIXELS, strict=True):
        np.testing.assert_allclose(plane, by_scipy(pixels, way, 1) * inside, atol=1e-5)
    np.testing.assert_array_equal(sampled.read(EVERYTHING, (slice(1, 2),)), found[1:])
    assert found.dtype == np.float32


def test_integers_are_rounded(tmp_path: Path) -> None:
    pixels = np.array([[[0, 1, 255]]], np.uint8)
    sampled = SampledArray(handle(tmp_path, pixels), (1, 6), ((1, 0, 0), (0, 0.5, 0)), "bilinear")
    # centres of the grid are at 0.25, 0.75, ... pixels, those of the pixels at 0.5, 1.5, 2.5
    assert sampled.read(Rect(0, 1, 0, 6)).tolist() == [[[0, 0, 1, 64, 192, 255]]]


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "int64", "float64"])
def test_values_are_copied_bit_by_bit(tmp_path: Path, dtype: str) -> None:
    pixels = (RNG.random((1, 9, 12)) * 100 - 50).astype(dtype)
    sampled = SampledArray(handle(tmp_path, pixels), (18, 24), ((0.5, 0, 0), (0, 0.5, 0)), "nearest")
    np.testing.assert_array_equal(sampled.read(Rect(0, 18, 0, 24)), pixels.repeat(2, 1).repeat(2, 2))


def test_large_ids_are_kept(tmp_path: Path) -> None:
    ids = np.array([[2**63 - 1, 2**53 + 1]], np.uint64)
    sampled = SampledArray(handle(tmp_path, ids), (2, 4), ((0.5, 0, 0), (0, 0.5, 0)))
    assert sampled.read(Rect(0, 2, 0, 4)).tolist() == [[2**63 - 1] * 2 + [2**53 + 1] * 2] * 2


@pytest.mark.parametrize("error", [0, 5e-10, -5e-10])
def test_a_position_on_a_border_belongs_to_the_later_pixel(tmp_path: Path, error: float) -> None:
    ids = np.arange(1, 9, dtype=np.uint32)[None]
    sampled = SampledArray(handle(tmp_path, ids), (1, 4), ((1, 0, 0), (0, 2, error)))
    assert sampled.read(Rect(0, 1, 0, 4)).tolist() == [[2, 4, 6, 8]]
    shifted = SampledArray(sampled.origin, (1, 8), ((1, 0, 0), (0, 1, 0.5 + error)))
    assert shifted.read(Rect(0, 1, 0, 8)).tolist() == [[2, 3, 4, 5, 6, 7, 8, 0]]


@pytest.mark.parametrize("how", ["nearest", "bilinear"])
def test_outside_of_the_grid_is_nothing(tmp_path: Path, how: Interpolation) -> None:
    """Also where the array has pixels: padded crops are those of an image with zeros around it."""
    sampled = SampledArray(handle(tmp_path, PIXELS + 1), (20, 20), ((1, 0, 30.5), (0, 1, 40.5)), how)
    found = sampled.read(Rect(-5, 25, -6, 22))
    assert (found[:, 5:25, 6:26] > 0).all()
    found[:, 5:25, 6:26] = 0
    assert not found.any()


@pytest.mark.parametrize("way", [((30, 0, 0), (0, 30, 0)), turned(45, 30, (3000, 0))])
def test_memory_is_bounded(tmp_path: Path, way: Way) -> None:
    """However many pixels of the array a tile covers: here 144 MB."""
    ids = np.zeros((6000, 6000), np.uint32)
    ids[3000:4200, 2000:2900] = 5
    sampled = SampledArray(handle(tmp_path, ids, (1000, 1000)), (200, 200), way)
    sampled.read(Rect(0, 1, 0, 1))  # loads compiled code
    tracemalloc.start()
    found = sampled.read(Rect(0, 200, 0, 200))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    y, x = np.mgrid[:200, :200] + 0.5
    rows, columns = (np.floor(a * y + b * x + c) for a, b, c in way)
    expected = (rows >= 3000) & (rows < 4200) & (columns >= 2000) & (columns < 2900)
    np.testing.assert_array_equal(found == 5, expected)
    assert expected.sum() > 500
    assert peak < 1.6 * 2**26


def test_chunks_are_footprints_on_the_grid(tmp_path: Path) -> None:
    half = SampledArray(handle(tmp_path, IDS), GRID, WAYS["half the resolution"])
    assert half.chunks == (62, 94)
    coarse = SampledArray(
        handle(tmp_path, np.zeros((2, 2), np.uint8), (2, 2), "b"), (10**6, 10**6), ((2e-6, 0, 0), (0, 2e-6, 0))
    )
    assert coarse.chunks == (4096, 4096)


@pytest.mark.parametrize("way", [way for name, way in WAYS.items() if name != "elsewhere"])
def test_positions_on_the_grid(tmp_path: Path, way: Way) -> None:
    """Their centre of pixel [0, 0] is (0, 0), on both sides."""
    sampled = SampledArray(handle(tmp_path, IDS), GRID, way)
    ((x, y),) = sampled.on_grid(np.array([[11.0, 22.0]]))
    row, column = np.array(way) @ [y + 0.5, x + 0.5, 1]
    np.testing.assert_allclose((row - 0.5, column - 0.5), (22, 11))


def test_digests_are_of_the_array_and_its_position(tmp_path: Path) -> None:
    first = SampledArray(handle(tmp_path, IDS), GRID, WAYS["mirrored"])
    others = [
        SampledArray(first.origin, GRID, WAYS["turned"]),
        SampledArray(first.origin, GRID, WAYS["mirrored"], "bilinear"),
        SampledArray(handle(tmp_path, IDS + 1, name="b"), GRID, WAYS["mirrored"]),
    ]
    for digest in ("signature", "sample"):
        assert len({getattr(each, digest)() for each in (first, *others)}) == 4
        assert getattr(pickle.loads(pickle.dumps(first)), digest)() == getattr(first, digest)()


# --- several images ---------------------------------------------------------------------------------------------------


@pytest.fixture
def stack(tmp_path: Path) -> tuple[ImageStack, NDArray[Any]]:
    """Three images of other types, the second one sampled; and their channels."""
    plain = RNG.integers(0, 60_000, (3, *GRID)).astype(np.uint16)
    colours = RNG.integers(0, 255, (3, 90, 120)).astype(np.uint8)
    more = RNG.integers(-9, 9, (1, *GRID)).astype(np.int32)
    sampled = SampledArray(handle(tmp_path, colours, name="b"), GRID, WAYS["turned"], "nearest")
    parts = (handle(tmp_path, plain), sampled, handle(tmp_path, more, name="c"))
    whole = np.concatenate([plain, [by_scipy(plane, WAYS["turned"], 0) for plane in colours], more]).astype(np.int32)
    return ImageStack(parts), whole


def test_a_stack_has_the_channels_of_all_images(stack: tuple[ImageStack, NDArray[Any]]) -> None:
    image, whole = stack
    assert (image.shape, image.dtype, image.name) == ((7, *GRID), "int32", "a + b + c")
    assert image.dtypes == ("uint16",) * 3 + ("uint8",) * 3 + ("int32",)
    rect = Rect(10, 60, -3, 70)
    expected = np.zeros((7, 50, 73), np.int32)
    expected[:, :, 3:] = whole[:, 10:60, :70]
    out = np.full((7, 50, 73), 99, np.int32)
    image.read_into(rect, out)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(image.read(rect), expected)
    for channels in image.channels():
        np.testing.assert_array_equal(image.read(rect, channels), expected[channels])
    np.testing.assert_array_equal(image.read(rect, (slice(2, 5),)), expected[2:5])


@pytest.mark.parametrize("picked", [[6, 0, 4, 5, 1], [3], [2, 1, 0], [4, 0, 5, 3]])
def test_channels_of_a_stack_are_chosen(stack: tuple[ImageStack, NDArray[Any]], picked: list[int]) -> None:
    image, whole = stack[0].pick(picked), stack[1]
    np.testing.assert_array_equal(image.read(EVERYTHING), whole[picked])
    assert image.dtypes == tuple(stack[0].dtypes[number] for number in picked)
    again = image.pick([len(picked) - 1])
    np.testing.assert_array_equal(again.read(EVERYTHING), whole[picked[-1:]])


@pytest.mark.parametrize(("one", "other"), [("int64", "float64"), ("uint64", "int64"), ("uint64", "float64")])
def test_wide_types_are_converted_not_reinterpreted(tmp_path: Path, one: str, other: str) -> None:
    pixels = np.arange(12).reshape(1, 3, 4)
    parts = handle(tmp_path, pixels.astype(one)), handle(tmp_path, pixels.astype(other), name="b")
    out = np.zeros((2, 3, 4), ImageStack(parts).dtype)
    ImageStack(parts).read_into(Rect(0, 3, 0, 4), out)
    np.testing.assert_array_equal(out, np.concatenate([pixels, pixels]))


def test_a_stack_changes_with_each_image(stack: tuple[ImageStack, NDArray[Any]]) -> None:
    image, _ = stack
    before = image.signature(), image.sample()
    assert (pickle.loads(pickle.dumps(image)).signature(), image.sample()) == before
    array = zarr.open_array(image.parts[2].store, path="c")
    array[0, 5, 5] = 77
    assert image.signature() != before[0]


@pytest.mark.parametrize("how", ["nearest", "bilinear"])
def test_the_byte_order_of_the_store_does_not_matter(tmp_path: Path, how: Interpolation) -> None:
    pixels = RNG.integers(0, 60_000, (1, 9, 12)).astype(np.uint16)
    array = zarr.create_array(str(tmp_path / "b"), shape=pixels.shape, dtype=">u2", zarr_format=2)
    array[...] = pixels
    origin = ArrayHandle(str(tmp_path / "b"), "b", "", pixels.shape, pixels.shape, "uint16")
    sampled = SampledArray(origin, (9, 12), ((1, 0, 0), (0, 1, 0)), how)
    np.testing.assert_array_equal(sampled.read(Rect(0, 9, 0, 12)), pixels)


@pytest.mark.once
@pytest.mark.parametrize("how", ["nearest", "bilinear", "area"])
@pytest.mark.parametrize("way", ["half the resolution", "turned", "turned by a right angle"])
def test_loops_are_compiled_for_the_types_that_reading_has(tmp_path: Path, how: Interpolation, way: str) -> None:
    from cellstamp.source.read import sampling
    from cellstamp.source.read.loops import load_loops

    def compiled() -> list[int]:
        return [len(each.signatures) for each in (sampling.take_nearest, sampling.blend, sampling.weigh)]

    pixels = RNG.integers(-100, 100, (1, 40, 50)).astype(np.int16)  # of a type that no other test has
    larger = tuple((2 * a, 2 * b, c) for a, b, c in WAYS[way])
    array = SampledArray(handle(tmp_path, pixels), (30, 20), larger, how)  # type: ignore[arg-type]
    (loops,) = array.loops
    load_loops(loops)
    before = compiled()
    array.read(Rect(0, 30, 0, 20))
    assert compiled() == before
