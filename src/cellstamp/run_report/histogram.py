"""Draw a histogram as SVG inside the page, so that it takes the colours of the page."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

import numpy as np
from numpy.typing import NDArray

_BINS, _PER_BIN = (10, 40), 8
"""Smallest and largest number of bars, and cells for each bar in between."""
_WIDTH, _HEIGHT, _LABELS = 400, 110, 20
"""Size of the bars, and height of the labels below them."""
_TAILS = (0.005, 0.995)
"""Quantiles of the outer edges; cells beyond are in the outer bars."""


def histogram(values: NDArray[np.float64], title: str, unit: str) -> str:
    """Return the histogram of finite values as an element ``svg``; its bars are named with their numbers of cells."""
    counts, edges = binned(values)
    label = f"Histogram of {title}: {values.size:,} cells, median {in_digits(float(np.median(values)))} {unit}"
    parts = [*_bars(counts, edges), *_axis(values, edges, unit)]
    size = f"0 0 {_WIDTH} {_HEIGHT + _LABELS}"
    return f'<svg viewBox="{size}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def binned(values: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the number of values in each bin, and the edges of the bins."""
    low, high = np.quantile(values, _TAILS).tolist()
    if not high > low:
        return np.array([values.size]), np.array([low, low])
    n_bins = int(np.clip(values.size // _PER_BIN, *_BINS))
    edges = np.linspace(low, high, n_bins + 1)
    places = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, n_bins - 1)
    return np.bincount(places, minlength=n_bins), edges


def in_digits(value: float) -> str:
    """Return a number with three digits, or as an integer if it is large."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _bars(counts: NDArray[np.int64], edges: NDArray[np.float64]) -> Iterator[str]:
    width, most = _WIDTH / counts.size, int(counts.max())
    for number, count in enumerate(counts.tolist()):
        height = (_HEIGHT - 4) * count / most
        name = f"{in_digits(edges[number])} to {in_digits(edges[number + 1])}: {count:,}"
        place = f'x="{number * width:.1f}" y="{_HEIGHT - height:.1f}" width="{width - 1:.1f}" height="{height:.1f}"'
        yield f'<rect {place} data-count="{count}"><title>{name}</title></rect>'


def _axis(values: NDArray[np.float64], edges: NDArray[np.float64], unit: str) -> Iterator[str]:
    yield f'<line x1="0" y1="{_HEIGHT}" x2="{_WIDTH}" y2="{_HEIGHT}"/>'
    low, high = edges[0], edges[-1]
    lower, upper = "≤ " * bool(values.min() < low), "≥ " * bool(values.max() > high)
    marks = [(0, "start", f"{lower}{in_digits(low)}"), (_WIDTH // 2, "middle", unit)]
    for x, anchor, text in [*marks, (_WIDTH, "end", f"{upper}{in_digits(high)}")]:
        yield f'<text x="{x}" y="{_HEIGHT + 15}" text-anchor="{anchor}">{escape(text)}</text>'
