"""Draw sweeps in colours for light and dark pages, with a transparent background."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

INK = "#808080"
BLUE, ORANGE, GREEN = "#3b8fd6", "#e08214", "#2ca25f"

STYLE = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.3,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "savefig.transparent": True,
    "svg.hashsalt": "cellstamp",
}

Run = dict[str, float]


def draw(report: dict[str, Any], folder: Path) -> list[Path]:
    """Draw every sweep of a report, and return the files."""
    import matplotlib as mpl

    mpl.use("svg")
    folder.mkdir(parents=True, exist_ok=True)
    sweeps = {
        name: [(value, report["runs"][key]) for value, key in points if key in report["runs"]]
        for name, points in report["sweeps"].items()
    }
    with mpl.rc_context(STYLE):
        return [PLOTS[name](points, folder) for name, points in sweeps.items() if name in PLOTS and points]


def _panels(n: int) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * n, 2.9), layout="constrained")
    return figure, list(figure.subplots(1, n, squeeze=False)[0])


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    return path


def _line(axes: Any, xs: list[float], ys: list[float], title: str, xlabel: str, colour: str) -> None:
    axes.plot(xs, ys, "o-", color=colour, linewidth=2, markersize=6)
    axes.set(title=title, xlabel=xlabel, ylim=(0, 1.15 * max(ys)), xlim=(0, 1.06 * max(xs)))
    axes.locator_params(axis="x", nbins=4)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:,.10g}")


def _growth(points: list[tuple[Any, Run]], folder: Path) -> Path:
    figure, (seconds, cost, memory) = _panels(3)
    runs = [run for _, run in points]
    cells = [run["cells"] for run in runs]
    _line(seconds, cells, [run["seconds"] for run in runs], "seconds", "cells", BLUE)
    after = [run["us_per_cell_after_first"] for run in runs]
    _line(cost, cells, after, "µs per cell, after the first batch", "cells", ORANGE)
    _line(memory, cells, [run["pss_mib"] for run in runs], "peak memory, MiB (PSS)", "cells", GREEN)
    return _save(figure, folder / "growth.svg")


def _lines(name: str, xlabel: str) -> Callable[[list[tuple[Any, Run]], Path], Path]:
    def plot(points: list[tuple[Any, Run]], folder: Path) -> Path:
        figure, (cost, memory, size) = _panels(3)
        xs = [value for value, _ in points]
        _line(cost, xs, [run["core_us_per_cell"] for _, run in points], "µs of one core per cell", xlabel, ORANGE)
        _line(memory, xs, [run["pss_mib"] for _, run in points], "peak memory, MiB (PSS)", xlabel, GREEN)
        kib = [run["file_bytes"] / run["cells"] / 1024 for _, run in points]
        _line(size, xs, kib, "KiB in the file per cell", xlabel, BLUE)
        for axes in (cost, memory, size):
            axes.set_xticks(xs)
        return _save(figure, folder / f"{name}.svg")

    return plot


def _bars(name: str, *columns: tuple[str, str, str]) -> Callable[[list[tuple[Any, Run]], Path], Path]:
    def plot(points: list[tuple[Any, Run]], folder: Path) -> Path:
        figure, panels = _panels(len(columns))
        labels = [str(value) for value, _ in points]
        for axes, (key, title, colour) in zip(panels, columns, strict=True):
            bars = axes.bar(labels, [_value(run, key) for _, run in points], color=colour, width=0.6)
            axes.bar_label(bars, fmt="{:,.0f}", color=INK, padding=2)
            axes.set(title=title)
            axes.margins(y=0.15)
            axes.tick_params(axis="x", rotation=20 if max(map(len, labels)) > 6 else 0)
        return _save(figure, folder / f"{name}.svg")

    return plot


def _value(run: Run, key: str) -> float:
    return run["file_bytes"] / run["cells"] / 1024 if key == "kib_per_cell" else run[key]


_SPEED = ("cells_per_s", "cells per second", BLUE)
_COST = ("core_us_per_cell", "µs of one core per cell", ORANGE)
_MEMORY = ("pss_mib", "peak memory, MiB (PSS)", GREEN)

PLOTS: dict[str, Callable[[list[tuple[Any, Run]], Path], Path]] = {
    "cells": _growth,
    "crop": _lines("crop", "side of a crop, pixels"),
    "channels": _lines("channels", "image channels"),
    "compression": _bars("compression", _SPEED, _COST, ("kib_per_cell", "KiB in the file per cell", BLUE)),
    "workers": _bars("workers", _SPEED, _COST, _MEMORY),
    "cells-and-crops": _bars("cells-and-crops", _SPEED, _COST, _MEMORY),
}
