"""Compiled kernels: from one cell's window of labels and image to its stamp planes.

Masks and what is multiplied by them are worked on in a *box*: the bounding box of the cell's mask inside the window,
grown by the blur radius and clipped to the window. Outside the box the blurred mask is exactly 0, and so is every
masked and normalised channel. The box of a channel that is not masked is the whole window.

Coordinates are pixels; arrays are indexed (y, x); a box is (top, bottom, left, right), half open.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.compiling.decorators import compiled, compiled_part

BLUR_RADIUS = 4
"""Pixels a Gaussian of sigma 1, truncated at 4 sigma, reaches."""

_OPEN = 2
"""Mark of background that is joined to the edge; its lowest bit is 0, like that of background."""

# float64 -> float16: mantissa bits dropped, just under half of what they count, the difference of the exponents'
# offsets, and the float64 2**52, at which round_to_half puts subnormal results
_ONE = np.uint64(1)
_DROPPED = np.uint64(42)
_HALF_STEP = np.uint64((1 << 41) - 1)
_EXPONENT_SHIFT = np.uint64((1023 - 15) << 10)
_SUBNORMAL = np.uint64((1023 + 52) << 52)

_FEW = 64
"""Order statistics this close to the upper end are found by insertion, others by partitioning."""


def gaussian_weights() -> NDArray[np.float64]:
    """Centre and one-sided weights of a Gaussian of sigma 1, truncated at 4 sigma and scaled to a sum of 1.

    Returns
    -------
    numpy.ndarray
        float64 (5,): the weight of the centre pixel, then those of its neighbours at distance 1 to 4.
    """
    x = np.arange(-BLUR_RADIUS, BLUR_RADIUS + 1)
    phi = np.exp(-0.5 * x**2)
    weights: NDArray[np.float64] = (phi / phi.sum())[BLUR_RADIUS:].copy()
    return weights


@compiled_part
def find_cell(labels, top, left, size, cell_id, mask, words, box):
    """Write ``labels == cell_id`` inside the window to ``mask``, and its bounding box to ``box``.

    Parameters
    ----------
    labels
        Unsigned integer (Y, X).
    top, left, size
        The window: ``labels[top:top + size, left:left + size]``. Box coordinates are relative to it.
    cell_id
        Scalar of the dtype of ``labels``.
    mask
        uint8 (size, size rounded up to a multiple of 8), written; columns beyond ``size`` must be 0.
    words
        The memory of ``mask`` seen as uint64, eight pixels a word.
    box
        int64 (4,), written; empty (all 0) if the cell has no pixel here.

    Returns
    -------
    bool
        Whether the cell has a pixel in the window.
    """
    columns = words[size]
    columns[:] = 0
    first, last = size, -1
    for y in range(size):
        row = labels[top + y, left : left + size]
        out = mask[y]
        for x in range(size):
            out[x] = row[x] == cell_id
        seen = np.uint64(0)
        for k in range(columns.size):
            seen |= words[y, k]
        if seen:
            first = min(first, y)
            last = y
            for k in range(columns.size):
                columns[k] |= words[y, k]
    if last < 0:
        box[:] = 0
        return False
    box[0], box[1], box[2], box[3] = first, last + 1, 0, size
    while mask[size, box[2]] == 0:
        box[2] += 1
    while mask[size, box[3] - 1] == 0:
        box[3] -= 1
    return True


@compiled
def fill_holes(mask, gaps):
    """Fill the holes of a mask in place: background that is not 4-connected to the edge of the area.

    Parameters
    ----------
    mask
        uint8 (height, width), 0 or 1: the mask's bounding box. What lies outside of it is background joined to the
        window's edge, so background on the edge of the box is never a hole.
    gaps
        int64 (>= height * width / 2, 3), scratch: row, first column and end of each gap between mask pixels of a row.

    Notes
    -----
    Only such gaps can belong to holes. A gap is open when the row above or below is open somewhere along it; gaps are
    opened in sweeps down and up until nothing changes, and those that stay closed are filled.
    """
    if not _has_gaps(mask):
        return
    count = _mark_edges(mask, gaps)
    opened = True
    while opened:
        opened = False
        for k in range(count):
            opened |= _open(mask, gaps[k])
        for k in range(count - 1, -1, -1):
            opened |= _open(mask, gaps[k])
    for k in range(count):
        row = mask[gaps[k, 0], gaps[k, 1] : gaps[k, 2]]
        if row[0] == 0:
            row[:] = 1
    for y in range(mask.shape[0]):
        row = mask[y]
        for x in range(row.size):
            row[x] &= 1


@compiled_part
def _has_gaps(mask):
    """Whether some row has background between two mask pixels: without one there can be no hole."""
    for y in range(mask.shape[0]):
        here, after = mask[y], mask[y, 1:]
        steps = np.int64(here[0] + mask[y, -1])
        for x in range(after.size):
            steps += here[x] ^ after[x]
        if steps > 2:
            return True
    return False


@compiled_part
def _mark_edges(mask, gaps):
    """Mark background that begins or ends a row, or lies in the first or last row, as open; list all other gaps."""
    height, width = mask.shape
    count = 0
    for y in range(height):
        row = mask[y]
        x = 0
        while x < width:
            if row[x]:
                x += 1
                continue
            first = x
            while x < width and row[x] == 0:
                x += 1
            if first == 0 or x == width or y == 0 or y == height - 1:
                row[first:x] = _OPEN
            else:
                gaps[count, 0], gaps[count, 1], gaps[count, 2] = y, first, x
                count += 1
    return count


@compiled_part
def _open(mask, gap):
    """Open a closed gap that touches an open pixel above or below; True if that happened."""
    y, first, end = gap[0], gap[1], gap[2]
    if mask[y, first] == _OPEN:
        return False
    above, below = mask[y - 1, first:end], mask[y + 1, first:end]
    for x in range(above.size):
        if above[x] == _OPEN or below[x] == _OPEN:
            mask[y, first:end] = _OPEN
            return True
    return False


@compiled_part
def cut_mask(labels, top, left, size, cell_id, weights, scratch, blurred, box):
    """Cut one mask: find the cell, fill its holes inside the window, blur it.

    Parameters
    ----------
    labels, top, left, size, cell_id
        See `find_cell`.
    weights
        float64 (5,), see `gaussian_weights`.
    scratch
        See `new_scratch`.
    blurred
        float64 (size, size); written inside the box only.
    box
        int64 (4,); the box of everything that is not 0. Empty (all 0) for a cell without pixels here.

    Returns
    -------
    bool
        Whether the cell has a pixel on the window's edge, and so may go on outside.
    """
    mask, words, gaps, padded, half = scratch
    if not find_cell(labels, top, left, size, cell_id, mask, words, box):
        return False
    on_edge = box[0] == 0 or box[1] == size or box[2] == 0 or box[3] == size
    cell = mask[box[0] : box[1], box[2] : box[3]]
    fill_holes(cell, gaps)
    y0, x0 = box[0], box[2]
    _grow(box, size)
    _pad(cell, y0, x0, box, size, padded)
    _blur(padded, half, weights, box, blurred)
    return on_edge


@compiled_part
def _grow(box, size):
    """Grow the box by the blur radius, inside the window."""
    box[0] = max(box[0] - BLUR_RADIUS, 0)
    box[1] = min(box[1] + BLUR_RADIUS, size)
    box[2] = max(box[2] - BLUR_RADIUS, 0)
    box[3] = min(box[3] + BLUR_RADIUS, size)


@compiled_part
def _pad(cell, y0, x0, box, size, padded):
    """Copy the mask into a float frame one blur radius wider than the box, repeating the window's edge pixels."""
    height, width = cell.shape
    columns = box[3] - box[2] + 2 * BLUR_RADIUS
    shift = x0 - box[2] + BLUR_RADIUS
    for r in range(box[1] - box[0] + 2 * BLUR_RADIUS):
        y = min(max(box[0] - BLUR_RADIUS + r, 0), size - 1) - y0
        if y < 0 or y >= height:
            padded[r, :columns] = 0.0
            continue
        padded[r, :shift] = cell[y, 0] if x0 == 0 else 0
        _copy(cell[y], padded[r, shift : shift + width])
        padded[r, shift + width : columns] = cell[y, width - 1] if x0 + width == size else 0


