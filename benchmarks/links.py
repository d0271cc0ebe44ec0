"""Measure workers behind a slow link: throughput follows the link, and memory does not grow.

    sudo python -m benchmarks.links [--store PATH] [--cells 8000] [--rates 50,100,200]

Each of two workers has a separate network namespace and address, and ``tc`` limits the rate at which it sends. This
needs root and Linux. The namespaces are removed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

from cellstamp import HDF5CellExtraction

from .sample import DATA, Sample

_HOST = "10.77.{}.1"
_THERE = "10.77.{}.2"


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


@contextmanager
def namespace(number: int, rate: int) -> Iterator[str]:
    """Create a network namespace that sends at most `rate` megabits per second; yield its name."""
    name, here, there = f"stamp{number}", f"stamp{number}h", f"stamp{number}w"
    _run("ip", "netns", "add", name)
    try:
        _run("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        _run("ip", "addr", "add", f"{_HOST.format(number)}/24", "dev", here)
        _run("ip", "link", "set", here, "up")
        inside = ("ip", "netns", "exec", name)
        _run(*inside, "ip", "addr", "add", f"{_THERE.format(number)}/24", "dev", there)
        _run(*inside, "ip", "link", "set", there, "up")
        _run(*inside, "ip", "link", "set", "lo", "up")
        _run(*inside, "ip", "route", "add", "default", "via", _HOST.format(number))
        limits = ("tbf", "rate", f"{rate}mbit", "burst", "256kb", "latency", "50ms")
        _run(*inside, "tc", "qdisc", "add", "dev", there, "root", *limits)
        yield name
    finally:
        # remove the link first: the namespace exists until the last process in it has ended
        subprocess.run(["ip", "link", "del", here], check=False)
        _run("ip", "netns", "del", name)


@contextmanager
def cluster(rate: int) -> Iterator[Any]:
    """Yield a client of a local scheduler with two workers behind links."""
    from distributed import Client

    with ExitStack() as stack:
        names = [stack.enter_context(namespace(number, rate)) for number in (1, 2)]
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        file = folder / "scheduler.json"
        _start(stack, (), "dask_scheduler", "--host", "0.0.0.0", "--port", "0", "--scheduler-file", str(file))
        while not file.exists():
            time.sleep(0.1)
        port = json.loads(file.read_text())["address"].rpartition(":")[2]
        for number, name in enumerate(names, start=1):
            options = ("--host", _THERE.format(number), "--nthreads", "1", "--local-directory", str(folder))
            inside = ("ip", "netns", "exec", name)
            _start(stack, inside, "dask_worker", f"tcp://{_HOST.format(number)}:{port}", *options)
        client = stack.enter_context(Client(f"tcp://{_HOST.format(1)}:{port}", set_as_default=False))
        client.wait_for_workers(2)
        yield client


def _start(stack: ExitStack, before: tuple[str, ...], module: str, *options: str) -> None:
    process = subprocess.Popen(
        [*before, sys.executable, "-m", f"distributed.cli.{module}", *options, "--no-dashboard"],
        stderr=subprocess.DEVNULL,
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)


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
