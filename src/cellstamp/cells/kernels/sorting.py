"""Sort lists of pixels' values, and find ranks in two sorted lists."""

import numpy as np

from cellstamp.compiling.decorators import compiled_part

_DIGIT = 8
_DIGITS = 2**_DIGIT
_LAST = np.uint64(_DIGITS - 1)


@compiled_part
def sort_keys(keys, other, counts):
    """Sort keys in place by their digits of 8 bits, the lowest first.

    Values of images have few digits, so this takes a fifth of the time of comparing them. Digits that all keys share
    are left out.

    Parameters
    ----------
    keys
        uint64 (n,).
    other
        uint64 (>= n,), scratch.
    counts
        int64 (256,), scratch.
    """
    n = keys.size
    if n < 2:
        return
    first, varying = keys[0], np.uint64(0)
    for k in range(n):
        varying |= keys[k] ^ first
    source, target = keys, other[:n]
    for number in range(8):
        shift = np.uint64(number * _DIGIT)
        if (varying >> shift) & _LAST:
            sort_by_digit(source, target, counts, shift)
            source, target = target, source
    if source is not keys:
        for k in range(n):
            keys[k] = other[k]


@compiled_part
def sort_by_digit(source, target, counts, shift):
    """Write keys to the target, sorted by one digit; keys with the same digit keep their order."""
    for digit in range(_DIGITS):
        counts[digit] = 0
    for k in range(source.size):
        counts[(source[k] >> shift) & _LAST] += 1
    start = 0
    for digit in range(_DIGITS):
        count = counts[digit]
        counts[digit] = start
        start += count
    for k in range(source.size):
        key = source[k]
        digit = (key >> shift) & _LAST
        target[counts[digit]] = key
        counts[digit] += 1


@compiled_part
def value_of_rank(one, other, rank):
    """Return the value of a rank, from 0, among the values of two sorted lists."""
    # how many of the first list are before it: the last number that the order of both lists allows
    low, high = max(0, rank - other.size), min(rank, one.size)
    while low < high:
        middle = (low + high) // 2
        if one[middle] < other[rank - middle - 1]:
            low = middle + 1
        else:
            high = middle
    if low == one.size:
        return other[rank - low]
    if rank - low == other.size:
        return one[low]
    return min(one[low], other[rank - low])