@compiled_part
def _blur(padded, half, weights, box, blurred):
    """Gaussian along y, then along x, adding the taps from the outside in, as ``scipy.ndimage.correlate1d`` does."""
    w0, w1, w2, w3, w4 = weights[0], weights[1], weights[2], weights[3], weights[4]
    # slices, so that the inner loops index with their own counter only: that is what the compiler turns into vector
    # code
    width = box[3] - box[2]
    b0, b1, b2, b3, b4 = half[0:], half[1:], half[2:], half[3:], half[4:]
    b5, b6, b7, b8 = half[5:], half[6:], half[7:], half[8:]
    for y in range(box[1] - box[0]):
        a = padded[y : y + 2 * BLUR_RADIUS + 1]
        for x in range(width + 2 * BLUR_RADIUS):
            value = a[4, x] * w0
            value += (a[0, x] + a[8, x]) * w4
            value += (a[1, x] + a[7, x]) * w3
            value += (a[2, x] + a[6, x]) * w2
            half[x] = value + (a[3, x] + a[5, x]) * w1
        out = blurred[box[0] + y, box[2] : box[3]]
        for x in range(width):
            value = b4[x] * w0
            value += (b0[x] + b8[x]) * w4
            value += (b1[x] + b7[x]) * w3
            value += (b2[x] + b6[x]) * w2
            out[x] = value + (b3[x] + b5[x]) * w1


