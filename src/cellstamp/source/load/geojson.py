"""Cells of GeoJSON, as QuPath, Baysor, Proseg and others write it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cellstamp.errors import InputError
from cellstamp.source.id_columns import GEOJSON_MEMBERS
from cellstamp.source.load.rings import Part, shapes_of

if TYPE_CHECKING:
    import geopandas as gpd

_QUPATH_CLASSES = {
    "PathCellObject": "cell",
    "PathDetectionObject": "detection",
    "PathTileObject": "tile",
    "PathAnnotationObject": "annotation",
    "TMACoreObject": "tma_core",
    "PathRootObject": "root",
}
"""What QuPath before 0.3 wrote as the id of a feature, and the ``objectType`` that it writes since then."""
_QUPATH_KINDS = ("cell", "detection")
"""Types of objects that can be cells; if there are cells, detections are spots inside of them."""
_NUCLEUS = "nucleusGeometry"

Object = Mapping[str, Any]


@dataclass(frozen=True)
class FileCells:
    """Cells of a file.

    Attributes
    ----------
    frame
        Columns: geometry, and properties. Index: ids, or 1, 2, ... if it has none.
    remarks
        Sentences about features that are left out.
    """

    frame: gpd.GeoDataFrame
    remarks: tuple[str, ...] = ()


def is_geojson(content: Any) -> bool:
    """Return whether the content of a JSON file is GeoJSON, or a list of GeoJSON features."""
    first = content[0] if isinstance(content, list) and content else content
    return isinstance(first, Mapping) and first.get("type") in ("FeatureCollection", "Feature", "GeometryCollection")


def read_geojson(content: Any, where: str, *, role: str, ids: str | None = None) -> FileCells:
    """Return the cells of GeoJSON.

    Parameters
    ----------
    content
        A ``FeatureCollection``; a list of features (QuPath); or a ``GeometryCollection`` (Baysor).
    where
        The file, for messages.
    role
        ``"nucleus"`` or ``"cytosol"``. Of QuPath's cells, nuclei are their ``nucleusGeometry``.
    ids
        Property with the ids; None: the first of ``cell``, ``cell_id`` and ``id`` that every feature has.

    Raises
    ------
    InputError
        If it has no cells, or if a feature is invalid.
    """
    features = [_feature(each, where, number) for number, each in enumerate(_features(content))]
    chosen, remarks = _only_cells(features, where)
    if role == "nucleus" and any(_kind(each) == "cell" for each in chosen):
        chosen, without = _nuclei(chosen, where)
        remarks += without
    key, values = _ids(chosen, ids, where)
    if key is None:
        remarks.append(f"{where}: its features have no ids; cells are numbered 1, 2, ... in the order of the file")
    return FileCells(_frame(chosen, values, {key}, where), tuple(remarks))


def _features(content: Any) -> Sequence[Any]:
    if isinstance(content, list):
        return content
    return content.get("features") or content.get("geometries") or ([content] if content["type"] == "Feature" else [])


def _feature(given: Any, where: str, number: int) -> Object:
    """Return a feature, also of a bare geometry with members such as ``cell``."""
    if isinstance(given, Mapping) and given.get("type") == "Feature":
        geometry, properties = given.get("geometry"), given.get("properties")
        if isinstance(geometry, Mapping | None) and isinstance(properties, Mapping | None):
            return given
    elif isinstance(given, Mapping) and ("coordinates" in given or "geometries" in given):
        own = {key: value for key, value in given.items() if key not in ("type", "coordinates", "geometries")}
        return {"geometry": given, "properties": own}
    raise InputError(f"{where}: feature {number} is not a GeoJSON feature. Export the file again")


def _properties(feature: Object) -> Object:
    return feature.get("properties") or {}


def _kind(feature: Object) -> str | None:
    """Return QuPath's type of an object; None: not from QuPath."""
    properties = _properties(feature)
    named = properties.get("objectType", properties.get("object_type"))
    return named if named is not None else _QUPATH_CLASSES.get(str(feature.get("id")))


