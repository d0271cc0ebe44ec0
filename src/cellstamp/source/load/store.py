"""Read a project's SpatialData store, and write its image, its masks and their centres."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from cellstamp.errors import InputError
from cellstamp.lengths import PixelSize
from cellstamp.location import is_remote
from cellstamp.source import ome
from cellstamp.source.find.elements import find_labels
from cellstamp.source.library_messages import quiet
from cellstamp.source.load.checks import (
    channel_names_for,
    check_free,
    check_image,
    check_mask,
    check_mask_type,
    check_names,
    check_remap,
    warn_of_no_cells,
    warn_of_shared_ids,
    without_float16,
)
from cellstamp.source.load.mask_pairs import warn_of_other_cells
from cellstamp.source.load.mask_values import as_ids
from cellstamp.source.load.ome_groups import open_group
from cellstamp.source.load.pixels import Pixels, as_channels, as_pixels, full_resolution, reordered
from cellstamp.source.load.polygons import Polygons
from cellstamp.source.load.project_shapes import ImagePlace, check_together, has_shapes, image_place, write_shapes
from cellstamp.source.load.raster import FACTORS, write_raster
from cellstamp.source.load.same_content import Content, is_stored, other_names
from cellstamp.source.load.staging import Staging, check_not_linked, recover, staged
from cellstamp.source.names import (
    CYTOSOL,
    IMAGE,
    MASKS,
    NUCLEUS,
    centers_of,
    is_shapes,
    mask_kind,
    mask_of,
    other_form,
    shapes_of,
)
from cellstamp.source.pixel_size import KEY, stored_pixel_size
from cellstamp.source.points import write_points
from cellstamp.source.read.centers import Run, compute_centers
from cellstamp.source.read.shared_ids import survey
from cellstamp.source.values import Centers
from cellstamp.warnings import warn


def has_element(store: str | os.PathLike[str], element: str) -> bool:
    """Return whether the store has an element, named like ``"images/input_image"``."""
    return (Path(store) / element).is_dir()


def open_sdata(store: str | os.PathLike[str]) -> Any:
    """Open the store as a SpatialData object; pixels are read when they are used.

    Raises
    ------
    InputError
        If there is no store.
    """
    path = Path(store)
    if not path.is_dir():
        raise InputError(f"{path}: there is no SpatialData store here; load an input first")
    with quiet():
        import spatialdata

        return spatialdata.read_zarr(path)


def open_image(store: str | os.PathLike[str]) -> Any:
    """Open the project's image at full resolution: an `xarray.DataArray` (c, y, x), whose pixels are read when used.

    Raises
    ------
    InputError
        If there is no image.
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
    pixel_size: PixelSize | None = None,
) -> bool:
    """Write an image as the project's, in resolution levels like scportrait's. Its dtype is kept.

    If the store has an image with the same content, nothing is written.

    Parameters
    ----------
    store
        The project's store, created if needed.
    array
        Pixels, or an array (c, y, x), or (y, x) for a single channel; of numpy, zarr or dask.
    channel_names, known_names
        Names given by the user, and names to use otherwise.
    remap
        New order of the channels, and of their names: ``[1, 0, 2]`` exchanges the first two.
    overwrite
        Whether an existing image is replaced, whatever its content.
    pixel_size
        Micrometres per pixel, if the input says it. It is recorded also for an image that the store already has.

    Returns
    -------
    bool
        Whether the image was written; False if the store already had it.

    Raises
    ------
    InputError
        If image, names or order are invalid.
    OutputError
        If the store has an image with other content, and it may not be replaced.
    """
    image = without_float16(as_channels(array if isinstance(array, Pixels) else as_pixels(array)))
    check_image(image)
    names = channel_names_for(image.shape[0], channel_names, known_names)
    if remap is not None:
        order = check_remap(remap, image.shape[0])
        image, names = reordered(image, order), [names[index] for index in order]
    recover(store)
    content = Content(image, tuple(names))
    if not overwrite and is_stored(store, IMAGE, content):
        record_pixel_size(store, pixel_size)
        return False
    if not overwrite:
        check_names(store, IMAGE, other_names(store, IMAGE, content), names)
    check_free(store, [IMAGE], overwrite=overwrite)
    with staged(store) as staging:
        write_raster(staging, IMAGE, image, channel_names=names, factors=FACTORS, pixel_size=pixel_size)
    _warn_of_other_sizes(store, image)
    return True


def image_pixel_size(store: Path) -> PixelSize | None:
    """Return the micrometres per pixel of the project's image, if they are known."""
    return stored_pixel_size(ome.read_attributes(store / IMAGE))


def record_pixel_size(store: Path, pixel_size: PixelSize | None) -> None:
    """Record the size of the pixels of an image that stays, if it is known and new."""
    if pixel_size is None or image_pixel_size(store) == pixel_size:
        return
    check_not_linked(store, [IMAGE.split("/")[0]])
    with staged(store):  # which consolidates the metadata again
        group = zarr.open_group(str(store / IMAGE), mode="r+", use_consolidated=False)
        ours: Any = group.attrs.asdict().get(ome.OURS) or {}
        group.attrs[ome.OURS] = {**ours, KEY: list(pixel_size)}


