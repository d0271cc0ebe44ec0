"""The folder of an MCMICRO run on one slide or on a tissue microarray, for made-up slides."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from made_slide import Slide

SAMPLE = "exemplar-001"
MARKERS = ("DNA_1", "CD45", "KERATIN", "SMA")


def write_mcmicro(folder: Path, slide: Slide) -> Path:
    """Write the folder of a slide."""
    _write_settings(folder, is_array=False)
    _write_image(folder / "registration" / f"{SAMPLE}.ome.tif", slide.image)
    _write_cells(folder, f"unmicst-{SAMPLE}", SAMPLE, slide)
    return folder


def write_mcmicro_array(folder: Path, cores: Mapping[int, Slide], centers: Mapping[int, tuple[float, float]]) -> Path:
    """Write the folder of a tissue microarray; `centers` are those of the cores in the slide, x and y in pixels."""
    _write_settings(folder, is_array=True)
    _write_image(folder / "registration/array.ome.tif", np.zeros((4, 64, 64), np.uint16))
    for core, slide in cores.items():
        _write_image(folder / "dearray" / f"{core}.ome.tif", slide.image)
        _write_mask(folder / "dearray/masks" / f"{core}_mask.tif", slide.cells > 0)
        _write_cells(folder, f"unmicst-{core}", str(core), slide)
    path = folder / "qc/coreograph/centroidsY-X.txt"
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"{centers[core][1]} {centers[core][0]}\n" for core in sorted(cores)))
    return folder


def _write_settings(folder: Path, *, is_array: bool) -> None:
    (folder / "qc").mkdir(parents=True)
    (folder / "qc/params.yml").write_text(f"workflow:\n  tma: {str(is_array).lower()}\n  start-at: registration\n")
    markers = {"channel_number": range(1, len(MARKERS) + 1), "cycle_number": 1, "marker_name": MARKERS}
    pd.DataFrame(markers).to_csv(folder / "markers.csv", index=False)


def _write_cells(folder: Path, segmented: str, sample: str, slide: Slide) -> None:
    """Write masks and the table of measurements."""
    for name, mask in {"cell": slide.cells, "nuclei": slide.nuclei_by_cell}.items():
        _write_mask(folder / "segmentation" / segmented / f"{name}.ome.tif", mask)
    measured = slide.measured()
    columns = {"CellID": measured.index, **dict.fromkeys(MARKERS, 1.0)}
    columns |= {"X_centroid": measured["x"], "Y_centroid": measured["y"], "Area": measured["area"]}
    path = folder / "quantification" / f"{sample}--unmicst_cell.csv"
    path.parent.mkdir(exist_ok=True)
    pd.DataFrame(columns).to_csv(path, index=False)


def _write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(pixels, subifds=1, tile=(64, 64), metadata={"axes": "CYX"})
        file.write(pixels[:, ::2, ::2], subfiletype=1, tile=(64, 64))


def _write_mask(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, mask.astype(np.uint32), metadata={"axes": "YX"})
