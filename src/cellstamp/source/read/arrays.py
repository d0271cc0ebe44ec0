"""Read windows of an image and its masks from zarr chunks, through small picklable handles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import InputError
from cellstamp.lengths import PixelSize, scaled
from cellstamp.location import is_remote
from cellstamp.similar_names import did_you_mean
from cellstamp.source.outlines import OutlineMask
from cellstamp.source.read.interpolation import Loops
from cellstamp.source.read.signatures import sample_of, state_of
from cellstamp.source.values import Rect, Scale

if TYPE_CHECKING:
    import zarr


def ids_type(masks: Iterable[str]) -> np.dtype[Any]:
    """Return the dtype of cell ids in memory for masks of these dtypes: uint32 if all fit, else uint64."""
    return np.dtype(np.uint64 if any(np.dtype(mask).itemsize > 4 for mask in masks) else np.uint32)


class PixelArray(Protocol):
    """An image or labels on the pixel grid of the crops: small and picklable.

    It is an array with this grid (`ArrayHandle`), samples of another one (`SampledArray`), or channels of several
    images (`ImageStack`).

    Attributes
    ----------
    store, name
        Folder or URL of the store, and name of the element or elements.
    shape, chunks
        (c, y, x) of an image, (y, x) of labels; chunks of other grids have about this size.
    dtype, dtypes
        Name of the data type, and that of each channel.
    elements
        The elements that are read, each once.
    loops
        Compiled loops that sample it.
    working_bytes
        Bytes of memory that reading takes beside the result.
    """

    @property
    def store(self) -> str: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def chunks(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def dtype(self) -> str: ...  # noqa: D102
    @property
    def dtypes(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def elements(self) -> tuple[PixelArray, ...]: ...  # noqa: D102
    @property
    def loops(self) -> tuple[Loops, ...]: ...  # noqa: D102
    @property
    def working_bytes(self) -> int: ...  # noqa: D102

    def signature(self) -> str:
        """Return a digest that changes with every write."""
        ...

    def sample(self) -> str:
        """Return a digest that copies share."""
        ...

    def covers(self, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which positions on the grid are on the element itself, bool (n,)."""
        ...

    def pick(self, channels: Sequence[int]) -> PixelArray:
        """Return the image with these channels only, in this order."""
        ...

    def channels(self) -> list[tuple[slice, ...]]:
        """Return an index along the channel axis for each row of chunks; an empty one for labels."""
        ...

    def read(self, rect: Rect, channels: tuple[slice, ...] = ()) -> NDArray[Any]:
        """Read an area; see `ArrayHandle.read`."""
        ...

    def read_into(self, rect: Rect, out: NDArray[Any]) -> None:
        """Read an area into an array; see `ArrayHandle.read_into`."""
        ...


