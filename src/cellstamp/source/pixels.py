"""Arrays of any make as one thing that is read region by region, so that no image is ever in memory as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import InputError

Region = tuple[slice, ...]


@dataclass(frozen=True)
class Pixels:
    """An array that is not in memory: what it is, the blocks it is stored in, and how a region of it is read.

    Attributes
    ----------
    shape
        Its size along each axis, in pixels: (c, y, x) or (y, x).
    dtype
        What `read` returns.
    chunks
        The blocks it is decoded in, so that a reader can take whole ones.
    read
        Region (a slice of an axis each, with start and stop) -> array.
    names
        Of the channels, where the file tells them.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    read: Callable[[Region], NDArray[Any]]
    names: tuple[str, ...] = ()


def as_pixels(array: Any) -> Pixels:
    """Read a numpy, zarr or dask array, or what can be sliced like them, region by region.

    Parameters
    ----------
    array
        Anything with `shape`, `dtype` and slicing; else what `numpy.asarray` understands.

    Raises
    ------
    InputError
        When the sizes of a dask array's blocks are unknown, or the dtype is not one of numbers.
    """
    array = full_resolution(array)
    if not (hasattr(array, "shape") and hasattr(array, "dtype") and hasattr(array, "__getitem__")):
        array = np.asarray(array)
    if any(size != size for size in array.shape):
        raise InputError("dask array: the sizes of its blocks are unknown; call compute_chunk_sizes() on it first")
    dtype = np.dtype(array.dtype)
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise InputError(f"array of dtype {dtype}: must hold integers or floats of at most 64 bits")
    return Pixels(
        tuple(int(size) for size in array.shape),
        dtype.newbyteorder("="),
        _chunks_of(array),
        lambda region: np.asarray(array[region]),
    )


def full_resolution(element: Any) -> Any:
    """The largest level of a multi-scale element of SpatialData (an `xarray.DataTree`); anything else as it is."""
    return element["scale0"].image if hasattr(element, "children") else element


def _chunks_of(array: Any) -> tuple[int, ...]:
    chunks = getattr(array, "chunks", None)
    if chunks is None:
        return (1,) * len(array.shape)
    # An array without pixels has blocks of none; a block of at least one keeps the arithmetic of regions sound.
    return tuple(max(1, *sizes) if isinstance(sizes, tuple) else int(sizes) for sizes in chunks)


def stack(planes: Sequence[Pixels]) -> Pixels:
    """Planes (y, x), or blocks (c, y, x), of one size and dtype as one array (c, y, x)."""
    blocks = [plane if len(plane.shape) == 3 else _as_channel(plane) for plane in planes]
    owners = [(block, channel) for block in blocks for channel in range(block.shape[0])]
    first = blocks[0]

    def read(region: Region) -> NDArray[Any]:
        parts = [block.read((slice(k, k + 1), *region[1:])) for block, k in owners[region[0]]]
        return np.concatenate(parts)

    return Pixels((len(owners), *first.shape[1:]), first.dtype, (1, *first.chunks[1:]), read)


def as_channels(pixels: Pixels) -> Pixels:
    """An image (y, x) as one of a single channel (1, y, x); one of three axes as it is."""
    if len(pixels.shape) not in (2, 3):
        raise InputError(f"image of shape {pixels.shape}: must have the axes (c, y, x), or (y, x) for one channel")
    return pixels if len(pixels.shape) == 3 else _as_channel(pixels)


def _as_channel(plane: Pixels) -> Pixels:
    return Pixels((1, *plane.shape), plane.dtype, (1, *plane.chunks), lambda region: plane.read(region[1:])[np.newaxis])


def reordered(image: Pixels, order: Sequence[int]) -> Pixels:
    """The same image with its channels in another order: channel k of the result is channel ``order[k]``."""

    def read(region: Region) -> NDArray[Any]:
        wanted = np.asarray(order[region[0]], dtype=np.intp)
        low, high = int(wanted.min()), int(wanted.max())
        return image.read((slice(low, high + 1), *region[1:]))[wanted - low]

    return Pixels(image.shape, image.dtype, image.chunks, read)


def cropped(image: Pixels, window: Sequence[slice]) -> Pixels:
    """The part of an image (c, y, x) that `window`, a slice of y and one of x with start and stop, selects."""
    offsets = [0, *(part.start for part in window)]

    def read(region: Region) -> NDArray[Any]:
        moved = (slice(part.start + by, part.stop + by) for part, by in zip(region, offsets, strict=True))
        return image.read(tuple(moved))

    shape = (image.shape[0], *(part.stop - part.start for part in window))
    return Pixels(shape, image.dtype, image.chunks, read)


def arranged(pixels: Pixels, order: Sequence[int]) -> Pixels:
    """The same pixels with their axes in another order: axis k of the result is axis ``order[k]``."""

    def read(region: Region) -> NDArray[Any]:
        own = dict(zip(order, region, strict=True))
        return pixels.read(tuple(own[axis] for axis in range(len(order)))).transpose(order)

    shape, chunks = (tuple(values[axis] for axis in order) for values in (pixels.shape, pixels.chunks))
    return Pixels(shape, pixels.dtype, chunks, read)


def without_axes(pixels: Pixels, kept: Sequence[int]) -> Pixels:
    """The same pixels with only the axes `kept`, ascending; the others must be one pixel long."""

    def read(region: Region) -> NDArray[Any]:
        whole = [slice(0, 1)] * len(pixels.shape)
        for axis, part in zip(kept, region, strict=True):
            whole[axis] = part
        return pixels.read(tuple(whole)).reshape([part.stop - part.start for part in region])

    shape, chunks = (tuple(values[axis] for axis in kept) for values in (pixels.shape, pixels.chunks))
    return Pixels(shape, pixels.dtype, chunks, read)
