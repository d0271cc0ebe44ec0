"""Check polygons that become the cells of a project: their ids, their position, and shapes that cannot be cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import InputError
from cellstamp.lengths import number_and_unit, parse_length
from cellstamp.source.find.outline_files import NO_AREA
from cellstamp.source.find.placement import Matrix
from cellstamp.source.id_columns import POLYGON_COLUMNS

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

_RADIUS = "radius"
_FLAT = 1e-9
"""Area of a polygon without an area, relative to the square of its perimeter: rounding errors are smaller."""


@dataclass(frozen=True)
class PolygonOptions:
    """How polygons are read.

    Attributes
    ----------
    to_pixels
        float64 (3, 3): from coordinates of the polygons to pixels of the image, for (x, y, 1). None: see `Polygons`.
    ids
        Column or property with the ids; None: the index, or the first of the usual columns.
    """

    to_pixels: Matrix | None = None
    ids: str | None = None

    @property
    def given(self) -> bool:
        """Return whether one of them is given."""
        return self.to_pixels is not None or self.ids is not None


@dataclass(frozen=True)
class Polygons:
    """Cells of one mask.

    Attributes
    ----------
    frame
        GeoDataFrame of polygons and multipolygons, or of points with a radius. The index has the ids.
    where
        Their origin, for messages.
    to_pixels
        float64 (3, 3), as in `PolygonOptions`.
    transformations
        Transformations of an element of a SpatialData object, in the words of OME metadata. None: `to_pixels` holds.
    remarks
        Sentences about features that are left out.
    """

    frame: gpd.GeoDataFrame
    where: str
    to_pixels: Matrix
    transformations: list[dict[str, Any]] | None = None
    remarks: tuple[str, ...] = ()


def polygon_options(pixel_size: Any, transform: Any, ids: Any) -> PolygonOptions:
    """Check the arguments for polygons.

    Parameters
    ----------
    pixel_size
        Side of a pixel of the image in the unit of the polygons, like micrometres; or None.
    transform
        (2, 3) or (3, 3) numbers: an affine matrix from polygons to pixels, for (x, y, 1); or None.
    ids
        Name of a column or property; or None.

    Raises
    ------
    InputError
        If one of them is invalid, or if both `pixel_size` and `transform` are given.
    """
    if pixel_size is not None and transform is not None:
        raise InputError("pixel_size and transform both place the polygons on the image. Give one of them")
    if ids is not None and not isinstance(ids, str):
        raise InputError(f"ids = {ids!r}: must be the name of the column or property with the ids of the cells")
    if pixel_size is not None:
        return PolygonOptions(_scale(pixel_size), ids)
    return PolygonOptions(None if transform is None else _affine(transform), ids)


def _scale(pixel_size: Any) -> Matrix:
    is_number = isinstance(pixel_size, int | float | np.number) and not isinstance(pixel_size, bool)
    if not is_number or not np.isfinite(pixel_size) or pixel_size <= 0:
        raise InputError(
            f"pixel_size = {pixel_size!r}: must be a positive number, the side of a pixel of the image in the unit of "
            f"the polygons, like 0.2125 if they are in micrometres{_number_in(pixel_size)}"
        )
    return np.diag([1 / float(pixel_size), 1 / float(pixel_size), 1.0])


def _number_in(pixel_size: Any) -> str:
    """Return the number to write instead of a text such as ``"0.2125 um"``."""
    text = pixel_size if isinstance(pixel_size, str) else ""
    number, unit = number_and_unit(text) or ("", "")
    size = parse_length(text) if unit else float(number or 0)
    return f"; write {size:g}" if size else ""


def _affine(transform: Any) -> Matrix:
    try:
        given = np.asarray(transform, np.float64)
    except (TypeError, ValueError):
        given = np.empty(0)
    matrix = np.eye(3)
    is_affine = given.shape == (2, 3) or (given.shape == (3, 3) and np.array_equal(given[2], matrix[2]))
    if is_affine:
        matrix[:2] = given[:2]
    if not is_affine or not np.isfinite(matrix).all() or np.linalg.det(matrix) == 0:
        raise InputError(
            f"transform = {transform!r}: must be an affine matrix [[a, b, c], [d, e, f]] with an inverse; a polygon's "
            "(x, y) is at pixel (a x + b y + c, d x + e y + f) of the image"
        )
    return matrix


def cells_of_frame(given: Any, where: str, options: PolygonOptions, remarks: tuple[str, ...] = ()) -> Polygons:
    """Return the cells of a GeoDataFrame or a GeoSeries; it is not changed.

    Parameters
    ----------
    given
        Polygons, multipolygons or points with a column ``radius``. That of a SpatialData object has transformations,
        which are used unless the options have a matrix.
    where
        Its name for messages.
    options
        See `PolygonOptions`.
    remarks
        Sentences about features that have been left out before.

    Raises
    ------
    InputError
        If it has no geometry, no cell, or repeated or missing ids.
    """
    import geopandas as gpd

    frame = gpd.GeoDataFrame(geometry=given) if isinstance(given, gpd.GeoSeries) else given
    if frame.active_geometry_name is None:
        raise InputError(f"{where}: has no geometry. Set it with set_geometry")
    frame = frame.rename_geometry("geometry") if frame.active_geometry_name != "geometry" else frame.copy(deep=False)
    transformations = _transformations_of(frame) if options.to_pixels is None else None
    frame.attrs = {}
    frame = _with_ids(frame, options.ids, where)
    n = len(frame)
    frame, left_out = _only_areas(frame)
    found = [f"left out {count} of {n} features, {why}, like {example!r}" for why, count, example in left_out]
    if not len(frame):
        raise InputError(f"{where}: has no polygon that can be a cell ({'; '.join(found) or 'it is empty'})")
    frame, dropped = _writable(frame)
    if dropped:
        found.append(f"left out the columns {', '.join(dropped)}, whose values are not numbers, texts or dates")
    remarks = (*remarks, *(f"{where}: {each}" for each in found))
    to_pixels = np.eye(3) if options.to_pixels is None else options.to_pixels
    return Polygons(frame, where, to_pixels, transformations, remarks)


def _transformations_of(frame: gpd.GeoDataFrame) -> list[dict[str, Any]] | None:
    if "transform" not in frame.attrs:
        return None
    from cellstamp.source.load.spatialdata_in_memory import transformations_of

    return transformations_of(frame, ("x", "y"))


def _with_ids(frame: gpd.GeoDataFrame, column: str | None, where: str) -> gpd.GeoDataFrame:
    """Return the frame with the ids as its index, each once."""
    if column is not None and column not in frame.columns and column != frame.index.name:
        names = ", ".join(map(str, frame.columns.drop("geometry"))) or "none"
        raise InputError(f"{where}: has no column or property {column!r} (ids); it has {names}")
    column = _usual_column(frame) if column is None else column
    if column is not None and column in frame.columns:
        frame = frame.set_index(column)
    frame.index = _ids(frame.index, where)
    return frame


def _usual_column(frame: gpd.GeoDataFrame) -> str | None:
    """Return the column with the ids, if the index only numbers the rows."""
    import pandas as pd

    if not isinstance(frame.index, pd.RangeIndex):
        return None
    usual = [name for name in POLYGON_COLUMNS if name in frame.columns]
    return next((name for name in usual if frame[name].notna().all() and frame[name].is_unique), None)


def _ids(index: pd.Index[Any], where: str) -> pd.Index[Any]:
    """Return ids as integers or texts.

    Raises
    ------
    InputError
        If one is missing or repeated.
    """
    import pandas as pd

    if isinstance(index, pd.MultiIndex):
        raise InputError(f"{where}: its index has {index.nlevels} levels; each cell needs one id. Use reset_index")
    if index.isna().any():
        raise InputError(f"{where}: row {int(index.isna().argmax())} has no id. Give each cell an id, or leave it out")
    whole = pd.to_numeric(index, errors="coerce") if index.dtype.kind == "f" else None
    if whole is not None and (whole == np.floor(whole)).all():
        index = index.astype(np.int64)
    elif index.dtype.kind not in "iu":
        # pandas finds the type of integers, also of those above 2**63
        inferred = pd.Index(index.tolist())
        index = inferred if inferred.dtype.kind in "iu" else index.astype(str)
    if index.dtype.kind == "O" and "\0" in "".join(index):
        example = next(name for name in index if "\0" in name)
        raise InputError(f"{where}: the id {example!r} contains NUL, which no HDF5 file can hold. Remove it")
    repeated = index[index.duplicated()]
    if len(repeated):
        raise InputError(
            f"{where}: the id {repeated.tolist()[0]!r} is repeated; a cell has one polygon or multipolygon. Of cells "
            "in several planes or layers, load one; or name the column with the ids: ids='...'"
        )
    return index


def _only_areas(frame: gpd.GeoDataFrame) -> tuple[gpd.GeoDataFrame, list[tuple[str, int, Any]]]:
    """Return the rows that can be cells, and for all others: reason, number, and the first one's id."""
    import shapely

    shapes = np.asarray(frame.geometry.to_numpy(), object).copy()
    collections = shapely.get_type_id(shapes) == shapely.GeometryType.GEOMETRYCOLLECTION
    shapes[collections] = [_polygons_of(each) for each in shapes[collections]]
    reasons = dict(_reasons(shapes, frame))
    left_out = [(why, int(rows.sum()), frame.index[rows].tolist()[0]) for why, rows in reasons.items() if rows.any()]
    kept = ~np.logical_or.reduce(list(reasons.values()))
    frame = frame.loc[kept].copy(deep=False)
    frame["geometry"] = shapely.force_2d(shapes[kept])
    return frame, left_out


