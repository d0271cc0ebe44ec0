"""Decide which names are similar: to suggest one in an error message, or to call a name misspelt."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches

_SUGGESTED = 0.6
"""Least similarity, from 0 to 1, of a name that a message suggests."""
_MISSPELT_KEY = 0.8
"""Least similarity to a key of the configuration, above which a mapping cannot be the section of another step."""
_MISSPELT_SECTION = 0.85
"""Least similarity to the name of a step's section."""


def similar_name(name: object, known: Iterable[object]) -> str | None:
    """Return the known name that is most similar to `name`, ignoring case; None if none is similar.

    Parameters
    ----------
    name
        The misspelt name.
    known
        Valid names.
    """
    return _closest(name, known, _SUGGESTED)


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """Return ``; did you mean 'DAPI'?`` to continue an error message, or an empty text if no name is similar.

    Of joined images, channels have names such as ``scan:DAPI``; all channels with the name are suggested.
    """
    known = list(known)
    of_images = [str(each) for each in known if str(each).lower().endswith(f":{name}".lower())]
    near = of_images or [each for each in (similar_name(name, known),) if each is not None]
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def misspelt_key(name: object, known: Iterable[object]) -> str | None:
    """Return the key of the configuration that `name` misspells; None if it may be the section of another step."""
    return _closest(name, known, _MISSPELT_KEY)


def misspelt_section(name: object, section: str) -> bool:
    """Return whether `name` misspells the section of a step, so that it is not the section of another step.

    Names of two steps differ in their number (``Featurizer2``) or by a word (``MyFeaturizer``).
    """
    if not isinstance(name, str) or name == section:
        return False
    given, wanted = name.lower(), section.lower()
    if given != wanted and given.rstrip("0123456789") == wanted.rstrip("0123456789"):
        return False
    more = abs(len(given) - len(wanted))
    if more > 2 or (more == 2 and (given in wanted or wanted in given)):
        return False
    return SequenceMatcher(None, given, wanted).ratio() >= _MISSPELT_SECTION


def _closest(name: object, known: Iterable[object], cutoff: float) -> str | None:
    spelt = {str(each).lower(): str(each) for each in known}
    near = get_close_matches(str(name).lower(), spelt, n=1, cutoff=cutoff)
    return spelt[near[0]] if near else None
