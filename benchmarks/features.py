"""Measure all cells of a sample with cellstamp, scikit-image, squidpy and scportrait in turn, and print one table.

Each tool uses one process. Ratios of CPU times within one run are of interest:

    python -m benchmarks.features --scportrait .venv-scportrait/bin/python --squidpy .venv/bin/python

Without these options, it runs cellstamp and scikit-image. Each run is a new process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from cellstamp import ConfigError, HDF5CellExtraction

from .peers import prepare
from .sample import DATA, Sample

TOOL = Path(__file__).with_name("feature_tools.py")
COMPARED = "cellstamp, measurement only"
BESIDE, WITHOUT = "cellstamp, beside single-cell images", "cellstamp, single-cell images without features"

Seen = dict[str, float]


@dataclass(frozen=True)
class Row:
    """A row of the table: the shown name, a tool of `feature_tools`, and its Python."""

    name: str
    tool: str
    python: str


def main() -> None:
    """Run the command line."""
    options = _parser().parse_args()
    sample = prepare(Sample(side=options.side), DATA / f"peers-{options.side}")
    rows = list(_rows(options))
    runs: dict[Row, list[Seen]] = {row: [] for row in rows}
    for number in range(options.rounds + 1):
        for row in rows:
            seen = run(row, sample)
            print(f"round {number} {row.name}: {seen['seconds']:.2f} s, CPU {seen['cpu_seconds']:.2f} s", flush=True)
            runs[row] += [seen] if number else []  # round 0 warms up compilers and caches
    print(table(runs))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.features", description=__doc__)
    parser.add_argument("--scportrait", metavar="PYTHON", help="Python interpreter with scportrait and cellstamp")
    parser.add_argument("--squidpy", metavar="PYTHON", help="Python interpreter with squidpy")
    parser.add_argument("--side", type=int, default=3000, help="side of the image in pixels (3000: about 3,600 cells)")
    parser.add_argument("--rounds", type=int, default=3, help="number of measured rounds, after one warm-up round")
    return parser


def _rows(options: argparse.Namespace) -> list[Row]:
    own = sys.executable
    only = [Row(COMPARED, "measure_only", own)] if has_measurement_only() else []
    peers = [
        Row("scikit-image, `regionprops_table`", "regionprops", own),
        Row("squidpy, `calculate_image_features`", "squidpy", _absolute(options.squidpy)),
        Row("scportrait, `CellFeaturizer`", "cellfeaturizer", _absolute(options.scportrait)),
    ]
    ours = [*only, Row(BESIDE, "measure_beside_images", own), Row(WITHOUT, "extraction", own)]
    return [*ours, *(row for row in peers if row.python)]


def has_measurement_only() -> bool:
    """Return whether this cellstamp can measure without single-cell images."""
    config = {"threads": 1, "image_size": 128, "features": True, "images": False}
    try:
        HDF5CellExtraction(config, ".", filehandler=".").check_config()
    except ConfigError:
        return False
    return True


def _absolute(python: str | None) -> str:
    return str(Path(python).absolute()) if python else ""


def run(row: Row, sample: Path) -> Seen:
    """Run one tool once."""
    with tempfile.TemporaryDirectory(dir=sample, prefix="run-") as folder:
        command = [row.python, str(TOOL), row.tool, str(sample), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{row.name} failed (exit code {done.returncode}):\n{done.stderr[-2000:]}")
    seen: Seen = json.loads(done.stdout.splitlines()[-1])
    return seen


def table(runs: dict[Row, Sequence[Seen]]) -> str:
    """Return median times as a Markdown table; CPU times are relative to measuring with cellstamp.

    If cellstamp cannot measure without images, that is the difference of extractions with features and without.
    """
    cpu = {row.name: _median(rounds, "cpu_seconds") for row, rounds in runs.items()}
    added = cpu[BESIDE] - cpu[WITHOUT]
    compared = cpu.get(COMPARED, added)
    lines = ["", "| | cells | features | seconds | CPU seconds | relative |", "|---|---:|---:|---:|---:|---:|"]
    for row, rounds in runs.items():
        sizes = f"{rounds[0]['cells']:,} | {rounds[0]['features']}" if rounds[0]["features"] else "|"
        seconds, own = _median(rounds, "seconds"), cpu[row.name]
        lines.append(f"| {row.name} | {sizes} | {seconds:.2f} | {own:.2f} | {own / compared:.1f} |")
    return "\n".join([*lines, "", f"Features add {added:.2f} CPU seconds to an extraction."])


def _median(rounds: Sequence[Seen], what: str) -> float:
    return median(seen[what] for seen in rounds)


if __name__ == "__main__":
    main()
