"""Select the cells to extract: chosen ones, inside of the image, or a random sample of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellstamp.cells.plan import sample_cells
from cellstamp.config import ExtractionConfig
from cellstamp.pipeline.border_rule import cells_inside
from cellstamp.source.find.selection import ChosenCells
from cellstamp.source.read.arrays import PixelSource
from cellstamp.source.values import Centers, SharedIds


@dataclass(frozen=True)
class Selection:
    """Cells to extract, and cells that are left out.

    Attributes
    ----------
    n_in_mask
        Number of cells in the mask.
    n_not_chosen
        Number of cells not selected by the configuration.
    removed
        uint64: ids of selected cells that are too close to the image border.
    cells
        Cells to extract, in the order of the file; for a preview, the random sample.
    shared
        Evidence that one id stands for several cells, if there is any.
    """

    n_in_mask: int
    n_not_chosen: int
    removed: NDArray[np.uint64]
    cells: Centers
    shared: SharedIds | None = None

    @property
    def n_chosen(self) -> int:
        """Number of cells that the configuration selects."""
        return self.n_in_mask - self.n_not_chosen

    def counts(self) -> dict[str, int]:
        """Return the number of cells in the mask, by their fate; the parts add up."""
        n_kept = self.n_chosen - self.removed.size
        return {
            "cells_in_mask": self.n_in_mask,
            "cells_not_chosen": self.n_not_chosen,
            "cells_removed_at_border": self.removed.size,
            "cells_not_drawn": n_kept - len(self.cells),
            "cells_written": len(self.cells),
        }


def choose_cells(
    centers: Centers,
    source: PixelSource,
    config: ExtractionConfig,
    *,
    chosen: ChosenCells | None = None,
    partial: bool,
    n_cells: int | None,
    seed: int,
) -> Selection:
    """Select the cells to extract.

    Parameters
    ----------
    centers
        All cells in the mask.
    chosen
        Cells that the configuration selects; None: all.
    partial, n_cells, seed
        Whether to draw a random sample, its size, and its seed.

    Raises
    ------
    ConfigError
        If selected cells do not exist, or the sample is larger than the number of cells.
    """
    wanted = centers if chosen is None else chosen.among(centers, source.main_mask)
    inside = cells_inside(wanted, config, source.shape)
    kept = wanted[inside]
    if partial and len(kept):
        kept = sample_cells(kept, n_cells, seed)
    return Selection(len(centers), len(centers) - len(wanted), wanted.ids[~inside], kept, centers.shared)
