"""The folder of a Visium HD run with segmented cells (Space Ranger 4), for a made-up slide."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import imageio.v3 as iio
import numpy as np
import pandas as pd
import tifffile
from made_slide import Slide
from write_tables import write_10x_h5

from outlined import polygons_of

SAMPLE = "Visium_HD_Mouse"
BIN = 4
"""Side of a bin of 2 um in pixels of the full image."""

HIRES, LOWRES = 0.5, 0.25
UM = 0.5


def full_image(slide: Slide) -> np.ndarray:
    """Return the microscope's image (y, x, rgb)."""
    return (slide.image[:3] // 256).astype(np.uint8).transpose(1, 2, 0)


def cell_name(cell: int) -> str:
    return f"cellid_{cell:09d}-1"


def write_visium_hd(folder: Path, slide: Slide) -> Path:
    """Write the folder, and return it."""
    segmented, bins = folder / "segmented_outputs", folder / "binned_outputs/square_002um"
    for each in (segmented / "spatial", bins / "spatial", folder / "microscope_image"):
        each.mkdir(parents=True)
    tifffile.imwrite(folder / "microscope_image/slide.tif", full_image(slide), photometric="rgb")
    _write_spatial(segmented / "spatial", slide)
    _write_feature_slice(folder / f"{SAMPLE}_feature_slice.h5")
    write_10x_h5(segmented / "filtered_feature_cell_matrix.h5", [cell_name(cell + 1) for cell in range(slide.n_cells)])
    _write_geojson(segmented / "cell_segmentations.geojson", slide.cells)
    _write_geojson(segmented / "nucleus_segmentations.geojson", slide.nuclei_by_cell)
    _write_bins(folder / "barcode_mappings.parquet", bins / "filtered_feature_bc_matrix.h5", slide)
    return folder


def _write_spatial(folder: Path, slide: Slide) -> None:
    factors = {
        "tissue_hires_scalef": HIRES,
        "tissue_lowres_scalef": LOWRES,
        "fiducial_diameter_fullres": 80.0,
        "regist_target_img_scalef": HIRES,
        "microns_per_pixel": UM,
    }
    (folder / "scalefactors_json.json").write_text(json.dumps(factors))
    pixels = full_image(slide)
    iio.imwrite(folder / "tissue_hires_image.png", pixels[::2, ::2])
    iio.imwrite(folder / "tissue_lowres_image.png", pixels[::4, ::4])


def _write_feature_slice(path: Path) -> None:
    identity = np.eye(3).ravel().tolist()
    matrices = {
        f"{one}_to_{other}": identity
        for one, other in (
            ("cytassist_colrow", "spot_colrow"),
            ("spot_colrow", "cytassist_colrow"),
            ("microscope_colrow", "spot_colrow"),
            ("spot_colrow", "microscope_colrow"),
        )
    }
    layout = {"transform": identity, "file_format": "1.0", "slide_name": "visium_hd_v1"}
    metadata = {"sample_id": SAMPLE, "transform_matrices": matrices, "hd_layout_json": json.dumps(layout)}
    with h5py.File(path, "w") as file:
        file.attrs["metadata_json"] = json.dumps(metadata)


def _write_geojson(path: Path, mask: np.ndarray) -> None:
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[list(map(float, xy)) for xy in shape.exterior.coords]]},
            "properties": {"cell_id": int(cell)},
        }
        for cell, shape in polygons_of(mask).geometry.items()
        if shape.geom_type == "Polygon"
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def _write_bins(mappings: Path, counts: Path, slide: Slide) -> None:
    rows, columns = np.indices([side // BIN for side in slide.cells.shape]).reshape(2, -1)
    at = rows * BIN + BIN // 2, columns * BIN + BIN // 2
    names = _bin_names(rows, columns, side=2)
    cells = slide.cells[at]
    table = pd.DataFrame(
        {
            "square_002um": names,
            "square_008um": _bin_names(rows // 4, columns // 4, side=8),
            "cell_id": [cell_name(cell) if cell else None for cell in cells],
            "in_nucleus": slide.nuclei_by_cell[at] > 0,
            "in_cell": cells > 0,
        }
    )
    table.to_parquet(mappings, index=False)
    write_10x_h5(counts, names)


def _bin_names(rows: np.ndarray, columns: np.ndarray, *, side: int) -> list[str]:
    return [f"s_{side:03d}um_{row:05d}_{column:05d}-1" for row, column in zip(rows, columns, strict=True)]
