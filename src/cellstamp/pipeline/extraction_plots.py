"""Draw the results of an extraction."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import ConfigError, InputError
from cellstamp.h5sc.opening import marked_file
from cellstamp.location import Location, check_valid, is_path, location_of
from cellstamp.pipeline.folder import STORE
from cellstamp.source.names import CYTOSOL, IMAGE_NAME, NUCLEUS

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

    from cellstamp.h5sc.kept_and_removed import KeptAndRemoved
    from cellstamp.h5sc.selected_images import SelectedImages
    from cellstamp.location import AnyPath
    from cellstamp.pictures.removed import CellPositions
    from cellstamp.source.read.arrays import Mask
    from cellstamp.source.values import Centers

PathLike = str | os.PathLike[str]
MOST_COLOURS = 3
"""Number of channels shown in colours by default; the sum of more is often white."""

_SAME_PLACE = 1.0
"""Tolerance for a centre, in pixels along each axis; some programs round centres."""

_BY_CELL = (
    "{where}: each cell was normalised by itself, so its brightness is not comparable with that of others, also with "
    "scale='all'. Set normalization_scope to 'image', or normalize_output to False, and extract again"
)

Colours = str | Sequence[Any] | Mapping[str, Any]


def plot_cells(
    h5sc: PathLike | AnnData,
    cells: Sequence[int] | Sequence[bool] | NDArray[np.integer[Any] | np.bool_] | int | str | None = None,
    n: int | None = None,
    channels: str | int | Sequence[str | int] | None = None,
    mask_outline: bool | str | Mapping[str, Any] = True,  # noqa: FBT001, FBT002 - read by name
    color: Colours | None = None,
    *,
    scale: str | None = None,
    ax: Axes | None = None,
    save: PathLike | None = None,
) -> Axes:
    """Draw single-cell images side by side, with their ids and the outlines of their masks.

    Reads only the images it shows. Without `color`, channels are gray: a row of channels for each cell, or a grid of
    cells for a single channel. With `color`, each cell is one coloured picture. If the file has the size of a pixel, a
    scale bar is drawn.

    Parameters
    ----------
    h5sc
        Path of an ``.h5sc`` file, or an `AnnData` from `read_h5sc` or ``project.h5sc``, or a subset of it.
    cells
        Ids of the cells to show, in this order. None: `n` cells, evenly spaced in the file. A boolean for each cell, or
        the name of a boolean column of ``obs``: `n` of the cells that are true.
    n
        Number of cells, if `cells` is not a list of ids. None: about 16, as many as fill the rows of the picture.
    channels
        Names or numbers of channels or masks, one or several. Numbers start at 0, masks first. None: the channels in
        the mapping `color`, the first three if `color` is ``"auto"``, otherwise all image channels.
    mask_outline
        Whether to draw the outlines of masks; or one colour; or a mapping from masks to colours.
    color
        None for gray; a mapping from channels to colours; a sequence of one colour for each channel; one colour for a
        single channel; or ``"auto"``. Colours are those of matplotlib. With "auto", channels named red, green and blue,
        or r, g and b, have these colours.
    scale
        Limits of each channel. ``"all"``: the same for all cells shown, so that their brightness can be compared.
        ``"cell"``: different for each cell, so that dim cells are visible. Limits are the 0.1% and 99.9% quantiles.
        None: 0 to 1 for normalised images, otherwise ``"all"``.
    ax
        Axes to draw on. None: a new figure, which pyplot shows in notebooks, or if you have imported it.
    save
        Path of the picture to write; the suffix sets the file format.

    Returns
    -------
    matplotlib.axes.Axes
        Contains all cells in one image, without resampling. Above 8 million pixels, squares of pixels are averaged.

    Raises
    ------
    ConfigError
        If an argument is invalid, a channel is unknown, or matplotlib is not installed.
    InputError
        If the file is not an ``.h5sc`` file, is damaged, or lacks one of the cells.
    OutputError
        If the picture cannot be written.

    Examples
    --------
    >>> plot_cells("single_cells.h5sc", channels="DAPI")  # doctest: +SKIP
    >>> plot_cells("single_cells.h5sc", cells=[7, 12], color={"DAPI": "blue", "actin": "green"})  # doctest: +SKIP
    """
    check_matplotlib("plot_cells")
    from cellstamp.h5sc.selected_images import selected_images
    from cellstamp.pictures import canvas
    from cellstamp.pictures.cells import ALL_CELLS, default_count, draw_cells, gather

    canvas.check_target(ax, save)
    _check_scale(scale)
    with selected_images(h5sc) as look:
        planes, color = planes_to_show(look, channels, color)
        names = [look.plane_names[plane] for plane in planes]
        rows = look.rows_of(cells, default_count(len(planes) if color is None else 1, ax) if n is None else n)
        outlines = canvas.colours_of_masks(mask_outline, look.mask_names)
        if color is not None:
            canvas.colours_of_channels(color, names)  # errors come before data is read
        if scale == ALL_CELLS and look.is_scaled_by_cell:
            warnings.warn(_BY_CELL.format(where=look.where), UserWarning, stacklevel=2)
        masks = [plane for plane, name in enumerate(look.mask_names) if name in outlines]
        shown = gather(
            (look.scaled_image(row, [*planes, *masks]) for row in rows.tolist()),
            names=[str(cell) for cell in look.cell_ids[rows].tolist()],
            channel_names=names,
            mask_names=[in_legend(look.mask_names[plane]) for plane in masks],
            side=look.image_size,
            stretch=[_limits(scale, look) if plane >= look.n_masks else None for plane in planes],
            pixel_size=look.pixel_size,
        )
        title = _title(look, len(rows), names)
    outlines = {in_legend(name): colour for name, colour in outlines.items()}
    return draw_cells(shown, color=color, outlines=outlines, title=title, ax=ax, save=save)


def planes_to_show(
    look: SelectedImages, channels: str | int | Sequence[str | int] | None, color: Colours | None
) -> tuple[list[int], Colours | None]:
    """Return the numbers of the planes to show, and their colours with names as keys; arguments as for `plot_cells`.

    Raises
    ------
    ConfigError
        If a channel is unknown.
    """
    color = _by_name(color, look) if isinstance(color, Mapping) else color
    planes = look.planes_of(list(color) if channels is None and isinstance(color, Mapping) else channels)
    if channels is None and isinstance(color, str) and color == "auto":
        planes = planes[:MOST_COLOURS]
    return planes, color


def _check_scale(scale: object) -> None:
    from cellstamp.pictures.cells import SCALES

    if scale is not None and scale not in SCALES:
        raise ConfigError(f"scale = {scale!r}: must be 'cell', 'all' or None")


def _limits(scale: str | None, look: SelectedImages) -> str | None:
    """Return which cells share the limits of a channel; None: it is not stretched."""
    return scale or (None if look.is_normalized else "all")


def in_legend(mask: str) -> str:
    """Return the name of a mask in a legend: "nucleus" and "cell" for a project's masks, else its own."""
    return {Path(NUCLEUS).name: "nucleus", Path(CYTOSOL).name: "cell"}.get(mask, mask)


