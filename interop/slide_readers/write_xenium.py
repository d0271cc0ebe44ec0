"""The folder of a Xenium run (Xenium Onboard Analysis 3), for a made-up slide."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import tifffile
import zarr
from made_slide import Slide
from numpy.typing import NDArray
from write_tables import GENES, write_10x_h5

from outlined import polygons_of

UM = 0.2125
"""Micrometres per pixel."""

HE_TO_FOCUS = np.array([[0, -0.5, 180], [0.5, 0, 4], [0, 0, 1]], float)
"""From pixels of the H&E image to those of the focus image, for (x, y, 1): turned, at twice the resolution."""

STAINS = ("DAPI", "ATP1A1/CD45/E-Cadherin", "18S", "AlphaSMA/Vimentin")


def cell_names(n: int) -> list[str]:
    """Return ids of cells: a number in hexadecimal with the digits a to p, and the number of the dataset."""
    return [f"{''.join(chr(ord('a') + int(digit, 16)) for digit in f'{prefix:08x}')}-1" for prefix in _prefixes(n)]


def write_xenium(folder: Path, slide: Slide) -> Path:
    """Write the folder, and return it."""
    (folder / "morphology_focus").mkdir(parents=True)
    specs = {
        "major_version": 7,
        "minor_version": 0,
        "run_name": "made up",
        "region_name": "region",
        "analysis_sw_version": "xenium-3.0.0.15",
        "pixel_size": UM,
        "num_cells": slide.n_cells,
        "xenium_ranger": None,
    }
    (folder / "experiment.xenium").write_text(json.dumps(specs))
    _write_focus(folder / "morphology_focus", slide.image)
    _write_cells_zarr(folder / "cells.zarr.zip", slide)
    names = np.array(cell_names(slide.n_cells))
    _write_boundaries(folder / "cell_boundaries.parquet", polygons_of(slide.cells), names)
    _write_boundaries(folder / "nucleus_boundaries.parquet", polygons_of(slide.nuclei), names[slide.owners - 1])
    _write_cells(folder / "cells.parquet", slide, names)
    _write_transcripts(folder / "transcripts.parquet", slide, names)
    write_10x_h5(folder / "cell_feature_matrix.h5", names.tolist())
    _write_h_and_e(folder, slide)
    return folder


def on_h_and_e(planes: NDArray[Any]) -> NDArray[Any]:
    """Return planes (..., y, x) of the focus image at the pixels of the H&E image; 0 outside."""
    rows, columns = np.mgrid[:320, :340] + 0.5
    x, y = np.tensordot(HE_TO_FOCUS[:2, :2], [columns, rows], axes=1) + HE_TO_FOCUS[:2, 2, None, None]
    inside = (x >= 0) & (x < planes.shape[-1]) & (y >= 0) & (y < planes.shape[-2])
    at = np.floor(np.where(inside, y, 0)).astype(int), np.floor(np.where(inside, x, 0)).astype(int)
    return np.where(inside, planes[..., *at], 0)


def h_and_e(slide: Slide) -> NDArray[np.uint8]:
    """Return the H&E image (rgb, y, x) of the slide: quarters of the focus image's pixels."""
    return on_h_and_e((slide.image[:3] // 256).astype(np.uint8))


def _prefixes(n: int) -> NDArray[np.uint32]:
    """Return a number for each cell; they have no order."""
    return np.random.default_rng(3).permutation(2**20)[:n].astype(np.uint32) * 977


def _write_focus(folder: Path, image: NDArray[np.uint16]) -> None:
    """Write a channel per file, with a pyramid; each has the metadata of all."""
    names = [f"morphology_focus_{channel:04d}.ome.tif" for channel in range(len(image))]
    ids = [uuid.uuid4().urn for _ in names]
    planes = "".join(
        f'<TiffData FirstC="{channel}" FirstT="0" FirstZ="0" IFD="0" PlaneCount="1">'
        f'<UUID FileName="{name}">{of_file}</UUID></TiffData>'
        for channel, (name, of_file) in enumerate(zip(names, ids, strict=True))
    )
    channels = "".join(
        f'<Channel ID="Channel:{channel}" Name="{stain}" SamplesPerPixel="1"/>' for channel, stain in enumerate(STAINS)
    )
    for name, of_file, plane in zip(names, ids, image, strict=True):
        description = (
            '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="{of_file}"><Image ID="Image:0" Name="Image0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
            f'Type="uint16" SizeX="{image.shape[2]}" SizeY="{image.shape[1]}" SizeZ="1" SizeC="{len(image)}" SizeT="1" '
            f'PhysicalSizeX="{UM}" PhysicalSizeY="{UM}">{channels}{planes}</Pixels></Image></OME>'
        )
        with tifffile.TiffWriter(folder / name) as file:
            file.write(plane, subifds=1, tile=(64, 64), description=description, metadata=None)
            file.write(plane[::2, ::2], subfiletype=1, tile=(64, 64), metadata=None)


def _write_cells_zarr(path: Path, slide: Slide) -> None:
    owners = {"0": slide.owners - 1, "1": np.arange(slide.n_cells)}
    measured = slide.measured()
    counts = np.bincount(slide.owners, minlength=slide.n_cells + 1)[1:]
    columns = {
        "cell_centroid_x": measured["x"] * UM,
        "cell_centroid_y": measured["y"] * UM,
        "cell_area": measured["area"] * UM**2,
        "nucleus_centroid_x": measured["x"] * UM,
        "nucleus_centroid_y": measured["y"] * UM,
        "nucleus_area": 0,
        "z_level": 3,
        "nucleus_count": counts,
    }
    with zarr.storage.ZipStore(path, mode="w") as store:
        root = zarr.create_group(store, zarr_format=2, attributes={"major_version": 6, "number_cells": slide.n_cells})
        root["cell_id"] = np.stack([_prefixes(slide.n_cells), np.ones(slide.n_cells)], axis=1).astype(np.uint32)
        summary = pd.DataFrame(columns, index=measured.index).to_numpy(np.float64)
        root.create_array("cell_summary", data=summary, attributes={"column_names": list(columns)})
        masks = root.create_group("masks")
        for name, mask in {"0": slide.nuclei, "1": slide.cells}.items():
            masks.create_array(name, data=mask, chunks=(64, 64))
            root.create_array(f"polygon_sets/{name}/cell_index", data=owners[name].astype(np.uint32))


def _write_boundaries(path: Path, polygons: gpd.GeoDataFrame, names: NDArray[np.str_]) -> None:
    """Write a row per vertex, in micrometres: float32, as Xenium does."""
    corners, owner = shapely.get_coordinates(shapely.get_exterior_ring(polygons.geometry.array), return_index=True)
    x, y = (corners * UM).astype(np.float32).T
    rows = {"cell_id": names[owner], "vertex_x": x, "vertex_y": y, "label_id": polygons.index.to_numpy(np.int32)[owner]}
    pd.DataFrame(rows).to_parquet(path, index=False)


def _write_cells(path: Path, slide: Slide, names: NDArray[np.str_]) -> None:
    measured = slide.measured()
    table = {
        "cell_id": names,
        "x_centroid": (measured["x"] * UM).to_numpy(),
        "y_centroid": (measured["y"] * UM).to_numpy(),
        "transcript_counts": np.arange(slide.n_cells),
        "control_probe_counts": 0,
        "control_codeword_counts": 0,
        "unassigned_codeword_counts": 0,
        "deprecated_codeword_counts": 0,
        "total_counts": np.arange(slide.n_cells),
        "cell_area": (measured["area"] * UM**2).to_numpy(),
        "nucleus_area": 0.0,
        "nucleus_count": np.bincount(slide.owners, minlength=slide.n_cells + 1)[1:],
        "segmentation_method": "Segmented by boundary stain (ATP1A1+CD45+E-Cadherin)",
    }
    pd.DataFrame(table).to_parquet(path, index=False)


def _write_transcripts(path: Path, slide: Slide, names: NDArray[np.str_]) -> None:
    measured = slide.measured()
    n = len(measured)
    table = {
        "transcript_id": np.arange(n, dtype=np.uint64),
        "cell_id": names,
        "overlaps_nucleus": np.ones(n, np.uint8),
        "feature_name": [GENES[number % len(GENES)] for number in range(n)],
        "x_location": (measured["x"] * UM).to_numpy(np.float32),
        "y_location": (measured["y"] * UM).to_numpy(np.float32),
        "z_location": np.full(n, 15, np.float32),
        "qv": np.full(n, 40, np.float32),
        "fov_name": "A1",
        "nucleus_distance": np.zeros(n, np.float32),
        "codeword_index": np.arange(n, dtype=np.int32),
    }
    pd.DataFrame(table).to_parquet(path, index=False)


def _write_h_and_e(folder: Path, slide: Slide) -> None:
    pixels = h_and_e(slide).transpose(1, 2, 0)
    tifffile.imwrite(folder / "made_up_he_image.ome.tif", pixels, photometric="rgb", metadata={"axes": "YXS"})
    np.savetxt(folder / "made_up_he_imagealignment.csv", HE_TO_FOCUS, delimiter=",")
