"""Memory stays within the budget however slow writing is."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from cellstamp.cells.plan import Batch
from cellstamp.config import ExtractionConfig
from cellstamp.encoded_cells import EncodedCells
from cellstamp.engines import choose_engine
from cellstamp.engines.inflight import InflightLimit
from cellstamp.engines.memory import memory_budget
from cellstamp.h5sc.layout import Layout
from cellstamp.h5sc.writer import StampWriter
from cellstamp.pipeline.cell_selection import choose_cells
from cellstamp.pipeline.disk_space import DiskSpace
from cellstamp.pipeline.job import Job
from cellstamp.pipeline.run import run_batches
from cellstamp.pipeline.scaling import find_scaling
from cellstamp.pipeline.workers import PRELOAD
from cellstamp.report import Progress
from cellstamp.source.read.centers import compute_centers
from pixel_stores import write_source

pytestmark = pytest.mark.once

N_WORKERS = 2


class Watch:
    """Looks at the summed memory of this process and all below it, again and again."""

    def __init__(self) -> None:
        self.peak = 0
        self._n_looks = 0
        self._news = threading.Condition()
        self._done = False

    def wait_for_looks(self, n: int) -> None:
        with self._news:
            enough = self._n_looks + n
            self._news.wait_for(lambda: self._n_looks >= enough)

    def _run(self) -> None:
        me = psutil.Process()
        while not self._done:
            memory = sum(_pss(process) for process in (me, *me.children(recursive=True)))
            with self._news:
                self.peak = max(self.peak, memory)
                self._n_looks += 1
                self._news.notify_all()

    @contextmanager
    def watching(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._done = True
            thread.join()


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:  # it has ended meanwhile
        return 0


_FRESH = "CELLSTAMP_TEST_IN_A_FRESH_PROCESS"


class SlowWriter(StampWriter):
    """Brings each batch to the disk, and then takes until the memory has been looked at some more times."""

    def __init__(self, path: Path, layout: Layout, watch: Watch) -> None:
        super().__init__(path, layout, path.with_suffix(".journal"), {})
        self._watch = watch

    def write(self, cells: EncodedCells) -> None:
        super().write(cells)
        self.flush()
        self._watch.wait_for_looks(4)


class Seen(InflightLimit):
    """Keeps what it was shown."""

    def observe(self, **seen: int) -> None:
        super().observe(**seen)
        self.shown = (*getattr(self, "shown", ()), seen)

    def summed_memory(self) -> int:
        """The largest seen of this process and of each worker."""
        workers = {seen["pid"]: seen["rss"] for seen in self.shown}
        return max(seen["parent_rss"] for seen in self.shown) + sum(workers.values())

    def batch_bytes(self) -> int:
        return max(seen["batch_bytes"] for seen in self.shown)


@pytest.fixture(params=[(2200, 3, 128), (900, 20, 256)], ids=["many small stamps", "few large stamps"])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Job:
    """Cells on a grid, stamps of 160 kB or of 2.9 MB that no filter makes smaller."""
    side, n_channels, size = request.param
    pitch = 40
    y, x = np.mgrid[:side, :side]
    cells = (y // pitch * (side // pitch) + x // pitch + 1).astype(np.uint32)
    cells[(y % pitch < 8) | (x % pitch < 8)] = 0
    image = np.random.default_rng(0).integers(0, 60000, (n_channels, side, side)).astype(np.uint16)
    source = write_source(tmp_path / "store", image, [cells, cells], image_chunk=800, mask_chunk=800)
    keys: dict[str, Any] = {"threads": N_WORKERS, "image_size": size, "cache": str(tmp_path), "max_batch_size": 150}
    config = ExtractionConfig.parse({**keys, "compression": False})
    centers = compute_centers(source.main_mask)
    selection = choose_cells(centers, source, config, partial=False, n_cells=None, seed=0)
    return Job(config, source, selection, find_scaling(config, source, map, log=print), tmp_path)


def extract(job: Job, batches: Sequence[Batch], budget: int, watch: Watch) -> Seen:
    def ignore(message: str) -> None:
        del message

    limit = Seen(budget, N_WORKERS, len(batches), None, ignore, ignore)
    path = job.folder / "slow.h5sc"
    with watch.watching(), SlowWriter(path, job.layout(), watch) as writer, Progress(0, mode=False) as progress:
        engine = choose_engine(job.config, preload=PRELOAD, log=ignore, warn=ignore)
        room = DiskSpace(job.folder, len(job.cells))
        run_batches(engine, job.task(), batches, writer, limit=limit, flush_every=None, room=room, progress=progress)
    path.unlink()
    return limit


def ran_in_a_fresh_process(request: pytest.FixtureRequest) -> bool:
    """Run a test in a separate process, without servers and memory that earlier tests left here."""
    if _FRESH in os.environ:
        return False
    # in the shared folder, pytest fails if it cannot remove what an older run left there, such as a mounted disk
    folder = request.getfixturevalue("tmp_path") / "pytest"
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--basetemp={folder}"]
    command = [sys.executable, "-m", "pytest", *options, request.node.nodeid]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command, env={**kept, _FRESH: "1"}, cwd=request.config.rootpath, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    return True


def test_memory_stays_within_the_budget_when_writing_is_slow(request: pytest.FixtureRequest, job: Job) -> None:
    if ran_in_a_fresh_process(request):
        return
    batches = job.batches(2**40)
    # What the processes need when they have one batch each:
    first = extract(job, batches[:: len(batches) // 2][:N_WORKERS], 0, Watch())
    room = (N_WORKERS + 1) * first.batch_bytes()
    budget = memory_budget(1.0, limit=first.summed_memory() + room)
    assert len(batches) * first.batch_bytes() > 3 * room  # all results together would never fit

    watch = Watch()
    limit = extract(job, batches, budget, watch)
    assert len(limit.shown) == len(batches)
    assert watch.peak <= budget


@pytest.mark.usefixtures("start_method")
def test_workers_do_not_grow_from_batch_to_batch(tmp_path: Path) -> None:
    side, pitch = 1200, 30
    y, x = np.mgrid[:side, :side]
    cells = (y // pitch * (side // pitch) + x // pitch + 1).astype(np.uint32)
    image = np.random.default_rng(0).integers(0, 60000, (2, side, side)).astype(np.uint16)
    source = write_source(tmp_path / "store", image, [cells], image_chunk=200, mask_chunk=300)
    keys: dict[str, Any] = {"threads": N_WORKERS, "image_size": 64, "cache": "c", "max_batch_size": 6}
    config = ExtractionConfig.parse({**keys, "compression": False})  # 150 kB a batch
    centers = compute_centers(source.main_mask)
    selection = choose_cells(centers, source, config, partial=False, n_cells=None, seed=0)
    job = Job(config, source, selection, find_scaling(config, source, map, log=print), tmp_path)
    batches = job.batches(2**40)
    assert len(batches) > 100 * N_WORKERS
    sizes: dict[int, list[int]] = {}
    engine = choose_engine(config, preload=PRELOAD, log=lambda line: None, warn=lambda line: None)
    for outcome in engine.run(job.task(), batches, lambda: 4):
        sizes.setdefault(outcome.pid, []).append(outcome.rss)
    # on a busy machine, one worker may have done nearly all of it
    for series in (series for series in sizes.values() if len(series) >= len(batches) // 4):
        peaks = [max(part) for part in np.array_split(series, 5)]
        # A library may take a step once (an allocator's arena, code first used late); what is never given back adds up
        # in each part of a run.
        assert min(np.diff(peaks[1:])) < 2**20, peaks