def _by_name(color: Mapping[Any, Any], look: SelectedImages) -> dict[str, Any]:
    """Replace numbers of channels by their names in a mapping of colours."""
    numbered = {key: look.planes_of(key)[0] for key in color if not isinstance(key, str)}
    return {look.plane_names[numbered[key]] if key in numbered else key: colour for key, colour in color.items()}


def _title(look: SelectedImages, n_shown: int, names: Sequence[str]) -> str:
    of_all = f"{n_shown:,} of {look.cell_ids.size:,} cells"
    return f"{of_all}: {names[0]}" if len(names) == 1 else of_all


def plot_removed(
    h5sc: PathLike | AnnData,
    store: PathLike | None = None,
    *,
    ax: Axes | None = None,
    save: PathLike | None = None,
) -> Axes:
    """Draw the positions of kept and removed cells on the slide.

    Reads the ids and centres of the cells. If the store has no centres, reads the mask to compute them.

    Parameters
    ----------
    h5sc
        Path of an ``.h5sc`` file or zarr store in the same folder as its list of removed cells, or the `AnnData` that
        `read_h5sc` returns for it.
    store
        Path of the SpatialData store with the masks of the extraction. None: the store of the project that contains the
        file.
    ax, save
        As for `plot_cells`.

    Returns
    -------
    matplotlib.axes.Axes
        In pixels of the full-resolution image.

    Raises
    ------
    ConfigError
        If an argument is invalid, matplotlib is not installed, or `store` is missing for a file outside a project.
    InputError
        If the file, its list of removed cells or the store is invalid, or the store has other cells than the file.
    OutputError
        If the picture cannot be written.
    """
    check_matplotlib("plot_removed")
    from cellstamp.pictures import canvas
    from cellstamp.pictures.removed import draw_removed

    canvas.check_target(ax, save)
    return draw_removed(cell_positions(h5sc, store), ax=ax, save=save)


def cell_positions(h5sc: AnyPath | AnnData, store: PathLike | None) -> CellPositions:
    """Return the positions of kept and removed cells; arguments and errors as for `plot_removed`."""
    from cellstamp.h5sc.kept_and_removed import kept_and_removed
    from cellstamp.pictures.removed import CellPositions

    listed = kept_and_removed(h5sc)
    mask, centers = _cells_of(listed, _store_of(listed, store))
    _check_same_cells(listed, centers, mask.store)
    is_kept, is_removed = np.isin(centers.ids, listed.kept), np.isin(centers.ids, listed.removed)
    return CellPositions(
        kept=centers.xy[is_kept],
        removed=centers.xy[is_removed],
        other=centers.xy[~is_kept & ~is_removed],
        shape=(mask.shape[0], mask.shape[1]),
        margin=0 if listed.keeps_border else listed.image_size // 2 * max(listed.scale),
    )


