"""Files with polygons of cells, as QuPath, CellViT, Baysor, Proseg and Xenium write them, loaded into a project."""

from __future__ import annotations

import gzip
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from cellstamp import Project
from cellstamp.errors import InputError
from cellstamp.source.load.polygon_files import read_polygon_file
from cellstamp.source.load.polygons import PolygonOptions, Polygons

SQUARE, OTHER, INNER = shapely.box(10, 20, 30, 40), shapely.box(50, 20, 75, 44), shapely.box(14, 24, 20, 30)
IMAGE = np.arange(60 * 90, dtype=np.uint16).reshape(1, 60, 90)

Feature = dict[str, Any]


def feature(shape: Any, **members: Any) -> Feature:
    return {"type": "Feature", "geometry": json.loads(shapely.to_geojson(shape)), "properties": {}} | members


def collection(*features: Feature) -> Feature:
    return {"type": "FeatureCollection", "features": list(features)}


def read(path: Path, content: Any, role: str = "cytosol", **options: Any) -> Polygons:
    path.write_text(json.dumps(content))
    return read_polygon_file(path, role, PolygonOptions(**options))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cells.any"


def shapes_of(cells: Polygons) -> dict[Any, Any]:
    return dict(zip(cells.frame.index.tolist(), cells.frame.geometry, strict=True))


def assert_shapes(cells: Polygons, expected: dict[Any, Any]) -> None:
    found = shapes_of(cells)
    assert list(found) == list(expected)
    for cell, shape in expected.items():
        assert found[cell].equals_exact(shape, 0), cell


# --- QuPath -----------------------------------------------------------------------------------------------------------

UUIDS = ["4e2a9c5e-7f19-4a7e-8a43-6f8c2d1b0a01", "4e2a9c5e-7f19-4a7e-8a43-6f8c2d1b0a02"]


def qupath_cells(**first: Any) -> list[Feature]:
    """Cells as QuPath 0.4 and later write them."""
    properties = {
        "objectType": "cell",
        "classification": {"name": "Tumor", "color": [200, 0, 0]},
        "measurements": {"Nucleus: Area": 36.0},
    }
    geometry = json.loads(shapely.to_geojson(INNER))
    return [
        feature(SQUARE, id=UUIDS[0], nucleusGeometry=geometry, properties=properties) | first,
        feature(OTHER, id=UUIDS[1], properties={"objectType": "cell"}),
    ]


def test_cells_of_qupath_and_their_nuclei(path: Path) -> None:
    content = collection(*qupath_cells())
    cells = read(path, content)
    assert_shapes(cells, dict(zip(UUIDS, (SQUARE, OTHER), strict=True)))
    assert cells.frame["classification"].iloc[0] == "Tumor"
    assert pd.isna(cells.frame["classification"].iloc[1])
    assert cells.remarks == ()
    nuclei = read(path, content, "nucleus")
    assert_shapes(nuclei, {UUIDS[0]: INNER})
    assert nuclei.remarks == (f"nucleus mask {path}: left out 1 of 2 cells without a nucleus",)


@pytest.mark.parametrize("wrap", [collection, lambda *features: list(features)])
def test_annotations_and_spots_beside_cells_are_counted(path: Path, wrap: Callable[..., Any]) -> None:
    others = [
        feature(shapely.box(0, 0, 90, 60), id="a", properties={"objectType": "annotation"}),
        feature(shapely.Point(12, 22), id="b", properties={"objectType": "detection"}),
        feature(shapely.Point(13, 22), id="c", properties={"objectType": "detection"}),
    ]
    cells = read(path, wrap(others[0], *qupath_cells(), *others[1:]))
    assert_shapes(cells, dict(zip(UUIDS, (SQUARE, OTHER), strict=True)))
    (remark,) = cells.remarks
    assert remark == f"cytosol mask {path}: left out objects that are no cells: 1 annotation, 2 detection"


def test_detections_are_cells_if_there_are_no_others(path: Path) -> None:
    detections = [feature(SQUARE, id=UUIDS[0], properties={"objectType": "detection"})]
    assert_shapes(read(path, collection(*detections), "nucleus"), {UUIDS[0]: SQUARE})


@pytest.mark.parametrize("key", ["object_type", "objectType"])
def test_names_of_the_type_in_all_versions(path: Path, key: str) -> None:
    features = [
        feature(SQUARE, properties={key: "cell"}),
        feature(OTHER, properties={key: "annotation"}),
    ]
    cells = read(path, collection(*features))
    assert_shapes(cells, {1: SQUARE})