def _only_cells(features: Sequence[Object], where: str) -> tuple[Sequence[Object], list[str]]:
    """Return the features that are cells; a remark counts the others."""
    kinds = Counter(map(_kind, features))
    if not set(kinds) - {None}:
        return features, []
    wanted = next((kind for kind in _QUPATH_KINDS if kinds[kind]), None)
    counted = {str(kind or "without a type"): count for kind, count in kinds.items() if kind != wanted}
    others = ", ".join(f"{count} {kind}" for kind, count in counted.items())
    if wanted is None:
        raise InputError(
            f"{where}: has objects of QuPath ({others}), but no cell and no detection. Export detections in QuPath. If "
            "each of these objects is one cell, load them with geopandas.read_file, which keeps all of them. Of "
            "CellViT, load its JSON file instead"
        )
    chosen = [feature for feature in features if _kind(feature) == wanted]
    return chosen, [f"{where}: left out objects that are no {wanted}s: {others}"] if others else []


def _nuclei(cells: Sequence[Object], where: str) -> tuple[Sequence[Object], list[str]]:
    """Return QuPath's cells with their nuclei as geometry; a remark counts those without."""
    nuclei: list[Object] = [{**cell, "geometry": cell[_NUCLEUS]} for cell in cells if cell.get(_NUCLEUS) is not None]
    if not nuclei:
        raise InputError(
            f"{where}: has {len(cells)} cells of QuPath, none of them with a nucleus ({_NUCLEUS}). Give the file as "
            "cytosol only"
        )
    n_without = len(cells) - len(nuclei)
    return nuclei, [f"{where}: left out {n_without} of {len(cells)} cells without a nucleus"] if n_without else []


def _ids(features: Sequence[Object], wanted: str | None, where: str) -> tuple[str | None, Sequence[Any]]:
    """Return the name and the values of the member with the ids; None and numbers if there is none."""
    for key in GEOJSON_MEMBERS if wanted is None else (wanted,):
        values = [_properties(each).get(key, each.get(key)) for each in features]
        n_without = sum(value is None or value == "" for value in values)
        if wanted is not None and n_without:
            first = next(number for number, value in enumerate(values) if value is None or value == "")
            known = ", ".join(_properties(features[first])) or "none"
            raise InputError(
                f"{where}: {n_without} of {len(values)} features have no property {wanted!r} (ids), like feature "
                f"{first}, which has {known}"
            )
        if values and not n_without and not set(map(str, values)) & set(_QUPATH_CLASSES):
            return key, values
    return None, range(1, len(features) + 1)


def _frame(features: Sequence[Object], ids: Sequence[Any], without: set[str | None], where: str) -> gpd.GeoDataFrame:
    import geopandas as gpd
    import pandas as pd

    parts = [_parts(feature.get("geometry")) for feature in features]
    try:
        shapes = shapes_of(parts)
    except (TypeError, ValueError, IndexError):
        raise InputError(
            f"{where}: feature {_first_invalid(parts)!r} has coordinates that are not pairs of numbers. Export the "
            "file again"
        ) from None
    # objects keep integers of any size, beside texts
    index = pd.Index(np.array([*ids, None], object)[:-1])
    return gpd.GeoDataFrame(_columns(features, without), geometry=shapes, index=index)


def _first_invalid(cells: Sequence[Sequence[Part]]) -> int:
    for number, cell in enumerate(cells):
        try:
            shapes_of([cell])
        except (TypeError, ValueError, IndexError):
            return number
    return 0


def _parts(geometry: Object | None) -> Sequence[Part]:
    """Return the polygons of a geometry; none if it has no area."""
    kind = None if geometry is None else geometry.get("type")
    if geometry is None or kind not in ("Polygon", "MultiPolygon", "GeometryCollection"):
        return []
    if kind == "GeometryCollection":
        return [part for each in geometry.get("geometries") or () for part in _parts(each)]
    coordinates = geometry.get("coordinates") or []
    return [coordinates] if kind == "Polygon" else coordinates


def _columns(features: Sequence[Object], without: set[str | None]) -> dict[str, list[Any]]:
    """Return the properties that are texts or numbers, and the names of QuPath's classes."""
    columns: dict[str, list[Any]] = {}
    for name in dict.fromkeys(name for feature in features for name in _properties(feature)):
        values = [_plain(_properties(feature).get(name)) for feature in features]
        if name not in {*without, "geometry"} and any(value is not None for value in values):
            columns[name] = values
    return columns


def _plain(value: Any) -> Any:
    """Return a text or number unchanged, and the name of a class; None for all else, such as measurements."""
    if isinstance(value, Mapping):
        value = value.get("name")
    return value if isinstance(value, str | int | float) else None
