"""Find the nuclei in a window of an image.

The name of a nucleus is the position of its seed, its central pixel, in the whole image. So every window that contains
the nucleus gives it the same name, and blocks need no common counter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage import filters, morphology, segmentation

from cellstamp.segment.nucleus_settings import OPENING, NucleusSettings
from cellstamp.segment.threshold import smoothed

_EVERY_NEIGHBOUR = np.ones((3, 3), bool)


WHOLE = np.s_[:, :]
"""All pixels of a window."""


def find_nuclei(
    pixels: NDArray[Any], settings: NucleusSettings, trusted: tuple[slice, slice] = WHOLE
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Find nuclei, small ones included.

    Parameters
    ----------
    pixels
        (y, x), with bright nuclei and without negative values.
    settings
        Parameters of the segmentation.
    trusted
        Part of the window that may contain seeds. Near the edge of a window, seeds would depend on pixels beyond it.

    Returns
    -------
    labels
        int32 (y, x): 0 = background.
    seeds
        int64 (n,): for each label, from 1, the flat index of its seed in the window, ascending.
    """
    nucleus = stained(smoothed(pixels, settings.smoothing), settings)
    depth = depths(nucleus, settings)
    # adjacent pixels of equal depth are one seed, named by the first of them
    peaks = np.zeros(nucleus.shape, bool)
    peaks[trusted] = (_peaks(depth, settings.min_distance) & nucleus)[trusted]
    marked, n_seeds = ndi.label(peaks, _EVERY_NEIGHBOUR)
    seeds = np.full(n_seeds + 1, marked.size, np.int64)
    places = np.flatnonzero(marked)
    np.minimum.at(seeds, marked.ravel()[places], places)
    labels = segmentation.watershed(-depth, marked, mask=nucleus)
    return labels.astype(np.int32, copy=False), seeds[1:]


def stained(image: NDArray[np.float32], settings: NucleusSettings) -> NDArray[np.bool_]:
    """Return the boolean mask (y, x) of nuclei in a smoothed image, without thin threads and small holes."""
    mask = image > settings.level
    if settings.method == "local":
        mask &= image > filters.threshold_local(image, settings.window, mode="nearest")
    mask = morphology.opening(mask, morphology.disk(OPENING))
    return _without_holes(mask, settings.min_area)


def _without_holes(mask: NDArray[np.bool_], largest: int) -> NDArray[np.bool_]:
    """Fill holes of at most `largest` pixels. The arguments of scikit-image's function depend on its version."""
    holes, _ = ndi.label(~mask)
    filled: NDArray[np.bool_] = mask | (np.bincount(holes.ravel()) <= largest)[holes]
    return filled


def depths(mask: NDArray[np.bool_], settings: NucleusSettings) -> NDArray[np.float32]:
    """Return the smoothed distance (y, x), in pixels, to the nucleus' edge; the window's border is not an edge."""
    # without background, the distance transform of scipy is undefined
    to_edge = settings.deepest if mask.all() else ndi.distance_transform_edt(mask)
    depth = np.minimum(to_edge, np.full(mask.shape, settings.deepest, np.float32), dtype=np.float32)
    smooth: NDArray[np.float32] = ndi.gaussian_filter(depth, settings.depth_smoothing, mode="nearest")
    return smooth


def _peaks(depth: NDArray[np.float32], distance: int) -> NDArray[np.bool_]:
    """Return a boolean mask (y, x) of pixels with the maximum depth within a distance."""
    highest: NDArray[np.bool_] = depth == ndi.maximum_filter(depth, 2 * distance + 1, mode="nearest")
    return highest
