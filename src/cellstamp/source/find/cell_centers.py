"""Find the centres of a mask's cells: named in the configuration, stored before, or computed now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.config_rules import StoreCentersName
from cellstamp.errors import InputError
from cellstamp.location import UnreachableError, is_remote, is_writable, linked_part, path_of, reachable
from cellstamp.source.find.given_centers import given_centers
from cellstamp.source.names import centers_of
from cellstamp.source.outlines import OutlineMask
from cellstamp.source.points import labels_of_points, load_centers, shared_ids_of_points
from cellstamp.source.read.arrays import PixelArray
from cellstamp.source.read.centers import Run, blocks_of, compute_centers, sum_up
from cellstamp.source.read.sampled import SampledArray
from cellstamp.source.values import Centers, SharedIds
from cellstamp.warnings import warn


def why_not_stored(handler: Any, labels: PixelArray, wanted: StoreCentersName, own: Path | None) -> str | None:
    """Return the reason why computed centres are not stored in the labels' store, or None if they are.

    Parameters
    ----------
    handler
        The step's file handler.
    labels
        The mask.
    wanted
        The key ``store_centers`` of the configuration.
    own
        The store of the step's project; None without a project.
    """
    store = labels.store
    if isinstance(labels, SampledArray):
        return "they are centres on other pixels than those of the labels"
    if wanted == "never":
        return "store_centers is 'never'"
    if path_of(handler) is None:
        return "a SpatialData object is only read; give the path of its store and store_centers: always"
    if is_remote(store):
        return "a remote store is only read"
    if not is_writable(store):
        return "the store cannot be written to"
    link = linked_part(store, ("points", "labels", f"labels/{labels.name}"))
    if link is not None:
        return f"{link} is a symbolic link; cellstamp does not write through links"
    is_own = own is not None and own.absolute() == Path(store).absolute()
    return None if wanted == "always" or is_own else "an input store is only read, unless store_centers is 'always'"


def find_centers(
    labels: PixelArray,
    given: str | None,
    *,
    compute: Callable[[PixelArray], Centers],
    write: Callable[[str, str, Centers, str], None],
    log: Callable[[object], None],
    not_stored: str | None = None,
) -> Centers:
    """Return the centres of the cells of a mask: given ones, else stored ones, else computed ones, which are stored.

    Parameters
    ----------
    given
        Name of points or a table with centres; None: the configuration names none.
    compute
        Callable that computes the centres of a mask.
    write
        Callable that stores centres, like `cellstamp.source.load.store.store_centers`.
    log
        Callable that logs a line.
    not_stored
        Reason why computed centres must not be stored, if any.

    Raises
    ------
    InputError
        If the given or stored centres are invalid.
    """
    if given is not None:
        with reachable(labels.store):
            centers = given_centers(_own_pixels(labels), given)
        _check_inside(centers, labels, f"centers: '{given}'", "give others, or remove the key centers: then they")
        centers, n_given = _on_grid(centers, labels), len(centers)
        if len(centers) < n_given:
            message = f"left out {n_given - len(centers)} of {n_given} cells with a centre outside of the image"
            log(message)
            warn(message)
        log(f"centres of {len(centers)} cells from '{given}'; {_other_cells(labels, centers)} not extracted")
        return centers
    stored = None if isinstance(labels, SampledArray) else _stored(labels, log)
    if stored is not None:
        name = Path(centers_of(labels.name)).name
        _check_inside(stored, labels, f"points '{name}'", "delete the points, and they")
        return stored
    where = "on the image" if isinstance(labels, SampledArray) else "in the store"
    log(f"no valid centres of '{labels.name}' {where}: computing them")
    # if the labels change during the computation, the stored centres must be stale
    signature = labels.signature() if not_stored is None else ""
    centers = compute(labels)
    if not_stored is None:
        not_stored = _write(write, labels, centers, signature)
    if not_stored is not None:
        log(f"did not store the centres ({not_stored})")
    return centers


def centers_of_cells(labels: PixelArray, given: str | None) -> Centers:
    """Return the centres of all cells of a mask, after a run: given ones, else stored ones, else computed ones.

    Raises
    ------
    InputError
        If they are invalid, or if the mask cannot be read.
    """
    with reachable(labels.store):
        if given is not None:
            return _on_grid(given_centers(_own_pixels(labels), given), labels)
        centers = None if isinstance(labels, SampledArray) else load_centers(labels.store, labels.name)
        return compute_centers(labels) if centers is None else centers


def centers_on_image(mask: OutlineMask) -> Centers:
    """Return the cells of shapes whose centre is on the image."""
    on_image = mask.is_on_image()
    return Centers(mask.ids[on_image], mask.centers[on_image])


def cells_off_grid(labels: PixelArray, centers: Centers, run: Run = map) -> NDArray[np.uint64]:
    """Return the ids of cells of labels without a pixel on the image, ascending; only samples can lack any.

    Only areas of the labels that may have such cells are read.

    Parameters
    ----------
    labels
        The mask.
    centers
        The cells with a pixel.
    run
        Applies a callable to every block of a mask.
    """
    if not isinstance(labels, SampledArray):
        return np.empty(0, np.uint64)
    blocks = [block for block in blocks_of(labels.origin) if labels.may_skip(block)]
    found = sum_up(labels.origin, run, blocks=blocks).ids.astype(np.uint64) if blocks else np.empty(0, np.uint64)
    return np.setdiff1d(found, centers.ids)


def _own_pixels(labels: PixelArray) -> PixelArray:
    return labels.origin if isinstance(labels, SampledArray) else labels


def _on_grid(centers: Centers, labels: PixelArray) -> Centers:
    """Return centres in pixels of the image, given those in pixels of the labels; those outside are left out."""
    if not isinstance(labels, SampledArray):
        return centers
    height, width = labels.grid
    xy = labels.on_grid(centers.xy)
    x, y = np.round(xy).T
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return Centers(centers.ids[inside], xy[inside])


def _other_cells(labels: PixelArray, centers: Centers) -> str:
    """Return how many cells the given centres lack, if stored centres show it: the mask is not read."""
    try:
        stored = _stored(labels, log=lambda _: None)
    except InputError:  # invalid stored centres are not used
        stored = None
    if stored is None:
        return "other cells of the mask are"
    n_others = np.setdiff1d(stored.ids, centers.ids, assume_unique=True).size
    return f"{n_others} other cells of the mask are"


def _stored(labels: PixelArray, log: Callable[[object], None]) -> Centers | None:
    try:
        with reachable(labels.store):
            centers = load_centers(labels.store, labels.name)
    except UnreachableError as error:
        log(str(error))
        return None
    if centers is not None and _are_stale(labels):
        log(f"the stored centres of '{labels.name}' are out of date: the labels have changed")
        return None
    return None if centers is None else replace(centers, shared=_shared_ids(labels))


def _shared_ids(labels: PixelArray) -> SharedIds | None:
    """Return the evidence of shared ids that is stored with the centres."""
    if is_remote(labels.store):
        return None
    return shared_ids_of_points(Path(labels.store), Path(centers_of(labels.name)).name)


def _are_stale(labels: PixelArray) -> bool:
    """Return whether the labels have changed since the stored centres were computed; only cellstamp records that."""
    if is_remote(labels.store):
        return False  # copying a folder to a server changes its signature, but no pixel
    made_from = labels_of_points(Path(labels.store), Path(centers_of(labels.name)).name)
    return made_from is not None and made_from != labels.signature()


def _write(
    write: Callable[[str, str, Centers, str], None], labels: PixelArray, centers: Centers, signature: str
) -> str | None:
    """Store centres; return the reason if that was not possible."""
    try:
        write(labels.store, labels.name, centers, signature)
    except OSError as error:
        return str(error)
    return None


def _check_inside(centers: Centers, labels: PixelArray, what: str, remedy: str) -> None:
    """Check that centres lie inside the mask: the mean of its pixels cannot lie outside."""
    height, width = _own_pixels(labels).shape
    outside = ((centers.xy < 0) | (centers.xy > (width - 1, height - 1))).any(axis=1)
    if outside.any():
        x, y = centers.xy[outside][0]
        message = (
            f"{what} in {labels.store}: the centres of {outside.sum()} cells are outside of '{labels.name}', which is "
            f"{height} x {width} pixels (y, x), like cell {centers.ids[outside][0]} at y = {y:g}, x = {x:g}. They are "
            f"centres of another mask, or not in pixels: {remedy} are computed from the labels"
        )
        raise InputError(message)
