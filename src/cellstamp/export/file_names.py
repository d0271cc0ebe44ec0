"""Names of exported files: by cell id, in several folders if there are many cells."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CELLS_PER_FOLDER = 10_000
"""Cells in a folder: file browsers, and some file systems, get slow with more files."""
TABLE = "cells.csv"
SUFFIXES = {"png": ".png", "tiff": ".tif", "ome-tiff": ".ome.tif", "npy": ".npy", "webdataset": ".tar"}
"""Suffix of the files of each format."""

_LONGEST = 80
"""Characters of a channel in a file name."""
_CHANNEL = re.compile(r"(_[\w+-]+)?")


@dataclass(frozen=True)
class FileNames:
    """Names of the files of cells.

    Attributes
    ----------
    cell_ids
        uint64 (n_cells,): the exported cells.
    suffix
        Suffix of the files.
    channels
        Parts of the names for channels, one for each file of a cell; see `channel_parts`.
    """

    cell_ids: NDArray[np.uint64]
    suffix: str
    channels: tuple[str, ...] = ("",)

    @property
    def n_folders(self) -> int:
        """Number of folders: 1 stands for the exported folder itself."""
        return -(-self.cell_ids.size // CELLS_PER_FOLDER)

    def folder(self, number: int) -> str:
        """Return the name of a folder with a slash, or nothing for the exported folder itself."""
        return "" if self.n_folders == 1 else f"{number:03}/"

    @property
    def columns(self) -> list[str]:
        """Columns of the table, one for each file of a cell."""
        return [f"file{part}" for part in self.channels]

    @property
    def folders(self) -> list[str]:
        """All folders, see `folder`."""
        return [self.folder(number) for number in range(self.n_folders)]

    def in_folder(self, number: int) -> range:
        """Return the places of the cells in a folder."""
        return range(number * CELLS_PER_FOLDER, min((number + 1) * CELLS_PER_FOLDER, self.cell_ids.size))

    def of(self, place: int) -> list[str]:
        """Return the paths of the files of a cell, relative to the exported folder, with slashes."""
        start = f"{self.folder(place // CELLS_PER_FOLDER)}{self.cell_ids[place]}"
        return [f"{start}{channel}{self.suffix}" for channel in self.channels]

    def names_in(self, folder: str) -> Iterator[str]:
        """Yield the names of the files in one of the folders; none for another folder."""
        number = int(folder.rstrip("/") or 0)
        places = self.in_folder(number) if folder == self.folder(number) else ()
        return (name.rpartition("/")[2] for place in places for name in self.of(place))

    def record(self) -> dict[str, Any]:
        """Return the names as JSON values, for `recorded`."""
        return {"ids": " ".join(map(str, self.cell_ids)), "suffix": self.suffix, "channels": list(self.channels)}


@dataclass(frozen=True)
class ShardNames:
    """Names of tar files.

    Attributes
    ----------
    n_shards
        Number of files.
    """

    n_shards: int

    @property
    def columns(self) -> list[str]:
        """Columns of the table."""
        return ["file"]

    @property
    def folders(self) -> list[str]:
        """The exported folder itself, see `FileNames.folder`."""
        return [""]

    def names_in(self, folder: str) -> Iterator[str]:
        """Yield the names of the files in the exported folder; none for another folder."""
        return map(shard_name, range(0 if folder else self.n_shards))

    def record(self) -> dict[str, Any]:
        """Return the names as JSON values, for `recorded`."""
        return {"shards": self.n_shards}


Names = FileNames | ShardNames
"""Names of the files of an export, except the table."""


def recorded(record: Mapping[str, Any]) -> Names:
    """Return the names of which this is the record.

    Raises
    ------
    ValueError, KeyError, TypeError
        If it is not a record of names.
    """
    if "shards" in record:
        return ShardNames(int(record["shards"]))
    ids, suffix, channels = map(int, str(record["ids"]).split()), str(record["suffix"]), tuple(record["channels"])
    if suffix not in SUFFIXES.values() or not all(_CHANNEL.fullmatch(part) for part in channels):
        raise ValueError(record)  # a path would lead out of the folder
    return FileNames(np.fromiter(ids, np.uint64), suffix, channels)


def channel_parts(names: Sequence[str]) -> tuple[str, ...]:
    """Return a part of file names for each channel: different ones, also where capitals count as small letters.

    Characters that a system does not allow become ``_``. A single channel needs no part.
    """
    if len(names) == 1:
        return ("",)
    plain = [re.sub(r"[^\w+-]+", "_", name)[:_LONGEST] for name in names]
    if len(set(map(str.casefold, plain))) < len(plain):
        plain = [f"{number}_{part}" for number, part in enumerate(plain)]
    return tuple(f"_{part}" for part in plain)


def shard_name(number: int) -> str:
    """Return the name of a tar file."""
    return f"cells-{number:06}.tar"