@compiled_part
def cut_channel(image, top, left, blurred, box, values):
    """Multiply one channel by the blurred cell mask.

    Parameters
    ----------
    image
        Integer or float (Y, X), not negative.
    blurred, box
        From `cut_mask`.
    values
        float64 (>= box height * box width,); written row by row, without gaps.

    Returns
    -------
    int
        The number of values written.
    """
    width = box[3] - box[2]
    count = 0
    for y in range(box[0], box[1]):
        pixels = image[top + y, left + box[2] : left + box[3]]
        weight = blurred[y, box[2] : box[3]]
        out = values[count : count + width]
        for x in range(width):
            out[x] = pixels[x] * weight[x]
        count += width
    return count


@compiled_part
def copy_channel(image, top, left, size, values):
    """List the pixels of a window as they are, row by row; parameters as in `cut_channel`."""
    for y in range(size):
        _copy(image[top + y, left : left + size], values[y * size : (y + 1) * size])
    return size * size


@compiled
def normalise(values, count, n_pixels, lower_q, upper_q, work):
    """Rescale ``values[:count]`` in place to their quantile range, clipped to [0, 1].

    Parameters
    ----------
    values
        float64, not negative: a stamp's values inside the box.
    n_pixels
        Pixels of the window; the ``n_pixels - count`` values that are not listed are 0.
    lower_q, upper_q
        Quantiles, 0 <= lower_q < upper_q <= 1.
    work
        float64 (>= count and >= 2 * `_FEW`,), scratch.

    Notes
    -----
    The quantiles are ``numpy.quantile(window, q)`` with its linear interpolation, in the same order of operations.
    """
    upper = _quantile(values, count, n_pixels, upper_q, work)
    lower = _quantile(values, count, n_pixels, lower_q, work)
    rescale(values, count, lower, upper)


@compiled_part
def rescale(values, count, lower, upper):
    """Map ``lower`` to 0 and ``upper`` to 1 in ``values[:count]``, in place, clipped to [0, 1]; if equal, subtract."""
    span = upper - lower
    if span == 0.0:
        span = 1.0
    for i in range(count):
        scaled = (values[i] - lower) / span
        scaled = scaled if scaled > 0.0 else 0.0
        values[i] = scaled if scaled < 1.0 else 1.0


@compiled_part
def _quantile(values, count, n_pixels, q, work):
    """Linear quantile of ``values[:count]`` together with ``n_pixels - count`` zeros."""
    position = (n_pixels - 1) * q
    below = math.floor(position)
    above = min(below + 1, n_pixels - 1)
    zeros = n_pixels - count
    if above < zeros:
        return 0.0
    a, b = _two_in_order(values, count, below - zeros, above - zeros, work)
    share = position - below
    # numpy interpolates from the nearer end, which decides the last bit
    if share >= 0.5:
        return b - (b - a) * (1.0 - share)
    return a + (b - a) * share


