"""Decode planes from the bytes of HDF5's filters, and convert images of any stored type to float32 or float16.

The reverse of `cellstamp.encoding`, which describes lzf streams. Only chosen planes of a chunk are decoded: those
before them are stepped over, and those behind them are not looked at. Any program may have written the bytes: if a
plane refers to earlier ones, the chunk is decoded from its start. Damaged chunks are detected, and nothing is read or
written beyond a chunk.
"""

import zlib
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from cellstamp.compiling.decorators import compiled, compiled_inline, pointer_to
from cellstamp.compression import Codec
from cellstamp.encoding import BLOCK, copy_block

SPARE = BLOCK
"""Bytes that must follow the encoded and the decoded planes in their buffers: blocks may be copied beyond the end."""
_INFINITE = 0x7C00
"""Bits of an infinite float16; those of finite ones without a sign are lower."""
_WHOLE, _DAMAGED = -1, -2
"""Instead of a place in a chunk."""
_STEP = 16
"""Pixels that are compared with zero at once."""
_ALIGNMENT = 16
"""Of the memory of numpy and torch."""
_LANES = 8
"""Pixels that are converted at once past the caches."""
_LARGE = 2**25
"""Bytes of a batch that does not fit into the caches."""
_MAX_LENGTH = 264
_LITERALS = 32
"""Smaller first bytes of a record mean bytes to copy, others a repetition."""


class DamagedPlaneError(ValueError):
    """Raised for bytes that do not decode to a plane; ``cell`` and ``plane`` are its indices among the chosen ones."""

    def __init__(self, cell: int, plane: int) -> None:
        super().__init__(f"plane {plane} of image {cell} cannot be decoded")
        self.cell, self.plane = cell, plane


