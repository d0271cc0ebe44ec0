"""A disk that is too small: told early where that is possible, clearly when it is not, and gone on with afterwards."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellstamp import HDF5CellExtraction
from cellstamp.errors import OutputError
from cellstamp.h5sc.validate import errors_in
from comparing import assert_same
from stores import Sample, make_sample, write_store

pytestmark = pytest.mark.once

SIZE = 32


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cells of noise, which hardly compress."""
    sample = make_sample((500, 560))
    noise = np.random.default_rng(0).integers(1, 60000, sample.image.shape).astype(np.uint16)
    return write_store(tmp_path_factory.mktemp("store") / "s.zarr", Sample(noise, sample.masks, sample.channel_names))


@pytest.fixture
def disk(tmp_path: Path, undisturbed: Path) -> Iterator[Path]:
    """A real file system with room for two thirds of a result; its size can be changed by `resize`."""
    place = tmp_path / "disk"
    place.mkdir()
    size = undisturbed.stat().st_size * 2 // 3
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def resize(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


def make_step(store: Path, disk: Path, **config: Any) -> HDF5CellExtraction:
    keys = {
        "threads": 1,
        "image_size": SIZE,
        "cache": str(disk.parent / "cache"),
        "max_batch_size": 10,
        "flush_every": 2,
        **config,
    }
    return HDF5CellExtraction(keys, disk / "out", filehandler=store)


@pytest.fixture(scope="module")
def undisturbed(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    keys = {"threads": 1, "image_size": SIZE, "cache": str(folder / "cache")}
    HDF5CellExtraction(keys, folder, filehandler=store)()
    return folder / "data/single_cells.h5sc"


def assert_goes_on(store: Path, disk: Path, undisturbed: Path, threads: int) -> None:
    """Once there is room, the run goes on, and makes what an undisturbed one makes."""
    resize(disk, "20m")
    make_step(store, disk, threads=threads)()
    assert "Resuming: " in (disk / "out/processing.log").read_text()
    assert_same(disk / "out/data/single_cells.h5sc", undisturbed)
    assert errors_in(disk / "out/data/single_cells.h5sc") == []


@pytest.mark.leaves_files
@pytest.mark.parametrize("threads", [1, 2])
def test_what_can_not_fit_is_stopped_early_and_gone_on_with(
    store: Path, disk: Path, undisturbed: Path, threads: int
) -> None:
    with pytest.raises(OutputError, match=r"images of the remaining \d+ cells need about .*B, and only "):
        make_step(store, disk, threads=threads)()
    assert_goes_on(store, disk, undisturbed, threads)


@pytest.mark.leaves_files
@pytest.mark.parametrize("threads", [1, 2])
def test_a_disk_that_is_full_all_of_a_sudden(
    store: Path, disk: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """As if someone else had filled it between two looks."""
    monkeypatch.setattr("cellstamp.pipeline.disk_space._TOLERANCE", 0.0)
    with pytest.raises(OutputError, match=r"cannot be written.*(No space left|errno = 28).*extract again to resume"):
        make_step(store, disk, threads=threads)()
    assert_goes_on(store, disk, undisturbed, threads)


@pytest.mark.leaves_files
def test_the_command_line_ends_with_an_error_and_not_with_a_crash(store: Path, disk: Path) -> None:
    """HDF5 crashes at the end of a process that has a file open which it cannot write."""
    code = (
        "import sys\n"
        "from cellstamp import HDF5CellExtraction\n"
        "from cellstamp.pipeline import disk_space\n"
        "disk_space._TOLERANCE = 0.0\n"
        "config = {'threads': 1, 'image_size': 32, 'max_batch_size': 10, 'flush_every': 2, 'cache': sys.argv[2]}\n"
        "HDF5CellExtraction(config, sys.argv[2] + '/out', filehandler=sys.argv[1])()\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, store, disk], capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stderr
    assert "OutputError" in ended.stderr.splitlines()[-1]


def test_what_can_never_fit_is_told_before_any_work(store: Path, disk: Path) -> None:
    (disk / "full").write_bytes(bytes(shutil.disk_usage(disk).free - 2**16))
    with pytest.raises(OutputError, match=r"images of \d+ cells need at least .*B, and only .*B are free there"):
        make_step(store, disk, compression=False)()
    assert not (disk / "out/.unfinished_data").exists()


def test_a_folder_that_cannot_be_written(store: Path, disk: Path) -> None:
    step = make_step(store, disk)
    step.log("it can be, so far")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    try:
        with pytest.raises(OutputError, match=r"(?i)cannot be written: Read-only file system"):
            step()
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