def _cells_of(listed: KeptAndRemoved, store: str) -> tuple[Mask, Centers]:
    """Return the mask of a file in a store, and all of its cells that are on the image."""
    from cellstamp.source.find.cell_centers import centers_of_cells, centers_on_image
    from cellstamp.source.find.elements import find_main_mask
    from cellstamp.source.outlines import OutlineMask

    mask = find_main_mask(store, listed.image or IMAGE_NAME, listed.masks, listed.coordinate_system)
    if isinstance(mask, OutlineMask):
        return mask, centers_on_image(mask)
    return mask, centers_of_cells(mask, listed.centers)


def _check_same_cells(listed: KeptAndRemoved, centers: Centers, store: str) -> None:
    """Check that the cells of a file are the cells of a store."""
    remedy = (
        "The masks were replaced after the extraction, or the file comes from another store: extract again, or pass "
        "the original store"
    )
    ids = np.concatenate([listed.kept, listed.removed])
    missing = ids[~np.isin(ids, centers.ids)]
    if missing.size:
        raise InputError(
            f"{listed.path}: {missing.size} of its {ids.size} kept and removed cells are missing in "
            f"'{listed.mask}' of {store}, like cell {missing[0]}. {remedy}"
        )
    if listed.kept_xy is None:
        return
    there = centers.xy[np.searchsorted(centers.ids, listed.kept)]
    # centres were computed on the pixels of the crops
    same_place = _SAME_PLACE * max(1.0, *listed.scale)
    (elsewhere,) = np.nonzero((np.abs(there - listed.kept_xy) > same_place).any(axis=1))
    if elsewhere.size:
        (x, y), (there_x, there_y) = listed.kept_xy[elsewhere[0]], there[elsewhere[0]]
        raise InputError(
            f"{listed.path}: {elsewhere.size} of its {listed.kept.size} cells have another centre in '{listed.mask}' "
            f"of {store}, like cell {listed.kept[elsewhere[0]]}: x, y = {x:.1f}, {y:.1f} in the file, {there_x:.1f}, "
            f"{there_y:.1f} in the store. {remedy}"
        )


def _store_of(listed: KeptAndRemoved, store: PathLike | None) -> str:
    if store is not None:
        return os.fspath(store)
    found = listed.path.absolute().parent.parent.parent / STORE
    if not found.is_dir():
        raise ConfigError(
            f"store = None: {listed.path} is not in the folder of a project ({found} is missing): pass the SpatialData "
            "store of the extraction"
        )
    return str(found)


def check_matplotlib(what: str) -> None:
    """Check that matplotlib is installed, before data is read.

    Raises
    ------
    ConfigError
        If it is missing.
    """
    if find_spec("matplotlib") is None:
        raise ConfigError(f"{what} needs matplotlib: install it with pip install 'cellstamp[plot]'")


def images_of(file: Any, hint: str = "") -> Location:
    """Return the file or store to read: itself, or the latest result of a project or of its folder.

    Parameters
    ----------
    hint
        What to give in place of an `AnnData`, for the message.

    Raises
    ------
    ConfigError
        If `file` is something else, an invalid path, or a folder without a result.
    InputError
        If a project has no result.
    """
    if hasattr(file, "extraction_f"):  # a project
        return file._latest()  # type: ignore[no-any-return]
    if not is_path(file):
        wanted = "must be the path of an .h5sc file or zarr store, or a Project"
        more = hint if type(file).__name__ == "AnnData" else ""
        raise ConfigError(f"file: is {type(file).__name__}; {wanted}{more}")
    location = location_of(file)
    if isinstance(location, Path):
        check_valid(location, "file")
    return find_h5sc(location)


def find_h5sc(path: Location) -> Location:
    """Return the path of a file or store, or for a project's folder, of its latest result.

    Raises
    ------
    ConfigError
        If the folder has no result.
    """
    from cellstamp.pipeline.folder import latest_result

    if not isinstance(path, Path) or marked_file(path).is_file() or not path.is_dir():
        return path
    latest = latest_result(path)
    if latest is None:
        raise no_result_in(path)
    return latest


def no_result_in(folder: Path) -> ConfigError:
    """Return the error for a folder without a result, with the next step."""
    from cellstamp.pipeline.folder import lying_below

    in_store = "make one with cellstamp extract"
    empty = "it has no image either: check its name, or load an image with cellstamp.Project"
    hint = lying_below(folder) or (in_store if (folder / STORE).is_dir() else empty)
    return ConfigError(f"{folder}: this folder has no extraction; {hint}")
