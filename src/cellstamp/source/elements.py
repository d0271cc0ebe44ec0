"""Which image and which masks of a SpatialData store are meant, and whether they fit together.

Everything is read from the store's own JSON (OME metadata), so spatialdata need not be imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.errors

from cellstamp.errors import InputError
from cellstamp.source.names import IMAGE_NAME
from cellstamp.source.placement import differences
from cellstamp.source.reader import ArrayHandle, PixelSource
from cellstamp.warnings import warn

_PIXEL_TYPES = (
    *(f"{sign}int{bits}" for bits in (8, 16, 32, 64) for sign in ("u", "")),
    "float32",
    "float64",
)
"""What pixels of an image may be."""


def find_source(
    store: str | Path,
    *,
    image: str = IMAGE_NAME,
    segmentation_key: str = "seg_all",
    segmentation_mask: str | Sequence[str] | None = None,
) -> PixelSource:
    """Find the image and the masks to extract from.

    Parameters
    ----------
    store
        Folder (or URL) of the SpatialData zarr store.
    image
        Name of the image element.
    segmentation_key
        The masks are the labels named exactly ``<key>_nucleus`` and ``<key>_cytosol``; one of them is enough.
    segmentation_mask
        Name or names of the masks, instead.

    Raises
    ------
    InputError
        If the store or an element is missing, is of an unusable type, or if image and masks differ in size or place.
    """
    root = _open_store(str(store))
    names = mask_names(_member_names(root, str(store), "labels"), str(store), segmentation_key, segmentation_mask)
    pixels, channel_names = _image_handle(root, str(store), image)
    masks = tuple(find_labels(store, name) for name in names)
    for mask in masks:
        _check_same_grid(pixels, mask)
        _check_same_place(root, pixels, mask)
    return PixelSource(pixels, masks, channel_names)


def find_labels(store: str | Path, name: str) -> ArrayHandle:
    """Find the full-resolution array of a labels element.

    Raises
    ------
    InputError
        If it is missing, not (y, x), or not of an integer type.
    """
    handle, _ = _full_resolution(_open_store(str(store)), str(store), "labels", name, axes=("yx",))
    if np.dtype(handle.dtype).kind not in "iu":
        message = (
            f"labels '{name}' in {store} are {handle.dtype}; masks must hold integers, one per cell, 0 for background"
        )
        raise InputError(message)
    return handle


def _open_store(store: str) -> zarr.Group:
    missing = (FileNotFoundError, zarr.errors.GroupNotFoundError, zarr.errors.ContainsArrayError)
    try:
        with _readable(store, other=missing):
            return zarr.open_group(store=store, mode="r", use_consolidated=False)
    except missing as error:
        message = (
            f"{store} is not a SpatialData zarr store; give the folder that holds 'images' and 'labels' (a project's "
            "is made by loading an image)"
        )
        raise InputError(message) from error


@contextmanager
def _readable(where: str, other: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Say where metadata is damaged: the errors of its readers do not. Those of ``other`` kinds mean something else."""
    try:
        yield
    except other:
        raise
    except (ValueError, TypeError) as error:
        message = f"the metadata in {where} is damaged ({error}); write it again with spatialdata"
        raise InputError(message) from error


def _member_names(root: zarr.Group, store: str, kind: str) -> list[str]:
    with _readable(f"{store}/{kind}"):
        return sorted(root[kind].keys()) if kind in root else []  # type: ignore[union-attr]


def mask_names(available: Sequence[str], store: str, key: str, mask: str | Sequence[str] | None) -> tuple[str, ...]:
    """Names of the masks to use, nucleus before cytosol.

    Parameters
    ----------
    available
        Labels in the store.
    store
        The store, for messages.
    key, mask
        See `find_source`.

    Raises
    ------
    InputError
        If they are not there, or if it is unclear which is which.
    """
    if mask is None:
        wanted = [f"{key}_nucleus", f"{key}_cytosol"]
        found = tuple(name for name in wanted if name in available)
        if not found:
            message = (
                f"no labels named {wanted[0]} or {wanted[1]} in {store}; it has {_listing(available)}; "
                "run a segmentation, load masks, or set segmentation_key or segmentation_mask"
            )
            raise InputError(message)
        return found
    names = (mask,) if isinstance(mask, str) else tuple(mask)
    missing = [name for name in names if name not in available]
    if missing:
        message = f"segmentation_mask: no labels named {_listing(missing)} in {store}; it has {_listing(available)}"
        raise InputError(message)
    if not isinstance(mask, str):
        return _nucleus_first(names)
    if "nucleus" not in mask and "cytosol" not in mask:
        warn(f"segmentation_mask '{mask}' says neither nucleus nor cytosol; it is used as the cytosol mask")
    return names


