"""Compute two digests of an array: one changes with every write, the other is the same for copies."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellstamp.location import UNLISTED, below, is_remote

if TYPE_CHECKING:
    import zarr

_SAMPLED = 64
_SAMPLE_BYTES = 4096
"""Number of sampled chunks, and of sampled bytes of each."""

_CONTENT = "cellstamp_content"
"""Attribute with the digest of all bytes, for arrays that are rewritten for each run, so that file times differ."""

_FILE_STATE = (
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
"""File attributes that change when a file is written; each file system has other names for them."""


def state_of(array: zarr.Array[Any], store: str, path: str) -> str:
    """Return the digest of an array's state: metadata, samples of its content, and size and time of each file.

    Parameters
    ----------
    array
        The array.
    store, path
        Folder or URL of its store, and its path in the store.

    Returns
    -------
    str
        The digest. For a URL it covers the files that the server lists, if any, and no content.
    """
    digest = hashlib.sha256(sample_of(array, store, path).encode())
    if _CONTENT not in array.attrs:
        for line in sorted(_remote_files(str(below(store, path))) if is_remote(store) else _files(Path(store) / path)):
            digest.update(f"{line}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def sample_of(array: zarr.Array[Any], store: str, path: str) -> str:
    """Return a digest that is the same for copies of an array: metadata and, on a disk, samples of chunks."""
    known = json.dumps(array.metadata.to_dict(), sort_keys=True, default=str)
    digest = hashlib.sha256(known.encode())
    for chunk in _sampled_chunks(array, Path(store) / path):
        digest.update(_sample(chunk))
    return digest.hexdigest()


def state_content(folder: Path) -> None:
    """Store the digest of an array's content in its attributes, so that rewriting the same pixels changes nothing.

    Parameters
    ----------
    folder
        Folder of the array, completely written.
    """
    import zarr

    digest = hashlib.sha256()
    chunks = (path for path in folder.rglob("*") if path.is_file() and _holds_pixels(path.name))
    for chunk in sorted(chunks, key=lambda path: path.parts):  # Windows would ignore case
        content = chunk.read_bytes()
        digest.update(f"{chunk.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
    zarr.open_array(str(folder), mode="r+").attrs[_CONTENT] = digest.hexdigest()


def _holds_pixels(name: str) -> bool:
    """Return whether a file is a chunk, not metadata or a system file (.DS_Store)."""
    return name != "zarr.json" and not name.startswith(".")


def _files(folder: Path, prefix: str = "") -> Iterator[str]:
    """Yield each chunk (or shard) of an array on a disk, with its size in bytes and its modification time in ns."""
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
    """Yield each chunk of an array behind a URL, with its `_FILE_STATE` attributes; nothing if files are not listed."""
    if url.startswith(UNLISTED):
        return
    import fsspec

    files, root = fsspec.core.url_to_fs(url)
    try:
        found: Mapping[str, Mapping[str, Any]] = files.find(root, detail=True)
    # each file system raises different errors; without a listing, the array can still be read
    except Exception:  # noqa: BLE001
        return
    for name, about in found.items():
        if _holds_pixels(name.rpartition("/")[2]):
            yield f"{name.removeprefix(root)} " + " ".join(str(about[key]) for key in _FILE_STATE if key in about)


def _sampled_chunks(array: zarr.Array[Any], folder: Path) -> Iterator[Path]:
    """Yield the files of evenly spaced chunks (or shards); none if the store is not a folder."""
    if not folder.is_dir():
        return
    grid = [-(-n // side) for n, side in zip(array.shape, array.shards or array.chunks, strict=True)]
    n_chunks = math.prod(grid)
    for number in np.linspace(0, n_chunks - 1, min(n_chunks, _SAMPLED)).round().astype(int):
        chunk = tuple(int(k) for k in np.unravel_index(number, grid))
        yield folder / array.metadata.encode_chunk_key(chunk)


def _sample(chunk: Path) -> bytes:
    """Return the size of a file and bytes from its middle; an empty chunk has no file."""
    if not chunk.is_file():
        return b"-"
    size = chunk.stat().st_size
    with chunk.open("rb") as file:
        file.seek(size // 2)
        return b"%d " % size + file.read(_SAMPLE_BYTES)
