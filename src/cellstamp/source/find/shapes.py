"""Find the shapes that are masks, their position on the image, and their outlines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import zarr

from cellstamp.errors import InputError
from cellstamp.source.find.masks import listing
from cellstamp.source.find.outline_files import read_columns, read_outlines
from cellstamp.source.find.placement import Matrix, between, differing, placements, point_placements
from cellstamp.source.find.shape_ids import ShapesElement, number_cells
from cellstamp.source.location import below
from cellstamp.source.names import SHAPES_FILE
from cellstamp.source.ome import metadata_of
from cellstamp.source.outlines import OutlineCollector, OutlineMask
from cellstamp.source.read.arrays import ArrayHandle

_GLOBAL = "global"


@dataclass(frozen=True)
class ShapesMasks:
    """Masks that are given as shapes.

    Attributes
    ----------
    masks
        In the order of the names that were asked for.
    remarks
        Sentences about shapes and cells that are left out.
    """

    masks: tuple[OutlineMask, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class PlacedShapes:
    """A shapes element and its position on an image.

    Attributes
    ----------
    name, where, path
        Its name, its name for messages, and its file.
    matrix
        float64 (3, 3): from its coordinates to pixels of the image, for (y, x, 1).
    """

    name: str
    where: str
    path: str
    matrix: Matrix


def find_shapes(
    root: zarr.Group,
    names: Sequence[str],
    image: ArrayHandle,
    *,
    system: str | None = None,
    with_labels: bool = False,
) -> ShapesMasks:
    """Read one or two shapes elements as masks of an image.

    Parameters
    ----------
    root
        The opened store.
    names
        Names of the elements: nucleus before cytosol.
    image
        The image.
    system
        Coordinate system in which image and shapes are placed; None: see `choose_system`.
    with_labels
        Whether another mask is labels, so that the ids of the shapes must be ids of these labels.

    Raises
    ------
    InputError
        If an element cannot be read or placed, an id is repeated, or two elements don't belong together.
    """
    here = placements(metadata_of(root, f"images/{image.name}"))
    placed = [place_shapes(root, image.store, name, (image.name, here), system) for name in names]
    return read_shapes(placed, image, with_labels=with_labels)


def place_shapes(
    root: zarr.Group, store: str, name: str, image: tuple[str, Mapping[str, Matrix]], system: str | None = None
) -> PlacedShapes:
    """Find the position of a shapes element on an image, given by its name and its placements.

    Raises
    ------
    InputError
        If they have no coordinate system in common, or if a transformation has no inverse.
    """
    where = f"shapes '{name}' in {store}"
    path = str(below(store, f"shapes/{name}/{SHAPES_FILE}"))
    there, here = point_placements(root[f"shapes/{name}"].attrs.asdict()), image[1]
    chosen = choose_system(here, there, system, f"image '{image[0]}' and {where}")
    if 0 in (np.linalg.det(there[chosen][:2, :2]), np.linalg.det(here[chosen][:2, :2])):
        raise InputError(
            f"{where}: its transformation to '{chosen}', or the image's, has no inverse. Set it with "
            "spatialdata.transformations.set_transformation"
        )
    return PlacedShapes(name, where, path, between(there[chosen], here[chosen]))


def read_shapes(placed: Sequence[PlacedShapes], image: ArrayHandle, *, with_labels: bool) -> ShapesMasks:
    """Read placed shapes as masks; see `find_shapes`."""
    collector = OutlineCollector()
    elements = [_read(each, collector) for each in placed]
    numbered, remarks = number_cells(elements, collector, with_labels=with_labels)
    every = collector.outlines()
    shape = (image.shape[-2], image.shape[-1])
    masks = tuple(
        OutlineMask(
            image.store, each.name, each.path, shape, cells.ids, cells.numbers, cells.centers, every, cells.names
        )
        for each, cells in zip(placed, numbered, strict=True)
    )
    return ShapesMasks(masks, (*(remark for element in elements for remark in _left_out(element)), *remarks))


def _read(placed: PlacedShapes, collector: OutlineCollector) -> ShapesElement:
    columns = read_columns(placed.path, placed.where)
    found = read_outlines(placed.path, placed.matrix, placed.where, collector)
    return ShapesElement(placed.name, placed.where, found, columns)


def choose_system(here: Mapping[str, Matrix], there: Mapping[str, Matrix], wanted: str | None, where: str) -> str:
    """Return the coordinate system that places two elements: the wanted one, the only shared one, or ``global``.

    If all shared ones place them alike, as those of Visium HD do, any of them is the same.

    Raises
    ------
    InputError
        If there is none, or if several are possible.
    """
    shared = sorted(set(here) & set(there))
    if wanted is not None and wanted not in shared:
        raise InputError(f"{where}: coordinate_system '{wanted}' does not place both; shared are: {listing(shared)}")
    if wanted is not None or len(shared) == 1 or _GLOBAL in shared:
        return wanted or (shared[0] if len(shared) == 1 else _GLOBAL)
    if shared and _place_alike(here, there, shared):
        return shared[0]
    if shared:
        raise InputError(f"{where} share several coordinate systems: {listing(shared)}. Set coordinate_system to one")
    raise InputError(
        f"{where} share no coordinate system: the image has {listing(sorted(here))}, the shapes "
        f"{listing(sorted(there))}. Set the position of one of them with spatialdata.transformations.set_transformation"
    )


def _place_alike(here: Mapping[str, Matrix], there: Mapping[str, Matrix], systems: Sequence[str]) -> bool:
    try:
        ways = {system: between(there[system], here[system]) for system in systems}
    except np.linalg.LinAlgError:
        return False
    return not differing(dict.fromkeys(systems, ways[systems[0]]), ways)


def _left_out(element: ShapesElement) -> Iterator[str]:
    """Yield a sentence for each kind of shapes that cannot be cells."""
    left_out, index = element.found.left_out, element.columns.index
    for reason, count in left_out.counts.items():
        example = index[[left_out.rows[reason]]].tolist()[0]
        yield f"{element.where}: left out {count} of {len(index)} shapes, {reason}, like {example!r}"
