"""Extract from a store, and compare single-cell images by the ids of cells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import spatialdata
from numpy.typing import NDArray

from cellstamp import HDF5CellExtraction, read_h5sc

SIZE = 32

Images = dict[Any, NDArray[np.float16]]
"""The images (n_masks + n_channels, y, x) of each cell by its id."""


def write(sdata: spatialdata.SpatialData, path: Path) -> Path:
    sdata.write(path)
    return path


def extracted(store: Path, folder: Path, **config: Any) -> Any:
    """Extract, and return the file as an AnnData."""
    keys = {"threads": 1, "image_size": SIZE, "progress": False, "cache": str(folder.parent), **config}
    step = HDF5CellExtraction(keys, folder, filehandler=store)
    step()
    return read_h5sc(str(step.output_path))


def images_by_id(cells: Any) -> Images:
    """Return images by the ids of the element: ``instance_id`` of shapes with other ids than cellstamp's."""
    ids = cells.obs["instance_id" if "instance_id" in cells.obs else "scportrait_cell_id"].tolist()
    return dict(zip(ids, cells.obsm["single_cell_images"][:], strict=True))


def assert_equal_images(got: Images, expected: Images, id_of: Callable[[int], Any] = int, at_least: int = 30) -> None:
    """Assert the same cells with bitwise equal images; `id_of` gives the id of a cell by its number in `expected`."""
    assert got.keys() == {id_of(cell) for cell in expected}
    assert len(got) >= at_least
    different = [cell for cell, images in expected.items() if not np.array_equal(got[id_of(cell)], images)]
    assert not different, different
