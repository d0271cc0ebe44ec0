"""Extrapolate the measured stages to more workers than this machine has.

Workers read, cut, encode and send; the caller receives and writes. Costs are seconds of a core per cell. With ``cores``
cores for the workers and the caller, a run extracts at most ``cores / (worker + caller)`` cells per second. The caller
uses one core, so the limit is ``1 / caller`` for any number of workers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .results import table

WORKERS = (2, 16, 80)
_QUEUED = 2
"""Maximum number of finished batches of each worker that wait for the caller."""

_WORKER_STAGES = ("cut", "encode", "rest of the task", "send")
_CALLER_STAGES = ("receive", "write", "sync")


@dataclass(frozen=True)
class Costs:
    """Measured costs.

    Attributes
    ----------
    read
        Microseconds of a core per megapixel of the image, for all channels and masks.
    worker, caller
        Microseconds of a core per cell, without reading.
    centres, plan
        Microseconds of a core per megapixel of a mask, and per cell.
    pixels
        Megapixels per cell.
    file_bytes
        Size of the file per cell, in bytes.
    batch_mib
        Size of a batch in flight, in MiB.
    """

    read: float
    worker: float
    caller: float
    centres: float
    plan: float
    pixels: float
    file_bytes: float
    batch_mib: float

    @classmethod
    def of(cls, stages: dict[str, Any]) -> Costs:
        """Read the costs from the measured stages of one sample."""
        cost = {name: one["core_us"] for name, one in stages["stages"].items()}
        pixels = stages["megapixels"] / stages["cells"]
        return cls(
            read=cost["read"] / pixels,
            worker=sum(cost[name] for name in _WORKER_STAGES),
            caller=sum(cost[name] for name in _CALLER_STAGES),
            centres=cost["centres"] / pixels,
            plan=cost["plan"] + cost["frame"],
            pixels=pixels,
            file_bytes=stages["file_bytes_per_cell"],
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
    """Return the limits, and the costs of a large slide, as Markdown."""
    if not report["stages"]:
        raise SystemExit("these results have no stages: run `python -m benchmarks stages` first")
    name, stages = max(report["stages"].items(), key=lambda item: item[1]["cells"])
    costs, memory = Costs.of(stages), Memory.of(report)
    worker, caller = costs.by_worker(costs.pixels), costs.caller
    return "\n\n".join(
        [
            f"From {name}: {worker:.0f} µs of a core per cell in the workers, {caller:.1f} in the caller. The "
            f"caller writes up to {1e6 / caller:,.0f} cells/s, the output of {costs.saturation():.1f} workers.",
            _limits(costs),
            f"A slide of {slide_side:,} x {slide_side:,} pixels with {slide_cells:,} cells:",
            _slide(costs, memory, slide_side, slide_cells),
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
        extract = cells / costs.rate(workers, megapixels / cells) + costs.plan * cells / 1e6
        mib = "not measured" if memory is None else f"{memory.of_run(workers, cells, costs.batch_mib) / 1024:,.1f} GiB"
        rows.append([str(workers), _duration(centres), _duration(extract), mib, f"{disk:,.0f} GB", "0"])
    header = ("workers", "centres (once)", "extraction", "memory", "file", "scratch")
    return table(header, rows, markdown=True)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