def test_classes_that_qupath_once_wrote_as_ids(path: Path) -> None:
    features = [
        feature(SQUARE, id="PathCellObject"),
        feature(OTHER, id="PathCellObject"),
        feature(INNER, id="PathAnnotationObject"),
    ]
    cells = read(path, features)
    assert_shapes(cells, {1: SQUARE, 2: OTHER})
    assert "left out objects that are no cells: 1 annotation" in cells.remarks[0]
    assert "have no ids; cells are numbered 1, 2, ..." in cells.remarks[1]


def test_a_file_of_annotations_only(path: Path) -> None:
    content = collection(feature(SQUARE, properties={"objectType": "annotation"}))
    with pytest.raises(InputError, match=r"objects of QuPath \(1 annotation\), but no cell .* geopandas.read_file"):
        read(path, content)


def test_cells_of_qupath_without_any_nucleus(path: Path) -> None:
    with pytest.raises(InputError, match=r"has 2 cells of QuPath, none of them with a nucleus .* as cytosol only"):
        read(path, collection(*[{**each, "nucleusGeometry": None} for each in qupath_cells()]), "nucleus")


# --- Baysor and Proseg ------------------------------------------------------------------------------------------------


def test_a_geometry_collection_of_baysor(path: Path) -> None:
    geometries = [{**json.loads(shapely.to_geojson(shape)), "cell": cell} for cell, shape in ((7, SQUARE), (3, OTHER))]
    geometries.append({"type": "Polygon", "coordinates": [[[1, 1], [2, 2]]], "cell": 9})
    cells = read(path, {"type": "GeometryCollection", "geometries": geometries})
    assert_shapes(cells, {7: SQUARE, 3: OTHER})
    assert cells.remarks == (f"cytosol mask {path}: left out 1 of 3 features, without a geometry, like 9",)


def test_features_of_baysor(path: Path) -> None:
    cells = read(path, collection(feature(SQUARE, id="CRa1-1"), feature(OTHER, id="CRa1-2")))
    assert_shapes(cells, {"CRa1-1": SQUARE, "CRa1-2": OTHER})


def test_planes_of_baysor(path: Path) -> None:
    planes = {z: {"type": "GeometryCollection", "geometries": []} for z in ("0.0", "1.0")}
    with pytest.raises(InputError, match=r"each of 2 planes \(0.0, 1.0, ...\)\. Load the 2-D file"):
        read(path, planes)


def proseg(path: Path, *cells: tuple[int, Any]) -> Path:
    features = [feature(shapely.MultiPolygon([shape]), properties={"cell": cell}) for cell, shape in cells]
    path.write_bytes(gzip.compress(json.dumps(collection(*features)).encode()))
    return path


def test_proseg(path: Path) -> None:
    cells = read_polygon_file(proseg(path, (0, SQUARE), (4, OTHER)), "cytosol", PolygonOptions())
    assert_shapes(cells, {0: SQUARE, 4: OTHER})


def test_layers_of_proseg(path: Path) -> None:
    with pytest.raises(InputError, match=r"the id 0 is repeated; .* planes or layers, load one"):
        read_polygon_file(proseg(path, (0, SQUARE), (0, OTHER)), "cytosol", PolygonOptions())


# --- CellViT and HoVer-Net --------------------------------------------------------------------------------------------

CONTOURS = {
    "square": ([[4, 3], [4, 6], [9, 6], [9, 3]], [(y, x) for y in range(3, 7) for x in range(4, 10)]),
    "diamond": (
        [[5, 2], [3, 4], [5, 6], [7, 4]],
        [(y, x) for y in range(9) for x in range(12) if abs(y - 4) + abs(x - 5) <= 2],
    ),
    "line": ([[2, 5], [8, 5], [2, 5]], []),
    "thin": ([[2, 5], [8, 5], [8, 6]], [*[(5, x) for x in range(2, 9)], (6, 8)]),
}


@pytest.mark.parametrize("name", ["square", "diamond", "thin"])
def test_a_contour_has_the_pixels_it_leads_through(path: Path, name: str) -> None:
    contour, pixels = CONTOURS[name]
    cells = read(path, {"cells": [{"contour": contour, "centroid": [5, 4], "type": 1}]})
    y, x = np.mgrid[:12, :14] + 0.5
    found = shapely.contains_xy(cells.frame.geometry.iloc[0], x, y)
    assert list(zip(*np.nonzero(found), strict=True)) == sorted(pixels)


