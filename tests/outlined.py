"""Masks as shapes: the polygons of labels, and stores that have them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray

from stores import Sample, as_spatialdata


def polygons_of(mask: NDArray[Any]) -> gpd.GeoDataFrame:
    """The union of the pixels of each cell; the index is the id."""
    ids = [int(cell) for cell in np.unique(mask) if cell]
    shapes = [shapely.union_all(shapely.box(x, y, x + 1, y + 1)) for y, x in (np.nonzero(mask == cell) for cell in ids)]
    return gpd.GeoDataFrame(geometry=shapes, index=ids)


def with_index(shapes: gpd.GeoDataFrame, index: Sequence[Any], **columns: Any) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(columns, geometry=list(shapes.geometry), index=list(index))


def placed(shapes: gpd.GeoDataFrame, transformations: dict[str, Any] | None = None) -> Any:
    """The shapes as an element."""
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import Identity

    shapes = shapes.copy()
    shapes.attrs = {}
    return ShapesModel.parse(shapes, transformations=transformations or {"global": Identity()})


def outlined(sample: Sample, shapes: dict[str, Any]) -> Any:
    """The sample with shapes, as a SpatialData object in memory."""
    sdata = as_spatialdata(sample)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, element in shapes.items():
            sdata[name] = element if "transform" in element.attrs else placed(element)
    return sdata


def write_outlined(path: Path, sample: Sample, shapes: dict[str, Any]) -> Path:
    sdata = outlined(sample, shapes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata.write(path)
    return path
