"""Measure the cells of a sample once, with one tool: ``python benchmarks/feature_tools.py TOOL SAMPLE FOLDER``.

Run it with the Python of the tool's environment; so it imports nothing from this package. The last line is JSON:
numbers of cells and features, and seconds and CPU seconds of measuring, without imports.

Each tool runs in one process. It reads image and masks from the sample's store. Only CellFeaturizer reads single-cell
images.
"""

import contextlib
import importlib
import json
import logging
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

MASKS = ("nucleus", "cytosol")
SHAPES = (
    *("area", "perimeter", "axis_major_length", "axis_minor_length", "eccentricity", "orientation", "extent"),
    *("equivalent_diameter_area", "solidity", "bbox", "centroid"),
)
VALUES = ("intensity_mean", "intensity_std", "intensity_min", "intensity_max")
SHARES = (0.05, 0.25, 0.75, 0.95)
CROP = 128

Seen = dict[str, float]


class Clock:
    """Seconds, and CPU seconds of this process, since it was made."""

    def __init__(self) -> None:
        self._started, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> Seen:
        """Return the times until now."""
        return {"seconds": time.perf_counter() - self._started, "cpu_seconds": time.process_time() - self._cpu}


def extract(sample: Path, folder: Path, **keys: Any) -> Seen:
    """Run an extraction of cellstamp; without features, only its time is of interest."""
    from cellstamp import HDF5CellExtraction

    names = {"image": "image", "nucleus_labels": "nucleus", "cytosol_labels": "cytosol"}
    config = _extraction(folder) | {"progress": False} | names | keys
    clock = Clock()
    step = HDF5CellExtraction(config, str(folder / "out"), filehandler=str(sample / "sample.zarr"))
    step()
    return clock.read() | _size_of(folder / "out")


def _extraction(folder: Path) -> dict[str, Any]:
    """Return the settings of an extraction of all cells."""
    return {"threads": 1, "image_size": CROP, "border": "pad", "cache": str(folder / "cache")}


def _size_of(folder: Path) -> Seen:
    import anndata

    for path in folder.rglob("features.h5ad"):
        n_cells, n_features = anndata.read_h5ad(path, backed="r").shape
        return {"cells": n_cells, "features": n_features}
    return {"cells": 0, "features": 0}


def measure_only(sample: Path, folder: Path) -> Seen:
    """Measure with cellstamp, without single-cell images."""
    return extract(sample, folder, features=True, images=False)


def measure_beside_images(sample: Path, folder: Path) -> Seen:
    """Measure with cellstamp, beside single-cell images."""
    return extract(sample, folder, features=True)


def regionprops(sample: Path, _folder: Path) -> Seen:
    """Measure the complete image with scikit-image: shapes of two masks, and values in three compartments."""
    import numpy as np
    import spatialdata
    from skimage.measure import regionprops_table

    def total(mask: Any, image: Any) -> Any:
        return image[mask].sum(axis=0, dtype=np.float64)

    def quantiles(mask: Any, image: Any) -> Any:
        return np.quantile(image[mask], (0.5, *SHARES), axis=0)

    clock = Clock()
    stored = spatialdata.read_zarr(sample / "sample.zarr")
    image = np.moveaxis(np.asarray(stored["image"]["scale0"]["image"].data), 0, -1)
    nucleus, cell = (np.asarray(stored[name].data) for name in MASKS)
    options = {"properties": VALUES, "extra_properties": (total, quantiles)}
    tables = [regionprops_table(mask, properties=SHAPES) for mask in (nucleus, cell)]
    # the cytoplasm: the cell without its nucleus
    tables += [regionprops_table(mask, image, **options) for mask in (nucleus, cell, np.where(nucleus, 0, cell))]
    return clock.read() | {"cells": len(tables[0]["area"]), "features": sum(map(len, tables))}


def squidpy(sample: Path, _folder: Path) -> Seen:
    """Measure two masks with squidpy's experimental function; it has neither quantiles nor sums, and no cytoplasm."""
    import spatialdata
    from squidpy.experimental.im import calculate_image_features

    shapes = (name for name in SHAPES if name not in ("orientation", "bbox"))  # squidpy lacks these
    names = [*(f"skimage:morphology:{name}" for name in shapes), *(f"skimage:intensity:{name}" for name in VALUES)]
    clock = Clock()
    stored = spatialdata.read_zarr(sample / "sample.zarr")
    options = {"image_key": "image", "scale": "scale0", "features": names, "inplace": False}
    tables = [calculate_image_features(stored, labels_key=name, **options) for name in MASKS]
    return clock.read() | {"cells": tables[0].n_obs, "features": sum(table.n_vars for table in tables)}


def cellfeaturizer(sample: Path, folder: Path) -> Seen:
    """Measure single-cell images with scportrait's CellFeaturizer; extraction is not timed."""
    sys.path.append(str(Path(__file__).parents[1]))
    importlib.import_module("interop")  # lets scportrait be imported with any torch
    from scportrait.pipeline.featurization import CellFeaturizer
    from scportrait.pipeline.project import Project

    from cellstamp import HDF5CellExtraction

    featurizer = {"batch_size": 900, "dataloader_worker_number": 0, "inference_device": "cpu", "label": "all"}
    settings = folder / "config.yml"
    config = {"HDF5CellExtraction": _extraction(folder), "CellFeaturizer": featurizer}
    settings.write_text(json.dumps(config))  # JSON is YAML
    steps = {"extraction_f": HDF5CellExtraction, "featurization_f": CellFeaturizer}
    project = Project(str(folder / "project"), config_path=str(settings), overwrite=True, debug=False, **steps)
    project.load_input_from_sdata(str(sample / "sample.zarr"), "image", *MASKS)
    project.extract()
    clock = Clock()
    project.featurize(overwrite=True)
    times = clock.read()
    table = project.sdata.tables["all_nucleus"]
    return times | {"cells": table.n_obs, "features": table.n_vars}


TOOLS = {
    "extraction": extract,
    "measure_only": measure_only,
    "measure_beside_images": measure_beside_images,
    "regionprops": regionprops,
    "squidpy": squidpy,
    "cellfeaturizer": cellfeaturizer,
}


def main() -> None:
    """Run the tool, with its output on stderr."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    tool, sample, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    (folder / "cache").mkdir()
    with contextlib.redirect_stdout(sys.stderr):
        seen = TOOLS[tool](sample, folder)
    sys.stdout.write(json.dumps(seen) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    main()