def cellvit(**members: Any) -> dict[str, Any]:
    square, diamond = CONTOURS["square"][0], CONTOURS["diamond"][0]
    cells = [
        {"bbox": [[3, 4], [6, 9]], "centroid": [6.5, 4.5], "contour": square, "type_prob": 0.9, "type": 1},
        {"bbox": [[1, 1], [1, 1]], "centroid": [1, 1], "contour": [[1, 1]], "type_prob": 0.9, "type": 2},
        {"bbox": [[2, 3], [6, 7]], "centroid": [5, 4], "contour": diamond, "type_prob": 0.9, "type": 2},
    ]
    return {"wsi_metadata": {}, "type_map": {"1": "Neoplastic", "2": "Inflammatory"}, "cells": cells} | members


@pytest.mark.parametrize("content", [cellvit(), cellvit()["cells"]])
def test_cellvit(path: Path, content: Any) -> None:
    cells = read(path, content)
    assert cells.frame.index.tolist() == [1, 3]
    names = ["Neoplastic", "Inflammatory"] if isinstance(content, dict) else ["1", "2"]
    assert cells.frame["type"].tolist() == names
    assert cells.remarks == (f"cytosol mask {path}: left out 1 of 3 features, without a geometry, like 2",)


def test_hovernet(path: Path) -> None:
    square = CONTOURS["square"][0]
    cells = read(path, {"mag": 40, "nuc": {"5": {"contour": square, "type": None}, "2": {"contour": square}}})
    assert cells.frame.index.tolist() == [5, 2]


def test_the_detection_of_cellvit(path: Path) -> None:
    with pytest.raises(InputError, match=r"its 1 cells have no 'contour'. Of CellViT, load the file of the seg"):
        read(path, {"cells": [{"bbox": [[1, 1], [2, 2]], "centroid": [1, 1], "type": 2}]})


# --- parquet ----------------------------------------------------------------------------------------------------------


def test_geoparquet(path: Path) -> None:
    frame = gpd.GeoDataFrame({"EntityID": ["a", "b"]}, geometry=[SQUARE, OTHER])
    frame.to_parquet(path)
    assert_shapes(read_polygon_file(path, "cytosol", PolygonOptions()), {"a": SQUARE, "b": OTHER})
    frame.set_index("EntityID").to_parquet(path)
    assert_shapes(read_polygon_file(path, "cytosol", PolygonOptions()), {"a": SQUARE, "b": OTHER})


@pytest.mark.parametrize("several", [False, True])
def test_vertices_of_xenium(path: Path, several: bool) -> None:  # noqa: FBT001
    names = ["aaaaficg-1", "aaaaficg-1" if several else "aaabbaka-1"]
    rows = [
        {"cell_id": name, "vertex_x": x, "vertex_y": y, "label_id": label}
        for label, (name, shape) in enumerate(zip(names, (SQUARE, OTHER), strict=True), start=1)
        for x, y in shapely.get_coordinates(shape)
    ]
    pd.DataFrame(rows).to_parquet(path)
    cells = read_polygon_file(path, "nucleus", PolygonOptions())
    assert [shape.equals(each) for shape, each in zip(cells.frame.geometry, (SQUARE, OTHER), strict=True)] == [True] * 2
    assert cells.frame.index.tolist() == ([0, 1] if several else names)
    assert not several or cells.frame["cell_id"].tolist() == names


def test_parquet_without_geometries(path: Path) -> None:
    pd.DataFrame({"a": [1]}).to_parquet(path)
    with pytest.raises(InputError, match=r"is parquet without geometries; it has the columns a. Read are GeoJSON"):
        read_polygon_file(path, "cytosol", PolygonOptions())


# --- ids and features -------------------------------------------------------------------------------------------------


BOW_TIE = shapely.Polygon([(2, 2), (9, 9), (9, 2), (2, 9)])  # its lobes cancel


def test_features_that_are_no_areas_are_counted_and_named(path: Path) -> None:
    shapes = {
        "ok": SQUARE,
        "point": shapely.Point(1, 1),
        "line": shapely.LineString([(0, 0), (1, 1)]),
        "flat": shapely.Polygon([(0, 0), (1, 1), (2, 2)]),
        "bow tie": BOW_TIE,
        "mixed": shapely.GeometryCollection([OTHER, shapely.Point(0, 0)]),
    }
    features = [feature(shape, id=name) for name, shape in shapes.items()]
    features.append({"type": "Feature", "id": "none", "geometry": None, "properties": None})
    cells = read(path, collection(*features))
    assert_shapes(cells, {"ok": SQUARE, "bow tie": BOW_TIE, "mixed": OTHER})
    begin = f"cytosol mask {path}: left out"
    assert cells.remarks == (
        f"{begin} 3 of 7 features, without a geometry, like 'point'",
        f"{begin} 1 of 7 features, without an area, like 'flat'",
    )


