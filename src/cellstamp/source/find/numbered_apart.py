"""Find labels of nuclei and cells that use one id for different cells, from a few of the cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cellstamp.source.read.arrays import PixelSource
from cellstamp.source.values import Centers, Rect

_N_EXAMINED = 16
"""Cells that are examined; each may read a chunk of the labels."""

_MANY, _FEWEST = 0.25, 3
"""Share of the examined cells, and number of cells; fewer may be errors of a segmentation."""


@dataclass(frozen=True)
class NumberedApart:
    """Cells whose centre in the first labels belongs to another cell of the second ones.

    Attributes
    ----------
    n_examined, n_other
        Number of examined cells, and of those in another one.
    example
        Id of one of these cells, and of the one in which it lies.
    """

    n_examined: int
    n_other: int
    example: tuple[int, int]


def find_numbered_apart(source: PixelSource, cells: Centers) -> NumberedApart | None:
    """Return the evidence that two label masks number cells differently; None if there is little, or one mask only."""
    if len(source.labels) < 2 or not len(cells):
        return None
    labels = source.labels[-1]
    examined = np.unique(np.linspace(0, len(cells) - 1, _N_EXAMINED).round().astype(int))
    found = []
    for own, (x, y) in zip(cells.ids[examined].tolist(), np.rint(cells.xy[examined]).astype(int).tolist(), strict=True):
        other = int(labels.read(Rect(y, y + 1, x, x + 1)).item())
        if other not in (0, own):
            found.append((own, other))
    many = len(found) > max(_MANY * examined.size, _FEWEST - 1)
    return NumberedApart(examined.size, len(found), found[0]) if many else None
