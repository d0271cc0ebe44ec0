"""Draw single-cell images side by side, with ids, names of channels and outlines of masks."""

from __future__ import annotations

import math
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
    count_in_full_rows,
    gap_of,
    shrinking,
    shrunk,
    stretched,
)

_WIDEST, _HIGHEST = 14.0, 12.0
"""Maximum width and height of a new figure, in inches."""
_ASPECT = 1.4
"""Preferred width / height of a new picture."""
_TILE, _TILE_OF_FEW, _FEW = 1.4, 2.2, 4
"""Maximum side of a tile in inches, and if there are at most four."""
_FONT, _SMALLEST_LYING, _SMALLEST_FONT = 9.0, 6.0, 4.0
"""Font sizes in points: maximum, minimum of horizontal names of channels, minimum."""
_BAR, _BAR_WIDTH = 0.22, 3.0
"""Height of the row with the scale bar in inches, and width of its line in points."""
EACH_CELL, ALL_CELLS = SCALES = ("cell", "all")
"""Cells that share the limits of intensities."""
_DIGIT = 0.62
"""Width of a digit / font size."""


@dataclass(frozen=True)
class Cells:
    """Single-cell images to draw.

    Attributes
    ----------
    names
        Names of the cells.
    channel_names
        Names of the planes to show.
    mask_names
        Names of the masks to outline.
    values
        float32 (n_cells, n_channels, y, x), 0 to 1.
    masks
        float32 (n_cells, n_masks, y, x), 0 to 1.
    pixel_size
        Width of a pixel of `values` in micrometres. None: unknown.
    """

    names: Sequence[str]
    channel_names: Sequence[str]
    mask_names: Sequence[str]
    values: NDArray[np.float32]
    masks: NDArray[np.float32]
    pixel_size: float | None = None


