"""Shared by all tests: made-up cells, stores that hold them, and a look at what a test leaves behind."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from cellstamp.compiling.cache_folders import USUAL, is_kept
from cellstamp.source.library_messages import quiet
from kept_stores import keep_in, written

if TYPE_CHECKING:
    from clusters import Cluster

LEFTOVERS = (".*.staging-*", ".unfinished_*", "HDF5CellExtraction_*")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "once: a test of what no library has a part in: one version of Python is enough")
    config.addinivalue_line("markers", "leaves_files: a test that kills a process on purpose, and so leaves its files")
    if not hasattr(config, "workerinput"):
        _compile_kernels()


def _compile_kernels() -> None:
    """Compile the usual kernels before the first test: in a new clone, any test could be the one that reports it."""
    if not is_kept(USUAL):
        code = "from cellstamp.cli import commands; commands()"
        subprocess.run([sys.executable, "-c", code, "compile"], check=True)


def make_cells(
    side: int = 200, n: int = 16, seed: int = 0, dtype: Any = np.uint32, channels: int = 3
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ellipses on a jittered grid: image uint16 (c, y, x), nucleus and cytosol (y, x) of dtype, with matching ids.

    Ids are 3, 6, 9, ..., so that neither their number nor their position tells them.
    """
    rng = np.random.default_rng(seed)
    per_row = int(np.ceil(np.sqrt(n)))
    pitch = side / per_row
    yy, xx = np.mgrid[:side, :side]
    nucleus, cytosol = np.zeros((2, side, side), dtype)
    for index in range(n):
        cy, cx = (np.array(divmod(index, per_row)) + 0.5) * pitch + rng.uniform(-0.1, 0.1, 2) * pitch
        ry, rx = rng.uniform(0.25, 0.38, 2) * pitch
        distance = ((yy - cy) / ry) ** 2 + ((xx - cx) / rx) ** 2
        cytosol[distance < 1] = nucleus[distance < 0.3] = 3 * (index + 1)
    image = rng.integers(100, 2000, (channels, side, side)) + 20000 * (cytosol > 0) + 20000 * (nucleus > 0)
    return image.astype(np.uint16), nucleus, cytosol


@pytest.fixture(name="make_cells")
def _make_cells() -> Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]:
    return make_cells


def write_store(
    path: Path,
    image: np.ndarray,
    masks: dict[str, np.ndarray],
    *,
    image_name: str = "input_image",
    channel_names: list[Any] | None = None,
    chunks: int = 64,
    label_chunks: int | None = None,
    multiscale: bool = False,
    tables: dict[str, Any] | None = None,
    zarr_format: int = 3,
) -> Path:
    """A SpatialData store as spatialdata writes it."""
    how = (image_name, channel_names, chunks, label_chunks, multiscale, zarr_format)

    def write(path: Path) -> None:
        with quiet():
            import spatialdata
            from spatialdata._io.format import SpatialDataContainerFormatV01, SpatialDataContainerFormatV02
            from spatialdata.models import Image2DModel, Labels2DModel

            names = channel_names or [f"ch{index}" for index in range(len(image))]
            factors = {"scale_factors": [2]} if multiscale else {}
            pixels = Image2DModel.parse(
                image, dims=("c", "y", "x"), c_coords=names, chunks=(1, chunks, chunks), **factors
            )
            side = label_chunks or chunks
            labels = {
                name: Labels2DModel.parse(mask, dims=("y", "x"), chunks=(side, side), **factors)
                for name, mask in masks.items()
            }
            sdata = spatialdata.SpatialData(images={image_name: pixels}, labels=labels, tables=tables or {})
            container = {2: SpatialDataContainerFormatV01, 3: SpatialDataContainerFormatV02}[zarr_format]
            sdata.write(path, sdata_formats=container())

    if tables:
        write(path)
        return path
    return written(path, write, image, masks, how)


@pytest.fixture(scope="session", autouse=True)
def _stores_are_kept(tmp_path_factory: pytest.TempPathFactory) -> None:
    keep_in(tmp_path_factory.mktemp("kept"))


@pytest.fixture
def project_store(tmp_path: Path) -> Callable[..., Path]:
    """Write a store with made-up cells under the names projects use: ``project_store(chunks=500, multiscale=True)``."""

    def write(
        path: Path | None = None, cells: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None, **options: Any
    ) -> Path:
        image, nucleus, cytosol = cells or make_cells()
        masks = {"seg_all_nucleus": nucleus, "seg_all_cytosol": cytosol}
        return write_store(path or tmp_path / "scportrait.sdata", image, masks, **options)

    return write


@pytest.fixture
def sample_store(tmp_path: Path) -> Callable[..., Path]:
    """Write a store as a user might have one: image ``image``, masks ``nucleus`` and ``cytosol`` (None: without it)."""

    def write(path: Path | None = None, cells: tuple[np.ndarray, Any, Any] | None = None, **options: Any) -> Path:
        image, nucleus, cytosol = cells or make_cells()
        masks = {name: mask for name, mask in (("nucleus", nucleus), ("cytosol", cytosol)) if mask is not None}
        return write_store(path or tmp_path / "sample.zarr", image, masks, image_name="image", **options)

    return write


@pytest.fixture(scope="module", params=["h5sc", "zarr"])
def file_format(request: pytest.FixtureRequest) -> Iterator[str]:
    """The format of results. Shards of stores have few cells, see `formats.CELLS_PER_SHARD`."""
    from formats import CELLS_PER_SHARD, cells_per_shard

    with cells_per_shard(CELLS_PER_SHARD):
        yield request.param


@pytest.fixture(params=["fork", "spawn"])
def start_method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How workers start, here and in processes that a test starts: as on Linux, or as on macOS and Windows."""
    monkeypatch.setenv("CELLSTAMP_START_METHOD", request.param)
    return request.param


@pytest.fixture(scope="session")
def dask_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler and two workers; what a test makes of them, it leaves as it was."""
    # here, since the tests beside scportrait use this file too, and have no cluster
    from clusters import Cluster

    with Cluster(tmp_path_factory.mktemp("cluster"), n_workers=2) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def dask_client(dask_cluster: Cluster) -> Iterator[Any]:
    """A client of the two workers, which is no default for others."""
    with dask_cluster.client(n_workers=2) as client:
        yield client


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a worker process, an open HDF5 file or unfinished files."""
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    files, children = _open_hdf5(), _workers()
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")  # matplotlib warns of many open figures, in whatever test comes next
    workers = _workers() - children
    assert not workers, f"worker processes left: {workers}"
    assert _open_hdf5() <= files, "an HDF5 file was left open"
    if folder is not None and request.node.get_closest_marker("leaves_files") is None:
        left = [path for pattern in LEFTOVERS for path in folder.rglob(pattern)]
        assert not left, f"files left: {left}"


def _workers() -> set[Any]:
    """Worker processes. The servers that workers are forked from are kept."""
    workers = {worker for own in _children(os.getpid()) for worker in _workers_of(own)}
    return workers | set(multiprocessing.active_children())


def _workers_of(own: int) -> list[int]:
    with suppress(psutil.NoSuchProcess):
        command = " ".join(psutil.Process(own).cmdline())
        if "cellstamp.engines.fork_server" in command:
            return _children(own)
        return [own] if "cellstamp.engines.spawned_worker" in command else []
    return []


def _children(pid: int) -> list[int]:
    # psutil looks at every process of the machine, twice for each test
    with suppress(OSError):
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    with suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(pid).children()]
    return []


def _open_hdf5() -> int:
    h5py = sys.modules.get("h5py")
    return h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE) if h5py else 0
