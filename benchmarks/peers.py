"""Extract one sample with cellstamp, scportrait and cellcutter in turn, and compare: ``make bench-peers``.

Only the extraction is timed: the sample is loaded into the project before, and the centres are computed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .meters import Watch
from .sample import DATA, Sample

TOOL = Path(__file__).with_name("peer.py")
MIB = 2**20


def main() -> None:
    """Run the command line."""
    options = _parser().parse_args()
    pythons = {"cellstamp": sys.executable, "scportrait": options.scportrait, "cellcutter": options.cellcutter}
    pythons = {tool: str(Path(python).absolute()) for tool, python in pythons.items() if python}
    sample = prepare(Sample(side=options.side), DATA / f"peers-{options.side}")
    runs: dict[str, list[dict[str, float]]] = {tool: [] for tool in pythons}
    for number in range(options.rounds + 1):
        for tool, python in pythons.items():
            seen = run(tool, python, sample, options.workers, options.size)
            print(f"round {number} {tool:11} {seen['seconds']:8.2f} s {seen['pss_mib']:6.0f} MiB", flush=True)
            if number:  # round 0 warms up compilers and caches
                runs[tool].append(seen)
    print(table(runs))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--scportrait", metavar="PYTHON", help="Python interpreter with scportrait")
    parser.add_argument("--cellcutter", metavar="PYTHON", help="Python interpreter with cellcutter")
    parser.add_argument("--side", type=int, default=6000, help="side of the image in pixels (6000: about 15,000 cells)")
    parser.add_argument("--size", type=int, default=128, help="side of a crop, in pixels")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="number of measured rounds, after one warm-up round")
    return parser


def prepare(sample: Sample, folder: Path) -> Path:
    """Write the sample in the formats of the tools: a store with image pyramids, and TIFF files with a table."""
    done = folder / "sample.zarr"
    if done.exists():
        return folder
    import numpy as np
    import spatialdata
    import tifffile
    from spatialdata.models import Image2DModel, Labels2DModel

    stored = spatialdata.read_zarr(sample.store())
    image = np.asarray(stored["input_image"].data)
    masks = {name: np.asarray(stored[f"seg_all_{name}"].data) for name in ("nucleus", "cytosol")}
    folder.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(folder / "image.ome.tif", image, tile=(1024, 1024), metadata={"axes": "CYX"})
    tifffile.imwrite(folder / "mask.ome.tif", masks["cytosol"], tile=(1024, 1024), metadata={"axes": "YX"})
    centers = stored["centers_seg_all_nucleus"].compute().rename(columns={"x": "X_centroid", "y": "Y_centroid"})
    centers[["Y_centroid", "X_centroid"]].to_csv(folder / "cells.csv", index_label="CellID")
    chunk = sample.chunk
    names = [f"channel {number}" for number in range(len(image))]  # scportrait wants text
    shape: dict[str, Any] = {"dims": ("c", "y", "x"), "chunks": (1, chunk, chunk), "scale_factors": [2, 4]}
    parsed = Image2DModel.parse(image, c_coords=names, **shape)
    labels = {name: Labels2DModel.parse(mask, dims=("y", "x"), chunks=(chunk, chunk)) for name, mask in masks.items()}
    aside = folder / "unfinished.zarr"
    spatialdata.SpatialData(images={"image": parsed}, labels=labels).write(aside, overwrite=True)
    aside.rename(done)
    return folder


def run(tool: str, python: str, sample: Path, workers: int, size: int) -> dict[str, float]:
    """Run one tool once, in its environment, and measure it from outside."""
    with tempfile.TemporaryDirectory(dir=sample, prefix="run-") as folder:
        cache = Path(folder) / "cache"
        cache.mkdir()
        command = [python, str(TOOL), tool, str(sample), folder, str(workers), str(size)]
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True)
            process.stdout.readline()  # memory counts from here on
            with Watch(process.pid, cache) as watch:
                output, _ = process.communicate()
            if process.returncode:
                said.seek(0)
                raise SystemExit(f"{tool} failed (exit code {process.returncode}):\n{said.read()[-2000:]}")
    return json.loads(output.splitlines()[-1]) | {"pss_mib": watch.total / MIB, "scratch_mib": watch.scratch / MIB}


def table(runs: dict[str, list[dict[str, float]]]) -> str:
    """Return median seconds, and peak memory and scratch, as a Markdown table."""
    lines = [
        "",
        "| | cells | seconds | / cellstamp | peak memory, MiB | scratch, MiB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    ours = statistics.median(seen["seconds"] for seen in runs["cellstamp"])
    for tool, rounds in runs.items():
        seconds = statistics.median(seen["seconds"] for seen in rounds)
        memory, scratch = (max(seen[key] for seen in rounds) for key in ("pss_mib", "scratch_mib"))
        cells = rounds[0]["cells"]
        lines.append(f"| {tool} | {cells:,} | {seconds:.2f} | {seconds / ours:.1f} | {memory:,.0f} | {scratch:,.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
