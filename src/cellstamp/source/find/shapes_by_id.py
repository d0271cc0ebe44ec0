"""Find shapes by their ids: texts are ids in the element, integers usually values of ``scportrait_cell_id``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    for mask in masks:
        found = mask.ids_of(wanted)
        unpaired = mask.is_unpaired(wanted)
        if (unpaired | (found > 0)).all():
            leave_out(wanted[unpaired], wanted.size, mask, origin)
            return np.unique(found[~unpaired])
    return None


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
    for mask in masks:
        found = _ids_of_numbers(numbers, mask, of_program=of_program)
        if found.all():
            return np.unique(found)
        missing = numbers[(found == 0) & ~mask.is_unpaired(numbers)]
        if not missing.size and mask.unpaired.size:
            leave_out(numbers[found == 0], numbers.size, mask, origin)
            return np.unique(found[found > 0])
        if found.any() or _are_names(mask, of_program=of_program):
            raise ConfigError(
                f"{origin}: {missing.size} of {numbers.size} cells are not among the {mask.names.size} cells of "
                f"'{mask.name}': {_listed(missing)}. Give ids of that mask, like {_listed(mask.names[:3])}"
            )
    return None


def _ids_of_numbers(numbers: NDArray[np.uint64], mask: OutlineMask, *, of_program: bool) -> NDArray[np.uint64]:
    """Return the ids of cells that shapes name by these integers; 0: none.

    Texts may look like integers (MERSCOPE's EntityID). Where shapes have other integers than the mask (Proseg counts
    from 0), only the columns of programs have those of the shapes.
    """
    if mask.names.dtype.kind not in "iu":
        return mask.ids_of(numbers.astype(str))
    if _are_names(mask, of_program=of_program):
        return mask.ids_of(numbers.astype(np.int64))
    return np.zeros(numbers.size, np.uint64)


def _are_names(mask: OutlineMask, *, of_program: bool) -> bool:
    """Return whether integers can only be ids of the shapes: those of another program, if cells were numbered."""
    return of_program and mask.is_numbered and mask.names.dtype.kind in "iu"


def _listed(cells: NDArray[Any]) -> str:
    return ", ".join(map(str, cells[:_N_EXAMPLES].tolist())) + (", ..." if cells.size > _N_EXAMPLES else "")


def unknown_texts(texts: Iterable[str], masks: Sequence[OutlineMask]) -> str:
    """Return the texts that are missing among the ids of the shapes with most of them, and a fix."""
    wanted = np.array(sorted(texts), object)
    missing = [(wanted[mask.ids_of(wanted) == 0].tolist(), mask) for mask in masks]
    unknown, mask = min(missing, key=lambda each: len(each[0]))
    return (
        f"{len(unknown)} of {wanted.size} cells are not among the shapes '{mask.name}': "
        f"{', '.join(map(repr, unknown[:_N_EXAMPLES]))}{', ...' if len(unknown) > _N_EXAMPLES else ''}. Give ids like "
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
