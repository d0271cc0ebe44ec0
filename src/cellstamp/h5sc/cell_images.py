"""Chosen single-cell images as arrays that Pillow, matplotlib and image files take as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import ConfigError
from cellstamp.h5sc.selected_images import selected_images

PixelType = Literal["uint8", "uint16", "float32"]
_PIXEL_TYPES = ("uint8", "uint16", "float32")


def cell_images(
    h5sc: Any, cells: Any = None, channels: str | int | Sequence[str | int] | None = None, *, dtype: PixelType = "uint8"
) -> NDArray[Any]:
    """Read chosen single-cell images in a pixel type that image libraries take.

    ``PIL.Image.fromarray(cell_images(h5sc, 17, "DAPI")[0, 0]).save("17.png")`` writes one of them.

    Parameters
    ----------
    h5sc
        The path of an `.h5sc` file, or what `read_h5sc` or ``project.h5sc`` returns.
    cells
        Id of a cell, or ids in the order wanted; or a boolean for each cell; or the name of a boolean column of
        ``obs``. None for all cells: they must fit in memory.
    channels
        Name or number (from 0, masks first) of a channel or mask, or several in the order wanted. None for all
        channels, but no masks.
    dtype
        ``"uint8"`` or ``"uint16"``, in which 1 becomes the largest value, or ``"float32"``, from 0 to 1.

    Returns
    -------
    numpy.ndarray
        (n_cells, n_channels, y, x) of ``dtype``.

    Raises
    ------
    ConfigError
        If ``cells``, ``channels`` or ``dtype`` cannot be used.
    InputError
        If the file cannot be read, or has none of these cells.
    """
    if dtype not in _PIXEL_TYPES:
        raise ConfigError(f"dtype = {dtype!r}: must be 'uint8', 'uint16' or 'float32'")
    with selected_images(h5sc) as look:
        rows, planes = look.rows_of(cells, look.cell_ids.size), look.planes_of(channels)
        images = np.empty((len(rows), len(planes), look.image_size, look.image_size), dtype)
        for image, row in zip(images, rows.tolist(), strict=True):
            image[:] = _converted(look.stamp(row, planes), images.dtype)
    return images


def _converted(stamp: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    return stamp if dtype.kind == "f" else np.rint(stamp * np.float32(np.iinfo(dtype).max)).astype(dtype)
