"""Record which cells of an unfinished result are written, and facts about their masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cellstamp.h5sc.layout import Layout


class WrittenCells:
    """The written cells of an unfinished result; none at first.

    Parameters
    ----------
    layout
        Cells and masks of the result.

    Attributes
    ----------
    is_written
        bool (n_cells,): whether each cell is written.
    on_edge
        bool (n_cells,): whether the cell mask of each written cell touches the edge of the crop.
    n_empty
        int64 (n_masks,): for each mask, number of written cells without a pixel of it in their crop.
    """

    def __init__(self, layout: Layout) -> None:
        self.is_written = np.zeros(layout.shape[0], np.bool_)
        self.on_edge = np.zeros(layout.shape[0], np.bool_)
        self.n_empty = np.zeros(len(layout.mask_names), np.int64)

    def note(
        self,
        rows: Sequence[int] | NDArray[np.integer] | slice,
        on_edge: Sequence[int] | NDArray[np.integer],
        n_empty: Sequence[int] | NDArray[np.int64],
    ) -> None:
        """Note that cells are written.

        Parameters
        ----------
        rows, on_edge
            Rows of the cells, and of those whose cell mask touches the edge of the crop.
        n_empty
            For each mask, number of these cells without a pixel of it.
        """
        self.is_written[rows] = True
        self.on_edge[on_edge] = True
        self.n_empty += n_empty
