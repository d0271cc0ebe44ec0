"""What a step is given as its file handler -> a store to read, and the centres of its cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cellstamp.errors import InputError
from cellstamp.rules import StoreCentersName
from cellstamp.source.find.given_centers import given_centers
from cellstamp.source.location import UnreachableError, is_remote, is_writable, linked_part, path_of, reachable
from cellstamp.source.names import centers_of
from cellstamp.source.points import labels_of_points, load_centers, shared_ids_of_points
from cellstamp.source.read.arrays import ArrayHandle
from cellstamp.source.read.centers import compute_centers
from cellstamp.source.values import Centers, SharedIds


def why_not_stored(handler: Any, labels: ArrayHandle, wanted: StoreCentersName, own: Path | None) -> str | None:
    """Return why computed centres are not stored beside the labels; None if they are.

    Parameters
    ----------
    handler
        What the step was given.
    labels
        The mask whose centres they are.
    wanted
        The key ``store_centers`` of the configuration.
    own
        The store of the project the step belongs to; None when it belongs to none.
    """
    store = labels.store
    if wanted == "never":
        return "store_centers is 'never'"
    if path_of(handler) is None:
        return "a SpatialData object is only read; with the path of its store, store_centers: always stores them"
    if is_remote(store):
        return "a remote store is only read"
    if not is_writable(store):
        return "the store cannot be written to"
    link = linked_part(store, ("points", "labels", f"labels/{labels.name}"))
    if link is not None:
        return f"{link} is a link, and nothing is written through a link"
    is_own = own is not None and own.absolute() == Path(store).absolute()
    return None if wanted == "always" or is_own else "an input store is only read, unless store_centers is 'always'"


def find_centers(
    labels: ArrayHandle,
    given: str | None,
    *,
    compute: Callable[[ArrayHandle], Centers],
    write: Callable[[str, str, Centers, str], None],
    log: Callable[[object], None],
    not_stored: str | None = None,
) -> Centers:
    """The centres of the cells of a mask: those given, else stored ones, else computed and stored for the next time.

    Parameters
    ----------
    given
        Name of points or a table with centres; None: there are none.
    compute
        Computes the centres of a mask.
    log
        Told what happened.
    not_stored
        Why computed centres must not be stored, if so.

    Raises
    ------
    InputError
        If the given or stored centres cannot be used.
    """
    if given is not None:
        with reachable(labels.store):
            centers = given_centers(labels, given)
        _check_inside(centers, labels, f"centers: '{given}'", "give others, or leave centers out: then they")
        log(f"centres of {len(centers)} cells from '{given}'; {_others(labels, centers)} not extracted")
        return centers
    stored = _stored(labels, log)
    if stored is not None:
        name = Path(centers_of(labels.name)).name
        _check_inside(stored, labels, f"points '{name}'", "delete the points, and they")
        return stored
    log(f"no centres of '{labels.name}' to go by in the store: computing them")
    # a change while they are computed makes them stale
    signature = labels.signature() if not_stored is None else ""
    centers = compute(labels)
    if not_stored is None:
        not_stored = _write(write, labels, centers, signature)
    if not_stored is not None:
        log(f"the centres could not be stored for the next time ({not_stored})")
    return centers


def centers_of_cells(labels: ArrayHandle, given: str | None) -> Centers:
    """The centres of the cells of a mask: of the element that a run was given, else those stored, else computed.

    Raises
    ------
    InputError
        When they cannot be used, or the mask cannot be read.
    """
    with reachable(labels.store):
        if given is not None:
            return given_centers(labels, given)
        centers = load_centers(labels.store, labels.name)
        return compute_centers(labels) if centers is None else centers


def _others(labels: ArrayHandle, centers: Centers) -> str:
    """How many cells the given centres lack, as far as it can be told without reading the mask."""
    try:
        stored = _stored(labels, log=lambda _: None)
    except InputError:  # those are not used
        stored = None
    if stored is None:
        return "what other cells the mask has is"
    n_others = np.setdiff1d(stored.ids, centers.ids, assume_unique=True).size
    return f"{n_others} other cells of the mask are"


def _stored(labels: ArrayHandle, log: Callable[[object], None]) -> Centers | None:
    try:
        with reachable(labels.store):
            centers = load_centers(labels.store, labels.name)
    except UnreachableError as error:
        log(str(error))
        return None
    if centers is not None and _are_of_others(labels):
        log(f"the centres stored beside '{labels.name}' are of other labels, or of these before a change")
        return None
    return None if centers is None else replace(centers, shared=_shared_ids(labels))


def _shared_ids(labels: ArrayHandle) -> SharedIds | None:
    """What was noted of the mask's ids when the stored centres were computed."""
    if is_remote(labels.store):
        return None
    return shared_ids_of_points(Path(labels.store), Path(centers_of(labels.name)).name)


def _are_of_others(labels: ArrayHandle) -> bool:
    """Whether stored centres say that they were computed from labels that are no longer there; only ours say it."""
    if is_remote(labels.store):
        return False  # what is written in a folder changes on its way to a server, though no pixel does
    made_from = labels_of_points(Path(labels.store), Path(centers_of(labels.name)).name)
    return made_from is not None and made_from != labels.signature()


def _write(
    write: Callable[[str, str, Centers, str], None], labels: ArrayHandle, centers: Centers, signature: str
) -> str | None:
    """Store centres; returns why that was not possible, if so."""
    try:
        write(labels.store, labels.name, centers, signature)
    except OSError as error:
        return str(error)
    return None


def _check_inside(centers: Centers, labels: ArrayHandle, what: str, remedy: str) -> None:
    """Refuse centres that are not of this mask: a mean of its pixels cannot lie outside of it."""
    height, width = labels.shape
    outside = ((centers.xy < 0) | (centers.xy > (width - 1, height - 1))).any(axis=1)
    if outside.any():
        x, y = centers.xy[outside][0]
        message = (
            f"{what} in {labels.store}: {outside.sum()} cells have their centre outside of '{labels.name}', which is "
            f"{height} x {width} pixels (y, x), like cell {centers.ids[outside][0]} at y = {y:g}, x = {x:g}. They are "
            f"centres of another mask, or not in pixels: {remedy} are computed from the labels"
        )
        raise InputError(message)
