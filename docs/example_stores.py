"""Small stores with the elements, ids and transformations of other programs, for the pages about these programs.

The image is scikit-image's sample of stained tissue, with simple masks.
"""

from __future__ import annotations

import json
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata
import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import spatialdata
import tifffile
from numpy.typing import NDArray
from scipy.ndimage import affine_transform
from skimage import filters, segmentation
from skimage.measure import find_contours, regionprops
from spatialdata.models import Image2DModel, Labels2DModel, ShapesModel, TableModel
from spatialdata.transformations import Affine, Identity, Scale, Translation

from cellstamp.demo import load_image

XENIUM_PIXEL = 0.2125
"""Micrometres."""

Pixels = NDArray[Any]
Places = Mapping[str, Any] | None
"""Transformations by coordinate system; None: the identity to "global"."""


# --- tissue, masks and outlines ---------------------------------------------------------------------------------------


def tissue(rows: slice = slice(None), columns: slice = slice(None)) -> tuple[Pixels, Pixels, Pixels, Pixels]:
    """Return a part of the tissue: RGB uint8 (3, y, x), stains uint16 (2, y, x), and the masks of nuclei and cells."""
    rgb, stains = load_image()
    rgb, stains = np.moveaxis(rgb, -1, 0)[:, rows, columns], stains[:, rows, columns]
    nuclei = _nuclei(stains[0])
    return rgb, stains, nuclei, segmentation.expand_labels(nuclei, distance=4)


def _nuclei(stain: Pixels) -> Pixels:
    """Return a mask of the roundish, dark nuclei, with the ids 1, 2, ..."""
    smooth = filters.gaussian(stain, sigma=3)
    mask = segmentation.watershed(-smooth, mask=smooth > filters.threshold_local(smooth, 51))
    regions = [each for each in regionprops(mask, smooth) if 100 <= each.area <= 800 and each.solidity > 0.92]
    kept = [each.label for each in regions if each.intensity_mean > smooth.mean()]
    return segmentation.relabel_sequential(np.where(np.isin(mask, kept), mask, 0))[0]


def outlines(mask: Pixels, ids: Sequence[Any] | None = None) -> gpd.GeoDataFrame:
    """Return a polygon for each cell of a mask, in pixels: pixel 0 is from 0 to 1. The index has the ids."""
    regions = regionprops(mask)
    index = [region.label for region in regions] if ids is None else ids
    return gpd.GeoDataFrame(geometry=[_outline(region) for region in regions], index=list(index))


def _outline(region: Any) -> shapely.Polygon:
    return shapely.Polygon(_contour(region, 0.5) + 0.5).simplify(0.5)


def _contour(region: Any, level: float) -> Pixels:
    """Return the longest contour of a cell as corners x, y; pixel [0, 0] has its centre at (0, 0)."""
    contour = max(find_contours(np.pad(region.image, 1).astype(float), level), key=len)
    top, left = region.bbox[:2]
    return contour[:, ::-1] + [left - 1, top - 1]


def _scaled(shapes: gpd.GeoDataFrame, factor: float) -> gpd.GeoDataFrame:
    return shapes.set_geometry(shapes.geometry.scale(factor, factor, origin=(0, 0)))


