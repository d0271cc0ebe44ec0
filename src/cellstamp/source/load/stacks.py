"""Represent an image with any axes, before planes are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.source.load.pixels import Pixels, Region, along, arranged, without_axes

_SPARE_LETTERS = "ijklmnopuvw"


@dataclass(frozen=True)
class Stack:
    """An image with the axes of its file.

    Attributes
    ----------
    pixels
        Its pixels, with any axes.
    axes
        A letter for each axis, in lower case: x, y, z, t, c, s (samples of a pixel), i and q (unknown), or another.
    names
        Names of its planes, "" for unknown ones: an array that broadcasts to the shape of `pixels`.
    present
        Whether each plane exists, an array likewise; None if all do.
    """

    pixels: Pixels
    axes: str
    names: NDArray[Any] | None = None
    present: NDArray[np.bool_] | None = None

    @property
    def sizes(self) -> str:
        """Return the axes and their lengths, for messages."""
        return ", ".join(f"{axis} = {n}" for axis, n in zip(self.axes, self.pixels.shape, strict=True))

    def along(self, axis: int, indices: Sequence[int]) -> Stack:
        """Return the stack with these positions of one axis only."""
        return replace(
            self,
            pixels=along(self.pixels, axis, indices),
            names=_taken(self.names, axis, indices),
            present=_taken(self.present, axis, indices),
        )

    def rearranged(self, axes: str) -> Stack:
        """Return the stack with only these axes, in this order; the others must have length 1."""
        kept = [axis for axis, letter in enumerate(self.axes) if letter in axes]
        order = [axes.index(self.axes[axis]) for axis in kept]
        places = [order.index(k) for k in range(len(order))]
        return Stack(
            arranged(without_axes(self.pixels, kept), places),
            axes,
            *(
                None if values is None else values.reshape([values.shape[axis] for axis in kept]).transpose(places)
                for values in (self.names, self.present)
            ),
        )


def _taken(values: NDArray[Any] | None, axis: int, indices: Sequence[int]) -> NDArray[Any] | None:
    return values if values is None or values.shape[axis] == 1 else values.take(list(indices), axis)


def pages_as_stack(pages: Sequence[Stack], names: Sequence[str]) -> Stack:
    """Return images of one shape and dtype along a new first axis, whose meaning is unknown.

    Parameters
    ----------
    pages
        The images, all with the same axes and without missing planes.
    names
        Name of each image, for images whose planes have no names; "" for unknown ones.
    """
    first = pages[0]
    axis = next(letter for letter in "iq" if letter not in first.axes)

    def read(region: Region) -> NDArray[Any]:
        return np.stack([page.pixels.read(region[1:]) for page in pages[region[0]]])

    pixels = Pixels((len(pages), *first.pixels.shape), first.pixels.dtype, (1, *first.pixels.chunks), read)
    named = _stacked_names(pages)
    if named is None:
        named = named_along(axis + first.axes, pixels.shape, axis, names)
    return Stack(pixels, axis + first.axes, named)


def _stacked_names(pages: Sequence[Stack]) -> NDArray[Any] | None:
    """Return the names of the planes of several images; None if an image has none."""
    known = [page.names for page in pages if page.names is not None]
    return np.stack(known) if len(known) == len(pages) and len({each.shape for each in known}) == 1 else None


def letters(axes: Sequence[str]) -> str:
    """Return a unique lower-case letter for each axis."""
    found = ""
    for axis in axes:
        letter = axis[:1].lower()
        found += letter if letter not in found else next(other for other in _SPARE_LETTERS if other not in found)
    return found


def named_along(axes: str, shape: Sequence[int], axis: str, names: Sequence[str]) -> NDArray[Any] | None:
    """Return names of the positions along one axis, for `Stack.names`; None if their number is not its length."""
    place = axes.find(axis)
    if len(names) != (shape[place] if place >= 0 else 1) or not any(names):
        return None
    sides = [len(names) if k == place else 1 for k in range(len(axes))]
    return np.array(names, object).reshape(sides)
