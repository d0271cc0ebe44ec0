"""Values of a column of cells: to sort and filter cells by, and to count in a histogram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

MOST_CATEGORIES = 200
"""Largest number of different texts in a category: nobody ticks one of a thousand boxes."""

Kind = Literal["number", "category", "text"]


@dataclass(frozen=True)
class Values:
    """A column of cells.

    Attributes
    ----------
    kind
        "number"; "category" for booleans, categories, and texts with few different values; "text" for other texts.
    numbers
        (n_cells,): floats, NaN if missing. Of texts and categories, int32 indices of the labels, -1 if missing.
    labels
        Different texts, in the order in which they are sorted; empty for numbers.
    """

    kind: Kind
    numbers: NDArray[Any]
    labels: tuple[str, ...] = ()

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Cells without a value: bool (n_cells,)."""
        return np.isnan(self.numbers) if self.kind == "number" else self.numbers < 0


def text_of(value: Any) -> str:
    """Return a value for readers."""
    if value is None or value is pd.NA or value != value:
        return "missing"
    if isinstance(value, float | np.floating):
        return f"{value:.6g}" if value % 1 else f"{value:.0f}"
    return str(value)


def values_of(column: Any) -> Values:
    """Return a column of any type as values."""
    series = pd.Series(column)
    if isinstance(series.dtype, pd.CategoricalDtype):
        return _categories(series.cat.codes.to_numpy(), series.cat.categories)
    if pd.api.types.is_bool_dtype(series.dtype):
        known = series.notna().to_numpy()
        codes = np.where(known, series.where(known, other=False).to_numpy(bool), -1)
        return Values("category", codes.astype(np.int32), ("False", "True"))
    if pd.api.types.is_numeric_dtype(series.dtype):
        kept = series.dtype in (np.float32, np.float64)
        return Values("number", series.to_numpy() if kept else series.to_numpy(np.float64, na_value=np.nan))
    codes, labels = pd.factorize(series, sort=True)
    return _categories(codes, labels)


def _categories(codes: NDArray[Any], labels: Any) -> Values:
    kind: Kind = "category" if len(labels) <= MOST_CATEGORIES else "text"
    return Values(kind, codes.astype(np.int32), tuple(map(str, labels)))


def sorted_rows(values: Values, rows: NDArray[np.int64], *, descending: bool) -> NDArray[np.int64]:
    """Return rows in the order of their values; cells without a value come last, equal ones stay in their order."""
    numbers, missing = values.numbers[rows], values.missing[rows]
    known = rows[~missing]
    # negative numbers, not a reversed order: equal cells stay in the order of the file
    keys = numbers[~missing].astype(np.float64) * (-1 if descending else 1)
    return np.concatenate([known[np.argsort(keys, kind="stable")], rows[missing]])


def in_range(values: Values, low: float | None, high: float | None) -> NDArray[np.bool_]:
    """Return which cells have a number from `low` to `high`, both included; None: no limit on this side."""
    fits = ~values.missing
    if low is not None:
        fits &= values.numbers >= low
    if high is not None:
        fits &= values.numbers <= high
    return fits


def in_categories(values: Values, labels: Sequence[str]) -> NDArray[np.bool_]:
    """Return which cells have one of these labels."""
    wanted = [number for number, label in enumerate(values.labels) if label in set(labels)]
    return np.isin(values.numbers, wanted)


@dataclass(frozen=True)
class Histogram:
    """Numbers of cells by value.

    Attributes
    ----------
    counts
        int64 (n_bins,), or of each label.
    low, high
        Edges of the first and the last bin; of categories, None.
    n_missing
        Number of cells without a value.
    """

    counts: NDArray[np.int64]
    low: float | None
    high: float | None
    n_missing: int


def histogram_of(values: Values, rows: NDArray[np.int64], n_bins: int) -> Histogram:
    """Count cells by value, in bins of equal width between the smallest and the largest value of all cells."""
    chosen, n_missing = values.numbers[rows], int(values.missing[rows].sum())
    if values.kind != "number":
        counts = np.bincount(chosen[chosen >= 0], minlength=len(values.labels))
        return Histogram(counts.astype(np.int64), None, None, n_missing)
    finite = values.numbers[np.isfinite(values.numbers)]
    if not finite.size:
        return Histogram(np.zeros(n_bins, np.int64), None, None, n_missing)
    low, high = float(finite.min()), float(finite.max())
    within = chosen[np.isfinite(chosen)].astype(np.float64)
    # numpy refuses ranges that are too narrow for bins of large numbers
    shares = (within - low) / (high - low) if high > low else np.full(within.size, 0.5)
    counts, _ = np.histogram(shares, n_bins, (0, 1))
    return Histogram(counts.astype(np.int64), low, high, n_missing)