def gather(
    stamps: Iterable[NDArray[np.float32]],
    *,
    names: Sequence[str],
    channel_names: Sequence[str],
    mask_names: Sequence[str],
    side: int,
    stretch: Sequence[str | None],
    pixel_size: float | None = None,
) -> Cells:
    """Collect single-cell images one by one, reduced to the size of the picture.

    Parameters
    ----------
    stamps
        The planes of each cell: float32 (n_channels + n_masks, y, x), 0 to 1.
    names, channel_names, mask_names
        Names of the cells, of the planes to show, and of the masks to outline.
    side
        Side of a single-cell image, in pixels.
    stretch
        For each channel, the values to stretch over 0 to 1: those of `EACH_CELL`, of `ALL_CELLS` together, or None.
    pixel_size
        Width of a pixel in micrometres. None: unknown.
    """
    n_channels, n_masks = len(channel_names), len(mask_names)
    step = shrinking(len(names) * n_channels, side)
    kept = np.empty((len(names), n_channels + n_masks, side // step, side // step), np.float32)
    for cell, planes in enumerate(stamps):
        kept[cell] = shrunk(planes, step)
    values, masks = kept[:, :n_channels], kept[:, n_channels:]
    for channel, which in enumerate(stretch):
        together = values[np.newaxis, :, channel] if which == ALL_CELLS else values[:, channel]
        for part in together if which is not None else ():
            part[...] = stretched(part)
    return Cells(names, channel_names, mask_names, values, masks, None if pixel_size is None else pixel_size * step)


def default_count(n_tiles: int, ax: Axes | None) -> int:
    """Return how many cells to draw if the user gives no number: about 16, in full rows.

    Parameters
    ----------
    n_tiles
        Number of tiles for each cell.
    ax
        Axes to draw on; None: a new figure.
    """
    width, height = (_ASPECT, 1.0) if ax is None else canvas.room_of(ax)
    return count_in_full_rows(n_tiles, width / height)


def draw_cells(
    cells: Cells,
    *,
    color: Any,
    outlines: Mapping[str, NDArray[np.float32]],
    title: str,
    ax: Axes | None,
    save: canvas.PathLike | None,
) -> Axes:
    """Draw single-cell images: gray with a tile for each channel, or coloured with one tile for each cell.

    Parameters
    ----------
    cells
        The single-cell images.
    color
        None: gray; otherwise as for `cellstamp.pictures.canvas.colours_of_channels`.
    outlines
        Colours of the outlines, by the mask's name.
    title
        Title of the axes.
    ax, save
        As for `cellstamp.pictures.canvas.drawing`.
    """
    colours = None if color is None else canvas.colours_of_channels(color, cells.channel_names)
    n_tiles = 1 if colours is not None else len(cells.channel_names)
    tile = cells.values.shape[-1]
    labels = [*(cells.channel_names if colours is not None else ()), *cells.mask_names]
    bar = 0.0 if cells.pixel_size is None else _BAR
    room, legend = ((_WIDEST, _HIGHEST), 0.0) if ax is None else _room_within(ax, labels, bar)
    aspect = _ASPECT if ax is None else room[0] / room[1]
    across = choose_across(len(cells.names), n_tiles, aspect)
    bare = Grid(len(cells.names), n_tiles, across, tile, gap_of(tile))
    sheet = replace(_Sheet.fitted(bare, cells, room), legend=legend)
    below = 0.15 + bar + canvas.height_of_legend(labels, max(sheet.inches[0], canvas.Page.LEAST))
    with canvas.drawing(ax, canvas.Page(*sheet.inches, below=below), save) as axes:
        _show_image(axes, sheet, cells, colours)
        _show_outlines(axes, sheet, cells, outlines)
        _show_names(axes, sheet, cells)
        _show_scale(axes, sheet, cells)
        _show_legend(axes, sheet, cells, colours, outlines, below=bar)
        axes.set_title(title)
    return axes


def _room_within(ax: Axes, labels: Sequence[str], bar: float) -> tuple[tuple[float, float], float]:
    """Return the size of the tiles in given axes, and the height of scale bar and legend below them, in inches."""
    width, height = canvas.room_of(ax)
    legend = bar + canvas.height_of_legend(labels, canvas.width_for_legend(ax))
    return (width, max(0.5 * height, height - legend)), legend


@dataclass(frozen=True)
class _Sheet:
    """A grid with space for labels.

    `point` is the size of a point, and `header` the height above the image, both in pixels of the image. `legend` is
    the height below the image, in inches.
    """

    grid: Grid
    point: float
    font: float
    header: float
    legend: float = 0.0

    @classmethod
    def fitted(cls, bare: Grid, cells: Cells, room: tuple[float, float]) -> _Sheet:
        """Choose the size of tiles and text for `room`, in inches."""
        digits = max(map(len, cells.names))
        tile = _side(bare, room, bare.shape)
        for _ in range(3):  # labels make tiles smaller, and smaller tiles labels
            point = bare.tile / tile
            font = min(_FONT, tile / (_DIGIT * digits)) if bare.n_tiles == 1 else min(_FONT, 0.9 * tile)
            font = font if font >= _SMALLEST_FONT else 0.0
            grid = _with_labels(bare, font * point, digits)
            header = _header(cells.channel_names, tile, point) if bare.n_tiles > 1 else 0.0
            tile = _side(bare, room, (grid.shape[0] + header, grid.shape[1]))
        return cls(grid, bare.tile / tile, font, header)

    @property
    def inches(self) -> tuple[float, float]:
        """Width and height, in inches."""
        height, width = self.grid.shape
        return width / self.point / 72, (height + self.header) / self.point / 72


def _side(grid: Grid, room: tuple[float, float], shape: tuple[float, float]) -> float:
    """Return the side of a tile in points, for a `room` in inches; `shape` is the size of everything in pixels."""
    (width, height), (rows, columns) = room, shape
    most = _TILE_OF_FEW if grid.n_cells * grid.n_tiles <= _FEW else _TILE
    return min(most * 72, width * 72 * grid.tile / columns, height * 72 * grid.tile / rows)


def _with_labels(bare: Grid, font: float, digits: int) -> Grid:
    if bare.n_tiles == 1:
        return replace(bare, above=round(1.35 * font))
    return replace(bare, before=round((_DIGIT * digits + 0.5) * font) if font else 0)


def _header(names: Sequence[str], tile: float, point: float) -> float:
    """Return the height of the names of channels, in pixels of the image."""
    font, is_upright = _lettering(names, tile)
    return ((_DIGIT * max(map(len, names)) + 1) * font if is_upright else 1.6 * font) * point


def _lettering(names: Sequence[str], tile: float) -> tuple[float, bool]:
    """Return the font size of names of channels, and whether they are rotated, for tiles of this side in points."""
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
    """Return the contours of a mask at 0.5, as lines of x, y."""
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


def _show_scale(ax: Axes, sheet: _Sheet, cells: Cells) -> None:
    """Draw a scale bar below the first tile, with its length."""
    if cells.pixel_size is None:
        return
    length, label = bar_length(sheet.grid.tile * cells.pixel_size / 2)
    start = sheet.grid.corner(0)[1] - 0.5
    end = start + length / cells.pixel_size
    y = sheet.grid.shape[0] - 0.5 + _BAR / 2 * 72 * sheet.point
    style: dict[str, Any] = {"color": canvas.text_colour(), "clip_on": False}
    ax.plot([start, end], [y, y], linewidth=_BAR_WIDTH, solid_capstyle="butt", **style)
    ax.text(end + 0.5 * _FONT * sheet.point, y, label, fontsize=_FONT, va="center_baseline", **style)


def bar_length(most: float) -> tuple[float, str]:
    """Return the length of a scale bar of at most `most` micrometres, 1, 2 or 5 times a power of 10, and its label."""
    power = 10.0 ** math.floor(math.log10(most))
    length = power * max(factor for factor in (1, 2, 5) if factor * power <= most)
    for unit, size in (("mm", 1e3), ("µm", 1.0)):
        if length >= size:
            return length, f"{length / size:g} {unit}"
    return length, f"{length * 1e3:g} nm"


def _show_legend(
    ax: Axes,
    sheet: _Sheet,
    cells: Cells,
    colours: NDArray[np.float32] | None,
    outlines: Mapping[str, NDArray[np.float32]],
    *,
    below: float,
) -> None:
    channels = [] if colours is None else zip(cells.channel_names, colours, strict=True)
    handles = [Patch(facecolor=tuple(colour), edgecolor="gray", linewidth=0.5, label=name) for name, colour in channels]
    style: dict[str, Any] = {"linewidth": 2, "path_effects": canvas.backing()}
    lines = [Line2D([], [], color=tuple(outlines[name]), label=name, **style) for name in cells.mask_names]
    canvas.show_legend(ax, [*handles, *lines], below=below, y=sheet.grid.shape[0] - 0.5)