def _polygons_of(collection: Any) -> Any:
    """Return the polygons of a collection as one shape: ``make_valid`` adds lines to some."""
    import shapely

    parts = shapely.get_parts(shapely.get_parts(collection))
    return shapely.multipolygons([part for part in parts if part.geom_type == "Polygon"])


def _reasons(shapes: NDArray[Any], frame: gpd.GeoDataFrame) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield each reason why a shape cannot be a cell, and a boolean for each shape; one reason for each."""
    import shapely

    kinds, is_empty = shapely.get_type_id(shapes), shapely.is_empty(shapes)
    is_missing = kinds < 0
    yield "without a geometry", is_missing
    yield "empty", ~is_missing & is_empty
    is_area = np.isin(kinds, [shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON])
    radius = frame[_RADIUS].to_numpy(np.float64) if _RADIUS in frame.columns else np.full(len(shapes), np.nan)
    # an element of SpatialData has either circles or polygons
    is_circle = (kinds == shapely.GeometryType.POINT) & (radius > 0) & np.isfinite(radius) & ~is_area.any()
    yield "neither polygons nor circles", ~is_missing & ~is_empty & ~is_area & ~is_circle
    with np.errstate(invalid="ignore"):
        area = shapely.area(shapes)
        negligible = _FLAT * shapely.length(shapes) ** 2
    is_flat = is_area & ~is_empty & (area <= negligible)
    area[is_flat] = shapely.area(shapely.make_valid(shapes[is_flat]))  # equal lobes of a polygon that crosses itself
    yield "with coordinates that are not finite", is_area & ~is_empty & ~np.isfinite(area)
    yield NO_AREA, is_flat & (area <= negligible)


def _writable(frame: gpd.GeoDataFrame) -> tuple[gpd.GeoDataFrame, list[str]]:
    """Return the frame with the columns that a parquet file can hold, and the names of the others."""
    from pandas.api.types import infer_dtype

    simple = {"string", "integer", "floating", "boolean", "categorical", "mixed-integer-float", "datetime64", "empty"}
    kinds = {name: infer_dtype(frame[name], skipna=True) for name in frame.columns.drop("geometry")}
    others = [name for name, kind in kinds.items() if kind not in simple]
    frame = frame.drop(columns=others)
    frame.columns = frame.columns.astype(str)
    if frame.index.name in frame.columns:
        frame.index.name = None
    return frame, [str(name) for name in others]


def is_frame(mask: Any) -> bool:
    """Return whether a mask is a GeoDataFrame or a GeoSeries."""
    return hasattr(type(mask), "to_wkb")
