"""Draw the image of a slide, in gray or in colours, and the outlines of its masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Patch
from numpy.typing import NDArray

from cellstamp.pictures import canvas
from cellstamp.pictures.mosaic import blended, stretched

Extent = tuple[float, float, float, float]
"""Left, right, top and bottom, in pixels of the full-resolution image."""

LONGEST = 8.0
"""Longer side of a slide in a new figure, in inches."""

_LINES = 1200
"""Minimum number of pixels along the longer side of an image of outlines, for thin lines."""


def page_of(area: tuple[int, int], labels: Sequence[str]) -> canvas.Page:
    """Return the size of a new figure for an area (rows, columns), with a legend of these labels below it."""
    rows, columns = area
    scale = LONGEST / max(rows, columns)
    width, height = max(0.5, scale * columns), max(0.5, scale * rows)
    return canvas.Page(
        width, height, left=0.8, right=0.3, below=0.6 + canvas.height_of_legend(labels, max(width, canvas.Page.LEAST))
    )


def draw_image(
    ax: Axes, planes: NDArray[np.float32], names: Sequence[str], colours: NDArray[np.float32] | None, extent: Extent
) -> None:
    """Draw channels (c, y, x), each stretched from dark to bright: one in gray, several in colours.

    Parameters
    ----------
    colours
        (c, 3), 0 to 1; None: gray, for a single channel.
    """
    bright = np.stack([stretched(plane, 0.01, 0.998) for plane in planes])
    where: dict[str, Any] = {"extent": _matplotlibs(extent), "interpolation": "antialiased"}
    if colours is None:
        ax.imshow(bright[0], cmap="gray", vmin=0, vmax=1, interpolation_stage="data", **where)
        return
    ax.imshow(blended(bright, colours), **where)
    handles = [
        Patch(facecolor=tuple(colour), edgecolor="gray", linewidth=0.5, label=name)
        for name, colour in zip(names, colours, strict=True)
    ]
    show_legend(ax, handles)


def draw_rgb(ax: Axes, planes: NDArray[np.float32], brightest: float, extent: Extent) -> None:
    """Draw the channels red, green and blue (3, y, x) of a colour image in their colours, without stretching."""
    picture = np.clip(np.moveaxis(planes, 0, -1) / brightest, 0, 1)
    ax.imshow(picture, extent=_matplotlibs(extent), interpolation="antialiased")


def draw_outlines(ax: Axes, masks: Mapping[str, tuple[NDArray[Any], Extent]], colours: Mapping[str, Any]) -> None:
    """Draw the outlines of labels (y, x), each mask in its colour."""
    for name, (ids, extent) in masks.items():
        lines = outlined(finer(ids))
        picture = np.zeros((*lines.shape, 4), np.float32)
        picture[lines] = (*colours[name], 1)
        ax.imshow(picture, extent=_matplotlibs(extent), interpolation="nearest")
    _show_masks(ax, list(masks), colours)


def draw_rings(ax: Axes, masks: Mapping[str, Sequence[NDArray[np.float64]]], colours: Mapping[str, Any]) -> None:
    """Draw closed lines, x and y (n, 2) in pixels of the full-resolution image, those of each mask in its colour."""
    for name, rings in masks.items():
        ax.add_collection(LineCollection(rings, colors=[tuple(colours[name])], linewidths=1))
    _show_masks(ax, list(masks), colours)


def _show_masks(ax: Axes, names: Sequence[str], colours: Mapping[str, Any]) -> None:
    style: dict[str, Any] = {"facecolor": "none", "linewidth": 1.5, "path_effects": canvas.backing()}
    show_legend(ax, [Patch(edgecolor=tuple(colours[name]), label=name, **style) for name in names])


def finer(ids: NDArray[Any]) -> NDArray[Any]:
    """Repeat the pixels of a small image of labels, so that outlines are thin."""
    times = max(1, _LINES // max(ids.shape))
    return ids.repeat(times, axis=0).repeat(times, axis=1)


def outlined(ids: NDArray[Any]) -> NDArray[np.bool_]:
    """Return a boolean mask (y, x) of label pixels next to another label or the background."""
    differs = np.zeros(ids.shape, np.bool_)
    down, across = ids[1:] != ids[:-1], ids[:, 1:] != ids[:, :-1]
    differs[1:] |= down
    differs[:-1] |= down
    differs[:, 1:] |= across
    differs[:, :-1] |= across
    differs &= ids != 0
    return differs


def show_area(ax: Axes, rows: tuple[int, int], columns: tuple[int, int], title: str) -> None:
    """Limit the axes to a part of the slide, and label them in pixels."""
    ax.set(xlim=columns, ylim=rows[::-1], title=title, xlabel="x (pixels)", ylabel="y (pixels)")
    ax.set_aspect("equal")


def show_legend(ax: Axes, handles: Sequence[Any]) -> None:
    """Add entries to the legend below the axes."""
    before = ax.get_legend()
    everything: list[Any] = [*(before.legend_handles if before is not None else ()), *handles]
    canvas.show_legend(ax, everything, below=0.5)


def _matplotlibs(extent: Extent) -> Extent:
    """Return left, right, bottom and top, the order of matplotlib."""
    left, right, top, bottom = extent
    return left, right, bottom, top


def colours_for(color: Any, names: Sequence[str]) -> NDArray[np.float32] | None:
    """Return the colours (c, 3) of the channels of a slide; None: gray."""
    if color is None and len(names) == 1:
        return None
    return canvas.colours_of_channels("auto" if color is None else color, names)
