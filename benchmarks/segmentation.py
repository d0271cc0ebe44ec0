"""Measure the accuracy of the segmentation on annotated images, and its cost by image size.

    python -m benchmarks.segmentation quality --data ../shared/data
    python -m benchmarks.segmentation cost [--sides 3000 6000] [--workers 1 2]

A cell is found if its IoU with an annotated cell is above 0.5. Memory is the summed PSS of all processes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from cellstamp import Project

from .meters import Watch, tree_cpu
from .sample import DATA, Sample

JUMP, CODEX = "jump_BR00117006_A01", "codex_murphy_R001_X003_Y004"
SMALL_NUCLEI = {"smoothing": 1.0, "window": 25, "min_distance": 3, "min_area": 20, "expansion": 3}
CASES = [
    (JUMP, "nucleus", {}),
    (JUMP, "nucleus", {"method": "otsu"}),
    (JUMP, "cytosol", {"expansion": 10}),
    (JUMP, "cytosol", {"expansion": 15}),
    (JUMP, "cytosol", {"expansion": 20}),
    (JUMP, "cytosol", {"expansion": 25}),
    (JUMP, "cytosol", {"expansion": 30}),
    (CODEX, "cytosol", {"expansion": 3}),
    (CODEX, "cytosol", SMALL_NUCLEI),
]


def quality(data: Path) -> None:
    """Print the F1 of each image."""
    for image, kind, keys in CASES:
        found = segmented(tifffile.imread(data / image / "image.tif"), keys)[kind]
        given = tifffile.imread(data / image / f"labels_{kind}.tif")
        inside = without_edge(found)
        print(
            f"{image} {kind} {keys}: F1 {f1(found, given):.3f}, without found cells at the edge {f1(inside, given):.3f}"
        )


def segmented(image: np.ndarray, keys: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return both masks of an image (c, y, x) with nuclei in the first channel."""
    with tempfile.TemporaryDirectory() as folder:
        config = {"ThresholdSegmentation": {"threads": 1, "cache": f"{folder}/cache", **keys}}
        project = Project(f"{folder}/project", config)
        project.load_input_from_array(image)
        project.segment()
        labels = project.sdata.labels
        return {kind: np.asarray(labels[f"seg_all_{kind}"]) for kind in ("nucleus", "cytosol")}


def f1(found: np.ndarray, given: np.ndarray) -> float:
    """Return F1: 2 * matches / (found cells + annotated cells)."""
    shared = np.zeros((int(given.max()) + 1, int(found.max()) + 1), np.int64)
    np.add.at(shared, (given.ravel(), found.ravel()), 1)
    of_given, of_found = shared.sum(axis=1), shared.sum(axis=0)
    union = of_given[:, np.newaxis] + of_found - shared
    n_pairs = np.count_nonzero(shared[1:, 1:] > 0.5 * union[1:, 1:])
    return 2 * n_pairs / (np.count_nonzero(of_given[1:]) + np.count_nonzero(of_found[1:]))


def without_edge(labels: np.ndarray) -> np.ndarray:
    """Return labels (y, x) without cells that touch the edge of the image."""
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return np.where(np.isin(labels, edge), 0, labels)


def cost(sides: list[int], workers: list[int], data: Path) -> None:
    """Print seconds and peak memory by image size and number of workers, each in a separate process."""
    print("| side of the image | cells | workers | seconds | seconds of all cores | peak memory |")
    print("|---:|---:|---:|---:|---:|---:|")
    for side in sides:
        store = Sample(side=side).store(data)
        for n_workers in workers:
            command = [sys.executable, "-m", "benchmarks.segmentation", "once", str(store), str(n_workers)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seen = json.loads(done.stdout.splitlines()[-1])
            numbers = side, seen["cells"], n_workers, seen["seconds"], seen["cpu"], seen["peak"] / 2**20
            print("| {:,} | {:,} | {} | {:.0f} | {:.0f} | {:,.0f} MiB |".format(*numbers), flush=True)


def once(store: str, n_workers: int) -> None:
    """Segment the image of a store in a project, and print time and memory."""
    with tempfile.TemporaryDirectory(dir=Path(store).parent) as folder:
        config = {"ThresholdSegmentation": {"threads": n_workers, "cache": f"{folder}/cache", "progress": False}}
        project = Project(f"{folder}/project", config)
        project.load_input_from_sdata(store, "input_image", keep_all=False)
        with Watch(os.getpid(), Path(folder)) as watch:
            start, used = time.perf_counter(), tree_cpu()
            project.segment()
            seconds, cpu = time.perf_counter() - start, tree_cpu() - used
        cells = int(np.asarray(project.sdata.labels["seg_all_nucleus"]).max())
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": watch.total, "cells": cells}))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.segmentation", description=__doc__)
    what = parser.add_subparsers(dest="what", required=True)
    asked = what.add_parser("quality")
    asked.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    asked = what.add_parser("cost")
    asked.add_argument("--sides", type=int, nargs="+", default=[3000, 6000])
    asked.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    asked.add_argument("--data", type=Path, default=DATA)
    asked = what.add_parser("once")
    asked.add_argument("store")
    asked.add_argument("n_workers", type=int)
    options = parser.parse_args()
    if options.what == "quality":
        quality(options.data)
    elif options.what == "cost":
        cost(options.sides, options.workers, options.data)
    else:
        once(options.store, options.n_workers)


if __name__ == "__main__":
    main()
