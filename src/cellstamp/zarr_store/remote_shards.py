"""Shards in an object store: each is written with one request, so it exists only when it is complete."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import InputError, writing
from cellstamp.location import file_system_of, reachable
from cellstamp.stretches import Runs
from cellstamp.zarr_store.shards import images_path, index_bytes, parse_index, shard_path

if TYPE_CHECKING:
    from upath import UPath

_AT_ONCE = 512
"""Number of indexes of shards that are requested together."""

Index = tuple[NDArray[np.int64], NDArray[np.int64]]


def put_shard(path: UPath, parts: Iterable[bytes | memoryview]) -> int:
    """Write an object; return its bytes.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    content = b"".join(parts)  # errors of those who make them are theirs
    with writing(path):
        path.fs.pipe_file(path.path, content)
    return len(content)


def sizes_of_shards(store: UPath) -> dict[int, int]:
    """List the shards of a store: bytes of each by its number."""
    folder = images_path(store) / "c"
    found = folder.fs.find(folder.path, detail=True)
    return {int(path.split("/")[-4]): int(about["size"]) for path, about in found.items()}


def read_indexes(store: UPath, n_chunks: int) -> dict[int, Index | None]:
    """Read the indexes of all shards by their numbers; None: a shard is damaged."""
    with reachable(str(store)):
        sizes = sizes_of_shards(store)
        numbers, indexes = sorted(sizes), {}
        for start in range(0, len(numbers), _AT_ONCE):
            some = numbers[start : start + _AT_ONCE]
            ends = [sizes[number] for number in some]
            paths = [shard_path(store, number).path for number in some]
            found = file_system_of(store).cat_ranges(paths, [max(end - index_bytes(n_chunks), 0) for end in ends], ends)
            for number, index, end in zip(some, found, ends, strict=True):
                indexes[number] = parse_index(bytes(index), end, n_chunks)
    return indexes


def read_remote_runs(runs: Runs, target: memoryview, store: UPath) -> None:
    """Read runs of shards into memory, at the same time.

    Raises
    ------
    InputError
        If the server cannot be reached, or a shard ends too early.
    """
    wanted = list(runs.not_empty())
    paths = [shard_path(store, run.file).path for run in wanted]
    sizes = [run.place.stop - run.place.start for run in wanted]
    with reachable(str(store)):
        found = file_system_of(store).cat_ranges(
            paths, [run.begin for run in wanted], [run.begin + size for run, size in zip(wanted, sizes, strict=True)]
        )
    for path, run, part, size in zip(paths, wanted, found, sizes, strict=True):
        if len(part) != size:
            raise InputError(f"{path} is damaged: it ends at byte {run.begin + len(part):,}, before its last image")
        target[run.place] = part
