"""Stamps of cells, side by side in one image, with their ids, the names of channels and the outlines of masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from cellstamp.pictures import canvas
from cellstamp.pictures.mosaic import (
    Grid,
    assemble_colours,
    assemble_gray,
    blended,
    choose_across,
    gap_of,
    shrinking,
    shrunk,
    stretched,
)

_WIDEST, _HIGHEST = 14.0, 12.0
_ASPECT = 1.4
"""Width of a new picture by its height, if there is a choice."""
_TILE = 1.4
"""Inches: of a figure, and of the side of a tile, at most."""
_FONT, _SMALLEST_LYING, _SMALLEST_FONT = 9.0, 6.0, 4.0
_DIGIT = 0.62
"""Width of a digit, as a part of the font size."""


@dataclass(frozen=True)
class Cells:
    """What is shown.

    Attributes
    ----------
    names
        Of the cells.
    channel_names
        Of the planes that are shown.
    mask_names
        Of the masks that are outlined.
    values
        float32 (n_cells, n_channels, y, x), 0 to 1.
    masks
        float32 (n_cells, n_masks, y, x), 0 to 1.
    """

    names: Sequence[str]
    channel_names: Sequence[str]
    mask_names: Sequence[str]
    values: NDArray[np.float32]
    masks: NDArray[np.float32]


def gather(
    stamps: Iterable[NDArray[np.float32]],
    *,
    names: Sequence[str],
    channel_names: Sequence[str],
    mask_names: Sequence[str],
    side: int,
    stretch: Sequence[bool],
) -> Cells:
    """Take stamps as they come, no larger than they can be shown.

    Parameters
    ----------
    stamps
        For each cell the planes (n_channels + n_masks, y, x), values from 0 to 1.
    side
        Of a stamp in pixels.
    stretch
        For each channel, whether its values are stretched over 0 to 1, all cells alike.
    """
    n_channels, n_masks = len(channel_names), len(mask_names)
    step = shrinking(len(names) * n_channels, side)
    kept = np.empty((len(names), n_channels + n_masks, side // step, side // step), np.float32)
    for cell, planes in enumerate(stamps):
        kept[cell] = shrunk(planes, step)
    values, masks = kept[:, :n_channels], kept[:, n_channels:]
    for channel in np.flatnonzero(stretch):
        values[:, channel] = stretched(values[:, channel])
    return Cells(names, channel_names, mask_names, values, masks)


def draw_cells(
    cells: Cells,
    *,
    color: Any,
    outlines: Mapping[str, NDArray[np.float32]],
    title: str,
    ax: Axes | None,
    save: canvas.PathLike | None,
) -> Axes:
    """Draw stamps: gray, a tile for each channel; or in colours, one for each cell.

    Parameters
    ----------
    color
        None: gray; else see `cellstamp.pictures.canvas.colours_of_channels`.
    outlines
        Mask -> colour of its outline.
    """
    colours = None if color is None else canvas.colours_of_channels(color, cells.channel_names)
    n_tiles = 1 if colours is not None else len(cells.channel_names)
    tile = cells.values.shape[-1]
    labels = [*(cells.channel_names if colours is not None else ()), *cells.mask_names]
    room, legend = ((_WIDEST, _HIGHEST), 0.0) if ax is None else _room_within(ax, labels)
    aspect = _ASPECT if ax is None else room[0] / room[1]
    across = choose_across(len(cells.names), n_tiles, aspect)
    bare = Grid(len(cells.names), n_tiles, across, tile, gap_of(tile))
    sheet = replace(_Sheet.fitted(bare, cells, room), legend=legend)
    below = 0.15 + canvas.height_of_legend(labels, max(sheet.inches[0], canvas.Page.LEAST))
    with canvas.drawing(ax, canvas.Page(*sheet.inches, below=below), save) as axes:
        _show_image(axes, sheet, cells, colours)
        _show_outlines(axes, sheet, cells, outlines)
        _show_names(axes, sheet, cells)
        _show_legend(axes, sheet, cells, colours, outlines)
        axes.set_title(title)
    return axes


def _room_within(ax: Axes, labels: Sequence[str]) -> tuple[tuple[float, float], float]:
    """Inches for the tiles in axes that were given, and for the legend below them, which has to be in there, too."""
    width, height = canvas.room_of(ax)
    legend = canvas.height_of_legend(labels, canvas.width_for_legend(ax))
    return (width, max(0.5 * height, height - legend)), legend


@dataclass(frozen=True)
class _Sheet:
    """A grid with room for its labels. `point` is one in pixels of the image; `header` is above the image.

    `legend` is below it, in inches.
    """

    grid: Grid
    point: float
    font: float
    header: float
    legend: float = 0.0

    @classmethod
    def fitted(cls, bare: Grid, cells: Cells, room: tuple[float, float]) -> _Sheet:
        """Find the size of tiles and text in `room`, in inches."""
        digits = max(map(len, cells.names))
        tile = _side(bare.tile, room, bare.shape)
        for _ in range(3):  # labels make tiles smaller, and smaller tiles labels
            point = bare.tile / tile
            font = min(_FONT, tile / (_DIGIT * digits)) if bare.n_tiles == 1 else min(_FONT, 0.9 * tile)
            font = font if font >= _SMALLEST_FONT else 0.0
            grid = _with_labels(bare, font * point, digits)
            header = _header(cells.channel_names, tile, point) if bare.n_tiles > 1 else 0.0
            tile = _side(bare.tile, room, (grid.shape[0] + header, grid.shape[1]))
        return cls(grid, bare.tile / tile, font, header)

    @property
    def inches(self) -> tuple[float, float]:
        """Width and height."""
        height, width = self.grid.shape
        return width / self.point / 72, (height + self.header) / self.point / 72


def _side(tile: int, room: tuple[float, float], shape: tuple[float, float]) -> float:
    """Side of a tile in points, given that in pixels, the room there is, and height and width of what has to fit."""
    (width, height), (rows, columns) = room, shape
    return min(_TILE * 72, width * 72 * tile / columns, height * 72 * tile / rows)


def _with_labels(bare: Grid, font: float, digits: int) -> Grid:
    if bare.n_tiles == 1:
        return replace(bare, above=round(1.35 * font))
    return replace(bare, before=round((_DIGIT * digits + 0.5) * font) if font else 0)


def _header(names: Sequence[str], tile: float, point: float) -> float:
    """Height of the names of channels, in pixels of the image."""
    font, is_upright = _lettering(names, tile)
    return ((_DIGIT * max(map(len, names)) + 1) * font if is_upright else 1.6 * font) * point


def _lettering(names: Sequence[str], tile: float) -> tuple[float, bool]:
    """Size of the names of channels, and whether they have to stand upright, above tiles of this side in points."""
    fitting = tile / (_DIGIT * max(map(len, names)))
    if fitting >= _SMALLEST_LYING:
        return min(_FONT, fitting), False
    return min(_FONT, max(_SMALLEST_FONT, 0.9 * tile)), True


def _show_image(ax: Axes, sheet: _Sheet, cells: Cells, colours: NDArray[np.float32] | None) -> None:
    grid = sheet.grid
    if colours is None:
        ax.imshow(assemble_gray(grid, cells.values), cmap="gray", vmin=0, vmax=1, interpolation_stage="data")
    else:
        ax.imshow(assemble_colours(grid, (blended(planes, colours) for planes in cells.values)))
    height, width = grid.shape
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5 + sheet.legend * 72 * sheet.point, -0.5 - sheet.header))
    ax.set_axis_off()


def _show_outlines(ax: Axes, sheet: _Sheet, cells: Cells, outlines: Mapping[str, NDArray[np.float32]]) -> None:
    grid = sheet.grid
    width = float(np.clip(grid.tile / sheet.point / 70, 0.25, 1.2))
    corners = [[grid.corner(cell, tile)[::-1] for tile in range(grid.n_tiles)] for cell in range(grid.n_cells)]
    for number, name in enumerate(cells.mask_names):
        lines = [
            line + corner
            for planes, places in zip(cells.masks, corners, strict=True)
            for line in _outline(planes[number])
            for corner in places
        ]
        ax.add_collection(LineCollection(lines, colors=[outlines[name]], linewidths=width), autolim=False)


def _outline(mask: NDArray[np.float32]) -> list[NDArray[np.float64]]:
    """Where a mask is one half, as lines of x, y."""
    from contourpy import contour_generator

    if min(mask.shape) < 2:
        return []
    lines: Any = contour_generator(z=mask).lines(0.5)
    return list(lines)


def _show_names(ax: Axes, sheet: _Sheet, cells: Cells) -> None:
    grid = sheet.grid
    if sheet.font:
        for cell, name in enumerate(cells.names):
            y, x = grid.corner(cell)
            if grid.n_tiles == 1:
                ax.text(x, y - 0.5 - 0.2 * sheet.font * sheet.point, name, fontsize=sheet.font, va="baseline")
            else:
                right = x - 0.5 - 0.3 * sheet.font * sheet.point
                ax.text(right, y + grid.tile / 2, name, fontsize=sheet.font, ha="right", va="center")
    if grid.n_tiles > 1:
        _show_channel_names(ax, sheet, cells.channel_names)


def _show_channel_names(ax: Axes, sheet: _Sheet, names: Sequence[str]) -> None:
    grid = sheet.grid
    tile = grid.tile / sheet.point
    font, is_upright = _lettering(names, tile)
    style: dict[str, Any] = {"fontsize": font, "rotation": 90 if is_upright else 0, "ha": "center", "va": "bottom"}
    for cell in range(min(grid.n_across, grid.n_cells)):
        for number, name in enumerate(names):
            y, x = grid.corner(cell, number)
            ax.text(x + grid.tile / 2, y - 0.3 * font * sheet.point, name, **style)


def _show_legend(
    ax: Axes,
    sheet: _Sheet,
    cells: Cells,
    colours: NDArray[np.float32] | None,
    outlines: Mapping[str, NDArray[np.float32]],
) -> None:
    channels = [] if colours is None else zip(cells.channel_names, colours, strict=True)
    handles = [Patch(facecolor=tuple(colour), edgecolor="gray", linewidth=0.5, label=name) for name, colour in channels]
    style: dict[str, Any] = {"linewidth": 2, "path_effects": canvas.backing()}
    lines = [Line2D([], [], color=tuple(outlines[name]), label=name, **style) for name in cells.mask_names]
    canvas.show_legend(ax, [*handles, *lines], below=0.0, y=sheet.grid.shape[0] - 0.5)
