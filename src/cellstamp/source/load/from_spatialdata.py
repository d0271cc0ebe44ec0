"""Load image, masks and other elements of a SpatialData store into the project's store."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellstamp.errors import InputError
from cellstamp.source import ome
from cellstamp.source.find.grid import check_same_grid
from cellstamp.source.find.masks import KINDS
from cellstamp.source.find.placement import placements
from cellstamp.source.load.checks import (
    channel_names_for,
    check_free,
    check_image,
    check_mask,
    warn_of_no_cells,
    warn_of_shared_ids,
    without_float16,
)
from cellstamp.source.load.mask_pairs import warn_of_other_cells
from cellstamp.source.load.ome_groups import open_group
from cellstamp.source.load.pixels import Pixels
from cellstamp.source.load.project_shapes import check_together, copy_shapes, image_place
from cellstamp.source.load.raster import FACTORS, copy_raster, copyable, write_raster
from cellstamp.source.load.same_content import Content, element_names, is_stored, same_files
from cellstamp.source.load.staging import Format, Staging, recover, staged, zarr_format
from cellstamp.source.load.store import record_pixel_size, write_centers
from cellstamp.source.load.tables import annotated, retarget
from cellstamp.source.names import (
    CYTOSOL,
    IMAGE,
    MASKS,
    NUCLEUS,
    centers_of,
    is_shapes,
    mask_kind,
    other_form,
)
from cellstamp.source.pixel_size import stored_pixel_size
from cellstamp.source.read.arrays import ArrayHandle
from cellstamp.source.read.centers import Run
from cellstamp.source.store_root import open_root
from cellstamp.source.values import Centers

_OURS = (IMAGE, *MASKS, centers_of(NUCLEUS), centers_of(CYTOSOL))


@dataclass(frozen=True)
class Chosen:
    """Elements to read from a SpatialData store.

    Attributes
    ----------
    store
        Folder of the store.
    elements
        Element of the project -> element of that store, like ``{"images/input_image": "images/raw"}``.
    others
        Whether everything else in the store comes along, under its own name.
    originals
        Whether the chosen elements come along a second time, under their own names.
    cell_id_column
        Column of the tables that annotate a mask with the id of the cell of each row; None: the one they name.
    """

    store: Path
    elements: Mapping[str, str]
    others: bool = True
    originals: bool = False
    cell_id_column: str | None = None


def element_of(store: Path, element: str, name: str) -> tuple[str, str]:
    """Return the element of the project, and that of the store with this name: a mask may be shapes."""
    if element != IMAGE and not (store / "labels" / name).is_dir() and (store / "shapes" / name).is_dir():
        return other_form(element), f"shapes/{name}"
    return element, f"{element.split('/')[0]}/{name}"


def load_sdata(
    store: Path,
    chosen: Chosen,
    *,
    overwrite: bool = False,
    run: Run = map,
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, Centers] | None:
    """Take the image and the masks of another SpatialData store as the project's, and compute the cells' centres.

    An element with a suitable zarr format, axes and chunk size is copied as a folder, without decoding pixels. Any
    other is read and written block by block. Image and masks are one set: masks of a previous image leave the project.
    If the project has all of this already, with the same content, nothing is written.

    Parameters
    ----------
    store
        The project's store. A new one has the zarr format of the other store.
    chosen
        Elements to load.
    overwrite
        Whether an existing image and masks are replaced, whatever their content.
    run
        How to apply a callable to every block of a mask; see `compute_centers`.
    log
        Callable that logs a sentence about shapes.

    Returns
    -------
    dict or None
        Element of a mask -> its cells; None if the project had everything.

    Raises
    ------
    InputError
        If the other store lacks an element, or image and masks do not belong together.
    OutputError
        If the project has an image or a mask with other content, and it may not be replaced.
    """
    source_format = zarr_format(chosen.store) if chosen.store.is_dir() else None
    if source_format is None:
        raise InputError(f"{chosen.store}: there is no SpatialData store here")
    _check_elements(chosen)
    recover(store)
    if not overwrite and _is_loaded(store, chosen):
        record_pixel_size(store, stored_pixel_size(ome.read_attributes(chosen.store / chosen.elements[IMAGE])))
        return None
    check_free(store, (IMAGE, *MASKS), overwrite=overwrite)
    masks = [element for element in MASKS if element in chosen.elements]
    with staged(store, new_format=source_format) as staging:
        for element, origin in chosen.elements.items():
            _take(staging, chosen.store / origin, element)
        centers = write_centers(staging, [mask for mask in masks if not is_shapes(mask)], run=run)
        warn_of_shared_ids(centers)
        shapes = [mask for mask in masks if is_shapes(mask)]
        centers = check_together(staging, centers, shapes, lambda: image_place(staging.folder), log=log)
        for element in _OURS:
            staging.remove(element)
        if chosen.others and chosen.store.resolve() != store.resolve():
            _take_others(staging, chosen, source_format)
    warn_of_other_cells(centers)
    warn_of_no_cells(centers)
    return centers


def _is_loaded(store: Path, chosen: Chosen) -> bool:
    """Return whether the project has the chosen image and masks, no other mask, and the other elements."""
    stored = {element for element in (IMAGE, *MASKS) if (store / element).exists()}
    return (
        stored == set(chosen.elements)
        and all(_is_same(store, name, chosen.store / origin) for name, origin in chosen.elements.items())
        and _has_others(store, chosen)
    )


def _is_same(store: Path, element: str, origin: Path) -> bool:
    if is_shapes(element):
        return same_files(origin, store / element)
    return is_stored(store, element, _content(origin))


def _content(group: Path) -> Content:
    """Return an element of the other store as it would be written."""
    kind = group.parent.name
    pixels, names = open_group(group, ome.AXES[kind])
    pixels = without_float16(pixels) if kind == "images" else pixels
    return Content(pixels, element_names(kind, pixels, names), placements(ome.multiscale_of(group)[0]))


def _has_others(store: Path, chosen: Chosen) -> bool:
    """Return whether the project has the other elements, byte by byte as they would be written."""
    if not chosen.others or chosen.store.resolve() == store.resolve():
        return True
    format_ = zarr_format(store)
    others = list(_others(chosen))
    if format_ is None or not all((store / element).is_dir() for element in others):
        return False
    with tempfile.TemporaryDirectory() as scratch:
        staging = Staging(Path(scratch), store, format_)
        return all(same_files(_as_written(staging, chosen, element), store / element) for element in others)


def _as_written(staging: Staging, chosen: Chosen, element: str) -> Path:
    """Return a folder with the files of another element as they would be written."""
    renamed = _renamed(chosen)
    if not _annotates(chosen, element, renamed):
        return chosen.store / element
    retarget(staging, chosen.store, element, renamed, chosen.cell_id_column, keep_region=chosen.originals)
    return staging.folder / element


def _check_elements(chosen: Chosen) -> None:
    """Check all metadata before a pixel is copied."""
    for origin in chosen.elements.values():
        if not (chosen.store / origin).is_dir():
            kind, name = origin.split("/")
            there = ", ".join(sorted(path.name for path in (chosen.store / kind).glob("[!.]*") if path.is_dir()))
            raise InputError(f"{chosen.store}: no {kind} element named {name!r} (there are: {there or 'none'})")
    image, _ = open_group(chosen.store / chosen.elements[IMAGE], ome.AXES["images"])
    if len(image.shape) != 3:
        raise InputError(
            f"{chosen.store / chosen.elements[IMAGE]}: must have the axes c, y, x, has shape {image.shape}"
        )
    check_image(image)
    root = open_root(str(chosen.store))
    for element, origin in chosen.elements.items():
        if element != IMAGE and not is_shapes(element):
            mask, _ = open_group(chosen.store / origin, ome.AXES["labels"])
            check_mask(mask, mask_kind(element), image.shape)
            check_same_grid(root, _handle(chosen, IMAGE, image), _handle(chosen, element, mask))


def _handle(chosen: Chosen, element: str, pixels: Pixels) -> ArrayHandle:
    origin = chosen.elements[element]
    name = Path(origin).name
    return ArrayHandle(str(chosen.store), name, origin, pixels.shape, pixels.chunks, str(pixels.dtype))


def _take(staging: Staging, group: Path, element: str) -> None:
    if is_shapes(element):
        copy_shapes(staging, group, element)
        return
    kind = element.split("/")[0]
    factors = FACTORS if kind == "images" else ()
    pixels, labels = open_group(group, ome.AXES[kind])
    if pixels.dtype != np.float16 and copyable(group, kind, staging.format):
        copy_raster(staging, group, element, factors=factors)
        return
    pixels = without_float16(pixels) if kind == "images" else pixels
    names = channel_names_for(pixels.shape[0], None, labels) if kind == "images" else ()
    _, multiscale = ome.multiscale_of(group)
    transformations = ome.complete_transformations(multiscale, ome.AXES[kind])
    write_raster(
        staging,
        element,
        pixels,
        channel_names=names,
        factors=factors,
        transformations=transformations,
        pixel_size=stored_pixel_size(ome.read_attributes(group)) if kind == "images" else None,
    )


def _take_others(staging: Staging, chosen: Chosen, source_format: Format) -> None:
    others = list(_others(chosen))
    if others and source_format != staging.format:
        raise InputError(
            f"{chosen.store} is of zarr format {source_format}, the project's store of format {staging.format}: what "
            "else is in it can't come along; use keep_all=False, or a new project"
        )
    renamed = _renamed(chosen)
    for element in others:
        if _annotates(chosen, element, renamed):
            retarget(staging, chosen.store, element, renamed, chosen.cell_id_column, keep_region=chosen.originals)
        else:
            shutil.copytree(chosen.store / element, staging.place(element))


def _renamed(chosen: Chosen) -> dict[str, str]:
    """Return the new names of the masks whose tables change."""
    if chosen.originals and chosen.cell_id_column is None:
        return {}
    return {Path(origin).name: Path(element).name for element, origin in chosen.elements.items() if element != IMAGE}


def _annotates(chosen: Chosen, element: str, renamed: Mapping[str, str]) -> bool:
    """Return whether an element is a table of one of these masks."""
    return element.startswith("tables/") and bool(annotated(chosen.store / element) & set(renamed))


def _others(chosen: Chosen) -> Iterator[str]:
    """Return the other elements: without chosen ones and names that cellstamp uses."""
    skipped = {*_OURS} if chosen.originals else {*_OURS, *chosen.elements.values()}
    for kind in KINDS:
        for path in sorted((chosen.store / kind).glob("[!.]*")):
            if path.is_dir() and f"{kind}/{path.name}" not in skipped:
                yield f"{kind}/{path.name}"
