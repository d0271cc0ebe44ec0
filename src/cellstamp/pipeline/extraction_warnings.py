"""Warnings about cells: removed at the border, not on an image, cut off, or without a pixel in a mask; with a fix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellstamp.cells.crop_settings import WIDER
from cellstamp.config import ExtractionConfig
from cellstamp.h5sc.layout import EXCEEDS, MEASURED_IN_PART
from cellstamp.pipeline.cell_selection import Selection
from cellstamp.pipeline.job import Job
from cellstamp.pipeline.run import Exceeding
from cellstamp.source.find.micrometres import in_words, seem_micrometres
from cellstamp.source.find.numbered_apart import find_numbered_apart
from cellstamp.source.find.shapes_extent import rows_and_columns
from cellstamp.source.names import centers_of
from cellstamp.source.outlines import OutlineMask
from cellstamp.source.read.arrays import PixelArray, PixelSource

_MANY_REMOVED = 0.05
"""Share of the selected cells; if more are removed at the image border, the user is warned."""
_TINY = 4.0
"""Side in pixels of cells that are probably in a wrong unit."""
_BETWEEN = "the centre of an id that stands for many cells lies between them"


def no_cells_left(source: PixelSource, config: ExtractionConfig, selection: Selection) -> str:
    """Return why no cell can be extracted, and a fix."""
    mask = source.main_mask
    if not selection.n_in_mask:
        where = f"the mask '{mask.name}' in {mask.store} is" if config.centers is None else f"'{config.centers}' is"
        return f"no cell can be extracted: {where} empty (no cells at all)"
    height, width = source.shape
    n_chosen, kind = selection.n_chosen, "chosen " if selection.n_not_chosen else ""
    return (
        f"no cell can be extracted: none of the {n_chosen} {kind}cells of '{mask.name}' is more than "
        f"{config.image_size // 2} pixels from the border of the {height} x {width} image. Choose a smaller "
        "image_size, or set border to 'pad'"
    )


def removed_cells(selection: Selection, config: ExtractionConfig) -> Iterator[str]:
    """Yield a warning if many of the selected cells are removed at the image border."""
    n_removed, n_selected = selection.removed.size, selection.n_chosen
    if n_removed > _MANY_REMOVED * n_selected:
        yield (
            f"{n_removed:,} of {n_selected:,} cells ({n_removed / n_selected:.0%}) are too close to the image border "
            f"for image_size {config.image_size}, and are not extracted. Set border to 'pad' to extract them, or "
            "choose a smaller image_size"
        )


def cut_off_cells(job: Job, exceeding: Exceeding) -> str:
    """Return how many cells exceed their crop, and a fix."""
    size, (height, width) = job.config.image_size, exceeding.largest
    exceed, are = ("exceeds its", "is") if exceeding.rows.size == 1 else ("exceed their", "are")
    return (
        f"{exceeding.rows.size} of {len(job.cells)} cells {exceed} crop of {size} x {size} pixels and {are} "
        f"cut off; the largest is {height} x {width} pixels (y, x). obs['{EXCEEDS}'] marks them. "
        f"{'' if job.features is None else 'Features are measured beyond the crop. '}{_larger_crop(job, exceeding)}"
    )


def measured_in_part(job: Job, n_cells: int) -> str:
    """Return how many cells are too large to be measured completely, and a fix."""
    size = WIDER * job.config.image_size
    exceed = "exceeds" if n_cells == 1 else "exceed"
    return (
        f"{n_cells} of {len(job.cells)} cells {exceed} the window of {size} x {size} pixels that features are measured "
        f"in, {WIDER} times image_size: areas and sums are too small. obs['{MEASURED_IN_PART}'] marks them. "
        "Set a larger image_size"
    )


def empty_cells(job: Job, n_empty: NDArray[np.int64]) -> Iterator[str]:
    """Yield a warning for each mask that lacks pixels of cells, with the likely error.

    Parameters
    ----------
    n_empty
        int64 (n_masks,): for each mask, the number of cells without a pixel in their crop.
    """
    main, cell = job.source.mask_names[0], job.source.mask_names[-1]
    mask = job.source.main_mask
    if n_empty[-1] and not (isinstance(mask, OutlineMask) and main == cell):
        are_many = 2 * n_empty[-1] >= len(job.cells) and main != cell
        hint = f". {_other_cells(main, cell)}" if are_many and n_empty[0] < n_empty[-1] else ""
        yield (
            f"{_without_pixel(n_empty[-1], len(job.cells), cell)}; {_their(n_empty[-1])} image channels are all "
            f"zero{hint}"
        )
    if n_empty[0] and isinstance(mask, OutlineMask):
        yield _without_centre(mask, n_empty[0], len(job.cells))
    elif n_empty[0]:
        doubt = _doubt(job.config.centers, main) if job.selection.shared is None else _BETWEEN
        yield f"{_without_pixel(n_empty[0], len(job.cells), main)}, though it says which cells there are: {doubt}"


def numbered_apart(source: PixelSource, selection: Selection) -> Iterator[str]:
    """Yield a warning if the labels of nuclei and those of cells seem to use one id for different cells."""
    found = find_numbered_apart(source, selection.cells)
    if found is not None:
        main, cell = source.mask_names
        own, other = found.example
        yield (
            f"'{main}' and '{cell}' seem to number cells differently: at the centres of {found.n_other} of "
            f"{found.n_examined} cells of '{main}', '{cell}' has another cell (such as {own} in {other}). A cell needs "
            "one id in both. If the store has shapes that name their cells, as Xenium's do, set nucleus_shapes and "
            "cytosol_shapes; otherwise use cellstamp.match_masks"
        )


def outside_further_images(source: PixelSource, selection: Selection) -> Iterator[str]:
    """Yield a warning for each further image that does not cover all cells."""
    for name, count in source.uncovered(selection.cells.xy).items():
        yield (
            f"{_some_of(count, len(selection.cells))} {_their(count)} centre outside of image '{name}', whose channels "
            "are 0 there"
        )


def shapes_outside_image(mask: OutlineMask) -> Iterator[str]:
    """Yield a warning if shapes are outside of the image."""
    inside = mask.is_on_image()
    if not inside.all():
        height, width = mask.shape
        yield (
            f"left out {(~inside).sum()} of {inside.size} cells of '{mask.name}' with a centre outside of the image, "
            f"which is {height} x {width} pixels (y, x), like {mask.names[~inside].tolist()[0]!r}. All centres are in "
            f"{rows_and_columns(mask)}. If all should be on the image: is pixel_size or the transformation of the "
            "shapes wrong, or is the image resampled?"
        )


def taken_for_pixels(source: PixelSource, *, in_project: bool) -> Iterator[str]:
    """Yield a warning for each mask of shapes that seems to be in micrometres without a transformation to pixels."""
    image, grid = source.pixel_size, source.crop_pixel_size
    if image is None or grid is None:
        return
    for mask in source.outlines:
        if seem_micrometres(mask, image, grid):
            yield in_words(mask, image, source.image.elements[0].name, in_project=in_project)


def outside_image(mask: PixelArray, n_cells: int, outside: NDArray[np.uint64]) -> str:
    """Return how many cells of labels with other pixels than the image's have no pixel on it."""
    height, width = mask.shape
    return (
        f"left out {outside.size} of {n_cells + outside.size} cells of '{mask.name}' without a pixel on the image, "
        f"which is {height} x {width} pixels (y, x), like cell {outside[0]}"
    )


