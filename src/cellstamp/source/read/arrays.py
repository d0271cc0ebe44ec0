"""Where an image and its masks are; windows of them are read straight from zarr chunks, by whoever holds a handle."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import InputError
from cellstamp.source.location import is_remote
from cellstamp.source.read.signatures import sample_of, state_of
from cellstamp.source.values import Rect

if TYPE_CHECKING:
    import zarr


@dataclass(frozen=True)
class ArrayHandle:
    """Where one array of a store is: small, picklable, opened on first use in whichever process uses it.

    Attributes
    ----------
    store
        Folder or URL of the SpatialData zarr store.
    name
        Name of the element, for messages.
    path
        Path of the array inside the store.
    shape, chunks
        (c, y, x) of an image, (y, x) of labels; for a sharded array, ``chunks`` are the inner chunks.
    dtype
        Name of the data type.
    axes
        The axes of an image as it is stored, by their letters: "cyx", "yxc" or "yx"; it is (c, y, x) here in any case.
    picked
        The stored channels that an image has here, in its order; None: all of them.
    """

    store: str
    name: str
    path: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    axes: str = "cyx"
    picked: tuple[int, ...] | None = None

    @cached_property
    def array(self) -> zarr.Array[Any]:
        """The opened array."""
        import zarr

        return zarr.open_array(store=self.store, path=self.path, mode="r")

    def __getstate__(self) -> dict[str, Any]:
        """Leave the opened array behind, and say where it is to who may have another current directory."""
        state = {key: value for key, value in self.__dict__.items() if key != "array"}
        return state if is_remote(self.store) else state | {"store": str(Path(self.store).absolute())}

    def signature(self) -> str:
        """Tell this array from any other, and from itself before anything was written to it; see `state_of`."""
        return state_of(self.array, self.store, self.path)

    def sample(self) -> str:
        """Tell this array from any other, but not from a copy; see `sample_of`."""
        return sample_of(self.array, self.store, self.path)

    def pick(self, channels: Sequence[int]) -> ArrayHandle:
        """The same image with some of its channels only, in this order."""
        return replace(self, shape=(len(channels), *self.shape[1:]), picked=tuple(channels))

    def read(self, rect: Rect, channels: tuple[slice, ...] = ()) -> NDArray[Any]:
        """Read an area: (c, y, x) of an image, of some of its `channels` or all of them; (y, x) of labels.

        What lies outside of the image is 0.
        """
        inside = rect.clipped(*self.shape[-2:])
        if inside == rect:
            return self._read(rect, channels)
        n_channels = [len(range(*part.indices(self.shape[0]))) for part in channels] or self.shape[:-2]
        pixels = np.zeros((*n_channels, *rect.shape), self.dtype)
        if not inside.is_empty:
            pixels[..., *inside.slices(rect)] = self._read(inside, channels)
        return pixels

    def read_into(self, rect: Rect, out: NDArray[Any]) -> None:
        """Read an area into an array of its shape, of the handle's dtype or a wider one; see `read`.

        An image is read a few channels at a time: what is decoded is in memory twice for so long.
        """
        inside = rect.clipped(*self.shape[-2:])
        if inside != rect:
            out[...] = 0
            out = out[..., *inside.slices(rect)]
        if not inside.is_empty:
            for channels in self.channels():
                self._read_into(inside, channels, out[channels])

    def _read_into(self, rect: Rect, channels: tuple[slice, ...], out: NDArray[Any]) -> None:
        from zarr.buffer import cpu

        dtype, stored = np.dtype(self.dtype), self._as_stored(channels)
        if stored is None or dtype.itemsize != out.dtype.itemsize:
            out[...] = self._read(rect, channels)
            return
        # signed and unsigned ids of one width have the same bits, as long as they are not negative
        target = cpu.NDBuffer.from_numpy_array(out.view(dtype))
        with self._naming(rect):
            self.array.get_basic_selection((*stored, *_selection(rect)), out=target)

    def _read(self, rect: Rect, channels: tuple[slice, ...]) -> NDArray[Any]:
        rows, columns = _selection(rect)
        stored = self._as_stored(channels)
        with self._naming(rect):
            if stored is not None:
                return np.asarray(self.array[*stored, rows, columns])
            if self.axes == "yx":
                return np.asarray(self.array[rows, columns])[np.newaxis]
            numbers = self._stored_numbers(channels)
            first, end = min(numbers), max(numbers) + 1
            if self.axes == "cyx":
                pixels = np.asarray(self.array[first:end, rows, columns])
            else:
                pixels = np.moveaxis(np.asarray(self.array[rows, columns, first:end]), -1, 0)
        return pixels[np.subtract(numbers, first)]

    def channels(self) -> list[tuple[slice, ...]]:
        """Index along the channel axis, for each row of chunks; of labels, which have no such axis, an empty one."""
        if len(self.shape) == 2:
            return [()]
        rows = groupby(range(self.shape[0]), lambda channel: self._stored_numbers(())[channel] // self.chunks[0])
        members = [list(row) for _, row in rows]
        return [(slice(row[0], row[-1] + 1),) for row in members]

    def _stored_numbers(self, channels: tuple[slice, ...]) -> Sequence[int]:
        """What channels of an image are numbered in the store."""
        every = range(self.shape[0]) if self.picked is None else self.picked
        return every[channels[0]] if channels else every

    def _as_stored(self, channels: tuple[slice, ...]) -> tuple[slice, ...] | None:
        """Index along the stored channel axis, where these channels follow each other; None if that is not so."""
        if len(self.shape) == 2:
            return ()
        numbers = self._stored_numbers(channels)
        follow = self.axes == "cyx" and list(numbers) == list(range(numbers[0], numbers[0] + len(numbers)))
        return (slice(numbers[0], numbers[0] + len(numbers)),) if follow else None

    @contextmanager
    def _naming(self, rect: Rect) -> Iterator[None]:
        """Say which pixels of which array could not be read."""
        # remote stores have errors of their own, as many as there are file systems
        kinds = (Exception,) if is_remote(self.store) else (OSError, RuntimeError, ValueError)
        try:
            yield
        except kinds as error:
            message = (
                f"'{self.name}' cannot be read: {self.path} in {self.store}, rows {rect.top} to {rect.bottom}, columns "
                f"{rect.left} to {rect.right} (chunks of {self.chunks}): {error}. If a chunk is damaged, write the "
                "element again"
            )
            raise InputError(message) from error


@dataclass(frozen=True)
class PixelSource:
    """An image and its masks, on one pixel grid.

    Attributes
    ----------
    image
        (c, y, x), integer or float.
    masks
        One or two label arrays (y, x): nucleus before cytosol.
    channel_names
        One for each channel of the image.
    """

    image: ArrayHandle
    masks: tuple[ArrayHandle, ...]
    channel_names: tuple[str, ...]

    @property
    def main_mask(self) -> ArrayHandle:
        """The mask that says which cells there are and where."""
        return self.masks[0]

    @property
    def n_planes(self) -> int:
        """Planes of a stamp: masks, then channels."""
        return len(self.masks) + self.image.shape[0]

    @property
    def mask_names(self) -> tuple[str, ...]:
        """Names of the masks, nucleus before cytosol."""
        return tuple(mask.name for mask in self.masks)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[1], self.image.shape[2]

    def pick(self, names: Sequence[str]) -> PixelSource:
        """The same with some of its channels only, in this order.

        Raises
        ------
        InputError
            If there is no such channel, or more than one.
        """
        for name in names:
            if self.channel_names.count(name) != 1:
                problem = "no channel" if name not in self.channel_names else "more than one channel"
                message = (
                    f"channels: {problem} named '{name}' in image '{self.image.name}' of {self.image.store}; it has "
                    f"{', '.join(self.channel_names)}"
                )
                raise InputError(message)
        numbers = [self.channel_names.index(name) for name in names]
        return replace(self, image=self.image.pick(numbers), channel_names=tuple(names))

    @property
    def bytes_per_pixel(self) -> int:
        """Memory of one pixel of a block: all channels and masks."""
        image = self.image.shape[0] * np.dtype(self.image.dtype).itemsize
        return image + len(self.masks) * self.label_dtype.itemsize

    @property
    def label_dtype(self) -> np.dtype[Any]:
        """The type in which blocks hold cell ids: uint32 where every mask fits, else uint64."""
        wide = any(np.dtype(mask.dtype).itemsize > 4 for mask in self.masks)
        return np.dtype(np.uint64 if wide else np.uint32)

    def check_pixels(self, channel: int, pixels: NDArray[Any], rect: Rect, *, brightest: float) -> None:
        """Refuse pixels that cannot be worked with: what is masked is 0, and must be the darkest there is.

        Parameters
        ----------
        channel
            Number of the channel.
        pixels
            Pixels of it, one at least.
        rect
            Where they are.
        brightest
            The largest value that is allowed.

        Raises
        ------
        InputError
            If there are negative values, larger ones, NaN or infinity.
        """
        if pixels.dtype.kind == "u":
            return
        low, high = float(pixels.min()), float(pixels.max())
        if low >= 0 and high <= brightest and high < math.inf:
            return
        image, name = self.image, self.channel_names[channel]
        seen = f"values from {low:g} to {high:g}" if math.isfinite(low + high) else "NaN or infinity"
        if math.isfinite(low + high) and low >= 0:
            wanted = (
                "float images that are not normalised must lie in 0 to 1: divide the image first, or set "
                "normalize_output to True"
            )
        else:
            wanted = "pixels must be finite numbers, 0 or more: shift, clip or fill the image first"
        message = (
            f"image '{image.name}' in {image.store}, channel '{name}': {seen} in rows {rect.top} to {rect.bottom}, "
            f"columns {rect.left} to {rect.right}; {wanted}"
        )
        raise InputError(message)


def _selection(rect: Rect) -> tuple[slice, slice]:
    return slice(rect.top, rect.bottom), slice(rect.left, rect.right)
