"""Zarr stores of cellstamp, read by other programs as by our own dataset."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
import zarr
from torch.utils.data import DataLoader

import cellstamp
from interop.bench import Bench

IMAGES = "obsm/single_cell_images"
ANNBATCH = os.environ.get("CELLSTAMP_ANNBATCH")
"""Python of an environment with annbatch, which needs a newer one than scportrait."""

PAGE = Path(__file__).parents[1] / "docs/training.md"
SHOWN = "chunk_size=8, preload_nchunks=256, batch_size=256"

_SAVE = """
import sys
import numpy

batches = list(loader)
images = numpy.concatenate([batch["X"] for batch in batches])
ids = numpy.concatenate([batch["obs"]["scportrait_cell_id"].to_numpy() for batch in batches])
numpy.savez(sys.argv[1], images=images, ids=ids)
"""


def code_for(store: str, chunk_size: int) -> str:
    """Return the code of the page about training, for a small store."""
    (code,) = (
        block
        for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        if "annbatch" in block
    )
    assert SHOWN in code
    small = f"chunk_size={chunk_size}, preload_nchunks={12 // chunk_size}, batch_size=6"
    return code.replace(SHOWN, small).replace("slide/extraction/data/single_cells.zarr", store) + _SAVE


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    bench = Bench(tmp_path_factory.mktemp("store"))
    project = bench.ours("project", file_format="zarr")
    project.load_input_from_sdata(str(bench.sample()), "image", "nucleus", "cytosol")
    project.extract()
    return str(project.extraction_f.output_path)


@pytest.fixture(scope="module")
def loaded(store: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images and ids of our dataset, in the order of the store."""
    batches = list(DataLoader(cellstamp.SingleCellDataset(store, dtype="float16"), batch_size=8))
    images, ids = (torch.cat([batch[part] for batch in batches]).numpy() for part in range(2))
    return images, ids


def test_zarr_python(store: str, loaded: tuple[np.ndarray, np.ndarray]) -> None:
    """zarr-python reads the images of a zarr store as our dataset does."""
    images, ids = loaded
    opened = zarr.open_group(store, mode="r")
    assert np.array_equal(opened[IMAGES][:], images)
    assert np.array_equal(opened[IMAGES][3:5, 1], images[3:5, 1])
    assert opened["obs/scportrait_cell_id"][:].tolist() == ids.tolist()


def test_read_zarr(store: str, loaded: tuple[np.ndarray, np.ndarray]) -> None:
    """anndata.read_zarr reads a zarr store, with the anndata that scportrait requires."""
    images, ids = loaded
    cells = anndata.read_zarr(store)
    assert np.array_equal(cells.obsm["single_cell_images"], images)
    assert cells.obs["scportrait_cell_id"].tolist() == ids.tolist()


@pytest.mark.skipif(not ANNBATCH, reason="CELLSTAMP_ANNBATCH does not name a Python with annbatch")
@pytest.mark.parametrize("chunk_size", [1, 4])
def test_annbatch(store: str, loaded: tuple[np.ndarray, np.ndarray], tmp_path: Path, chunk_size: int) -> None:
    """annbatch's Loader reads the images of a zarr store as our dataset does: single cells, and shuffled chunks."""
    command = [str(ANNBATCH), "-c", code_for(store, chunk_size), str(tmp_path / "read.npz")]
    subprocess.run(command, check=True, capture_output=True)
    images, ids = loaded
    with np.load(tmp_path / "read.npz") as read:
        assert read["ids"].tolist() != ids.tolist()
        assert np.array_equal(read["images"][np.argsort(read["ids"])], images[np.argsort(ids)])
