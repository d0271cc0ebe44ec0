"""The nuclei in a window of an image.

A nucleus is known by its seed, the pixel in its middle: it is named by where that is in the whole image. So all windows
in which a nucleus is seen whole give it the same name, and nobody has to hand out numbers.
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
        (y, x), bright where there are nuclei; none is negative.
    settings
        How.
    trusted
        Where seeds are those of the whole image: towards the edge of a window, what lies beyond would have a say. There
        are none elsewhere.

    Returns
    -------
    labels
        int32 (y, x): 0 is background.
    seeds
        int64 (n,): for each label, from 1, the index of its seed among all pixels of the window, ascending.
    """
    nucleus = stained(smoothed(pixels, settings.smoothing), settings)
    depth = depths(nucleus, settings)
    # pixels in a row may be equally deep: they are one seed, known by the first of them
    peaks = np.zeros(nucleus.shape, bool)
    peaks[trusted] = (_peaks(depth, settings.min_distance) & nucleus)[trusted]
    marked, n_seeds = ndi.label(peaks, _EVERY_NEIGHBOUR)
    seeds = np.full(n_seeds + 1, marked.size, np.int64)
    places = np.flatnonzero(marked)
    np.minimum.at(seeds, marked.ravel()[places], places)
    labels = segmentation.watershed(-depth, marked, mask=nucleus)
    return labels.astype(np.int32, copy=False), seeds[1:]


def stained(image: NDArray[np.float32], settings: NucleusSettings) -> NDArray[np.bool_]:
    """What is nucleus in a smoothed image, without threads and small holes."""
    mask = image > settings.level
    if settings.method == "local":
        mask &= image > filters.threshold_local(image, settings.window, mode="nearest")
    mask = morphology.opening(mask, morphology.disk(OPENING))
    filled: NDArray[np.bool_] = morphology.remove_small_holes(mask, max_size=settings.min_area)
    return filled


def depths(mask: NDArray[np.bool_], settings: NucleusSettings) -> NDArray[np.float32]:
    """How far inside of a nucleus pixels are, smoothed. What lies beyond the window counts neither as in nor as out."""
    # where there is no background, scipy measures to somewhere
    to_edge = settings.deepest if mask.all() else ndi.distance_transform_edt(mask)
    depth = np.minimum(to_edge, np.full(mask.shape, settings.deepest, np.float32), dtype=np.float32)
    smooth: NDArray[np.float32] = ndi.gaussian_filter(depth, settings.depth_smoothing, mode="nearest")
    return smooth


def _peaks(depth: NDArray[np.float32], distance: int) -> NDArray[np.bool_]:
    """Pixels that none within a distance is deeper than."""
    highest: NDArray[np.bool_] = depth == ndi.maximum_filter(depth, 2 * distance + 1, mode="nearest")
    return highest
