"""What an extraction must give, said once more in plain numpy and scipy: slow, on whole windows, and easy to check.

Not a test module; tests compare the library with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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


def in_dtype(planes: NDArray, dtype: str) -> NDArray:
    """Values from 0 to 1 as they are stored: 1 is the largest value of an integer type."""
    if np.dtype(dtype).kind == "u":
        planes = np.rint(planes * np.iinfo(dtype).max)
    return planes.astype(dtype)


def stamp(
    masks: Sequence[NDArray],
    image: NDArray,
    cell: int,
    quantiles: Sequence | None,
    *,
    apply_masks: bool = True,
    limits: Sequence | None = None,
    dtype: str = "float16",
) -> NDArray:
    """All planes of one cell, from its windows of the masks (y, x) and of the image (c, y, x).

    ``quantiles`` is a pair, or a pair for each channel; ``limits`` are values instead, a pair for each channel. Without
    both, channels are divided by the largest value of an integer image's dtype.
    """
    planes = [blurred_mask(mask, cell) for mask in masks]
    weight = planes[-1] if apply_masks else 1.0
    for k, channel in enumerate(image):
        values = channel * weight if apply_masks else channel.astype(np.float64)
        if limits is not None:
            lower, upper = limits[k]
            with np.errstate(over="ignore"):  # limits that nearly are one: what is above them becomes 1 all the same
                planes.append(np.clip((values - lower) / (upper - lower if upper != lower else 1), 0, 1))
        elif quantiles is not None:
            planes.append(normalised(values, quantiles[k] if np.ndim(quantiles) == 2 else quantiles))
        else:
            planes.append(values / np.iinfo(image.dtype).max if image.dtype.kind in "iu" else values)
    return in_dtype(np.stack(planes), dtype)


def extract(
    masks: Sequence[NDArray],
    image: NDArray,
    size: int,
    quantiles: Sequence | None = (0.001, 0.999),
    *,
    pad: bool = False,
    **how: Any,
) -> tuple[NDArray, NDArray, NDArray]:
    """A whole extraction: ids of the cells, ids of the removed ones, and the stamps (n_cells, planes, size, size)."""
    ids, xy = centers(masks[0])
    if pad:
        around = size // 2
        masks = [np.pad(mask, around) for mask in masks]
        image = np.pad(image, ((0, 0), (around, around), (around, around)))
        kept = np.ones(len(ids), dtype=bool)
        corners = [corner(where, size) for where in xy]
        corners = [(top + around, left + around) for top, left in corners]
    else:
        kept = np.array([is_kept(where, size, image.shape[1:]) for where in xy], dtype=bool)
        corners = [corner(where, size) for where in xy]
    stamps = []
    for cell, (top, left) in [(cell, at) for cell, at, keep in zip(ids, corners, kept, strict=True) if keep]:
        window = (slice(top, top + size), slice(left, left + size))
        stamps.append(stamp([mask[window] for mask in masks], image[(..., *window)], cell, quantiles, **how))
    shape = (len(stamps), len(masks) + len(image), size, size)
    return ids[kept], ids[~kept], np.array(stamps, dtype=how.get("dtype", "float16")).reshape(shape)


def same_bits(got: NDArray, expected: NDArray) -> bool:
    """Whether arrays of one type are equal in every bit, the sign of zero aside."""
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    # adding 0 turns -0 into 0
    zero = got.dtype.type(0)
    return (got + zero).tobytes() == (expected + zero).tobytes()
