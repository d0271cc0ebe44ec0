"""The folder of a steinbock run, for made-up samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import tifffile
from made_slide import Slide

CHANNELS = ("DNA1", "CD3", "CD20", "PanCK")


def write_steinbock(folder: Path, samples: Mapping[str, Slide]) -> Path:
    """Write images, masks and the exported table of steinbock."""
    for name in ("ome", "masks_deepcell"):
        (folder / name).mkdir(parents=True)
    tables = []
    for name, slide in samples.items():
        pixels = slide.image.astype(np.float32)
        tifffile.imwrite(
            folder / "ome" / f"{name}.ome.tiff", pixels, metadata={"axes": "CYX", "Channel": {"Name": list(CHANNELS)}}
        )
        tifffile.imwrite(folder / "masks_deepcell" / f"{name}.tiff", slide.cells.astype(np.uint16))
        measured = slide.measured()
        columns = {
            "Image": f"{name}.tiff",
            "image": f"{name}.tiff",
            "area": measured["area"].to_numpy(),
            "centroid-0": measured["y"].to_numpy() - 0.5,
            "centroid-1": measured["x"].to_numpy() - 0.5,
        }
        tables.append(pd.DataFrame(columns, [f"Object {cell}" for cell in measured.index]))
    obs = pd.concat(tables)
    var = pd.DataFrame({"channel": list(CHANNELS)}, list(CHANNELS))
    anndata.AnnData(np.ones((len(obs), len(CHANNELS)), np.float32), obs, var).write_h5ad(folder / "cells.h5ad")
    return folder