@dataclass(frozen=True)
class PlaneChoice:
    """Planes to decode of each cell.

    Attributes
    ----------
    planes
        int64 (n_planes,): numbers of the planes among all of a cell, in the order of the result; may repeat.
    per_chunk
        Number of planes in a chunk.
    """

    planes: NDArray[np.int64]
    per_chunk: int

    @property
    def chunks(self) -> NDArray[np.int64]:
        """Return the numbers of the chunks that hold these planes, ascending."""
        return np.unique(self.planes // self.per_chunk)

    def in_file(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the planes in the order of the file.

        Returns
        -------
        positions, slots
            int64 (n_planes,): number of each plane in its chunk, and its place in the result.
        bounds
            int64 (n_chunks + 1,): first plane of each chunk among them, and their number.
        """
        slots = np.argsort(self.planes, kind="stable")
        chunks, positions = np.divmod(self.planes[slots], self.per_chunk)
        return positions, slots, np.append(np.searchsorted(chunks, self.chunks), len(slots))


@dataclass(frozen=True)
class EncodedChunks:
    """The chunks of some cells.

    Attributes
    ----------
    payload
        uint8: the encoded chunks, followed by `SPARE` bytes.
    starts
        int64 (n_cells, n_chunks): first byte of each chunk, only of those that `PlaneChoice.chunks` names.
    sizes
        int64 (n_cells, n_chunks): bytes of each chunk. Negative for one that is not compressed, 0 for one that is zero
        and not stored.
    compression
        ``"lzf"``, ``"gzip"``, ``"lz4"``, ``"zstd"`` or None.
    """

    payload: NDArray[np.uint8]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    compression: Codec | None


def decode_planes(
    chunks: EncodedChunks, choice: PlaneChoice, places: NDArray[np.int64], stored: np.dtype[Any], out: NDArray[Any]
) -> None:
    """Decode the chosen planes of some cells.

    Parameters
    ----------
    places
        int64 (n_cells,): index of each cell in ``out``.
    stored
        Type of the stored pixels: that of ``out``, or float16.
    out
        (n, n_planes, pixels), C-contiguous, of the stored type; or float32 for stored float16.

    Raises
    ------
    DamagedPlaneError
        If the bytes of a plane are invalid.
    """
    n_bytes = out.shape[2] * stored.itemsize
    if chunks.compression not in ("lzf", None):
        _inflate_cells(chunks, choice, places, stored, out)
        return
    flat = out.reshape(len(out), -1)
    widened = flat if stored != out.dtype else np.empty((0, 0), np.float32)
    copied = flat.view(np.uint8) if stored == out.dtype else np.empty((0, 0), np.uint8)
    is_aligned = widened.ctypes.data % _ALIGNMENT == 0 and out.shape[2] % _STEP == 0
    how = (*choice.in_file(), choice.per_chunk, n_bytes, is_aligned and out.nbytes >= _LARGE)
    damaged = _lzf_cells(chunks.payload, chunks.starts, chunks.sizes, how, places, widened, copied)
    if damaged >= 0:
        raise DamagedPlaneError(*divmod(int(damaged), out.shape[1]))


def convert(stored: NDArray[Any], out: NDArray[Any]) -> None:
    """Copy images of the same type, or convert them to float32 or float16: the largest integer of a type becomes 1.

    Parameters
    ----------
    stored
        float16, float32, uint8 or uint16, C-contiguous.
    out
        The same type, float32 or float16, of the same shape, C-contiguous.
    """
    if stored.dtype == out.dtype:
        out[...] = stored
    elif stored.dtype == np.float16 and out.dtype == np.float32:
        _widen(stored.reshape(-1).view(np.uint16), out.reshape(-1))
    elif stored.dtype.kind == "u":
        scale = np.float32(1 / np.iinfo(stored.dtype).max)
        np.multiply(stored, scale, out=out, dtype=np.float32, casting="same_kind")
    else:
        np.copyto(out, stored, casting="same_kind")


def load_decoders() -> None:
    """Compile or load the kernels; workers forked afterwards have them."""
    numbers, half = np.zeros(1, np.int64), np.dtype(np.float16)
    chunks = EncodedChunks(np.zeros(SPARE, np.uint8), numbers[np.newaxis], numbers[np.newaxis], "lzf")
    decode_planes(chunks, PlaneChoice(numbers, 1), numbers, half, np.empty((1, 1, 4), np.float32))
    convert(np.zeros(1, half), np.empty(1, np.float32))


def _inflate_cells(
    chunks: EncodedChunks, choice: PlaneChoice, places: NDArray[np.int64], stored: np.dtype[Any], out: NDArray[Any]
) -> None:
    n_bytes, n_all = out.shape[2] * stored.itemsize, choice.per_chunk * out.shape[2] * stored.itemsize
    positions, slots, bounds = choice.in_file()
    runs = [_consecutive(positions[first:end], slots[first:end]) for first, end in pairwise(bounds.tolist())]
    memory = np.empty(n_all, np.uint8)
    for cell, place in enumerate(places.tolist()):
        for number, together in enumerate(runs):
            last = together[-1]
            chunk = _inflated(chunks, (cell, number), (last.position + last.n_planes) * n_bytes, memory)
            for position, slot, n_planes in together:
                if chunk is None:
                    raise DamagedPlaneError(cell, slot)
                planes = chunk[position * n_bytes : (position + n_planes) * n_bytes].view(stored)
                convert(planes, out[place, slot : slot + n_planes].reshape(-1))


class _Consecutive(NamedTuple):
    """Planes that follow each other both in their chunk and in the result."""

    position: int
    slot: int
    n_planes: int


def _consecutive(positions: NDArray[np.int64], slots: NDArray[np.int64]) -> list[_Consecutive]:
    """Divide the chosen planes of a chunk into consecutive ones, which are converted together."""
    starts = np.flatnonzero(np.r_[True, (np.diff(positions) != 1) | (np.diff(slots) != 1)])
    lengths = np.diff(np.r_[starts, len(positions)])
    return list(map(_Consecutive, positions[starts].tolist(), slots[starts].tolist(), lengths.tolist()))


def _inflated(
    chunks: EncodedChunks, at: tuple[int, int], n_wanted: int, memory: NDArray[np.uint8]
) -> NDArray[np.uint8] | None:
    """Return at least the first ``n_wanted`` bytes of a chunk, if possible in ``memory``; None if it is damaged."""
    n_all = memory.size
    start, size = int(chunks.starts[at]), int(chunks.sizes[at])
    if size <= 0:
        whole = chunks.payload[start : start - size] if size else np.zeros(n_all, np.uint8)
        return whole if whole.size == n_all else None
    encoded = chunks.payload.data[start : start + size]
    # zlib can stop early, but takes twice as long as zlib-ng
    early = chunks.compression == "gzip" and 2 * n_wanted <= n_all
    found = _started(encoded, n_wanted) if early else _blob(chunks.compression, bytes(encoded), memory)
    inflated = np.frombuffer(found, np.uint8)
    return inflated if inflated.size == (n_wanted if early else n_all) else None


def _started(encoded: memoryview, n_wanted: int) -> bytes:
    """Return the first bytes of a chunk in gzip; nothing if it is damaged."""
    try:
        return zlib.decompressobj().decompress(encoded, n_wanted)
    except zlib.error:
        return b""


def _blob(compression: Codec | None, encoded: bytes, memory: NDArray[np.uint8]) -> Any:
    """Return all bytes of a chunk, in ``memory`` if the codec can; nothing if it is damaged."""
    import imagecodecs

    try:
        if compression == "lz4":
            # Blosc's header has the size: a damaged one must not decide how much memory is taken
            is_plausible = int.from_bytes(encoded[4:8], "little") == memory.size
            return imagecodecs.blosc_decode(encoded, numthreads=1, out=memory.data) if is_plausible else b""
        decode = imagecodecs.zstd_decode if compression == "zstd" else imagecodecs.zlibng_decode
        return decode(encoded, out=memory.size)
    except (imagecodecs.BloscError, imagecodecs.ZstdError, imagecodecs.ZlibngError, ValueError):
        return b""


@intrinsic
def _fill(typing: Any, target: Any, at: Any, n_bytes: Any, value: Any) -> Any:
    """Set ``n_bytes`` from ``target[at]`` to one byte, without checking bounds."""
    del typing

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        cgutils.memset(builder, pointer_to(context, builder, signature, args, 0, 1), args[2], args[3])
        return context.get_dummy_value()

    return types.void(target, types.intp, types.intp, types.uint8), build


@intrinsic
def _copy(typing: Any, source: Any, start: Any, target: Any, at: Any, n_bytes: Any) -> Any:
    """Copy ``n_bytes`` from ``source[start]`` to ``target[at]``, without checking bounds."""
    del typing

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source_at, target_at = (pointer_to(context, builder, signature, args, k, k + 1) for k in (0, 2))
        cgutils.raw_memcpy(builder, target_at, source_at, args[4], 1)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp, types.intp), build


@intrinsic
def _widen_past_cache(typing: Any, halves: Any, at: Any, out: Any, is_used: Any) -> Any:
    """Convert `_LANES` float16 at ``halves[at]`` that are finite and not negative, or write zeros unless ``is_used``.

    They are written past the caches, which saves reading the memory first. ``out[at]`` must be aligned.
    """
    del typing

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def place(array: int, kind: Any) -> Any:
            pointer = pointer_to(context, builder, signature, args, array, 1)
            return builder.bitcast(pointer, ir.VectorType(kind, _LANES).as_pointer())

        wide, floats = ir.VectorType(ir.IntType(32), _LANES), ir.VectorType(ir.FloatType(), _LANES)
        bits = builder.zext(builder.load(place(0, ir.IntType(16)), align=2), wide)
        shifted = builder.shl(bits, ir.Constant(wide, [13] * _LANES))
        scaled = builder.fmul(builder.bitcast(shifted, floats), ir.Constant(floats, [2.0**112] * _LANES))
        used = context.cast(builder, args[3], signature.args[3], types.boolean)
        value = builder.select(used, scaled, ir.Constant(floats, [0.0] * _LANES))
        store = builder.store(value, place(2, ir.FloatType()), align=_ALIGNMENT)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(halves, types.intp, out, types.boolean), build


@intrinsic
def _as_float(typing: Any, bits: Any) -> Any:
    """Return the float32 with these bits."""
    del typing, bits

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        del context, signature
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.uint32), build


@intrinsic
def _as_bits(typing: Any, value: Any) -> Any:
    """Return the bits of a float32."""
    del typing, value

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        del context, signature
        return builder.bitcast(args[0], ir.IntType(32))

    return types.uint32(types.float32), build


@compiled
def _lzf_cells(payload, starts, sizes, how, places, widened, copied):
    """Decode planes into ``widened`` or ``copied``, whichever is not empty; return the first damaged one, or -1."""
    positions, slots, bounds, per_chunk, n_bytes, past_cache = how
    halves = np.empty((n_bytes + BLOCK) // 2, np.uint16)
    scratch, n = halves.view(np.uint8), n_bytes // 2
    chunk = np.empty(per_chunk * n_bytes + BLOCK, np.uint8)
    for cell in range(places.size):
        for c in range(bounds.size - 1):
            at, passed = starts[cell, c], np.int64(0)
            for j in range(bounds[c], bounds[c + 1]):
                position, slot = positions[j], slots[j]
                if position >= passed:  # or else it is still there
                    place = starts[cell, c], sizes[cell, c], per_chunk
                    at = _next_plane(payload, place, at, passed, position, n_bytes, scratch, chunk)
                    passed = position + 1
                if at == _DAMAGED:
                    return cell * slots.size + slot
                if copied.size:
                    _copy(scratch, 0, copied[places[cell]], slot * n_bytes, n_bytes)  # type: ignore[call-arg]
                else:
                    _widen_plane(halves[:n], widened[places[cell], slot * n : (slot + 1) * n], past_cache)
    return -1


@compiled_inline
def _next_plane(payload, place, at, passed, position, n_bytes, scratch, chunk):
    """Decode a plane into ``scratch``.

    Return where the next plane starts, `_WHOLE` if all planes of the chunk were decoded into ``chunk``, or `_DAMAGED`.
    """
    start, size, per_chunk = place
    end = start + size
    if size <= 0:
        return at if _plain_plane(payload, start, size, per_chunk, position, n_bytes, scratch) else np.int64(_DAMAGED)
    if at != _WHOLE:
        at = _skip(payload, at, end, (position - passed) * n_bytes)
        at = _unlzf(payload, at, end, scratch, n_bytes)
        if at >= 0 and (position + 1 < per_chunk or at == end):
            return at
        # planes may refer to earlier ones
        if _unlzf(payload, start, end, chunk, per_chunk * n_bytes) != end:
            return np.int64(_DAMAGED)
    _copy(chunk, position * n_bytes, scratch, 0, n_bytes)  # type: ignore[call-arg]
    return np.int64(_WHOLE)


@compiled_inline
def _plain_plane(payload, start, size, per_chunk, position, n_bytes, scratch):
    """Copy a plane of a chunk that is not compressed or not stored; return whether it is one."""
    if size == 0:
        _fill(scratch, 0, n_bytes, np.uint8(0))  # type: ignore[call-arg]
    elif size == -per_chunk * n_bytes:
        _copy(payload, start + position * n_bytes, scratch, 0, n_bytes)  # type: ignore[call-arg]
    else:
        return False
    return True


@compiled_inline
def _skip(payload, at, end, n_bytes):
    """Step over the records of ``n_bytes`` decoded bytes; return where the next one starts, or -1 if none does."""
    done = np.int64(0)
    while done < n_bytes and 0 <= at < end:
        lead = np.int64(payload[at])
        if lead < _LITERALS:
            done += lead + 1
            at += lead + 2
        else:
            n = (lead >> 5) + 2
            if n == 9:
                n += np.int64(payload[at + 1])
                at += 1
            done += n
            at += 2
    return at if done == n_bytes else np.int64(-1)


@compiled_inline
def _unlzf(payload, at, end, out, room):
    """Decode records from ``at`` to the first ``room`` bytes of ``out``.

    Return where the next record starts, or -1 if they are damaged, refer to bytes before ``at``, or if none ends there.
    """
    done = np.int64(0)
    while done < room:
        if at < 0 or at >= end:
            return np.int64(-1)
        lead = np.int64(payload[at])
        at += 1
        if lead < _LITERALS:
            n = lead + 1
            if at + n > end or done + n > room:
                return np.int64(-1)
            copy_block(payload, at, out, done)  # type: ignore[call-arg]  # numba adds the first one
            at += n
        else:
            n = (lead >> 5) + 2
            if n == 9 and at < end:
                n += np.int64(payload[at])
                at += 1
            if at >= end:
                return np.int64(-1)
            distance = ((lead & 31) << 8 | np.int64(payload[at])) + 1
            at += 1
            if distance == 1:
                # long runs, such as zeros around a cell, are many records of the largest length
                while at + 3 <= end and payload[at] == 0xE0 and payload[at + 1] == 0xFF and payload[at + 2] == 0:
                    n += _MAX_LENGTH
                    at += 3
            if done < distance or done + n > room:
                return np.int64(-1)
            _repeat(out, done, distance, n)
        done += n
    return at


@compiled_inline
def _repeat(out, at, distance, n):
    """Repeat ``n`` bytes from ``distance`` bytes back; they may overlap themselves."""
    if distance == 1:
        _fill(out, at, n, out[at - 1])  # type: ignore[call-arg]
        return
    # bytes with a short period also repeat with a multiple of it, which is long enough to copy blocks
    period = distance * ((BLOCK + distance - 1) // distance) if distance < BLOCK else distance
    done = min(n, period - distance)
    for k in range(at, at + done):
        out[k] = out[k - distance]
    while done < n:
        copy_block(out, at + done - period, out, at + done)  # type: ignore[call-arg]
        done += BLOCK


@compiled
def _widen(halves, out):
    """Convert the bits of float16 to float32, exactly; six times as fast as numpy."""
    _widen_some(halves, out)


@compiled_inline
def _widen_plane(halves, out, past_cache):
    """Convert a plane; zeros at its start and end are not converted."""
    tail = halves.size % _STEP
    words = halves[: halves.size - tail].view(np.uint64)
    first, last = 0, words.size
    while first < last and words[first] | words[first + 1] | words[first + 2] | words[first + 3] == 0:
        first += 4
    while tail == 0 and last > first and words[last - 1] | words[last - 2] | words[last - 3] | words[last - 4] == 0:
        last -= 4
    first, last = 4 * first, 4 * last + tail
    if past_cache and _is_plain(halves[first:last]):
        for k in range(0, halves.size, _LANES):
            _widen_past_cache(halves, k, out, first <= k < last)  # type: ignore[call-arg]
        return
    _fill(out, 0, 4 * first, np.uint8(0))  # type: ignore[call-arg]
    if _is_plain(halves[first:last]):
        _widen_plain(halves[first:last], out[first:last])
    else:
        _widen_some(halves[first:last], out[first:last])
    _fill(out, last, 4 * (halves.size - last), np.uint8(0))


@compiled_inline
def _is_plain(halves):
    """Check that no float16 is negative, infinite or NaN."""
    most = np.uint16(0)
    for k in range(halves.size):
        most = max(most, halves[k])
    return most < _INFINITE


@compiled_inline
def _widen_plain(halves, out):
    """Convert float16 that are finite and not negative."""
    for k in range(halves.size):
        magnitude = np.uint32(halves[k]) << np.uint32(13)
        # the shifted exponent is too small by 112, for subnormal numbers too
        out[k] = _as_float(magnitude) * np.float32(2.0**112)  # type: ignore[call-arg]


@compiled_inline
def _widen_some(halves, out):
    for k in range(halves.size):
        half = np.uint32(halves[k])
        magnitude = (half & np.uint32(0x7FFF)) << np.uint32(13)
        bits = _as_bits(_as_float(magnitude) * np.float32(2.0**112))  # type: ignore[call-arg, var-annotated]
        special = np.uint32(0x7F800000) if magnitude >= np.uint32(0x0F800000) else np.uint32(0)
        out[k] = _as_float(bits | special | (half & np.uint32(0x8000)) << np.uint32(16))
