"""Axes to draw on, the file a picture goes to, and colours."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
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
from cellstamp.report import in_notebook

DPI = 150
"""Pixels per inch of a file."""

NUCLEUS, CELL = "#ffd23f", "#3fc1ff"
"""Outlines of nuclei and of cells."""

CYCLE = ("#3c78ff", "#2fd04a", "#ff3b30", "#ff3df2", "#ffd60a", "#23dbe8", "#ffffff", "#ff9500")
"""Colours of channels, in turn, when none are given."""

_FONT, _SMALLEST_FONT = 9.0, 5.0
"""Points: of legends."""

PathLike = str | os.PathLike[str]


def check_target(ax: Any, save: Any) -> None:
    """Refuse axes that are none, and a file that cannot be a picture, before anything is read.

    Raises
    ------
    ConfigError
        If there is a fault.
    """
    if ax is not None and not isinstance(ax, Axes):
        raise ConfigError(f"ax is {type(ax).__name__}: must be one matplotlib Axes, like those plt.subplots() returns")
    if save is None:
        return
    if not isinstance(save, str | os.PathLike):
        raise ConfigError(f"save = {save!r}: must be the path of the picture to write, like 'cells.png'")
    kinds = Figure().canvas.get_supported_filetypes()
    kind = Path(save).suffix[1:].lower()
    if kind not in kinds:
        raise ConfigError(f"save = {os.fspath(save)!r}: must end in the kind of picture: .{', .'.join(sorted(kinds))}")


@dataclass(frozen=True)
class Page:
    """A new figure in inches: width and height of its axes, and the room around them for text."""

    LEAST: ClassVar[float] = 4.5
    """Width, enough for the text below."""

    width: float
    height: float
    left: float = 0.1
    right: float = 0.1
    above: float = 0.4
    below: float = 0.2

    @property
    def size(self) -> tuple[float, float]:
        """Width and height."""
        return max(self.LEAST, self.left + self.width + self.right), self.below + self.height + self.above

    def place(self) -> tuple[float, float, float, float]:
        """Left, bottom, width and height of the axes, as parts of the figure: a layout of its own draws it twice."""
        width, height = self.size
        left = self.left + (width - self.left - self.width - self.right) / 2
        return left / width, self.below / height, self.width / width, self.height / height


@contextmanager
def drawing(ax: Axes | None, page: Page, save: PathLike | None) -> Iterator[Axes]:
    """Yield axes to draw on: those given, or those of a new figure; then write the file, if there is one to write.

    A new figure is pyplot's where that shows it: in a notebook, and where the caller uses pyplot and saves nothing.

    Parameters
    ----------
    page
        Of a new figure.

    Raises
    ------
    OutputError
        When the file cannot be written.
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