def too_small_for_crops(source: PixelSource, n_cells: int, outside: NDArray[np.uint64]) -> str:
    """Return how many cells of labels have no pixel on a grid with other pixels than the image's."""
    return (
        f"left out {outside.size} of {n_cells + outside.size} cells of '{source.main_mask.name}' that contain the "
        f"centre of no pixel of the crops, like cell {outside[0]}: they are too small, or outside of the image. Choose "
        "a smaller crop_pixel_size"
    )


def _without_centre(mask: OutlineMask, n: int, n_cells: int) -> str:
    """Return how many shapes have no pixel, with their size and the likely error."""
    contain = "contains" if n == 1 else "contain"
    side = mask.median_side()
    found = f"{n} of {n_cells} cells of '{mask.name}' {contain} the centre of no pixel: {_their(n)} images are empty"
    if side < _TINY:
        return (
            f"{found}. The median area of the cells is that of a square of {side:.2g} x {side:.2g} pixels: check "
            "pixel_size, the transformation of the shapes, and crop_pixel_size"
        )
    return f"{found}. Such cells are smaller than a pixel, or in pieces that are far from each other"


def _without_pixel(n: int, n_cells: int, mask: str) -> str:
    return f"{_some_of(n, n_cells)} no pixel of '{mask}' in {_their(n)} crop"


def _their(n: int) -> str:
    return "its" if n == 1 else "their"


def _some_of(n: int, n_cells: int) -> str:
    return f"{n} of {n_cells} cells {'has' if n == 1 else 'have'}"


def _larger_crop(job: Job, exceeding: Exceeding) -> str:
    """Return a fix for cells that exceed their crops; a larger crop helps only if each id is one cell."""
    mask = job.source.main_mask.name
    if job.selection.shared is not None:
        return f"A larger image_size does not help where one id of '{mask}' stands for many cells"
    advice = f"A crop is centred on the cell in '{mask}': image_size {exceeding.fitting} would hold all of them"
    if 2 * exceeding.fitting <= min(job.source.shape):
        return advice
    return f"{advice}, if each id is one cell; if one id stands for many, number them with skimage.measure.label(mask)"


def _other_cells(main: str, cell: str) -> str:
    """Return the likely error in masks that lack each other's cells, and a fix."""
    return (
        f"Do '{main}' and '{cell}' number cells alike? A cell needs one id in both: cellstamp.match_masks gives it. Or "
        "is one of them shifted or transposed?"
    )


def _doubt(given: str | None, mask: str) -> str:
    """Return the likely error in the centres."""
    if given is not None:
        wrong = f"the centres in '{given}' are not those of its cells"
    else:
        remedy = f"delete the points '{Path(centers_of(mask)).name}', and they are computed again"
        wrong = f"the centres in the store are not those of its cells ({remedy})"
    return f"{wrong}, or these cells are rings larger than a window, or in separate pieces far from each other"
