"""Suggest the name that a misspelt one probably means, for error messages."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def similar_name(name: object, known: Iterable[object], *, cutoff: float = 0.6) -> str | None:
    """Return the known name that is most similar to `name`, ignoring case; None if none is similar.

    Parameters
    ----------
    name
        The misspelt name.
    known
        Valid names.
    cutoff
        Least similarity, from 0 to 1.
    """
    spelt = {str(each).lower(): str(each) for each in known}
    near = get_close_matches(str(name).lower(), spelt, n=1, cutoff=cutoff)
    return spelt[near[0]] if near else None


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """Return ``; did you mean 'DAPI'?`` to continue an error message, or an empty text if no name is similar."""
    near = similar_name(name, known)
    return "" if near is None else f"; did you mean {near!r}?"
