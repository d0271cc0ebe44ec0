"""Windows of the image and its masks, read straight from zarr chunks by whoever holds the handle."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import InputError
from cellstamp.source.values import TILES_ABREAST, Rect

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
    """

    store: str
    name: str
    path: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str

    @cached_property
    def array(self) -> zarr.Array[Any]:
        """The opened array."""
        import zarr

        return zarr.open_array(store=self.store, path=self.path, mode="r")

    def __getstate__(self) -> dict[str, Any]:
        """Leave the opened array behind."""
        return {key: value for key, value in self.__dict__.items() if key != "array"}

    def read(self, rect: Rect) -> NDArray[Any]:
        """Read an area: (c, y, x) of an image, (y, x) of labels."""
        with self._naming(rect):
            return np.asarray(self.array[..., *_selection(rect)])

    def read_into(self, rect: Rect, out: NDArray[Any]) -> None:
        """Read an area into an array of its shape, of the handle's dtype or a wider one."""
        from zarr.buffer import cpu

        dtype = np.dtype(self.dtype)
        if dtype.itemsize != out.dtype.itemsize:
            out[...] = self.read(rect)
            return
        # signed and unsigned ids of one width have the same bits, as long as they are not negative
        target = cpu.NDBuffer.from_numpy_array(out.view(dtype))
        with self._naming(rect):
            self.array.get_basic_selection((..., *_selection(rect)), out=target)

    @contextmanager
    def _naming(self, rect: Rect) -> Iterator[None]:
        """Say which pixels of which array could not be read."""
        try:
            yield
        except (OSError, RuntimeError, ValueError) as error:
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
        (c, y, x), integer.
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
    def mask_names(self) -> tuple[str, ...]:
        """Names of the masks, nucleus before cytosol."""
        return tuple(mask.name for mask in self.masks)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[1], self.image.shape[2]

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
    """

    def __init__(self, source: PixelSource, reach: int) -> None:
        self._source = source
        self._reach = reach
        self._area: Rect | None = None
        self._block: Block | None = None
        self._strips: deque[Block] = deque(maxlen=TILES_ABREAST + 2)
        self._labels = np.empty(0, source.label_dtype)
        self._image = np.empty(0, np.dtype(source.image.dtype))

    def read(self, area: Rect, region: Rect) -> Block:
        """Return the pixels of ``region``, valid until the next call for another region.

        Parameters
        ----------
        area
            The tile.
        region
            What its windows need: inside the tile, or up to ``reach`` above and to the left of it.
        """
        if self._block is not None and self._block.rect == region:
            return self._block
        beside = self._keep_strips()
        # the old block's memory is about to be overwritten; should reading fail, it must not be handed out again
        self._block = None
        block = self._new_block(region)
        for part in _parts(area, region):
            self._fill(block, part, beside)
        self._check_not_negative(block)
        self._area, self._block = area, block
        return block

    def _check_not_negative(self, block: Block) -> None:
        """Refuse negative pixels: what is masked is 0, and must be the darkest there is."""
        if block.image.dtype.kind == "i" and block.image.min() < 0:
            image = self._source.image
            message = (
                f"image '{image.name}' in {image.store} holds the negative value {block.image.min()}; pixels must be "
                "0 or more: shift or clip the image first"
            )
            raise InputError(message)

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

    def _fill(self, block: Block, part: Rect, beside: Block | None) -> None:
        """Fill one part of a block from a strip that holds it, else from the store."""
        rows, columns = part.slices(block.rect)
        strips = self._strips if beside is None else (beside, *self._strips)
        strip = next((strip for strip in strips if strip.rect.holds(part)), None)
        if strip is not None:
            y, x = part.slices(strip.rect)
            block.labels[:, rows, columns] = strip.labels[:, y, x]
            block.image[:, rows, columns] = strip.image[:, y, x]
            return
        for mask, labels in zip(self._source.masks, block.labels, strict=True):
            mask.read_into(part, labels[rows, columns])
        self._source.image.read_into(part, block.image[:, rows, columns])


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
