"""Measure what a batch costs the calling process and the scheduler of a dask cluster.

    python -m benchmarks.cluster_costs

Workers do nothing but answer, with as many bytes as a batch of images, or as the numbers of a shard. The costs are
added to the newest results with stages, for ``python -m benchmarks limits``.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from cellstamp.engines.dask import DaskEngine

from . import results
from .answer import Answer
from .cluster import cluster

ANSWERS = {"h5sc": (4 * 2**20, 200), "zarr": (300, 2000)}
"""Bytes of a result, and number of batches, for each format."""
_SMALL = 1000
_CELLS = 256
_WARM_UP = 50
_IN_FLIGHT = 16


def measure(client: Any, n_bytes: int, n_batches: int) -> dict[str, float]:
    """Return the microseconds of a core for each batch, in this process and in the scheduler."""
    scheduler = psutil.Process(client.run_on_scheduler(os.getpid))
    _answer(client, n_bytes, _WARM_UP)
    here, there = time.process_time(), sum(scheduler.cpu_times()[:2])
    _answer(client, n_bytes, n_batches)
    return {
        "caller_us_per_batch": 1e6 * (time.process_time() - here) / n_batches,
        "scheduler_us_per_batch": 1e6 * (sum(scheduler.cpu_times()[:2]) - there) / n_batches,
    }


def _answer(client: Any, n_bytes: int, n_batches: int) -> None:
    task = Answer(n_bytes, small_results=n_bytes < _SMALL)
    batches = [np.arange(4 * _CELLS) + number for number in range(n_batches)]
    for _ in DaskEngine(client).run(task, batches, lambda: _IN_FLIGHT):
        pass


def main() -> None:
    """Measure both formats, print the costs, and add them to results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster_costs", description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--into", type=Path, metavar="FILE", help="results for the costs (default: the newest)")
    options = parser.parse_args()
    path = options.into or results.latest(quick=None, with_="stages")
    with cluster(options.workers) as client:
        costs = {name: measure(client, *answer) for name, answer in ANSWERS.items()}
    for name, cost in costs.items():
        print(f"{name}: {', '.join(f'{key} {value:,.0f}' for key, value in cost.items())}")
    if path is not None:
        results.save(results.load(path) | {"clusters": costs}, path)
        print(f"costs added to {path}")


if __name__ == "__main__":
    main()
