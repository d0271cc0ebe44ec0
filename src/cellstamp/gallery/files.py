"""The file of single-cell images behind a gallery: only cells on the screen are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import reworded
from cellstamp.h5sc.chunks import look_into
from cellstamp.h5sc.selected_images import SelectedImages, selected_images


class CellImages:
    """Images of cells of a file, a store, or an `AnnData`.

    Parameters
    ----------
    h5sc
        Path, URL, or `AnnData` from `read_h5sc`.

    Raises
    ------
    InputError
        If it has no single-cell images, or no cells.
    """

    def __init__(self, h5sc: Any) -> None:
        with selected_images(h5sc) as look:
            look.rows_of(None, 1)  # an empty file raises
            self._look: SelectedImages = look
        self._stored = None if look.path is None else look_into(look.path)
        self.where, self.cell_ids = look.where, look.cell_ids
        self.plane_names, self.n_masks = look.plane_names, look.n_masks
        self.image_size, self.dtype, self.is_normalized = look.image_size, look.dtype, look.is_normalized

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self.cell_ids.size

    @property
    def n_planes(self) -> int:
        """Number of masks and channels."""
        return len(self.plane_names)

    def scaled(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Convert stored values to float32 from 0 to 1."""
        return self._look.scaled(stored)

    def read(self, rows: NDArray[np.int64], planes: Sequence[int]) -> NDArray[Any]:
        """Read planes of cells: (n_cells, n_planes, y, x), as stored.

        Raises
        ------
        InputError
            If the file is damaged, or was modified after the gallery was opened.
        """
        images = np.empty((len(rows), len(planes), self.image_size, self.image_size), self.dtype)
        if not images.size:
            return images
        with reworded(_for_galleries):
            for places, some in self._pieces(rows, planes):
                images[places] = some
        return images

    def _pieces(self, rows: NDArray[np.int64], planes: Sequence[int]) -> Any:
        if self._stored is None:
            return self._look.in_pieces(rows, planes)
        from cellstamp.h5sc.stamp_file import StampFile  # imports numba

        return StampFile(self._stored, rows, np.array(planes)).in_pieces()


def _for_galleries(message: str) -> str:
    return message.replace("create the dataset or the iterator again", "open the gallery again")
