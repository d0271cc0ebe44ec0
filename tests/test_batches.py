"""Batches of finished stamps: the values that HDF5 reads, every cell once, from one file and from several."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import cellstamp
from cellstamp import iter_batches, read_h5sc
from cellstamp.decoding import SPARE, DamagedPlaneError, EncodedChunks, PlaneChoice, convert, decode_planes
from cellstamp.encoding import StampEncoder
from cellstamp.engines.threads import Threads, one_ahead
from cellstamp.errors import ConfigError, InputError
from cellstamp.h5sc.layout import planes_per_chunk
from cellstamp.h5sc.validate import errors_in
from cellstamp.reused_memory import Recycler
from cellstamp.training.order import BatchOrder
from cellstamp.training.several_files import StampSet
from encoding import encoded
from stamp_files import IMAGES, layout_of, store_anew, write_file

N_CELLS = 40


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_file(tmp_path / "a.h5sc", layout_of(N_CELLS))
    return tmp_path / "a.h5sc"


@pytest.fixture
def two(path: Path, tmp_path: Path) -> list[Path]:
    """Two files, of 40 and 25 cells; some ids are in both."""
    write_file(tmp_path / "b.h5sc", layout_of(25, first_id=110), seed=1)
    return [path, tmp_path / "b.h5sc"]


def stored(path: Path) -> tuple[NDArray[Any], NDArray[np.uint64]]:
    """Images and ids as HDF5 reads them."""
    with h5py.File(path) as file:
        return file[IMAGES][:], file["obs/scportrait_cell_id"][:]


def expected(path: Path) -> NDArray[np.float32]:
    """Images as floats from 0 to 1."""
    images = stored(path)[0]
    return images.astype(np.float32) * np.float32(1 / np.iinfo(images.dtype).max if images.dtype.kind == "u" else 1)


def together(batches: Iterator[tuple[NDArray[Any], ...]]) -> tuple[NDArray[Any], ...]:
    return tuple(map(np.concatenate, zip(*batches, strict=True)))


# --- values -----------------------------------------------------------------------------------------------------------

STORAGE = {
    "contiguous": {},
    "h5py's lzf": {"chunks": (1, 1, 16, 16), "compression": "lzf"},
    "h5py's gzip": {"chunks": (1, 1, 16, 16), "compression": "gzip", "compression_opts": 9},
    "h5py's lzf of whole cells": {"chunks": (1, 4, 16, 16), "compression": "lzf"},
    "h5py's gzip of some planes": {"chunks": (1, 3, 16, 16), "compression": "gzip"},
    "whole cells without compression": {"chunks": (1, 4, 16, 16)},
    "shuffled": {"chunks": (1, 1, 16, 16), "compression": "lzf", "shuffle": True},
    "large chunks": {"chunks": (3, 2, 16, 8), "compression": "gzip"},
}


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8", "uint16"])
@pytest.mark.parametrize("compression", ["lzf", "gzip", None])
def test_values_are_those_that_hdf5_reads(tmp_path: Path, compression: Any, dtype: Any) -> None:
    path = tmp_path / "a.h5sc"
    write_file(path, layout_of(N_CELLS, compression=compression, dtype=dtype))
    images, ids = together(iter_batches(path, 7))
    assert images.dtype == np.float32
    assert np.array_equal(images, expected(path))
    assert np.array_equal(ids, stored(path)[1])
    halves, _ = together(iter_batches(path, 7, dtype="float16"))
    assert halves.dtype == np.float16
    assert np.array_equal(halves, expected(path).astype(np.float16))


@pytest.mark.parametrize("storage", STORAGE.values(), ids=STORAGE)
def test_files_that_others_wrote(path: Path, storage: dict[str, Any]) -> None:
    store_anew(path, **storage)
    images, ids = together(iter_batches(path, 16, shuffle=True, channels=["actin", "nucleus"]))
    order = np.searchsorted(stored(path)[1], ids)
    assert np.array_equal(images, expected(path)[order][:, [3, 0]])


@pytest.mark.parametrize("compression", ["lzf", "gzip", None])
def test_cells_of_several_chunks(tmp_path: Path, compression: Any) -> None:
    """Five planes of half a MiB: two in a chunk, and the last one lacks a plane, but not without compression."""
    layout = layout_of(3, size=512, channel_names=("DAPI", "actin", "tubulin"), compression=compression)
    stamps = write_file(tmp_path / "a.h5sc", layout)
    with h5py.File(tmp_path / "a.h5sc") as file:
        assert file[IMAGES].chunks == (1, 1 if compression is None else 2, 512, 512)
        assert np.array_equal(file[IMAGES][:], stamps)
    for channels in (None, ["tubulin"], ["tubulin", "nucleus", "DAPI", "tubulin"]):
        planes = [0, 1, 2, 3, 4] if channels is None else [layout.names.index(name) for name in channels]
        images, _ = together(iter_batches(tmp_path / "a.h5sc", 2, channels=channels, dtype="float16"))
        assert np.array_equal(images, stamps[:, planes])
    assert not [error for error in errors_in(tmp_path / "a.h5sc") if "chunk" in error]


@pytest.mark.parametrize(
    ("n_planes", "plane_bytes", "compression", "expected"),
    [
        (5, 2**15, "lzf", 5),  # 128 pixels, float16
        (1, 2**15, "lzf", 1),
        (32, 2**15, "lzf", 32),
        (33, 2**15, "lzf", 17),
        (43, 2**15, "gzip", 22),
        (43, 2**15, None, 1),
        (42, 2**15, None, 21),
        (5, 2**19, "lzf", 2),
        (5, 2**20, "lzf", 1),
        (5, 2**22, None, 1),
    ],
)
def test_planes_in_a_chunk(n_planes: int, plane_bytes: int, compression: Any, expected: int) -> None:
    number = planes_per_chunk(n_planes, plane_bytes, compression)
    assert number == expected
    assert number == 1 or number * plane_bytes <= 2**20


def test_planes_that_are_not_stored_are_zero(path: Path) -> None:
    with h5py.File(path, "a") as file:
        attributes = dict(file[IMAGES].attrs)
        del file[IMAGES]
        images = file.create_dataset(IMAGES, (N_CELLS, 4, 16, 16), "f2", chunks=(1, 1, 16, 16), compression="lzf")
        images.attrs.update(attributes)
        images[3, 2] = 1
    images, _ = together(iter_batches(path, 16))
    assert np.array_equal(images, expected(path))
    assert images.sum() == 16 * 16


def test_every_float16_becomes_its_float32() -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    out = np.empty(2**16, np.float32)
    convert(halves, out)
    assert np.array_equal(out, halves.astype(np.float32), equal_nan=True)


def chunks_of(payload: NDArray[np.uint8], sizes: NDArray[np.int64], raw: int, compression: Any) -> EncodedChunks:
    """All chunks of a payload; those of the size ``raw`` are not compressed."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).reshape(sizes.shape)
    spared = np.concatenate([payload, np.zeros(SPARE, np.uint8)])
    return EncodedChunks(spared, starts, np.where(sizes == raw, -sizes, sizes), compression)


