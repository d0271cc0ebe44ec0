"""Measure complete extractions while varying one setting at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from .extraction import Case, extract
from .sample import Sample

Sweeps = dict[str, list[tuple[Any, Case]]]
"""Points of each sweep, by its name: value shown, and case."""


def plan_sweeps(*, quick: bool = False) -> Sweeps:
    """Return the sweeps. All but the first vary one base case, with 6000 pixels and two workers.

    Parameters
    ----------
    quick
        Use tiny samples and few points, to test the benchmarks.
    """
    base = Case(Sample(side=1000, chunk=500) if quick else Sample())
    side = base.sample.side
    small = replace(base.sample, side=side // 2, spacing=24, radius=(8.0, 11.0))
    large = replace(base.sample, spacing=120, radius=(45.0, 62.0))
    sides = (600, 1000) if quick else (3000, 6000, 12000)
    channels = (1, 3) if quick else (1, 3, 8, 20)
    odd_crops = [(small, 64, "small"), (small, 256, "small"), (large, 64, "large"), (large, 192, "large")]
    return {
        "cells": [(n, replace(base, sample=replace(base.sample, side=n))) for n in sides],
        "crop": [(n, replace(base, image_size=n)) for n in (64, 128, 256)],
        "channels": [(n, replace(base, sample=replace(base.sample, channels=n))) for n in channels],
        "compression": [(name or "none", replace(base, compression=name)) for name in (False, "lzf", "gzip")],
        "format": [(name, replace(base, file_format=name)) for name in ("h5sc", "zarr")],
        "workers": [(n, replace(base, workers=n)) for n in (1, 2)],
        "cells-and-crops": [
            (f"{name}, {size}", Case(sample, image_size=size))
            for sample, size, name in odd_crops[: 2 if quick else None]
        ],
    }


def choose(sweeps: Sweeps, names: Iterable[str]) -> Sweeps:
    """Return some of the sweeps, by name.

    Raises
    ------
    SystemExit
        If a name is unknown.
    """
    names = list(names)
    unknown = [name for name in names if name not in sweeps]
    if unknown:
        raise SystemExit(f"no sweep named {', '.join(unknown)}; the sweeps are {', '.join(sweeps)}")
    return {name: points for name, points in sweeps.items() if name in names}


def run_sweeps(
    sweeps: Sweeps, rounds: int, data: Path, save: Callable[[dict[str, Any]], None], measure: Any = extract
) -> dict[str, Any]:
    """Measure every case once in each round, so that drift of the machine affects all; return the medians.

    Parameters
    ----------
    save
        Called with the medians after every round, so that an interrupted run leaves results.
    """
    cases = {case.key: case for points in sweeps.values() for _, case in points}
    for case in cases.values():
        case.sample.store(data)
    measure(min(cases.values(), key=lambda case: case.sample.side), data)  # compile before measuring
    seen: dict[str, list[dict[str, float]]] = {key: [] for key in cases}
    for number in range(1, rounds + 1):
        for key, case in cases.items():
            seen[key].append(measure(case, data))
            last = seen[key][-1]
            print(
                f"round {number}/{rounds}  {key:60s} {last['seconds']:7.2f} s  {last['cells_per_s']:6.0f}/s", flush=True
            )
        medians = {key: summarise(values) for key, values in seen.items()}
        save(medians)
    return medians


def summarise(rounds: list[Any]) -> Any:
    """Return the median of every number in results of the same shape."""
    first = rounds[0]
    if isinstance(first, Mapping):
        return {key: summarise([one[key] for one in rounds]) for key in first}
    return median(rounds)


def points_of(sweeps: Sweeps) -> dict[str, list[tuple[Any, str]]]:
    """Return the sweeps for the results, with the key of each case."""
    return {name: [(value, case.key) for value, case in points] for name, points in sweeps.items()}
