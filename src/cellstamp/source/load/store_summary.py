"""Describe the image and the masks of a project's store from their metadata; pixels are not read."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cellstamp.lengths import size_in_words
from cellstamp.report import format_cells
from cellstamp.source.load.ome_groups import open_group
from cellstamp.source.load.project_shapes import n_shapes
from cellstamp.source.names import IMAGE, MASK_KINDS, centers_of, is_shapes, mask_of, shapes_of
from cellstamp.source.ome import AXES, read_attributes
from cellstamp.source.pixel_size import stored_pixel_size
from cellstamp.source.points import n_points

_SHOWN_CHANNELS = 10


def describe_image(store: Path) -> str | None:
    """Return shape, dtype and channels of the image, or why it can't be read; None if there is no image."""
    return readable(partial(_image, store / IMAGE)) if (store / IMAGE).exists() else None


def describe_masks(store: Path) -> list[str]:
    """Return each mask with its number of cells, if that is stored, or why it can't be read."""
    elements = (element for kind in MASK_KINDS for element in (mask_of(kind), shapes_of(kind)))
    masks = [element for element in elements if (store / element).exists()]
    return [f"{Path(mask).name} ({readable(partial(_mask, store, mask))})" for mask in masks]


def readable(describe: Callable[[], str]) -> str:
    """Return a description, or the error if a file is damaged. Warnings are ignored."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return describe()
    except Exception as error:  # noqa: BLE001 - a damaged file raises errors of many kinds
        return f"can't be read: {error}"


def _image(group: Path) -> str:
    pixels, names = open_group(group, AXES["images"])
    shown = ", ".join(names[:_SHOWN_CHANNELS]) + (", ..." if len(names) > _SHOWN_CHANNELS else "")
    size = stored_pixel_size(read_attributes(group))
    known = "" if size is None else f", {size_in_words(size)} per pixel"
    return f"{pixels.shape} (c, y, x) {pixels.dtype}" + (f", channels {shown}" if shown else "") + known


def _mask(store: Path, mask: str) -> str:
    if is_shapes(mask):
        return f"{n_shapes(store / mask):,} polygons"
    pixels, _ = open_group(store / mask, AXES["labels"])
    n_cells = n_points(store, Path(centers_of(mask)).name)
    return str(pixels.dtype) if n_cells is None else format_cells(n_cells)
