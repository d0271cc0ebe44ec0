"""Which labels are the masks, by the names that the configuration gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cellstamp.errors import InputError
from cellstamp.warnings import warn

KINDS = ("images", "labels", "points", "shapes", "tables")
"""Kinds of elements, as folders in a store and as attributes of a SpatialData object."""

KindOf = Callable[[str], str | None]


@dataclass(frozen=True)
class MaskChoice:
    """What the configuration says about masks.

    Attributes
    ----------
    segmentation_key
        The masks are the labels named exactly ``<key>_nucleus`` and ``<key>_cytosol``; one of them is enough.
    segmentation_mask
        Name or names of the masks, instead.
    nucleus_labels, cytosol_labels
        The masks, whatever their names, instead of both; one of them is enough.
    """

    segmentation_key: str = "seg_all"
    segmentation_mask: str | Sequence[str] | None = None
    nucleus_labels: str | None = None
    cytosol_labels: str | None = None

    def names(self, available: Sequence[str], store: str, kind_of: KindOf) -> tuple[str, ...]:
        """Names of the masks to use, nucleus before cytosol.

        Parameters
        ----------
        available
            Labels in the store.
        store
            The store, for messages.
        kind_of
            Name of an element -> its kind, for messages about what is there and is no labels; None: it is not there.

        Raises
        ------
        InputError
            If they are not there, or if it is unclear which is which.
        """
        given = {key: name for key in ("nucleus_labels", "cytosol_labels") if (name := getattr(self, key)) is not None}
        if given:
            for key, name in given.items():
                check_there("labels", name, available, store, kind_of, key=f"{key}: ")
            return tuple(given.values())
        if self.segmentation_mask is not None:
            return self._named_outright(available, store, kind_of)
        wanted = [f"{self.segmentation_key}_nucleus", f"{self.segmentation_key}_cytosol"]
        found = tuple(name for name in wanted if name in available)
        if not found:
            message = (
                f"no labels named {wanted[0]} or {wanted[1]} in {store}; it has {listing(available)}; run a "
                "segmentation, load masks, set segmentation_key or segmentation_mask, or name the labels with "
                "nucleus_labels and cytosol_labels"
            )
            raise InputError(message)
        return found

    def _named_outright(self, available: Sequence[str], store: str, kind_of: KindOf) -> tuple[str, ...]:
        mask = self.segmentation_mask
        names = (mask,) if isinstance(mask, str) else tuple(mask or ())
        for name in names:
            check_there("labels", name, available, store, kind_of, key="segmentation_mask: ")
        if not isinstance(mask, str):
            return _nucleus_first(names)
        if "nucleus" not in mask and "cytosol" not in mask:
            warn(
                f"segmentation_mask '{mask}' says neither nucleus nor cytosol; it is used as the cytosol mask (with "
                "nucleus_labels or cytosol_labels you can say which it is)"
            )
        return names


def check_there(
    kind: str, name: str, available: Sequence[str], store: str, kind_of: KindOf, *, key: str = "image: "
) -> None:
    """Refuse the name of an element that is not there, or is something else.

    Raises
    ------
    InputError
        Telling what there is.
    """
    if name in available:
        return
    other = kind_of(name)
    what = "labels" if kind == "labels" else f"{kind} element"
    hint = f"; '{name}' is one of its {other}" if other else ""
    message = f"{key}no {what} named '{name}' in {store}; it has {listing(available)}{hint}"
    raise InputError(message)


def listing(names: Sequence[str]) -> str:
    """Names in a message."""
    return ", ".join(names) if names else "none"


def _nucleus_first(names: tuple[str, ...]) -> tuple[str, ...]:
    roles = {name: role for name in names for role in ("nucleus", "cytosol") if role in name}
    if not names or len(set(roles.values())) < len(names):
        message = (
            f"segmentation_mask {list(names)}: a list needs one name containing 'nucleus' and one containing 'cytosol'"
        )
        raise InputError(message)
    return tuple(sorted(names, key=lambda name: roles[name] != "nucleus"))
