"""Provide axes, save pictures, and parse colours."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import matplotlib as mpl
import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from cellstamp.errors import ConfigError, OutputError
from cellstamp.pictures.default_colours import CELL, NUCLEUS, default_colours, is_nucleus
from cellstamp.report import in_notebook
from cellstamp.similar_names import did_you_mean
from cellstamp.system import replace_file

DPI = 150
"""Pixels per inch of a saved picture."""

_FONT, _SMALLEST_FONT = 9.0, 5.0
"""Font sizes of legends, in points."""

PathLike = str | os.PathLike[str]


def check_target(ax: Any, save: Any) -> None:
    """Check the arguments `ax` and `save` before reading data.

    Raises
    ------
    ConfigError
        If one of them is invalid.
    """
    if ax is not None and not isinstance(ax, Axes):
        raise ConfigError(f"ax is {type(ax).__name__}: must be one matplotlib Axes, such as plt.subplots() returns")
    if save is None:
        return
    if not isinstance(save, str | os.PathLike):
        raise ConfigError(f"save = {save!r}: must be the path of the picture, like 'cells.png'")
    kinds = Figure().canvas.get_supported_filetypes()
    kind = Path(save).suffix[1:].lower()
    if kind not in kinds:
        raise ConfigError(
            f"save = {os.fspath(save)!r}: must end with the suffix of a picture: .{', .'.join(sorted(kinds))}"
        )


@dataclass(frozen=True)
class Page:
    """Size of a new figure, in inches: width and height of its axes, and margins for text."""

    LEAST: ClassVar[float] = 4.5
    """Minimum width, in inches, for the legend below the axes."""

    width: float
    height: float
    left: float = 0.1
    right: float = 0.1
    above: float = 0.4
    below: float = 0.2

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, in inches."""
        return max(self.LEAST, self.left + self.width + self.right), self.below + self.height + self.above

    def place(self) -> tuple[float, float, float, float]:
        """Return left, bottom, width and height of the axes, as fractions of the figure."""
        width, height = self.size
        left = self.left + (width - self.left - self.width - self.right) / 2
        return left / width, self.below / height, self.width / width, self.height / height


