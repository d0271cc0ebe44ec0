"""Encode chunks of single-cell images for HDF5's filters.

A chunk holds some planes of one cell, usually all of them. A plane is zero outside its box, so the lzf encoder here
skips these zeros. It encodes 16 bits at a time, whatever the pixel type: one "pixel" in its functions is a float16, two
uint8, or half a float32.

Each plane of a chunk is encoded without references to the planes before it. So a reader can step over planes
(`cellstamp.decoding`). This costs nothing: lzf reaches back 8 KiB, less than a plane of 64 pixels a side.

An lzf stream is a sequence of two kinds of records. A first byte ``c < 32`` is followed by ``c + 1`` bytes to copy.
Otherwise the record repeats ``length`` bytes (3 to 264) from ``distance`` bytes back (1 to 8192). It has the byte
``(length - 2) << 5 | (distance - 1) >> 8``, one byte with the remaining length if the length field is 7, and the low
byte of ``distance - 1``.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from cellstamp.compiling.decorators import compiled, compiled_inline, pointer_to
from cellstamp.compression import Codec
from cellstamp.encoded_cells import n_chunks_of

GZIP_LEVEL = 4
"""Default level of h5py."""
BLOSC_LEVEL = 5
"""Default level of Blosc, of 9."""
ZSTD_LEVEL = 3
"""Default level of zstd."""
_OVERHEAD = 128
"""Bytes by which an encoded chunk may be larger than its pixels."""

BLOCK = 32
"""Bytes that `copy_block` copies."""
_MAX_LITERALS = BLOCK
_MAX_LENGTH = 264
_MAX_DISTANCE = 8192
_HASH_BITS = 12
_PATIENCE = 3
"""One more pixel is skipped after every ``2**_PATIENCE`` misses."""
_MOST_MISSES = 255


@intrinsic
def copy_block(typing: Any, source: Any, start: Any, target: Any, at: Any) -> Any:
    """Copy `BLOCK` bytes, ``target[at:at + BLOCK] = source[start:start + BLOCK]``, without checking bounds."""
    del typing

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source_at, target_at = (pointer_to(context, builder, signature, args, k, k + 1) for k in (0, 2))
        cgutils.raw_memcpy(builder, target_at, source_at, context.get_constant(types.intp, BLOCK), 1)
        return context.get_dummy_value()

    return types.void(source, start, target, at), build


@intrinsic
def _put_four_bytes(typing: Any, word: Any, out: Any, at: Any) -> Any:
    """Write a uint32 to ``out[at:at + 4]``, lowest byte first, without checking bounds."""
    del typing

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = pointer_to(context, builder, signature, args, 1, 2)
        wide = context.get_value_type(types.uint32).as_pointer()
        builder.store(args[0], builder.bitcast(place, wide), align=1)
        return context.get_dummy_value()

    return types.void(word, out, at), build


def _pixels_as(word: Any) -> Any:
    """Return a compiled function of a plane of uint16 and a position: the pixels from there on as one integer."""

    @intrinsic
    def function(typing: Any, plane: Any, start: Any) -> Any:
        del typing

        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            place = pointer_to(context, builder, signature, args, 0, 1)
            wide = context.get_value_type(word).as_pointer()
            return builder.load(builder.bitcast(place, wide), align=2)

        return word(plane, start), build

    return function


_two_pixels, _four_pixels = _pixels_as(types.uint32), _pixels_as(types.uint64)
"""Return 2 or 4 pixels as one integer, without checking bounds."""


class StampEncoder:
    """Encode single-cell images. Not thread-safe: it reuses its working memory.

    Parameters
    ----------
    compression
        ``"lzf"``, ``"gzip"``, ``"lz4"``, ``"zstd"``, or None for no compression.
    planes_per_chunk
        Number of planes in a chunk. The last chunk of a cell is filled up with zeros.
    """

    def __init__(self, compression: Codec | None, planes_per_chunk: int) -> None:
        self._compression, self._planes_per_chunk = compression, planes_per_chunk
        self._table = np.empty(1 << _HASH_BITS, np.int32)

    def room(self, n_cells: int, n_planes: int, plane_bytes: int) -> int:
        """Return the bytes needed to encode ``n_cells`` cells of ``n_planes`` planes with ``plane_bytes`` each."""
        # encoded chunks take at most their raw size; only the plane being encoded may grow beyond it, by a quarter
        n_chunks = n_chunks_of(n_planes, self._planes_per_chunk)
        chunk_bytes = self._planes_per_chunk * plane_bytes
        chunk_bytes += chunk_bytes // 128 + _OVERHEAD if self._compression in ("lz4", "zstd") else 0
        return n_cells * n_chunks * chunk_bytes + 2 * plane_bytes + 64

    def encode(self, stamps: NDArray[Any], boxes: NDArray[np.int64], out: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Encode every image.

        Parameters
        ----------
        stamps
            (n_cells, n_planes, size, size), C-contiguous, ``size`` even.
        boxes
            (n_cells, n_planes, 4): top, bottom, left, right (half open) in pixels. A plane is zero outside its box.
        out
            uint8, at least `room` bytes. Receives the encoded chunks in C order of (cell, chunk).

        Returns
        -------
        numpy.ndarray
            Bytes of each chunk, int64 (n_cells, n_chunks). A chunk that lzf or gzip did not shrink is stored raw, with
            its full size. HDF5 must be informed that no filter was applied to it.
        """
        n_cells, n_planes, _, width = stamps.shape
        raw, per_chunk = stamps.reshape(n_cells, n_planes, -1).view(np.uint8), self._planes_per_chunk
        sizes = np.empty((n_cells, n_chunks_of(n_planes, per_chunk)), np.int64)
        if self._compression == "lzf":
            halves, boxes = raw.view(np.uint16), _boxes_in_halves(boxes, stamps.itemsize)
            _lzf_chunks(halves, raw, width * stamps.itemsize // 2, boxes, per_chunk, self._table, out, sizes)
        elif self._compression is None:
            _raw_chunks(raw, per_chunk, out, sizes)
        else:
            blosc = partial(_blosc, itemsize=stamps.itemsize)
            encode = blosc if self._compression == "lz4" else _zstd if self._compression == "zstd" else _gzipped
            _put_blobs(encode, raw, per_chunk, out, sizes)
        return sizes


def _boxes_in_halves(boxes: NDArray[np.int64], itemsize: int) -> NDArray[np.int64]:
    """Convert columns of boxes from pixels to units of 16 bits."""
    if itemsize == 2:
        return boxes
    wider = boxes.copy()
    wider[..., 2] = boxes[..., 2] * itemsize // 2
    wider[..., 3] = -(-boxes[..., 3] * itemsize // 2)
    return wider


def _raw_chunks(planes: NDArray[np.uint8], per_chunk: int, out: NDArray[np.uint8], sizes: NDArray[np.int64]) -> None:
    n_cells, n_planes, n_bytes = planes.shape
    sizes[:] = per_chunk * n_bytes
    stored = out[: sizes.sum()].reshape(n_cells, -1, n_bytes)
    stored[:, :n_planes], stored[:, n_planes:] = planes, 0


def _gzipped(raw: bytes) -> bytes:
    from imagecodecs import zlibng_encode

    blob = bytes(zlibng_encode(raw, level=GZIP_LEVEL))
    return blob if len(blob) < len(raw) else raw


def _zstd(raw: bytes) -> bytes | bytearray:
    from imagecodecs import zstd_encode

    return zstd_encode(raw, level=ZSTD_LEVEL)


def _blosc(raw: bytes, *, itemsize: int) -> bytes | bytearray:
    from imagecodecs import blosc_encode

    return blosc_encode(raw, level=BLOSC_LEVEL, compressor="lz4", shuffle="noshuffle", typesize=itemsize, numthreads=1)


def _put_blobs(
    encode: Callable[[bytes], bytes | bytearray],
    planes: NDArray[np.uint8],
    per_chunk: int,
    out: NDArray[np.uint8],
    sizes: NDArray[np.int64],
) -> None:
    """Encode chunks with a function of another library."""
    at, n_bytes = 0, per_chunk * planes.shape[2]
    for cell, chunk in np.ndindex(sizes.shape):
        some = planes[cell, chunk * per_chunk : (chunk + 1) * per_chunk].tobytes()
        encoded = np.frombuffer(encode(some + bytes(n_bytes - len(some))), np.uint8)
        out[at : at + encoded.size] = encoded
        sizes[cell, chunk] = encoded.size
        at += encoded.size


@compiled
def _lzf_chunks(planes, raw, width, boxes, per_chunk, table, out, sizes):
    """Encode planes (n_cells, n_planes, pixels), given as uint16 and as bytes, into ``out``."""
    # typed, here and below: numba compiles functions once more for a literal 0
    at = np.int64(0)
    # positions in the table count through all planes, so entries of earlier planes are recognised as stale
    base = np.int64(0)
    table[:] = -1
    most = per_chunk * raw.shape[2]
    for i in range(planes.shape[0]):
        for c in range(sizes.shape[1]):
            end = at
            misses = np.int64(0)
            for p in range(c * per_chunk, (c + 1) * per_chunk):
                if end - at >= most:
                    break
                if p < planes.shape[1]:
                    end, misses = _lzf_plane(planes[i, p], raw[i, p], width, boxes[i, p], table, base, misses, out, end)
                    base += planes.shape[2]
                else:
                    end = _put_zero_plane(raw.shape[2], out, end)
            if end - at >= most:
                _put_raw(raw[i], c * per_chunk, per_chunk, out, at)
                end = at + most
            sizes[i, c] = end - at
            at = end


@compiled_inline
def _put_raw(planes, first, n, out, at):
    """Write ``n`` planes from ``first`` without compression; missing planes are zero."""
    for p in range(first, first + n):
        for k in range(planes.shape[1]):
            out[at + k] = planes[p, k] if p < planes.shape[0] else 0
        at += planes.shape[1]


@compiled_inline
def _put_zero_plane(n_bytes, out, at):
    """Encode a plane of zeros."""
    out[at] = 0
    out[at + 1] = 0
    return _put_repeat(np.int64(1), n_bytes - 1, out, at + 2)


@compiled_inline
def _lzf_plane(plane, raw, width, box, table, base, misses, out, at):
    """Encode one plane, given as uint16 (pixels,) and as bytes, at ``out[at:]``; return its end, and the ``misses``."""
    done, lead = np.int64(0), np.int64(0)
    for y in range(box[0], box[1]):
        first, end = y * width + box[2], y * width + box[3]
        first, end = _without_zeros(plane, first, end)
        if first == end:
            continue
        if done == 0:
            lead = first
        at = _put_zeros(raw, done, first, lead, out, at)
        at, misses = _put_pixels(plane, raw, first, end, table, base, misses, out, at)
        done = end
    return _put_zeros(raw, done, plane.size, lead, out, at), misses


@compiled_inline
def _without_zeros(plane, first, end):
    """Return the range without zeros at its ends."""
    while first + 4 <= end and _four_pixels(plane, first) == 0:
        first += 4
    while first < end and plane[first] == 0:
        first += 1
    while first + 4 <= end and _four_pixels(plane, end - 4) == 0:
        end -= 4
    while first < end and plane[end - 1] == 0:
        end -= 1
    return first, end


@compiled_inline
def _put_zeros(raw, start, end, lead, out, at):
    """Write the zeros from pixel ``start`` to ``end``, if possible as a repetition of the first ``lead`` zeros."""
    n_bytes = 2 * (end - start)
    if n_bytes < 4:
        return _put_literals(raw, 2 * start, 2 * end, out, at)
    distance = 2 * (end - lead)
    if start > 0 and end - start <= lead and distance <= _MAX_DISTANCE:
        return _put_repeat(distance, n_bytes, out, at)
    at = _put_literals(raw, 2 * start, 2 * start + 1, out, at)
    return _put_repeat(np.int64(1), n_bytes - 1, out, at)


@compiled_inline
def _put_pixels(plane, raw, start, end, table, base, misses, out, at):
    """Write pixels of one row, as repetitions of runs and of pairs of pixels seen before.

    After many ``misses``, counted across rows and planes of a chunk, fewer pairs are looked up: noise does not repeat,
    and searching it costs more than the rest of the encoding.
    """
    waiting = start
    x = start
    while x + 1 < end:
        pair = _two_pixels(plane, x)
        if x > start and pair == _two_pixels(plane, x - 1):
            source = x - 1
        else:
            slot = _slot(pair)
            source = table[slot] - base
            table[slot] = base + x
            if source < 0 or 2 * (x - source) > _MAX_DISTANCE or _two_pixels(plane, source) != pair:
                misses = min(misses + 1, _MOST_MISSES)
                x += 1 + (misses >> _PATIENCE)
                continue
        misses >>= 2
        length = _length_of_repeat(plane, source, x, end)
        at = _put_literals(raw, 2 * waiting, 2 * x, out, at)
        at = _put_repeat(2 * (x - source), 2 * length, out, at)
        x += length
        waiting = x
    return _put_literals(raw, 2 * waiting, 2 * end, out, at), misses


@compiled_inline
def _length_of_repeat(plane, source, x, end):
    """Return how many pixels from ``x`` on equal those from ``source`` on; the first two do."""
    length = np.int64(2)
    while x + length + 4 <= end and _four_pixels(plane, source + length) == _four_pixels(plane, x + length):
        length += 4
    while x + length < end and plane[source + length] == plane[x + length]:
        length += 1
    return length


@compiled_inline
def _slot(pair):
    """Return the table slot of a pair of pixels (multiplicative hashing, Knuth, TAOCP 3, 6.4)."""
    return np.int64((np.uint64(pair) * np.uint64(0x9E3779B1) & np.uint64(0xFFFFFFFF)) >> np.uint64(32 - _HASH_BITS))


@compiled_inline
def _put_literals(raw, start, end, out, at):
    """Write literal bytes."""
    while start < end:
        n = min(end - start, _MAX_LITERALS)
        out[at] = n - 1
        if start + _MAX_LITERALS <= raw.size:
            # copies too many bytes, which later records overwrite: a fixed number takes two instructions
            copy_block(raw, start, out, at + 1)  # type: ignore[call-arg]  # numba adds the first one
        else:
            for k in range(n):
                out[at + 1 + k] = raw[start + k]
        at += n + 1
        start += n
    return at


@compiled_inline
def _put_repeat(distance, n_bytes, out, at):
    """Write a repetition of the bytes ``distance`` back, at least 3; it may overlap itself."""
    while n_bytes > _MAX_LENGTH:
        # the last record needs 3 bytes, too
        n = _MAX_LENGTH if n_bytes >= _MAX_LENGTH + 3 else _MAX_LENGTH - 3
        at = _put_repeat_record(distance, n, out, at)
        n_bytes -= n
    return _put_repeat_record(distance, n_bytes, out, at)


@compiled_inline
def _put_repeat_record(distance, n, out, at):
    """Write one record of two or three bytes. It writes four: later records overwrite the others."""
    high, low = (distance - 1) >> 8, (distance - 1) & 0xFF
    short = (n - 2) << 5 | high | low << 8
    long = 7 << 5 | high | (n - 9) << 8 | low << 16
    _put_four_bytes(np.uint32(short if n < 9 else long), out, at)  # type: ignore[call-arg]
    return at + (2 if n < 9 else 3)
