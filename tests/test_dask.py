"""Extractions on a dask cluster: real schedulers and workers, each a process as the command line starts it."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cellstamp
from cellstamp import HDF5CellExtraction
from cellstamp.cells.crop_settings import CropSettings
from cellstamp.cells.plan import inside_image, plan_batches
from cellstamp.engines import dask_client, dask_worker
from cellstamp.engines.dask import DaskEngine
from cellstamp.engines.dask_worker import Order, carry_out, n_kept
from cellstamp.engines.grouped import in_groups
from cellstamp.errors import ConfigError, WorkerError
from cellstamp.source.values import Centers
from clusters import Cluster
from comparing import assert_same
from engine_tasks import (
    AfterEarlier,
    Arrays,
    Batch,
    DieOnce,
    EndsScheduler,
    PageFaults,
    Small,
    Square,
    Wait,
    count_batches_here,
    page_faults,
)
from formats import NAMES
from outlined import placed, polygons_of
from pixel_stores import write_source
from stamp_tasks import Counting, Killed, KilledOnce, SchedulerKilled
from stores import CYTOSOL, make_sample, write_store
from waiting import wait_until

CONFIG = {"threads": 2, "image_size": 32, "max_batch_size": 5, "engine": "dask"}
FILE = "data/single_cells.h5sc"

MakeStep = Callable[..., HDF5CellExtraction]


@pytest.fixture(scope="module")
def sample_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("sample") / "sample.zarr", make_sample())


@pytest.fixture(scope="module")
def serial(sample_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run in one process makes."""
    return make_serial(sample_store, tmp_path_factory.mktemp("serial"))


def make_serial(sample_store: Path, folder: Path, file_format: str = "h5sc") -> Path:
    keys = {**CONFIG, "engine": "serial", "cache": str(folder), "file_format": file_format}
    HDF5CellExtraction(keys, folder, filehandler=sample_store)()
    return folder / "data" / NAMES[file_format]