@contextmanager
def drawing(ax: Axes | None, page: Page, save: PathLike | None) -> Iterator[Axes]:
    """Yield the given axes, or those of a new figure; then save the picture, if `save` is given.

    pyplot makes the new figure in a notebook, or if the caller has imported pyplot and saves nothing. Then the figure
    is shown.

    Parameters
    ----------
    page
        Size of a new figure.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    if ax is not None:
        yield ax
        _save(ax, save)
        return
    figure, forget = _new_figure(page, is_shown=in_notebook() or (save is None and "matplotlib.pyplot" in sys.modules))
    try:
        axes = figure.add_axes(page.place())
        yield axes
        _save(axes, save)
    except BaseException:
        forget()
        raise


def _new_figure(page: Page, *, is_shown: bool) -> tuple[Figure, Any]:
    if not is_shown:
        return Figure(figsize=page.size), lambda: None
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=page.size)
    return figure, lambda: pyplot.close(figure)


def _figure_of(ax: Axes) -> Any:
    """Return the figure of axes, which may lie in a subfigure: its `figure` is the figure itself."""
    return ax.figure.figure


def _save(ax: Axes, save: PathLike | None) -> None:
    """Write the picture to a temporary file, and rename it when it is complete."""
    if save is None:
        return
    path = Path(save)
    aside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    figure = _figure_of(ax)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(aside, dpi=DPI)
        replace_file(aside, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot write the picture: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def room_of(ax: Axes) -> tuple[float, float]:
    """Return the current width and height of axes, in inches."""
    figure = _figure_of(ax)
    box = ax.get_window_extent()
    return box.width / figure.dpi, box.height / figure.dpi


def show_legend(ax: Axes, handles: Sequence[Any], *, below: float, y: float | None = None) -> None:
    """Draw a centred legend with as many columns as fit.

    Parameters
    ----------
    below
        Distance below `y`, in inches.
    y
        In data coordinates; None: the lower end of the axes.
    """
    if not handles:
        return
    figure = _figure_of(ax)
    place = (ax.transAxes if y is None else ax.get_yaxis_transform()) + ScaledTranslation(
        0, -below, figure.dpi_scale_trans
    )
    n_columns, font = _lettering([str(handle.get_label()) for handle in handles], width_for_legend(ax))
    ax.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0 if y is None else y),
        bbox_transform=place,
        ncols=n_columns,
        frameon=False,
        fontsize=font,
    )


def width_for_legend(ax: Axes) -> float:
    """Return the width for a legend, in inches: of the figure, or of the axes if the figure has several."""
    figure = _figure_of(ax)
    return float(figure.get_figwidth()) if len(figure.axes) == 1 else room_of(ax)[0]


def height_of_legend(labels: Sequence[str], width: float) -> float:
    """Return the height, in inches, of a legend of a given width."""
    if not labels:
        return 0.0
    n_columns, font = _lettering(labels, width)
    return 0.1 + 0.21 * font / _FONT * -(-len(labels) // n_columns)


def _lettering(labels: Sequence[str], width: float) -> tuple[int, float]:
    """Return the number of columns of a legend, and its font size."""
    widths = [0.07 * len(label) + 0.6 for label in labels]
    if sum(widths) <= width:
        return len(labels), _FONT
    return max(1, int(width // max(widths))), max(_SMALLEST_FONT, min(_FONT, _FONT * width / max(widths)))


def backing() -> list[Any]:
    """Return path effects that draw a gray rim, so that a line is visible on any background."""
    return [withStroke(linewidth=3.5, foreground="gray")]


def rgb_of(colour: Any, what: str) -> NDArray[np.float32]:
    """Return red, green and blue of a colour: float32 (3,), 0 to 1.

    Raises
    ------
    ConfigError
        If matplotlib doesn't know the colour.
    """
    try:
        return np.array(colors.to_rgb(colour), np.float32)
    except (ValueError, TypeError) as error:
        known = [*colors.CSS4_COLORS, *(["auto"] if what == "color" and colour != "auto" else [])]
        hint = did_you_mean(colour, known) or "."
        raise ConfigError(
            f"{what}: {colour!r} is not a colour{hint} It must be a matplotlib colour, like 'blue' or '#0000ff'"
        ) from error


def colours_of_channels(color: Any, names: Sequence[str]) -> NDArray[np.float32]:
    """Return the colours of channels: float32 (c, 3), 0 to 1.

    Parameters
    ----------
    color
        A mapping from names to colours, a sequence of one colour for each channel, one colour for a single channel, or
        "auto".
    names
        Names of the channels.

    Raises
    ------
    ConfigError
        If the number of colours is not that of the channels, or a colour is invalid.
    """
    if isinstance(color, str) and color == "auto":
        color = default_colours(names)
    elif isinstance(color, Mapping):
        by_name = {str(name): colour for name, colour in color.items()}
        missing = [name for name in names if name not in by_name]
        if missing:
            raise ConfigError(f"color: no colour for the channels {', '.join(missing)}; it has {', '.join(by_name)}")
        color = [by_name[name] for name in names]
    elif isinstance(color, str):
        color = [color]
    if not isinstance(color, Sequence) or len(color) != len(names):
        for colour in color if isinstance(color, Sequence) else ():
            rgb_of(colour, "color")  # an invalid colour is the likelier cause
        raise ConfigError(
            f"color = {color!r}: must be a list with a colour for each of the {len(names)} channels "
            f"({', '.join(names)}), a mapping from channels to colours, or 'auto'"
        )
    return np.stack([rgb_of(colour, f"color of {name}") for colour, name in zip(color, names, strict=True)])


def colours_of_masks(mask_outline: Any, names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Return the colours of the outlines of masks: float32 (3,) by the mask's name.

    Parameters
    ----------
    mask_outline
        False for no outlines, True for default colours, one colour for all masks, or a mapping from masks to colours.
    names
        Names of the masks.

    Raises
    ------
    ConfigError
        If a mask is unknown, or a colour is invalid.
    """
    if mask_outline is None or mask_outline is False:
        return {}
    if isinstance(mask_outline, Mapping):
        unknown = [str(name) for name in mask_outline if name not in names]
        if unknown:
            known = ", ".join(names) or "none"
            raise ConfigError(f"mask_outline: no mask named {', '.join(unknown)}; the masks are {known}")
        chosen = dict(mask_outline)
    elif mask_outline is True:
        chosen = {name: NUCLEUS if is_nucleus(name, names) else CELL for name in names}
    else:
        chosen = dict.fromkeys(names, mask_outline)
    return {name: rgb_of(colour, f"mask_outline of {name}") for name, colour in chosen.items()}


def text_colour() -> Any:
    """Return the colour of text in the current style, dark or light."""
    return mpl.rcParams["text.color"]
