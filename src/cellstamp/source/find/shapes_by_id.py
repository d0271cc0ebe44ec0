"""Find shapes by their ids: texts are ids in the element, integers usually values of ``scportrait_cell_id``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import ConfigError
from cellstamp.source.outlines import OutlineMask
from cellstamp.warnings import warn

_N_EXAMPLES = 5


def ids_of_shapes(texts: Iterable[str], masks: Sequence[OutlineMask], origin: str) -> NDArray[np.uint64] | None:
    """Return the ids of cells that shapes name by text, ascending; None if no mask has all of them.

    Cells without a nucleus are left out, with a warning.
    """
    wanted = np.array(sorted(texts), object)
    chosen = (_chosen(wanted, mask, origin) for mask in masks)
    return next((ids for ids in chosen if ids is not None), None)


def _chosen(names: NDArray[Any], mask: OutlineMask, origin: str) -> NDArray[np.uint64] | None:
    """Return the ids of cells by their ids in the element, ascending; None if the mask lacks some of them."""
    found, unpaired = mask.ids_of(names), mask.is_unpaired(names)
    if not (unpaired | (found > 0)).all():
        return None
    leave_out(names[unpaired], names.size, mask, origin)
    return np.unique(found[~unpaired])


def leave_out(names: NDArray[Any], n_chosen: int, mask: OutlineMask, origin: str) -> None:
    """Warn that chosen cells are left out, since they have no nucleus.

    Raises
    ------
    ConfigError
        If none is left.
    """
    if names.size == n_chosen:
        raise ConfigError(
            f"{origin}: none of {n_chosen} chosen cells of '{mask.name}' has a nucleus, like {_listed(names)}. To "
            "extract them, leave out the mask of nuclei"
        )
    if names.size:
        warn(
            f"{origin}: {names.size} of {n_chosen} chosen cells of '{mask.name}' have no nucleus and are left out: "
            f"{_listed(names)}. To extract them too, leave out the mask of nuclei"
        )


def numbered_shapes(
    numbers: NDArray[np.uint64], masks: Sequence[OutlineMask], origin: str, *, of_program: bool
) -> NDArray[np.uint64] | None:
    """Return the ids of cells that shapes name by these integers, ascending; None if shapes have other ids.

    Parameters
    ----------
    origin
        Source of the integers, for messages.
    of_program
        Whether they are from a column of another program, which has the ids of the shapes.

    Raises
    ------
    ConfigError
        If some of them are missing.
    """
    named = [(mask, _names_of(numbers, mask, of_program=of_program)) for mask in masks]
    asked = [(mask, names) for mask, names in named if names is not None]
    chosen = (_chosen(names, mask, origin) for mask, names in asked)
    if (ids := next((ids for ids in chosen if ids is not None), None)) is not None:
        return ids
    are_shapes = [mask.ids_of(names).any() or _are_names(mask, of_program=of_program) for mask, names in asked]
    if any(are_shapes):
        missing, mask = _fewest_missing(compress(asked, are_shapes))
        raise ConfigError(
            f"{origin}: {missing.size} of {numbers.size} cells are not among the {mask.names.size} cells of "
            f"'{mask.name}': {_listed(missing)}. Give ids of that mask, like {_listed(mask.names[:3])}"
        )
    return None


def _fewest_missing(asked: Iterable[tuple[OutlineMask, NDArray[Any]]]) -> tuple[NDArray[Any], OutlineMask]:
    """Return the mask that has most of the ids, and those that are missing there."""
    missing = [(names[(mask.ids_of(names) == 0) & ~mask.is_unpaired(names)], mask) for mask, names in asked]
    return min(missing, key=lambda each: each[0].size)


def _names_of(numbers: NDArray[np.uint64], mask: OutlineMask, *, of_program: bool) -> NDArray[Any] | None:
    """Return the ids of shapes that integers name; None if the integers have another meaning.

    Texts may look like integers (MERSCOPE's EntityID). Where shapes have other integers than the mask (Proseg counts
    from 0), only the columns of programs have those of the shapes.
    """
    if mask.names.dtype.kind not in "iu":
        return numbers.astype(str)
    if of_program or not mask.is_numbered:
        return numbers.astype(np.int64)
    return None


def _are_names(mask: OutlineMask, *, of_program: bool) -> bool:
    """Return whether integers can only be ids of the shapes: those of another program, if cells were numbered."""
    return of_program and mask.is_numbered and mask.names.dtype.kind in "iu"


def _listed(cells: NDArray[Any]) -> str:
    return ", ".join(map(str, cells[:_N_EXAMPLES].tolist())) + (", ..." if cells.size > _N_EXAMPLES else "")


def unknown_texts(texts: Iterable[str], masks: Sequence[OutlineMask]) -> str:
    """Return the texts that are missing among the ids of the shapes with most of them, and a fix."""
    wanted = np.array(sorted(texts), object)
    unknown, mask = _fewest_missing((mask, wanted) for mask in masks)
    examples = ", ".join(map(repr, unknown[:_N_EXAMPLES].tolist())) + (", ..." if unknown.size > _N_EXAMPLES else "")
    return (
        f"{unknown.size} of {wanted.size} cells are not among the shapes '{mask.name}': {examples}. Give ids like "
        f"{', '.join(map(repr, mask.names[:3].astype(str).tolist()))}, or values of scportrait_cell_id (1, 2, ...)"
    )


def taken_as_numbers(ids: NDArray[np.uint64], mask: OutlineMask) -> str | None:
    """Return a warning if shapes with ids that are other integers are chosen by integers."""
    if not mask.is_numbered or mask.names.dtype.kind not in "iu":
        return None
    known = ids[np.isin(ids, mask.ids)]
    if not known.size:
        return None
    name = mask.names[np.searchsorted(mask.ids, known[0])]
    return (
        f"integers are values of scportrait_cell_id, not ids of '{mask.name}' (scportrait_cell_id {known[0]} is "
        f"'{name}' there). Give ids of the shapes as text"
    )
