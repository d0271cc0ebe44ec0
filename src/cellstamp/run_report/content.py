"""Declare what a page about a run consists of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Table:
    """Names and values, a row for each.

    Attributes
    ----------
    rows
        Name and value of each row.
    total
        Name and value of the last row, if it is the sum of the others.
    """

    rows: Sequence[tuple[str, str]]
    total: tuple[str, str] | None = None


@dataclass(frozen=True)
class Note:
    """A paragraph of text.

    Attributes
    ----------
    text
        Plain text.
    is_warning
        Whether the text is about a problem.
    """

    text: str
    is_warning: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture for light pages and one for dark pages, each the content of a PNG file.

    Attributes
    ----------
    light, dark
        Content of the files.
    text
        Description for readers who do not see it.
    """

    light: bytes
    dark: bytes
    text: str


@dataclass(frozen=True)
class Thumbnail:
    """A single-cell image.

    Attributes
    ----------
    png
        Content of a PNG file.
    caption
        The quantile, the value and the cell.
    """

    png: bytes
    caption: str


@dataclass(frozen=True)
class Distribution:
    """A histogram of a measure, and cells at its quantiles.

    Attributes
    ----------
    title
        Name of the measure.
    values
        float64 (n_cells,), finite.
    unit
        Unit of the values.
    thumbnails
        Cells in the order of their values; empty without single-cell images.
    """

    title: str
    values: NDArray[np.float64]
    unit: str
    thumbnails: Sequence[Thumbnail] = ()


Part: TypeAlias = Table | Note | Picture | Distribution


@dataclass(frozen=True)
class Section:
    """A heading and the parts below it."""

    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class RunReport:
    """Content of a page.

    Attributes
    ----------
    title, subtitle
        Text at the top.
    sections
        In the order of the page.
    """

    title: str
    subtitle: str
    sections: Sequence[Section]
