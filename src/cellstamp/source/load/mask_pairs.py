"""Warn if the nuclei and the cells of two masks have the same ids, but are not the same cells.

The boxes around nuclei and cells, known since their centres were computed, suffice: no pixel is read. They also work
for a cytosol mask without the area of the nuclei: its cells are rings.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cellstamp.source.names import CYTOSOL, NUCLEUS
from cellstamp.source.values import Centers
from cellstamp.warnings import warn

_MOST = 0.5
"""Share of the cells; if more are swapped or apart, all of the masks are."""

_GAP = 2
"""Pixels between a nucleus and a cytosol beside it, which may not touch."""

Boxes = NDArray[np.int64]


def warn_of_other_cells(centers: Mapping[str, Centers]) -> None:
    """Warn if masks are swapped, or if most nuclei are outside of the cell with their id.

    Parameters
    ----------
    centers
        Element of a mask -> its cells.

    Warns
    -----
    UserWarning
        If most cells show it; the message says how many, and how to load the masks instead.
    """
    nucleus, cytosol = centers.get(NUCLEUS), centers.get(CYTOSOL)
    if nucleus is None or cytosol is None or nucleus.shared is not None or cytosol.shared is not None:
        return
    ids, nuclei, cells = _paired(nucleus, cytosol)
    swapped, apart = _surround(nuclei, cells), _are_apart(nuclei, cells)
    if swapped.sum() > _MOST * ids.size:
        warn(
            f"the nucleus mask is larger than the cytosol mask in {_of(swapped)} cells, like cell {ids[swapped][0]}. "
            "Are the masks swapped? Then load them again: load_segmentation(nucleus=..., cytosol=..., overwrite=True)"
        )
    if apart.sum() > _MOST * ids.size:
        warn(
            f"{_of(apart)} nuclei are outside of the cell with the same id, like nucleus {ids[apart][0]}. If the "
            "masks were made separately, cellstamp.match_masks gives each nucleus the id of its cell. If one mask is "
            "shifted or transposed, correct it first. Then load both again with overwrite=True"
        )


def _of(which: NDArray[np.bool_]) -> str:
    return f"{which.sum():,} of {which.size:,}"


def _paired(nucleus: Centers, cytosol: Centers) -> tuple[NDArray[np.uint64], Boxes, Boxes]:
    """Return the ids that both masks have, and their boxes in each."""
    ids, in_nucleus, in_cytosol = np.intersect1d(nucleus.ids, cytosol.ids, assume_unique=True, return_indices=True)
    return ids, nucleus.boxes[in_nucleus], cytosol.boxes[in_cytosol]


def _surround(nuclei: Boxes, cells: Boxes) -> NDArray[np.bool_]:
    """Return which boxes of nuclei hold the cell's box and are larger."""
    outside = (nuclei - cells) * (1, -1, 1, -1)
    return np.asarray((outside <= 0).all(axis=1) & (outside < 0).any(axis=1))


def _are_apart(nuclei: Boxes, cells: Boxes) -> NDArray[np.bool_]:
    """Return which boxes of nuclei neither overlap the cell's box nor lie beside it."""
    first, last = np.maximum(nuclei, cells)[:, ::2], np.minimum(nuclei, cells)[:, 1::2]
    return np.asarray((first - last > _GAP).any(axis=1))
