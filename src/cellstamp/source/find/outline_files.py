"""Read the shapes of an element from its GeoParquet file, a part at a time, as outlines in pixels of the image."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import InputError
from cellstamp.location import is_remote
from cellstamp.source.outlines import OutlineCollector, Outlines, centers_of, outlines_of

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow.parquet as pq

_ROWS = 2**14
"""Shapes that are decoded at a time."""
_BUFFER = 2**20
"""Bytes of the file that are read at a time; by default, all of a column's."""
_VERTEX = 16
"""Bytes of a vertex in the file, at least."""
_SEGMENTS = 32
"""Lines of a quarter of a circle: its outline is at most 0.03% of the radius inside of it."""
_RADIUS = "radius"
NO_AREA = "without an area"
"""A reason to leave out a shape."""


@dataclass
class LeftOut:
    """Shapes that cannot be cells, counted by reason.

    Attributes
    ----------
    rows
        First row of each reason.
    counts
        Number of shapes of each reason.
    """

    rows: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, rows: NDArray[np.int64]) -> None:
        """Add the shapes of these rows."""
        if rows.size:
            self.rows.setdefault(reason, int(rows[0]))
            self.counts[reason] = self.counts.get(reason, 0) + rows.size


@dataclass(frozen=True)
class FileOutlines:
    """Outlines that are read from a file.

    Attributes
    ----------
    rows
        int64 (n,): row of each in the file.
    first
        Number of the first among the collected outlines.
    centers
        float64 (n, 2): x and y, see `cellstamp.source.outlines.centers_of`.
    left_out
        Shapes that are not among them.
    """

    rows: NDArray[np.int64]
    first: int
    centers: NDArray[np.float64]
    left_out: LeftOut


def read_outlines(path: str, matrix: NDArray[np.float64], where: str, collector: OutlineCollector) -> FileOutlines:
    """Read all shapes of a GeoParquet file: polygons, multipolygons, or points with a radius.

    Parameters
    ----------
    path
        The file, or a URL.
    matrix
        float64 (3, 3): from the coordinates in the file to pixels of the image, for (y, x, 1).
    where
        The element, for messages.
    collector
        Gets the outlines, in pixels of the image.

    Raises
    ------
    InputError
        If the file cannot be read, or if the points have no radius.
    """
    first, left_out, start = len(collector), LeftOut(), 0
    rows: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    centers: list[NDArray[np.float64]] = [np.empty((0, 2))]
    for geometries in _geometries(path, where):
        kept, reasons = _usable(geometries)
        numbers = np.arange(start, start + len(geometries))
        for reason, which in reasons.items():
            left_out.add(reason, numbers[which])
        if kept.size:
            part = _transformed(outlines_of(geometries[kept]), matrix)
            areas, centroids = part.areas_and_centroids()
            is_flat = part.are_flat(areas)
            has_area = np.isfinite(areas) & ~is_flat
            left_out.add("with coordinates that are not finite", numbers[kept[~np.isfinite(areas)]])
            left_out.add(NO_AREA, numbers[kept[is_flat]])
            rows.append(numbers[kept[has_area]])
            centers.append(centers_of(centroids[has_area]))
            collector.add(part if has_area.all() else part.take(np.flatnonzero(has_area)))
        start += len(geometries)
    return FileOutlines(np.concatenate(rows), first, np.concatenate(centers), left_out)


def most_vertices(path: str, where: str) -> int:
    """Return a number of vertices that the shapes of a file do not exceed, unless it repeats shapes."""
    with opened(path, where) as file:
        parts = [file.metadata.row_group(k) for k in range(file.metadata.num_row_groups)]
        columns = [part.column(k) for part in parts for k in range(part.num_columns)]
        named = [column for column in columns if column.path_in_schema == _geometry_column(file)]
        return int(sum(column.total_uncompressed_size for column in named)) // _VERTEX


def read_columns(path: str, where: str, columns: list[str] | None = None) -> pd.DataFrame:
    """Read columns of a GeoParquet file, and its index; all columns but the geometry by default."""
    with opened(path, where) as file:
        names = [name for name in file.schema_arrow.names if name != _geometry_column(file)]
        chosen = names if columns is None else [name for name in names if name in columns]
        return file.read(columns=chosen, use_pandas_metadata=True).to_pandas()


