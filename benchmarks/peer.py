"""Run one tool once, on a sample from `peers`: ``python benchmarks/peer.py TOOL SAMPLE FOLDER WORKERS SIZE``.

Run it with the Python of the tool's environment; so it imports nothing from this package. It prints a line when the
extraction starts. The last line is JSON: the number of cells, and the seconds of the extraction alone.
"""

import contextlib
import importlib
import json
import logging
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path


def extract(tool: str, sample: Path, folder: Path, workers: int, size: int) -> dict[str, float]:
    """Load the sample into a project of the tool, then extract; both tools have the same interface."""
    if tool == "scportrait":
        sys.path.append(str(Path(__file__).parents[1]))
        importlib.import_module("interop")  # lets scportrait be imported with any torch
        from scportrait.pipeline.extraction import HDF5CellExtraction
        from scportrait.pipeline.project import Project
    else:
        from cellstamp import HDF5CellExtraction, Project
    import h5py

    config = {"threads": workers, "image_size": size, "cache": str(folder / "cache")}
    (folder / "config.yml").write_text(json.dumps({"HDF5CellExtraction": config}))  # JSON is YAML
    place, settings = str(folder / "project"), str(folder / "config.yml")
    project = Project(place, config_path=settings, extraction_f=HDF5CellExtraction, overwrite=True, debug=False)
    project.load_input_from_sdata(str(sample / "sample.zarr"), "image", "nucleus", "cytosol")
    started = _start()
    project.extract()
    seconds = time.perf_counter() - started
    with h5py.File(project.extraction_f.output_path) as file:
        return {"seconds": seconds, "cells": len(file["obs/scportrait_cell_id"])}


def cut(sample: Path, folder: Path, workers: int, size: int) -> dict[str, float]:
    """Run cellcutter on TIFF files; it writes crops multiplied by the mask."""
    command = [str(Path(sys.executable).with_name("cut_cells")), "-p", str(workers), "--window-size", str(size)]
    files = [sample / "image.ome.tif", sample / "mask.ome.tif", sample / "cells.csv", folder / "cells.zarr"]
    started = _start()
    subprocess.run([*command, "--mask-cells", "--cache-size", "10240", *map(str, files)], check=True)
    lines = (sample / "cells.csv").read_text().splitlines()
    return {"seconds": time.perf_counter() - started, "cells": len(lines) - 1}


def _start() -> float:
    print("extracting", file=sys.__stdout__, flush=True)
    return time.perf_counter()


def main() -> None:
    """Run the tool, with its output on stderr."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    tool, sample, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    workers, size = int(sys.argv[4]), int(sys.argv[5])
    with contextlib.redirect_stdout(sys.stderr):
        task = cut if tool == "cellcutter" else lambda *args: extract(tool, *args)
        seen = task(sample, folder, workers, size)
    sys.stdout.write(json.dumps(seen) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    main()
