"""A small segmented slide, which the other modules write as vendors do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from outlined import polygons_of
from stores import CYTOSOL, Sample, make_sample

WITHOUT_NUCLEUS, WITH_TWO_NUCLEI = 13, 57
"""Cells, by number; neither is at the border."""


@dataclass(frozen=True)
class Slide:
    """An image with cells and their nuclei. Cells have the numbers 1, 2, ..., and so have nuclei.

    Attributes
    ----------
    image
        uint16 (c, y, x).
    cells, nuclei
        Labels, uint32 (y, x). Nuclei have their own numbers. Each is one piece without holes.
    owners
        int64: the cell of each nucleus.
    """

    image: NDArray[np.uint16]
    cells: NDArray[np.uint32]
    nuclei: NDArray[np.uint32]
    owners: NDArray[np.int64]

    @property
    def n_cells(self) -> int:
        return int(self.cells.max())

    @property
    def nuclei_by_cell(self) -> NDArray[np.uint32]:
        """Return the labels of nuclei under the numbers of their cells."""
        return np.concatenate([[0], self.owners]).astype(np.uint32)[self.nuclei]

    @property
    def sample(self) -> Sample:
        """Return the slide with both masks under the numbers of cells, for a plain store."""
        return Sample(self.image, {"nuclei": self.nuclei_by_cell, "cells": self.cells}, ["a", "b", "c", "d"])

    def measured(self) -> pd.DataFrame:
        """Return area and centroid of each cell in pixels, where pixel 0 covers 0 to 1; the index is the number."""
        polygons = polygons_of(self.cells)
        centers = polygons.geometry.centroid
        return pd.DataFrame({"area": polygons.geometry.area, "x": centers.x, "y": centers.y})


def make_slide() -> Slide:
    """Draw a slide: one cell has no nucleus, and one has two."""
    drawn = make_sample(n_channels=4)
    cells = drawn.masks[CYTOSOL]
    nuclei, owners = np.zeros_like(cells), list[int]()
    for cell in range(1, int(cells.max()) + 1):
        inner = binary_erosion(cells == cell, iterations=3)
        for part in _halves(inner) if cell == WITH_TWO_NUCLEI else [inner]:
            if part.any() and cell != WITHOUT_NUCLEUS:
                owners.append(cell)
                nuclei[part] = len(owners)
    return Slide(drawn.image, cells, nuclei, np.array(owners))


def _halves(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Divide a mask along a column, which belongs to neither half."""
    columns = np.arange(mask.shape[1])
    middle = round(np.nonzero(mask)[1].mean())
    return [mask & (columns < middle), mask & (columns > middle)]
