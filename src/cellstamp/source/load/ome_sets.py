"""Join files of one OME-TIFF image that have different z or t planes of the same channels."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import InputError
from cellstamp.source.load.ome_tiff import restricted
from cellstamp.source.load.pixels import Pixels, Region
from cellstamp.source.load.stacks import Stack


@dataclass(frozen=True, eq=False)
class FileStacks:
    """Images of a file, before planes are chosen.

    Attributes
    ----------
    path
        The file.
    where
        Its name in messages.
    parts
        Its images; several are channels, or planes of a stack.
    names
        Name of each image; "" for names that a program numbered.
    members
        Identifiers of all files of its set; empty for a single file.
    """

    path: Path
    where: str
    parts: tuple[Stack, ...]
    names: tuple[str, ...] = ()
    members: frozenset[str] = frozenset()


def joined(files: Sequence[FileStacks]) -> list[FileStacks]:
    """Join files of a set that have planes of the same channels; each result takes the position of its first file.

    Raises
    ------
    InputError
        If two files have the same plane.
    """
    groups: list[list[FileStacks]] = []
    of_channel: dict[Hashable, list[FileStacks]] = {}
    for file in files:
        related = {id(of_channel[key]): of_channel[key] for key in _channels(file) if key in of_channel}
        first, *others = [*related.values(), [file]]
        for other in others:
            first.extend(other)
        if not related:
            groups.append(first)
        groups = [group for group in groups if group is first or id(group) not in related]
        of_channel |= {key: first for member in first for key in _channels(member)} if others else {}
        of_channel |= dict.fromkeys(_channels(file), first)
    return [_as_one(group) for group in groups]


def _channels(file: FileStacks) -> list[Hashable]:
    """Return the channels of a set for which a file has planes; empty for a single file."""
    stack = file.parts[0]
    if not file.members or len(file.parts) > 1 or stack.present is None:
        return []
    held = stack.present.any(axis=tuple(k for k, axis in enumerate(stack.axes) if axis in "zt"))
    image = (file.members, stack.axes, stack.pixels.shape, stack.pixels.dtype)
    return [(image, channel) for channel in np.flatnonzero(held).tolist()]


def _as_one(group: Sequence[FileStacks]) -> FileStacks:
    first = group[0]
    if len(group) == 1:
        return replace(first, parts=tuple(restricted(part) for part in first.parts))
    more = len(group) - 1
    where = f"{first.path} and {more} more {'file' if more == 1 else 'files'} of its image"
    # z and t keep their length: an index must mean the same plane, whichever files are loaded.
    stack = restricted(_overlaid([file.parts[0] for file in group], _owners(group)), whole="zt")
    return replace(first, where=where, parts=(stack,))


def _owners(group: Sequence[FileStacks]) -> NDArray[np.intp]:
    """Return the number of the file that has each plane; -1 for none."""
    owners = np.full_like(group[0].parts[0].present, -1, np.intp)
    for number, file in enumerate(group):
        held = np.asarray(file.parts[0].present)
        if (owners[held] >= 0).any():
            other = group[int(owners[held].max())].path
            raise InputError(f"{file.path}: holds planes that {other} holds, too: a copy. Give each file once")
        owners[held] = number
    return owners


def _overlaid(stacks: Sequence[Stack], owners: NDArray[np.intp]) -> Stack:
    """Return stacks of equal shape as one stack; each plane is read from its file."""
    first = stacks[0]
    n_leading = min(first.axes.index(axis) for axis in "syx" if axis in first.axes)

    def read(region: Region) -> NDArray[Any]:
        block = np.zeros([part.stop - part.start for part in region], first.pixels.dtype)
        for place in np.ndindex(*block.shape[:n_leading]):
            at = [part.start + k for part, k in zip(region, place, strict=False)]
            owner = int(owners[tuple(at)].item())
            plane = (*(slice(k, k + 1) for k in at), *region[n_leading:])
            block[place] = stacks[owner].pixels.read(plane).reshape(block.shape[n_leading:])
        return block

    chunks = (*[1] * n_leading, *first.pixels.chunks[n_leading:])
    pixels = Pixels(first.pixels.shape, first.pixels.dtype, chunks, read)
    return Stack(pixels, first.axes, first.names, owners >= 0)
