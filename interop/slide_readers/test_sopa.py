"""Cells segmented with sopa, on its toy slide and on vendors' folders that its readers read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import sopa
import spatialdata
import write_merscope
import write_xenium
from comparing_cells import assert_equal_images, extracted, images_by_id, write
from made_slide import Slide
from numpy.typing import NDArray
from scipy.ndimage import label
from spatialdata.models import Labels2DModel, PointsModel, ShapesModel
from spatialdata.transformations import get_transformation


def segment(sdata: Any, key_added: str) -> None:
    """Segment the first channel patch by patch, as sopa's wrappers of Cellpose and StarDist do."""

    def bright(image: NDArray[Any]) -> NDArray[np.int32]:
        return label(image[0] > image[0].mean() + image[0].std())[0]

    sopa.make_image_patches(sdata, patch_width=150, patch_overlap=60)
    channel = sopa.utils.get_channel_names(sdata)[0]
    sopa.segmentation.custom_staining_based(sdata, bright, channel, key_added=key_added, min_area=20)


def assert_as_from_labels(cells: Any, sdata: Any, image: str, shapes: gpd.GeoDataFrame, folder: Path) -> None:
    """Assert images as those of labels of the same cells at the same centres; shapes are in pixels of the image.

    Cells that overlap others are left out: labels cannot have these.
    """
    mask, overlapping = _labels_of(shapes, sopa.utils.get_spatial_image(sdata, image).shape[-2:])
    centers = pd.DataFrame({axis: getattr(shapes.geometry.centroid, axis).to_numpy() - 0.5 for axis in "xy"})
    centers.index += 1
    systems = get_transformation(sdata[image], get_all=True)
    elements = {
        "image": sdata[image],
        "cells": Labels2DModel.parse(mask, dims=("y", "x"), transformations=systems),
        "centers": PointsModel.parse(centers, transformations=systems),
    }
    store = write(spatialdata.SpatialData.init_from_elements(elements), folder / "labels.zarr")
    keys = {"image": "image", "cytosol_labels": "cells", "centers": "centers"}
    expected = images_by_id(extracted(store, folder / "of_labels", **keys))
    found = images_by_id(cells)
    assert len(found) == len(expected)
    alone = {cell: planes for cell, planes in expected.items() if cell not in overlapping}
    names = {shapes.index[cell - 1]: cell for cell in alone}
    own = {name: planes for name, planes in found.items() if name in names}
    assert_equal_images(own, alone, lambda cell: shapes.index[cell - 1], at_least=len(expected) * 3 // 4)
    assert len(expected) > 25


def _labels_of(shapes: gpd.GeoDataFrame, sides: tuple[int, int]) -> tuple[NDArray[np.uint32], set[int]]:
    """Return labels 1, 2, ... of the shapes, and those that share pixels with others."""
    rows, columns = np.indices(sides) + 0.5
    mask, overlapping = np.zeros(sides, np.uint32), set[int]()
    for number, shape in enumerate(shapes.geometry, start=1):
        inside = shapely.contains_xy(shape, columns, rows)
        if others := set(mask[inside].tolist()) - {0}:
            overlapping |= {number, *others}
        mask[inside] = number
    return mask, overlapping


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The toy slide of sopa, segmented and aggregated."""
    sdata = sopa.io.toy_dataset(length=512, cell_density=3e-4)
    segment(sdata, "cellpose_boundaries")
    sopa.aggregate(sdata)
    write(sdata, tmp_path_factory.mktemp("toy") / "toy.zarr")
    return sdata


def test_shapes_and_table(toy: Any, tmp_path: Path) -> None:
    cells = extracted(toy.path, tmp_path / "out", image="image", cytosol_shapes="cellpose_boundaries")
    shapes = toy["cellpose_boundaries"]
    assert_as_from_labels(cells, toy, "image", shapes, tmp_path)
    joined = cells.obs.join(toy["table"].obs.set_index("cell_id"), on="instance_id", rsuffix="_of_table")
    areas = dict(zip(shapes.index, shapes.area, strict=True))
    np.testing.assert_allclose(joined["area"], [areas[name] for name in cells.obs["instance_id"]])


def test_shapes_that_are_not_aggregated(tmp_path: Path) -> None:
    """Their ids have gaps, and are others than after aggregation."""
    sdata = sopa.io.toy_dataset(length=512, cell_density=3e-4)
    segment(sdata, "stardist_boundaries")
    shapes = sdata["stardist_boundaries"]
    assert shapes.index.str.startswith("image").all()
    store = write(sdata, tmp_path / "toy.zarr")
    cells = extracted(store, tmp_path / "out", image="image", cytosol_shapes="stardist_boundaries")
    assert_as_from_labels(cells, sdata, "image", shapes, tmp_path)


@pytest.mark.parametrize("system", [None, "global"])
def test_shapes_in_micrometres(toy: Any, tmp_path: Path, system: str | None) -> None:
    """Baysor and Proseg run on transcripts: sopa gives their shapes the transformations of these."""
    systems = get_transformation(toy["transcripts"], get_all=True)
    (a, b, c), (d, e, f), _ = np.linalg.inv(systems["global"].to_affine_matrix(("x", "y"), ("x", "y"))).tolist()
    # sopa rounds vertices, so that some edges lead through centres of pixels, where rounding errors would decide
    shapes = toy["cellpose_boundaries"].translate(1 / 4096, 1 / 8192).to_frame("geometry")
    moved = gpd.GeoDataFrame(geometry=shapes.geometry.affine_transform([a, b, d, e, c, f]), index=shapes.index)
    sdata = spatialdata.SpatialData.init_from_elements(
        {"image": toy["image"], "baysor_boundaries": ShapesModel.parse(moved, transformations=systems)}
    )
    keys = {"image": "image", "cytosol_shapes": "baysor_boundaries", "coordinate_system": system}
    cells = extracted(write(sdata, tmp_path / "b.zarr"), tmp_path / "out", **keys)
    assert_as_from_labels(cells, toy, "image", shapes, tmp_path)


READERS: dict[str, Callable[[Path, Slide], tuple[Any, str]]] = {
    "xenium": lambda folder, slide: (sopa.io.xenium(write_xenium.write_xenium(folder, slide)), "morphology_focus"),
    "merscope": lambda folder, slide: (
        sopa.io.merscope(write_merscope.write_merscope(folder, slide)),
        f"{write_merscope.RUN}_{write_merscope.REGION}_z3",
    ),
}


@pytest.mark.parametrize("vendor", READERS)
def test_segmented_vendor_folder(tmp_path: Path, slide: Slide, vendor: str) -> None:
    sdata, image = READERS[vendor](tmp_path / "folder", slide)
    segment(sdata, "cellpose_boundaries")
    store = write(sdata, tmp_path / "v.zarr")
    cells = extracted(store, tmp_path / "out", image=image, cytosol_shapes="cellpose_boundaries")
    shapes = sdata["cellpose_boundaries"]
    assert_as_from_labels(cells, sdata, image, shapes, tmp_path)