def _multi(shapes: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    return shapes.set_geometry([shapely.MultiPolygon([shape]) for shape in shapes.geometry])


def letters(numbers: Sequence[int] | range) -> list[str]:
    """Return ids as Xenium and sopa write them, such as "aaaaaabc-1"."""
    digits = [f"{number:08x}" for number in numbers]
    return ["".join(chr(ord("a") + int(digit, 16)) for digit in each) + "-1" for each in digits]


# --- elements ---------------------------------------------------------------------------------------------------------


def _image(pixels: Pixels, places: Places = None, names: Sequence[str] | None = None) -> Any:
    return Image2DModel.parse(
        pixels, dims=("c", "y", "x"), c_coords=names, transformations=_placed(places), scale_factors=[2]
    )


def _labels(mask: Pixels, places: Places = None) -> Any:
    return Labels2DModel.parse(mask, dims=("y", "x"), transformations=_placed(places), scale_factors=[2])


def _shapes(shapes: gpd.GeoDataFrame, places: Places = None) -> Any:
    return ShapesModel.parse(shapes, transformations=_placed(places))


def _placed(places: Places) -> dict[str, Any]:
    return {"global": Identity()} if places is None else dict(places)


def _affine(matrix: Any) -> Affine:
    return Affine(np.asarray(matrix), ("x", "y"), ("x", "y"))


def _table(obs: pd.DataFrame, regions: str | Sequence[str], instance_key: str, region_key: str = "region") -> Any:
    """Return a table with made-up counts; `regions` names the element of each row, or that of all rows."""
    n_rows = len(obs)
    column = [regions] * n_rows if isinstance(regions, str) else list(regions)
    passes_qc = np.random.default_rng(2).random(n_rows) > 0.3
    obs = obs.assign(**{region_key: pd.Categorical(column), "passes_qc": passes_qc})
    obs.index = obs.index.astype(str)
    counts = np.random.default_rng(0).poisson(3, (n_rows, 4)).astype(np.float32)
    table = anndata.AnnData(counts, obs, pd.DataFrame(index=[f"gene_{gene}" for gene in range(4)]))
    return TableModel.parse(table, region=sorted(set(column)), region_key=region_key, instance_key=instance_key)


def _transcripts(n_cells: int) -> NDArray[np.int64]:
    return np.random.default_rng(1).poisson(150, n_cells)


def _write(path: str | Path, elements: Mapping[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other programs' stores have the names that these warnings are about
        sdata = spatialdata.SpatialData()
        for name, element in elements.items():
            sdata[name] = element
        sdata.write(path, overwrite=True)


# --- SpatialData stores -----------------------------------------------------------------------------------------------


def write_xenium(path: str | Path) -> None:
    """Write a Xenium slide as spatialdata-io does, with an H&E image that was registered in Xenium Explorer."""
    rgb, stains, nuclei, cells = tissue()
    n_cells = cells.max()
    names, micrometres = letters(range(1, n_cells + 1)), {"global": Scale([1 / XENIUM_PIXEL] * 2, axes=("x", "y"))}
    he_image, to_slide = _rotated(rgb)
    nuclei = np.where(nuclei, n_cells + 1 - nuclei, 0).astype(nuclei.dtype)  # Xenium numbers them apart from the cells
    nucleus_boundaries = _scaled(outlines(nuclei), XENIUM_PIXEL).assign(cell_id=names[::-1])
    counts = _transcripts(n_cells)
    obs = pd.DataFrame({"cell_id": names, "transcript_counts": counts, "cell_labels": range(1, n_cells + 1)})
    elements = {
        "morphology_focus": _image(stains, names=["DAPI", "18S"]),
        "he_image": _image(he_image, {"global": _affine(to_slide)}, ["r", "g", "b"]),
        "nucleus_labels": _labels(nuclei),
        "cell_labels": _labels(cells),
        "nucleus_boundaries": _shapes(nucleus_boundaries, micrometres),
        "cell_boundaries": _shapes(_scaled(outlines(cells, names), XENIUM_PIXEL), micrometres),
        "table": _table(obs, "cell_labels", "cell_labels"),
    }
    _write(path, elements)


def _rotated(rgb: Pixels) -> tuple[Pixels, Pixels]:
    """Return the image as another microscope would see it, and the affine matrix (3, 3) from its x, y to the old."""
    angle, size, sides = np.radians(100), 1.2, (500, 500)  # the pixels of the new image are larger
    turn = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = np.array(rgb.shape[:0:-1]) / 2 - turn @ np.array(sides) / 2  # the middle of one image is that of the other
    in_rows = turn[::-1, ::-1]  # for y, x
    offset = shift[::-1] + in_rows @ [0.5, 0.5] - 0.5
    turned = [affine_transform(band, in_rows, offset, sides, order=1, mode="constant", cval=240) for band in rgb]
    return np.stack(turned), np.block([[turn, shift[:, None]], [np.array([0, 0, 1])]])


def write_merscope(path: str | Path, slide: str = "liver_region_0") -> None:
    """Write a region of a MERSCOPE slide as spatialdata-io does."""
    _, stains, _, cells = tissue()
    to_pixels = np.array([[9.26, 0, 365.1], [0, 9.26, -28.4], [0, 0, 1]])
    ids = [2_657_180_801_000_100_000 + cell for cell in range(1, cells.max() + 1)]
    polygons = _multi(outlines(cells, [str(cell) for cell in ids])).assign(EntityID=ids, ZIndex=0)
    a, b, c = np.linalg.inv(to_pixels)[[0, 0, 1], [0, 2, 2]]
    polygons = polygons.set_geometry(polygons.geometry.affine_transform([a, 0, 0, a, b, c]))
    polygons.index.name = "EntityID"
    obs = pd.DataFrame({"EntityID": polygons.index.to_numpy(), "volume": polygons.area.to_numpy() * 10})
    obs.index = polygons.index
    elements = {
        f"{slide}_z3": _image(stains, names=["DAPI", "PolyT"]),
        f"{slide}_polygons": _shapes(polygons, {"global": _affine(to_pixels)}),
        "table": _table(obs, f"{slide}_polygons", "EntityID", "cells_region"),
    }
    _write(path, elements)


def write_cosmx(path: str | Path) -> None:
    """Write two fields of view of a CosMx slide as spatialdata-io does. Ids start at 1 in each."""
    elements: dict[str, Any] = {}
    rows = []
    for number, left in enumerate([0, 256], start=1):
        fov = str(number)
        rgb, stains, _, cells = tissue(slice(0, 256), slice(left, left + 256))
        places = {fov: Identity(), "global": _affine([[1, 0, 9000 + left], [0, 1, 4000], [0, 0, 1]])}
        composite = np.stack([stains[1] // 257, 255 - rgb[1], stains[0] // 257]).astype(np.uint8)
        elements[f"{fov}_image"] = _image(composite, places)
        elements[f"{fov}_labels"] = _labels(cells, places)
        rows.append(pd.DataFrame({"cell_ID": range(1, cells.max() + 1), "fov": fov}))
    obs = pd.concat(rows, ignore_index=True)
    obs["Area"] = _transcripts(len(obs)) * 10
    obs.index = obs["cell_ID"].astype(str) + "_" + obs["fov"]
    elements["table"] = _table(obs, list(obs["fov"] + "_labels"), "cell_ID", "fov_labels")
    _write(path, elements)


def write_visium_hd(path: str | Path, sample: str = "colon") -> None:
    """Write a Visium HD slide with segmented cells and nuclei as spatialdata-io does. It has no system "global"."""
    rgb, _, nuclei, cells = tissue()
    ids = [f"cellid_{cell:09d}-1" for cell in range(1, cells.max() + 1)]
    small, large = Scale([0.5, 0.5], axes=("x", "y")), Scale([2, 2], axes=("x", "y"))
    places = {sample: Identity(), f"{sample}_downscaled_hires": small}
    obs = pd.DataFrame({"cell_id": ids, "transcript_counts": _transcripts(len(ids))})
    elements = {
        f"{sample}_full_image": _image(rgb, {sample: Identity()}),
        f"{sample}_hires_image": _image(rgb[:, ::2, ::2], {sample: large, f"{sample}_downscaled_hires": Identity()}),
    }
    for name, mask in {"cell_segmentations": cells, "nucleus_segmentations": nuclei}.items():
        elements[f"{sample}_{name}"] = _shapes(outlines(mask, ids).assign(cell_id=ids), places)
        elements[name] = _table(obs, f"{sample}_{name}", "cell_id")
    _write(path, elements)


def write_sopa(path: str | Path) -> None:
    """Write a store that sopa has segmented with Cellpose (pixels) and Baysor (micrometres)."""
    _, stains, nuclei, cells = tissue()
    ids, pixel = letters(range(cells.max())), XENIUM_PIXEL
    wider = outlines(segmentation.expand_labels(nuclei, distance=7), ids).iloc[::2]
    polygons = outlines(cells, ids)
    obs = pd.DataFrame({"cell_id": ids, "area": polygons.area.to_numpy(), "slide": "image"}, index=ids)
    elements = {
        "image": _image(stains, names=["DAPI", "CK"]),
        "cellpose_boundaries": _shapes(polygons),
        "baysor_boundaries": _shapes(_scaled(wider, pixel), {"global": Scale([1 / pixel] * 2, axes=("x", "y"))}),
        "table": _table(obs, "cellpose_boundaries", "cell_id"),
    }
    _write(path, elements)


def write_proseg(folder: str | Path) -> None:
    """Write a morphology image, and the store of Proseg 3: ids from 0, micrometres, no image."""
    _, stains, _, cells = tissue()
    ids = np.arange(cells.max(), dtype=np.uint32)
    polygons = _multi(_scaled(outlines(cells, ids), XENIUM_PIXEL))
    obs = pd.DataFrame({"cell": ids, "volume": polygons.area.to_numpy() * 8})
    elements = {"cell_boundaries": _shapes(polygons), "table": _table(obs, "cell_boundaries", "cell")}
    _write(Path(folder) / "proseg-output.zarr", elements)
    _write_ome_tiff(Path(folder) / "morphology_focus.ome.tif", stains, ["DAPI", "18S"], XENIUM_PIXEL)


# --- files ------------------------------------------------------------------------------------------------------------


def _write_ome_tiff(path: Path, pixels: Pixels, names: Sequence[str] | None, size: float | None = None) -> None:
    """Write an image (c, y, x) or a mask (y, x); `size` is the size of its pixels in micrometres."""
    about: dict[str, Any] = {"axes": "CYX"[-pixels.ndim :]}
    if names:
        about["Channel"] = {"Name": list(names)}
    if size:
        about |= {key: value for axis in "XY" for key, value in _physical_size(axis, size).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata=about)


def _physical_size(axis: str, size: float) -> dict[str, Any]:
    return {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}


def write_qupath(folder: str | Path) -> None:
    """Write an OME-TIFF, the objects and measurements that QuPath exports, and the JSON that CellViT writes."""
    folder = Path(folder)
    rgb, _, nuclei, cells = tissue()
    about = {"axes": "YXS", **_physical_size("X", 0.5), **_physical_size("Y", 0.5)}
    tifffile.imwrite(folder / "slide.ome.tif", np.moveaxis(rgb, 0, -1), photometric="rgb", metadata=about)
    random = np.random.default_rng(0)
    ids = [str(uuid.UUID(bytes=random.bytes(16), version=4)) for _ in range(cells.max())]
    inner, outer = outlines(nuclei, ids), outlines(cells, ids)
    features = list(_qupath_cells(inner, outer))
    (folder / "cells.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    table = pd.DataFrame({"Object ID": ids, "Nucleus: Area": inner.area, "Cell: Area": outer.area})
    table.round(2).to_csv(folder / "measurements.tsv", sep="\t", index=False)
    (folder / "cellvit.json").write_text(json.dumps({"type_map": _TYPES, "cells": list(_cellvit_cells(nuclei))}))


def _qupath_cells(nuclei: gpd.GeoDataFrame, cells: gpd.GeoDataFrame) -> Iterator[dict[str, Any]]:
    for cell in cells.index:
        nucleus, outline = (json.loads(shapely.to_geojson(each.geometry[cell])) for each in (nuclei, cells))
        known = {"objectType": "cell", "isLocked": False}
        yield {"type": "Feature", "id": cell, "geometry": outline, "nucleusGeometry": nucleus, "properties": known}


_TYPES = {"1": "Neoplastic", "2": "Inflammatory", "3": "Connective"}


def _cellvit_cells(nuclei: Pixels) -> Iterator[dict[str, Any]]:
    for region in regionprops(nuclei):
        # at this level the contour leads through the outermost pixels, as OpenCV's
        contour = np.round(_contour(region, 0.99)).astype(int).tolist()
        yield {"centroid": list(region.centroid[::-1]), "contour": contour, "type": 1 + region.label % 3}


MARKERS = ["DNA1", "pan-CK"]


def write_mcmicro(folder: str | Path) -> None:
    """Write the folder of an MCMICRO run: registered image, masks of UnMICST, quantification."""
    sample, method = "exemplar-001", "unmicst"
    _, stains, nuclei, cells = tissue()
    folder = Path(folder)
    _write_ome_tiff(folder / f"registration/{sample}.ome.tif", stains, None, 0.65)
    for name, mask in {"nuclei": nuclei, "cell": cells}.items():
        _write_ome_tiff(folder / f"segmentation/{method}-{sample}/{name}.ome.tif", mask.astype(np.int32), None)
    markers = {"channel_number": [1, 2], "cycle_number": [1, 1], "marker_name": MARKERS}
    pd.DataFrame(markers).to_csv(folder / "markers.csv", index=False)
    table = _measured(cells, stains, "CellID", MARKERS)
    (folder / "quantification").mkdir()
    table.to_csv(folder / f"quantification/{sample}--{method}_cell.csv", index=False)


def write_mcmicro_tma(path: str | Path) -> None:
    """Write two cores of a tissue microarray as spatialdata-io reads them from MCMICRO: each has its translation."""
    elements: dict[str, Any] = {}
    for core, left in enumerate([0, 256], start=1):
        _, stains, nuclei, cells = tissue(slice(256, 512), slice(left, left + 256))
        places = {"global": Translation([1000 + 3 * left, 2000], axes=("x", "y"))}
        elements[f"core_{core}_image"] = _image(stains, places, MARKERS)
        elements[f"core_{core}_nuclei"] = _labels(nuclei, places)
        elements[f"core_{core}_cell"] = _labels(cells, places)
    _write(path, elements)


def write_steinbock(folder: str | Path) -> None:
    """Write the folder of a steinbock run on imaging mass cytometry: two images, masks, panel, intensities."""
    folder = Path(folder)
    for name in ("img", "masks", "intensities"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, left in enumerate([0, 256], start=1):
        name = f"patient1_{number:03d}"
        _, stains, _, cells = tissue(slice(256, 512), slice(left, left + 256))
        counts = (stains / 3000).astype(np.float32)
        # axes T, Z, C, Y, X, S, as steinbock writes them
        tifffile.imwrite(folder / f"img/{name}.tiff", counts[None, None, ..., None], imagej=True)
        tifffile.imwrite(
            folder / f"masks/{name}.tiff", cells.astype(np.uint16)[None, None, None, ..., None], imagej=True
        )
        _measured(cells, counts, "Object", MARKERS).to_csv(folder / f"intensities/{name}.csv", index=False)
    panel = {"channel": ["Ir191", "Nd148", "Gd155"], "name": [*MARKERS, "unused"], "keep": [1, 1, 0]}
    pd.DataFrame(panel).to_csv(folder / "panel.csv", index=False)


def _measured(mask: Pixels, image: Pixels, key: str, names: Sequence[str]) -> pd.DataFrame:
    """Return a row for each cell: its id, and the mean of each channel."""
    means = [
        region.image_intensity[region.image].mean(axis=0) for region in regionprops(mask, np.moveaxis(image, 0, -1))
    ]
    return pd.DataFrame(np.round(means, 2), columns=list(names)).assign(**{key: range(1, mask.max() + 1)})