@compiled_part
def _two_in_order(values, count, i, j, work):
    """The values of rank i and j (j is i or i + 1; ranks from 0, negative ones are zeros outside the box)."""
    from_top = count - i
    if from_top <= _FEW:
        _largest(values, count, from_top, work)
        return work[from_top - 1], work[count - j - 1]
    if j < 0:
        return 0.0, 0.0
    _copy(values[:count], work[:count])
    b = _select(work, count, j)
    if i == j:
        return b, b
    if i < 0:
        return 0.0, b
    a = work[0]
    for k in range(1, j):
        a = max(a, work[k])
    return a, b


@compiled_part
def _largest(values, count, n, work):
    """Write the n largest of ``values[:count]`` to ``work[:n]``, largest first, zeros filling up; n is `_FEW` at most.

    The n-th largest of the maxima of `_FEW` interleaved lanes is known to be reached by n values: only what is larger
    than that has to be put in order, and most rows of `_FEW` values hold nothing that is.
    """
    best, lanes = work[:n], work[_FEW : 2 * _FEW]
    rows = count // _FEW
    _lane_maxima(values, rows, lanes)
    best[:] = 0.0
    _sort_in(lanes, best)
    floor = best[n - 1]
    best[:] = floor
    for r in range(rows):
        row = values[r * _FEW : (r + 1) * _FEW]
        larger = 0
        for k in range(_FEW):
            larger += row[k] > floor
        if larger:
            _sort_in(row, best)
    _sort_in(values[rows * _FEW : count], best)


@compiled_part
def _lane_maxima(values, rows, lanes):
    """Write the maximum of every column of ``values`` to ``lanes``; a row has `_FEW` values, none below 0."""
    # four columns at a time, so that the compiler keeps the maxima of so many in one register
    for k in range(0, _FEW, 4):
        a, b, c, d = 0.0, 0.0, 0.0, 0.0
        for r in range(rows):
            at = r * _FEW + k
            a, b = max(a, values[at]), max(b, values[at + 1])
            c, d = max(c, values[at + 2]), max(d, values[at + 3])
        lanes[k], lanes[k + 1], lanes[k + 2], lanes[k + 3] = a, b, c, d


@compiled_part
def _sort_in(values, best):
    """Keep the largest of ``best`` and ``values`` in ``best``, largest first."""
    last = best.size - 1
    for k in range(values.size):
        value = values[k]
        if value > best[last]:
            at = last
            while at > 0 and best[at - 1] < value:
                best[at] = best[at - 1]
                at -= 1
            best[at] = value


