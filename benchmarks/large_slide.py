"""Extract a million cells of one slide, killed and resumed once: time, memory, size of the file, time to open it.

The slide repeats a sample: chunks of the image are hard links, masks are numbered on. Run it from the root of the
repository, on an idle machine:

    python -m benchmarks.large_slide                 # 54,000 x 54,000 pixels, 1,260,000 cells: 45 GB on disk
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from cellstamp.source.load.staging import staged
from cellstamp.source.load.store import write_centers
from cellstamp.source.names import CYTOSOL, IMAGE, NUCLEUS

from .extraction import MIB, ROOT, run_module
from .repeated import link_chunks
from .sample import DATA, Sample, new_array

_OPEN = """
import sys, time
from cellstamp import iter_batches
started = time.perf_counter()
images, ids = next(iter_batches(sys.argv[1], shuffle=True))
print(time.perf_counter() - started)
"""


def slide(sample: Sample, side: int, data: Path) -> Path:
    """Return the store of a slide that repeats a sample; make it if missing."""
    store, n = data / f"{side}px_of_{sample.name}.zarr", side // sample.side
    if store.exists():
        return store
    source = sample.store(data)
    with staged(store) as staging:
        chunk = min(sample.chunk, sample.side)
        new_array(staging, IMAGE, (sample.channels, side, side), (1, chunk, chunk), np.uint16)
        link_chunks(source / IMAGE / "s0" / "c", staging.place(IMAGE) / "s0" / "c", n)
        masks = [new_array(staging, name, (side, side), (chunk, chunk), np.uint32) for name in (NUCLEUS, CYTOSOL)]
        for mask, name in zip(masks, (NUCLEUS, CYTOSOL), strict=True):
            _number_on(zarr.open_array(source / name / "s0", mode="r")[:], mask, n)
        write_centers(staging, [NUCLEUS, CYTOSOL], run=map)
    return store


def _number_on(labels: np.ndarray, mask: Any, n: int) -> None:
    """Fill a mask with n x n copies of labels, each with other ids."""
    side = len(labels)
    per_copy = (side // 16 + 1) ** 2  # more than there are cells, and the same for both masks
    for number, (i, j) in enumerate(np.ndindex(n, n)):
        shifted = np.where(labels, labels + np.uint32(number * per_copy), np.uint32(0))
        mask[i * side : (i + 1) * side, j * side : (j + 1) * side] = shifted


def measure(store: Path, data: Path, workers: int, kill_at: int) -> dict[str, float]:
    """Extract a slide, killed after some cells, and resume it."""
    with tempfile.TemporaryDirectory(dir=data, prefix="slide-") as folder:
        cache = Path(folder) / "cache"
        cache.mkdir()
        config = {"threads": workers, "image_size": 128, "cache": str(cache), "progress": False}
        task = {"store": str(store), "config": config, "folder": folder}
        _run_killed(task | {"kill_at": kill_at})
        run = run_module("extraction", task, scratch=cache)
        log = (Path(folder) / "extraction" / "processing.log").read_text()
        path = Path(folder) / "extraction" / "data" / "single_cells.h5sc"
        return run | {"resumed": float("Resuming: " in log), "first_images_s": _seconds_to_open(path)}


def _run_killed(task: dict[str, Any]) -> None:
    """Run an extraction that kills itself, its server and its workers."""
    command = [sys.executable, "-m", "benchmarks.extraction", json.dumps(task)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    if process.wait() != -signal.SIGKILL:
        raise SystemExit(f"the extraction was not killed (exit code {process.returncode}): lower --kill-at")


def _seconds_to_open(path: Path) -> float:
    command = [sys.executable, "-c", _OPEN, str(path)]
    return float(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_slide", description=__doc__)
    parser.add_argument("--side", type=int, default=54000, help="side of the slide, a multiple of that of the sample")
    parser.add_argument("--sample", type=int, default=6000, metavar="SIDE", help="side of the sample that is repeated")
    parser.add_argument("--chunk", type=int, default=2000, help="side of a chunk of the sample")
    parser.add_argument("--kill-at", type=int, default=500_000, metavar="CELLS", help="kill the run after these cells")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=Path, default=DATA, help="folder for the slide")
    parser.add_argument("--keep", action="store_true", help="keep the slide for another run")
    options = parser.parse_args()
    data = options.data.resolve()
    store = slide(Sample(side=options.sample, chunk=options.chunk), options.side, data)
    run = measure(store, data, options.workers, options.kill_at)
    print("\n".join(f"{what}: {value:.5g}" for what, value in run.items()))
    print(f"file_gib: {run['file_bytes'] / MIB / 1024:.4g}")
    if not options.keep:
        shutil.rmtree(store)


if __name__ == "__main__":
    main()
