"""Choose the masks among a store's labels and shapes, by the names in the configuration."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cellstamp.errors import InputError
from cellstamp.similar_names import did_you_mean
from cellstamp.source.names import MASK_KINDS, SEGMENTATION_KEY
from cellstamp.warnings import warn

KINDS = ("images", "labels", "points", "shapes", "tables")
"""Kinds of elements: folders of a store and attributes of a SpatialData object."""

_KINDS_OF_MASKS = ("labels", "shapes")

KindOf = Callable[[str], str | None]


@dataclass(frozen=True)
class MaskChoice:
    """The configuration's keys for masks.

    Attributes
    ----------
    segmentation_key
        The masks are the labels or shapes ``<key>_nucleus`` and ``<key>_cytosol``; one is enough.
    segmentation_mask
        Name or names of labels that are the masks; overrides `segmentation_key`.
    nucleus_labels, cytosol_labels
        Names of the masks; override the other two keys. One is enough.
    nucleus_shapes, cytosol_shapes
        Names of shapes that are the masks, instead of labels.
    """

    segmentation_key: str = SEGMENTATION_KEY
    segmentation_mask: str | Sequence[str] | None = None
    nucleus_labels: str | None = None
    cytosol_labels: str | None = None
    nucleus_shapes: str | None = None
    cytosol_shapes: str | None = None

    def elements(
        self, names_of: Callable[[str], Sequence[str]], store: str, kind_of: KindOf
    ) -> tuple[tuple[str, str], ...]:
        """Return kind (``"labels"`` or ``"shapes"``) and name of the masks to use, nucleus before cytosol.

        Parameters
        ----------
        names_of
            Callable from a kind of elements to the names of those in the store.
        store
            The store, for messages.
        kind_of
            Callable from an element's name to its kind, for messages; returns None if the element is missing.

        Raises
        ------
        InputError
            If a mask is missing, or if it is unclear which one is the nucleus mask.
        """
        given = [(kind, role) for role in MASK_KINDS for kind in _KINDS_OF_MASKS]
        named = {(kind, role): name for kind, role in given if (name := getattr(self, f"{role}_{kind}")) is not None}
        for (kind, role), name in named.items():
            check_there(kind, name, names_of(kind), store, kind_of, key=f"{role}_{kind}: ", role=role)
        if named:
            return tuple((kind, name) for (kind, _), name in named.items())
        if self.segmentation_mask is not None:
            return tuple(("labels", name) for name in self._names_given(names_of("labels"), store, kind_of))
        return self._by_key({kind: names_of(kind) for kind in _KINDS_OF_MASKS}, store)

    def _by_key(self, available: Mapping[str, Sequence[str]], store: str) -> tuple[tuple[str, str], ...]:
        wanted = [f"{self.segmentation_key}_{role}" for role in MASK_KINDS]
        found = tuple((kind, name) for name in wanted for kind in _KINDS_OF_MASKS if name in available[kind])
        if found:
            return found
        shapes = f" and the shapes {listing(available['shapes'])}" if available["shapes"] else ""
        keys = "nucleus_labels and cytosol_labels" + (", or nucleus_shapes and cytosol_shapes" if shapes else "")
        raise InputError(
            f"no labels named {wanted[0]} or {wanted[1]} in {store}; it has {listing(available['labels'])}{shapes}. "
            f"Load masks, or name {'them' if shapes else 'the labels'} with {keys}"
        )

    def _names_given(self, available: Sequence[str], store: str, kind_of: KindOf) -> tuple[str, ...]:
        mask = self.segmentation_mask
        names = (mask,) if isinstance(mask, str) else tuple(mask or ())
        for name in names:
            check_there("labels", name, available, store, kind_of, key="segmentation_mask: ")
        if not isinstance(mask, str):
            return _nucleus_first(names)
        if not any(kind in mask for kind in MASK_KINDS):
            warn(
                f"segmentation_mask '{mask}': the name contains neither 'nucleus' nor 'cytosol'. It is used as the "
                "cytosol mask. To choose, set nucleus_labels or cytosol_labels instead"
            )
        return names


def check_there(
    kind: str,
    name: str,
    available: Sequence[str],
    store: str,
    kind_of: KindOf,
    *,
    key: str = "image: ",
    role: str | None = None,
) -> None:
    """Check that an element exists and is of this kind; ``role`` is that of a mask.

    Raises
    ------
    InputError
        If it is missing or of another kind; the message lists the existing elements.
    """
    if name in available:
        return
    other = kind_of(name)
    what = "images element" if kind == "images" else kind
    several = _several(name, available) if kind == "images" else ""
    hint = f"; '{name}' is one of its {other}" if other else several or did_you_mean(name, available)
    if role is not None and other in _KINDS_OF_MASKS:
        hint += f": set {role}_{other} instead"
    message = f"{key}no {what} named '{name}' in {store}; it has {listing(available)}{hint}"
    raise InputError(message)


def _several(text: str, available: Sequence[str]) -> str:
    """Return the list to give if a text has the names of several elements."""
    names = [name.strip() for name in re.split("[,;+]", text)]
    return f"; for several images, give a list: {names}" if len(names) > 1 and set(names) <= set(available) else ""


def listing(names: Sequence[str], empty: str = "none") -> str:
    """Return names separated by commas, for a message; `empty` if there are none."""
    return ", ".join(names) or empty


def _nucleus_first(names: tuple[str, ...]) -> tuple[str, ...]:
    roles = {name: role for name in names for role in MASK_KINDS if role in name}
    if not names or len(set(roles.values())) < len(names):
        message = (
            f"segmentation_mask {list(names)}: a list needs one name containing 'nucleus' and one containing 'cytosol'"
        )
        raise InputError(message)
    return tuple(sorted(names, key=lambda name: roles[name] != "nucleus"))