def _warn_of_other_sizes(store: Path, image: Pixels) -> None:
    """Warn about masks of the previous image, which stay, but can't be used if the size differs."""
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
    """Write masks of the project's image, and the centres of their cells.

    Masks that the store already has, with the same content, stay untouched, with their centres.

    A mask is labels or shapes: one replaces the other. Shapes that the store already has stay.

    Parameters
    ----------
    store
        The project's store; it must have an image.
    masks
        ``"nucleus"`` and ``"cytosol"``, one or both: (y, x) arrays or pixels, integers, 0 = background; or polygons.
    overwrite
        Whether existing masks are replaced, whatever their content.
    run
        How to apply a callable to every block of a mask; see `compute_centers`.
    log
        Callable that logs a sentence about polygons.

    Returns
    -------
    dict
        Element of each mask that was written -> its cells.

    Raises
    ------
    InputError
        If there is no image, or a mask does not fit it: in its size, dtype, ids or position.
    OutputError
        If the store has a mask with other content, and it may not be replaced.
    """
    if not masks:
        raise InputError("no mask: give nucleus, cytosol, or both")
    elements = dict(_as_element(mask, kind) for kind, mask in masks.items())
    recover(store)
    shape, image = image_pixels(store).shape, image_place(store)
    new = {name: mask for name, mask in elements.items() if overwrite or not _has_mask(store, name, mask, image)}
    check_free(store, [*new, *map(other_form, new)], overwrite=overwrite)
    for element, mask in elements.items():
        if not isinstance(mask, Polygons):
            check_mask(mask, mask_kind(element), shape)
    if not new:
        return {}
    polygons = {element: mask for element, mask in new.items() if isinstance(mask, Polygons)}
    with staged(store) as staging:
        _write_masks(staging, new, image)
        centers = write_centers(staging, [element for element in new if element not in polygons], run=run)
        warn_of_shared_ids(centers)
        known = _check_with_others(staging, new, centers, image, run=run, log=log)
    _report_left_out(polygons, log)
    warn_of_other_cells(known)
    warn_of_no_cells(centers)
    return {element: known[element] for element in new}


def _as_element(mask: Any, kind: str) -> tuple[str, Pixels | Polygons]:
    """Return the element that a mask becomes, and its content."""
    return (shapes_of(kind), mask) if isinstance(mask, Polygons) else (mask_of(kind), _mask_pixels(mask, kind))


def _has_mask(store: Path, element: str, mask: Pixels | Polygons, image: ImagePlace) -> bool:
    """Return whether the store has a mask with this content."""
    if isinstance(mask, Polygons):
        return has_shapes(store, element, mask, image)
    return is_stored(store, element, Content(mask))


def _write_masks(staging: Staging, masks: Mapping[str, Pixels | Polygons], image: ImagePlace) -> None:
    for element, mask in masks.items():
        if isinstance(mask, Polygons):
            write_shapes(staging, element, mask, image)
        else:
            write_raster(staging, element, mask)
        _remove_other_form(staging, element)


def _check_with_others(
    staging: Staging,
    new: Mapping[str, Pixels | Polygons],
    centers: Mapping[str, Centers],
    image: ImagePlace,
    *,
    run: Run,
    log: Callable[[str], None],
) -> dict[str, Centers]:
    """Check that new masks and those that stay have the same cells; return the cells of all."""
    others = _other_masks(staging.store, list(new))
    shapes = [element for element in (*new, *others) if is_shapes(element)]
    labels = [element for element in others if not is_shapes(element)]
    known = {**_cells_of_labels(staging.store, labels, run), **centers}
    return check_together(staging, known, shapes, lambda: image, log=log)


def _remove_other_form(staging: Staging, element: str) -> None:
    """Have the mask that shapes or labels replace leave the store; stored centres are those of labels."""
    staging.remove(other_form(element))
    if is_shapes(element):
        staging.remove(centers_of(other_form(element)))


def stored_mask(store: Path, kind: str) -> str:
    """Return the element of a mask in the store, given its kind: its shapes, otherwise its labels."""
    return shapes_of(kind) if has_element(store, shapes_of(kind)) else mask_of(kind)


def _other_masks(store: Path, elements: Sequence[str]) -> list[str]:
    """Return the masks that are in the store and stay."""
    kinds = {mask_kind(element) for element in elements}
    return [mask for mask in MASKS if mask_kind(mask) not in kinds and has_element(store, mask)]


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
    """Compute and write the centres of the masks in the temporary store."""
    masks = {element: find_labels(staging.folder, Path(element).name) for element in elements}
    centers = {
        element: survey(labels, run, called=f"{mask_kind(element)} mask for '{labels.name}' in {staging.store}")
        for element, labels in masks.items()
    }
    for element, cells in centers.items():
        write_points(staging, Path(centers_of(element)).name, cells, masks[element].signature())
    return centers


def image_pixels(store: Path) -> Pixels:
    """Open the project's image at full resolution.

    Raises
    ------
    InputError
        If there is no image.
    """
    if not has_element(store, IMAGE):
        raise InputError(f"{store}: there is no image {Path(IMAGE).name!r}; load one before its masks")
    return open_group(store / IMAGE, ("c", "y", "x"))[0]


def store_centers(
    store: str | os.PathLike[str], labels_name: str, centers: Centers, signature: str | None = None
) -> None:
    """Write the centres of the cells of labels; existing ones are replaced.

    Parameters
    ----------
    store
        Folder of the SpatialData store.
    labels_name
        Name of the labels; the points are named ``centers_<labels_name>``.
    centers
        Ids and centres (x, y in pixels of the full-resolution labels).
    signature
        Signature of the labels, by which centres of other labels are recognised later.

    Raises
    ------
    InputError
        If the store is a URL: cellstamp never writes to URLs.
    """
    if is_remote(store):
        raise InputError(f"{store} is a URL: centres are stored in folders only")
    with staged(Path(store)) as staging:
        write_points(staging, Path(centers_of(labels_name)).name, centers, signature)
