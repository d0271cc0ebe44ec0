"""Draw the image, masks and cells of a project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellstamp.errors import ConfigError, InputError
from cellstamp.location import Location
from cellstamp.pictures.default_colours import numbers_of_rgb
from cellstamp.pipeline.extraction_plots import (
    MOST_COLOURS,
    Colours,
    PathLike,
    check_matplotlib,
    in_legend,
    plot_cells,
    plot_removed,
)
from cellstamp.pipeline.loading import ProjectInput
from cellstamp.source.names import IMAGE_NAME
from cellstamp.source.outlines import OutlineMask

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cellstamp.source.read.arrays import Mask, PixelArray
    from cellstamp.source.read.overview import View

Region = Sequence[tuple[int, int]]


class ProjectPictures(ProjectInput):
    """Methods of a project that draw pictures."""

    if TYPE_CHECKING:

        def _latest(self) -> Location: ...

    def plot_input_image(
        self,
        channels: str | Sequence[str] | None = None,
        region: Region | None = None,
        color: Colours | None = None,
        *,
        ax: Axes | None = None,
        save: PathLike | None = None,
    ) -> Axes:
        """Draw the project's image, or a part of it.

        Reads about as many pixels as the picture has, if the image has resolution levels; otherwise block by block.

        Parameters
        ----------
        channels
            Name or names. None: the channels in the mapping `color`, otherwise the first three. An image with the
            channels red, green and blue is shown in these colours.
        region
            ``[(first row, end), (first column, end)]`` in pixels; None: the whole image.
        color
            As for `plot_cells`; None: gray for one channel, otherwise ``"auto"``.
        ax, save
            As for `plot_cells`.

        Returns
        -------
        matplotlib.axes.Axes
            In pixels of the full-resolution image.

        Raises
        ------
        ConfigError
            If an argument is invalid, a channel is unknown, or matplotlib is not installed.
        InputError
            If the project has no image.
        OutputError
            If the picture cannot be written.
        """
        return self._plot_slide("plot_input_image", channels, region, color, [], ax, save)

    def plot_segmentation_masks(
        self,
        channels: str | Sequence[str] | None = None,
        region: Region | None = None,
        color: Colours | None = None,
        mask_outline: bool | str | Mapping[str, Any] = True,  # noqa: FBT001, FBT002 - as plot_cells
        *,
        ax: Axes | None = None,
        save: PathLike | None = None,
    ) -> Axes:
        """Draw the outlines of the project's masks, labels or shapes, over its image.

        For a large slide, pass a `region`: outlines hide cells that are only a few pixels of the picture.

        Parameters
        ----------
        channels
            Name or names of the channels below the outlines. None: the channels in the mapping `color`, otherwise the
            first; of colour images, red, green and blue.
        region, color, ax, save
            As for `plot_input_image`.
        mask_outline
            As for `plot_cells`.

        Returns
        -------
        matplotlib.axes.Axes
            In pixels of the full-resolution image.

        Raises
        ------
        ConfigError
            If an argument is invalid, a channel or mask is unknown, or matplotlib is not installed.
        InputError
            If the project has no image or no mask.
        OutputError
            If the picture cannot be written.
        """
        from cellstamp.source.find.elements import find_source

        check_matplotlib("plot_segmentation_masks")
        _, names = _find_image(self._store)
        from cellstamp.pictures import canvas

        masks = {mask.name: mask for mask in find_source(self._store).masks}
        outlines = canvas.colours_of_masks(mask_outline, list(masks))
        chosen = [(masks[name], colour) for name, colour in outlines.items()]
        if channels is None and color is None and not numbers_of_rgb(names):
            channels = names[:1]
        return self._plot_slide("plot_segmentation_masks", channels, region, color, chosen, ax, save)

    def _plot_slide(
        self, what: str, channels: Any, region: Any, color: Any, masks: Sequence[tuple[Mask, Any]], ax: Any, save: Any
    ) -> Axes:
        check_matplotlib(what)
        from cellstamp.pictures import canvas, slide
        from cellstamp.source.read.overview import view_image, view_labels

        canvas.check_target(ax, save)
        image, names = _find_image(self._store)
        numbers = _numbers_of(channels, color, names)
        shown = [names[number] for number in numbers]
        is_rgb = color is None and image.dtype == "uint8" and numbers_of_rgb(shown) == [*range(len(shown))]
        colours = None if is_rgb else slide.colours_for(color, shown)
        view = view_image(image, numbers, region)
        area, of_masks = view.area, {in_legend(mask.name): colour for mask, colour in masks}
        labels = {
            in_legend(mask.name): view_labels(mask, region) for mask, _ in masks if not isinstance(mask, OutlineMask)
        }
        rings = {
            in_legend(mask.name): mask.lines(area.top, area.bottom, area.left, area.right)
            for mask, _ in masks
            if isinstance(mask, OutlineMask)
        }
        labelled = [*(shown if colours is not None else ()), *of_masks]
        with canvas.drawing(ax, slide.page_of(area.shape, labelled), save) as axes:
            if is_rgb:
                slide.draw_rgb(axes, view.pixels, float(np.iinfo(image.dtype).max), view.extent)
            else:
                slide.draw_image(axes, view.pixels, shown, colours, view.extent)
            outlined = {name: (each.pixels, each.extent) for name, each in labels.items()}
            slide.draw_outlines(axes, outlined, of_masks)
            slide.draw_rings(axes, rings, of_masks)
            slide.show_area(axes, (area.top, area.bottom), (area.left, area.right), _title(shown, names, view))
        return axes

    def plot_single_cell_images(self, **options: Any) -> Axes:
        """Draw cells of the latest extraction, full or partial. Takes the arguments of `plot_cells`.

        Raises
        ------
        InputError
            If the project has no extraction; and as `plot_cells`.
        """
        return plot_cells(self._latest(), **options)

    def plot_removed(self, *, ax: Axes | None = None, save: PathLike | None = None) -> Axes:
        """Draw the positions of kept and removed cells of the latest extraction, as `cellstamp.plot_removed`.

        Raises
        ------
        InputError
            If the project has no extraction; and as `cellstamp.plot_removed`.
        """
        return plot_removed(self._latest(), self._store, ax=ax, save=save)


def _find_image(store: Path) -> tuple[PixelArray, tuple[str, ...]]:
    from cellstamp.source.find.elements import find_image

    if not store.is_dir():
        raise InputError(f"{store}: there is no image yet; load one first")
    source = find_image(store, IMAGE_NAME)
    return source.image, source.channel_names


def _numbers_of(channels: Any, color: Any, names: tuple[str, ...]) -> list[int]:
    """Return the numbers of the channels to show."""
    if channels is None and isinstance(color, Mapping):
        channels = list(color)
    if channels is None:
        return numbers_of_rgb(names) or list(range(len(names)))[:MOST_COLOURS]
    wanted = [str(name) for name in ([channels] if isinstance(channels, str | int) else channels)]
    unknown = [name for name in wanted if name not in names]
    if unknown or not wanted:
        problem = f"no channel named {', '.join(map(repr, unknown))}" if unknown else "no channel given"
        raise ConfigError(f"channels: {problem}; the project's image has {', '.join(names)}")
    return [names.index(name) for name in wanted]


def _title(shown: Sequence[str], names: Sequence[str], view: View) -> str:
    what = shown[0] if len(shown) == 1 else f"{len(shown)} of {len(names)} channels"
    rows, columns = view.area.shape
    return f"{what}, {rows:,} x {columns:,} pixels"
