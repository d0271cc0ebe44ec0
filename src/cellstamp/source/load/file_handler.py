"""Find the store to read from a step's file handler; elements in memory are written to a temporary store."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cellstamp.errors import InputError
from cellstamp.location import path_of
from cellstamp.source.find.masks import KINDS, MaskChoice, check_there
from cellstamp.source.load.spatialdata_in_memory import THE_OBJECT, as_store


def open_store(handler: Any, images: Sequence[str], masks: MaskChoice, centers: str | None, folder: Path) -> str:
    """Return the store of a file handler.

    Parameters
    ----------
    handler
        An object with its store's path (``sdata_path``), a path or URL, or a SpatialData object.
    images, masks, centers
        The elements to read; see the keys of the configuration.
    folder
        Folder for a temporary store with the elements that are in memory only.

    Raises
    ------
    InputError
        If it is none of these, or if an image, a mask or the centres are missing.
    """
    path = path_of(handler)
    if path is not None:
        return path
    if not (hasattr(handler, "images") and hasattr(handler, "labels")):
        message = (
            f"filehandler is {type(handler).__name__}; it must be the path of a SpatialData zarr store, a SpatialData "
            "object, or an object with the attribute sdata_path"
        )
        raise InputError(message)

    where, kind_of = THE_OBJECT, partial(_kind_in_memory, handler)
    chosen = masks.elements(lambda kind: sorted(getattr(handler, kind)), where, kind_of)
    for image in images:
        check_there("images", image, sorted(handler.images), where, kind_of)
    labels, shapes = ([name for kind, name in chosen if kind == wanted] for wanted in ("labels", "shapes"))
    return as_store(handler, [*images, *labels], folder, centers, shapes)


def _kind_in_memory(sdata: Any, name: str) -> str | None:
    """Return the kind of an element of a SpatialData object, or None if it has no element with this name."""
    return next((kind for kind in KINDS if name in getattr(sdata, kind, ())), None)
