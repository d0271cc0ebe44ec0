"""Read arrays of any kind region by region, so that an image never has to fit in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import InputError

Region = tuple[slice, ...]

# Bytes of a stack that are in memory at once while it is projected.
_PROJECTED = 128 * 2**20


@dataclass(frozen=True)
class Pixels:
    """An array that is read region by region.

    Attributes
    ----------
    shape
        Size along each axis in pixels: (c, y, x) or (y, x).
    dtype
        Type of the arrays that `read` returns.
    chunks
        Shape of the blocks that are decoded at once; reading complete blocks is fastest.
    read
        Region (for each axis a slice with start and stop) -> array.
    names
        Names of the channels, if the file has them.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    read: Callable[[Region], NDArray[Any]]
    names: tuple[str, ...] = ()


def as_pixels(array: Any) -> Pixels:
    """Return `Pixels` of a numpy, zarr or dask array, or of anything that can be sliced like one.

    Parameters
    ----------
    array
        Anything with `shape`, `dtype` and slicing, or anything that `numpy.asarray` takes.

    Raises
    ------
    InputError
        If the sizes of a dask array's blocks are unknown, some pixels are masked out, or the dtype is not one of
        numbers.
    """
    if isinstance(array, np.ma.MaskedArray):
        raise InputError("masked array: pixels without a value can't be loaded; fill them first, with array.filled(0)")
    array = full_resolution(array)
    if not (hasattr(array, "shape") and hasattr(array, "dtype") and hasattr(array, "__getitem__")):
        array = np.asarray(array)
    if any(size != size for size in array.shape):
        raise InputError("dask array: the sizes of its blocks are unknown; call compute_chunk_sizes() on it first")
    dtype = _plain(np.dtype(array.dtype))
    return Pixels(
        tuple(int(size) for size in array.shape),
        dtype,
        _chunks_of(array),
        lambda region: np.asarray(array[region], dtype),
    )