def _nucleus_first(names: tuple[str, ...]) -> tuple[str, ...]:
    roles = {name: role for name in names for role in ("nucleus", "cytosol") if role in name}
    if not names or len(set(roles.values())) < len(names):
        message = (
            f"segmentation_mask {list(names)}: a list needs one name containing 'nucleus' and one containing 'cytosol'"
        )
        raise InputError(message)
    return tuple(sorted(names, key=lambda name: roles[name] != "nucleus"))


def _image_handle(root: zarr.Group, store: str, name: str) -> tuple[ArrayHandle, tuple[str, ...]]:
    handle, metadata = _full_resolution(root, store, "images", name, axes=("cyx", "yx", "yxc"))
    if handle.dtype not in _PIXEL_TYPES:
        types = ", ".join(_PIXEL_TYPES)
        message = f"image '{name}' in {store} is {handle.dtype}; it must be one of {types}: convert it first"
        raise InputError(message)
    handle = _as_cyx(handle)
    return handle, _channel_names(metadata, handle.shape[0])


def _as_cyx(handle: ArrayHandle) -> ArrayHandle:
    """An image with the axes (y, x) or (y, x, c) as one of (c, y, x)."""
    shape, chunks = handle.shape, handle.chunks
    if handle.axes == "yx":
        return replace(handle, shape=(1, *shape), chunks=(1, *chunks))
    if handle.axes == "yxc":
        return replace(handle, shape=(shape[2], *shape[:2]), chunks=(chunks[2], *chunks[:2]))
    return handle


def _channel_names(metadata: Mapping[str, Any], n_channels: int) -> tuple[str, ...]:
    """Names of the channels; their numbers where the metadata has none that can be used."""
    numbers = tuple(map(str, range(n_channels)))
    try:
        channels = metadata["omero"]["channels"]
        names = tuple(str(channel.get("label", number)) for number, channel in zip(numbers, channels, strict=True))
    except (KeyError, TypeError, ValueError, AttributeError):
        return numbers
    return names


def _full_resolution(
    root: zarr.Group, store: str, kind: str, name: str, *, axes: Sequence[str]
) -> tuple[ArrayHandle, Mapping[str, Any]]:
    """The array of an element's first resolution level, and the element's OME metadata."""
    available = _member_names(root, store, kind)
    if name not in available:
        message = f"no {kind} element named '{name}' in {store}; it has {_listing(available)}"
        raise InputError(message)
    metadata = _ome_metadata(root, f"{kind}/{name}")
    try:
        scales = metadata["multiscales"][0]
        path = f"{kind}/{name}/{scales['datasets'][0]['path']}"
        with _readable(f"{store}/{path}"):
            array = root[path]
        found = "".join(axis["name"] for axis in scales["axes"])
    except (KeyError, IndexError, TypeError) as error:
        message = (
            f"{kind} element '{name}' in {store} has no usable OME metadata (missing or damaged: {error}); "
            "write it again with spatialdata"
        )
        raise InputError(message) from error
    if found not in axes or not isinstance(array, zarr.Array) or array.ndim != len(found):
        dimensions = getattr(array, "ndim", "no")
        message = (
            f"{kind} element '{name}' in {store} has the axes {', '.join(found)}, {dimensions} dimensions; needed are "
            + " or ".join(", ".join(each) for each in axes)
        )
        raise InputError(message)
    dtype = str(array.dtype.newbyteorder("="))
    return ArrayHandle(store, name, path, array.shape, array.chunks, dtype, axes=found), metadata


def _check_same_grid(image: ArrayHandle, mask: ArrayHandle) -> None:
    if image.shape[1:] != mask.shape:
        message = (
            f"image '{image.name}' is {image.shape[1]} x {image.shape[2]} pixels (y, x) and labels '{mask.name}' "
            f"{mask.shape[0]} x {mask.shape[1]} in {image.store}; both must have the same pixel grid"
        )
        raise InputError(message)


def _check_same_place(root: zarr.Group, image: ArrayHandle, mask: ArrayHandle) -> None:
    here, there = (
        _ome_metadata(root, f"{kind}/{name}") for kind, name in (("images", image.name), ("labels", mask.name))
    )
    differing = differences(here, there)
    if differing:
        message = (
            f"image '{image.name}' and labels '{mask.name}' in {image.store} do not lie on each other: "
            f"{'; '.join(differing)}. Both must have the same pixel grid: bring one onto the other with "
            "spatialdata.transform, or give them the same transformation with "
            "spatialdata.transformations.set_transformation"
        )
        raise InputError(message)


def _ome_metadata(root: zarr.Group, element: str) -> Any:
    attributes = root[element].attrs.asdict()
    return attributes.get("ome", attributes)


def _listing(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none"
