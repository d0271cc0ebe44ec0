"""Measure a dask cluster behind a slow link of the calling process: `.h5sc` files and zarr stores, 1 to n workers.

    sudo python -m benchmarks.client_link [--workers 1,2,4] [--rate 100] [--share 25]

The calling process has a network namespace, and ``tc`` limits what it sends and receives. Scheduler, workers and
storage are on the other side of this link. With `.h5sc`, throughput follows the link. With zarr, it follows the
workers. Each worker gets a share of a core, so that several fit on a small machine. This needs root and Linux.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .extraction import Case, run_module
from .limits import FORMATS
from .namespaces import HOST, link_of, namespace, start_dask, start_scheduler
from .results import table
from .sample import DATA, Sample

_PERIOD = 100_000
"""Microseconds in which a process gets its share of a core."""


@contextmanager
def share_of_core(name: str, percent: int) -> Iterator[Callable[[int], None]]:
    """Create a cgroup whose processes get a share of a core; yield a function that adds a process by its id."""
    root = Path("/sys/fs/cgroup")
    is_v1 = (root / "cpu").is_dir()
    group = (root / "cpu" if is_v1 else root) / name
    group.mkdir()
    try:
        quota = percent * _PERIOD // 100
        (group / ("cpu.cfs_quota_us" if is_v1 else "cpu.max")).write_text(str(quota if is_v1 else f"{quota} {_PERIOD}"))
        yield lambda pid: _write(group / "cgroup.procs", pid)
    finally:
        group.rmdir()


def _write(file: Path, number: int) -> None:
    file.write_text(str(number))


@contextmanager
def cluster(folder: Path, n_workers: int, share: int) -> Iterator[str]:
    """Yield the address of a scheduler, as soon as its workers have joined."""
    from distributed import Client

    with ExitStack() as stack:
        port = start_scheduler(stack, folder)
        address = f"tcp://{HOST.format(1)}:{port}"
        for number in range(n_workers):
            add = stack.enter_context(share_of_core(f"cellstamp-worker{number}", share))
            options = ("--host", HOST.format(1), "--nthreads", "1", "--no-nanny", "--local-directory", str(folder))
            add(start_dask(stack, "dask_worker", address, *options).pid)
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(n_workers)
        yield address


def measure(case: Case, data: Path, rate: int, share: int) -> dict[str, float]:
    """Extract once from behind a link of `rate` megabits per second, with the case's number of workers."""
    with ExitStack() as stack:
        before = stack.enter_context(namespace(1, rate, both_ways=True))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=data, prefix="cluster-")))
        address, through = stack.enter_context(cluster(folder, case.workers, share)), _bytes_through()
        config = {"cache": str(folder), "progress": False, "engine": "dask", "dask_scheduler": address}
        task = {"store": str(case.sample.store(data)), "config": case.config | config, "folder": str(folder)}
        run = run_module("extraction", task, before=before)
        return run | {"link_bytes_per_cell": (_bytes_through() - through) / run["cells"]}


def _bytes_through() -> int:
    """Return the bytes that the calling process has received."""
    return int(Path(f"/sys/class/net/{link_of(1)}/statistics/tx_bytes").read_text())


def _row(case: Case, run: dict[str, float]) -> list[str]:
    rate = 1e6 / run["us_per_cell_after_first"]
    megabytes = [rate * size / 1e6 for size in (run["file_bytes"] / run["cells"], run["link_bytes_per_cell"])]
    return [str(case.workers), case.file_format, f"{rate:,.0f}", *(f"{n:,.2f}" for n in megabytes)]


def main() -> None:
    """Extract with each number of workers and format in turn, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client_link", description=__doc__)
    parser.add_argument("--workers", default="1,2,4", help="numbers of workers")
    parser.add_argument("--rate", type=int, default=100, help="megabits per second of the link, in both directions")
    parser.add_argument("--share", type=int, default=25, help="percent of a core for each worker")
    parser.add_argument("--side", type=int, default=6000, help="side of the image in pixels (6000: about 15,000 cells)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder for the sample")
    options = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("network namespaces need root")
    sample, rows = Sample(side=options.side), []
    sample.store(options.data)
    for workers in map(int, options.workers.split(",")):
        for file_format in FORMATS:
            case = Case(sample, workers=workers, file_format=file_format)
            rows.append(_row(case, measure(case, options.data.resolve(), options.rate, options.share)))
            print(" ".join(rows[-1]), flush=True)
    print(table(("workers", "format", "cells/s", "MB/s written", "MB/s to the caller"), rows, markdown=True))


if __name__ == "__main__":
    main()
