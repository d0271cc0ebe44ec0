"""Cells of the JSON that CellViT and HoVer-Net write: a contour for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cellstamp.errors import InputError
from cellstamp.source.load.geojson import FileCells
from cellstamp.source.load.rings import shapes_of

_CONTOUR = "contour"
_MARGIN = 1e-3
"""Pixels by which a contour is widened, so that the pixels it leads through belong to the cell."""

Object = Mapping[str, Any]


def is_contours(content: Any) -> bool:
    """Return whether the content of a JSON file is CellViT's or HoVer-Net's: cells with a contour or a centroid."""
    cells = list(_cells(content).values())
    return (
        bool(cells) and all(isinstance(cell, Mapping) for cell in cells) and bool({_CONTOUR, "centroid"} & {*cells[0]})
    )


def _cells(content: Any) -> dict[Any, Any]:
    """Return the cells by id: of a list (CellViT), by position from 1."""
    if isinstance(content, Mapping):
        content = content.get("cells", content.get("nuc"))
    if isinstance(content, Mapping):
        return dict(content)
    return dict(enumerate(content, start=1)) if isinstance(content, list) else {}


def read_contours(content: Any, where: str) -> FileCells:
    """Return the cells of a list or dict of objects with ``contour``: corners (x, y) in whole pixels.

    These are OpenCV's contours: they lead through the centres of a cell's outermost pixels, and pixel 0 has its centre
    at 0. The polygons contain these centres, with pixel 0 from 0 to 1.

    Raises
    ------
    InputError
        If no cell has a contour, or if one is invalid.
    """
    import geopandas as gpd
    import shapely

    cells = _cells(content)
    contours = {cell: each.get(_CONTOUR) for cell, each in cells.items()}
    n_without = sum(contour is None for contour in contours.values())
    if n_without == len(cells):
        raise InputError(
            f"{where}: its {n_without} cells have no {_CONTOUR!r}. Of CellViT, load the file of the segmentation, not "
            "that of the detection"
        )
    shapes = shapes_of([[[ring]] if (ring := _ring(each, cell, where)) else [] for cell, each in contours.items()])
    shapes = shapely.transform(shapes, lambda xy: xy + 0.5)
    shapes = shapely.buffer(shapes, _MARGIN, join_style="mitre")
    types = _types(list(cells.values()), content)
    return FileCells(gpd.GeoDataFrame(types, geometry=shapes, index=[_as_id(cell) for cell in cells]))


def _ring(contour: Any, cell: Any, where: str) -> list[list[float]]:
    """Return a contour as corners; of OpenCV's own form, without the axis between."""
    try:
        corners = np.asarray([] if contour is None else contour, np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        raise InputError(
            f"{where}: the {_CONTOUR} of cell {cell} must be pairs of numbers, x and y. Write the file again"
        ) from None
    ring: list[list[float]] = corners.tolist()
    return ring


def _types(cells: Sequence[Object], content: Any) -> dict[str, list[Any]]:
    """Return the column with the type of each cell, by its name where the file has one."""
    types = [cell.get("type") for cell in cells]
    if all(each is None for each in types):
        return {}
    names = content.get("type_map") if isinstance(content, Mapping) else None
    known = {str(key): name for key, name in names.items()} if isinstance(names, Mapping) else {}
    return {"type": [None if each is None else str(known.get(str(each), each)) for each in types]}


def _as_id(cell: Any) -> Any:
    return int(cell) if str(cell).isdigit() else cell
