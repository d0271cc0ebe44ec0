"""Decode planes from the bytes of HDF5's filters, and convert images of any stored type to float32 or float16.

The reverse of `cellstamp.encoding`, which describes lzf streams. Any program may have written the bytes: damaged chunks
are detected, and nothing is read or written beyond a chunk.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from cellstamp.compiling.decorators import compiled, compiled_part
from cellstamp.compression import Compression
from cellstamp.encoding import BLOCK, copy_block

SPARE = BLOCK
"""Bytes that must follow the encoded and the decoded planes in their buffers: blocks may be copied beyond the end."""
_LITERALS = 32
"""Smaller first bytes of a record mean bytes to copy, others a repetition."""


class DamagedPlaneError(ValueError):
    """Raised for bytes that do not decode to a plane; ``plane`` is its index."""

    def __init__(self, plane: int) -> None:
        super().__init__(f"plane {plane} cannot be decoded")
        self.plane = plane


def decode_planes(
    payload: NDArray[np.uint8],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    compression: Compression | None,
    out: NDArray[np.uint8],
) -> None:
    """Decode planes into one buffer.

    Parameters
    ----------
    payload
        uint8: the encoded planes, followed by `SPARE` bytes.
    starts
        int64 (n_planes,): first byte of each plane.
    sizes
        int64 (n_planes,): bytes of each plane. Negative for a plane that is not compressed, 0 for one that is zero and
        not stored.
    compression
        ``"lzf"``, ``"gzip"`` or None.
    out
        uint8 (n_planes * plane_bytes + `SPARE`,), C-contiguous.

    Raises
    ------
    DamagedPlaneError
        If the bytes of a plane are invalid.
    """
    n_bytes = (out.size - SPARE) // max(1, len(sizes))
    if compression == "gzip":
        _inflate_planes(payload, starts, sizes, n_bytes, out)
        return
    damaged = _lzf_planes(payload, starts, sizes, n_bytes, out)
    if damaged >= 0:
        raise DamagedPlaneError(int(damaged))


def to_float(stored: NDArray[Any], out: NDArray[Any]) -> None:
    """Convert images to float32 or float16; the largest value of an integer type becomes 1.

    Parameters
    ----------
    stored
        float16, float32, uint8 or uint16, C-contiguous.
    out
        float32 or float16 of the same shape, C-contiguous.
    """
    if stored.dtype == np.float16 and out.dtype == np.float32:
        _widen(stored.reshape(-1).view(np.uint16), out.reshape(-1))
    elif stored.dtype.kind == "u":
        scale = np.float32(1 / np.iinfo(stored.dtype).max)
        np.multiply(stored, scale, out=out, dtype=np.float32, casting="same_kind")
    else:
        np.copyto(out, stored, casting="same_kind")


def load_decoders() -> None:
    """Compile or load the kernels; workers forked afterwards have them."""
    numbers, payload = np.zeros(1, np.int64), np.zeros(SPARE, np.uint8)
    decode_planes(payload, numbers, numbers, "lzf", np.empty(2 + SPARE, np.uint8))
    to_float(np.zeros(1, np.float16), np.empty(1, np.float32))


def _inflate_planes(
    payload: NDArray[np.uint8],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    n_bytes: int,
    out: NDArray[np.uint8],
) -> None:
    from imagecodecs import ZlibngError, zlibng_decode

    encoded = payload.data
    for plane, (start, size) in enumerate(zip(starts.tolist(), sizes.tolist(), strict=True)):
        target = out[plane * n_bytes : (plane + 1) * n_bytes]
        if size <= 0:
            target[:] = payload[start : start - size] if size else 0
            continue
        try:
            n_decoded = len(zlibng_decode(bytes(encoded[start : start + size]), out=memoryview(target.data)))
        except ZlibngError as error:
            raise DamagedPlaneError(plane) from error
        if n_decoded != n_bytes:
            raise DamagedPlaneError(plane)


@intrinsic
def _fill(typing: Any, target: Any, at: Any, n_bytes: Any, value: Any) -> Any:
    """Set ``target[at:at + n_bytes]`` to one byte, without checking bounds."""
    del typing

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        cgutils.memset(builder, builder.gep(data, [args[1]]), args[2], args[3])
        return context.get_dummy_value()

    return types.void(target, types.intp, types.intp, types.uint8), build


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
def _lzf_planes(payload, starts, sizes, n_bytes, out):
    """Decode planes; return the index of the first damaged one, or -1."""
    for plane in range(sizes.size):
        begin, start, size = plane * n_bytes, starts[plane], sizes[plane]
        if size > 0:
            if not _unlzf(payload, start, start + size, out, begin, begin + n_bytes):
                return plane
        elif size == -n_bytes:
            _copy(payload[start : start + n_bytes], out[begin : begin + n_bytes])
        elif size == 0:
            out[begin : begin + n_bytes] = 0
        else:
            return plane
    return -1


@compiled_part
def _copy(source, target):
    """Copy bytes in a loop: numba takes seconds to compile the assignment of one slice to another."""
    for k in range(target.size):
        target[k] = source[k]


@compiled_part
def _unlzf(payload, at, end, out, begin, room):
    """Decode ``payload[at:end]`` into ``out[begin:room]``; return whether it fills that exactly."""
    done = begin
    while at < end:
        lead = np.int64(payload[at])
        at += 1
        if lead < _LITERALS:
            n = lead + 1
            if at + n > end or done + n > room:
                return False
            copy_block(payload, at, out, done)  # type: ignore[call-arg]  # numba adds the first one
            at += n
        else:
            n = (lead >> 5) + 2
            if n == 9 and at < end:
                n += np.int64(payload[at])
                at += 1
            if at >= end:
                return False
            distance = ((lead & 31) << 8 | np.int64(payload[at])) + 1
            at += 1
            if done - distance < begin or done + n > room:
                return False
            _repeat(out, done, distance, n)
        done += n
    return done == room


@compiled_part
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
    for k in range(halves.size):
        half = np.uint32(halves[k])
        magnitude = (half & np.uint32(0x7FFF)) << np.uint32(13)
        # the shifted exponent is too small by 112, for subnormal numbers too
        bits = _as_bits(_as_float(magnitude) * np.float32(2.0**112))  # type: ignore[call-arg, var-annotated]
        special = np.uint32(0x7F800000) if magnitude >= np.uint32(0x0F800000) else np.uint32(0)
        out[k] = _as_float(bits | special | (half & np.uint32(0x8000)) << np.uint32(16))
