"""Run one extraction in a new process, and measure it from outside.

Run as a module, this is the new process: it takes paths and configuration as JSON, and prints its results as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .meters import Watch, tree_cpu, watched
from .sample import Sample

ROOT = Path(__file__).resolve().parent.parent
MIB = 2**20


@dataclass(frozen=True)
class Case:
    """A sample, and the settings of an extraction."""

    sample: Sample
    image_size: int = 128
    compression: str | bool = "lzf"
    workers: int = 2
    file_format: str = "h5sc"

    @property
    def key(self) -> str:
        """Return the name of the case in results."""
        filter_ = self.compression or "none"
        format_ = "" if self.file_format == "h5sc" else f" {self.file_format}"
        return f"{self.sample.name} crop{self.image_size} {filter_} {self.workers}w{format_}"

    @property
    def config(self) -> dict[str, Any]:
        """Return its settings as keys of a configuration."""
        return {
            "threads": self.workers,
            "image_size": self.image_size,
            "compression": self.compression,
            "file_format": self.file_format,
        }


def run_module(
    module: str, task: dict[str, Any], scratch: Path | None = None, before: Sequence[str] = ()
) -> dict[str, Any]:
    """Run a module of this package in a new process, and return the JSON of its last line.

    Parameters
    ----------
    task
        Arguments of the module, passed as JSON.
    scratch
        Folder to watch. If given, its size and the memory of the processes are added to the results.
    before
        Command that starts the new process, such as one that enters a network namespace.
    """
    command = [*before, sys.executable, "-m", f"benchmarks.{module}", json.dumps(task)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if scratch is None:
        output, _ = process.communicate()
        seen = {}
    else:
        with Watch(process.pid, scratch) as watch:
            output, _ = process.communicate()
        seen = {
            "pss_mib": watch.total / MIB,
            "pss_caller_mib": watch.caller / MIB,
            "pss_workers_mib": watch.workers / MIB,
            "cache_bytes": watch.scratch,
        }
    if process.returncode:
        raise SystemExit(f"benchmarks.{module} failed (exit code {process.returncode}) at {task}")
    return json.loads(output.splitlines()[-1]) | seen


def extract(case: Case, data: Path) -> dict[str, float]:
    """Extract once, and return the measurements."""
    store = case.sample.store(data)
    with tempfile.TemporaryDirectory(dir=data, prefix="run-") as folder:
        cache = Path(folder) / "cache"
        cache.mkdir()
        config = case.config | {"cache": str(cache), "progress": False}
        return run_module("extraction", {"store": str(store), "config": config, "folder": folder}, scratch=cache)


def _extract_here(store: str, config: dict[str, Any], folder: str, kill_at: int | None = None) -> dict[str, float]:
    """Extract once. With ``kill_at``, the group of this process is killed when so many cells are on the disk."""
    started = time.perf_counter()
    from cellstamp import HDF5CellExtraction
    from cellstamp.h5sc.opening import bytes_of
    from cellstamp.h5sc.writer import StampWriter
    from cellstamp.zarr_store.writer import ZarrWriter

    import_s = time.perf_counter() - started
    written: list[tuple[float, float, int]] = []

    def note(method: Callable[..., Any], writer: Any, cells: Any) -> None:
        method(writer, cells)
        written.append((time.perf_counter(), time.process_time(), len(cells.rows)))
        if kill_at is not None and sum(n for *_, n in written) >= kill_at:
            writer.flush()
            os.killpg(0, signal.SIGKILL)

    cpu, started = tree_cpu(), time.perf_counter()
    with watched(StampWriter, "write", note), watched(ZarrWriter, "write", note):
        step = HDF5CellExtraction(config, f"{folder}/extraction", filehandler=store)
        step()
    seconds = time.perf_counter() - started
    cpu = tree_cpu() - cpu
    cells = sum(n for *_, n in written)
    (first, first_cpu, first_cells), (_, last_cpu, _) = written[0], written[-1]
    first_s, later = first - started, max(cells - first_cells, 1)
    return {
        "cells": cells,
        "seconds": seconds,
        "cells_per_s": cells / seconds,
        "core_us_per_cell": 1e6 * cpu / cells,
        "busy_cores": cpu / seconds,
        "import_s": import_s,
        "first_batch_s": first_s,
        "us_per_cell_after_first": 1e6 * (seconds - first_s) / later if cells > first_cells else 0.0,
        "caller_us_per_cell": 1e6 * (last_cpu - first_cpu) / later,
        "file_bytes": bytes_of(Path(str(step.output_path))),
    }


if __name__ == "__main__":
    print(json.dumps(_extract_here(**json.loads(sys.argv[1]))))
