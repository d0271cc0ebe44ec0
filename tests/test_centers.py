"""Ids and centres of cells: those of scipy and of brute force, whatever the blocks, ids and order of results."""

from __future__ import annotations

import pickle
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

import restatement
from cellstamp.errors import InputError
from cellstamp.source.read import centers as module
from cellstamp.source.read.arrays import ArrayHandle
from cellstamp.source.read.centers import BlockSums, compute_centers
from cellstamp.source.values import Rect
from pixel_stores import write_array

LARGEST = 2**63 - 1


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of a few pixels, so that small masks have many of them and cells lie across their borders."""
    monkeypatch.setattr(module, "BLOCK_SIDE", 16)


def stored(folder: Path, labels: np.ndarray, chunks: tuple[int, int] = (16, 16)) -> ArrayHandle:
    return write_array(folder / "x.zarr", "labels/cells/s0", labels, chunks)


def in_random_order(task, blocks):
    """A map that sends the task to another process and back, so to speak, and hands out results in any order."""
    results = [pickle.loads(pickle.dumps(task))(block) for block in blocks]
    random.Random(len(results)).shuffle(results)
    return iter(results)


def assert_as_restated(handle: ArrayHandle, labels: np.ndarray) -> None:
    ids, xy = restatement.centers(labels)
    for run in (map, in_random_order):
        got = compute_centers(handle, run)
        assert got.ids.dtype == np.uint64
        assert got.xy.dtype == np.float64
        assert got.ids.tolist() == ids.tolist()
        assert got.xy.shape == (len(ids), 2)
        # sums of whole numbers are exact, so the mean is the number nearest to the true one
        assert np.array_equal(got.xy, xy)


@pytest.mark.parametrize("chunks", [(16, 16), (7, 11), (200, 200), (5000, 5000), (3, 90)])
def test_centres_are_those_of_scipy(make_cells, chunks, tmp_path):
    _, nucleus, _ = make_cells(side=90, n=20, dtype=np.int32)
    got = compute_centers(stored(tmp_path, nucleus, chunks))
    ids = np.unique(nucleus)[1:]
    expected = ndimage.center_of_mass(nucleus > 0, nucleus, ids)
    assert got.ids.tolist() == ids.tolist() == list(range(3, 63, 3))
    assert np.allclose(got.xy[:, ::-1], expected, rtol=1e-13, atol=0)
    assert_as_restated(stored(tmp_path / "again", nucleus, chunks), nucleus)


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.int16, np.uint32, np.int64, np.uint64]),
        st.tuples(st.integers(1, 40), st.integers(1, 40)),
        elements=st.integers(0, 4),
        fill=st.just(0),
    ),
    st.tuples(st.integers(4, 20), st.integers(4, 20)),
)
def test_any_mask_in_any_chunks(labels, chunks):
    with tempfile.TemporaryDirectory() as folder:
        assert_as_restated(stored(Path(folder), labels, chunks), labels)


def test_blocks_smaller_than_cells(tmp_path):
    y, x = np.mgrid[:150, :170]
    labels = np.zeros((150, 170), np.uint32)
    labels[np.hypot(y - 70, x - 80) < 65] = 5
    labels[np.hypot(y - 70, x - 80) < 30] = 0
    labels[::7, ::3] = 2
    assert_as_restated(stored(tmp_path, labels, (8, 8)), labels)


def test_blocks_cover_every_pixel_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_SIDE", 50)
    seen = np.zeros((130, 95), int)

    def run(task, blocks):
        for block in blocks:
            rows, columns = block.slices(Rect(0, 130, 0, 95))
            seen[rows, columns] += 1
            # whole chunks, more than one where they are small
            assert block.top % 48 == block.left % 40 == 0
            yield task(block)

    compute_centers(stored(tmp_path, np.ones((130, 95), np.uint16), (16, 20)), run)
    assert (seen == 1).all()


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_ids_with_gaps_of_any_size_up_to_the_largest(dtype, tmp_path):
    ids = np.array(
        [1, 2, 255, 2**31, 2**32, 2**32 + 1, 2**40 - 1, 2**40, 2**53 + 1, 2**53 + 2, LARGEST - 1, LARGEST], dtype
    )
    labels = np.zeros((36, 36), dtype)
    spots = np.random.default_rng(0).permutation(36 * 36)[: 40 * ids.size]
    labels.flat[spots] = np.repeat(ids, 40)
    got = compute_centers(stored(tmp_path, labels))
    assert got.ids.tolist() == ids.tolist()
    assert_as_restated(stored(tmp_path / "again", labels), labels)


def test_neighbouring_runs_of_ids_that_differ_in_the_last_bit_only(tmp_path):
    # as float64 these four are one
    labels = np.array([[2**62, 2**62 + 1, 2**62 + 2, 2**62 + 3, LARGEST, LARGEST - 1]] * 3, np.int64)
    got = compute_centers(stored(tmp_path, labels))
    assert got.ids.tolist() == sorted(labels[0].tolist())
    assert got.xy.tolist() == [[0, 1], [1, 1], [2, 1], [3, 1], [5, 1], [4, 1]]


def test_a_mask_without_cells(tmp_path):
    got = compute_centers(stored(tmp_path, np.zeros((50, 40), np.uint32)))
    assert len(got) == 0
    assert (got.ids.shape, got.ids.dtype) == ((0,), np.uint64)
    assert (got.xy.shape, got.xy.dtype) == ((0, 2), np.float64)


def test_sums_are_exact_far_from_the_origin(tmp_path):
    handle = stored(tmp_path, np.ones((2, 3), np.uint32))
    # a block of a huge image: the same pixels, further out
    far = BlockSums(_Elsewhere(handle))(Rect(3_000_000_000, 3_000_000_002, 4_000_000_000, 4_000_000_003))
    assert far.totals.tolist() == [[6, 6 * 4_000_000_001, 3 * 3_000_000_000 + 3 * 3_000_000_001]]


class _Elsewhere:
    """Pixels of a stored array, as if they were those of any area of its size."""

    def __init__(self, handle: ArrayHandle) -> None:
        self.name, self.store, self._handle = handle.name, handle.store, handle

    def read(self, rect: Rect) -> np.ndarray:
        return self._handle.read(Rect(0, rect.shape[0], 0, rect.shape[1]))


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64])
@pytest.mark.parametrize("value", [-1, -2, -100])
def test_negative_ids_are_refused(dtype, value, tmp_path):
    labels = np.ones((40, 40), dtype)
    labels[30, 35] = value
    with pytest.raises(InputError, match=rf"labels 'cells' in .*x\.zarr: the negative value {value}; cell ids are pos"):
        compute_centers(stored(tmp_path, labels))


@pytest.mark.parametrize("value", [2**63, 2**64 - 1])
def test_ids_above_the_largest_are_refused(value, tmp_path):
    labels = np.ones((40, 40), np.uint64)
    labels[39, 0] = value
    with pytest.raises(InputError, match=r"labels 'cells' in .*x\.zarr: ids above 2\*\*63 - 1. Renumber"):
        compute_centers(stored(tmp_path, labels))


def test_memory_goes_with_the_cells_and_not_with_the_largest_id(tmp_path):
    labels = np.zeros((32, 32), np.uint64)
    labels[3, 5], labels[20, 30] = 1, LARGEST
    task = BlockSums(stored(tmp_path, labels))
    sums = task(Rect(0, 32, 0, 32))
    assert sums.ids.nbytes + sums.totals.nbytes == 2 * 4 * 8
    assert len(pickle.dumps(task)) < 1000
