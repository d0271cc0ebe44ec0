"""Quantiles of whole images against numpy's, in any type, and extents of cells against those of plain numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cellstamp.errors import InputError
from cellstamp.pipeline.workers import BlockRunner
from cellstamp.source.read.arrays import PixelSource
from cellstamp.source.read.extents import find_extents
from cellstamp.source.read.intensities import channel_quantiles
from pixel_stores import write_array, write_source

DTYPES = ["uint8", "uint16", "uint32", "uint64", "int16", "float32", "float64"]


def source_of(folder: Path, image: NDArray[Any], chunk: int = 32) -> PixelSource:
    labels = np.zeros(image.shape[1:], np.uint32)
    return write_source(folder, image, [labels], image_chunk=chunk, mask_chunk=chunk)


def numbers(kind: str, dtype: str, shape: tuple[int, ...], seed: int) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    largest = 1e30 if np.dtype(dtype).kind == "f" else min(np.iinfo(dtype).max, 2**53)
    share = {
        "noise": lambda: rng.random(shape),
        "few values": lambda: rng.integers(0, 3, shape) / 3,
        "constant": lambda: np.full(shape, 0.7),
        "dark": lambda: rng.random(shape) * (rng.random(shape) < 0.02),
        "wide": lambda: 10.0 ** -rng.uniform(0, 30, shape),
    }[kind]()
    return (share * largest).astype(dtype)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(DTYPES),
    st.sampled_from(["noise", "few values", "constant", "dark", "wide"]),
    st.tuples(st.integers(1, 2), st.integers(1, 50), st.integers(1, 50)),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted), min_size=2, max_size=2),
    st.integers(0, 2**32),
)
def test_quantiles_are_those_of_numpy(
    tmp_path_factory: pytest.TempPathFactory, dtype: str, kind: str, shape: Any, pairs: Any, seed: int
) -> None:
    image = numbers(kind, dtype, shape, seed)
    source = source_of(tmp_path_factory.mktemp("image") / "x.zarr", image)
    found = channel_quantiles(source, pairs[: shape[0]])
    for channel, pair, (lower, upper) in zip(image, pairs, found, strict=False):
        expected = np.quantile(channel.astype(np.float64), pair)
        assert [lower, upper] == expected.tolist()


def test_quantiles_by_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # workers are used from this number of pixels on
    monkeypatch.setattr("cellstamp.pipeline.workers._PARALLEL_PIXELS", 2 * 900**2)
    image = numbers("noise", "float32", (2, 900, 900), 0)
    source = source_of(tmp_path / "x.zarr", image, chunk=150)
    pairs = [(0.001, 0.999), (0.0, 1.0)]
    expected = [
        tuple(np.quantile(channel.astype(np.float64), pair)) for channel, pair in zip(image, pairs, strict=True)
    ]
    assert channel_quantiles(source, pairs, BlockRunner(2)) == expected


def test_zeros_with_a_sign_are_zeros(tmp_path: Path) -> None:
    image = np.full((1, 8, 8), -0.0, np.float32)
    image[0, :2] = 1
    assert channel_quantiles(source_of(tmp_path / "x.zarr", image), [(0.0, 1.0)]) == [(0.0, 1.0)]


@pytest.mark.parametrize(("value", "told"), [(-1, "values from -1 to 5"), (np.nan, "NaN or infinity")])
def test_pixels_that_are_no_intensities_are_told_with_their_place(tmp_path: Path, value: float, told: str) -> None:
    image = np.full((2, 70, 70), 5, np.float32)
    image[1, 69, 3] = value
    with pytest.raises(InputError, match=rf"channel '1': {told} in rows 0 to 70, columns 0 to 70"):
        channel_quantiles(source_of(tmp_path / "x.zarr", image), [(0.0, 1.0)] * 2)


# --- extents ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int32", "uint64"])
def test_extents_are_those_of_all_pixels_of_a_cell(tmp_path: Path, dtype: str) -> None:
    rng = np.random.default_rng(1)
    mask = np.zeros((300, 280), dtype)
    for cell in range(1, 40):
        y, x = rng.integers(0, 260, 2)
        mask[y : y + rng.integers(1, 120), x : x + rng.integers(1, 20)] = cell
    labels = write_array(tmp_path / "x.zarr", "labels/m/s0", mask, (64, 50))
    ids = np.unique(mask[mask > 0])[::2].astype(np.uint64)
    found = find_extents(labels, ids, np.array([[0, 300, 0, 280]]))
    assert found.ids.tolist() == ids.tolist()
    for cell, box in zip(ids, found.boxes, strict=True):
        rows, columns = np.nonzero(mask == cell)
        assert box.tolist() == [rows.min(), rows.max(), columns.min(), columns.max()]


def test_only_blocks_around_the_cells_are_read(tmp_path: Path) -> None:
    mask = np.zeros((4096, 4096), np.uint32)
    mask[100:120, 100:300] = 7
    labels = write_array(tmp_path / "x.zarr", "labels/m/s0", mask, (1024, 1024))
    read: list[Any] = []

    def run(task: Any, blocks: Any) -> Any:
        read.extend(blocks)
        return map(task, blocks)

    found = find_extents(labels, np.array([7], np.uint64), np.array([[50, 200, 50, 200]]), run)
    assert found.boxes.tolist() == [[100, 119, 100, 299]]
    assert len(read) == 1
