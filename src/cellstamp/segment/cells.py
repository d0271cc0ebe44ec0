"""Number nuclei, and grow a cell around each nucleus."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage import segmentation


def numbered(names: NDArray[np.uint64], kept: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """Replace names by ids 1, 2, ... in the order of `kept` (ascending), and other names by 0; return uint32 (y, x)."""
    ids = np.zeros(names.shape, np.uint32)
    if not kept.size:
        return ids
    is_nucleus = names > 0
    found = names[is_nucleus]
    places = np.minimum(np.searchsorted(kept, found), kept.size - 1)
    ids[is_nucleus] = np.where(kept[places] == found, places + 1, 0)
    return ids


def expanded(nuclei: NDArray[np.uint32], distance: int) -> NDArray[np.uint32]:
    """Grow each nucleus by at most `distance` pixels; each pixel goes to its nearest nucleus. Return uint32 (y, x)."""
    return segmentation.expand_labels(nuclei, distance).astype(np.uint32, copy=False) if distance else nuclei
