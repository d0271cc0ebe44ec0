"""Extractions in a real memory cgroup, whose limit the system enforces by killing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cellstamp import HDF5CellExtraction
from cellstamp.h5sc.validate import errors_in
from stores import make_sample, write_store

pytestmark = pytest.mark.once

LIMIT = 1200 * 2**20

_ENTER = """
import os, sys
open(os.path.join(sys.argv[1], "cgroup.procs"), "w").write(str(os.getpid()))
"""
CONFIG = {"threads": 2, "image_size": 32, "max_batch_size": 5}
_EXTRACT_HUNGRILY = f"""{_ENTER}
from cellstamp import HDF5CellExtraction
from cellstamp.pipeline import job
from stamp_tasks import Hungry
job.StampTask = Hungry
config = {CONFIG!r} | {{"cache": sys.argv[3] + "/cache"}}
HDF5CellExtraction(config, sys.argv[3], filehandler=sys.argv[2])()
"""


@pytest.fixture
def group() -> Iterator[Path]:
    """A cgroup with a limit; left out where none can be made."""
    root = Path("/sys/fs/cgroup")
    v1 = (root / "memory/memory.limit_in_bytes").exists()
    folder = (root / "memory" if v1 else root) / f"cellstamp-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / ("memory.limit_in_bytes" if v1 else "memory.max")).write_text(str(LIMIT))
    except OSError as error:
        if folder.exists():
            folder.rmdir()
        pytest.skip(f"no memory cgroup can be made here: {error}")
    yield folder
    folder.rmdir()


def run_in(group: Path, code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [*sys.path, str(Path(__file__).parent)]))
    command = [sys.executable, "-c", code, str(group), *map(str, arguments)]
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_limit_is_what_may_be_used(group: Path) -> None:
    code = f"{_ENTER}\nfrom cellstamp.engines.memory import memory_limit\nprint(memory_limit())"
    assert run_in(group, code).stdout == f"{LIMIT}\n"


@pytest.mark.leaves_files
@pytest.mark.usefixtures("start_method")
def test_a_cell_that_takes_more_than_there_is_is_named_and_the_rest_is_kept(group: Path, tmp_path: Path) -> None:
    store = write_store(tmp_path / "s.zarr", make_sample())
    out = tmp_path / "out"
    failed = run_in(group, _EXTRACT_HUNGRILY, store, out)
    assert failed.returncode == 1
    assert (
        "workers died while working on cell 40 (the last one: killed by SIGKILL). Most often memory has run out"
        in failed.stderr
    )
    log = (out / "processing.log").read_text()
    assert "retrying the batch" in log
    assert "retrying its halves separately" in log
    assert "Continuing with 1 instead of 2" in log
    assert not (out / "data").exists()
    HDF5CellExtraction({**CONFIG, "cache": str(tmp_path / "cache")}, out, filehandler=store)()
    assert "Resuming: " in (out / "processing.log").read_text()
    assert errors_in(out / "data/single_cells.h5sc") == []