@dataclass(frozen=True)
class ArrayHandle:
    """Handle of an array in a store: small, picklable, opened on first use in each process.

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
        Axes of the stored array: "cyx", "yxc" or "yx". `shape` and the pixels read are (c, y, x) in any case.
    picked
        Stored channels of the image that the handle has, in this order; None: all.
    """

    store: str
    name: str
    path: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    axes: str = "cyx"
    picked: tuple[int, ...] | None = None

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Return the data type of each channel."""
        return (self.dtype,) * math.prod(self.shape[:-2])

    @property
    def elements(self) -> tuple[ArrayHandle, ...]:
        """Return the elements that are read: this one."""
        return (self,)

    @property
    def loops(self) -> tuple[Loops, ...]:
        """Return the compiled loops that sample it: none."""
        return ()

    @property
    def working_bytes(self) -> int:
        """Return the bytes of a chunk, which is in memory while it is decoded."""
        return math.prod(self.chunks) * np.dtype(self.dtype).itemsize

    @cached_property
    def array(self) -> zarr.Array[Any]:
        """Return the opened array."""
        import zarr

        return zarr.open_array(store=self.store, path=self.path, mode="r")

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the opened array, and with an absolute path: workers may have another folder."""
        state = {key: value for key, value in self.__dict__.items() if key != "array"}
        return state if is_remote(self.store) else state | {"store": str(Path(self.store).absolute())}

    def signature(self) -> str:
        """Return a digest that changes with every write to the array; see `state_of`."""
        return state_of(self.array, self.store, self.path)

    def sample(self) -> str:
        """Return a digest that copies of the array share; see `sample_of`."""
        return sample_of(self.array, self.store, self.path)

    def covers(self, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which positions are on the array, bool (n,): all, as centres of cells are on the image."""
        return np.ones(len(xy), np.bool_)

    def pick(self, channels: Sequence[int]) -> ArrayHandle:
        """Return the image with these channels only, in this order."""
        numbers = self._stored_numbers(())
        return replace(self, shape=(len(channels), *self.shape[1:]), picked=tuple(numbers[k] for k in channels))

    def read(self, rect: Rect, channels: tuple[slice, ...] = ()) -> NDArray[Any]:
        """Read an area: (c, y, x) of an image, all channels or those in `channels`; (y, x) of labels.

        Pixels outside of the image are 0.
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

        An image is read by rows of chunks along c, as decoded pixels are in memory twice.
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
        # non-negative signed and unsigned integers of one width have the same bits
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
        """Return an index along the channel axis for each row of chunks; an empty one for labels."""
        if len(self.shape) == 2:
            return [()]
        rows = groupby(range(self.shape[0]), lambda channel: self._stored_numbers(())[channel] // self.chunks[0])
        members = [list(row) for _, row in rows]
        return [(slice(row[0], row[-1] + 1),) for row in members]

    def _stored_numbers(self, channels: tuple[slice, ...]) -> Sequence[int]:
        """Return the numbers of channels in the store."""
        every = range(self.shape[0]) if self.picked is None else self.picked
        return every[channels[0]] if channels else every

    def _as_stored(self, channels: tuple[slice, ...]) -> tuple[slice, ...] | None:
        """Return the index along the stored channel axis, or None if the channels are not consecutive there."""
        if len(self.shape) == 2:
            return ()
        numbers = self._stored_numbers(channels)
        follow = self.axes == "cyx" and list(numbers) == list(range(numbers[0], numbers[0] + len(numbers)))
        return (slice(numbers[0], numbers[0] + len(numbers)),) if follow else None

    @contextmanager
    def _naming(self, rect: Rect) -> Iterator[None]:
        """Add the array and the pixels to errors of reading."""
        # each remote file system raises different errors
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


Mask = PixelArray | OutlineMask


@dataclass(frozen=True)
class PixelSource:
    """Image and masks on one pixel grid. A mask is labels, or outlines of cells.

    Attributes
    ----------
    image
        (c, y, x), integer or float. The first of several images has the grid.
    masks
        One or two, nucleus before cytosol: labels (y, x), or outlines.
    channel_names
        One for each channel of the image.
    remarks
        Sentences about the pixel size, and about cells that another mask lacks.
    positions
        Sentences about the positions of masks and further images on the first one.
    pixel_size
        Micrometres per pixel of the first image, if known.
    scale
        Sides of a pixel of the grid in pixels of the first image.
    left_out
        Sentences about shapes that cannot be cells, which are warnings.
    """

    image: PixelArray
    masks: tuple[Mask, ...]
    channel_names: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    positions: tuple[str, ...] = ()
    pixel_size: PixelSize | None = None
    scale: Scale = (1.0, 1.0)
    left_out: tuple[str, ...] = ()

    @property
    def crop_pixel_size(self) -> PixelSize | None:
        """Return the micrometres per pixel of the grid, if known."""
        if self.pixel_size is None:
            return None
        return scaled(self.pixel_size, self.scale)

    def on_image(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return positions in pixels of the first image, given those in the grid; (n, 2) as x, y.

        Both count from the centre of the first pixel.
        """
        return xy if self.scale == (1.0, 1.0) else (xy + 0.5) * self.scale[::-1] - 0.5

    @property
    def elements(self) -> tuple[Mask, ...]:
        """Return all elements that are read, images before masks."""
        return (*self.image.elements, *self.masks)

    @property
    def loops(self) -> tuple[Loops, ...]:
        """Return the compiled loops that sample elements, each once."""
        return tuple(dict.fromkeys(loops for array in self.arrays for loops in array.loops))

    @property
    def is_sampled(self) -> bool:
        """Return whether an element has other pixels than the grid."""
        return any(not isinstance(each, ArrayHandle | OutlineMask) for each in self.elements)

    def uncovered(self, xy: NDArray[np.float64]) -> dict[str, int]:
        """Return the number of positions that are not on an image, by its name; float64 (n, 2): x, y in pixels."""
        counts = {image.name: int((~image.covers(xy)).sum()) for image in self.image.elements}
        return {name: count for name, count in counts.items() if count}

    @property
    def labels(self) -> tuple[PixelArray, ...]:
        """Return the masks that are labels."""
        return tuple(mask for mask in self.masks if not isinstance(mask, OutlineMask))

    @property
    def outlines(self) -> tuple[OutlineMask, ...]:
        """Return the masks that are outlines."""
        return tuple(mask for mask in self.masks if isinstance(mask, OutlineMask))

    @property
    def arrays(self) -> tuple[PixelArray, ...]:
        """Return everything that is read by chunks."""
        return self.image, *self.labels

    @property
    def main_mask(self) -> Mask:
        """Return the mask that defines the cells and their centres."""
        return self.masks[0]

    @property
    def n_planes(self) -> int:
        """Return the number of planes of a single-cell image: masks and channels."""
        return len(self.masks) + self.image.shape[0]

    @property
    def mask_names(self) -> tuple[str, ...]:
        """Return the names of the masks, nucleus before cytosol."""
        return tuple(mask.name for mask in self.masks)

    @property
    def shape(self) -> tuple[int, int]:
        """Return height and width in pixels."""
        return self.image.shape[1], self.image.shape[2]

    def pick(self, names: Sequence[str]) -> PixelSource:
        """Return the source with these channels only, in this order.

        Raises
        ------
        InputError
            If a name is missing, or the name of several channels.
        """
        for name in names:
            if self.channel_names.count(name) != 1:
                is_missing = name not in self.channel_names
                problem = "no channel" if is_missing else "more than one channel"
                hint = did_you_mean(name, self.channel_names) if is_missing else ""
                message = (
                    f"channels: {problem} named '{name}' in image '{self.image.name}' of {self.image.store}; it has "
                    f"{', '.join(self.channel_names)}{hint}"
                )
                raise InputError(message)
        numbers = [self.channel_names.index(name) for name in names]
        return replace(self, image=self.image.pick(numbers), channel_names=tuple(names))

    @property
    def bytes_per_pixel(self) -> int:
        """Return the bytes in memory of one pixel, with all channels and masks."""
        image = self.image.shape[0] * np.dtype(self.image.dtype).itemsize
        return image + len(self.labels) * self.label_dtype.itemsize

    @property
    def label_dtype(self) -> np.dtype[Any]:
        """Return the dtype of cell ids in blocks: uint32 if all masks fit, else uint64."""
        return ids_type(mask.dtype for mask in self.labels)

    def check_pixels(self, channel: int, pixels: NDArray[Any], rect: Rect, *, brightest: float) -> None:
        """Check that pixels are valid: pixels outside the cell become 0, so 0 must be the smallest value.

        Parameters
        ----------
        channel
            Number of the channel.
        pixels
            Pixels of the channel, at least one.
        rect
            Their area.
        brightest
            Largest allowed value.

        Raises
        ------
        InputError
            If there are negative or too large values, NaN or infinity.
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
                "float images that are not normalised must have values from 0 to 1. Set normalize_output to True, or "
                "divide the image first"
            )
        else:
            wanted = "pixels must be finite numbers, 0 or larger. Clip, shift or fill the image first"
        message = (
            f"image '{image.name}' in {image.store}, channel '{name}': {seen} in rows {rect.top} to {rect.bottom}, "
            f"columns {rect.left} to {rect.right}; {wanted}"
        )
        raise InputError(message)


def _selection(rect: Rect) -> tuple[slice, slice]:
    return slice(rect.top, rect.bottom), slice(rect.left, rect.right)
