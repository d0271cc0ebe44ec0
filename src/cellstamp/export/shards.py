"""Write tar files with the images and metadata of many cells, as WebDataset reads them."""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Iterable, Mapping
from typing import IO, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellstamp.export.encoders import encode_npy

_SHARD_BYTES = 10**8
_MOST_CELLS = 10_000
_TAR_BLOCK = 512
_VALUE_BYTES = 50
"""Bytes of a feature and its name in JSON."""


def cells_in_shard(image_bytes: int, n_values: int) -> int:
    """Return how many cells a tar file of about 100 MB holds, at most 10,000.

    Parameters
    ----------
    image_bytes
        Bytes of the image of a cell.
    n_values
        Number of values in its metadata.
    """
    return max(1, min(_MOST_CELLS, _SHARD_BYTES // (image_bytes + n_values * _VALUE_BYTES + 4 * _TAR_BLOCK)))


def write_shard(file: IO[bytes], blocks: Iterable[tuple[NDArray[Any], pd.DataFrame]], cell_id: str) -> None:
    """Write a tar file: ``ID.npy`` and ``ID.json`` of each cell, one after the other. Equal cells make equal files.

    Parameters
    ----------
    blocks
        Images (n, n_planes, y, x) and metadata of some cells.
    cell_id
        Column with the cell ids.
    """
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for images, metadata in blocks:
            for image, record in zip(images, metadata.to_dict("records"), strict=True):
                _add(tar, f"{record[cell_id]}.npy", encode_npy(image)[0])
                _add(tar, f"{record[cell_id]}.json", _as_json(record))


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    about = tarfile.TarInfo(name)  # time and owner are 0
    about.size = len(content)
    tar.addfile(about, io.BytesIO(content))


def _as_json(record: Mapping[Any, Any]) -> bytes:
    return json.dumps({str(name): _plain(value) for name, value in record.items()}, allow_nan=False).encode()


def _plain(value: Any) -> Any:
    """Return a value that JSON has: no NaN, no types of NumPy and pandas."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | bool | int):
        return value
    return None if pd.isna(value) else str(value)
