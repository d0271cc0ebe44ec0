"""The project's SpatialData store: read it, and add arrays one at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from cellstamp.errors import InputError
from cellstamp.source import ome
from cellstamp.source.find.elements import find_labels
from cellstamp.source.load.checks import (
    channel_names_for,
    check_free,
    check_image,
    check_mask,
    check_mask_type,
    check_remap,
    check_same_cells,
    warn_of_no_cells,
    warn_of_shared_ids,
    without_float16,
)
from cellstamp.source.load.mask_values import as_ids
from cellstamp.source.load.pixels import Pixels, as_channels, as_pixels, full_resolution, reordered, without_axes
from cellstamp.source.load.polygons import Polygons
from cellstamp.source.load.project_shapes import check_staged, image_place, is_stored, write_shapes
from cellstamp.source.load.raster import FACTORS, write_raster
from cellstamp.source.load.spool import spool
from cellstamp.source.load.stacks import Stack, letters, named_along
from cellstamp.source.load.staging import Staging, recover, staged
from cellstamp.source.location import below, is_remote
from cellstamp.source.names import (
    CYTOSOL,
    CYTOSOL_SHAPES,
    IMAGE,
    NUCLEUS,
    NUCLEUS_SHAPES,
    centers_of,
    is_shapes,
    mask_kind,
    mask_of,
    other_form,
    shapes_of,
)
from cellstamp.source.points import write_points
from cellstamp.source.read.centers import Run, compute_centers
from cellstamp.source.read.shared_ids import survey
from cellstamp.source.thirdparty import quiet
from cellstamp.source.values import Centers
from cellstamp.warnings import warn

__all__ = [
    "has_element",
    "image_pixels",
    "load_image",
    "load_masks",
    "open_image",
    "open_sdata",
    "recover",
    "spool",
    "store_centers",
]


def has_element(store: str | os.PathLike[str], element: str) -> bool:
    """Whether the store has an element, named like ``"images/input_image"``."""
    return (Path(store) / element).is_dir()


def open_sdata(store: str | os.PathLike[str]) -> Any:
    """Open the store as a SpatialData object; pixels are read when they are used.

    Raises
    ------
    InputError
        When there is no store.
    """
    path = Path(store)
    if not path.is_dir():
        raise InputError(f"{path}: there is no SpatialData store here; load an input first")
    with quiet():
        import spatialdata

        return spatialdata.read_zarr(path)


def open_image(store: str | os.PathLike[str]) -> Any:
    """Open the project's image at full resolution: an `xarray.DataArray` (c, y, x), read when it is used.

    Raises
    ------
    InputError
        When there is none.
    """
    name = Path(IMAGE).name
    if not has_element(store, IMAGE):
        raise InputError(f"{store}: there is no image {name!r}; load one first")
    return full_resolution(open_sdata(store).images[name])


def load_image(
    store: Path,
    array: Any,
    *,
    channel_names: Sequence[str | int] | None = None,
    known_names: Sequence[str] | None = None,
    remap: Sequence[int] | None = None,
    overwrite: bool = False,
) -> None:
    """Write an image as the project's, in resolution levels like scportrait's. Its dtype is kept.

    Parameters
    ----------
    store
        The project's store, made when there is none.
    array
        Pixels, or an array (c, y, x), or (y, x) for a single channel; of numpy, zarr or dask.
    channel_names, known_names
        Names given, and names to use when none are given.
    remap
        New order of the channels, and of their names: ``[1, 0, 2]`` exchanges the first two.
    overwrite
        Whether an existing image may be replaced.

    Raises
    ------
    InputError
        When image, names or order cannot be used.
    OutputError
        When there is an image already, and it may not be replaced.
    """
    check_free(store, [IMAGE], overwrite=overwrite)
    image = without_float16(as_channels(array if isinstance(array, Pixels) else as_pixels(array)))
    check_image(image)
    names = channel_names_for(image.shape[0], channel_names, known_names)
    if remap is not None:
        order = check_remap(remap, image.shape[0])
        image, names = reordered(image, order), [names[index] for index in order]
    with staged(store) as staging:
        write_raster(staging, IMAGE, image, channel_names=names, factors=FACTORS)
    _warn_of_other_sizes(store, image)


def _warn_of_other_sizes(store: Path, image: Pixels) -> None:
    """Masks of an image before this one stay, and can't be used with one of another size."""
    for element in (NUCLEUS, CYTOSOL):
        if has_element(store, element) and find_labels(store, Path(element).name).shape != image.shape[1:]:
            name = Path(element).name
            warn(f"{name} has another size than the new image {image.shape}: load the masks of this image too")


