"""Measure the memory that the calling process needs for each cell, with many small cells on a small slide.

    python -m benchmarks.caller_memory [--sides 3000,12000] [--formats h5sc,zarr]

Cells are squares of 6 pixels every 12 pixels, so a slide of 12,000 pixels has a million. Each extraction runs in a new
process, which samples its anonymous memory. The difference between two slides is divided by the number of cells.
This needs Linux.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .extraction import run_module
from .results import table

_SPACING, _CELL = 12, slice(3, 9)
_SECONDS = 0.02
"""Between two samples of memory."""


def write_project(folder: Path, side: int) -> int:
    """Make a project with a slide; return its number of cells."""
    from cellstamp import Project

    n = side // _SPACING
    ids = np.arange(1, n * n + 1, dtype=np.uint32).reshape(n, n)
    labels = np.zeros((n, _SPACING, n, _SPACING), np.uint32)
    labels[:, _CELL, :, _CELL] = ids[:, np.newaxis, :, np.newaxis]
    project = Project(folder)
    project.load_input_from_array(np.arange(side * side, dtype=np.uint16).reshape(1, side, side), channel_names=["dna"])
    project.load_segmentation(cytosol=labels.reshape(side, side))
    return n * n


@contextmanager
def peak_of_this_process() -> Iterator[list[int]]:
    """Sample the anonymous memory of this process; the list gets its peak in bytes at the end."""
    stop, samples, peak = threading.Event(), [_anonymous()], []

    def look_on() -> None:
        while not stop.wait(_SECONDS):
            samples.append(_anonymous())

    thread = threading.Thread(target=look_on)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()
        peak.append(max(samples))


def _anonymous() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("RssAnon")).split()[1]) * 1024


def measure(folder: str, file_format: str) -> dict[str, Any]:
    """Extract the cells of a project, and return the peak of this process in bytes."""
    from cellstamp import HDF5CellExtraction, Project

    config = {"threads": 2, "image_size": _SPACING, "file_format": file_format, "cache": folder, "progress": False}
    project = Project(folder, {"HDF5CellExtraction": config}, extraction_f=HDF5CellExtraction)
    with peak_of_this_process() as peak:
        project.extract(overwrite=True)
    return {"peak": peak[0]}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", default="3000,12000")
    parser.add_argument("--formats", default="h5sc,zarr")
    arguments = parser.parse_args()
    sides, rows = [int(side) for side in arguments.sides.split(",")], []
    with tempfile.TemporaryDirectory() as folder:
        counts = [write_project(Path(folder) / str(side), side) for side in sides]
        for file_format in arguments.formats.split(","):
            runs = [{"folder": str(Path(folder) / str(side)), "file_format": file_format} for side in sides]
            small, *_, large = [run_module("caller_memory", run)["peak"] for run in runs]
            per_cell = (large - small) / (counts[-1] - counts[0]) / 1024
            rows.append([file_format, f"{counts[-1]:,}", f"{large / 2**20:,.0f}", f"{per_cell:.3f}"])
    print(table(["format", "cells", "peak, MiB", "KiB per cell"], rows))


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        print(json.dumps(measure(**json.loads(sys.argv[1]))))
    else:
        main()
