"""Pictures of what an extraction has made: a look into the file, and a drawing of that."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import ConfigError, InputError
from cellstamp.pipeline.folder import STORE

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

    from cellstamp.h5sc.glance import Glance
    from cellstamp.h5sc.whereabouts import Whereabouts
    from cellstamp.source.values import Centers

PathLike = str | os.PathLike[str]
MOST_COLOURS = 3
"""Channels that are shown in colours when none are named: those of more would add up to white."""

_SAME_PLACE = 1.0
"""Pixels along an axis between two centres of one cell, at most: some programs round them."""

Colours = str | Sequence[Any] | Mapping[str, Any]


def plot_cells(
    h5sc: PathLike | AnnData,
    cells: Sequence[int] | Sequence[bool] | NDArray[np.integer[Any] | np.bool_] | int | str | None = None,
    n: int = 16,
    channels: str | int | Sequence[str | int] | None = None,
    mask_outline: bool | str | Mapping[str, Any] = True,  # noqa: FBT001, FBT002 - read by name
    color: Colours | None = None,
    *,
    ax: Axes | None = None,
    save: PathLike | None = None,
) -> Axes:
    """Draw single-cell images, side by side, with their ids and the outlines of their masks.

    Reads the stamps that are shown, and no others. Channels are gray, a row of all of them for each cell, or a grid of
    cells if it is one; with ``color`` they are one picture for each cell. Normalised stamps are shown from 0 to 1;
    others are stretched, each channel by itself and all cells alike.

    Parameters
    ----------
    h5sc
        Path of an ``.h5sc`` file, or an `AnnData` as `read_h5sc` or ``project.h5sc`` returns it, or a part of one.
    cells
        Ids of the cells to show, in this order. None: `n` of them, evenly taken from the whole file. True or false for
        each cell, or the name of such a column of ``obs``: `n` of those where it is true.
    n
        How many cells, without ids.
    channels
        Names or numbers, one or several; masks, too. Numbers count from 0, masks first. None: those that `color` maps,
        the first three if it is ``"auto"``, else all image channels.
    mask_outline
        Whether masks are outlined where they are one half; or a colour; or a mapping of masks to colours.
    color
        None for gray; a mapping of channels to colours; a sequence of colours, one for each channel; one colour for a
        single channel; or ``"auto"``. Colours are matplotlib's.
    ax
        Axes to draw on. None: those of a new figure, which is pyplot's where that shows it.
    save
        Path of a picture to write; its ending says of which kind.

    Returns
    -------
    matplotlib.axes.Axes
        With all of it as one image, pixel for pixel the stamps (as long as they are 8 million pixels at most; of more,
        the means of squares of them).

    Raises
    ------
    ConfigError
        When an argument cannot be used, there is no such channel, or matplotlib is not installed.
    InputError
        When it is no ``.h5sc`` file, is damaged, or does not have these cells.
    OutputError
        When the picture cannot be written.

    Examples
    --------
    >>> plot_cells("single_cells.h5sc", channels="DAPI")  # doctest: +SKIP
    >>> plot_cells("single_cells.h5sc", cells=[7, 12], color={"DAPI": "blue", "actin": "green"})  # doctest: +SKIP
    """
    check_matplotlib("plot_cells")
    from cellstamp.h5sc.glance import glance
    from cellstamp.pictures import canvas
    from cellstamp.pictures.cells import draw_cells, gather

    canvas.check_target(ax, save)
    with glance(h5sc) as look:
        color = _by_name(color, look) if isinstance(color, Mapping) else color
        rows = look.rows_of(cells, n)
        planes = look.planes_of(list(color) if channels is None and isinstance(color, Mapping) else channels)
        if channels is None and isinstance(color, str) and color == "auto":
            planes = planes[:MOST_COLOURS]
        names = [look.plane_names[plane] for plane in planes]
        outlines = canvas.colours_of_masks(mask_outline, look.mask_names)
        if color is not None:
            canvas.colours_of_channels(color, names)  # before anything is read
        masks = [plane for plane, name in enumerate(look.mask_names) if name in outlines]
        shown = gather(
            (look.stamp(row, [*planes, *masks]) for row in rows.tolist()),
            names=[str(cell) for cell in look.cell_ids[rows].tolist()],
            channel_names=names,
            mask_names=[look.mask_names[plane] for plane in masks],
            side=look.image_size,
            stretch=[not look.is_normalized and plane >= look.n_masks for plane in planes],
        )
        title = _title(look, len(rows), names)
    return draw_cells(shown, color=color, outlines=outlines, title=title, ax=ax, save=save)


def _by_name(color: Mapping[Any, Any], look: Glance) -> dict[str, Any]:
    """The same colours, those of numbers of channels for the names of these."""
    numbered = {key: look.planes_of(key)[0] for key in color if not isinstance(key, str)}
    return {look.plane_names[numbered[key]] if key in numbered else key: colour for key, colour in color.items()}


def _title(look: Glance, n_shown: int, names: Sequence[str]) -> str:
    of_all = f"{n_shown:,} of {look.cell_ids.size:,} cells"
    return f"{of_all}: {names[0]}" if len(names) == 1 else of_all


def plot_removed(
    h5sc: PathLike | AnnData,
    store: PathLike | None = None,
    *,
    ax: Axes | None = None,
    save: PathLike | None = None,
) -> Axes:
    """Draw where on the slide cells were kept and dropped.

    Reads the ids and centres of the cells, no pixel.

    Parameters
    ----------
    h5sc
        Path of an ``.h5sc`` file, with its ``removed_classes.csv`` beside it, or what `read_h5sc` returns for it.
    store
        The SpatialData store with the masks, and their centres, that the file was made from. None: that of the project
        whose folder the file is in.
    ax, save
        As for `plot_cells`.

    Returns
    -------
    matplotlib.axes.Axes
        In pixels of the full-resolution image.

    Raises
    ------
    ConfigError
        When an argument cannot be used, no store is given where there is no project, or matplotlib is not installed.
    InputError
        When the file, its list of removed cells or the store cannot be used, or the store's cells are not the file's.
    OutputError
        When the picture cannot be written.
    """
    check_matplotlib("plot_removed")
    from cellstamp.h5sc.whereabouts import whereabouts
    from cellstamp.pictures import canvas
    from cellstamp.pictures.removed import CellPositions, draw_removed
    from cellstamp.source.elements import find_labels
    from cellstamp.source.overview import find_stored_centers

    canvas.check_target(ax, save)
    told = whereabouts(h5sc)
    labels = find_labels(_store_of(told, store), told.mask)
    centers = find_stored_centers(labels, told.centers)
    _check_same_cells(told, centers, labels.store)
    is_kept, is_removed = np.isin(centers.ids, told.kept), np.isin(centers.ids, told.removed)
    cells = CellPositions(
        kept=centers.xy[is_kept],
        removed=centers.xy[is_removed],
        other=centers.xy[~is_kept & ~is_removed],
        shape=(labels.shape[0], labels.shape[1]),
        margin=0 if told.keeps_border else told.image_size // 2,
    )
    return draw_removed(cells, ax=ax, save=save)


def _check_same_cells(told: Whereabouts, centers: Centers, store: str) -> None:
    """See that the cells of a file are those of a store; of other cells, the picture would tell what is not so."""
    remedy = (
        "the masks were replaced since, or it was made from another store: extract again, or give the store it is of"
    )
    ids = np.concatenate([told.kept, told.removed])
    missing = ids[~np.isin(ids, centers.ids)]
    if missing.size:
        raise InputError(
            f"{told.path}: {missing.size} of its {ids.size} kept and removed cells, like cell {missing[0]}, are not "
            f"among the {len(centers)} of '{told.mask}' in {store}; {remedy}"
        )
    if told.kept_xy is None:
        return
    there = centers.xy[np.searchsorted(centers.ids, told.kept)]
    (elsewhere,) = np.nonzero((np.abs(there - told.kept_xy) > _SAME_PLACE).any(axis=1))
    if elsewhere.size:
        (x, y), (there_x, there_y) = told.kept_xy[elsewhere[0]], there[elsewhere[0]]
        raise InputError(
            f"{told.path}: {elsewhere.size} of its {told.kept.size} cells are elsewhere in '{told.mask}' in {store}, "
            f"like cell {told.kept[elsewhere[0]]}: x, y = {x:.1f}, {y:.1f} in the file, {there_x:.1f}, {there_y:.1f} "
            f"in the store; {remedy}"
        )


def _store_of(told: Whereabouts, store: PathLike | None) -> str:
    if store is not None:
        return os.fspath(store)
    found = told.path.absolute().parent.parent.parent / STORE
    if not found.is_dir():
        raise ConfigError(
            f"store = None: {told.path} is in no project's folder (there is no {found}): give the SpatialData store it "
            "was made from"
        )
    return str(found)


def check_matplotlib(what: str) -> None:
    """Say what is missing before anything is read.

    Raises
    ------
    ConfigError
        When matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise ConfigError(f"{what} needs matplotlib: install it with pip install 'cellstamp[plot]'")


def find_h5sc(path: Path) -> Path:
    """The file that a path means: itself, or the newest result of a project's folder.

    Raises
    ------
    ConfigError
        When a folder has none.
    """
    from cellstamp.pipeline.folder import latest_result, lying_below

    if not path.is_dir():
        return path
    latest = latest_result(path)
    if latest is None:
        hint = lying_below(path) or "cellstamp extract makes one of a project"
        raise ConfigError(f"{path}: there is no extraction in this folder; {hint}")
    return latest
