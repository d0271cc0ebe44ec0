"""What a step is given as its file handler -> a store to read, and the centres of its cells."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cellstamp.errors import InputError
from cellstamp.source.elements import mask_names
from cellstamp.source.names import IMAGE_NAME, centers_of
from cellstamp.source.reader import ArrayHandle
from cellstamp.source.store import load_centers, spool, store_centers
from cellstamp.source.values import Centers


def open_store(handler: Any, key: str, mask: str | Sequence[str] | None, folder: Path) -> str:
    """Find the store that a file handler stands for.

    Parameters
    ----------
    handler
        An object that knows its store's path (``sdata_path``), a path, or a SpatialData object.
    key, mask
        ``segmentation_key`` and ``segmentation_mask`` of the configuration: which masks will be read.
    folder
        For what is in memory only: it is written to a store in here.

    Raises
    ------
    InputError
        If it is none of these, or lacks the image or the masks.
    """
    path = getattr(handler, "sdata_path", handler)
    if isinstance(path, str | os.PathLike):
        return os.fspath(path)
    if not (hasattr(handler, "images") and hasattr(handler, "labels")):
        message = (
            f"filehandler is {type(handler).__name__}; needed is the path of a SpatialData zarr store, a SpatialData "
            "object, or an object with the attribute sdata_path"
        )
        raise InputError(message)
    masks = mask_names(sorted(handler.labels), "the SpatialData object", key, mask)
    return spool(handler, [IMAGE_NAME, *masks], folder)


def _check_inside(centers: Centers, labels: ArrayHandle) -> None:
    """Refuse stored centres that are not of this mask: a mean of its pixels cannot lie outside of it."""
    height, width = labels.shape
    outside = ((centers.xy < 0) | (centers.xy > (width - 1, height - 1))).any(axis=1)
    if outside.any():
        x, y = centers.xy[outside][0]
        message = (
            f"points '{Path(centers_of(labels.name)).name}' in {labels.store}: {outside.sum()} cells have their centre "
            f"outside of '{labels.name}', which is {height} x {width} pixels (y, x), like cell "
            f"{centers.ids[outside][0]} at y = {y:g}, x = {x:g}. They are centres of another mask, or not in pixels: "
            "delete the points, and they are computed again from the labels"
        )
        raise InputError(message)


def stored_centers(
    labels: ArrayHandle, *, compute: Callable[[ArrayHandle], Centers], log: Callable[[object], None]
) -> Centers:
    """The centres stored beside a mask; where there are none, computed ones, which are stored for the next time.

    Parameters
    ----------
    compute
        Computes the centres of a mask.
    log
        Told what happened.

    Raises
    ------
    InputError
        If the stored centres cannot be used.
    """
    centers = load_centers(labels.store, labels.name)
    if centers is not None:
        _check_inside(centers, labels)
        return centers
    log(f"no centres of '{labels.name}' in the store: computing them")
    centers = compute(labels)
    try:
        store_centers(labels.store, labels.name, centers)
    except OSError as error:
        log(f"the centres could not be stored for the next time ({error})")
    return centers
