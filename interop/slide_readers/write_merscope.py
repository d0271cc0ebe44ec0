"""The folder of a MERSCOPE region, for a made-up slide."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import tifffile
from made_slide import Slide
from write_tables import GENES

from outlined import polygons_of

MICRON_TO_PIXEL = np.array([[9.2, 0, 371.5], [0, 9.2, -28.25], [0, 0, 1]])
"""For (x, y, 1)."""

RUN, REGION = "202310261058_Sample_VMSC01", "region_0"
STAINS = ("DAPI", "PolyT", "Cellbound1", "Cellbound2")
FIRST_ID = 2_657_180_801_000_100_000


def entity_ids(n: int) -> np.ndarray:
    """Return ids of cells: 64-bit numbers that float64 can't hold."""
    return FIRST_ID + np.arange(n, dtype=np.int64) * 3 + 1


def write_merscope(folder: Path, slide: Slide) -> Path:
    """Write the folder of the region, and return it."""
    region = folder / RUN / REGION
    (region / "images").mkdir(parents=True)
    for stain, plane in zip(STAINS, slide.image, strict=True):
        tifffile.imwrite(region / "images" / f"mosaic_{stain}_z3.tif", plane, bigtiff=True)
    np.savetxt(region / "images/micron_to_mosaic_pixel_transform.csv", MICRON_TO_PIXEL, delimiter=" ")
    ids = entity_ids(slide.n_cells)
    _write_boundaries(region / "cell_boundaries.parquet", slide, ids)
    _write_tables(region, slide, ids)
    return region


def _write_boundaries(path: Path, slide: Slide, ids: np.ndarray) -> None:
    """Write each cell in seven planes; in the others than the first one, it is smaller."""
    (a, b, c), (d, e, f) = np.linalg.inv(MICRON_TO_PIXEL)[:2].tolist()
    cells = polygons_of(slide.cells).geometry.affine_transform([a, b, d, e, c, f])
    planes = []
    for plane in range(7):
        shapes = cells.buffer(-0.05) if plane else cells
        columns = {
            "ID": np.arange(len(ids)) + plane * len(ids),
            "EntityID": ids,
            "ZIndex": plane,
            "ZLevel": 1.5 * (plane + 1),
            "Type": "cell",
            "Name": None,
            "ParentID": None,
            "ParentType": None,
        }
        multi = [shape if shape.geom_type == "MultiPolygon" else shapely.MultiPolygon([shape]) for shape in shapes]
        planes.append(gpd.GeoDataFrame(columns | {"Geometry": multi}, geometry="Geometry"))
    pd.concat(planes, ignore_index=True).to_parquet(path)


def _write_tables(region: Path, slide: Slide, ids: np.ndarray) -> None:
    measured = slide.measured()
    inverse = np.linalg.inv(MICRON_TO_PIXEL)
    x, y = (measured["x"] * inverse[0, 0] + inverse[0, 2]), (measured["y"] * inverse[1, 1] + inverse[1, 2])
    rng = np.random.default_rng(0)
    counts = pd.DataFrame(rng.integers(0, 9, (len(ids), 4)), pd.Index(ids, name="cell"), [*GENES, "Blank-1"])
    counts.to_csv(region / "cell_by_gene.csv")
    metadata = {"fov": 0, "volume": measured["area"].to_numpy(), "center_x": x.to_numpy(), "center_y": y.to_numpy()}
    pd.DataFrame(metadata, pd.Index(ids, name="EntityID")).to_csv(region / "cell_metadata.csv")
    transcripts = {
        "barcode_id": 1,
        "global_x": x.to_numpy(),
        "global_y": y.to_numpy(),
        "global_z": 0.0,
        "x": 1.0,
        "y": 1.0,
        "fov": 0,
        "gene": GENES[0],
        "transcript_id": "ENST0",
        "cell_id": ids,
    }
    pd.DataFrame(transcripts).to_csv(region / "detected_transcripts.csv")
