"""Write cells that are polygons as shapes of a project's store, and check that they fit its image."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cellstamp.errors import InputError, reworded
from cellstamp.source import ome
from cellstamp.source.find.elements import find_image
from cellstamp.source.find.placement import (
    Matrix,
    as_shapes_transformations,
    placements,
    point_placements,
    same,
)
from cellstamp.source.find.shapes import ShapesMasks, place_shapes, read_shapes
from cellstamp.source.find.shapes_extent import PLACE_POLYGONS, check_on_image, extent_in_words
from cellstamp.source.load.checks import check_same_cells
from cellstamp.source.load.polygons import Polygons
from cellstamp.source.load.staging import Staging
from cellstamp.source.names import IMAGE_NAME, MASK_KINDS, SHAPES_FILE, SHAPES_MASKS
from cellstamp.source.read.arrays import PixelArray
from cellstamp.source.store_root import open_root
from cellstamp.source.values import Centers
from cellstamp.warnings import warn


@dataclass(frozen=True)
class ImagePlace:
    """The project's image, and where it is.

    Attributes
    ----------
    handle
        The image.
    placements
        Its matrices to each coordinate system, for (y, x, 1).
    """

    handle: PixelArray
    placements: Mapping[str, Matrix]


def image_place(store: Path) -> ImagePlace:
    """Find the project's image.

    Raises
    ------
    InputError
        If it is missing.
    """
    metadata = ome.metadata_of(open_root(str(store)), f"images/{IMAGE_NAME}")
    return ImagePlace(find_image(store).image, placements(metadata))


def attributes_of(polygons: Polygons, image: ImagePlace, format_: int) -> dict[str, Any]:
    """Return the attributes of shapes: polygons lie on the image, or where their SpatialData object says."""
    if polygons.transformations is not None:
        return ome.shapes_attributes(polygons.transformations, format_=format_)
    swap = np.ix_([1, 0, 2], [1, 0, 2])
    places = {system: matrix @ polygons.to_pixels[swap] for system, matrix in image.placements.items()}
    return ome.shapes_attributes(as_shapes_transformations(places), format_=format_)


def write_shapes(staging: Staging, element: str, polygons: Polygons, image: ImagePlace) -> None:
    """Write polygons as shapes, named like ``"shapes/seg_all_nucleus"``; coordinates stay unchanged."""
    folder = staging.group(element, attributes_of(polygons, image, staging.format))
    polygons.frame.to_parquet(folder / SHAPES_FILE)


def copy_shapes(staging: Staging, group: Path, element: str) -> None:
    """Copy shapes of another store, with their position.

    Raises
    ------
    InputError
        If they have no GeoParquet file, as those that spatialdata wrote before 0.2.
    """
    if not (group / SHAPES_FILE).is_file():
        raise InputError(f"{group}: has no file {SHAPES_FILE}. Write the store again with spatialdata")
    transformations = ome.read_attributes(group).get("coordinateTransformations", [])
    folder = staging.group(element, ome.shapes_attributes(transformations, format_=staging.format))
    shutil.copyfile(group / SHAPES_FILE, folder / SHAPES_FILE)


def n_shapes(group: Path) -> int:
    """Return the number of shapes of an element, from the metadata of its file."""
    import pyarrow.parquet as pq

    return int(pq.read_metadata(group / SHAPES_FILE).num_rows)


def has_shapes(store: Path, element: str, polygons: Polygons, image: ImagePlace) -> bool:
    """Return whether the store has these shapes: the same ids, columns, coordinates and position."""
    import geopandas as gpd
    import shapely

    try:
        there = gpd.read_parquet(store / element / SHAPES_FILE)
        stored = ome.read_attributes(store / element)
    except (OSError, ValueError, InputError):
        return False
    here = polygons.frame
    return (
        same(*(point_placements(each) for each in (stored, attributes_of(polygons, image, format_=3))))
        and len(here) == len(there)
        and here.index.astype(str).equals(there.index.astype(str))
        and sorted(here.columns) == sorted(there.columns)
        and all(here[name].astype(str).equals(there[name].astype(str)) for name in here.columns if name != "geometry")
        and bool(shapely.equals_exact(here.geometry.to_numpy(), there.geometry.to_numpy()).all())
    )


def check_together(
    staging: Staging,
    labels: Mapping[str, Centers],
    shapes: Collection[str],
    image: Callable[[], ImagePlace],
    *,
    log: Callable[[str], None],
) -> dict[str, Centers]:
    """Check that one or two masks have the same cells; shapes are read as an extraction reads them.

    Parameters
    ----------
    staging
        The staged store.
    labels
        Element of each mask that is labels -> its cells.
    shapes
        Elements of the masks that are shapes, in the staged store or in the store.
    image
        Returns the project's image; called for shapes only.
    log
        Callable that logs a line. Shapes that are left out are also warnings.

    Returns
    -------
    dict
        Element of each mask -> its cells.

    Raises
    ------
    InputError
        If shapes are invalid, all cells are outside of the image, or masks don't belong together.
    """
    cells = dict(labels)
    if shapes:
        cells |= _check_staged(staging, shapes, image(), with_labels=bool(labels), log=log)
    if len(shapes) < len(MASK_KINDS):  # two shapes are matched already
        check_same_cells(cells)
    return cells


def _check_staged(
    staging: Staging, elements: Iterable[str], image: ImagePlace, *, with_labels: bool, log: Callable[[str], None]
) -> dict[str, Centers]:
    wanted = set(elements)
    folders = {
        element: staging.folder if (staging.folder / element).exists() else staging.store
        for element in SHAPES_MASKS
        if element in wanted
    }

    def reword(text: str) -> str:
        return text.replace(str(staging.folder), str(staging.store))

    with reworded(reword):
        found = _read_on_image(folders, image, with_labels=with_labels)
    for sentence in map(reword, found.left_out):
        log(sentence)
        warn(sentence)
    for remark in (*found.remarks, *map(extent_in_words, found.masks)):
        log(reword(remark))
    return {element: Centers(mask.ids, mask.centers) for element, mask in zip(folders, found.masks, strict=True)}


def _read_on_image(folders: Mapping[str, Path], image: ImagePlace, *, with_labels: bool) -> ShapesMasks:
    where = (image.handle.name, image.placements)
    placed = [
        place_shapes(open_root(str(folder)), str(folder), Path(element).name, where)
        for element, folder in folders.items()
    ]
    found = read_shapes(placed, image.handle, with_labels=with_labels)
    for mask in found.masks:
        check_on_image(mask, PLACE_POLYGONS)
    return found
