"""Save results as JSON, print them as tables, and compare them with an earlier run."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("numpy", "numba", "zarr", "h5py", "anndata", "imagecodecs", "spatialdata")

_COSTS = ("core_us", "wall_us")
STAGE_HEADER = ("stage", "core us/cell", "us/cell", "before", "now/before")
RUN_HEADER = (
    *("", "cells", "s", "cells/s", "core us/cell", "us/cell*", "caller us/cell*", "first s", "PSS MiB", "file MB"),
    "cache MB",
    *("before s", "now/before"),
)


def machine() -> dict[str, Any]:
    """Return the machine, the commit and the versions of a measurement."""
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "commit": _git("rev-parse", "--short", "HEAD") + ("+" if _git("status", "--porcelain", "src") else ""),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _git(*arguments: str) -> str:
    try:
        run = subprocess.run(["git", *arguments], cwd=RESULTS.parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return run.stdout.strip()


def new_path(report: dict[str, Any]) -> Path:
    """Return the default path of results, named by date and commit."""
    now = datetime.fromisoformat(report["machine"]["date"])
    quick = "-quick" if report["quick"] else ""
    return RESULTS / f"{now:%Y%m%d-%H%M%S}-{report['machine']['commit'] or 'unknown'}{quick}.json"


def save(report: dict[str, Any], path: Path) -> None:
    """Write results atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    aside.replace(path)


def load(path: Path) -> dict[str, Any]:
    """Read results."""
    return json.loads(path.read_text(encoding="utf-8"))


def latest(*, quick: bool | None, with_: str | None = None, but: Path | None = None) -> Path | None:
    """Return the latest results of a quick or full run (None: either) that have a part `with_`, except one file."""
    found = []
    for path in RESULTS.glob("*.json"):
        report = load(path)
        if (
            (quick is None or report["quick"] == quick)
            and (with_ is None or report.get(with_))
            and not (but and path.samefile(but))
        ):
            found.append((report["machine"]["date"], path))
    return max(found)[1] if found else None


def tables(report: dict[str, Any], before: dict[str, Any] | None) -> str:
    """Return all tables for a terminal. Ratios compare with the earlier run: below 1 is better."""
    before = before or {}
    parts = [_stages(name, one, before.get("stages", {}).get(name, {})) for name, one in report["stages"].items()]
    old = before.get("runs", {})
    runs = report["runs"]
    for name, points in report["sweeps"].items():
        rows = [_run_row(str(value), runs[key], old.get(key, {})) for value, key in points if key in runs]
        parts.append(f"{name}\n{table(RUN_HEADER, rows)}")
    notes = ["* after the first batch was written"] if report["sweeps"] else []
    if imports := report.get("imports"):
        notes.append("  ".join(f"{name}: {seconds:.3f} s" for name, seconds in imports.items()))
    if before:
        notes.append(_compared(report["machine"], before["machine"]))
    return "\n\n".join([*parts, *notes])


def _compared(now: dict[str, Any], before: dict[str, Any]) -> str:
    same = now["cpu"] == before["cpu"] and now["cores"] == before["cores"]
    warning = "" if same else " - ANOTHER MACHINE: ratios mean nothing"
    return f"compared with {before['commit']} of {before['date']} ({before['cpu']}){warning}"


def _stages(name: str, measured: dict[str, Any], before: dict[str, Any]) -> str:
    old = before.get("stages", {})
    rows = []
    for stage, cost in (measured["stages"] | _sums(measured["stages"])).items():
        last = (old | _sums(old)).get(stage, {}).get("core_us")
        rows.append([stage, _number(cost["core_us"]), _number(cost["wall_us"]), *_ratio(cost["core_us"], last)])
    alone = 1e6 / measured["stages"]["record" if "record" in measured["stages"] else "write"]["core_us"]
    decodes = ", ".join(f"{n:.2f} with {k} workers" for k, n in measured["decodes_per_chunk"].items())
    return (
        f"{name}: {measured['cells']:.0f} cells, {measured['batches']:.0f} batches of {measured['batch_mib']:.1f} MiB\n"
        f"{table(STAGE_HEADER, rows)}\n"
        f"bare loop / our writing: {measured['bare_by_ours_cpu']:.0%} (cpu), {measured['bare_by_ours_wall']:.0%} (wall)"
        f"; the writer alone: {alone:,.0f} cells/s"
        f"; file {measured['file_bytes_per_cell']:,.0f} bytes/cell\ndecodes of a chunk: {decodes}"
    )


def _sums(stages: dict[str, Any]) -> dict[str, Any]:
    """Return the costs of some stages together: those of the caller for each cell, and all of a run."""
    if not stages:
        return {}
    all_ = [name for name in stages if name not in ("centres", "bare write")]
    caller = ["receive", "record", "sync"] if "record" in stages else ["receive", "write"]
    groups = {" + ".join(caller): caller, "all without centres": all_}
    return {name: {key: sum(stages[one][key] for one in of) for key in _COSTS} for name, of in groups.items()}


def _run_row(name: str, run: dict[str, float], before: dict[str, float]) -> list[str]:
    keys = (
        "cells",
        "seconds",
        "cells_per_s",
        "core_us_per_cell",
        "us_per_cell_after_first",
        "caller_us_per_cell",
        "first_batch_s",
        "pss_mib",
    )
    megabytes = [run["file_bytes"] / 1e6, run["cache_bytes"] / 1e6]
    # results of earlier versions lack some
    numbers = ["" if n is None else _number(n) for n in (*(run.get(key) for key in keys), *megabytes)]
    return [name, *numbers, *_ratio(run["seconds"], before.get("seconds"))]


def _ratio(now: float, before: float | None) -> list[str]:
    return ["", ""] if not before else [_number(before), f"{now / before:.2f}"]


def _number(n: float) -> str:
    return f"{n:,.0f}" if abs(n) >= 100 or n == int(n) else f"{n:.3g}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool = False) -> str:
    """Format a table: the first column aligned left, numbers aligned right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(header))]
    texts = [
        [cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(line, widths, strict=True))]
        for line in lines
    ]
    if not markdown:
        return "\n".join("  ".join(cells).rstrip() for cells in texts)
    rule = ["-" * widths[0], *(f"{'-' * (w - 1)}:" for w in widths[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (texts[0], rule, *texts[1:]))
