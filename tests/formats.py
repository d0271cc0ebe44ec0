"""Results in both formats, for tests of errors and interruptions. Not a test module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cellstamp import read_h5sc
from cellstamp.h5sc.writer import StampWriter
from cellstamp.zarr_store.writer import ZarrWriter

NAMES = {"h5sc": "single_cells.h5sc", "zarr": "single_cells.zarr"}
CELLS_PER_SHARD = 5
"""Few, so that small samples have many shards; as many as the batches of `.h5sc` files have in these tests."""

WRITERS = {
    "h5sc": ("cellstamp.h5sc.unfinished.StampWriter", StampWriter),
    "zarr": ("cellstamp.zarr_store.writer.ZarrWriter", ZarrWriter),
}
"""Where the writer of a format is used, and the writer."""

only_h5sc = pytest.mark.parametrize("file_format", ["h5sc"], indirect=True)
only_zarr = pytest.mark.parametrize("file_format", ["zarr"], indirect=True)


@contextmanager
def cells_per_shard(n_cells: int) -> Iterator[None]:
    """Give shards this number of cells: the samples of tests would fill one of the usual size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellstamp.zarr_store.layout.MOST_ROWS", n_cells)
        yield


def n_cells_of(path: Path) -> int:
    """The number of cells of a result."""
    return int(read_h5sc(path, images=False).n_obs)
