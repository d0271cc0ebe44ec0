"""Measure the cost of each stage of an extraction in one process, batch by batch.

Run as a module, this is that process. Clocks wrap the methods of the package, so they measure the code of real runs.
Results go through shared memory as in the process engine; the small message through a pipe is not measured.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .extraction import MIB, ROOT, Case, run_module
from .meters import Meter, metered
from .wire import Wire

_BUDGET = 4 * 2**30
"""Memory budget of the plan, in bytes."""


def measure_stages(case: Case, data: Path) -> dict[str, Any]:
    """Measure the stages once, in a new process."""
    store = case.sample.store(data)
    config = case.config | {"cache": str(data)}
    with tempfile.TemporaryDirectory(dir=data, prefix="stages-") as folder:
        return run_module("stages", {"store": str(store), "config": config, "folder": folder})


def import_seconds(statement: str = "import cellstamp", rounds: int = 5) -> float:
    """Return the median seconds of an import in a new process."""
    code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    times = [subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) for _ in range(rounds)]
    return statistics.median(map(float, times))


class _Bare:
    """A file written by a bare loop over ``write_direct_chunk``, with the same chunks."""

    def __init__(self, path: Path, layout: Any) -> None:
        import h5py

        self.planes_per_chunk = layout.planes_per_chunk
        self.meter = Meter()
        self._file = h5py.File(path, "x", libver=("v110", "v110"))
        self._id = self._file.create_dataset(
            "x", layout.shape, "f2", chunks=layout.chunks, compression=layout.compression
        ).id

    def write(self, stamps: Any) -> None:
        """Write the chunks of a batch."""
        chunks, at, view = [], 0, memoryview(stamps.payload)
        for row, sizes in zip(stamps.rows.tolist(), stamps.sizes.tolist(), strict=True):
            for number, size in enumerate(sizes):
                chunks.append(((row, number * self.planes_per_chunk, 0, 0), view[at : at + size]))
                at += size
        write = self._id.write_direct_chunk
        with self.meter.running():
            for offset, chunk in chunks:
                write(offset, chunk)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _measure_here(store: str, config: dict[str, Any], folder: str) -> dict[str, Any]:
    import cellstamp.cells.preload  # noqa: F401 - load compiled code before measuring
    from cellstamp.cells.load_kernels import load_kernels
    from cellstamp.h5sc.opening import bytes_of

    from .decodes import decodes_per_chunk
    from .shard_stages import walk_shards

    load_kernels()
    meters: dict[str, Meter] = {}
    job, batches = _prepare(store, config, Path(folder), meters)
    walk = walk_shards if config["file_format"] == "zarr" else _walk
    written, batch_bytes = walk(job, batches, Path(folder), meters)
    n, (height, width) = len(job.cells), job.source.shape
    bare, ours = meters["bare write"], meters["write shard" if "write shard" in meters else "write"]
    return {
        "cells": n,
        "megapixels": height * width / 1e6,
        "batches": len(batches),
        "batch_mib": statistics.mean(batch_bytes) / MIB,
        "largest_batch_mib": max(batch_bytes) / MIB,
        "file_bytes_per_cell": bytes_of(written) / n,
        "bare_by_ours_cpu": bare.cpu / ours.cpu,
        "bare_by_ours_wall": bare.wall / ours.wall,
        "stages": {name: meter.per(n) for name, meter in meters.items()},
        "decodes_per_chunk": {str(k): decodes_per_chunk(job, batches, k) for k in (1, 2, 16)},
    }


def _prepare(store: str, config: dict[str, Any], folder: Path, meters: dict[str, Meter]) -> tuple[Any, list[Any]]:
    """Return the job and its batches; add meters for centres (computed, although stored) and plan."""
    from cellstamp.config import ExtractionConfig
    from cellstamp.pipeline.cell_selection import choose_cells
    from cellstamp.pipeline.job import Job, in_slide_order
    from cellstamp.pipeline.scaling import find_scaling
    from cellstamp.source.find.elements import find_source
    from cellstamp.source.points import load_centers
    from cellstamp.source.read.centers import compute_centers

    source, centres, plan = find_source(store), Meter(), Meter()
    with centres.running():
        compute_centers(source.main_mask)
    load_centers(store, source.main_mask.name)  # imports the readers of tables before measuring
    with plan.running():
        known = load_centers(store, source.main_mask.name)
        parsed = ExtractionConfig.parse(config)
        selection = choose_cells(known, source, parsed, partial=False, n_cells=None, seed=0)
        if parsed.file_format == "zarr":
            cells = in_slide_order(selection.cells, source, parsed.image_size)
            selection = replace(selection, cells=cells)
        job = Job(parsed, source, selection, find_scaling(parsed, source, map, log=lambda _: None), folder)
        batches = job.batches(_BUDGET)
    meters |= {"centres": centres, "plan": plan}
    return job, batches


def _walk(job: Any, batches: Sequence[Any], folder: Path, meters: dict[str, Meter]) -> tuple[Path, list[int]]:
    """Make and send every batch, write it to our file and to a bare one; return our file, and the bytes sent."""
    from cellstamp.cells.cutter import StampCutter
    from cellstamp.encoding import StampEncoder
    from cellstamp.h5sc.writer import StampWriter
    from cellstamp.source.read.tiles import TileReader

    whole, frame, write, sync = (Meter() for _ in range(4))
    job.task()(batches[0])  # the first batch of a process is slower; complete runs measure it
    task, wire, bare, batch_bytes = job.task(), Wire(), _Bare(folder / "bare.h5", job.layout()), []
    path = folder / "ours.h5sc"
    with frame.running():
        writer = StampWriter(path, job.layout(), folder / "journal", {})
    with (
        metered(TileReader, "read") as read,
        metered(StampCutter, "_cut") as cut,
        metered(StampEncoder, "encode") as encode,
        writer,
    ):
        for number, batch in enumerate(batches):
            with whole.running():
                made = task(batch)
            stamps = wire.carry(made)
            batch_bytes.append(stamps.nbytes)
            if number % 2:
                bare.write(stamps)
            with write.running():
                writer.write(stamps)
            if not number % 2:
                bare.write(stamps)
        with sync.running():
            writer.flush()
    bare.close()
    rest = whole.without(read, cut, encode)
    meters |= {"read": read, "cut": cut, "encode": encode, "rest of the task": rest}
    meters |= {"send": wire.send, "receive": wire.receive}
    meters |= {"frame": frame, "write": write, "sync": sync, "bare write": bare.meter}
    return path, batch_bytes


if __name__ == "__main__":
    print(json.dumps(_measure_here(**json.loads(sys.argv[1]))))
