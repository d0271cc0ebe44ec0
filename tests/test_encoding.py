"""Encoded chunks are read back by HDF5's own filters, and by a decoder written from the description of the format."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import ndimage

from cellstamp.checksums import checksum
from cellstamp.encoded_cells import EncodedCells
from cellstamp.encoding import StampEncoder
from cellstamp.h5sc.layout import Layout
from encoding import encoded
from examples import examples
from writing import new_writer

pytestmark = pytest.mark.once

COMPRESSIONS = ["lzf", "gzip", None]


# --- what reads the bytes back ----------------------------------------------------------------------------------------


def records(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Yield for each record of an lzf stream how many bytes it makes, and these, or how far back they are."""
    at = 0
    while at < len(data):
        lead = data[at]
        at += 1
        if lead < 32:
            assert at + lead + 1 <= len(data), "the last record is cut off"
            yield lead + 1, data[at : at + lead + 1]
            at += lead + 1
            continue
        length = lead >> 5
        if length == 7:
            length += data[at]
            at += 1
        yield length + 2, ((lead & 31) << 8) + data[at] + 1
        at += 1


def unlzf(data: bytes) -> bytes:
    """Decode an lzf stream."""
    out = bytearray()
    for length, record in records(data):
        if isinstance(record, bytes):
            out += record
            continue
        assert record <= len(out), "points at what lies before the plane"
        for _ in range(length):
            out.append(out[-record])
    return bytes(out)


def split(payload: np.ndarray, sizes: np.ndarray) -> list[bytes]:
    ends = np.cumsum(sizes)
    assert ends[-1] == len(payload)
    return [payload[end - size : end].tobytes() for end, size in zip(ends, sizes.ravel(), strict=True)]


def through_hdf5(
    path: Path, shape: tuple[int, ...], per_chunk: int, compression: str | None, payload: np.ndarray, sizes: np.ndarray
):
    """Store encoded chunks in a file as its writer does, and read them with the library's own filters."""
    chunks = (1, per_chunk, *shape[2:])
    raw = 2 * per_chunk * shape[2] * shape[3]
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        data = file.create_dataset("stamps", shape, np.float16, chunks=chunks, compression=compression)
        for (row, number), blob in zip(np.ndindex(sizes.shape), split(payload, sizes), strict=True):
            is_raw = compression is not None and len(blob) == raw
            data.id.write_direct_chunk((row, number * per_chunk, 0, 0), blob, int(is_raw))
    with h5py.File(path) as file:
        return file["stamps"][...].view(np.uint16), file["stamps"].id.get_storage_size()


