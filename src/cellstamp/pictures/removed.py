"""Draw the positions of kept and removed cells on the slide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from cellstamp.pictures import canvas, slide

_INSIDE = "centres inside are kept"
KEPT, REMOVED, OTHER = "#2b83ba", "#e8590c", "#9a9a9a"


@dataclass(frozen=True)
class CellPositions:
    """Positions of kept and removed cells.

    Attributes
    ----------
    kept, removed, other
        Centres of cells that were extracted, that are too close to the image border, and of all others: float64
        (n, 2), x and y in pixels of the slide.
    shape
        Height and width of the slide, in pixels.
    margin
        Minimum distance of kept centres from the slide's border, in pixels; 0: cells at the border are kept.
    """

    kept: NDArray[np.float64]
    removed: NDArray[np.float64]
    other: NDArray[np.float64]
    shape: tuple[int, int]
    margin: float


def draw_removed(cells: CellPositions, *, ax: Axes | None, save: canvas.PathLike | None) -> Axes:
    """Draw a dot for each cell, and a frame around the centres that are kept."""
    rows, columns = cells.shape
    size = _dot(cells)
    groups = [("not chosen", cells.other, OTHER), ("kept", cells.kept, KEPT), ("removed", cells.removed, REMOVED)]
    with canvas.drawing(
        ax, slide.page_of(cells.shape, [f"{len(xy):,} {label}" for label, xy, _ in groups] + [_INSIDE]), save
    ) as axes:
        for _, xy, colour in groups:
            # thousands of dots are drawn as an image, also in a PDF
            axes.scatter(xy[:, 0], xy[:, 1], s=size, color=colour, linewidths=0, rasterized=len(xy) > 5000)
        handles = [
            Line2D([], [], linestyle="", marker="o", color=colour, label=f"{len(xy):,} {label}")
            for label, xy, colour in groups
            if len(xy) or label != "not chosen"
        ]
        handles += _draw_margin(axes, cells)
        slide.show_legend(axes, handles)
        n_cells = len(cells.kept) + len(cells.removed) + len(cells.other)
        slide.show_area(axes, (0, rows), (0, columns), f"{len(cells.kept):,} of {n_cells:,} cells kept")
        axes.set_facecolor("none")
    return axes


def _dot(cells: CellPositions) -> float:
    """Return the area of a dot, in square points, such that evenly spread cells don't overlap."""
    n_cells = max(1, len(cells.kept) + len(cells.removed) + len(cells.other))
    return float(np.clip((slide.LONGEST * 72) ** 2 / n_cells / 8, 0.5, 40))


def _draw_margin(ax: Axes, cells: CellPositions) -> list[Line2D]:
    rows, columns = cells.shape
    width, height = columns - 2 * cells.margin, rows - 2 * cells.margin
    if not cells.margin or min(width, height) <= 0:
        return []
    style = {"edgecolor": canvas.text_colour(), "linestyle": "--", "linewidth": 1, "fill": False}
    ax.add_patch(Rectangle((cells.margin, cells.margin), width, height, **style))
    return [Line2D([], [], color=canvas.text_colour(), linestyle="--", linewidth=1, label=_INSIDE)]
