"""A cluster that the client reaches over a slow link: the images of a zarr store do not pass it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from cellstamp import HDF5CellExtraction, read_h5sc
from client_links import Link, free_address
from clusters import Cluster
from stores import make_sample, write_store

pytestmark = pytest.mark.once

IMAGES = "single_cell_images"
# images of 23 kB that are not compressed, in five shards
CONFIG = {"threads": 2, "image_size": 48, "compression": False, "engine": "dask"}
SLOW = 10**6
"""Bytes per second: the images would need half a minute."""


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("slide") / "s.zarr", make_sample((1100, 900)), chunks=1025)


@pytest.fixture
def link() -> Iterator[Link]:
    try:
        free_address()
    except OSError as error:
        pytest.skip(f"workers need a loopback address of their own: {error}")
    with Link() as link:
        yield link


@pytest.fixture
def client(link: Link, tmp_path: Path) -> Iterator[Any]:
    """A client that reaches the scheduler and two workers over the link only."""
    (tmp_path / "cluster").mkdir()
    with Cluster(tmp_path / "cluster") as cluster:
        for _ in range(2):
            cluster.add(nanny=False, link=link)
        with cluster.client(2, link) as client:
            yield client


def extract(slide: Path, folder: Path, **config: Any) -> Path:
    step = HDF5CellExtraction({**CONFIG, "cache": str(folder / "cache"), **config}, folder, filehandler=slide)
    step()
    return Path(str(step.output_path))


def test_images_pass_the_link_to_a_file_but_not_to_a_store(
    slide: Path, tmp_path: Path, link: Link, client: Any
) -> None:
    file = extract(slide, tmp_path / "file", dask_scheduler=client)
    with h5py.File(file) as opened:
        n_bytes = opened[f"obsm/{IMAGES}"].id.get_storage_size()
    assert n_bytes > 25 * SLOW
    assert link.received > n_bytes
    link.received = link.sent = 0
    link.bytes_per_second = SLOW
    store = extract(slide, tmp_path / "store", dask_scheduler=client, file_format="zarr")
    assert link.received + link.sent < n_bytes / 100
    expected, found = read_h5sc(file), read_h5sc(store)
    by_id = np.argsort(found.obs["scportrait_cell_id"].to_numpy())
    np.testing.assert_array_equal(found.obsm[IMAGES][:][by_id], expected.obsm[IMAGES][:])
