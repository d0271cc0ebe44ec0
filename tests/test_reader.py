"""Tiles read from real stores: the right pixels in any order, and hardly any chunk decoded twice."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import zarr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from zarr.abc.store import SuffixByteRequest
from zarr.storage import LocalStore, WrapperStore

from cellstamp.cells.crop_settings import CropSettings
from cellstamp.cells.plan import Tile, inside_image, plan_batches
from cellstamp.cells.task import StampTask
from cellstamp.engines.spans import Spans
from cellstamp.source.read.arrays import ArrayHandle, PixelSource
from cellstamp.source.read.tiles import TileReader
from cellstamp.source.values import Centers, Rect
from pixel_stores import write_source

SIZE = 24


def pixels(shape: tuple[int, int], n_channels: int, image_type, label_types) -> tuple[np.ndarray, list[np.ndarray]]:
    """Pixels that are all different from their neighbours, and labels up to the largest id the type can hold."""
    rng = np.random.default_rng(n_channels)
    image = rng.integers(0, np.iinfo(image_type).max, (n_channels, *shape), image_type, endpoint=True)
    masks = [
        rng.integers(0, min(np.iinfo(kind).max, 2**63 - 1), shape, kind, endpoint=np.dtype(kind) != np.uint64)
        for kind in label_types
    ]
    return image, masks


def tiles_of(shape, tile, *, size=SIZE, chunk=(64, 64), n_cells=500, spread=1.0, seed=0) -> list[Tile]:
    """The tiles of a plan, in its order, for cells drawn at random."""
    xy = np.random.default_rng(seed).random((n_cells, 2)) * (shape[1], shape[0]) * spread
    cells = Centers(np.arange(n_cells, dtype=np.uint64), xy)
    cells = cells[inside_image(cells, size, shape)]
    return [batch.tile for batch in plan_batches(cells, size, shape, tile=tile, chunk=chunk, max_batch_size=50)]


def assert_right(
    source: PixelSource, image: np.ndarray, masks: list[np.ndarray], tiles: list[Tile], reach=SIZE
) -> None:
    reader = TileReader(source, reach)
    assert len(set(tiles)) > 0
    for tile in tiles:
        region = tile.region
        block = reader.read(tile.area, region)
        assert block.rect.holds(region)
        rows, columns = region.slices(Rect(0, 0, 0, 0))
        within = region.slices(block.rect)
        assert block.image.dtype == image.dtype
        assert np.array_equal(block.image[:, *within], image[:, rows, columns])
        assert block.labels.shape[0] == len(masks)
        for got, mask in zip(block.labels, masks, strict=True):
            assert np.array_equal(got[within], mask[rows, columns].astype(np.uint64))


@pytest.mark.parametrize(
    ("image_chunk", "mask_chunk", "tile"),
    [(64, 500, (500, 500)), (500, 64, (500, 500)), (64, 64, (192, 128)), (70, 64, (190, 131)), (5000, 64, (640, 820)),
     (64, 5000, (640, 820)), (500, 500, (250, 500))],
)  # fmt: skip
def test_image_and_labels_in_chunks_of_their_own(image_chunk, mask_chunk, tile, tmp_path):
    image, masks = pixels((640, 820), 2, np.uint8, [np.uint32, np.uint32])
    source = write_source(tmp_path / "x.zarr", image, masks, image_chunk=image_chunk, mask_chunk=mask_chunk)
    chunk = (max(image_chunk, mask_chunk),) * 2
    tiles = tiles_of((640, 820), tile, chunk=chunk)
    assert_right(source, image, masks, tiles)
    np.random.default_rng(1).shuffle(tiles)
    assert_right(source, image, masks, tiles)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("label_types", "together"),
    [([np.uint8], np.uint32), ([np.uint16], np.uint32), ([np.int32], np.uint32), ([np.uint64], np.uint64),
     ([np.int64], np.uint64), ([np.uint16, np.int64], np.uint64), ([np.int8, np.uint32], np.uint32)],
)  # fmt: skip
def test_any_label_type(label_types, together, zarr_format, tmp_path):
    image, masks = pixels((150, 130), 1, np.uint16, label_types)
    source = write_source(tmp_path / "x.zarr", image, masks, image_chunk=64, mask_chunk=50, zarr_format=zarr_format)
    assert source.label_dtype == together
    assert_right(source, image, masks, tiles_of((150, 130), (64, 64), n_cells=200))


@pytest.mark.parametrize("image_type", [np.uint8, np.uint16, np.uint32, np.uint64])
@pytest.mark.parametrize("n_channels", [1, 5, 40])
def test_any_number_of_channels(image_type, n_channels, tmp_path):
    image, masks = pixels((100, 130), n_channels, image_type, [np.uint32])
    source = write_source(tmp_path / "x.zarr", image, masks, image_chunk=50, mask_chunk=50)
    assert source.bytes_per_pixel == n_channels * np.dtype(image_type).itemsize + 4
    assert_right(source, image, masks, tiles_of((100, 130), (50, 50), n_cells=200))


def test_sharded_arrays(tmp_path):
    image, masks = pixels((400, 380), 3, np.uint16, [np.uint32, np.uint64])
    source = write_source(tmp_path / "x.zarr", image, masks, image_chunk=32, mask_chunk=48, shard_chunks=4)
    assert source.image.chunks == (1, 32, 32)
    tiles = tiles_of((400, 380), (96, 96), chunk=(48, 48))
    assert_right(source, image, masks, tiles)
    assert_right(source, image, masks, tiles[::-1])


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    image, masks = pixels((200, 260), 2, np.uint16, [np.uint32, np.uint32])
    folder = tmp_path_factory.mktemp("stored")
    return write_source(folder / "x.zarr", image, masks, image_chunk=64, mask_chunk=100), image, masks


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_plan_walked_in_any_order(stored, data):
    source, image, masks = stored
    size = 2 * data.draw(st.integers(1, 40))
    tiles = tiles_of(
        image.shape[1:],
        data.draw(st.tuples(st.integers(30, 200), st.integers(30, 260))),
        size=size,
        chunk=data.draw(st.sampled_from([(1, 1), (64, 64), (100, 100), (64, 100)])),
        n_cells=data.draw(st.sampled_from([8, 60, 400])),
        spread=data.draw(st.sampled_from([1.0, 0.7])),
        seed=data.draw(st.integers(0, 99)),
    )
    assume(tiles)
    if data.draw(st.booleans()):
        tiles = data.draw(st.permutations(tiles))
    assert_right(source, image, masks, tiles, size)


# --- how often chunks are decoded -------------------------------------------------------------------------------------


class CountingStore(WrapperStore):
    """A folder that counts how often each chunk is fetched: a fetched chunk is decoded, nothing in between keeps it."""

    def __init__(self, store: LocalStore) -> None:
        super().__init__(store)
        self.fetched: Counter[str] = Counter()

    async def get(self, key, prototype, byte_range=None):
        # of a shard, each inner chunk is fetched by its bytes; what is at the end is the shard's index
        if "/c/" in key and not isinstance(byte_range, SuffixByteRequest):
            self.fetched[f"{key} {byte_range or ''}"] += 1
        return await super().get(key, prototype, byte_range)

    async def get_ranges(self, key, byte_ranges, **options):
        """How newer versions of zarr fetch the inner chunks of a shard."""
        byte_ranges = list(byte_ranges)
        self.fetched.update(f"{key} {byte_range}" for byte_range in byte_ranges)
        async for group in super().get_ranges(key, byte_ranges, **options):
            yield group


def counted(source: PixelSource) -> tuple[PixelSource, CountingStore]:
    """The same source, read through a counting store."""
    store = CountingStore(LocalStore(source.image.store, read_only=True))
    masks = tuple(replace(mask, store=store) for mask in source.masks)
    return replace(source, image=replace(source.image, store=store), masks=masks), store


@pytest.mark.parametrize("max_batch_size", [3, 1000])
@pytest.mark.parametrize("mask_chunk", [60, 120])
def test_chunks_are_decoded_once_or_little_more(max_batch_size, mask_chunk, tmp_path):
    # 12 chunks abreast, more than a strip of tiles; a crop is a tenth of a chunk
    side, chunk, size = 12, 120, 12
    shape = (8 * chunk, side * chunk)
    image, masks = pixels(shape, 2, np.uint8, [np.uint32])
    source, store = counted(write_source(tmp_path / "x.zarr", image, masks, image_chunk=chunk, mask_chunk=mask_chunk))
    # cells closer than a crop: windows lie across every border of every tile
    y, x = (axis.ravel() * 11.0 for axis in np.mgrid[: shape[0] // 11, : shape[1] // 11])
    cells = Centers(np.arange(x.size, dtype=np.uint64), np.stack([x, y], axis=1))
    cells = cells[inside_image(cells, size, shape)]
    tiles = [
        batch.tile
        for batch in plan_batches(
            cells, size, shape, tile=(chunk, chunk), chunk=(chunk, chunk), max_batch_size=max_batch_size
        )
    ]
    assert len(tiles) >= 96
    reader = TileReader(source, size)
    for tile in tiles:
        reader.read(tile.area, tile.region)
    n_chunks = 96 * 2 + (shape[0] // mask_chunk) * (shape[1] // mask_chunk)
    assert len(store.fetched) == n_chunks
    assert store.fetched.total() <= 1.2 * n_chunks


@pytest.mark.parametrize(("n_workers", "most"), [(1, 1.0), (2, 1.5)])
def test_workers_side_by_side_decode_a_chunk_one_and_a_half_times_at_most(n_workers, most, tmp_path):
    side, chunk, size = 6000, 2000, 128
    image, mask = np.zeros((1, side, side), np.uint8), np.zeros((side, side), np.uint8)
    source, store = counted(write_source(tmp_path / "x.zarr", image, [mask], image_chunk=chunk, mask_chunk=chunk))
    y, x = (axis.ravel() * 48.0 for axis in np.mgrid[: side // 48, : side // 48])
    cells = Centers(np.arange(x.size, dtype=np.uint64), np.stack([x, y], axis=1))
    cells = cells[inside_image(cells, size, (side, side))]
    batches = plan_batches(cells, size, (side, side), tile=(chunk, chunk), chunk=(chunk, chunk), max_batch_size=400)
    waiting, readers = Spans(batches, n_workers), [TileReader(source, size) for _ in range(n_workers)]
    while waiting:
        for number, reader in enumerate(readers[: len(waiting)]):
            tile = waiting.take(number).tile
            reader.read(tile.area, tile.region)
    assert len(store.fetched) == 2 * 9
    assert store.fetched.total() <= most * 2 * 9


def test_inner_chunks_of_shards_are_decoded_once_and_no_others_with_them(tmp_path):
    side, chunk, size = 480, 40, 12
    image, masks = pixels((side, side), 2, np.uint8, [np.uint32])
    source, store = counted(
        write_source(tmp_path / "x.zarr", image, masks, image_chunk=chunk, mask_chunk=chunk, shard_chunks=4)
    )
    tiles = tiles_of((side, side), (80, 80), chunk=(chunk, chunk), n_cells=2000, size=size)
    reader = TileReader(source, size)
    for tile in tiles:
        reader.read(tile.area, tile.region)
    n_chunks = 3 * (side // chunk) ** 2
    assert len(store.fetched) == n_chunks
    assert store.fetched.total() <= 1.2 * n_chunks


def test_batches_of_one_tile_read_it_once(tmp_path):
    image, masks = pixels((128, 128), 1, np.uint8, [np.uint32])
    source, store = counted(write_source(tmp_path / "x.zarr", image, masks, image_chunk=64, mask_chunk=64))
    tiles = tiles_of((128, 128), (128, 128), n_cells=500)
    assert len(tiles) > 5
    reader = TileReader(source, SIZE)
    for tile in tiles:
        reader.read(tile.area, tile.region)
    assert set(store.fetched.values()) == {1}


# --- handles ----------------------------------------------------------------------------------------------------------


def test_handles_are_small_and_open_again_elsewhere(stored, tmp_path):
    source, image, masks = stored
    area = Rect(10, 20, 230, 260)
    source.image.read(area)
    source.main_mask.read(area)
    sent = pickle.dumps(source)
    assert len(sent) < 2000
    here = pickle.loads(sent)
    assert here == source
    assert np.array_equal(here.image.read(area), image[:, 10:20, 230:260])
    code = f"""
