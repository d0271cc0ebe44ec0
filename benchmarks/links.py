"""Measure workers behind a slow link: throughput follows the link, and memory does not grow.

    sudo python -m benchmarks.links [--store PATH] [--cells 8000] [--rates 50,100,200]

Each of two workers has a separate network namespace and address, and ``tc`` limits the rate at which it sends. This
needs root and Linux. The namespaces are removed at the end.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

from cellstamp import HDF5CellExtraction

from .namespaces import HOST, THERE, namespace, start_dask, start_scheduler
from .sample import DATA, Sample


@contextmanager
def cluster(rate: int) -> Iterator[Any]:
    """Yield a client of a local scheduler with two workers behind links."""
    from distributed import Client

    with ExitStack() as stack:
        inside = [stack.enter_context(namespace(number, rate)) for number in (1, 2)]
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = start_scheduler(stack, folder)
        for number, before in enumerate(inside, start=1):
            options = ("--host", THERE.format(number), "--nthreads", "1", "--local-directory", str(folder))
            start_dask(stack, "dask_worker", f"tcp://{HOST.format(number)}:{port}", *options, before=before)
        client = stack.enter_context(Client(f"tcp://{HOST.format(1)}:{port}", set_as_default=False))
        client.wait_for_workers(2)
        yield client


class Peak(threading.Thread):
    """Measure the peak resident memory of this process."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._done = threading.Event()
        self.before = self.peak = psutil.Process().memory_info().rss

    def run(self) -> None:
        while not self._done.wait(0.05):
            self.peak = max(self.peak, psutil.Process().memory_info().rss)

    def stop(self) -> None:
        self._done.set()
        self.join()


def main() -> None:
    """Extract with each rate in turn, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.links", description=__doc__)
    parser.add_argument("--store", help="a SpatialData store (default: the sample of 6,000 pixels)")
    parser.add_argument("--elements", default="", help="names of its image, nucleus and cytosol, separated by commas")
    parser.add_argument("--cells", type=int, default=8000)
    parser.add_argument("--rates", default="50,100,200", help="megabits per second of each of two workers")
    options = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("network namespaces need root")
    store = options.store or str(Sample(side=6000).store(DATA))
    keys = ("image", "nucleus_labels", "cytosol_labels")
    named = dict(zip(keys, filter(None, options.elements.split(",")), strict=False))
    print("| Mbit/s of two links | MB/s of both | seconds | MB/s written | / links | peak memory of the caller |")
    print("|---:|---:|---:|---:|---:|---:|")
    for rate in map(int, options.rates.split(",")):
        with cluster(rate) as client:
            _measure(client, store, named, options.cells, rate)


def _measure(client: Any, store: str, named: dict[str, Any], n_cells: int, rate: int) -> None:
    config = {"threads": 2, "image_size": 128, "progress": False, "engine": "dask", "dask_scheduler": client, **named}
    for n in (200, n_cells):  # in the first run, workers import and compile
        with tempfile.TemporaryDirectory(dir=Path(store).parent) as folder:
            step = HDF5CellExtraction({**config, "cache": f"{folder}/cache"}, f"{folder}/out", filehandler=store)
            peak = Peak()
            peak.start()
            started = time.perf_counter()
            step(partial=True, n_cells=n)
            taken = time.perf_counter() - started
            peak.stop()
            megabytes = Path(str(step.output_path)).stat().st_size / 1e6
    links, speed = 2 * rate / 8, megabytes / taken
    print(f"| {rate} | {links:.0f} | {taken:.1f} | {speed:.1f} | {speed / links:.0%} | {peak.peak / 2**20:.0f} MiB |")


if __name__ == "__main__":
    main()
