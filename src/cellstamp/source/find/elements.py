"""Find the image and the masks in a SpatialData store, and check that they fit together.

Only the store's JSON (OME metadata) is read, so spatialdata need not be imported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from cellstamp.errors import InputError
from cellstamp.lengths import PixelSize
from cellstamp.location import reachable
from cellstamp.source.find.coordinate_systems import check_system
from cellstamp.source.find.grid import grid_of, place
from cellstamp.source.find.masks import KINDS, MaskChoice, check_there, listing
from cellstamp.source.find.pixel_sizes import PixelSizes, crop_grid, on_crops, positions_of
from cellstamp.source.find.shapes import find_shapes
from cellstamp.source.names import IMAGE_NAME, MASK_KINDS, SEGMENTATION_KEY
from cellstamp.source.ome import described_channels, metadata_of
from cellstamp.source.read.arrays import ArrayHandle, Mask, PixelSource
from cellstamp.source.read.interpolation import Interpolation
from cellstamp.source.read.stacked import ImageStack
from cellstamp.source.store_root import open_root, undamaged

PIXEL_TYPES = (
    *(f"{sign}int{bits}" for bits in (8, 16, 32, 64) for sign in ("u", "")),
    "float32",
    "float64",
)
"""Allowed data types of an image."""


def find_source(
    store: str | Path,
    *,
    image: str | Sequence[str] = IMAGE_NAME,
    segmentation_key: str = SEGMENTATION_KEY,
    segmentation_mask: str | Sequence[str] | None = None,
    masks: MaskChoice | None = None,
    coordinate_system: str | None = None,
    interpolation: Interpolation = "bilinear",
    pixel_size: PixelSize | None = None,
    crop_pixel_size: float | None = None,
) -> PixelSource:
    """Find the image and the masks to extract from.

    Parameters
    ----------
    store
        Folder (or URL) of the SpatialData zarr store.
    image
        Name of the image, or names of several: their channels are stacked, and the first one has the pixel grid.
    segmentation_key
        The masks are the labels ``<key>_nucleus`` and ``<key>_cytosol``; one is enough.
    segmentation_mask
        Name or names of the masks; overrides `segmentation_key`.
    masks
        All keys of a configuration for masks; overrides the two above.
    coordinate_system
        Coordinate system that places the other elements on the image; None: the only shared one, or ``global``.
    interpolation
        How further images with other pixels are sampled. Labels with other pixels are sampled by ``"nearest"``.
    pixel_size
        Micrometres per pixel of the image; None: those in its metadata.
    crop_pixel_size
        Micrometres per pixel of the grid on which everything is placed; None: those of the image.

    Raises
    ------
    ConfigError
        If `crop_pixel_size` is given, and the pixel size of the image is unknown.
    InputError
        If the store or an element is missing or of an invalid type, or if the position of an element is unclear.
    """
    where, names = str(store), (image,) if isinstance(image, str) else tuple(image)
    choice = masks or MaskChoice(segmentation_key, segmentation_mask)
    with reachable(where):
        root = open_root(where)
        chosen = choice.elements(partial(_member_names, root, where), where, partial(element_kind, root))
        for name in names:
            check_there("images", name, _member_names(root, where, "images"), where, partial(element_kind, root))
        sizes = PixelSizes(pixel_size, crop_pixel_size)
        return _place_all(root, where, names, chosen, coordinate_system, interpolation, sizes)


def _place_all(
    root: zarr.Group,
    store: str,
    names: Sequence[str],
    masks: Sequence[tuple[str, str]],
    system: str | None,
    interpolation: Interpolation,
    sizes: PixelSizes,
) -> PixelSource:
    """Place images and masks, given by kind and name, on the pixel grid of the crops."""
    (first, _), *_ = images = [_image_handle(root, store, name) for name in names]
    labels = [_labels_handle(root, store, name) for kind, name in masks if kind == "labels"]
    grid = grid_of(root, first)
    check_system(grid.placements, system, f"image '{first.name}' in {store}")
    pixel_size, said = sizes.of_image(root, first)
    crops = crop_grid(first, pixel_size, sizes.of_crops)
    further = [place(root, grid, handle, system, interpolation, crops) for handle, _ in images[1:]]
    placed = [place(root, grid, handle, system, crops=crops) for handle in labels]
    outlined = [name for kind, name in masks if kind == "shapes"]
    shapes = find_shapes(root, outlined, first, system=system, with_labels=bool(labels), crops=crops)
    of_kind: dict[str, Iterator[Mask]] = {
        "labels": iter([on_crops(crops, each.array, "nearest") for each in placed]),
        "shapes": iter(shapes.masks),
    }
    of_further: Interpolation = "nearest" if interpolation == "nearest" else "area"
    pixels = [on_crops(crops, first, "area"), *(on_crops(crops, each.array, of_further) for each in further)]
    return PixelSource(
        ImageStack(tuple(pixels)) if further else pixels[0],
        tuple(next(of_kind[kind]) for kind, _ in masks),
        _names_in_stack([(handle.name, channels) for handle, channels in images]),
        (*said, *shapes.remarks),
        (*(each.position for each in (*further, *placed)), *shapes.positions, *positions_of(crops, pixel_size)),
        pixel_size,
        (1.0, 1.0) if crops is None else crops.scale,
        shapes.left_out,
    )


def _names_in_stack(images: Sequence[tuple[str, tuple[str, ...]]]) -> tuple[str, ...]:
    """Return the names of all channels; those in several images begin with the name of their image."""
    counts = Counter(name for _, channels in images for name in set(channels))
    return tuple(f"{image}:{name}" if counts[name] > 1 else name for image, channels in images for name in channels)


def find_main_mask(store: str | Path, image: str, masks: Sequence[str], coordinate_system: str | None) -> Mask:
    """Find the mask that defines the cells: the first of one or two, labels or shapes of either kind.

    Raises
    ------
    InputError
        See `find_source`.
    """
    with reachable(str(store)):
        root = open_root(str(store))
        kinds = [element_kind(root, name) for name in masks]
        has_image = f"images/{image}" in root
    if kinds[0] != "shapes":
        if not has_image:
            return find_labels(store, masks[0])
        kinds, masks = kinds[:1], masks[:1]
    # the role of a single mask does not matter
    roles = MASK_KINDS[: len(masks)]
    named = {f"{role}_{kind}": name for role, kind, name in zip(roles, kinds, masks, strict=True)}
    return find_source(store, image=image, masks=MaskChoice(**named), coordinate_system=coordinate_system).main_mask


def find_image(store: str | Path, image: str = IMAGE_NAME) -> PixelSource:
    """Find an image without masks.

    Raises
    ------
    InputError
        If the store or the image is missing or of an invalid type.
    """
    where = str(store)
    with reachable(where):
        root = open_root(where)
        check_there("images", image, _member_names(root, where, "images"), where, partial(element_kind, root))
        pixels, channel_names = _image_handle(root, where, image)
    return PixelSource(pixels, (), channel_names)


def find_labels(store: str | Path, name: str) -> ArrayHandle:
    """Find the full-resolution array of a labels element.

    Raises
    ------
    InputError
        If it is missing, not (y, x), or not of an integer type.
    """
    with reachable(str(store)):
        return _labels_handle(open_root(str(store)), str(store), name)


def _labels_handle(root: zarr.Group, store: str, name: str) -> ArrayHandle:
    handle, _ = _full_resolution(root, store, "labels", name, axes=("yx",))
    if np.dtype(handle.dtype).kind not in "iu":
        message = (
            f"labels '{name}' in {store} are {handle.dtype}; masks must be integers, one id per cell, 0 for background"
        )
        raise InputError(message)
    return handle


def element_kind(root: zarr.Group, name: str) -> str | None:
    """Return the kind of an element (``"images"``, ``"labels"``, ...), or None if the store has no such element."""
    return next((kind for kind in KINDS if f"{kind}/{name}" in root), None)


def _member_names(root: zarr.Group, store: str, kind: str) -> list[str]:
    with undamaged(f"{store}/{kind}"):
        return sorted(root[kind].keys()) if kind in root else []  # type: ignore[union-attr]


def _image_handle(root: zarr.Group, store: str, name: str) -> tuple[ArrayHandle, tuple[str, ...]]:
    handle, metadata = _full_resolution(root, store, "images", name, axes=("cyx", "yx", "yxc"))
    if handle.dtype not in PIXEL_TYPES:
        types = ", ".join(PIXEL_TYPES)
        message = f"image '{name}' in {store} is {handle.dtype}; it must be one of {types}. Convert it first"
        raise InputError(message)
    handle = _as_cyx(handle)
    return handle, _channel_names(metadata, handle.shape[0])


def _as_cyx(handle: ArrayHandle) -> ArrayHandle:
    """Return an image with the axes (y, x) or (y, x, c) as one with (c, y, x)."""
    shape, chunks = handle.shape, handle.chunks
    if handle.axes == "yx":
        return replace(handle, shape=(1, *shape), chunks=(1, *chunks))
    if handle.axes == "yxc":
        return replace(handle, shape=(shape[2], *shape[:2]), chunks=(chunks[2], *chunks[:2]))
    return handle


def _channel_names(metadata: Mapping[str, Any], n_channels: int) -> tuple[str, ...]:
    """Return the names of the channels, or their numbers if the metadata has no valid names."""
    numbers = tuple(map(str, range(n_channels)))
    channels = described_channels(metadata)
    if len(channels) != n_channels:
        return numbers
    return tuple(str(channel.get("label", number)) for number, channel in zip(numbers, channels, strict=True))


def _full_resolution(
    root: zarr.Group, store: str, kind: str, name: str, *, axes: Sequence[str]
) -> tuple[ArrayHandle, Mapping[str, Any]]:
    """Return the array of an element's full resolution level, and the element's OME metadata."""
    available = _member_names(root, store, kind)
    if name not in available:
        message = f"no {kind} element named '{name}' in {store}; it has {listing(available)}"
        raise InputError(message)
    metadata = metadata_of(root, f"{kind}/{name}")
    try:
        scales = metadata["multiscales"][0]
        path = f"{kind}/{name}/{scales['datasets'][0]['path']}"
        with undamaged(f"{store}/{path}"):
            array = root[path]
        found = "".join(axis["name"] for axis in scales["axes"])
    except (KeyError, IndexError, TypeError) as error:
        message = (
            f"{kind} element '{name}' in {store} has no valid OME metadata (missing or damaged: {error}). "
            "Write it again with spatialdata"
        )
        raise InputError(message) from error
    if found not in axes or not isinstance(array, zarr.Array) or array.ndim != len(found):
        dimensions = getattr(array, "ndim", "no")
        message = (
            f"{kind} element '{name}' in {store} has the axes {', '.join(found)} and {dimensions} dimensions; it must "
            "have the axes " + " or ".join(", ".join(each) for each in axes)
        )
        raise InputError(message)
    dtype = str(array.dtype.newbyteorder("="))
    return ArrayHandle(store, name, path, array.shape, array.chunks, dtype, axes=found), metadata
