"""What an extraction must give, said once more in plain numpy and scipy: slow, on whole windows, and easy to check.

Not a test module; tests compare the library with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def centers(labels: NDArray) -> tuple[NDArray, NDArray]:
    """Ids, ascending, and the mean x and mean y of each cell's pixels."""
    ids = np.unique(labels[labels != 0])
    xy = [np.argwhere(labels == cell).mean(axis=0)[::-1] for cell in ids]
    return ids.astype(np.uint64), np.array(xy, dtype=np.float64).reshape(-1, 2)


def corner(xy: Sequence[float], size: int) -> tuple[int, int]:
    """First row and first column of a cell's window."""
    x, y = np.round(np.asarray(xy)).astype(int)
    return y - size // 2, x - size // 2


def is_kept(xy: Sequence[float], size: int, shape: tuple[int, int]) -> bool:
    """Whether a cell is far enough from every edge of an image of ``shape`` (height, width)."""
    w = size // 2
    x, y = np.round(np.asarray(xy))
    height, width = shape
    return bool(w < x < width - w and w < y < height - w)


def blurred_mask(labels: NDArray, cell: int) -> NDArray:
    """One mask of one cell, from the labels in its window."""
    filled = ndimage.binary_fill_holes(labels == cell)
    return ndimage.gaussian_filter(filled.astype(np.float64), sigma=1, truncate=4, mode="nearest")


def normalised(values: NDArray, quantiles: tuple[float, float]) -> NDArray:
    """A window rescaled to its own quantiles."""
    lower, upper = np.quantile(values, quantiles)
    span = upper - lower
    return np.clip((values - lower) / (span if span != 0 else 1), 0, 1)


def stamp(masks: Sequence[NDArray], image: NDArray, cell: int, quantiles: tuple[float, float] | None) -> NDArray:
    """All planes of one cell, float16, from its windows of the masks (y, x) and of the image (c, y, x).

    Without ``quantiles`` channels are divided by the largest value of the image's dtype.
    """
    planes = [blurred_mask(mask, cell) for mask in masks]
    cell_mask = planes[-1]
    for channel in image:
        values = channel * cell_mask
        planes.append(normalised(values, quantiles) if quantiles else values / np.iinfo(image.dtype).max)
    return np.stack(planes).astype(np.float16)


def extract(
    masks: Sequence[NDArray], image: NDArray, size: int, quantiles: tuple[float, float] | None = (0.001, 0.999)
) -> tuple[NDArray, NDArray, NDArray]:
    """A whole extraction: ids of the cells, ids of the removed ones, and the stamps (n_cells, planes, size, size)."""
    ids, xy = centers(masks[0])
    kept = np.array([is_kept(where, size, image.shape[1:]) for where in xy], dtype=bool)
    stamps = []
    for cell, where in zip(ids[kept], xy[kept], strict=True):
        top, left = corner(where, size)
        window = (slice(top, top + size), slice(left, left + size))
        stamps.append(stamp([mask[window] for mask in masks], image[(..., *window)], cell, quantiles))
    shape = (len(stamps), len(masks) + len(image), size, size)
    return ids[kept], ids[~kept], np.array(stamps, dtype=np.float16).reshape(shape)


def same_bits(got: NDArray, expected: NDArray) -> bool:
    """Whether float16 arrays are equal in every bit, the sign of zero aside."""
    assert got.dtype == expected.dtype == np.float16
    assert got.shape == expected.shape
    # adding 0 turns -0 into 0
    return bool(np.array_equal((got + np.float16(0)).view(np.uint16), (expected + np.float16(0)).view(np.uint16)))