def opened(path: str, where: str) -> pq.ParquetFile:
    """Open a file of an element.

    Raises
    ------
    InputError
        If it is missing or damaged.
    """
    import fsspec
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if is_remote(path):
            return pq.ParquetFile(fsspec.open(path).open())
        return pq.ParquetFile(Path(path), memory_map=False, pre_buffer=False, buffer_size=_BUFFER)
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{where}: {path} cannot be read: {error}. Write the element again with spatialdata"
        ) from error


def _geometry_column(file: pq.ParquetFile) -> str:
    described = (file.schema_arrow.metadata or {}).get(b"geo")
    return str(json.loads(described)["primary_column"]) if described else "geometry"


def _geometries(path: str, where: str) -> Iterator[NDArray[Any]]:
    """Yield the shapes of a file as shapely's geometries, a part at a time; None where there is none."""
    with opened(path, where) as file:
        column = _geometry_column(file)
        decode = _decoder(file, column, where)
        wanted = [column, *([_RADIUS] if _RADIUS in file.schema_arrow.names else [])]
        for batch in file.iter_batches(_ROWS, columns=wanted):
            geometries = decode(batch.column(column))
            if _RADIUS in wanted:
                geometries = _circles(geometries, batch.column(_RADIUS).to_numpy(zero_copy_only=False))
            yield geometries


def _decoder(file: pq.ParquetFile, column: str, where: str) -> Callable[[Any], NDArray[Any]]:
    """Return the function that makes shapely's geometries of a column."""
    if column not in file.schema_arrow.names:
        raise InputError(
            f"{where}: its file has no column {column!r}; it has {', '.join(file.schema_arrow.names)}. Write the "
            "element again with spatialdata"
        )
    described = json.loads((file.schema_arrow.metadata or {}).get(b"geo", b"{}"))
    encoding = described.get("columns", {}).get(column, {}).get("encoding", "WKB")
    if encoding == "WKB":
        return _from_wkb
    raise InputError(
        f"{where}: its geometries are encoded as {encoding}; spatialdata writes WKB. Write the element again with "
        "spatialdata"
    )


def _from_wkb(values: Any) -> NDArray[Any]:
    import shapely

    # NaN is reported with the shapes that are left out
    with np.errstate(invalid="ignore"):
        return np.asarray(shapely.from_wkb(values.to_numpy(zero_copy_only=False), on_invalid="ignore"), object)


def _circles(geometries: NDArray[Any], radius: NDArray[np.float64]) -> NDArray[Any]:
    """Return points with a radius as polygons; other geometries stay."""
    import shapely

    is_circle = (shapely.get_type_id(geometries) == shapely.GeometryType.POINT) & (radius > 0)
    circles = geometries.copy()
    circles[is_circle] = shapely.buffer(geometries[is_circle], radius[is_circle], quad_segs=_SEGMENTS)
    return circles


def _usable(geometries: NDArray[Any]) -> tuple[NDArray[np.int64], dict[str, NDArray[np.int64]]]:
    """Return the positions of polygons and multipolygons, and those of other shapes by the reason."""
    import shapely

    kinds = shapely.get_type_id(geometries)
    is_area = np.isin(kinds, [shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON])
    is_empty = shapely.is_empty(geometries)
    reasons = {
        "missing or damaged": kinds < 0,
        "empty": (kinds >= 0) & is_empty,
        "neither polygons nor circles": (kinds >= 0) & ~is_empty & ~is_area,
    }
    kept = np.flatnonzero(is_area & ~is_empty)
    return kept, {reason: np.flatnonzero(which) for reason, which in reasons.items()}


def _transformed(outlines: Outlines, matrix: NDArray[np.float64]) -> Outlines:
    """Return outlines in pixels of the image, given the matrix for (y, x, 1)."""
    if np.array_equal(matrix, np.eye(3)):
        return outlines
    (a, b, down), (c, d, right) = matrix[:2].tolist()
    x, y = outlines.xy.T
    xy = np.empty_like(outlines.xy)
    # not a matrix product: its threads would take longer than this
    xy[:, 0], xy[:, 1] = d * x + c * y + right, b * x + a * y + down
    return Outlines(xy, *outlines.arrays[1:])