def _plain(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the portable form of a dtype: native byte order, and int64 for C's long long."""
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise InputError(f"array of dtype {dtype}: must hold integers or floats of at most 64 bits")
    return np.dtype(f"{dtype.kind}{dtype.itemsize}")


def full_resolution(element: Any) -> Any:
    """Return the largest level of a multi-scale element (an `xarray.DataTree`); anything else unchanged."""
    return element["scale0"].image if hasattr(element, "children") else element


def _chunks_of(array: Any) -> tuple[int, ...]:
    chunks = getattr(array, "chunks", None)
    if chunks is None:
        return (1,) * len(array.shape)
    # at least 1: an array without pixels has blocks of size 0, which regions can't divide by
    return tuple(max(1, *sizes) if isinstance(sizes, tuple) else int(sizes) for sizes in chunks)


def stack(planes: Sequence[Pixels]) -> Pixels:
    """Join planes (y, x) or images (c, y, x) of one size and dtype to one image (c, y, x)."""
    blocks = [plane if len(plane.shape) == 3 else _as_channel(plane) for plane in planes]
    owners = [(block, channel) for block in blocks for channel in range(block.shape[0])]
    first = blocks[0]

    def read(region: Region) -> NDArray[Any]:
        parts = [block.read((slice(k, k + 1), *region[1:])) for block, k in owners[region[0]]]
        return np.concatenate(parts)

    return Pixels((len(owners), *first.shape[1:]), first.dtype, (1, *first.chunks[1:]), read)


def as_channels(pixels: Pixels) -> Pixels:
    """Return an image (y, x) as (1, y, x); an image of three axes unchanged."""
    if len(pixels.shape) not in (2, 3):
        raise InputError(f"image of shape {pixels.shape}: must have the axes (c, y, x), or (y, x) for one channel")
    return pixels if len(pixels.shape) == 3 else _as_channel(pixels)


def _as_channel(plane: Pixels) -> Pixels:
    return Pixels((1, *plane.shape), plane.dtype, (1, *plane.chunks), lambda region: plane.read(region[1:])[np.newaxis])


def reordered(image: Pixels, order: Sequence[int]) -> Pixels:
    """Return the image with its channels in another order: channel k of the result is channel ``order[k]``."""

    def read(region: Region) -> NDArray[Any]:
        wanted = np.asarray(order[region[0]], dtype=np.intp)
        low, high = int(wanted.min()), int(wanted.max())
        return image.read((slice(low, high + 1), *region[1:]))[wanted - low]

    return Pixels(image.shape, image.dtype, image.chunks, read)


def cropped(image: Pixels, window: Sequence[slice]) -> Pixels:
    """Return the part of an image (c, y, x) in `window`: slices of y and x with start and stop."""
    offsets = [0, *(part.start for part in window)]

    def read(region: Region) -> NDArray[Any]:
        moved = (slice(part.start + by, part.stop + by) for part, by in zip(region, offsets, strict=True))
        return image.read(tuple(moved))

    shape = (image.shape[0], *(part.stop - part.start for part in window))
    return Pixels(shape, image.dtype, image.chunks, read)


def arranged(pixels: Pixels, order: Sequence[int]) -> Pixels:
    """Return the pixels with their axes in another order: axis k of the result is axis ``order[k]``."""

    def read(region: Region) -> NDArray[Any]:
        own = dict(zip(order, region, strict=True))
        return pixels.read(tuple(own[axis] for axis in range(len(order)))).transpose(order)

    shape, chunks = (tuple(values[axis] for axis in order) for values in (pixels.shape, pixels.chunks))
    return Pixels(shape, pixels.dtype, chunks, read)


def along(pixels: Pixels, axis: int, indices: Sequence[int]) -> Pixels:
    """Take some positions along one axis, in this order: position k of the result is position ``indices[k]``."""

    def read(region: Region) -> NDArray[Any]:
        wanted = list(indices[region[axis]])
        if wanted == list(range(wanted[0], wanted[0] + len(wanted))):
            return pixels.read(_at(region, axis, wanted[0], wanted[-1] + 1))
        return np.concatenate([pixels.read(_at(region, axis, k, k + 1)) for k in wanted], axis)

    shape = (*pixels.shape[:axis], len(indices), *pixels.shape[axis + 1 :])
    return Pixels(shape, pixels.dtype, pixels.chunks, read)


def brightest(pixels: Pixels, axis: int) -> Pixels:
    """Return the maximum projection along one axis, computed from a few blocks at a time."""
    length, depth = pixels.shape[axis], pixels.chunks[axis]

    def read(region: Region) -> NDArray[Any]:
        parts = list(region)
        parts.insert(axis, slice(0, 0))
        blocks = (pixels.read(_at(parts, axis, at, min(at + depth, length))) for at in range(0, length, depth))
        return reduce(np.maximum, (block.max(axis) for block in blocks))

    kept = [k for k in range(len(pixels.shape)) if k != axis]
    shape, chunks = (tuple(values[k] for k in kept) for values in (pixels.shape, pixels.chunks))
    return _in_narrow_parts(Pixels(shape, pixels.dtype, chunks, read), _PROJECTED // depth)


def flattened(pixels: Pixels) -> Pixels:
    """Join the first two of four axes: (c, z, y, x) becomes (c * z, y, x), the planes of one channel together."""
    n_channels, n_planes, *sides = pixels.shape

    def read(region: Region) -> NDArray[Any]:
        places = [divmod(k, n_planes) for k in range(region[0].start, region[0].stop)]
        blocks = [pixels.read((slice(c, c + 1), slice(z, z + 1), *region[1:])) for c, z in places]
        return np.concatenate([block[0] for block in blocks])

    return Pixels((n_channels * n_planes, *sides), pixels.dtype, (1, *pixels.chunks[2:]), read)


def _at(region: Sequence[slice], axis: int, start: int, stop: int) -> Region:
    return (*region[:axis], slice(start, stop), *region[axis + 1 :])


def _in_narrow_parts(pixels: Pixels, n_bytes: int) -> Pixels:
    """Return the pixels, read in parts of complete blocks along x, so that a part has about `n_bytes`."""

    def read(region: Region) -> NDArray[Any]:
        column = math.prod(part.stop - part.start for part in region[:-1]) * pixels.dtype.itemsize
        width = max(1, n_bytes // max(1, column * pixels.chunks[-1])) * pixels.chunks[-1]
        x = region[-1]
        starts = [x.start, *range(x.start - x.start % width + width, x.stop, width)]
        parts = [slice(a, b) for a, b in zip(starts, [*starts[1:], x.stop], strict=True)]
        return np.concatenate([pixels.read((*region[:-1], part)) for part in parts], -1)

    return replace(pixels, read=read)


def without_axes(pixels: Pixels, kept: Sequence[int]) -> Pixels:
    """Return the pixels with only the axes `kept`, ascending; the others must have length 1."""

    def read(region: Region) -> NDArray[Any]:
        whole = [slice(0, 1)] * len(pixels.shape)
        for axis, part in zip(kept, region, strict=True):
            whole[axis] = part
        return pixels.read(tuple(whole)).reshape([part.stop - part.start for part in region])

    shape, chunks = (tuple(values[axis] for axis in kept) for values in (pixels.shape, pixels.chunks))
    return Pixels(shape, pixels.dtype, chunks, read)