def load_masks(
    store: Path,
    masks: Mapping[str, Any],
    *,
    overwrite: bool = False,
    run: Run = map,
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, Centers]:
    """Write the masks of the project's image, and the centres of their cells.

    A mask is labels or shapes: one replaces the other. Shapes that the store already has stay.

    Parameters
    ----------
    store
        The project's store; it must have an image.
    masks
        ``"nucleus"`` and ``"cytosol"``, one or both: (y, x) arrays or pixels, integers, 0 = background; or polygons.
    overwrite
        Whether existing masks may be replaced.
    run
        How to apply a callable to every block of a mask; see `compute_centers`.
    log
        Callable that logs a sentence about polygons.

    Returns
    -------
    dict
        Element of a mask that was written -> its cells.

    Raises
    ------
    InputError
        When there is no image, or a mask is not one of it: its size, its type, its ids, its position.
    OutputError
        When a mask is there already, and may not be replaced.
    """
    if not masks:
        raise InputError("no mask: give nucleus, cytosol, or both")
    polygons = {shapes_of(kind): mask for kind, mask in masks.items() if isinstance(mask, Polygons)}
    rasters = {kind: mask for kind, mask in masks.items() if not isinstance(mask, Polygons)}
    labels = {mask_of(kind): _mask_pixels(mask, kind) for kind, mask in rasters.items()}
    shape = image_pixels(store).shape
    image = image_place(store)
    polygons = {name: each for name, each in polygons.items() if overwrite or not is_stored(store, name, each, image)}
    new = [*labels, *polygons]
    check_free(store, [*new, *map(other_form, new)], overwrite=overwrite)
    for element, mask in labels.items():
        check_mask(mask, mask_kind(element), shape)
    if not new:
        log("the project has these shapes already")
        return {}
    with staged(store) as staging:
        for element, mask in labels.items():
            write_raster(staging, element, mask)
        for element, cells in polygons.items():
            write_shapes(staging, element, cells, image)
        for element in new:
            _remove_other_form(staging, element)
        centers = write_centers(staging, list(labels), run=run)
        warn_of_shared_ids(centers)
        others = _other_masks(store, new)
        known = {**_cells_of_labels(store, [name for name in others if not is_shapes(name)], run), **centers}
        shapes = [*polygons, *(name for name in others if is_shapes(name))]
        if shapes:
            known |= check_staged(staging, shapes, image, with_labels=bool(known), log=log)
        if len(shapes) < len(known) or not shapes:  # two shapes are matched already
            check_same_cells(known)
    _report_left_out(polygons, log)
    warn_of_no_cells(centers)
    return {element: known[element] for element in new}


def _remove_other_form(staging: Staging, element: str) -> None:
    """Have the mask that shapes or labels replace leave the store; stored centres are those of labels."""
    staging.remove(other_form(element))
    if is_shapes(element):
        staging.remove(centers_of(other_form(element)))


def _other_masks(store: Path, elements: Sequence[str]) -> list[str]:
    """Return the masks that are in the store and stay."""
    kinds = {mask_kind(element) for element in elements}
    masks = (NUCLEUS, CYTOSOL, NUCLEUS_SHAPES, CYTOSOL_SHAPES)
    return [mask for mask in masks if mask_kind(mask) not in kinds and has_element(store, mask)]


def _report_left_out(polygons: Mapping[str, Polygons], log: Callable[[str], None]) -> None:
    for cells in polygons.values():
        for remark in cells.remarks:
            log(remark)
            warn(remark)


def _mask_pixels(mask: Any, kind: str) -> Pixels:
    if isinstance(mask, Pixels):
        return mask
    mask = full_resolution(mask)
    array = mask if hasattr(mask, "dtype") else np.asarray(mask)
    if np.dtype(array.dtype).kind not in "uif":
        check_mask_type(np.dtype(array.dtype), kind)
    try:
        pixels = as_pixels(array)
    except InputError as error:
        raise InputError(f"{kind} mask: {error}") from error
    return as_ids(pixels, f"{kind} mask")


