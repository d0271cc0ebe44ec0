"""The flat files and images of a CosMx run, for made-up fields of view."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pandas as pd
import tifffile
from made_slide import Slide
from write_tables import GENES

RUN = "Run5642_S3_Quarter"
ORIGINS = {1: (1_000.0, 2_000.0), 2: (1_230.0, 2_000.0)}
"""Top left corner of each field in the slide, x and y in pixels."""


def write_cosmx(folder: Path, fields: Mapping[int, Slide]) -> Path:
    """Write the folder, and return it. Images have their rows from bottom to top."""
    for name in ("CellComposite", "CellLabels"):
        (folder / name).mkdir(parents=True)
    for fov, slide in fields.items():
        composite = (slide.image[:3] // 256).astype(np.uint8).transpose(1, 2, 0)
        iio.imwrite(folder / "CellComposite" / f"CellComposite_F{fov:03d}.jpg", composite[::-1], quality=95)
        labels = slide.cells.astype(np.uint16)
        tifffile.imwrite(folder / "CellLabels" / f"CellLabels_F{fov:03d}.tif", labels[::-1])
    cells = pd.concat([_cells(fov, slide) for fov, slide in fields.items()])
    cells.to_csv(folder / f"{RUN}_metadata_file.csv", index=False)
    _write_counts(folder / f"{RUN}_exprMat_file.csv", cells)
    positions = {"fov": list(fields), "x_global_px": [ORIGINS[fov][0] for fov in fields]}
    pd.DataFrame(positions | {"y_global_px": [ORIGINS[fov][1] for fov in fields]}).to_csv(
        folder / f"{RUN}_fov_positions_file.csv", index=False
    )
    local = cells.rename(columns=lambda name: name.replace("Center", "").replace("X_", "x_").replace("Y_", "y_"))
    transcripts = local[["fov", "cell_ID", "x_global_px", "y_global_px", "x_local_px", "y_local_px"]]
    transcripts.assign(z=0, target=GENES[0], CellComp="Nuclear").to_csv(folder / f"{RUN}_tx_file.csv", index=False)
    return folder


def _cells(fov: int, slide: Slide) -> pd.DataFrame:
    measured = slide.measured()
    x, y = ORIGINS[fov]
    columns = {
        "fov": fov,
        "cell_ID": measured.index,
        "Area": measured["area"],
        "AspectRatio": 1.0,
        "CenterX_local_px": measured["x"],
        "CenterY_local_px": measured["y"],
        "CenterX_global_px": measured["x"] + x,
        "CenterY_global_px": measured["y"] + y,
        "Mean.DAPI": 100,
    }
    return pd.DataFrame(columns)


def _write_counts(path: Path, cells: pd.DataFrame) -> None:
    """Write counts of each cell, and those outside of cells as cell 0 of each field."""
    background = pd.DataFrame({"fov": cells["fov"].unique(), "cell_ID": 0})
    rows = pd.concat([background, cells[["fov", "cell_ID"]]])
    counts = np.random.default_rng(0).integers(0, 9, (len(rows), len(GENES)))
    rows.assign(**dict(zip(GENES, counts.T, strict=True))).to_csv(path, index=False)
