"""Find the shapes that are masks, their position on the image, and their outlines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import zarr

from cellstamp.location import below
from cellstamp.source.find.coordinate_systems import choose_system
from cellstamp.source.find.outline_files import most_vertices, read_columns, read_outlines
from cellstamp.source.find.pixel_sizes import CropGrid
from cellstamp.source.find.placement import Matrix, as_way, between, in_words, placements, point_placements
from cellstamp.source.find.shape_ids import number_cells
from cellstamp.source.find.shape_keys import ShapesElement
from cellstamp.source.names import SHAPES_FILE
from cellstamp.source.ome import metadata_of
from cellstamp.source.outlines import OutlineCollector, OutlineMask
from cellstamp.source.read.arrays import PixelArray


@dataclass(frozen=True)
class ShapesMasks:
    """Masks that are given as shapes.

    Attributes
    ----------
    masks
        In the order of the names that were asked for.
    remarks
        Sentences about cells that are left out, because another mask lacks them.
    positions
        Sentences about the positions of the shapes on the image.
    left_out
        Sentences about shapes that cannot be cells, which are warnings.
    """

    masks: tuple[OutlineMask, ...]
    remarks: tuple[str, ...]
    positions: tuple[str, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlacedShapes:
    """A shapes element and its position on an image.

    Attributes
    ----------
    name, where, path
        Its name, its name for messages, and its file.
    matrix
        float64 (3, 3): from its coordinates to pixels of the image, for (y, x, 1).
    system
        The coordinate system that places it.
    """

    name: str
    where: str
    path: str
    matrix: Matrix
    system: str


def find_shapes(
    root: zarr.Group,
    names: Sequence[str],
    image: PixelArray,
    *,
    system: str | None = None,
    with_labels: bool = False,
    crops: CropGrid | None = None,
) -> ShapesMasks:
    """Read shapes elements, at most two, as masks of an image.

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
    crops
        Pixel grid on which the shapes are drawn; None: that of the image.

    Raises
    ------
    InputError
        If an element cannot be read or placed, an id is repeated, or two elements don't belong together.
    """
    if not names:
        return ShapesMasks((), (), ())
    here = placements(metadata_of(root, f"images/{image.name}"))
    placed = [place_shapes(root, image.store, name, (image.name, here), system) for name in names]
    if crops is None:
        return read_shapes(placed, image, with_labels=with_labels)
    to_crops = np.diag([*np.reciprocal(crops.scale), 1.0])
    scaled = [replace(each, matrix=to_crops @ each.matrix) for each in placed]
    found = read_shapes(scaled, crops.place(image, "nearest"), with_labels=with_labels)
    return replace(found, positions=tuple(map(_position, placed)))


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
    return PlacedShapes(name, where, path, between(there[chosen], here[chosen]), chosen)


def read_shapes(placed: Sequence[PlacedShapes], image: PixelArray, *, with_labels: bool) -> ShapesMasks:
    """Read placed shapes as masks; see `find_shapes`."""
    collector = OutlineCollector(sum(most_vertices(each.path, each.where) for each in placed))
    elements = [_read(each, collector) for each in placed]
    numbered, remarks = number_cells(elements, collector, with_labels=with_labels)
    every = collector.outlines()
    shape = (image.shape[-2], image.shape[-1])
    masks = tuple(
        OutlineMask(
            image.store,
            each.name,
            each.path,
            shape,
            as_way(each.matrix),
            cells.ids,
            cells.numbers,
            cells.centers,
            every,
            cells.names,
            cells.unpaired,
        )
        for each, cells in zip(placed, numbered, strict=True)
    )
    left_out = tuple(sentence for element in elements for sentence in _left_out(element))
    return ShapesMasks(masks, tuple(remarks), tuple(map(_position, placed)), left_out)


def _position(placed: PlacedShapes) -> str:
    words = in_words(placed.matrix, "shapes")
    return f"shapes '{placed.name}' in '{placed.system}': {words} from their coordinates to pixels of the image"


def _read(placed: PlacedShapes, collector: OutlineCollector) -> ShapesElement:
    columns = read_columns(placed.path, placed.where)
    found = read_outlines(placed.path, placed.matrix, placed.where, collector)
    return ShapesElement(placed.name, placed.where, found, columns)


def _left_out(element: ShapesElement) -> Iterator[str]:
    """Yield a sentence for each kind of shapes that cannot be cells."""
    left_out, index = element.found.left_out, element.columns.index
    for reason, count in left_out.counts.items():
        example = index[[left_out.rows[reason]]].tolist()[0]
        yield f"{element.where}: left out {count} of {len(index)} shapes, {reason}, like {example!r}"
