"""Compare an input with what the project's store already holds, so that loading it again changes nothing."""

from __future__ import annotations

import filecmp
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellstamp.source import ome
from cellstamp.source.find.placement import Matrix, placements, same
from cellstamp.source.load.checks import channel_names_for
from cellstamp.source.load.ome_groups import open_group
from cellstamp.source.load.pixels import Pixels, Region
from cellstamp.source.load.raster import regions

_COMPARED = 64 * 2**20
"""Bytes of each of two arrays that are in memory at once."""


def _at_the_origin() -> dict[str, Matrix]:
    return {"global": np.eye(3)}


@dataclass(frozen=True)
class Content:
    """Image or mask in the form in which it would be written.

    Attributes
    ----------
    pixels
        (c, y, x) or (y, x).
    channel_names
        Names of an image's channels; () for a mask.
    placements
        Matrices from pixels to each coordinate system; see `cellstamp.source.find.placement.placements`.
    """

    pixels: Pixels
    channel_names: tuple[str, ...] = ()
    placements: Mapping[str, Matrix] = field(default_factory=_at_the_origin)


def is_stored(store: Path, element: str, content: Content) -> bool:
    """Return whether an element of the store has this content, and can be read.

    Shape, dtype, names and position are compared first, then pixels, block by block until the first difference.

    Parameters
    ----------
    store
        The project's store.
    element
        Kind and name, like ``"images/input_image"``.
    content
        What would be written.
    """
    if not (store / element).is_dir():
        return False
    stored = _open_stored(store / element)
    if stored is None:
        return False
    old, new = stored.pixels, content.pixels
    return (
        (old.shape, old.dtype) == (new.shape, new.dtype)
        and stored.channel_names == content.channel_names
        and same(stored.placements, content.placements)
        and all(_is_equal(_read_stored(old, region), new.read(region)) for region in _blocks(old, new))
    )


def other_names(store: Path, element: str, content: Content) -> tuple[str, ...] | None:
    """Return the channel names of a stored image that differs from this content in nothing else; None otherwise."""
    stored = _open_stored(store / element) if (store / element).is_dir() else None
    if stored is None or stored.channel_names == content.channel_names:
        return None
    renamed = replace(content, channel_names=stored.channel_names)
    return stored.channel_names if is_stored(store, element, renamed) else None


def _open_stored(group: Path) -> Content | None:
    """Open an element of the store; None if it is damaged: then it equals no input, and can only be overwritten."""
    kind = group.parent.name
    try:
        metadata, _ = ome.multiscale_of(group)
        pixels, names = open_group(group, ome.AXES[kind])
        return Content(pixels, element_names(kind, pixels, names), placements(metadata))
    except Exception:  # noqa: BLE001 - damaged metadata raises errors of many kinds
        return None


def element_names(kind: str, pixels: Pixels, names: list[str]) -> tuple[str, ...]:
    """Return the names of an element's channels, completed as a loader completes them; () for a mask."""
    return tuple(channel_names_for(pixels.shape[0], None, names)) if kind == "images" else ()


def _blocks(old: Pixels, new: Pixels) -> Iterator[Region]:
    return regions(old.shape, new.chunks, old.chunks, old.dtype.itemsize, budget=_COMPARED)


def _read_stored(pixels: Pixels, region: Region) -> NDArray[np.generic] | None:
    """Read pixels of the store; None if they are damaged."""
    try:
        return pixels.read(region)
    except Exception:  # noqa: BLE001 - each codec raises its own errors
        return None


def _is_equal(old: NDArray[np.generic] | None, new: NDArray[np.generic]) -> bool:
    return old is not None and np.array_equal(old, new, equal_nan=new.dtype.kind == "f")


def same_files(folder: Path, other: Path) -> bool:
    """Return whether two folders hold the same files, byte by byte. Links count as what they lead to."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else None
    if not other.is_dir() or names != sorted(path.name for path in other.iterdir()):
        return False
    return all(_same_file(folder / name, other / name) for name in names or ())


def _same_file(path: Path, other: Path) -> bool:
    if path.is_dir() or other.is_dir():
        return same_files(path, other)
    return filecmp.cmp(path, other, shallow=False)
