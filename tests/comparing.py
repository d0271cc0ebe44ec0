"""Whether two results are the same: datasets, attributes and raw chunks, or the files of stores. Not a test module."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import h5py
import numpy as np

IMAGES = "obsm/single_cell_images"
BEGUN_FROM = "uns/cellstamp/begun_from"


def contents(path: str | Path) -> dict[str, Any]:
    """All that is in a file: attributes, small datasets, and every chunk of the stamps as it is stored.

    Of a store: all its files.
    """
    if Path(path).is_dir():
        return _files(Path(path))
    found: dict[str, Any] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update(_item(name, item)))
        images = file[IMAGES]
        for row, plane in itertools.product(range(images.shape[0]), range(0, images.shape[1], images.chunks[1])):
            found[f"chunk {row} {plane}"] = images.id.read_direct_chunk((row, plane, 0, 0))
    return found


def _files(store: Path) -> dict[str, bytes]:
    files = {file.relative_to(store).as_posix(): file for file in store.rglob("*") if file.is_file()}
    return {name: file.read_bytes() for name, file in files.items() if not name.startswith(f"{BEGUN_FROM}/c")}


def _item(name: str, item: Any) -> dict[str, Any]:
    attributes = {f"{name}@{key}": np.asarray(value).tolist() for key, value in item.attrs.items()}
    if isinstance(item, h5py.Dataset):
        attributes[f"{name} type"] = (item.shape, item.dtype.str, item.chunks, item.compression)
        if name != IMAGES:
            attributes[name] = np.asarray(item[()]).tolist()
    return attributes


def assert_same(path: str | Path, other: str | Path) -> None:
    """Fail, naming what differs, if two results are not the same."""
    here, there = contents(path), contents(other)
    # when the inputs were written, which differs between a store and its copy
    differing = [key for key in {**here, **there} if here.get(key) != there.get(key) and key != BEGUN_FROM]
    assert differing == []
