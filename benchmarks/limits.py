"""Extrapolate the measured stages to more workers than this machine has.

Workers read, cut, encode and send; the caller receives and writes. With `file_format: zarr`, workers also write, and
the caller only records what they have written. Costs are seconds of a core per cell. With ``cores`` cores for the
workers and the caller, a run extracts at most ``cores / (worker + caller)`` cells per second. The caller uses one core,
so the limit is ``1 / caller`` for any number of workers. On a cluster, all workers have cores of their own, and the
scheduler is a limit, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .results import table

WORKERS = (2, 16, 80, 400)
FORMATS = ("h5sc", "zarr")
_QUEUED = 2
"""Maximum number of finished batches of each worker that wait for the caller."""

_WORKER_STAGES = ("cut", "encode", "rest of the task", "write shard", "send")
_CALLER_STAGES = ("receive", "write", "record", "sync")
_ONCE = ("plan", "frame", "tables")


@dataclass(frozen=True)
class Costs:
    """Measured costs.

    Attributes
    ----------
    read
        Microseconds of a core per megapixel of the image, for all channels and masks.
    worker, caller
        Microseconds of a core per cell, without reading.
    centres, once
        Microseconds of a core per megapixel of a mask; and per cell, before and after all batches.
    pixels
        Megapixels per cell.
    file_bytes
        Size of the file per cell, in bytes.
    batch_cells
        Number of cells in a batch.
    batch_mib
        Size of a batch in flight, in MiB.
    """

    read: float
    worker: float
    caller: float
    centres: float
    once: float
    pixels: float
    file_bytes: float
    batch_cells: float
    batch_mib: float

    @classmethod
    def of(cls, stages: dict[str, Any]) -> Costs:
        """Read the costs from the measured stages of one sample."""
        cost = {name: one["core_us"] for name, one in stages["stages"].items()}
        pixels = stages["megapixels"] / stages["cells"]
        worker, caller, once = (
            sum(cost.get(name, 0.0) for name in names) for names in (_WORKER_STAGES, _CALLER_STAGES, _ONCE)
        )
        return cls(
            read=cost["read"] / pixels,
            worker=worker,
            caller=caller,
            centres=cost["centres"] / pixels,
            once=once,
            pixels=pixels,
            file_bytes=stages["file_bytes_per_cell"],
            batch_cells=stages["cells"] / stages["batches"],
            batch_mib=stages["batch_mib"],
        )

    def by_worker(self, pixels: float) -> float:
        """Return the microseconds of a worker per cell, for an image with `pixels` megapixels per cell."""
        return self.worker + self.read * pixels

    def rate(self, workers: int, pixels: float) -> float:
        """Return the cells per second, with as many cores as workers."""
        return 1e6 * min(workers / (self.by_worker(pixels) + self.caller), 1 / self.caller)

    def saturation(self) -> float:
        """Return the number of workers that keep the caller busy."""
        return (self.by_worker(self.pixels) + self.caller) / self.caller


@dataclass(frozen=True)
class Memory:
    """Measured memory in MiB: of the caller at the start, of a worker, and of the caller per cell."""

    caller: float
    worker: float
    per_cell: float

    @classmethod
    def of(cls, report: dict[str, Any]) -> Memory | None:
        """Fit the smallest and the largest extraction with two workers; return None if they are missing."""
        runs = [report["runs"][key] for _, key in report["sweeps"].get("cells", []) if key in report["runs"]]
        if len(runs) < 2:
            return None
        first, last = (pick(runs, key=lambda run: run["cells"]) for pick in (min, max))
        slope = (last["pss_caller_mib"] - first["pss_caller_mib"]) / (last["cells"] - first["cells"])
        per_cell = max(0.0, slope)
        worker = max(run["pss_workers_mib"] for run in runs) / 2
        return cls(first["pss_caller_mib"] - per_cell * first["cells"], worker, per_cell)

    def of_run(self, workers: int, cells: int, batch_mib: float) -> float:
        """Return the memory of a run in MiB, with a full queue for every worker."""
        return self.caller + self.per_cell * cells + workers * (self.worker + _QUEUED * batch_mib)


def report_limits(report: dict[str, Any], *, slide_side: int = 100_000, slide_cells: int = 5_000_000) -> str:
    """Return the limits, and the costs of a large slide, for each format, as Markdown."""
    if not report["stages"]:
        raise SystemExit("these results have no stages: run `python -m benchmarks stages` first")
    memory = Memory.of(report)
    largest = {name: _largest(report["stages"], name) for name in FORMATS}
    parts = [_of_format(name, *found, memory, slide_side, slide_cells) for name, found in largest.items() if found]
    costs = {name: Costs.of(found[1]) for name, found in largest.items() if found}
    if clusters := {name: cost for name, cost in report.get("clusters", {}).items() if name in costs}:
        parts.append(_clusters(costs, clusters))
    return "\n\n".join(parts)


def _largest(stages: dict[str, Any], file_format: str) -> tuple[str, Any] | None:
    """Return the name and the stages of the sample with the most cells."""
    found = [(name, one) for name, one in stages.items() if name.endswith(" zarr") == (file_format == "zarr")]
    return max(found, key=lambda item: item[1]["cells"], default=None)


def _of_format(
    file_format: str, name: str, stages: dict[str, Any], memory: Memory | None, side: int, cells: int
) -> str:
    costs = Costs.of(stages)
    worker, caller = costs.by_worker(costs.pixels), costs.caller
    does = "writes up to" if file_format == "h5sc" else "records up to"
    return "\n\n".join(
        [
            f"{file_format}, from {name}: {worker:.0f} µs of a core per cell in the workers, {caller:.1f} in the "
            f"caller. The caller {does} {1e6 / caller:,.0f} cells/s, the output of {costs.saturation():,.1f} workers.",
            _limits(costs),
            f"A slide of {side:,} x {side:,} pixels with {cells:,} cells:",
            _slide(costs, memory, side, cells),
        ]
    )


def _limits(costs: Costs) -> str:
    rows = []
    for workers in WORKERS:
        rate = costs.rate(workers, costs.pixels)
        busy = rate * costs.caller / 1e6
        megabytes = rate * costs.file_bytes / 1e6
        limit = "the caller" if busy > 0.999 else "the workers"
        rows.append([str(workers), f"{rate:,.0f}", limit, f"{busy:.0%}", f"{megabytes:,.0f}"])
    return table(("workers", "cells/s", "limited by", "caller busy", "MB/s written"), rows, markdown=True)


def _slide(costs: Costs, memory: Memory | None, side: int, cells: int) -> str:
    megapixels = side**2 / 1e6
    disk = cells * costs.file_bytes / 1e9
    rows = []
    for workers in WORKERS:
        centres = costs.centres * megapixels / workers / 1e6
        extract = cells / costs.rate(workers, megapixels / cells) + costs.once * cells / 1e6
        mib = "not measured" if memory is None else f"{memory.of_run(workers, cells, costs.batch_mib) / 1024:,.1f} GiB"
        rows.append([str(workers), _duration(centres), _duration(extract), mib, f"{disk:,.0f} GB", "0"])
    header = ("workers", "centres (once)", "extraction", "memory", "file", "scratch")
    return table(header, rows, markdown=True)


def _clusters(costs: dict[str, Costs], clusters: dict[str, Any]) -> str:
    """Return the limits on a dask cluster, where workers have cores of their own."""
    rows, notes = [], ["On a dask cluster:"]
    for name, cluster in clusters.items():
        cost = costs[name]
        caller = cost.caller + cluster["caller_us_per_batch"] / cost.batch_cells
        scheduler = cluster["scheduler_us_per_batch"] / cost.batch_cells
        notes.append(f"{name}: {caller:.1f} µs of a core per cell in the caller, {scheduler:.1f} in the scheduler.")
        for workers in WORKERS:
            by_workers = 1e6 * workers / cost.by_worker(cost.pixels)
            limits = {"the workers": by_workers, "the caller": 1e6 / caller, "the scheduler": 1e6 / scheduler}
            limit, rate = min(limits.items(), key=lambda item: item[1])
            received = rate / cost.batch_cells * cost.batch_mib * 2**20 / 1e6
            megabytes = [rate * cost.file_bytes / 1e6, received]
            rows.append([str(workers), name, f"{rate:,.0f}", limit, *(f"{each:,.1f}" for each in megabytes)])
    header = ("workers", "format", "cells/s", "limited by", "MB/s written", "MB/s to the caller")
    return "\n\n".join([*notes, table(header, rows, markdown=True)])


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
