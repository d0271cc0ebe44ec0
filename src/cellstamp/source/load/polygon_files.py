"""Files with cells as polygons: GeoJSON, JSON with contours, GeoParquet. The content decides which reader is used."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellstamp.errors import InputError
from cellstamp.source.load.contours import is_contours, read_contours
from cellstamp.source.load.file_kinds import kind_of_file
from cellstamp.source.load.geojson import FileCells, is_geojson, read_geojson
from cellstamp.source.load.polygons import PolygonOptions, Polygons, cells_of_frame
from cellstamp.source.load.rings import shapes_of

if TYPE_CHECKING:
    import geopandas as gpd

_READ = (
    "Read are GeoJSON (QuPath, Baysor, Proseg), JSON with contours (CellViT, HoVer-Net), GeoParquet, and Xenium's "
    "parquet files of vertices"
)
_VERTICES = ("cell_id", "vertex_x", "vertex_y")


def is_polygon_file(path: Path) -> bool:
    """Return whether a file is JSON, JSON that is compressed with gzip, or parquet.

    Raises
    ------
    InputError
        If there is no such file, it is empty, or it can't be read.
    """
    kind = kind_of_file(path)
    return kind in ("JSON", "parquet") or (kind == "gzip" and _start_of_gzip(path).lstrip()[:1] in (b"{", b"["))


def _start_of_gzip(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read(64)
    except (OSError, EOFError, zlib.error):
        return b""


def read_polygon_file(path: Path, role: str, options: PolygonOptions) -> Polygons:
    """Read the cells of a file.

    Parameters
    ----------
    path
        The file; see `is_polygon_file`.
    role
        ``"nucleus"`` or ``"cytosol"``: QuPath's files have both.
    options
        See `PolygonOptions`.

    Raises
    ------
    InputError
        If it is damaged, of another structure, or has no cells.
    """
    where = f"{role} mask {path}"
    if kind_of_file(path) == "parquet":
        return cells_of_frame(_read_parquet(path, where), where, options)
    found = _read_json(path, where, role, options.ids)
    # the reader has put the ids into the index
    return cells_of_frame(found.frame, where, PolygonOptions(options.to_pixels), found.remarks)


def _read_json(path: Path, where: str, role: str, ids: str | None) -> FileCells:
    try:
        read = gzip.decompress if kind_of_file(path) == "gzip" else bytes
        content = json.loads(read(path.read_bytes()))
    except (OSError, EOFError, ValueError, zlib.error, RecursionError) as error:
        raise InputError(f"{where}: cannot be read as JSON: {error}. Write or copy the file again") from error
    if is_geojson(content):
        return read_geojson(content, where, role=role, ids=ids)
    if is_contours(content):
        if ids is not None:
            raise InputError(f"{where}: cells with contours have no property {ids!r} (ids). Leave ids out")
        return read_contours(content, where)
    raise InputError(f"{where}: {_why_not(content)}")


def _why_not(content: Any) -> str:
    if isinstance(content, Mapping) and content and all(map(is_geojson, content.values())):
        planes = ", ".join([str(key) for key in content][:3])
        return (
            f"has polygons for each of {len(content)} planes ({planes}, ...). Load the 2-D file, which Baysor writes "
            "as segmentation_polygons_2d.json"
        )
    named = ", ".join([str(key) for key in content][:5]) if isinstance(content, Mapping) else "a list"
    return f"is JSON without cells that are known here (it has {named or 'nothing'}). {_READ}"


def _read_parquet(path: Path, where: str) -> gpd.GeoDataFrame:
    import geopandas as gpd
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        if b"geo" in (schema.metadata or {}):
            return gpd.read_parquet(path)
        if set(_VERTICES) <= set(schema.names):
            return _of_vertices(pq.read_table(path).to_pandas(), where)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{where}: cannot be read as GeoParquet: {error}. Write or copy the file again") from error
    raise InputError(f"{where}: is parquet without geometries; it has the columns {', '.join(schema.names)}. {_READ}")


def _of_vertices(table: Any, where: str) -> gpd.GeoDataFrame:
    """Return the polygons of a table with a row for each vertex, consecutive by cell, as Xenium writes it.

    A cell may have several nuclei; then ``label_id`` tells them apart.
    """
    import geopandas as gpd

    keys = [name for name in ("cell_id", "label_id") if name in table.columns]
    changes = np.logical_or.reduce([table[key].to_numpy()[1:] != table[key].to_numpy()[:-1] for key in keys])
    first = np.flatnonzero(np.concatenate([[True], changes]))
    xy = table[list(_VERTICES[1:])].to_numpy(np.float64)
    shapes = shapes_of([[[ring]] for ring in np.split(xy, first[1:])])
    cells = gpd.GeoDataFrame(table[keys].iloc[first].reset_index(drop=True), geometry=shapes)
    if cells["cell_id"].map(lambda cell: isinstance(cell, bytes)).all():
        cells["cell_id"] = cells["cell_id"].str.decode("ascii")
    return cells