def assert_read_back(
    stamps: np.ndarray, boxes: np.ndarray, compression: str | None, encoder=None, per_chunk: int = 1
) -> np.ndarray:
    """Check that planes come back as they were; return the encoded sizes."""
    before = stamps.copy()
    payload, sizes = encoded(encoder or StampEncoder(compression, per_chunk), stamps, boxes)
    assert np.array_equal(stamps, before)
    n_cells, n_planes = stamps.shape[:2]
    assert sizes.shape == (n_cells, -(-n_planes // per_chunk))
    raw = 2 * per_chunk * stamps.shape[2] * stamps.shape[3]
    assert sizes.max() <= raw
    with tempfile.TemporaryDirectory() as folder:
        got, stored = through_hdf5(Path(folder) / "file.h5", stamps.shape, per_chunk, compression, payload, sizes)
    assert np.array_equal(got, stamps)
    assert stored == len(payload)
    if compression == "lzf":
        padded = np.pad(stamps, ((0, 0), (0, -n_planes % per_chunk), (0, 0), (0, 0)))
        for chunk, blob in zip(padded.reshape(sizes.size, -1), split(payload, sizes), strict=True):
            assert len(blob) == raw or unlzf(blob) == chunk.tobytes()
    return sizes


# --- drawn planes -----------------------------------------------------------------------------------------------------


@st.composite
def planes(draw, size: int):
    """A plane of float16 bits with an odd structure, and a box around what is not zero."""
    top, bottom = sorted(draw(st.tuples(st.integers(0, size), st.integers(0, size))))
    left, right = sorted(draw(st.tuples(st.integers(0, size), st.integers(0, size))))
    height, width = bottom - top, right - left
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(
        st.sampled_from(
            ["zero", "noise", "constant", "rows", "pairs", "few", "sparse", "ramp", "bytes", "gaps", "period"]
        )
    )
    noise = rng.integers(1, 2**16, (height, width), np.uint16)
    period = draw(st.integers(1, 5000))
    inside = {
        "zero": np.zeros_like(noise),
        "noise": noise,
        "constant": np.full_like(noise, draw(st.integers(0, 2**16 - 1))),
        "rows": noise[:1].repeat(height, axis=0) if height else noise,
        "pairs": noise // 2**14 * 257,
        "few": rng.choice(np.array([0, 1, 256, 0x3C00], np.uint16), noise.shape),
        "sparse": noise * (rng.random(noise.shape) < 0.05),
        "ramp": (np.arange(noise.size) // draw(st.integers(1, 400))).astype(np.uint16).reshape(noise.shape),
        "bytes": noise % 256,
        "gaps": noise * (rng.random((height, 1)) < 0.5),
        "period": rng.integers(1, 2**16, period, np.uint16)[np.arange(noise.size) % period].reshape(noise.shape),
    }[kind]
    plane = np.zeros((size, size), np.uint16)
    plane[top:bottom, left:right] = inside
    return plane, np.array([top, bottom, left, right]) * bool(noise.size)


@st.composite
def stacks(draw, size=None, least_planes=1):
    size = size or draw(st.one_of(st.integers(2, 40), st.integers(2, 300), st.sampled_from([2, 3, 16, 64, 128, 300])))
    n_cells, n_planes = draw(st.integers(1, 3)), draw(st.integers(least_planes, 4))
    drawn = [draw(planes(size)) for _ in range(n_cells * n_planes)]
    stamps = np.stack([plane for plane, _ in drawn]).reshape(n_cells, n_planes, size, size)
    return stamps, np.stack([box for _, box in drawn]).reshape(n_cells, n_planes, 4)


@examples(120)
@given(stacks(), st.integers(1, 4), st.sampled_from(COMPRESSIONS))
def test_planes_come_back_as_they_were(stack, per_chunk, compression):
    assert_read_back(*stack, compression, per_chunk=min(per_chunk, stack[0].shape[1]))


@examples(40)
@given(stacks())
def test_no_record_of_a_plane_reaches_into_another(stack):
    """A reader steps over planes."""
    stamps, boxes = stack
    n_planes, plane_bytes = stamps.shape[1], 2 * stamps[0, 0].size
    payload, sizes = encoded(StampEncoder("lzf", n_planes), stamps, boxes)
    for chunk in split(payload, sizes):
        if len(chunk) == n_planes * plane_bytes:
            continue  # stored raw
        done = 0
        for length, record in records(chunk):
            plane = done // plane_bytes * plane_bytes
            assert plane <= done - (0 if isinstance(record, bytes) else record)
            done += length
            assert done <= plane + plane_bytes


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("per_chunk", [1, 2, 3, 4, 5])
def test_the_last_chunk_of_a_cell_may_lack_planes(per_chunk, compression):
    rng = np.random.default_rng(per_chunk)
    noise = rng.integers(0, 2**16, (2, 5, 8, 8), np.uint16)
    boxes = np.tile([0, 8, 0, 8], (2, 5, 1))
    sizes = assert_read_back(noise, boxes, compression, per_chunk=per_chunk)
    last = 5 - per_chunk * (sizes.shape[1] - 1)
    if compression is not None and last < per_chunk - 1:
        assert (sizes[:, -1] < 2 * 64 * (last + 1)).all()  # the missing planes take no space
    assert_read_back(noise // 2**14, boxes, compression, per_chunk=per_chunk)


@examples(40)
@given(st.data(), st.sampled_from(COMPRESSIONS))
def test_an_encoder_is_used_for_many_stacks(data, compression):
    per_chunk = data.draw(st.integers(1, 3))
    encoder = StampEncoder(compression, per_chunk)
    size = data.draw(st.integers(2, 64))
    again = data.draw(stacks(size, per_chunk))
    for stack in [again, *data.draw(st.lists(stacks(size, per_chunk), min_size=1, max_size=3)), again]:
        assert_read_back(*stack, compression, encoder, per_chunk)


def test_what_was_encoded_before_does_not_matter():
    rng = np.random.default_rng(0)
    whole = np.array([[[0, 32, 0, 32]]])
    first, other = (rng.integers(0, 2**16, (1, 1, 32, 32), np.uint16) for _ in range(2))
    encoder = StampEncoder("lzf", 1)
    fresh = encoded(encoder, first, whole)[0].tobytes()
    encoded(encoder, other, whole)
    assert encoded(encoder, first, whole)[0].tobytes() == fresh
    # the second of two equal planes must not point back into the first
    payload, sizes = encoded(encoder, np.concatenate([first // 2**12] * 2), np.concatenate([whole] * 2))
    half = len(payload) // 2
    assert np.array_equal(payload[:half], payload[half:])
    assert sizes.tolist() == [[half], [half]]
    assert unlzf(payload[half:].tobytes()) == (first // 2**12).tobytes()


# --- planes made for one rule each ------------------------------------------------------------------------------------


def alone(plane: np.ndarray, box=None) -> tuple[np.ndarray, np.ndarray]:
    """A stack of one plane; its box is the whole of it unless named."""
    box = (0, plane.shape[0], 0, plane.shape[1]) if box is None else box
    return plane.astype(np.uint16)[np.newaxis, np.newaxis], np.array(box, np.int64).reshape(1, 1, 4)


@pytest.mark.parametrize("size", [2, 3, 4, 5, 7, 8, 11, 12, 16, 23, 300])
@pytest.mark.parametrize("whole_box", [False, True])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_nothing_but_zeros(size, whole_box, compression):
    box = None if whole_box else (0, 0, 0, 0)
    sizes = assert_read_back(*alone(np.zeros((size, size))), compression)
    again = assert_read_back(*alone(np.zeros((size, size)), box), compression)
    assert sizes.tolist() == again.tolist()
    if compression == "lzf":
        assert sizes.item() <= 5 + 3 * (2 * size**2 // 264)


@pytest.mark.parametrize("size", [2, 3, 17, 64, 300])
@pytest.mark.parametrize("compression", ["lzf", "gzip"])
def test_what_does_not_shrink_is_stored_as_it_is_and_marked(size, compression, tmp_path):
    noise = np.random.default_rng(size).integers(0, 2**16, (size, size), np.uint16)
    sizes = assert_read_back(*alone(noise), compression)
    assert sizes.item() == 2 * size**2
    payload, sizes = encoded(StampEncoder(compression, 1), *alone(noise))
    assert payload.tobytes() == noise.tobytes()
    # without its mark HDF5's filter would take the plane for an encoded one
    through_hdf5(tmp_path / "file.h5", (1, 1, size, size), 1, compression, payload, sizes)
    with h5py.File(tmp_path / "file.h5") as file:
        assert file["stamps"].id.get_chunk_info(0).filter_mask == 1


def test_one_compressible_and_one_incompressible_plane_stand_side_by_side():
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 2**16, (64, 64), np.uint16)
    stamps = np.stack([noise, noise // 2**15, noise, np.zeros_like(noise)]).reshape(2, 2, 64, 64)
    boxes = np.tile([0, 64, 0, 64], (2, 2, 1))
    raw = 2 * 64 * 64
    for compression in ("lzf", "gzip"):
        sizes = assert_read_back(stamps, boxes, compression)
        assert (sizes == raw).tolist() == [[True, False], [True, False]]


@pytest.mark.parametrize("size", [2, 3, 20, 128])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_box_of_one_pixel_anywhere(size, compression):
    for y in {0, 1, size // 2, size - 1}:
        for x in {0, 1, size // 2, size - 1}:
            plane = np.zeros((size, size))
            plane[y, x] = 0x3C01
            assert_read_back(*alone(plane, (y, y + 1, x, x + 1)), compression)


@pytest.mark.parametrize("run", [1, 2, 3, 4, 130, 131, 132, 133, 134, 263, 264, 265, 266, 267, 268, 400, 528, 529, 530])
@pytest.mark.parametrize("of", ["zeros", "ones", "pairs"])
def test_runs_of_every_length(run, of):
    # a run of so many pixels (two bytes each) between others, in one row and across rows
    for size in (40, 600):
        flat = np.random.default_rng(run).integers(1, 2**16, 2 * size + 2 * run, np.uint16)
        flat[size // 2 : size // 2 + run] = {"zeros": 0, "ones": 0x3C00, "pairs": np.arange(run) % 2 + 5}[of]
        plane = np.zeros(size * size, np.uint16)
        plane[: flat.size] = flat[: plane.size]
        assert_read_back(*alone(plane.reshape(size, size)), "lzf")


@pytest.mark.parametrize("distance", [4094, 4095, 4096, 4097, 4098, 8192, 8193])
def test_repetitions_further_back_than_the_format_can_say(distance):
    # the same 40 pixels again, so many pixels further on; a pixel is two bytes, and 8192 bytes can be said
    size = 128
    plane = np.random.default_rng(distance).integers(1, 2**16, size * size, np.uint16)
    plane[100 + distance : 140 + distance] = plane[100:140]
    sizes = assert_read_back(*alone(plane.reshape(size, size) * (np.arange(size) < 120)), "lzf")
    assert sizes.item() <= 2 * size * size


@pytest.mark.parametrize("width", [8, 100, 200, 300])
def test_the_same_row_over_and_over(width):
    rng = np.random.default_rng(width)
    plane = np.zeros((300, 300))
    plane[:, :width] = rng.integers(1, 2**16, width)
    sizes = assert_read_back(*alone(plane, (0, 300, 0, width)), "lzf")
    assert sizes.item() < plane.size * 2 / 8


def test_repetitions_are_found_after_noise_too():
    rng = np.random.default_rng(2)
    noise, row = rng.integers(1, 2**16, (64, 128)), rng.integers(1, 2**16, 128)
    sizes = assert_read_back(*alone(np.concatenate([noise, np.tile(row, (64, 1))])), "lzf")
    # noise as it is, and one row; then a record or a few for each row
    assert sizes.item() < 1.05 * (2 * 128 * 65 + 64 * 10)


def test_a_long_leading_run_of_zeros_is_used_as_far_as_the_format_can_point():
    # islands of one pixel with long stretches of zeros between them, beyond and within 8192 bytes of the leading zeros
    for first in (1, 50, 4000, 4095, 4096, 4097, 20000):
        for gap in (1, 2, 3, 140, 4000, 4096):
            plane = np.zeros(256 * 256, np.uint16)
            plane[first :: gap + 1] = 7
            assert_read_back(*alone(plane.reshape(256, 256)), "lzf")


@example(2, 4)
@examples(100)
@given(st.integers(2, 6), st.integers(0, 2**32))
def test_tiny_planes_of_few_values(size, seed):
    rng = np.random.default_rng(seed)
    plane = rng.integers(0, 3, (size, size), np.uint16)
    inside = np.argwhere(plane)
    box = (0, 0, 0, 0) if not inside.size else np.stack([inside.min(axis=0), inside.max(axis=0) + 1], axis=1).ravel()
    for compression in COMPRESSIONS:
        assert_read_back(*alone(plane, box), compression)


# --- realistic stamps -------------------------------------------------------------------------------------------------


def smooth_cells(n_cells: int, size: int, noise: float = 40, levels: int = 65535) -> tuple[np.ndarray, np.ndarray]:
    """Stamps of round cells with a smooth texture, some noise, a blurred edge, normalised: masks and two channels."""
    step = 65535 // levels
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:size, :size] - size / 2
    stamps, boxes = [], []
    for _ in range(n_cells):
        ry, rx = rng.uniform(0.12, 0.3, 2) * size
        blurred = ndimage.gaussian_filter(((y / ry) ** 2 + (x / rx) ** 2 < 1).astype(float), 1, truncate=4)
        texture = [
            ndimage.gaussian_filter(rng.random((size, size)), 3) * 4e4 + rng.normal(0, noise, y.shape) for _ in "ab"
        ]
        channels = [np.clip(np.clip(v, 0, 65535) // step * step * blurred / 2.5e4, 0, 1) for v in texture]
        stamps.append([blurred, *channels])
        inside = np.argwhere(blurred)
        boxes.append([np.stack([inside.min(axis=0), inside.max(axis=0) + 1], axis=1).ravel()] * 3)
    return np.array(stamps).astype(np.float16).view(np.uint16), np.array(boxes)


@pytest.mark.parametrize("compression", ["lzf", "gzip"])
@pytest.mark.parametrize(
    ("size", "noise", "levels"), [(40, 40, 65535), (40, 0, 16), (128, 40, 65535), (128, 4000, 255), (128, 0, 16)]
)
def test_realistic_stamps_take_little_more_room_than_hdf5s_own(compression, size, noise, levels, tmp_path):
    stamps, boxes = smooth_cells(20, size, noise, levels)
    sizes = assert_read_back(stamps, boxes, compression)
    with h5py.File(tmp_path / "theirs.h5", "w") as file:
        data = file.create_dataset("x", data=stamps, chunks=(1, 1, size, size), compression=compression)
        theirs = data.id.get_storage_size()
    assert sizes.sum() <= 1.1 * theirs


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_the_writer_stores_them_in_any_order(compression, tmp_path):
    stamps, boxes = smooth_cells(6, 32)
    stamps[2, 1] = np.random.default_rng(0).integers(0, 2**15 - 2**11, (32, 32), np.uint16)
    boxes[2, 1] = 0, 32, 0, 32
    layout = Layout(
        cell_ids=np.arange(6, dtype=np.uint64),
        centers=np.zeros((6, 2)),
        mask_names=("seg_all_nucleus",),
        channel_names=("a", "b"),
        image_size=32,
        normalization_ranges=None,
        compression=compression,
    )
    encoder = StampEncoder(compression, layout.planes_per_chunk)
    with new_writer(tmp_path / "file.h5sc", layout) as writer:
        for rows in (np.array([5, 2, 0]), np.array([1, 4, 3])):
            payload, sizes = encoded(encoder, stamps[rows], boxes[rows])
            writer.write(
                EncodedCells(rows, sizes, payload, checksum(payload), np.zeros(1, np.int64), np.zeros(0, np.int64))
            )
    with h5py.File(tmp_path / "file.h5sc") as file:
        data = file["obsm/single_cell_images"]
        assert np.array_equal(data[...].view(np.uint16), stamps)
        assert data.chunks == (1, 3, 32, 32)
        assert data.id.get_num_chunks() == 6