def decoded(chunks: EncodedChunks, planes: list[int], per_chunk: int, n_bytes: int, dtype: Any) -> NDArray[Any]:
    """The planes of all cells; what lies behind them in memory must stay untouched."""
    choice, n_cells = PlaneChoice(np.array(planes), per_chunk), len(chunks.sizes)
    some = EncodedChunks(
        chunks.payload, chunks.starts[:, choice.chunks], chunks.sizes[:, choice.chunks], chunks.compression
    )
    size = n_cells * len(planes) * n_bytes // 2
    memory = np.full(size + SPARE, 7, dtype)
    out = memory[:size].reshape(n_cells, len(planes), n_bytes // 2)
    decode_planes(some, choice, np.arange(n_cells)[::-1].copy(), np.dtype(np.float16), out)
    assert (memory[size:] == 7).all()
    return out[::-1].astype(np.float16).view(np.uint16)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(0, 2**32), st.sampled_from(["lzf", "gzip", None]), st.integers(1, 40), st.integers(0, 3))
def test_decoding_undoes_encoding(data: Any, seed: int, compression: Any, half: int, richness: int) -> None:
    rng = np.random.default_rng(seed)
    n_planes = data.draw(st.integers(1, 5))
    per_chunk = data.draw(st.integers(1, n_planes))
    wanted = data.draw(st.lists(st.integers(0, n_planes - 1), min_size=1, max_size=7))
    stamps = rng.integers(0, 4**richness, (2, n_planes, 2 * half, 2 * half)).astype(np.uint16)
    stamps = stamps * (rng.random(stamps.shape) < rng.random())
    stamps[:, -1] = np.repeat(stamps[:, -1, :1], 2 * half, axis=1)  # long repetitions from some way back
    boxes = np.tile([0, 2 * half, 0, 2 * half], (*stamps.shape[:2], 1))
    payload, sizes = encoded(StampEncoder(compression, per_chunk), np.ascontiguousarray(stamps), boxes)
    raw = 8 * half**2
    chunks = chunks_of(payload, sizes, per_chunk * raw, compression)
    for dtype in (np.float16, np.float32):
        assert np.array_equal(
            decoded(chunks, wanted, per_chunk, raw, dtype), stamps[:, wanted].reshape(2, len(wanted), -1)
        )


