"""Run extractions of one store with several configurations in turn, and compare the medians."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from .extraction import run_module

COMPARED = ("seconds", "core_us_per_cell", "pss_mib")

Runs = dict[str, list[dict[str, Any]]]


def extract_with(store: Path, keys: Mapping[str, Any], data: Path, workers: int) -> dict[str, Any]:
    """Extract once with these keys of the configuration, and return the measurements."""
    with tempfile.TemporaryDirectory(dir=data, prefix="run-") as folder:
        cache = Path(folder) / "cache"
        cache.mkdir()
        config = {"threads": workers, "image_size": 128, "cache": str(cache), "progress": False, **keys}
        return run_module("extraction", {"store": str(store), "config": config, "folder": folder}, scratch=cache)


def run_in_turn(store: Path, cases: Mapping[str, Mapping[str, Any]], data: Path, workers: int, rounds: int) -> Runs:
    """Extract with the keys of each case in turn; the first round only fills caches."""
    runs: Runs = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, keys in sorted(cases.items(), reverse=bool(number % 2)):
            run = extract_with(store, keys, data, workers)
            print(
                f"{number} {name}: {run['seconds']:.2f} s, {run['cells']} cells, {run['pss_mib']:.0f} MiB", flush=True
            )
            runs[name] += [run] if number else []
    return runs


def compare(runs: Runs, name: str, other: str) -> None:
    """Print the medians of two cases, and their ratios."""
    for what in COMPARED:
        mine, theirs = (median(run[what] for run in runs[each]) for each in (name, other))
        print(f"{what}: {name} {mine:.4g}, {other} {theirs:.4g}, ratio {mine / theirs:.3f}")
