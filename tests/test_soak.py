"""Extraction after extraction in one process, in both formats: nothing grows. ``make faults`` runs 200 of them."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import psutil
import pytest

from cellstamp import HDF5CellExtraction
from stores import make_sample, write_store

pytestmark = pytest.mark.once

N_RUNS = 200 if "CELLSTAMP_KILLS" in os.environ else 12
_MIB = 2**20


def _state(cache: Path) -> tuple[int, int, int, int]:
    gc.collect()
    me = psutil.Process()
    children = me.children(recursive=True)
    return me.num_fds(), threading.active_count(), len(children), len(list(cache.rglob("*")))


def test_nothing_grows_from_run_to_run(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s.zarr", make_sample())
    cache, sizes, states = tmp_path / "cache", [], []
    for number in range(N_RUNS):
        file_format = ("h5sc", "zarr")[number // 2 % 2]
        config = {"threads": 1 + number % 2, "image_size": 32, "file_format": file_format, "cache": str(cache)}
        HDF5CellExtraction(config, tmp_path / "out", filehandler=store, overwrite=True)()
        states.append(_state(cache))
        sizes.append(psutil.Process().memory_info().rss)
    warm = 4  # until everything has been imported and used once
    assert len(set(states[warm:])) == 1
    grown = sizes[-1] - sizes[warm]
    # a run leaves nothing; what fragments of the heap come and go are far less than a MiB a run
    assert grown < 20 * _MIB
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["benchmarking.csv", "data", "processing.log"]
