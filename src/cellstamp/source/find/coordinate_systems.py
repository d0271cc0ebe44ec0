"""Choose the coordinate system that places two elements on each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cellstamp.errors import InputError
from cellstamp.source.find.masks import listing
from cellstamp.source.find.placement import Matrix, between, differing

_GLOBAL = "global"


def check_system(here: Mapping[str, Matrix], wanted: str | None, where: str) -> None:
    """Check that the wanted coordinate system, if any, is one of an image's.

    Raises
    ------
    InputError
        If it is not.
    """
    if wanted is not None and wanted not in here:
        raise InputError(f"coordinate_system: {where} is not in '{wanted}'; it is in {listing(sorted(here))}")


def choose_system(
    here: Mapping[str, Matrix], there: Mapping[str, Matrix], wanted: str | None, where: str, kind: str = "shapes"
) -> str:
    """Return the coordinate system that places two elements: the wanted one, the only shared one, or ``global``.

    If all shared ones place them alike, as those of Visium HD do, any of them is the same.

    Parameters
    ----------
    here, there
        Placements of the image and of the other element.
    wanted
        The key ``coordinate_system``.
    where, kind
        For messages: both elements, and what the other one is.

    Raises
    ------
    InputError
        If there is none, if several are possible, or if a transformation has no inverse.
    """
    chosen = _choose(here, there, wanted, where, kind)
    if 0 in (np.linalg.det(there[chosen][:2, :2]), np.linalg.det(here[chosen][:2, :2])):
        raise InputError(
            f"{where}: a transformation to '{chosen}' has no inverse. Set it with "
            "spatialdata.transformations.set_transformation"
        )
    return chosen


def _choose(here: Mapping[str, Matrix], there: Mapping[str, Matrix], wanted: str | None, where: str, kind: str) -> str:
    shared = sorted(set(here) & set(there))
    if wanted is not None and wanted not in shared:
        raise InputError(f"{where}: coordinate_system '{wanted}' does not place both; shared are: {listing(shared)}")
    if wanted is not None or len(shared) == 1 or _GLOBAL in shared:
        return wanted or (shared[0] if len(shared) == 1 else _GLOBAL)
    if shared and _place_alike(here, there, shared):
        return shared[0]
    if shared:
        raise InputError(f"{where} share several coordinate systems: {listing(shared)}. Set coordinate_system to one")
    raise InputError(
        f"{where} share no coordinate system: the image has {listing(sorted(here))}, the {kind} "
        f"{listing(sorted(there))}. Set the position of one of them with spatialdata.transformations.set_transformation"
    )


def _place_alike(here: Mapping[str, Matrix], there: Mapping[str, Matrix], systems: Sequence[str]) -> bool:
    try:
        ways = {system: between(here[system], there[system]) for system in systems}  # compared in the image's pixels
    except np.linalg.LinAlgError:
        return False
    return not differing(dict.fromkeys(systems, ways[systems[0]]), ways)
