"""Compare a dask cluster with worker processes: the same extraction, in turn.

    python -m benchmarks.cluster [--store PATH] [--rounds 5]

The scheduler and its workers are started from the command line. Their start is not measured; the start of the
LocalCluster is.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cellstamp import HDF5CellExtraction

from .sample import DATA, Sample


@contextmanager
def cluster(n_workers: int) -> Iterator[Any]:
    """Yield a client of a new scheduler with `n_workers` workers."""
    from distributed import Client

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        file = folder / "scheduler.json"
        _start(stack, "dask_scheduler", "--port", "0", "--scheduler-file", str(file))
        while not file.exists() or not file.stat().st_size:
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        for _ in range(n_workers):
            options = ("--nthreads", "1", "--local-directory", str(folder))
            _start(stack, "dask_worker", address, *options)
        client = stack.enter_context(Client(address, set_as_default=False))
        client.wait_for_workers(n_workers)
        yield client


def _start(stack: ExitStack, module: str, *options: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.{module}", *options, "--host", "127.0.0.1", "--no-dashboard"],
        stderr=subprocess.DEVNULL,
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)


def seconds(store: str, keys: dict[str, Any]) -> float:
    """Return the seconds of one extraction."""
    with tempfile.TemporaryDirectory(dir=Path(store).parent) as folder:
        config = {"image_size": 128, "cache": f"{folder}/cache", "progress": False, **keys}
        step = HDF5CellExtraction(config, f"{folder}/out", filehandler=store)
        started = time.perf_counter()
        step()
        return time.perf_counter() - started


def main() -> None:
    """Measure in turn, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--store", help="a SpatialData store (default: the sample of 6,000 pixels)")
    parser.add_argument("--elements", default="", help="names of its image, nucleus and cytosol, separated by commas")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    store = options.store or str(Sample(side=6000).store(DATA))
    named = dict(
        zip(("image", "nucleus_labels", "cytosol_labels"), filter(None, options.elements.split(",")), strict=False)
    )
    keys = {"threads": options.workers, **named}
    with cluster(options.workers) as client:
        cases = {
            "processes": {},
            "dask, existing cluster": {"engine": "dask", "dask_scheduler": client},
            "dask, new LocalCluster": {"engine": "dask"},
        }
        times: dict[str, list[float]] = {name: [] for name in cases}
        for number in range(options.rounds + 1):
            for name, extra in cases.items():
                taken = seconds(store, keys | extra)
                print(f"round {number}, {name}: {taken:.2f} s", file=sys.stderr, flush=True)
                if number:  # the first round imports and compiles
                    times[name].append(taken)
    base = statistics.median(times["processes"])
    print("| workers | seconds (median) | / processes | all rounds |\n|---|---:|---:|---|")
    for name, taken in times.items():
        middle = statistics.median(taken)
        print(f"| {name} | {middle:.2f} | {middle / base:.2f} | {' '.join(f'{t:.2f}' for t in taken)} |")


if __name__ == "__main__":
    main()
