"""Finished files of small stamps, as our writer and as other programs store them, for tests of loaders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellstamp.checksums import checksum
from cellstamp.encoded_cells import EncodedCells
from cellstamp.encoding import StampEncoder
from cellstamp.h5sc.layout import Layout
from encoding import encoded
from writing import new_writer

IMAGES = "obsm/single_cell_images"


def layout_of(n_cells: int = 40, *, first_id: int = 5, size: int = 16, **changes: Any) -> Layout:
    """Cells with every third id; two masks and two channels."""
    layout = Layout(
        cell_ids=np.arange(first_id, first_id + 3 * n_cells, 3, dtype=np.uint64),
        centers=np.zeros((n_cells, 2)),
        mask_names=("nucleus", "cytosol"),
        channel_names=("DAPI", "actin"),
        image_size=size,
        normalization_ranges=None,
        compression="lzf",
    )
    return replace(layout, **changes)


def make_stamps(layout: Layout, seed: int = 0) -> NDArray[Any]:
    """Round cells that fill a mask and are rough in channels; every plane of the last cell is noise."""
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[: layout.image_size, : layout.image_size]
    radius = rng.uniform(2, layout.image_size / 2, layout.shape[:2])
    distance = np.hypot(yy - layout.image_size / 2, xx - layout.image_size / 2)
    inside = distance < radius[..., None, None]
    rough = rng.random(layout.shape)
    rough[:, :2] = 1
    stamps = np.where(inside, rough, 0)
    stamps[-1] = rng.random(layout.shape[1:])
    most = np.iinfo(layout.dtype).max if np.dtype(layout.dtype).kind == "u" else 1
    return (stamps * most).astype(layout.dtype)


def write_file(path: Path, layout: Layout, columns: Mapping[str, Any] | None = None, seed: int = 0) -> NDArray[Any]:
    """Write a file as an extraction does; cells are not in the order of the file. Return the stamps."""
    stamps = make_stamps(layout, seed)
    boxes = np.tile([0, layout.image_size, 0, layout.image_size], (*layout.shape[:2], 1))
    encoder = StampEncoder(layout.compression, layout.planes_per_chunk)
    with new_writer(path, layout) as writer:
        for rows in np.array_split(np.random.default_rng(seed).permutation(layout.shape[0]), 3):
            payload, sizes = encoded(encoder, np.ascontiguousarray(stamps[rows]), boxes[rows])
            n_empty = np.zeros(len(layout.mask_names), np.int64)
            writer.write(EncodedCells(rows, sizes, payload, checksum(payload), n_empty, np.zeros(0, np.int64)))
    path.with_suffix(".journal").unlink(missing_ok=True)
    if columns:
        _add_columns(path, columns)
    return stamps


def store_anew(path: Path, **storage: Any) -> None:
    """Store the stamps of a file once more, as h5py does when it is told so."""
    with h5py.File(path, "a") as file:
        stamps, attributes = file[IMAGES][:], dict(file[IMAGES].attrs)
        del file[IMAGES]
        file.create_dataset(IMAGES, data=stamps, **storage).attrs.update(attributes)


def _add_columns(path: Path, columns: Mapping[str, Any]) -> None:
    with h5py.File(path, "a") as file:
        obs = anndata.io.read_elem(file["obs"])
        obs.index = pd.Index(list(map(str, obs.index)), dtype=object)
        del file["obs"]
        anndata.io.write_elem(file, "obs", obs.assign(**columns))
