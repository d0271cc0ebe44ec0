"""The bytes of HDF5's filters -> stamp planes, and stamps of any stored type -> float32 or float16.

The reverse of `cellstamp.codecs`, which tells what an lzf stream is. Nothing is assumed about who wrote the bytes: a
damaged chunk is found out, never read or written past its end.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from cellstamp.compiling.decorators import compiled, compiled_part

_BLOCK = 32
"""Bytes copied at once: too many as often as not, which is why buffers have so many to spare."""
SPARE = _BLOCK
"""Bytes that must follow the encoded chunks, and the decoded planes, in their buffers."""
_LITERALS = 32
"""A lead byte below it announces bytes to copy; any other one a repetition."""


class DamagedPlaneError(ValueError):
    """Bytes that do not decode to a plane; ``plane`` is its place among those given."""

    def __init__(self, plane: int) -> None:
        super().__init__(f"plane {plane} cannot be decoded")
        self.plane = plane


def decode_planes(
    payload: NDArray[np.uint8],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    compression: str | None,
    out: NDArray[np.uint8],
) -> None:
    """Decode planes, one after the other.

    Parameters
    ----------
    payload
        The encoded planes, and `SPARE` bytes behind them.
    starts
        (n_planes,): where in it each plane begins.
    sizes
        (n_planes,): bytes of each plane; negative for one that is stored as it is, 0 for one that is not stored, being
        zero.
    compression
        ``"lzf"``, ``"gzip"`` or None.
    out
        uint8 (n_planes * plane_bytes + `SPARE`,), C-contiguous.

    Raises
    ------
    DamagedPlaneError
        If the bytes of a plane are not what the filter writes.
    """
    n_bytes = (out.size - SPARE) // max(1, len(sizes))
    if compression == "gzip":
        _inflate_planes(payload, starts, sizes, n_bytes, out)
        return
    damaged = _lzf_planes(payload, starts, sizes, n_bytes, out)
    if damaged >= 0:
        raise DamagedPlaneError(int(damaged))


def to_float(stored: NDArray[Any], out: NDArray[Any]) -> None:
    """Convert stamps to float32 or float16, 1 being the largest value of an integer type.

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
    """Compile the kernels, or load them: workers that are forked after it need not do so."""
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
def _copy_block(typing: Any, source: Any, start: Any, target: Any, at: Any) -> Any:
    """Copy ``_BLOCK`` bytes, ``target[at:at + 32] = source[start:start + 32]``, without looking at bounds."""
    del typing

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def place(array: int) -> Any:
            data = context.make_array(signature.args[array])(context, builder, args[array]).data
            return builder.gep(data, [args[array + 1]])

        cgutils.raw_memcpy(builder, place(2), place(0), context.get_constant(types.intp, _BLOCK), 1)
        return context.get_dummy_value()

    return types.void(source, start, target, at), build


@intrinsic
def _fill(typing: Any, target: Any, at: Any, n_bytes: Any, value: Any) -> Any:
    """Set ``target[at:at + n_bytes]`` to one byte, without looking at bounds."""
    del typing

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        cgutils.memset(builder, builder.gep(data, [args[1]]), args[2], args[3])
        return context.get_dummy_value()

    return types.void(target, types.intp, types.intp, types.uint8), build


@intrinsic
def _as_float(typing: Any, bits: Any) -> Any:
    """The float32 of these bits."""
    del typing, bits

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        del context, signature
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.uint32), build


@intrinsic
def _as_bits(typing: Any, value: Any) -> Any:
    """The bits of a float32."""
    del typing, value

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        del context, signature
        return builder.bitcast(args[0], ir.IntType(32))

    return types.uint32(types.float32), build


@compiled
def _lzf_planes(payload, starts, sizes, n_bytes, out):
    """Decode planes; return the first that is damaged, or -1."""
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
    """Copy bytes. A plain loop: numba takes seconds to compile the assignment of a slice to another one."""
    for k in range(target.size):
        target[k] = source[k]


@compiled_part
def _unlzf(payload, at, end, out, begin, room):
    """Decode ``payload[at:end]`` into ``out[begin:room]``; return whether it is that and no more."""
    done = begin
    while at < end:
        lead = np.int64(payload[at])
        at += 1
        if lead < _LITERALS:
            n = lead + 1
            if at + n > end or done + n > room:
                return False
            _copy_block(payload, at, out, done)  # type: ignore[call-arg]  # numba adds the first one
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
    """Put ``n`` bytes that lie ``distance`` bytes back; they may overlap themselves."""
    if distance == 1:
        _fill(out, at, n, out[at - 1])  # type: ignore[call-arg]
        return
    # what repeats itself every few bytes also does so every few times as many: blocks are copied from that far back
    period = distance * ((_BLOCK + distance - 1) // distance) if distance < _BLOCK else distance
    done = min(n, period - distance)
    for k in range(at, at + done):
        out[k] = out[k - distance]
    while done < n:
        _copy_block(out, at + done - period, out, at + done)  # type: ignore[call-arg]
        done += _BLOCK


@compiled
def _widen(halves, out):
    """Convert the bits of float16 to float32, exactly: six times as fast as numpy."""
    for k in range(halves.size):
        half = np.uint32(halves[k])
        magnitude = (half & np.uint32(0x7FFF)) << np.uint32(13)
        # shifted, the exponent is too small by 112, also that of numbers below the smallest normal one
        bits = _as_bits(_as_float(magnitude) * np.float32(2.0**112))  # type: ignore[call-arg, var-annotated]
        special = np.uint32(0x7F800000) if magnitude >= np.uint32(0x0F800000) else np.uint32(0)
        out[k] = _as_float(bits | special | (half & np.uint32(0x8000)) << np.uint32(16))
