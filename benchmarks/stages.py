"""What each stage of an extraction costs, measured in one process, batch by batch.

Run as a module, this is that process. Clocks hang on the methods that do the work, so the code measured is the code
that runs. Results go through shared memory as the process engine sends them; the small message that goes with each,
through a pipe, is not in here.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cellstamp.engines.parcels import Slots, pack, unpack

from .extraction import MIB, ROOT, Case, run_module
from .meters import Meter, metered

_BUDGET = 4 * 2**30
"""Memory that batches are planned for."""


def measure_stages(case: Case, data: Path) -> dict[str, Any]:
    """Measure the stages once, in a new process."""
    store = case.sample.store(data)
    config = {
        "threads": case.workers,
        "image_size": case.image_size,
        "compression": case.compression,
        "cache": str(data),
    }
    with tempfile.TemporaryDirectory(dir=data, prefix="stages-") as folder:
        return run_module("stages", {"store": str(store), "config": config, "folder": folder})


def import_seconds(statement: str = "import cellstamp", rounds: int = 5) -> float:
    """Seconds that a new process needs for an import; the median."""
    code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    times = [subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) for _ in range(rounds)]
    return statistics.median(map(float, times))


class _Wire:
    """Two slots of shared memory, used in turn, and clocks on putting results in and taking them out."""

    def __init__(self) -> None:
        self.send, self.receive = Meter(), Meter()
        self._slots, self._turn = Slots(), 0

    def carry(self, value: Any) -> Any:
        """Send a value through, and return what comes out."""
        self._turn = 1 - self._turn
        with self.send.running():
            parcel = pack(value, self._slots, self._turn)
        with self.receive.running():
            return unpack(parcel, self._slots)


class _Bare:
    """A file that takes the same chunks with nothing but a loop over ``write_direct_chunk``."""

    def __init__(self, path: Path, layout: Any) -> None:
        import h5py

        self.meter = Meter()
        self._file = h5py.File(path, "x", libver=("v110", "v110"))
        self._id = self._file.create_dataset(
            "x", layout.shape, "f2", chunks=layout.chunks, compression=layout.compression
        ).id

    def write(self, stamps: Any) -> None:
        """Write the chunks of a batch."""
        chunks, at, view = [], 0, memoryview(stamps.payload)
        for row, sizes in zip(stamps.rows.tolist(), stamps.sizes.tolist(), strict=True):
            for plane, size in enumerate(sizes):
                chunks.append(((row, plane, 0, 0), view[at : at + size]))
                at += size
        write = self._id.write_direct_chunk
        with self.meter.running():
            for offset, chunk in chunks:
                write(offset, chunk)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _measure_here(store: str, config: dict[str, Any], folder: str) -> dict[str, Any]:
    import cellstamp.cells.preload  # noqa: F401 - what a worker imports is imported before clocks run
    from cellstamp.cells.warm import load_kernels

    from .decodes import decodes_per_chunk

    load_kernels()
    meters: dict[str, Meter] = {}
    job, batches = _prepare(store, config, Path(folder), meters)
    batch_bytes = _walk(job, batches, Path(folder), meters)
    n, (height, width) = len(job.cells), job.source.shape
    bare, ours = meters["bare write"], meters["write"]
    return {
        "cells": n,
        "megapixels": height * width / 1e6,
        "batches": len(batches),
        "batch_mib": statistics.mean(batch_bytes) / MIB,
        "largest_batch_mib": max(batch_bytes) / MIB,
        "file_bytes_per_cell": (Path(folder) / "ours.h5sc").stat().st_size / n,
        "bare_by_ours_cpu": bare.cpu / ours.cpu,
        "bare_by_ours_wall": bare.wall / ours.wall,
        "stages": {name: meter.per(n) for name, meter in meters.items()},
        "decodes_per_chunk": {str(k): decodes_per_chunk(job, batches, k) for k in (1, 2, 16)},
    }


def _prepare(store: str, config: dict[str, Any], folder: Path, meters: dict[str, Meter]) -> tuple[Any, list[Any]]:
    """The job and its batches; meters are added for the centres (computed, though they are stored) and the plan."""
    from cellstamp.config import ExtractionConfig
    from cellstamp.pipeline.job import Job, select_cells
    from cellstamp.pipeline.scaling import find_scaling
    from cellstamp.source.find.elements import find_source
    from cellstamp.source.load.store import load_centers
    from cellstamp.source.read.centers import compute_centers

    source, centres, plan = find_source(store), Meter(), Meter()
    with centres.running():
        compute_centers(source.main_mask)
    load_centers(store, source.main_mask.name)  # what reads tables is imported now
    with plan.running():
        known = load_centers(store, source.main_mask.name)
        parsed = ExtractionConfig.parse(config)
        selection = select_cells(known, source, parsed, partial=False, n_cells=None, seed=0)
        job = Job(parsed, source, selection, find_scaling(parsed, source, map, log=lambda _: None), folder)
        batches = job.batches(_BUDGET)
    meters |= {"centres": centres, "plan": plan}
    return job, batches


def _walk(job: Any, batches: Sequence[Any], folder: Path, meters: dict[str, Meter]) -> list[int]:
    """Make, send and write every batch, into our file and a bare one in turn; return the batches' bytes."""
    from cellstamp.cells.cutter import StampCutter
    from cellstamp.codecs import StampEncoder
    from cellstamp.h5sc.writer import StampWriter
    from cellstamp.source.read.tiles import TileReader

    whole, frame, write, sync = (Meter() for _ in range(4))
    job.task()(batches[0])  # the first batch of a process is slower; it is measured with the whole run
    task, wire, bare, batch_bytes = job.task(), _Wire(), _Bare(folder / "bare.h5", job.layout()), []
    with frame.running():
        writer = StampWriter(folder / "ours.h5sc", job.layout(), folder / "journal", {})
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
                writer.write(stamps.rows, stamps.sizes, stamps.payload, stamps.n_empty, stamps.on_edge)
            if not number % 2:
                bare.write(stamps)
        with sync.running():
            writer.flush()
    bare.close()
    rest = whole.without(read, cut, encode)
    meters |= {"read": read, "cut": cut, "encode": encode, "rest of the task": rest}
    meters |= {"send": wire.send, "receive": wire.receive}
    meters |= {"frame": frame, "write": write, "sync": sync, "bare write": bare.meter}
    return batch_bytes


if __name__ == "__main__":
    print(json.dumps(_measure_here(**json.loads(sys.argv[1]))))