@pytest.mark.parametrize("shift", [0, 1], ids=["aligned", "not aligned"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_batch_that_is_larger_than_the_caches(shift: int, dtype: Any) -> None:
    """It is written past them, unless a plane has negative or infinite numbers."""
    rng, n_cells = np.random.default_rng(0), 600
    stamps = np.zeros((1, 3, 128, 128), np.float16)
    stamps[:, :2, 30:90, 20:101] = rng.random((1, 2, 60, 81))
    stamps[0, 1, 40, 40:44] = [-1, np.inf, -0.0, 6e-8]
    boxes = np.tile([0, 128, 0, 128], (1, 3, 1))
    payload, sizes = encoded(StampEncoder("lzf", 3), stamps, boxes)
    spared, zeros = np.concatenate([payload, np.zeros(SPARE, np.uint8)]), np.zeros((n_cells, 1), np.int64)
    out = np.full(n_cells * 3 * 128**2 + 2, 7, dtype)
    images = out[shift : shift - 2].reshape(n_cells, 3, -1)
    chunks = EncodedChunks(spared, zeros, zeros + sizes, "lzf")
    decode_planes(chunks, PlaneChoice(np.arange(3), 3), np.arange(n_cells), np.dtype(np.float16), images)
    assert (images == stamps.reshape(1, 3, -1)).all()
    assert np.signbit(images[:, 1]).sum() == 2 * n_cells
    assert (out[:shift].size, out[-1], out[shift - 2]) == (shift, 7, 7)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.lists(st.integers(0, 3), min_size=1, max_size=5))
def test_chunks_whose_planes_refer_to_earlier_planes(seed: int, half: int, wanted: list[int]) -> None:
    """The encoder of HDF5 does not know where a plane begins."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 40, (2 * half, 2 * half)).astype(np.uint16) * (rng.random((2 * half, 2 * half)) < 0.5)
    chunk = np.ascontiguousarray(np.stack([first, first, np.zeros_like(first), first[::-1]]), np.uint16)
    encoder = StampEncoder("lzf", 1)  # the planes as a single one
    tall = chunk.reshape(1, 1, 8 * half, 2 * half)
    payload, sizes = encoded(encoder, tall, np.array([[[0, 8 * half, 0, 2 * half]]]))
    chunks = chunks_of(payload, sizes, chunk.nbytes, "lzf")
    got = decoded(chunks, wanted, 4, first.nbytes, np.float16)
    assert np.array_equal(got[0], chunk[wanted].reshape(len(wanted), -1))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), st.sampled_from(["lzf", "gzip", None]))
def test_damaged_bytes_are_told_and_nothing_else_is_written(data: bytes, compression: Any) -> None:
    sizes = np.array([[len(data)]])
    chunks = EncodedChunks(
        np.concatenate([np.frombuffer(data, np.uint8), np.zeros(SPARE, np.uint8)]), 0 * sizes, sizes, compression
    )
    for planes in ([0], [2], [0, 1, 2]):
        try:
            decoded(chunks, planes, 3, 32, np.float16)
        except DamagedPlaneError as error:
            assert (error.cell, error.plane in range(len(planes))) == (0, True)  # noqa: PT017


# --- which cells, in which order --------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_order(path: Path) -> None:
    orders = [together(iter_batches(path, 7, shuffle=True, seed=seed))[1].tolist() for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == stored(path)[1].tolist() != orders[0]


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 300), st.integers(1, 50), st.integers(0, 5), st.integers(1, 40), st.integers(0, 1), st.integers(0, 1)
)
def test_every_cell_is_in_one_batch(
    n_cells: int, batch_size: int, seed: int, block_size: int, shuffle: int, drop_last: int
) -> None:
    order = BatchOrder(n_cells, batch_size, bool(shuffle), seed, block_size, bool(drop_last))
    batches = list(order.batches(epoch=3))
    assert len(batches) == len(order)
    cells = [cell for batch in batches for cell in batch.tolist()]
    assert len(set(cells)) == len(cells) == (n_cells // batch_size * batch_size if drop_last else n_cells)
    assert all(len(batch) == batch_size for batch in batches[:-1])


def test_neighbours_stay_together_unless_all_are_mixed() -> None:
    def share_of_neighbours(block_size: int) -> float:
        cells = np.concatenate(list(BatchOrder(4000, 50, shuffle=True, seed=0, block_size=block_size).batches(0)))
        return float((np.diff(cells) == 1).mean())

    assert share_of_neighbours(1) < 0.01
    assert 0.8 < share_of_neighbours(8) < 0.9


def test_several_files_are_one(two: list[Path]) -> None:
    images, labels, ids = together(iter_batches(two, 8, shuffle=True, labels=[7, 9]))
    assert sorted(zip(labels.tolist(), ids.tolist(), strict=True)) == sorted(
        (label, identity) for label, path in zip([7, 9], two, strict=True) for identity in stored(path)[1].tolist()
    )
    for label, path in zip([7, 9], two, strict=True):
        order = np.searchsorted(stored(path)[1], ids[labels == label])
        assert np.array_equal(images[labels == label], expected(path)[order])


def test_cells_and_labels_in_all_the_ways_they_can_be_given(tmp_path: Path) -> None:
    paths = [tmp_path / "a.h5sc", tmp_path / "b.h5sc"]
    for number, path in enumerate(paths):
        columns = {"chosen": np.arange(6) % 2 == number, "kind": pd.Categorical(["u", "v"] * 3), "size": np.arange(6.0)}
        write_file(path, layout_of(6, first_id=1 + 20 * number), columns, seed=number)
    a, b = (stored(path)[1].tolist() for path in paths)

    def ids(**options: Any) -> list[int]:
        return together(iter_batches(paths, 4, **options))[-1].tolist()

    assert ids(cells=[b[2], a[4], a[1]]) == [a[4], a[1], b[2]]
    assert ids(cells=[[a[4], a[1]], None]) == [a[4], a[1], *b]
    assert ids(cells="chosen") == [*a[::2], *b[1::2]]
    assert ids(cells=["chosen", b[:1]]) == [*a[::2], b[0]]
    assert ids(cells=np.arange(12) % 5 == 0) == [a[0], a[5], b[4]]
    assert ids(cells=[np.arange(6) == 1, np.arange(6) == 2]) == [a[1], b[2]]

    def labels(**options: Any) -> list[Any]:
        return together(iter_batches(paths, 4, cells=[a[1], b[2]], **options))[1].tolist()

    assert labels(labels=["control", "treated"]) == ["control", "treated"]
    assert labels(labels=np.arange(12)) == [1, 8]
    assert labels(labels=[np.arange(6), 10 * np.arange(6)]) == [1, 20]
    assert labels(labels="kind") == ["v", "u"]
    assert labels(labels="size") == [1.0, 2.0]


# --- processes --------------------------------------------------------------------------------------------------------


def _read_some(stamps: StampSet, results: Any) -> None:
    """In another process: what is read, and whether the file is one opened there."""
    out = np.empty((3, *stamps.shape), stamps.dtype)
    stamps.read(np.array([5, 0, 17]), out, Threads(2))
    results.put((os.getpid(), stamps.files[0]._open().pid, out))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_each_process_has_a_file_of_its_own(path: Path, method: str) -> None:
    stamps = StampSet(path, channels=None, cells=None, labels=None, dtype="float32")
    out, threads = np.empty((3, *stamps.shape), np.float32), Threads(2)
    stamps.read(np.array([1, 2, 3]), out, threads)
    context: Any = multiprocessing.get_context(method)
    results = context.SimpleQueue()
    process = context.Process(target=_read_some, args=(stamps, results))
    process.start()
    pid, opened_in, got = results.get()
    process.join()
    assert pid == opened_in == process.pid
    assert np.array_equal(got, expected(path)[[5, 0, 17]])
    stamps.read(np.array([5, 0, 17]), out, threads)
    assert np.array_equal(out, got)
    assert stamps.files[0]._open().pid == os.getpid()


@pytest.mark.parametrize("storage", [{}, STORAGE["shuffled"]], ids=["own", "by HDF5"])
def test_threads_that_read_first_at_the_same_time_do_not_close_each_others_file(
    path: Path, storage: dict[str, Any]
) -> None:
    if storage:
        store_anew(path, **storage)
    images, n_threads, numbers = expected(path), 8, np.arange(4)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns at every step, as on a machine with a core for each
    try:
        with ThreadPoolExecutor(n_threads) as pool:
            for _ in range(40):
                stamps = StampSet(path, channels=None, cells=None, labels=None, dtype="float32")
                all_ready = threading.Barrier(n_threads)

                def read(stamps: StampSet = stamps, all_ready: threading.Barrier = all_ready) -> NDArray[Any]:
                    out = np.empty((4, *stamps.shape), np.float32)
                    all_ready.wait()
                    stamps.read(numbers, out, Threads(1))
                    return out

                for call in [pool.submit(read) for _ in range(n_threads)]:
                    assert np.array_equal(call.result(), images[:4])
    finally:
        sys.setswitchinterval(before)


def test_a_file_stays_open_while_it_is_read_though_another_thread_has_opened_it_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamps = StampSet(path, channels=None, cells=None, labels=None, dtype="float32")
    preadv, out = os.preadv, np.empty((4, *stamps.shape), np.float32)

    def read_late(descriptor: int, *arguments: Any) -> int:
        stamps.files[0]._handle = None  # another thread's has taken its place
        return preadv(descriptor, *arguments)

    monkeypatch.setattr(os, "preadv", read_late)
    stamps.read(np.arange(4), out, Threads(1))
    assert np.array_equal(out, expected(path)[:4])


def test_a_copy_opens_the_file_for_itself(path: Path) -> None:
    stamps = StampSet(path, channels=None, cells=None, labels=None, dtype="float32")
    first, second = np.empty((2, 4, *stamps.shape), np.float32)
    stamps.read(np.arange(4), first, Threads(1))
    twin = copy.deepcopy(stamps)
    del stamps
    twin.read(np.arange(4), second, Threads(1))
    assert np.array_equal(first, second)


def test_pickled_it_is_small(path: Path) -> None:
    stamps = StampSet(path, channels=["DAPI"], cells=None, labels=None, dtype="float32")
    stamps.read(np.array([0]), np.empty((1, *stamps.shape), np.float32), Threads(1))
    assert len(pickle.dumps(stamps)) < N_CELLS * 24 + 2500


def test_a_loop_that_is_left_closes_everything(path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in iter_batches(path, 4):
        break
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_memory_is_used_again_when_nobody_has_it_any_more() -> None:
    memory = Recycler()
    first = memory.empty((4, 5), np.dtype(np.float32))
    first[:] = 1
    place, part = first.ctypes.data, first[1:, 2]
    del first
    assert memory.empty((4, 5), np.dtype(np.float32)).ctypes.data != place  # a part of it is still there
    assert (part == 1).all()
    del part
    smaller = memory.empty((3, 5), np.dtype(np.float16))
    assert (smaller.ctypes.data, smaller.shape, smaller.dtype) == (place, (3, 5), np.float16)
    assert memory.empty((40, 5), np.dtype(np.float32)).shape == (40, 5)
    assert pickle.loads(pickle.dumps(memory)).empty((2,), np.dtype(np.float32)).shape == (2,)


def test_batches_that_are_kept_stay_as_they_are(path: Path) -> None:
    kept = list(iter_batches(path, 4))
    assert np.array_equal(np.concatenate([images for images, _ in kept]), expected(path))


def test_one_is_worked_on_ahead() -> None:
    begun: list[int] = []
    results = one_ahead(lambda item: begun.append(item) or item, range(5))
    assert next(results) == 0
    assert next(results) == 1
    assert begun[:2] == [0, 1]
    assert list(results) == [2, 3, 4]
    assert begun == [0, 1, 2, 3, 4]


@pytest.mark.once
def test_torch_is_not_needed() -> None:
    code = "import sys; sys.modules['torch'] = None; from cellstamp import *; iter_batches; import cellstamp; "
    subprocess.run([sys.executable, "-c", code], check=True)
    failed = subprocess.run(
        [sys.executable, "-c", f"{code} cellstamp.SingleCellDataset"], stderr=subprocess.PIPE, text=True
    )
    assert "ImportError: SingleCellDataset needs torch: pip install 'cellstamp[torch]'" in failed.stderr
    assert "SingleCellDataset" in dir(cellstamp)


# --- errors -----------------------------------------------------------------------------------------------------------


def test_an_object_is_no_path(path: Path) -> None:
    message = (
        r"path: is AnnData; must be the path of an \.h5sc file or zarr store, or a list of paths\. In a project's "
        r"folder, it is extraction/data/single_cells\.h5sc or single_cells\.zarr"
    )
    with pytest.raises(ConfigError, match=message):
        iter_batches(read_h5sc(path, images=False))  # type: ignore[arg-type]


def test_a_type_may_be_numpys(path: Path) -> None:
    images, _ = next(iter_batches(path, 4, dtype=np.float16))  # type: ignore[arg-type]
    assert images.dtype == np.float16


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": "dapi"}, r"a\.h5sc has no 'dapi'; did you mean 'DAPI'\? It has nucleus, cytosol, DAPI, actin"),
        ({"channels": [4]}, "no 4: must be a name, or a number from 0 to 3"),
        ({"channels": []}, r"channels = \[\]: must name at least one"),
        ({"cells": [5, 6, 7, 8]}, r"ids are missing in .*a\.h5sc: 6, 7$"),
        ({"cells": np.array([5, 2**64 - 5], np.uint64)}, r"ids are missing in .*a\.h5sc: 18446744073709551611$"),
        ({"cells": [5, -5]}, r"ids are missing in .*a\.h5sc: -5$"),
        ({"cells": np.arange(2000, 2010)}, r"2000, 2001, 2002, 2003, 2004, \.\.\. \(10 in all\)"),
        ({"cells": [5, 8, 5]}, "ids are repeated: 5. Pass each id once"),
        ({"cells": np.ones(3, bool)}, r"has the shape \(3,\); it must have one value for each of the 40 cells"),
        ({"cells": np.zeros(40, bool)}, r"chooses no cell of .*a\.h5sc; must"),
        ({"cells": [0.5]}, r"must be cell ids \(integers\), a boolean for each cell, or the name of a boolean"),
        ({"cells": "regoin"}, r"obs of .*a\.h5sc has no column 'regoin'; did you mean 'region'\?"),
        ({"cells": "region"}, r"obs\['region'\] of .* is category; it must be a boolean for every cell"),
        (
            {"labels": [1, 2]},
            r"has the shape \(2,\); must have one label for each of the 1 files, .* 40 cells",
        ),
        ({"labels": [np.arange(3)]}, r"a\.h5sc has 40 cells, but its labels have the shape \(3,\)"),
        ({"labels": "gene"}, "obs of .* has no column 'gene'"),
        ({"cells": "17"}, r"obs of .* has no column '17'; for the cell with this id, give \[17\]"),
        ({"dtype": "uint8"}, "dtype = 'uint8': must be 'float32' or 'float16'"),
        ({"batch_size": 0}, "batch_size = 0: must be an integer of at least 1"),
        ({"block_size": 1.5}, "block_size = 1.5: must be an integer"),
        ({"n_threads": 0}, "n_threads = 0: must be an integer of at least 1"),
        ({"seed": -1}, "seed = -1: must be an integer of at least 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_what_cannot_be_is_told_at_once(path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        iter_batches(path, **options)


def test_labels_of_too_few_files(two: list[Path]) -> None:
    with pytest.raises(ConfigError, match="labels: has 1 parts for 2 files"):
        iter_batches(two, labels=[np.arange(40)])


def test_labels_without_a_value(tmp_path: Path) -> None:
    write_file(tmp_path / "a.h5sc", layout_of(4), {"score": [1.0, np.nan, 2.0, np.nan]})
    with pytest.raises(ConfigError, match=r"obs\['score'\] of .* lacks values for 2 cells: 8, 14"):
        iter_batches(tmp_path / "a.h5sc", labels="score")


def test_files_that_do_not_fit_together(path: Path, tmp_path: Path) -> None:
    larger, other = tmp_path / "larger.h5sc", tmp_path / "other.h5sc"
    write_file(larger, layout_of(3, size=32))
    write_file(other, layout_of(3, channel_names=("DAPI", "tubulin")))
    with pytest.raises(InputError, match=r"image size, but .*a\.h5sc has 16 pixels and .*larger\.h5sc has 32"):
        iter_batches([path, larger])
    with pytest.raises(
        InputError, match=r"same channels, but .*a\.h5sc has nuc.* and .*other\.h5sc has .*lin\. Choose"
    ):
        iter_batches([path, other])
    assert together(iter_batches([path, other], channels=["DAPI"]))[0].shape == (43, 1, 16, 16)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*nothing\.h5sc"):
        iter_batches(tmp_path / "nothing.h5sc")
    with pytest.raises(ConfigError, match=r"path = \[\]: must have at least one path"):
        iter_batches([])


def test_a_file_that_has_changed(path: Path) -> None:
    batches = iter_batches(path, 4)
    next(batches)
    with h5py.File(path, "a") as file:
        file.attrs["changed"] = True
    with pytest.raises(InputError, match=r"a\.h5sc was modified after it was opened"):
        list(batches)


def test_a_file_that_is_gone(path: Path) -> None:
    batches = iter_batches(path, 4)
    path.unlink()
    with pytest.raises(InputError, match=r"a\.h5sc can no longer be opened: No such file"):
        next(batches)


@pytest.mark.parametrize("compression", ["lzf", "gzip"])
def test_a_damaged_stamp_is_named(tmp_path: Path, compression: Any) -> None:
    path = tmp_path / "a.h5sc"
    write_file(path, layout_of(N_CELLS, compression=compression))
    with h5py.File(path) as file:
        place = file[IMAGES].id.get_chunk_info_by_coord((6, 0, 0, 0))
    with path.open("rb+") as raw:
        raw.seek(place.byte_offset)
        raw.write(b"\xff" * place.size)
    with pytest.raises(InputError, match=r"a\.h5sc is damaged: nucleus of cell 23 cannot be decoded"):
        list(iter_batches(path, 16))
    with pytest.raises(InputError, match=r"a\.h5sc is damaged: actin of cell 23 cannot be decoded"):
        list(iter_batches(path, 16, channels=["actin"]))