def test_no_feature_is_an_area(path: Path) -> None:
    with pytest.raises(InputError, match=r"no polygon that can be a cell \(left out 1 of 1 features, .* like 'p'\)"):
        read(path, collection(feature(shapely.Point(1, 1), id="p")))


def test_holes_and_a_third_coordinate(path: Path) -> None:
    ring = shapely.Polygon(SQUARE.exterior, [INNER.exterior])
    with_z = shapely.force_3d(ring, 5.0)
    assert_shapes(read(path, collection(feature(with_z, id=1))), {1: ring})


def test_the_property_with_the_ids_can_be_named(path: Path) -> None:
    content = collection(feature(SQUARE, id="x", properties={"number": 12}), feature(OTHER, properties={"number": 3}))
    assert_shapes(read(path, content, ids="number"), {12: SQUARE, 3: OTHER})
    with pytest.raises(InputError, match=r"1 of 2 features have no property 'id' .* like feature 1, which has number"):
        read(path, content, ids="id")
    assert_shapes(read(path, content), {1: SQUARE, 2: OTHER})


def test_coordinates_that_are_no_numbers(path: Path) -> None:
    broken = {"type": "Polygon", "coordinates": [[[0, 0], ["a", 1], [2, 2], [0, 0]]]}
    with pytest.raises(InputError, match="feature 1 has coordinates that are not pairs of numbers"):
        read(path, collection(feature(SQUARE), feature(OTHER, geometry=broken)))


def test_a_feature_that_is_none(path: Path) -> None:
    with pytest.raises(InputError, match=r"feature 1 is not a GeoJSON feature. Export the file again"):
        read(path, collection(feature(SQUARE), {"type": "Cell"}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"type": "FeatureCollection", "features": [', "cannot be read as JSON: .* Write or copy the file again"),
        (gzip.compress(b'{"type": "FeatureCollection"' + b" " * 99, mtime=0)[:-9], "cannot be read as JSON"),
        (b'{"shapes": [], "version": 1}', r"JSON without cells that are known here \(it has shapes, version\)"),
        (b"[]", r"JSON without cells .*\(it has a list\)"),
        (b"PAR1 broken", "cannot be read as GeoParquet"),
    ],
)
def test_damaged_and_other_files(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_polygon_file(path, "cytosol", PolygonOptions())


# --- into a project ---------------------------------------------------------------------------------------------------


def test_a_file_for_both_masks_of_a_project(tmp_path: Path, path: Path) -> None:
    path.write_text(json.dumps(collection(*qupath_cells())))
    project = Project(tmp_path / "project", {"threads": 1, "image_size": 28, "progress": False})
    project.load_input_from_array(IMAGE)
    with pytest.warns(UserWarning, match="left out 1 of 2 cells without a nucleus"):
        project.load_segmentation(nucleus=path, cytosol=path)
    project.extract()
    cells = project.h5sc
    assert cells.obs["instance_id"].tolist() == [UUIDS[0]]
    # the centre of the nucleus, whose pixels are columns 14 to 19 and rows 24 to 29
    np.testing.assert_allclose(cells.obsm["spatial"], [[16.5, 26.5]])
    log = Path(project.directory, "processing.log").read_text()
    assert "left out 1 of 2 cells without a nucleus" in log


def test_micrometres_of_a_file(tmp_path: Path, path: Path) -> None:
    micrometres = shapely.transform(np.array([SQUARE, OTHER]), lambda xy: xy * 0.5)
    proseg(path, *enumerate(micrometres))
    project = Project(tmp_path / "project", {"threads": 1, "image_size": 26, "progress": False})
    project.load_input_from_array(IMAGE)
    project.load_segmentation(cytosol=path, pixel_size=0.5)
    project.extract()
    np.testing.assert_allclose(project.h5sc.obsm["spatial"], [[19.5, 29.5], [62, 31.5]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = project.sdata["seg_all_cytosol"]
    assert shapes.geometry.iloc[0].equals(micrometres[0])
