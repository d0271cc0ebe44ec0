"""A view: the cells that pass filters, in an order, or a random sample of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import ConfigError
from cellstamp.gallery.columns import Columns
from cellstamp.gallery.values import Values, in_categories, in_range, sorted_rows


@dataclass(frozen=True)
class Filter:
    """A condition on a column: a range of numbers, or labels.

    Attributes
    ----------
    low, high
        Both included; None: no limit on this side.
    labels
        Allowed labels of a category; None: the condition is a range.
    """

    column: str
    low: float | None = None
    high: float | None = None
    labels: tuple[str, ...] | None = None

    def passing(self, values: Values) -> NDArray[np.bool_]:
        """Return which cells pass: bool (n_cells,)."""
        if self.labels is not None:
            return in_categories(values, self.labels)
        return in_range(values, self.low, self.high)


@dataclass(frozen=True)
class View:
    """Filters, order and sample.

    Attributes
    ----------
    sort
        Column; None: the order of the file.
    sample
        Number of cells drawn at random of those that pass; None: all.
    """

    filters: tuple[Filter, ...] = ()
    sort: str | None = None
    descending: bool = False
    sample: int | None = None
    seed: int = 0

    def rows(self, columns: Columns, n_cells: int) -> NDArray[np.int64]:
        """Return the rows of the cells, in order: int64 (n,)."""
        rows = self._sampled(self.passing(columns, n_cells))
        if self.sort is None:
            return rows
        return sorted_rows(columns.values(self.sort), rows, descending=self.descending)

    def passing(self, columns: Columns, n_cells: int, *, but: str | None = None) -> NDArray[np.int64]:
        """Return the rows of cells that pass all filters, or all filters but those of one column."""
        passes = np.ones(n_cells, np.bool_)
        for each in self.filters:
            if each.column != but:
                passes &= each.passing(columns.values(each.column))
        return np.flatnonzero(passes)

    def _sampled(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        if self.sample is None or self.sample >= rows.size:
            return rows
        chosen = np.random.default_rng(self.seed).choice(rows.size, self.sample, replace=False)
        return rows[np.sort(chosen)]


def parse_view(given: Mapping[str, Any]) -> View:
    """Return the view that a message describes.

    Raises
    ------
    ConfigError
        If the message is invalid.
    """
    try:
        return View(
            filters=tuple(map(_parse_filter, given.get("filters", ()))),
            sort=_text_or_none(given.get("sort")),
            descending=bool(given.get("descending", False)),
            sample=_count(given.get("sample"), "sample", least=1),
            seed=_count(given.get("seed"), "seed", least=0) or 0,
        )
    except (TypeError, KeyError, ValueError) as error:
        raise ConfigError(f"view: {error}") from error


def _parse_filter(given: Mapping[str, Any]) -> Filter:
    labels = given.get("labels")
    return Filter(
        column=str(given["column"]),
        low=_number(given.get("low")),
        high=_number(given.get("high")),
        labels=None if labels is None else tuple(map(str, labels)),
    )


def _text_or_none(value: Any) -> str | None:
    return None if value is None else str(value)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _count(value: Any, name: str, *, least: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        message = f"{name} = {value!r}: must be an integer >= {least}"
        raise ValueError(message)
    return value
