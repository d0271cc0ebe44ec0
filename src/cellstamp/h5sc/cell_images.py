"""Read single-cell images by cell id and channel name, as stored or in the pixel types of image libraries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import anndata
import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import ConfigError
from cellstamp.h5sc.reader import read_h5sc
from cellstamp.h5sc.selected_images import selected_images

PixelType = Literal["uint8", "uint16", "float32"]
_PIXEL_TYPES = ("uint8", "uint16", "float32")


def cell_images(
    h5sc: Any,
    cells: Any = None,
    channels: str | int | Sequence[str | int] | None = None,
    *,
    dtype: PixelType | None = None,
) -> NDArray[Any]:
    """Read images by cell id and channel name.

    ``cell_images(h5sc, channels="DAPI")`` reads a channel of all cells, ``cell_images(h5sc, [25, 7], "DAPI")`` of two.

    Parameters
    ----------
    h5sc
        Path of an `.h5sc` file, or an `AnnData` from `read_h5sc` or ``project.h5sc``, or a subset of it.
    cells
        Id of a cell, or ids in the order of the result; or a boolean for each cell; or the name of a boolean column of
        ``obs``. None: all cells, which must fit in memory.
    channels
        Name or number of a channel or mask, or several in the order of the result. Numbers start at 0, masks first.
        None: all channels, without the masks.
    dtype
        Pixel type. None: as stored, by default float16 from 0 to 1. ``"uint8"`` and ``"uint16"`` scale 1 to the largest
        value of the type, for Pillow and image files. ``"float32"``: from 0 to 1.

    Returns
    -------
    numpy.ndarray
        Images (n_cells, n_channels, y, x), also for a single cell or channel.

    Raises
    ------
    ConfigError
        If ``cells``, ``channels`` or ``dtype`` is invalid.
    InputError
        If the file cannot be read, is damaged, or lacks one of the cells.
    """
    if dtype is not None and dtype not in _PIXEL_TYPES:
        message = f"dtype = {dtype!r}: must be 'uint8', 'uint16', 'float32', or None for the stored type"
        raise ConfigError(message)
    with selected_images(h5sc) as look:
        rows, planes = look.rows_of(cells), look.planes_of(channels)
        images = np.empty((len(rows), len(planes), look.image_size, look.image_size), dtype or look.dtype)
        for places, stored in look.in_pieces(rows, planes):
            images[places] = stored if dtype is None else _converted(look.scaled(stored), images.dtype)
    return images


def _converted(image: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    return image if dtype.kind == "f" else np.rint(image * np.float32(np.iinfo(dtype).max)).astype(dtype)


def select_cells(h5sc: Any, cells: Any) -> anndata.AnnData:
    """Return the rows of some cells, by their ids.

    ``select_cells(h5sc, 25)`` is the cell with id 25. ``h5sc["25"]`` is the cell in row 25.

    Parameters
    ----------
    h5sc
        Path of an `.h5sc` file, or an `AnnData` from `read_h5sc` or ``project.h5sc``, or a subset of it.
    cells
        Id of a cell, or ids in the order of the result; or a boolean for each cell; or the name of a boolean column of
        ``obs``.

    Returns
    -------
    anndata.AnnData
        View of these rows. Its images stay on disk until you use them.

    Raises
    ------
    ConfigError
        If ``cells`` is invalid.
    InputError
        If the file cannot be read, or lacks one of the cells.
    """
    with selected_images(h5sc) as look:
        rows = look.rows_of(cells)
    data = h5sc if isinstance(h5sc, anndata.AnnData) else read_h5sc(h5sc)
    return data[rows]