def _save(ax: Axes, save: PathLike | None) -> None:
    """Write the picture aside, and give it its name when it is whole."""
    if save is None:
        return
    path = Path(save)
    aside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    figure: Any = ax.get_figure(root=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(aside, dpi=DPI)
        aside.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: the picture cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def room_of(ax: Axes) -> tuple[float, float]:
    """Width and height of axes in inches, as they are now."""
    figure: Any = ax.get_figure(root=True)
    box = ax.get_window_extent()
    return box.width / figure.dpi, box.height / figure.dpi


def show_legend(ax: Axes, handles: Sequence[Any], *, below: float, y: float | None = None) -> None:
    """Name colours, centred, in as many columns as fit.

    Parameters
    ----------
    below
        Inches below `y`.
    y
        In the data's coordinates; None: the lower end of the axes.
    """
    if not handles:
        return
    figure: Any = ax.get_figure(root=True)
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
    """Inches: those of the axes, where others may be beside them; else those of the page."""
    figure: Any = ax.get_figure(root=True)
    return float(figure.get_figwidth()) if len(figure.axes) == 1 else room_of(ax)[0]


def height_of_legend(labels: Sequence[str], width: float) -> float:
    """Inches that the names of colours need where there is this width."""
    if not labels:
        return 0.0
    n_columns, font = _lettering(labels, width)
    return 0.1 + 0.21 * font / _FONT * -(-len(labels) // n_columns)


def _lettering(labels: Sequence[str], width: float) -> tuple[int, float]:
    """Number of columns, and font size."""
    widths = [0.07 * len(label) + 0.6 for label in labels]
    if sum(widths) <= width:
        return len(labels), _FONT
    return max(1, int(width // max(widths))), max(_SMALLEST_FONT, min(_FONT, _FONT * width / max(widths)))


def backing() -> list[Any]:
    """What makes a line in a legend seen on a page of its own colour: a gray rim."""
    return [withStroke(linewidth=3.5, foreground="gray")]


def rgb_of(colour: Any, what: str) -> NDArray[np.float32]:
    """Red, green and blue of a colour, 0 to 1.

    Raises
    ------
    ConfigError
        When it is none.
    """
    try:
        return np.array(colors.to_rgb(colour), np.float32)
    except (ValueError, TypeError) as error:
        known = [*colors.CSS4_COLORS, *(["auto"] if what == "color" and colour != "auto" else [])]
        near = get_close_matches(str(colour).lower(), known, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ConfigError(
            f"{what}: {colour!r} is no colour{hint}; it must be one of matplotlib's, like 'blue' or '#0000ff'"
        ) from error


def colours_of_channels(color: Any, names: Sequence[str]) -> NDArray[np.float32]:
    """The colours (c, 3) of channels: of a mapping by name, a sequence in their order, one for one, or "auto".

    Raises
    ------
    ConfigError
        When there are more or fewer colours than channels, or one is none.
    """
    if isinstance(color, str) and color == "auto":
        color = [CYCLE[number % len(CYCLE)] for number in range(len(names))]
    elif isinstance(color, Mapping):
        by_name = {str(name): colour for name, colour in color.items()}
        lacking = [name for name in names if name not in by_name]
        if lacking:
            raise ConfigError(f"color: no colour for the channels {', '.join(lacking)}")
        color = [by_name[name] for name in names]
    elif isinstance(color, str):
        color = [color]
    if not isinstance(color, Sequence) or len(color) != len(names):
        for colour in color if isinstance(color, Sequence) else ():
            rgb_of(colour, "color")  # of two faults, the likelier cause of the other
        raise ConfigError(
            f"color = {color!r}: must be a colour for each of the {len(names)} channels ({', '.join(names)}), in turn, "
            "a mapping of channels to colours, or 'auto'"
        )
    return np.stack([rgb_of(colour, f"color of {name}") for colour, name in zip(color, names, strict=True)])


def colours_of_masks(mask_outline: Any, names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """The colours of the outlines of masks: none for False, the usual ones for True, one for all, or a mapping.

    Raises
    ------
    ConfigError
        When there is no such mask, or a colour is none.
    """
    if mask_outline is None or mask_outline is False:
        return {}
    if isinstance(mask_outline, Mapping):
        unknown = [str(name) for name in mask_outline if name not in names]
        if unknown:
            there = ", ".join(names) or "none"
            raise ConfigError(f"mask_outline: there is no mask named {', '.join(unknown)}; the masks are {there}")
        chosen = dict(mask_outline)
    elif mask_outline is True:
        chosen = {name: NUCLEUS if is_nucleus(name, names) else CELL for name in names}
    else:
        chosen = dict.fromkeys(names, mask_outline)
    return {name: rgb_of(colour, f"mask_outline of {name}") for name, colour in chosen.items()}


def is_nucleus(name: str, names: Sequence[str]) -> bool:
    """Whether a mask is the one of nuclei: the first of two, or one that is called so."""
    return name == names[0] if len(names) > 1 else "nucle" in name.lower()


def text_colour() -> Any:
    """Colour of text in the style in use, dark or light."""
    return mpl.rcParams["text.color"]