def _cells_of_labels(store: Path, elements: Sequence[str], run: Run) -> dict[str, Centers]:
    return {element: compute_centers(find_labels(store, Path(element).name), run) for element in elements}


def write_centers(staging: Staging, elements: Sequence[str], *, run: Run) -> dict[str, Centers]:
    """Compute and write the centres of masks that are in the staged store."""
    masks = {element: find_labels(staging.folder, Path(element).name) for element in elements}
    centers = {
        element: survey(labels, run, called=f"{mask_kind(element)} mask for '{labels.name}' in {staging.store}")
        for element, labels in masks.items()
    }
    for element, cells in centers.items():
        write_points(staging, Path(centers_of(element)).name, cells, masks[element].signature())
    return centers


def image_pixels(store: Path) -> Pixels:
    """Return the project's image at full resolution.

    Raises
    ------
    InputError
        When there is none.
    """
    if not has_element(store, IMAGE):
        raise InputError(f"{store}: there is no image {Path(IMAGE).name!r}; load one before its masks")
    return open_group(store / IMAGE, ("c", "y", "x"))[0]


def open_group(group: Path | str, axes: Sequence[str]) -> tuple[Pixels, list[str]]:
    """Open an OME-Zarr group: its full-resolution array with these axes, and the names of its channels, if it has any.

    Raises
    ------
    InputError
        When it is none, or has other axes that are longer than one pixel.
    """
    pixels, found, names = _open_multiscale(group)
    kept = [axis for axis, name in enumerate(found) if name in axes]
    surplus = [size for axis, size in enumerate(pixels.shape) if axis not in kept]
    if any(size != 1 for size in surplus) or found[-2:] != ["y", "x"]:
        raise InputError(f"{group}: its axes are {', '.join(found)} {pixels.shape}; must be {', '.join(axes)}")
    return without_axes(pixels, kept), names


def open_stack(group: Path | str) -> Stack:
    """Open an OME-Zarr group: its full-resolution array with all of its axes.

    Raises
    ------
    InputError
        When it is none.
    """
    pixels, found, names = _open_multiscale(group)
    axes = letters(found)
    return Stack(pixels, axes, named_along(axes, pixels.shape, "c", names))


def _open_multiscale(group: Path | str) -> tuple[Pixels, list[str], list[str]]:
    """Pixels, axes, and names of channels."""
    metadata, multiscale = ome.multiscale_of(group)
    path = below(group, multiscale["datasets"][0]["path"])
    try:
        pixels = as_pixels(zarr.open_array(str(path), mode="r"))
    except (FileNotFoundError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a zarr array: {error}") from error
    found = ome.axes_of(multiscale)
    if len(found) != len(pixels.shape):
        raise InputError(f"{group}: its axes are {', '.join(found)}, but its array has the shape {pixels.shape}")
    n_channels = dict(zip(found, pixels.shape, strict=True)).get("c", 1)
    return pixels, found, _channel_names(group, metadata, n_channels)


def _channel_names(group: Path | str, metadata: Mapping[str, Any], n_channels: int) -> list[str]:
    """Names of the channels, "" where one has none; [] if their number is not that of the channels."""
    labels = [channel.get("label") for channel in ome.described_channels(metadata)]
    names = ["" if label is None else str(label) for label in labels]
    if not any(names) or len(names) == n_channels:
        return names
    warn(f"{group}: its metadata names {len(names)} channels ({', '.join(names)}), but it has {n_channels}: not used")
    return []


def store_centers(
    store: str | os.PathLike[str], labels_name: str, centers: Centers, signature: str | None = None
) -> None:
    """Write the centres of the cells of labels, and replace existing ones.

    Parameters
    ----------
    store
        Folder of the SpatialData store.
    labels_name
        Name of the labels; the points are named ``centers_<labels_name>``.
    centers
        Ids and centres (x, y in pixels of the full-resolution labels).
    signature
        That of the labels, to recognize centres of other labels later.

    Raises
    ------
    InputError
        When the store is a URL: those are never written to.
    """
    if is_remote(store):
        raise InputError(f"{store} is a URL: centres are stored in folders only")
    with staged(Path(store)) as staging:
        write_points(staging, Path(centers_of(labels_name)).name, centers, signature)
