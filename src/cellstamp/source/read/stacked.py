"""Read the channels of several images on one pixel grid as one image."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.source.read.arrays import PixelArray
from cellstamp.source.read.interpolation import Loops
from cellstamp.source.values import Rect


@dataclass(frozen=True)
class ImageStack:
    """Channels of several images, one image after the other. It is small and picklable.

    Attributes
    ----------
    parts
        Images (c, y, x) of one height and width; an element may be among them several times.
    """

    parts: tuple[PixelArray, ...]

    @property
    def store(self) -> str:
        """Return the folder or URL of the store."""
        return self.parts[0].store

    @property
    def name(self) -> str:
        """Return the names of the elements, for messages."""
        return " + ".join(element.name for element in self.elements)

    @property
    def dtype(self) -> str:
        """Return the smallest data type that holds the values of all images."""
        return str(np.result_type(*(part.dtype for part in self.parts)))

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Return the data type of each channel."""
        return tuple(dtype for part in self.parts for dtype in part.dtypes)

    @property
    def elements(self) -> tuple[PixelArray, ...]:
        """Return the elements that are read, each once."""
        return tuple({part.name: part for part in self.parts}.values())

    @property
    def loops(self) -> tuple[Loops, ...]:
        """Return the compiled loops that sample its images."""
        return tuple(loops for part in self.parts for loops in part.loops)

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (c, y, x)."""
        return (self._ends[-1], *self.parts[0].shape[1:])

    @property
    def chunks(self) -> tuple[int, ...]:
        """Return the size of the largest chunk along each axis."""
        return tuple(max(sides) for sides in zip(*(part.chunks for part in self.parts), strict=True))

    @property
    def working_bytes(self) -> int:
        """Return the bytes of memory that reading takes beside the result."""
        return max(part.working_bytes for part in self.parts)

    def signature(self) -> str:
        """Return a digest that changes with every write to one of the images."""
        return _joined(part.signature() for part in self.parts)

    def sample(self) -> str:
        """Return a digest that copies of the images share."""
        return _joined(part.sample() for part in self.parts)

    def covers(self, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which positions are on all images, bool (n,)."""
        return np.asarray(np.all([part.covers(xy) for part in self.parts], axis=0))

    def pick(self, channels: Sequence[int]) -> PixelArray:
        """Return the image with these channels only, in this order."""
        parts = tuple(self.parts[part].pick(numbers) for part, numbers in self._by_part(channels))
        return parts[0] if len(parts) == 1 else ImageStack(parts)

    def channels(self) -> list[tuple[slice, ...]]:
        """Return an index along the channel axis for each row of chunks of each image."""
        return [
            (slice(rows.start + begin, rows.stop + begin),)
            for begin, part in zip([0, *self._ends], self.parts, strict=False)
            for (rows,) in part.channels()
        ]

    def read(self, rect: Rect, channels: tuple[slice, ...] = ()) -> NDArray[Any]:
        """Read an area: (c, y, x), all channels or those in `channels`."""
        numbers = range(self.shape[0])[channels[0] if channels else slice(None)]
        planes = [
            self.parts[part].read(rect, (slice(wanted[0], wanted[-1] + 1),)) for part, wanted in self._by_part(numbers)
        ]
        return np.concatenate(planes).astype(self.dtype, copy=False)

    def read_into(self, rect: Rect, out: NDArray[Any]) -> None:
        """Read an area into an array (c, y, x) of the stack's dtype."""
        for begin, part in zip([0, *self._ends], self.parts, strict=False):
            target = out[begin : begin + part.shape[0]]
            if part.dtype == out.dtype:
                part.read_into(rect, target)
                continue
            for channels in part.channels():
                target[channels] = part.read(rect, channels)

    @property
    def _ends(self) -> list[int]:
        return list(accumulate(part.shape[0] for part in self.parts))

    def _by_part(self, channels: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """Yield the number of an image, and numbers of its channels, for each run of channels of one image."""
        ends = self._ends
        owners = np.searchsorted(ends, channels, side="right").tolist()
        for part, members in groupby(zip(owners, channels, strict=True), key=lambda each: each[0]):
            yield part, [channel - ends[part] + self.parts[part].shape[0] for _, channel in members]


def _joined(digests: Iterator[str]) -> str:
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()