import pickle, sys
source = pickle.loads({sent!r})
from cellstamp.source.values import Rect
area = Rect(10, 20, 230, 260)
sys.stdout.buffer.write(source.image.read(area).tobytes() + source.masks[1].read(area).tobytes())
assert "spatialdata" not in sys.modules
"""
    read = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert read == image[:, 10:20, 230:260].tobytes() + masks[1][10:20, 230:260].tobytes()


def test_a_task_that_has_worked_is_sent_without_its_buffers(stored):
    source, _, _ = stored
    limits = ((0.001, 0.999),) * len(source.channel_names)
    how = {
        "per_cell": True,
        "brightest": (math.inf,) * len(limits),
        "apply_masks": True,
        "dtype": "float16",
        "compression": "lzf",
    }
    task = StampTask(source, CropSettings(SIZE, limits, **how))
    cells = Centers(np.array([5], np.uint64), np.array([[100.0, 100.0]]))
    (batch,) = plan_batches(cells, SIZE, source.shape, tile=(200, 200), chunk=(64, 64), max_batch_size=9)
    first = task(batch)
    sent = pickle.dumps(task)
    assert len(sent) < 2000
    again = pickle.loads(sent)(batch)
    assert np.array_equal(again.payload, first.payload)
    assert again.sizes.tolist() == first.sizes.tolist()


def test_after_a_chunk_that_could_not_be_read_nothing_stale_is_handed_out(tmp_path):
    image, masks = pixels((128, 128), 1, np.uint16, [np.uint32])
    source = write_source(tmp_path / "x.zarr", image, masks, image_chunk=64, mask_chunk=64)
    first, second = (Rect(0, 64, left, left + 64) for left in (0, 64))
    reader = TileReader(source, SIZE)
    reader.read(first, first)
    chunk = next((tmp_path / "x.zarr" / "images").glob("**/c/0/0/1"))
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:40])
    with pytest.raises(Exception, match=r"(?i)zstd|decompress|decode|src"):
        reader.read(second, second)
    chunk.write_bytes(whole)
    for area in (first, second):
        block = reader.read(area, area)
        assert np.array_equal(block.labels[0], masks[0][area.slices(Rect(0, 128, 0, 128))])
        assert np.array_equal(block.image[0], image[0][area.slices(Rect(0, 128, 0, 128))])


def test_a_v2_chunk_separator_does_not_matter(tmp_path):
    data = np.random.default_rng(0).integers(0, 9, (90, 90), np.uint8)
    zarr.create_array(
        store=str(tmp_path / "x.zarr"), name="a/0", data=data, chunks=(40, 40), zarr_format=2,
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )  # fmt: skip
    handle = ArrayHandle(str(tmp_path / "x.zarr"), "a", "a/0", (90, 90), (40, 40), "uint8")
    assert np.array_equal(handle.read(Rect(30, 90, 0, 50)), data[30:90, 0:50])
