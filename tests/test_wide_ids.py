"""Ids that a mask cannot hold: such a cell has no pixels, whatever its id wraps around to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from cellstamp import HDF5CellExtraction
from cellstamp.source.load.store import store_centers
from cellstamp.source.values import Centers
from conftest import write_store

SIZE = 16


def masks_with(pixel: int, dtypes: tuple[Any, ...]) -> dict[str, np.ndarray]:
    """One square of the value `pixel` around (20, 20) in each mask."""
    masks = {}
    for name, dtype in zip(("seg_all_nucleus", "seg_all_cytosol"), dtypes, strict=False):
        masks[name] = np.zeros((40, 40), dtype)
        masks[name][17:24, 17:24] = pixel
    return masks


def extracted(tmp_path: Path, masks: dict[str, np.ndarray], cell: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Planes (masks, then channels) of one cell whose centre the store names, and what the file says of it."""
    image = np.full((1, 40, 40), 1000, np.uint16)
    store = write_store(tmp_path / "s.zarr", image, masks)
    centers = Centers(np.array([cell], np.uint64), np.array([[20.0, 20.0]]))
    store_centers(store, next(iter(masks)), centers)
    config = {"threads": 1, "image_size": SIZE, "cache": str(tmp_path / "cache"), "normalize_output": False}
    step = HDF5CellExtraction(config, tmp_path / "out", filehandler=store)
    step()
    with h5py.File(str(step.output_path)) as file:
        about = {key: file[f"uns/cellstamp/{key}"][()] for key in ("cells_empty_in_cell_mask", "cells_written")}
        return file["obsm/single_cell_images"][0], about


@pytest.mark.parametrize(
    ("cell", "pixel", "dtypes"),
    [
        (2**32 + 39, 39, (np.uint32,)),
        (2**32 + 39, 39, (np.uint8,)),
        (2**62 + 39, 39, (np.uint32, np.uint32)),
        (2**32 - 1, -1, (np.int32,)),
        (2**32 - 56, -56, (np.int8,)),
        (2**63 - 1, 2**63 - 2, (np.uint64,)),
        (2**63 - 56, -56, (np.int64,)),
        (300, 44, (np.uint8,)),
    ],
)
def test_an_id_that_the_mask_cannot_hold_has_no_pixels(
    tmp_path: Path, cell: int, pixel: int, dtypes: tuple[Any, ...]
) -> None:
    with pytest.warns(UserWarning, match="1 of 1 cells has no pixel of 'seg_all_"):
        planes, about = extracted(tmp_path, masks_with(pixel, dtypes), cell)
    assert not planes.any()
    assert (int(about["cells_written"]), int(about["cells_empty_in_cell_mask"])) == (1, 1)


def test_a_wide_id_finds_its_pixels_in_the_wide_mask_only(tmp_path: Path) -> None:
    masks = masks_with(39, (np.uint64, np.int32))
    masks["seg_all_nucleus"][masks["seg_all_nucleus"] > 0] = 2**32 + 39
    with pytest.warns(UserWarning, match="1 of 1 cells has no pixel of 'seg_all_"):
        planes, _ = extracted(tmp_path, masks, 2**32 + 39)
    assert planes[0].any()
    assert not planes[1:].any()


@pytest.mark.parametrize(("cell", "dtype"), [(39, np.int8), (2**32 - 1, np.uint32), (2**31 - 1, np.int32)])
def test_ids_that_the_mask_can_hold_are_found(tmp_path: Path, cell: int, dtype: Any) -> None:
    planes, about = extracted(tmp_path, masks_with(cell, (dtype,)), cell)
    assert planes.all(axis=0).any()
    assert int(about["cells_empty_in_cell_mask"]) == 0
