"""Digests of an array: one that changes with anything that is written to it, and one that copies share."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellstamp.source.location import below, is_remote

if TYPE_CHECKING:
    import zarr

_SAMPLED = 64
_SAMPLE_BYTES = 4096
"""So many chunks, and so many bytes of each, tell an array from another one of the same shape."""

_CONTENT = "cellstamp_content"
"""Attribute of an array that is written again for each run: the digest of all its bytes, as their times say nothing."""

_STATED = (
    "size",
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "CRC",
    "mtime",
    "LastModified",
    "last_modified",
    "updated",
    "created",
)
"""What file systems say of a file that changes when it is written."""

_UNLISTED = ("http://", "https://")
"""Servers of pages: their listings, where they have any, say nothing of times."""


def state_of(array: zarr.Array[Any], store: str, path: str) -> str:
    """Digest of what an array is now: its metadata, samples of its content, and each file's size and time of change.

    Parameters
    ----------
    array
        The array.
    store, path
        Folder or URL of its store, and where it is in there.

    Returns
    -------
    str
        Of a store behind a URL, files are those the server lists, if it does, and no content is sampled.
    """
    digest = hashlib.sha256(sample_of(array, store, path).encode())
    if _CONTENT not in array.attrs:
        for line in sorted(_remote_files(str(below(store, path))) if is_remote(store) else _files(Path(store) / path)):
            digest.update(f"{line}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def sample_of(array: zarr.Array[Any], store: str, path: str) -> str:
    """Digest that a copy of an array shares: its metadata and, on a disk, samples of some of its chunks."""
    known = json.dumps(array.metadata.to_dict(), sort_keys=True, default=str)
    digest = hashlib.sha256(known.encode())
    for chunk in _some_chunks(array, Path(store) / path):
        digest.update(_sample(chunk))
    return digest.hexdigest()


def state_content(folder: Path) -> None:
    """Have an array say what it holds, so that the same pixels written again are the same array.

    Parameters
    ----------
    folder
        The array's, all of it written.
    """
    import zarr

    digest = hashlib.sha256()
    for chunk in sorted(path for path in folder.rglob("*") if path.is_file() and _holds_pixels(path.name)):
        content = chunk.read_bytes()
        digest.update(f"{chunk.relative_to(folder)} {len(content)}\n".encode() + content)
    zarr.open_array(str(folder), mode="r+").attrs[_CONTENT] = digest.hexdigest()


def _holds_pixels(name: str) -> bool:
    """Whether a file is a chunk, and not metadata or what the system puts beside (.DS_Store)."""
    return name != "zarr.json" and not name.startswith(".")


def _files(folder: Path, prefix: str = "") -> Iterator[str]:
    """Each chunk (or shard) of an array on a disk, with its size in bytes and its time of change in ns."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not _holds_pixels(entry.name):
                continue
            if entry.is_dir():
                yield from _files(folder / entry.name, f"{prefix}{entry.name}/")
            else:
                about = entry.stat()
                yield f"{prefix}{entry.name} {about.st_size} {about.st_mtime_ns}"


def _remote_files(url: str) -> Iterator[str]:
    """Each chunk of an array behind a URL, with what its server says of it; nothing where it does not list files."""
    if url.startswith(_UNLISTED):
        return
    import fsspec

    files, place = fsspec.core.url_to_fs(url)
    try:
        found: Mapping[str, Mapping[str, Any]] = files.find(place, detail=True)
    # as many kinds of errors as there are file systems; one that cannot list can still be read
    except Exception:  # noqa: BLE001
        return
    for name, about in found.items():
        if _holds_pixels(name.rpartition("/")[2]):
            yield f"{name.removeprefix(place)} " + " ".join(str(about[key]) for key in _STATED if key in about)


def _some_chunks(array: zarr.Array[Any], folder: Path) -> Iterator[Path]:
    """Files of some chunks (or shards), evenly taken; none if the store is not a folder."""
    if not folder.is_dir():
        return
    grid = [-(-n // side) for n, side in zip(array.shape, array.shards or array.chunks, strict=True)]
    n_chunks = math.prod(grid)
    for number in np.linspace(0, n_chunks - 1, min(n_chunks, _SAMPLED)).round().astype(int):
        place = tuple(int(k) for k in np.unravel_index(number, grid))
        yield folder / array.metadata.encode_chunk_key(place)


def _sample(chunk: Path) -> bytes:
    """The size of a file and some bytes from its middle; of an empty chunk, which has no file, nothing."""
    if not chunk.is_file():
        return b"-"
    size = chunk.stat().st_size
    with chunk.open("rb") as file:
        file.seek(size // 2)
        return b"%d " % size + file.read(_SAMPLE_BYTES)
