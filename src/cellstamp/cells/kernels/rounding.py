"""Round float64 values to the stored type, and store them in a plane."""

import numpy as np

from cellstamp.cells.kernels.boxes import unlist_box
from cellstamp.compiling.decorators import compiled, compiled_part

# float64 -> float16: mantissa bits dropped, just under half of their value, the difference of the exponents' offsets,
# and the float64 2**52, at which round_to_half puts subnormal results
_ONE = np.uint64(1)
_DROPPED = np.uint64(42)
_HALF_STEP = np.uint64((1 << 41) - 1)
_EXPONENT_SHIFT = np.uint64((1023 - 15) << 10)
_SUBNORMAL = np.uint64((1023 + 52) << 52)


@compiled_part
def store_plane(values, bits, halves, levels, box, plane):
    """Round the box's values, listed row by row, into a plane (size, size); see `cut_stamps` for its types."""
    count = (box[3] - box[2]) * (box[1] - box[0])
    if plane.itemsize == 2 and levels == 1.0:
        round_to_half(values, bits, count, halves)
        unlist_box(halves, box, plane)
        return
    if levels != 1.0:
        for k in range(count):
            values[k] = np.rint(values[k] * levels)
    unlist_box(values, box, plane)


@compiled
def round_to_half(values, bits, count, halves):
    """Round float64 values in [0, 65504] to the bits of float16, to nearest and ties to even, as numpy does.

    Parameters
    ----------
    values
        float64 (>= count,); overwritten.
    bits
        The memory of ``values`` seen as uint64.
    halves
        uint16 (>= count,), written.
    """
    for i in range(count):
        # below 2**-14 a float16 has a fixed step of 2**-24: adding 2**52 leaves that many steps in the low bits
        value = values[i]
        values[i] = value * 2.0**24 + 2.0**52 if value < 2.0**-14 else value
    for i in range(count):
        raw = bits[i]
        normal = ((raw + _HALF_STEP + ((raw >> _DROPPED) & _ONE)) >> _DROPPED) - _EXPONENT_SHIFT
        halves[i] = np.uint16(normal if raw < _SUBNORMAL else raw)
