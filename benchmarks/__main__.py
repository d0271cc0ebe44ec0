"""Measure stages and extractions, compare with the previous run, and draw plots."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import limits, plots, results
from .extraction import Case
from .sample import DATA, Sample
from .stages import import_seconds, measure_stages
from .sweeps import choose, plan_sweeps, points_of, run_sweeps, summarise


def main() -> None:
    """Run the command line."""
    options = _parser().parse_args()
    if options.what in ("show", "limits"):
        path = options.source or results.latest(quick=None, with_="stages" if options.what == "limits" else None)
        if path is None:
            raise SystemExit(f"no results in {results.RESULTS}; measure first, or name a file with --from")
        report = results.load(path)
    else:
        report, path = _measure(options)
    if options.what == "limits":
        print(limits.report_limits(report))
        return
    before = options.against or results.latest(quick=report["quick"], with_=_part(report), but=path)
    print(f"\n{results.tables(report, results.load(before) if before else None)}\n\nresults: {path}")
    if options.plots is not None:
        print("plots:", *plots.draw(report, options.plots))


def _part(report: dict[str, Any]) -> str:
    """Return the part of a report that an earlier run needs for a comparison."""
    return "runs" if report["runs"] else "stages"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add(
        "what",
        nargs="?",
        default="all",
        choices=("stages", "sweeps", "all", "show", "limits"),
        help="stages: cost of each stage; sweeps: complete extractions; all: both; show: print earlier results and "
        "draw plots; limits: extrapolate to more workers and to a large slide",
    )
    add("--quick", action="store_true", help="tiny samples, one round: a test of the benchmarks")
    add("--rounds", type=int, help="number of rounds (default 3); the median is reported")
    add("--only", default="", metavar="NAMES", help="sweeps to run, separated by commas: cells,crop,channels,...")
    add("--out", type=Path, metavar="FILE", help="output file (default: benchmarks/results/DATE-COMMIT.json)")
    add("--against", type=Path, metavar="FILE", help="compare with these results (default: the latest in results/)")
    add("--from", type=Path, metavar="FILE", dest="source", help="results for show and limits (default: the latest)")
    add("--plots", type=Path, metavar="FOLDER", help="draw the sweeps as SVG into this folder")
    add("--data", type=Path, default=DATA, metavar="FOLDER", help="folder for samples (default: benchmarks/.data)")
    return parser


def _measure(options: argparse.Namespace) -> tuple[dict[str, Any], Path]:
    rounds = options.rounds or (1 if options.quick else 3)
    data = options.data.resolve()
    report: dict[str, Any] = {
        "machine": results.machine(),
        "quick": options.quick,
        "rounds": rounds,
        "imports": {},
        "stages": {},
        "sweeps": {},
        "runs": {},
    }
    path = options.out or results.new_path(report)
    if options.what in ("stages", "all"):
        _add_stages(report, rounds, data)
        results.save(report, path)
    if options.what in ("sweeps", "all"):
        sweeps = plan_sweeps(quick=options.quick)
        if options.only:
            sweeps = choose(sweeps, options.only.split(","))
        report["sweeps"] = points_of(sweeps)
        run_sweeps(sweeps, rounds, data, lambda runs: results.save(report | {"runs": runs}, path))
        report = results.load(path)
    return report, path


def _add_stages(report: dict[str, Any], rounds: int, data: Path) -> None:
    """Measure imports, and the stages on a small and a large sample."""
    statements = ("import cellstamp", "from cellstamp import HDF5CellExtraction")
    report["imports"] = {statement: import_seconds(statement) for statement in statements}
    base = Case(Sample(side=1000, chunk=500) if report["quick"] else Sample())
    for side in (1000,) if report["quick"] else (6000, 12000):
        for file_format in ("h5sc", "zarr"):
            case = replace(base, sample=replace(base.sample, side=side), file_format=file_format)
            report["stages"][case.key] = summarise([measure_stages(case, data) for _ in range(rounds)])
            print(f"measured the stages of {case.key}", flush=True)


if __name__ == "__main__":
    main()
