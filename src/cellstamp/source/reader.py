"""Windows of the image and its masks, read straight from zarr chunks by whoever holds the handle."""

from __future__ import annotations

import hashlib
import json
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
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
from cellstamp.source.values import TILES_ABREAST, Rect

if TYPE_CHECKING:
    import zarr


_SAMPLED = 64
_SAMPLE_BYTES = 4096
"""So many chunks, and so many bytes of each, tell an array from another one of the same shape."""

_FETCHED = 6
"""Strips kept of tiles that someone else reads: those of the three beside the first tile of a walk."""


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
        """Tell this array from any other: a digest of its metadata and, on a disk, of samples of some of its chunks."""
        known = json.dumps(self.array.metadata.to_dict(), sort_keys=True, default=str)
        digest = hashlib.sha256(known.encode())
        for chunk in self._some_chunks():
            digest.update(_sample(chunk))
        return digest.hexdigest()

    def _some_chunks(self) -> Iterator[Path]:
        """Files of some chunks (or shards), evenly taken; none if the store is not a folder."""
        folder = Path(self.store) / self.path
        if not folder.is_dir():
            return
        array = self.array
        grid = [-(-n // side) for n, side in zip(array.shape, array.shards or array.chunks, strict=True)]
        n_chunks = math.prod(grid)
        for number in np.linspace(0, n_chunks - 1, min(n_chunks, _SAMPLED)).round().astype(int):
            place = tuple(int(k) for k in np.unravel_index(number, grid))
            yield folder / array.metadata.encode_chunk_key(place)

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


@dataclass(frozen=True)
class Block:
    """The pixels of one tile with what its windows reach above and to the left.

    Attributes
    ----------
    rect
        The area.
    labels
        (n_masks, y, x), uint32 or uint64.
    image
        (n_channels, y, x).
    """

    rect: Rect
    labels: NDArray[Any]
    image: NDArray[Any]


class TileReader:
    """Reads tiles in turn, each chunk once as long as neighbouring tiles follow each other.

    Parameters
    ----------
    source
        What to read.
    reach
        Pixels that a window may reach above or to the left of its tile: strips so wide are kept from the tiles before.
    brightest
        The largest value that a pixel may have.
    """

    def __init__(self, source: PixelSource, reach: int, brightest: float = math.inf) -> None:
        self._source = source
        self._reach = reach
        self._brightest = brightest
        self._area: Rect | None = None
        self._block: Block | None = None
        self._strips: deque[Block] = deque(maxlen=TILES_ABREAST + 2)
        self._fetched: deque[Block] = deque(maxlen=_FETCHED)
        self._labels = np.empty(0, source.label_dtype)
        self._image = np.empty(0, np.dtype(source.image.dtype))

    def read(self, area: Rect, region: Rect) -> Block:
        """Return the pixels of ``region`` (or more), valid until the next call for a region not among them.

        Parameters
        ----------
        area
            The tile.
        region
            What its windows need: inside the tile, or up to ``reach`` above and to the left of it.
        """
        if self._block is not None and self._block.rect.holds(region):
            return self._block
        beside = self._keep_strips()
        self._drop_strips(area)
        # the old block's memory is about to be overwritten; should reading fail, it must not be handed out again
        self._block = None
        block = self._new_block(region)
        own = [*self._strips] if beside is None else [beside, *self._strips]
        elsewhere = False
        for part in _parts(area, region):
            if area.holds(part):
                self._load(block, part)
            elif (strip := _holding(part, own)) is not None:
                _copy(strip, block, part)
            else:
                self._fetch(block, part)
                elsewhere = True
        if not elsewhere:
            self._fetched.clear()
        for number, pixels in enumerate(block.image):
            self._source.check_pixels(number, pixels, region, brightest=self._brightest)
        self._area, self._block = area, block
        return block

    def _keep_strips(self) -> Block | None:
        """Copy the lower strip of the tile read last, and return its right strip."""
        block, area = self._block, self._area
        if block is None or area is None:
            return None
        rect = block.rect
        top, left = max(rect.top, area.bottom - self._reach), max(rect.left, area.right - self._reach)
        if top < rect.bottom:
            self._strips.append(_cut(block, Rect(top, rect.bottom, rect.left, rect.right)))
        return _cut(block, Rect(rect.top, rect.bottom, left, rect.right)) if left < rect.right else None

    def _drop_strips(self, area: Rect) -> None:
        """Let go of strips that a walk row by row does not come back to: those of a row above, and to the left."""
        useful = (
            strip
            for strip in self._strips
            if strip.rect.bottom > area.top
            or (strip.rect.bottom == area.top and strip.rect.right > area.left - self._reach)
        )
        self._strips = deque(useful, self._strips.maxlen)

    def _new_block(self, region: Rect) -> Block:
        """A block over memory that is used again and again."""
        pixels = region.shape[0] * region.shape[1]
        n_masks, n_channels = len(self._source.masks), self._source.image.shape[0]
        if self._labels.size < n_masks * pixels:
            self._labels = np.empty(n_masks * pixels, self._labels.dtype)
        if self._image.size < n_channels * pixels:
            self._image = np.empty(n_channels * pixels, self._image.dtype)
        return Block(
            region,
            self._labels[: n_masks * pixels].reshape(n_masks, *region.shape),
            self._image[: n_channels * pixels].reshape(n_channels, *region.shape),
        )

    def _load(self, block: Block, part: Rect) -> None:
        """Read a part of a block from the store."""
        rows, columns = part.slices(block.rect)
        for mask, labels in zip(self._source.masks, block.labels, strict=True):
            mask.read_into(part, labels[rows, columns])
        self._source.image.read_into(part, block.image[:, rows, columns])

    def _fetch(self, block: Block, part: Rect) -> None:
        """Fill a part of a block that lies in a tile not read here: at the start of a walk.

        The chunks that hold it are decoded whole, so their lower and right strips are kept, for the tiles that follow.
        """
        strip = _holding(part, self._fetched)
        if strip is None:
            chunks = self._chunks_around(part)
            top, left = max(chunks.top, chunks.bottom - self._reach), max(chunks.left, chunks.right - self._reach)
            strips = (
                self._empty(Rect(top, chunks.bottom, chunks.left, chunks.right)),
                self._empty(Rect(chunks.top, chunks.bottom, left, chunks.right)),
            )
            strip = _holding(part, strips)
            if strip is None:
                self._load(block, part)
                return
            for number, mask in enumerate(self._source.masks):
                _deal_out(mask.read(chunks), chunks, [(each.rect, each.labels[number]) for each in strips])
            image = self._source.image
            for channels in image.channels():
                _deal_out(image.read(chunks, channels), chunks, [(each.rect, each.image[channels]) for each in strips])
            self._fetched.extend(strips)
        _copy(strip, block, part)

    def _chunks_around(self, part: Rect) -> Rect:
        """The chunks that hold a part, where image and masks have the same; else the part."""
        arrays = (self._source.image, *self._source.masks)
        chunks = {(array.chunks[-2], array.chunks[-1]) for array in arrays}
        if len(chunks) > 1:
            return part
        ((rows, columns),) = chunks
        height, width = self._source.shape
        return Rect(
            part.top // rows * rows,
            -(-part.bottom // rows) * rows,
            part.left // columns * columns,
            -(-part.right // columns) * columns,
        ).clipped(height, width)

    def _empty(self, rect: Rect) -> Block:
        return Block(
            rect,
            np.empty((len(self._source.masks), *rect.shape), self._labels.dtype),
            np.empty((self._source.image.shape[0], *rect.shape), self._image.dtype),
        )


def _holding(part: Rect, strips: Iterable[Block]) -> Block | None:
    """The first strip that holds a part."""
    return next((strip for strip in strips if strip.rect.holds(part)), None)


def _copy(strip: Block, block: Block, part: Rect) -> None:
    """Copy a part from a strip that holds it."""
    (y, x), (rows, columns) = part.slices(strip.rect), part.slices(block.rect)
    block.labels[:, rows, columns] = strip.labels[:, y, x]
    block.image[:, rows, columns] = strip.image[:, y, x]


def _sample(chunk: Path) -> bytes:
    """The size of a file and some bytes from its middle; of an empty chunk, which has no file, nothing."""
    if not chunk.is_file():
        return b"-"
    size = chunk.stat().st_size
    with chunk.open("rb") as file:
        file.seek(size // 2)
        return b"%d " % size + file.read(_SAMPLE_BYTES)


def _deal_out(pixels: NDArray[Any], rect: Rect, targets: Iterable[tuple[Rect, NDArray[Any]]]) -> None:
    """Copy parts of an area; it is gone before the next is read, so that there is never more than one in memory."""
    for part, target in targets:
        target[...] = pixels[..., *part.slices(rect)]


def _selection(rect: Rect) -> tuple[slice, slice]:
    return slice(rect.top, rect.bottom), slice(rect.left, rect.right)


def _cut(block: Block, rect: Rect) -> Block:
    rows, columns = rect.slices(block.rect)
    return Block(rect, block.labels[:, rows, columns].copy(), block.image[:, rows, columns].copy())


def _parts(area: Rect, region: Rect) -> list[Rect]:
    """Divide a region where its tile begins: what lies above, to the left, at the corner, and in the tile itself."""
    rows = [(region.top, min(area.top, region.bottom)), (max(area.top, region.top), region.bottom)]
    columns = [(region.left, min(area.left, region.right)), (max(area.left, region.left), region.right)]
    return [
        Rect(top, bottom, left, right)
        for top, bottom in rows
        for left, right in columns
        if top < bottom and left < right
    ]