@compiled_part
def _select(work, count, rank):
    """Partition ``work[:count]`` so that this rank stands at its place, smaller values before it; return it."""
    low, high = 0, count - 1
    while low < high:
        pivot = _median_of_three(work[low], work[(low + high) // 2], work[high])
        i, j = low, high
        while i <= j:
            while work[i] < pivot:
                i += 1
            while work[j] > pivot:
                j -= 1
            if i <= j:
                work[i], work[j] = work[j], work[i]
                i += 1
                j -= 1
        if rank <= j:
            high = j
        elif rank >= i:
            low = i
        else:
            break
    return work[rank]


@compiled_part
def _median_of_three(a, b, c):
    return max(min(a, b), min(max(a, b), c))


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


@compiled_part
def _copy(source, target):
    """Copy a row. A plain loop: assigning a slice takes longer than copying a short row, and seconds to compile."""
    for x in range(target.size):
        target[x] = source[x]


@compiled_part
def _store(values, bits, halves, levels, box, plane):
    """Round the box's values, listed row by row, into a stamp plane (size, size); see `cut_stamps` for its types."""
    count = (box[3] - box[2]) * (box[1] - box[0])
    if plane.itemsize == 2 and levels == 1.0:
        round_to_half(values, bits, count, halves)
        _unlist(halves, box, plane)
        return
    if levels != 1.0:
        for k in range(count):
            values[k] = np.rint(values[k] * levels)
    _unlist(values, box, plane)


@compiled_part
def _unlist(values, box, plane):
    """Put values that are listed row by row into the box."""
    width = box[3] - box[2]
    at = 0
    for y in range(box[0], box[1]):
        _copy(values[at : at + width], plane[y, box[2] : box[3]])
        at += width


@compiled_part
def _list_box(plane, box, values):
    """List the box's values row by row."""
    width = box[3] - box[2]
    at = 0
    for y in range(box[0], box[1]):
        _copy(plane[y, box[2] : box[3]], values[at : at + width])
        at += width


@compiled_part
def _clear(plane, box):
    for y in range(box[0], box[1]):
        row = plane[y, box[2] : box[3]]
        for x in range(row.size):
            row[x] = 0


@compiled
def cut_stamps(labels, image, ids, tops, lefts, how, stamps, boxes, on_edge, scratch):
    """Cut the stamps of several cells out of one block of labels and image.

    Parameters
    ----------
    labels
        uint32 or uint64 (n_masks, Y, X); the last mask is the cell mask.
    image
        Integer or float (n_channels, Y, X), not negative, the same area.
    ids, tops, lefts
        (n_cells,): cell ids in the dtype of ``labels``, and the upper left corner (int64) of each window in the block.
    how
        ``apply_masks, per_cell, limits, levels``: whether channels are multiplied by the blurred cell mask; whether
        ``limits`` (float64 (n_channels, 2), lower and upper) are quantiles of each stamp's window, or values; and what
        1 becomes, the largest value of an integer type, or 1.0 for floats.
    stamps
        (>= n_cells, n_masks + n_channels, size, size): float32, uint8, or uint16; uint16 with levels of 1 takes the
        bits of float16 values. Zero outside ``boxes``, when given as well as when returned.
    boxes
        int64 (>= n_cells, n_masks + n_channels, 4): the boxes of what ``stamps`` holds, replaced by the new ones.
    on_edge
        bool (>= n_cells,), written: whether the cell mask has a pixel on the window's edge.
    scratch
        See `new_scratch`.
    """
    apply_masks, per_cell, limits, levels = how
    masking, blurred, values, bits, halves, work, weights = scratch
    n_masks, size = labels.shape[0], stamps.shape[2]
    for i in range(ids.size):
        for p in range(stamps.shape[1]):
            _clear(stamps[i, p], boxes[i, p])
        box = boxes[i, 0]
        for m in range(n_masks):
            box = boxes[i, m]
            on_edge[i] = cut_mask(labels[m], tops[i], lefts[i], size, ids[i], weights, masking, blurred, box)
            _list_box(blurred, box, values)
            _store(values, bits, halves, levels, box, stamps[i, m])
        for c in range(image.shape[0]):
            own = boxes[i, n_masks + c]
            if apply_masks:
                _copy(box, own)
                count = cut_channel(image[c], tops[i], lefts[i], blurred, box, values)
            else:
                own[0], own[1], own[2], own[3] = 0, size, 0, size
                count = copy_channel(image[c], tops[i], lefts[i], size, values)
            if per_cell:
                normalise(values, count, size * size, limits[c, 0], limits[c, 1], work)
            else:
                rescale(values, count, limits[c, 0], limits[c, 1])
            _store(values, bits, halves, levels, own, stamps[i, n_masks + c])


def new_scratch(size: int) -> tuple[Any, ...]:
    """Allocate the working memory of `cut_stamps` for windows of ``size`` pixels; one per thread."""
    frame = size + 2 * BLUR_RADIUS
    # one row more than the window: the columns in use
    mask = np.zeros((size + 1, -(-size // 8) * 8), np.uint8)
    gaps = np.empty((size * size // 2, 3), np.int64)
    masking = (mask, mask.view(np.uint64), gaps, np.empty((frame, frame)), np.empty(frame))
    values = np.empty(size * size)
    halves = np.empty(size * size, np.uint16)
    work = np.empty(size * size + 2 * _FEW)
    return masking, np.empty((size, size)), values, values.view(np.uint64), halves, work, gaussian_weights()