@pytest.fixture
def serial_too(serial: Path, file_format: str, sample_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run in one process makes in each format."""
    return serial if file_format == "h5sc" else make_serial(sample_store, tmp_path_factory.mktemp("store"), "zarr")


@pytest.fixture
def store(sample_store: Path, tmp_path: Path) -> Path:
    """A store of the test's own."""
    return shutil.copytree(sample_store, tmp_path / "input/sample.zarr")


@pytest.fixture
def make_step(tmp_path: Path, store: Path) -> MakeStep:
    def make(scheduler: Any = None, folder: str = "out", filehandler: Any = store, **config: Any) -> HDF5CellExtraction:
        keys = {**CONFIG, "cache": str(tmp_path / "cache"), "dask_scheduler": scheduler, **config}
        return HDF5CellExtraction(keys, tmp_path / folder, filehandler=filehandler)

    return make


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler for what a test does to it or to its workers, which it adds itself."""
    (tmp_path / "cluster").mkdir()
    with Cluster(tmp_path / "cluster") as cluster:
        yield cluster


def batches(n: int) -> list[Batch]:
    return [Batch(number) for number in range(n)]


# --- the same file ---------------------------------------------------------------------------------------------------


@pytest.mark.once
def test_one_two_and_four_workers_make_the_file_of_the_serial_engine(
    tmp_path: Path, make_step: MakeStep, serial: Path, own: Cluster
) -> None:
    for n_workers, n_new in ((1, 1), (2, 1), (4, 2)):
        for _ in range(n_new):
            own.add(nanny=False)
        with own.client(n_workers) as client:
            make_step(client, folder=f"out{n_workers}")()
        assert_same(tmp_path / f"out{n_workers}" / FILE, serial)


@pytest.mark.once
def test_a_worker_with_threads(tmp_path: Path, make_step: MakeStep, serial: Path, own: Cluster) -> None:
    own.add(nthreads=3, nanny=False)
    with own.client(1):
        make_step(own.address)()
    assert_same(tmp_path / "out" / FILE, serial)


@pytest.mark.usefixtures("dask_client")
def test_by_the_address_from_a_relative_path(
    tmp_path: Path,
    make_step: MakeStep,
    serial: Path,
    dask_cluster: Cluster,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(store.parent)
    make_step(dask_cluster.address, filehandler=store.name)()
    assert_same(tmp_path / "out" / FILE, serial)


def test_the_current_client_is_used(tmp_path: Path, make_step: MakeStep, serial: Path, dask_client: Any) -> None:
    with dask_client.as_current():
        step = make_step()
        step()
    assert_same(tmp_path / "out" / FILE, serial)
    assert dask_client.status == "running"


def test_without_a_scheduler_and_without_a_guard_in_the_script(tmp_path: Path, store: Path, serial: Path) -> None:
    config = {**CONFIG, "cache": str(tmp_path / "cache")}
    script = tmp_path / "script.py"
    script.write_text(
        "print('once')\n"
        "from cellstamp import HDF5CellExtraction\n"
        f"HDF5CellExtraction({config}, {str(tmp_path / 'out')!r}, filehandler={str(store)!r})()\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("once"), done.stdout.count("Extracted")) == (0, 1, 1), done.stderr
    assert_same(tmp_path / "out" / FILE, serial)


@pytest.fixture(scope="module")
def placed_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide with elements on other grids: turned labels and image, and polygons in other units."""
    import warnings

    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, Labels2DModel
    from spatialdata.transformations import Affine, Identity, Scale

    sample = make_sample()
    here, turned = Identity(), Affine(np.array([[0.8, -0.6, 40], [0.6, 0.8, -30], [0, 0, 1]]), *[("y", "x")] * 2)
    cells = sample.masks[CYTOSOL]
    halved = polygons_of(cells).geometry.affine_transform([0.5, 0, 0, 0.5, 0, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata = SpatialData(
            images={
                name: Image2DModel.parse(sample.image, dims=("c", "y", "x"), transformations={"global": way})
                for name, way in {"slide": here, "other": turned}.items()
            },
            labels={
                name: Labels2DModel.parse(mask, dims=("y", "x"), transformations={"global": way})
                for name, mask, way in (
                    ("half", cells[::2, ::2], Scale([2, 2], axes=("y", "x"))),
                    ("turned", cells, turned),
                    ("cells", cells, here),
                )
            },
            shapes={"outlines": placed(halved.to_frame("geometry"), {"global": Scale([2, 2], axes=("y", "x"))})},
        )
        path = tmp_path_factory.mktemp("placed") / "placed.zarr"
        sdata.write(path)
    return path


@pytest.mark.parametrize(
    "config",
    [
        {"image": "slide", "cytosol_labels": "half"},
        {"image": "slide", "cytosol_labels": "turned"},
        {"image": ["slide", "other"], "cytosol_labels": "cells"},
        {"image": ["slide", "other"], "cytosol_shapes": "outlines"},
        {
            "image": ["slide", "other"],
            "nucleus_labels": "half",
            "cytosol_shapes": "outlines",
            "image_pixel_size": 1.0,
            "crop_pixel_size": 1.5,
        },
    ],
    ids=["half the resolution", "turned", "two images", "polygons", "crops of another pixel size"],
)
@pytest.mark.filterwarnings("ignore:left out", "ignore:.* outside of image", "ignore:.* exceed")
def test_elements_on_other_grids(
    tmp_path: Path, make_step: MakeStep, dask_client: Any, placed_store: Path, config: dict[str, Any]
) -> None:
    make_step(dask_client, folder="dask", filehandler=placed_store, border="pad", **config)()
    make_step(folder="processes", filehandler=placed_store, border="pad", engine="processes", **config)()
    assert_same(tmp_path / "dask" / FILE, tmp_path / "processes" / FILE)


# --- what is left, and what is done twice ----------------------------------------------------------------------------


def _nothing_is_left(client: Any) -> bool:
    wait_until(lambda: not client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)))
    assert not client.futures
    return not any(client.run(n_kept).values())


@pytest.mark.once
def test_results_are_released_as_they_are_taken(dask_client: Any) -> None:
    seen = []
    for outcome in DaskEngine(dask_client).run(Arrays((200_000,)), batches(60), lambda: 5):
        seen.append(int(outcome.value[0][0]))
        dask_client.sync(asyncio.sleep, 0)  # what is let go of is forgotten in the client's own thread
        assert len(dask_client.futures) <= 5
    assert sorted(seen) == list(range(60))
    assert _nothing_is_left(dask_client)


def test_closing_early_leaves_nothing(tmp_path: Path, dask_client: Any) -> None:
    with closing(DaskEngine(dask_client).run(Square(tmp_path), batches(60), lambda: 6)) as outcomes:
        next(outcomes)
        assert any(dask_client.run(n_kept).values())
    assert _nothing_is_left(dask_client)
    assert len(list(tmp_path.iterdir())) < 60


@pytest.mark.once
def test_what_a_caller_left_that_died_is_dropped_by_the_next_run(tmp_path: Path, dask_client: Any) -> None:
    (address, *_) = dask_client.nthreads()
    order = Order("of one that died", pickle.dumps(Square(tmp_path)), 0)
    dask_client.submit(carry_out, order, Batch(0), workers=[address], pure=False).result()
    assert dask_client.run(n_kept, workers=[address]) == {address: 1}
    dask_client.run(setattr, dask_worker, "_IDLE", 0.0)
    try:
        outcomes = DaskEngine(dask_client).run(Square(tmp_path), batches(20), lambda: 6)
        assert len(list(outcomes)) == 20
    finally:
        dask_client.run(setattr, dask_worker, "_IDLE", dask_worker._IDLE)
    assert _nothing_is_left(dask_client)


@pytest.mark.once
def test_workers_keep_freed_memory_while_they_are_in_a_run(dask_client: Any) -> None:
    n_pages = 40 * 2**20 // os.sysconf("SC_PAGE_SIZE")
    seen = [outcome.value for outcome in DaskEngine(dask_client).run(PageFaults(), batches(12), lambda: 4)]
    assert max(seen[-4:]) < n_pages / 5
    assert min(dask_client.run(page_faults).values()) > n_pages / 2


@pytest.mark.once
@pytest.mark.once
@pytest.mark.parametrize(("n_workers", "nthreads"), [(1, 2), (4, 1)])
def test_chunks_are_decoded_one_and_a_half_times_at_most(
    tmp_path: Path, own: Cluster, n_workers: int, nthreads: int
) -> None:
    for _ in range(n_workers):
        own.add(nthreads=nthreads, nanny=False)
    side, chunk, size = 6000, 300, 48
    image, mask = np.ones((1, side, side), np.uint8), np.zeros((side, side), np.uint8)
    source = write_source(tmp_path / "x.zarr", image, [mask], image_chunk=chunk, mask_chunk=chunk)
    y, x = (axis.ravel() * 40.0 for axis in np.mgrid[: side // 40, : side // 40])
    cells = Centers(np.arange(1, x.size + 1, dtype=np.uint64), np.stack([x, y], axis=1))
    cells = cells[inside_image(cells, size, (side, side))]
    plan = plan_batches(
        cells, size, (side, side), tile=(2 * chunk, 2 * chunk), chunk=(chunk, chunk), max_batch_size=200
    )
    recipe = CropSettings(size, ((0.0, 1.0),), True, (255.0,), True, "float16", "lzf")  # noqa: FBT003
    (tmp_path / "counts").mkdir()
    with own.client(n_workers) as client:
        outcomes = DaskEngine(client).run(Counting(source, recipe, tmp_path / "counts"), plan, lambda: 16)
        n_cells = sum(outcome.value.rows.size for outcome in outcomes)
    assert n_cells == len(cells)
    counts = [file.read_text().splitlines() for file in (tmp_path / "counts").iterdir()]
    assert len(counts) == n_workers
    decoded = Counter(chunk for lines in counts for chunk in lines)
    assert len(decoded) == 2 * (side // chunk) ** 2
    assert decoded.total() <= 1.5 * len(decoded)


@pytest.mark.once
def test_batches_with_small_results_run_in_groups(dask_client: Any) -> None:
    found = [outcome.value for outcome in DaskEngine(dask_client).run(Small(), batches(64), lambda: 6)]
    assert sorted(number for number, _ in found) == list(range(64))
    tasks = [{number for number, of in found if of == task} for task in {of for _, of in found}]
    assert sorted(map(sorted, tasks)) == [list(range(start, start + 4)) for start in range(0, 64, 4)]
    assert _nothing_is_left(dask_client)


@pytest.mark.parametrize(
    ("n_batches", "n_workers", "size"), [(5, 2, 1), (64, 2, 4), (20_000, 400, 6), (20_000, 16, 16)]
)
def test_groups_are_larger_the_more_batches_there_are(n_batches: int, n_workers: int, size: int) -> None:
    groups = in_groups(range(n_batches), n_workers)
    assert [batch for group in groups for batch in group.batches] == list(range(n_batches))
    assert max(len(group.batches) for group in groups) == size


@pytest.mark.once
def test_closing_early_leaves_nothing_of_groups(dask_client: Any) -> None:
    with closing(DaskEngine(dask_client).run(Small(), batches(64), lambda: 6)) as outcomes:
        next(outcomes)
    assert _nothing_is_left(dask_client)


@pytest.mark.once
def test_a_batch_of_a_group_that_kills_every_worker_is_named(dask_client: Any) -> None:
    with pytest.raises(WorkerError, match=r"3 workers died while working on batch number 37 \("):
        list(DaskEngine(dask_client).run(Small(37), batches(64), lambda: 6))


# --- workers come and go ---------------------------------------------------------------------------------------------


@pytest.mark.once
def test_a_worker_killed_mid_run(
    tmp_path: Path, make_step: MakeStep, serial_too: Path, dask_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellstamp.pipeline.job.StampTask", KilledOnce)
    make_step(dask_client, file_format=serial_too.suffix[1:])()
    assert (tmp_path / "input/killed-once").exists()
    assert_same(tmp_path / "out/data" / serial_too.name, serial_too)
    (line,) = [line for line in (tmp_path / "out/processing.log").read_text().splitlines() if "died" in line]
    assert re.search(r"left\) while working on 5 cells( of shard \d)?, ids", line)


@pytest.mark.once
@pytest.mark.leaves_files
def test_a_cell_that_kills_every_worker_is_named_and_the_rest_is_kept(
    tmp_path: Path, make_step: MakeStep, serial_too: Path, dask_client: Any
) -> None:
    keys = {"file_format": serial_too.suffix[1:]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellstamp.pipeline.job.StampTask", Killed)
        told = r"\d workers died while working on (cell 40|5 cells of shard \d, ids .*) .*--memory-limit"
        with pytest.raises(WorkerError, match=told):
            make_step(dask_client, max_batch_size=2, **keys)()
    make_step(dask_client, **keys)()
    assert "Resuming: " in (tmp_path / "out/processing.log").read_text()
    assert_same(tmp_path / "out/data" / serial_too.name, serial_too)


@pytest.mark.once
def test_the_batch_that_a_worker_died_at_is_blamed(tmp_path: Path, dask_client: Any) -> None:
    log: list[str] = []
    engine = DaskEngine(dask_client, log=log.append)
    # the end of the batch before must be known, else that one is blamed
    task = AfterEarlier(4, tmp_path, DieOnce(4, tmp_path))
    values = []
    for outcome in engine.run(task, batches(12), lambda: 8):
        values.append(outcome.value)
        (tmp_path / f"received-{outcome.value}").touch()
    assert sorted(values) == list(range(12))
    (blamed,) = [line for line in log if "died" in line]
    assert "batch number 4; retrying the batch" in blamed


@pytest.mark.once
def test_a_batch_that_may_be_to_blame_runs_alone(tmp_path: Path, dask_client: Any) -> None:
    log: list[str] = []
    task = DieOnce(3, tmp_path, then=count_batches_here)
    outcomes = DaskEngine(dask_client, log=log.append).run(task, batches(200), lambda: 12)
    n_batches = dict(outcome.value for outcome in outcomes)
    # on a busy machine, the caller may learn of the end of the batch before too late, and blames that one
    (blamed,) = [int(found[1]) for line in log if (found := re.search(r"died .*batch number (\d+); retrying", line))]
    assert n_batches[blamed] == 1
    assert len(n_batches) == 200


@pytest.mark.once
def test_a_worker_that_comes_late_is_used(tmp_path: Path, own: Cluster) -> None:
    own.add(nanny=False)
    task = Wait(0, tmp_path).prepare()
    log: list[str] = []
    with own.client(1) as client:
        values = []
        outcomes = DaskEngine(client, log=log.append).run(task, batches(30), lambda: 8)
        own.add(nanny=False)
        for outcome in outcomes:
            values.append(outcome.value)
            if len(values) == 10:
                task.release()  # until now, the first worker waited
        assert 0 not in values[:10]
        assert sorted(values) == list(range(30))
    assert [line.partition(":")[0] for line in log[1:]] == ["a worker joined"]


@pytest.mark.once
def test_a_worker_that_goes_is_replaced_by_the_others(tmp_path: Path, own: Cluster) -> None:
    task = Wait(0, tmp_path).prepare()
    for _ in range(2):
        own.add(nanny=False)
    log: list[str] = []
    with own.client(2) as client, closing(DaskEngine(client, log=log.append).run(task, batches(20), lambda: 8)) as left:
        first = next(left).value
        task.kill()
        releasing = threading.Thread(target=task.release)  # the other worker takes what it had, and waits in its turn
        releasing.start()
        values = [first, *(outcome.value for outcome in left)]
        releasing.join()
    assert sorted(values) == list(range(20))
    assert "batch number 0; retrying the batch" in log[1], log


@pytest.mark.once
def test_without_any_worker(own: Cluster, tmp_path: Path) -> None:
    message = r"has had no worker for 0\.1 s\. Start some with 'dask worker tcp://"
    task = Wait(0, tmp_path).prepare()
    with own.client() as client:
        with pytest.raises(WorkerError, match=message):
            DaskEngine(client, patience=0.1)
        own.add(nanny=False)
        client.wait_for_workers(1)
        killing = threading.Thread(target=task.kill)
        killing.start()
        with pytest.raises(WorkerError, match=message):
            list(DaskEngine(client, patience=0.1).run(task, batches(4), lambda: 2))
        killing.join()


# --- the scheduler ---------------------------------------------------------------------------------------------------


def test_the_scheduler_killed_mid_run(
    tmp_path: Path, make_step: MakeStep, serial_too: Path, store: Path, own: Cluster
) -> None:
    """With zarr, the worker may still write its shard while the next run resumes."""
    keys = {"file_format": serial_too.suffix[1:]}
    own.add(nanny=False)
    store.with_name("scheduler.pid").write_text(str(own.scheduler.pid))
    with own.client(1) as client, pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellstamp.pipeline.job.StampTask", SchedulerKilled)
        with pytest.raises(
            WorkerError, match=r"(?s)the scheduler at tcp://.* is lost.*Finished cells are kept \(\d+ of "
        ):
            make_step(client, **keys)()
    assert not (tmp_path / "out/data").exists()
    make_step(engine="serial", **keys)()
    assert "Resuming: " in (tmp_path / "out/processing.log").read_text()
    assert_same(tmp_path / "out/data" / serial_too.name, serial_too)


@pytest.mark.once
@pytest.mark.parametrize("at", ["signature", "warm_up"])
def test_the_scheduler_killed_before_the_first_batch(own: Cluster, at: str) -> None:
    own.add(nanny=False)
    task = EndsScheduler(at, own.scheduler.pid, os.getpid())
    with own.client(1) as client, pytest.raises(WorkerError, match=r"the scheduler at tcp://.* is lost"):
        list(DaskEngine(client).run(task, batches(4), lambda: 2))


def test_the_log_tells_the_cluster(tmp_path: Path, dask_client: Any) -> None:
    log: list[str] = []
    list(DaskEngine(dask_client, log=log.append).run(Square(tmp_path), batches(2), lambda: 2))
    assert log == [f"on the dask cluster at {dask_client.scheduler.address}: 2 workers, 2 threads"]


# dask's client, which has read some text as a number of bytes, does not close itself
@pytest.mark.once
@pytest.mark.filterwarnings("ignore:Exception ignored in. <function Client.__del__")
def test_an_address_where_something_else_answers(make_step: MakeStep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_client, "_ANSWERS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        talking = threading.Thread(target=_greet, args=[server], daemon=True)
        talking.start()
        with pytest.raises(ConfigError, match=rf"'{address}': no scheduler answers there"):
            make_step(address)()
        talking.join()
    gc.collect()


def _greet(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" * 4)
        connection.recv(2**16)


def test_an_address_where_nothing_answers(make_step: MakeStep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_client, "_ANSWERS", 0.2)
    with pytest.raises(ConfigError, match=r"'tcp://127\.0\.0\.1:9': no scheduler answers there .*'dask scheduler'"):
        make_step("tcp://127.0.0.1:9")()


def test_a_client_that_was_closed(make_step: MakeStep, dask_cluster: Cluster) -> None:
    with dask_cluster.client() as client:
        step = make_step(client)
    with pytest.raises(ConfigError, match="the client is closed; make one"):
        step()


def test_without_the_package(make_step: MakeStep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"needs the package distributed: pip install 'cellstamp\[dask\]'"):
        make_step("tcp://127.0.0.1:9")()


# --- workers that cannot be used -------------------------------------------------------------------------------------


@pytest.fixture
def other_version(tmp_path: Path) -> Path:
    """A folder with another version of cellstamp."""
    package = shutil.copytree(
        Path(cellstamp.__file__).parent, tmp_path / "other/cellstamp", ignore=shutil.ignore_patterns("__pycache__")
    )
    init = package / "__init__.py"
    assert f'"{cellstamp.__version__}"' in init.read_text()
    init.write_text(init.read_text().replace(cellstamp.__version__, "0.0.9"))
    return package.parent


@pytest.mark.once
def test_a_worker_with_another_version_is_named(make_step: MakeStep, own: Cluster, other_version: Path) -> None:
    own.add(nanny=False, path=[other_version])
    with (
        own.client(1) as client,
        pytest.raises(WorkerError, match=rf"worker tcp://.* has cellstamp 0\.0\.9 \(here {cellstamp.__version__}\)"),
    ):
        make_step(client)()


@pytest.mark.once
def test_a_worker_without_the_package_is_named(make_step: MakeStep, own: Cluster, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/cellstamp.py").write_text("raise ModuleNotFoundError('No module named cellstamp')\n")
    own.add(nanny=False, path=[tmp_path / "broken"])
    with (
        own.client(1) as client,
        pytest.raises(WorkerError, match=r"worker tcp://.*cannot be used: .*No module named cellstamp"),
    ):
        make_step(client)()


@pytest.mark.once
def test_a_late_worker_with_another_version_is_not_used(tmp_path: Path, own: Cluster, other_version: Path) -> None:
    own.add(nanny=False)
    task = Wait(0, tmp_path).prepare()
    warned: list[str] = []

    def warn(line: str) -> None:
        warned.append(line)
        task.release()

    with own.client(1) as client:
        outcomes = DaskEngine(client, warn=warn).run(task, batches(10), lambda: 4)
        own.add(nanny=False, path=[other_version])
        assert sorted(outcome.value for outcome in outcomes) == list(range(10))
    (line,) = warned
    assert line.startswith("not using worker tcp://")


@pytest.mark.once
def test_an_input_that_a_worker_cannot_see(make_step: MakeStep, own: Cluster, store: Path) -> None:
    hide = f'mount -t tmpfs none "{store.parent}" && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", hide, "sh"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    own.add(nanny=False, command=command)
    with own.client(1) as client, pytest.raises(WorkerError, match=r"worker tcp://.*cannot be used: .*same paths"):
        make_step(client)()


@pytest.mark.once
def test_an_input_that_is_another_one_there(make_step: MakeStep, own: Cluster, store: Path, tmp_path: Path) -> None:
    other = write_store(tmp_path / "elsewhere/sample.zarr", make_sample(seed=1)).parent
    command = ["unshare", "--mount", "sh", "-c", f'mount --bind "{other}" "{store.parent}" && exec "$@"', "sh"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    own.add(nanny=False, command=command)
    with own.client(1) as client, pytest.raises(WorkerError, match=r"worker tcp://.*reads other data at the path"):
        make_step(client)()


@pytest.mark.once
def test_a_plan_that_does_not_fit_into_a_worker(make_step: MakeStep, own: Cluster) -> None:
    own.add(nanny=False, nthreads=2, memory="400MB")
    message = r"needs about 2\d\d MB in a worker, and tcp://.* has 200 MB for each of its threads"
    with own.client(1) as client, pytest.raises(ConfigError, match=message):
        make_step(client)()
