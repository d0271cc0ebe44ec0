"""A run that was ended, however it was, is gone on with: nothing is lost, nothing is wrong, little is done twice.

Tests run for both formats, unless a format has no such error, or the format makes no difference to it.

``CELLSTAMP_KILLS=40`` (what ``make faults`` sets) has as many runs killed at random moments, and a table of them shown.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import pytest

from cellstamp import HDF5CellExtraction, read_h5sc
from cellstamp.cells.task import StampTask
from cellstamp.errors import InputError, OutputError, WorkerError, notes_of
from cellstamp.h5sc.journal import _line, count_cells, read_entries
from cellstamp.h5sc.layout import removed_name
from cellstamp.h5sc.unfinished import JOURNAL, attempts_in
from cellstamp.h5sc.validate import errors_in
from cellstamp.h5sc.writer import StampWriter
from cellstamp.pipeline.disk_space import DiskSpace as Room
from cellstamp.zarr_store.shards import shard_path
from commands import run_command
from comparing import assert_same, contents
from formats import CELLS_PER_SHARD, NAMES, WRITERS, n_cells_of, only_h5sc, only_zarr
from listening import as_started_from_a_terminal, as_started_with_nohup, to_ctrl_c
from stamp_tasks import Interrupted, Killed, KilledOnce, Refused
from stores import Sample, make_sample, write_store
from waiting import wait_until

pytestmark = pytest.mark.once

N_KILLS = int(os.environ.get("CELLSTAMP_KILLS", "1"))
MOST_KILLS_A_RUN = 2 if N_KILLS == 1 else 4
SAMPLE = make_sample()
CONFIG = {"threads": 1, "image_size": 32, "max_batch_size": 5}
MakeStep = Callable[..., HDF5CellExtraction]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("store") / "sample.zarr", SAMPLE)


@pytest.fixture(scope="module")
def undisturbed(store: Path, file_format: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run makes that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    keys = {**CONFIG, "cache": str(folder / "cache"), "file_format": file_format}
    HDF5CellExtraction(keys, folder, filehandler=store)()
    return folder / "data" / NAMES[file_format]


@pytest.fixture
def result(tmp_path: Path, file_format: str) -> Path:
    """Where a run of this test writes its file or store."""
    return tmp_path / "out/data" / NAMES[file_format]


@pytest.fixture
def make_step(tmp_path: Path, store: Path, file_format: str) -> MakeStep:
    def make(filehandler: Any = store, *, overwrite: bool = False, **config: Any) -> HDF5CellExtraction:
        keys = {**CONFIG, "cache": str(tmp_path / "cache"), "file_format": file_format, **config}
        return HDF5CellExtraction(keys, tmp_path / "out", overwrite=overwrite, filehandler=filehandler)

    return make


def log_of(tmp_path: Path) -> str:
    return (tmp_path / "out/processing.log").read_text()


def n_done_before(tmp_path: Path) -> int:
    """How many cells the last run found done."""
    counts = re.findall(r"Resuming: ([\d,]+) of [\d,]+ cells done", log_of(tmp_path))
    return int(counts[-1].replace(",", "")) if counts else 0


@pytest.fixture
def cut_again(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ids of the cells that are cut in this process from now on."""
    ids: list[int] = []
    call = StampTask.__call__

    def noting(task: StampTask, batch: Any) -> Any:
        ids.extend(batch.ids.tolist())
        return call(task, batch)

    monkeypatch.setattr(StampTask, "__call__", noting)
    return ids


def end_a_run(
    make_step: MakeStep,
    what: object,
    error: type[BaseException],
    where: str = "job.StampTask",
    n_cells: int | None = None,
    **config: Any,
) -> None:
    """Have something else in the place of a part of a run, and the run ended by it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"cellstamp.pipeline.{where}", what)
        with pytest.raises(error, match=r"on purpose|workers died while working"):
            make_step(**config)(partial=n_cells is not None, n_cells=n_cells)


# --- going on --------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:2 workers were killed")
@pytest.mark.parametrize(
    ("task", "error", "threads"),
    [(Refused, InputError, 1), (Refused, InputError, 2), (Interrupted, KeyboardInterrupt, 1), (Killed, WorkerError, 2)],
)
def test_what_was_finished_is_not_done_again(
    tmp_path: Path,
    make_step: MakeStep,
    result: Path,
    undisturbed: Path,
    cut_again: list[int],
    task: Any,
    error: Any,
    threads: int,
) -> None:
    end_a_run(make_step, task, error, threads=threads)
    assert not (tmp_path / "out/data").exists()
    cut_again.clear()
    make_step()()
    assert_same(result, undisturbed)
    n_before = n_done_before(tmp_path)
    assert n_before > 0
    assert len(cut_again) == len(set(cut_again)) == n_cells_of(undisturbed) - n_before
    assert 40 in cut_again
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"data", "processing.log", "benchmarking.csv"}


def test_ended_twice(tmp_path: Path, make_step: MakeStep, result: Path, undisturbed: Path) -> None:
    end_a_run(make_step, Refused, InputError)
    first = _unfinished(tmp_path)
    end_a_run(make_step, Refused, InputError, overwrite=True)
    assert _unfinished(tmp_path) == first  # a file that was closed is gone on with where it is
    make_step()()
    assert_same(result, undisturbed)


def _unfinished(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "out/.unfinished_data").iterdir())


@only_h5sc
@pytest.mark.parametrize("compression", [True, "gzip", False])
def test_stamps_of_any_compression_are_carried_over(
    tmp_path: Path, make_step: MakeStep, result: Path, cut_again: list[int], compression: Any
) -> None:
    """Only HDF5 files that were not closed have to be copied."""
    make_step(compression=compression, overwrite=True)()
    shutil.move(result, tmp_path / "whole.h5sc")
    end_a_run(make_step, Refused, InputError, compression=compression)
    _never_closed(tmp_path)
    cut_again.clear()
    make_step(compression=compression)()
    assert_same(result, tmp_path / "whole.h5sc")
    assert len(cut_again) == n_cells_of(tmp_path / "whole.h5sc") - n_done_before(tmp_path) < 40


@only_h5sc
@pytest.mark.parametrize("compression", [True, "gzip", False])
@pytest.mark.parametrize("closed", [True, False], ids=["closed", "not closed"])
def test_a_run_that_began_with_a_chunk_for_each_plane_goes_on_with_these(
    tmp_path: Path,
    make_step: MakeStep,
    result: Path,
    cut_again: list[int],
    monkeypatch: pytest.MonkeyPatch,
    compression: Any,
    *,
    closed: bool,
) -> None:
    """Earlier versions wrote such files; they wrote no stores."""
    make_step(compression=compression, overwrite=True)()
    shutil.move(result, tmp_path / "whole.h5sc")
    with monkeypatch.context() as patch:
        patch.setattr("cellstamp.h5sc.layout.planes_per_chunk", lambda *_: 1)
        end_a_run(make_step, Refused, InputError, compression=compression)
    attempt = _unfinished_folder(tmp_path) if closed else _never_closed(tmp_path)
    _says_nothing_of_chunks(attempt / "journal")
    cut_again.clear()
    make_step(compression=compression)()
    with h5py.File(result) as resumed, h5py.File(tmp_path / "whole.h5sc") as whole:
        images, expected = (file["obsm/single_cell_images"] for file in (resumed, whole))
        assert (images.chunks[1], expected.chunks[1]) == (1, 5)
        assert images.id.get_num_chunks() == 5 * len(images)
        assert np.array_equal(images[:], expected[:])
    assert errors_in(result) == []
    assert len(cut_again) == n_cells_of(tmp_path / "whole.h5sc") - n_done_before(tmp_path) < 40


def _unfinished_folder(tmp_path: Path) -> Path:
    (attempt,) = (tmp_path / "out/.unfinished_data").iterdir()
    return attempt


def _says_nothing_of_chunks(journal: Path) -> None:
    """Make of a journal one of the first version."""
    first, *lines = journal.read_bytes().splitlines(keepends=True)
    record = json.loads(first.split(b" ", 1)[1])
    assert record.pop("planes_per_chunk") == 1
    journal.write_bytes(b"".join([_line(record), *lines]))


def _never_closed(tmp_path: Path) -> Path:
    """Make of a file that was closed one that was not: without an end in its journal, and with a useless index.

    A store has no index that is written at the end.
    """
    attempt = _unfinished_folder(tmp_path)
    journal = attempt / "journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert b"closed" in lines[-1]
    journal.write_bytes(b"".join(lines[:-1]))
    if (attempt / "single_cells.h5sc").exists():
        with (attempt / "single_cells.h5sc").open("r+b") as file:
            file.write(b"\0" * 64)
    return attempt


def test_a_journal_with_a_torn_end(
    tmp_path: Path, make_step: MakeStep, result: Path, undisturbed: Path, cut_again: list[int]
) -> None:
    end_a_run(make_step, Refused, InputError)
    journal = _never_closed(tmp_path) / "journal"
    journal.write_bytes(journal.read_bytes()[:-7])
    cut_again.clear()
    make_step()()
    assert_same(result, undisturbed)
    assert 0 < n_done_before(tmp_path) == n_cells_of(undisturbed) - len(cut_again)


def test_what_is_done_after_a_torn_end_stays_done(
    tmp_path: Path, make_step: MakeStep, result: Path, undisturbed: Path
) -> None:
    end_a_run(make_step, Refused, InputError)
    journal = _never_closed(tmp_path) / "journal"
    n_done = count_cells(journal)
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:3])[:-7])
    end_a_run(make_step, Refused, InputError)
    make_step()()
    assert n_done_before(tmp_path) == n_done
    assert_same(result, undisturbed)


@only_zarr
@pytest.mark.parametrize("damage", ["shortened", "index", "removed"])
def test_shards_that_are_damaged_or_lost_are_written_again_and_count_once(
    tmp_path: Path, make_step: MakeStep, result: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    end_a_run(make_step, Refused, InputError)
    attempt = _unfinished_folder(tmp_path)
    shard = shard_path(attempt / result.name, 1)
    content = shard.read_bytes()
    if damage == "removed":
        shutil.rmtree(shard.parents[2])
    else:
        shard.write_bytes(content[:-1] if damage == "shortened" else content[:-20] + b"?" + content[-19:])
    n_done = count_cells(attempt / "journal")
    end_a_run(make_step, Refused, InputError)
    lost = f"Could not read {CELLS_PER_SHARD} finished cells from {attempt}: extracting them again"
    assert log_of(tmp_path).count(lost) == 1
    assert n_done_before(tmp_path) == n_done - CELLS_PER_SHARD
    assert count_cells(attempt / "journal") == n_done

    left = []

    def make_room(folder: Path, n_left: int, *rest: Any, **more: Any) -> Room:
        left.append(n_left)
        return Room(folder, n_left, *rest, **more)

    monkeypatch.setattr("cellstamp.pipeline.extraction.DiskSpace", make_room)
    make_step()()
    assert n_done_before(tmp_path) == n_done
    assert left == [n_cells_of(undisturbed) - n_done]
    assert_same(result, undisturbed)


@only_h5sc
def test_stamps_that_are_not_what_the_journal_says_are_made_again(
    tmp_path: Path, make_step: MakeStep, result: Path, undisturbed: Path
) -> None:
    end_a_run(make_step, Refused, InputError)
    attempt = _never_closed(tmp_path)
    entry, *others = read_entries(attempt / "journal")
    assert others
    start, _ = entry.extents[-1]
    with (attempt / "single_cells.h5sc").open("r+b") as file:
        file.seek(start + 3)
        file.write(b"??")
    make_step()()
    assert_same(result, undisturbed)
    assert n_done_before(tmp_path) == sum(len(other.rows) for other in others)
    assert f"Could not read {len(entry.rows)} finished cells from {attempt}: extracting them again" in log_of(tmp_path)


@only_h5sc
def test_a_file_cut_short(tmp_path: Path, make_step: MakeStep, result: Path, undisturbed: Path) -> None:
    end_a_run(make_step, Refused, InputError)
    file = _never_closed(tmp_path) / "single_cells.h5sc"
    os.truncate(file, file.stat().st_size // 2)
    make_step()()
    assert_same(result, undisturbed)


@only_h5sc
def test_carrying_over_that_was_ended_itself(
    tmp_path: Path, make_step: MakeStep, result: Path, undisturbed: Path
) -> None:
    end_a_run(make_step, Refused, InputError)
    attempt = _never_closed(tmp_path)
    partly = attempt.with_name("2")
    shutil.copytree(attempt, partly)
    (partly / "journal").write_bytes((attempt / "journal").read_bytes().splitlines(keepends=True)[0])
    make_step()()
    assert_same(result, undisturbed)
    assert n_done_before(tmp_path) > 0


@only_h5sc
def test_carrying_over_that_is_interrupted_leaves_nothing_open_and_all_there(
    tmp_path: Path, make_step: MakeStep, result: Path, undisturbed: Path
) -> None:
    end_a_run(make_step, Refused, InputError)
    _never_closed(tmp_path)

    class Writer(StampWriter):
        def write(self, *args: Any) -> None:
            raise KeyboardInterrupt("on purpose")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellstamp.h5sc.unfinished.StampWriter", Writer)
        with pytest.raises(KeyboardInterrupt, match="on purpose"):
            make_step()()
    assert h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE) == 0
    make_step()()
    assert n_done_before(tmp_path) > 0
    assert_same(result, undisturbed)


@pytest.mark.parametrize("missing", ["journal", "result"])
def test_half_of_what_is_needed_to_go_on_is_nothing(
    tmp_path: Path, make_step: MakeStep, result: Path, undisturbed: Path, missing: str
) -> None:
    end_a_run(make_step, Refused, InputError)
    attempt = _unfinished_folder(tmp_path)
    (attempt / (missing if missing == "journal" else result.name)).rename(tmp_path / "elsewhere")
    make_step()()
    assert_same(result, undisturbed)
    assert n_done_before(tmp_path) == 0
    assert f"Removed unfinished results that cannot be resumed: {attempt}" in log_of(tmp_path)


def test_a_finished_file_that_did_not_get_its_name(
    tmp_path: Path, make_step: MakeStep, result: Path, undisturbed: Path
) -> None:
    end_a_run(make_step, _interrupt, KeyboardInterrupt, where="run.publish")
    make_step()()
    assert_same(result, undisturbed)
    assert n_done_before(tmp_path) == n_cells_of(undisturbed)


def _interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt("on purpose")


@only_zarr
def test_no_reader_takes_an_unfinished_store_for_a_finished_one(
    tmp_path: Path, make_step: MakeStep, result: Path
) -> None:
    """Also one that was complete, of which a shard was lost."""
    end_a_run(make_step, Refused, InputError)
    unfinished = _unfinished_folder(tmp_path) / result.name
    with pytest.raises(InputError, match=r"has no zarr\.json"):
        read_h5sc(unfinished)
    end_a_run(make_step, _interrupt, KeyboardInterrupt, where="run.publish")
    assert read_h5sc(unfinished).n_obs
    shard_path(unfinished, 0).unlink()
    end_a_run(make_step, _interrupt, KeyboardInterrupt, where="run.run_batches")
    with pytest.raises(InputError, match=r"has no zarr\.json"):
        read_h5sc(unfinished)
    make_step()()


@only_zarr
def test_parts_of_shards_that_killed_workers_left_are_removed_at_the_start(
    tmp_path: Path, make_step: MakeStep, result: Path
) -> None:
    """They take space, which may be what the next run lacks."""
    end_a_run(make_step, Refused, InputError)
    part = shard_path(_unfinished_folder(tmp_path) / result.name, 0).with_name(".0.1234.partial")
    part.write_bytes(b"some chunks")
    end_a_run(make_step, _interrupt, KeyboardInterrupt, where="run.run_batches")
    assert not part.exists()
    make_step()()


def test_a_preview_is_gone_on_with_too(tmp_path: Path, make_step: MakeStep) -> None:
    end_a_run(make_step, Refused, InputError, n_cells=43)
    step = make_step()
    step(partial=True, n_cells=43)
    assert "Resuming: " in (tmp_path / "out/partial_processing.log").read_text()
    assert errors_in(str(step.output_path)) == []


def test_a_run_whose_worker_was_killed_makes_the_same_file(
    tmp_path: Path, make_step: MakeStep, result: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = write_store(tmp_path / "sample.zarr", SAMPLE)
    monkeypatch.setattr("cellstamp.pipeline.job.StampTask", KilledOnce)
    make_step(store, threads=2)()
    assert (tmp_path / "killed-once").exists()
    assert "a worker died (killed by SIGKILL) while working on" in log_of(tmp_path)
    assert_same(result, undisturbed)


def test_ctrl_c_with_workers_leaves_a_process_that_can_go_on(
    tmp_path: Path,
    make_step: MakeStep,
    result: Path,
    undisturbed: Path,
    file_format: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[int] = []
    where, writer = WRITERS[file_format]

    class Writer(writer):  # type: ignore[misc, valid-type]
        """Is interrupted, as by Ctrl-C, when it has written two batches."""

        def write(self, *args: Any) -> None:
            super().write(*args)
            written.append(1)
            if len(written) == 2:
                signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(where, Writer)
        with to_ctrl_c(), pytest.raises(KeyboardInterrupt, match=r"^($|\nFinished cells are kept)"):
            make_step(threads=2)()
    servers = [
        child for child in psutil.Process().children() if "cellstamp.engines.fork_server" in " ".join(child.cmdline())
    ]
    assert [child for server in servers for child in server.children()] == []
    assert list((tmp_path / "cache").iterdir()) == []
    make_step(threads=2)()
    assert n_done_before(tmp_path) == 10
    assert_same(result, undisturbed)


# --- from other inputs -----------------------------------------------------------------------------------------------


def _other_pixels(tmp_path: Path) -> dict[str, Any]:
    return {"filehandler": write_store(tmp_path / "other.zarr", _shifted(SAMPLE))}


def _shifted(sample: Sample) -> Sample:
    return Sample(sample.image[:, ::-1] // 3, sample.masks, sample.channel_names)


@only_h5sc
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda _: {"normalize_output": False}, r"normalization_range: \[0.001, 0.999\] -> None"),
        (lambda _: {"compression": "gzip"}, "compression: lzf -> gzip"),
        (lambda _: {"image_size": 30}, "image_size: 32 -> 30"),
        (_other_pixels, r"input_image: \[3, .*\] uint16, digest \w+ -> \[3, .*\] uint16, digest \w+"),
    ],
)
def test_what_was_made_from_something_else_is_not_gone_on_with(
    tmp_path: Path, make_step: MakeStep, result: Path, undisturbed: Path, change: Any, told: str
) -> None:
    end_a_run(make_step, Refused, InputError)
    keys = change(tmp_path)
    with pytest.raises(OutputError, match=rf"(?s)unfinished results .* inputs or settings.*{told}.*overwrite=True"):
        make_step(**keys)()
    make_step()()  # as before: it is still there
    assert_same(result, undisturbed)
    assert n_done_before(tmp_path) > 0


def test_with_overwrite_what_was_made_from_something_else_goes(
    tmp_path: Path, make_step: MakeStep, result: Path
) -> None:
    end_a_run(make_step, Refused, InputError)
    make_step(compression="gzip", overwrite=True)()
    assert n_done_before(tmp_path) == 0
    assert errors_in(result) == []


def test_other_workers_and_batches_are_no_other_settings(
    tmp_path: Path, make_step: MakeStep, result: Path, undisturbed: Path
) -> None:
    end_a_run(make_step, Refused, InputError)
    make_step(threads=2, max_batch_size=7, flush_every=3, progress=False)()
    assert_same(result, undisturbed)
    assert n_done_before(tmp_path) > 0


def test_an_overwriting_run_that_is_ended_leaves_the_old_result(
    tmp_path: Path, make_step: MakeStep, result: Path
) -> None:
    make_step()()
    before = contents(result)
    end_a_run(make_step, Refused, InputError, overwrite=True, compression="gzip")
    assert contents(result) == before
    make_step(overwrite=True, compression="gzip")()
    assert n_done_before(tmp_path) > 0
    assert contents(result) != before
    assert errors_in(result) == []
    assert {path.name for path in result.parent.iterdir()} == {result.name, removed_name(result.name)}


def test_an_unfinished_result_of_the_other_format_is_in_the_way(
    tmp_path: Path, make_step: MakeStep, result: Path, undisturbed: Path, file_format: str
) -> None:
    end_a_run(make_step, Refused, InputError)
    other = "zarr" if file_format == "h5sc" else "h5sc"
    with pytest.raises(OutputError, match=r"(?s)unfinished results .* inputs or settings.*file_format: "):
        make_step(file_format=other)()
    make_step(file_format=other, overwrite=True)()
    assert n_done_before(tmp_path) == 0
    assert not result.exists()
    make_step()()
    assert_same(result, undisturbed)


# --- killed at any moment --------------------------------------------------------------------------------------------

_RUN = """
import json, sys
from cellstamp import HDF5CellExtraction
from cellstamp.zarr_store import layout
config, folder, store, layout.MOST_ROWS = json.loads(sys.argv[1])
HDF5CellExtraction(config, folder, filehandler=store)()
"""


def _start(tmp_path: Path, store: Path, **config: Any) -> subprocess.Popen[bytes]:
    keys = {**CONFIG, "cache": str(tmp_path / "cache"), "threads": 2, "flush_every": 1, **config}
    arguments = json.dumps([keys, str(tmp_path / "out"), str(store), CELLS_PER_SHARD])
    return subprocess.Popen([sys.executable, "-c", _RUN, arguments], start_new_session=True)


def _wait_for_entries(journal: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until some batches are in the journal of a run, or it has ended."""
    wait_until(lambda: process.poll() is not None or (journal.exists() and journal.read_bytes().count(b"\n") > 3))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with so many cells that there are many moments."""
    return write_store(tmp_path_factory.mktemp("many") / "sample.zarr", make_sample((500, 560)))


@pytest.fixture(scope="module")
def many_undisturbed(tmp_path_factory: pytest.TempPathFactory, many: Path, file_format: str) -> Path:
    """What a run that nobody ends makes of it."""
    folder = tmp_path_factory.mktemp("whole")
    assert _start(folder, many, file_format=file_format).wait(120) == 0
    return folder / "out/data" / NAMES[file_format]


@pytest.mark.leaves_files
def test_runs_killed_at_random_moments_are_gone_on_with(
    tmp_path: Path, many: Path, many_undisturbed: Path, file_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole tree of processes is killed: those are the moments at which nothing can be tidied up any more."""
    draw = random.Random(N_KILLS)
    n_cells, rows = n_cells_of(many_undisturbed), []
    for number in range(N_KILLS):
        folder = tmp_path / str(number)
        folder.mkdir()
        killed = 0
        # killed when it had given the file its name already, it is done, too
        while not (folder / "out/data" / many_undisturbed.name).exists():
            process = _start(folder, many, file_format=file_format)
            if not killed:  # the first time in the middle of the work, for certain
                _wait_for_entries(folder / "out/.unfinished_data/1/journal", process)
            moment = draw.uniform(0, 3) if killed else 0
            try:
                # at last, a run is left alone
                assert process.wait(moment if killed < MOST_KILLS_A_RUN else 120) == 0
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                killed += 1
        found = [int(n) for n in re.findall(r"Resuming: (\d+) of", (folder / "out/processing.log").read_text())]
        assert_same(folder / "out/data" / many_undisturbed.name, many_undisturbed)
        assert found == sorted(found)  # what was done stayed done
        rows.append((number + 1, killed, found, n_cells))
    with capsys.disabled():
        if N_KILLS > 1:
            print("\nrun  killed  cells found done by each run that went on          cells  lost or wrong")
            for run, times, found, cells in rows:
                print(f"{run:>3}  {times:>6}  {', '.join(map(str, found)) or '-':<48}  {cells:>5}              0")
    assert sum(killed for _, killed, _, _ in rows) >= N_KILLS


@pytest.fixture
def project(tmp_path: Path, store: Path, file_format: str) -> Path:
    """A project that is extracted one cell after the other."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copytree(store, folder / "scportrait.sdata")
    keys = {**CONFIG, "cache": str(tmp_path / "cache"), "threads": 2, "max_batch_size": 1, "flush_every": 1}
    keys["file_format"] = file_format
    (folder / "config.yml").write_text(json.dumps({"HDF5CellExtraction": keys}))
    return folder


_COMMAND = f"""
from cellstamp.cli import main
from cellstamp.zarr_store import layout
layout.MOST_ROWS = {CELLS_PER_SHARD}
main()
"""
EXTRACT = [sys.executable, "-c", _COMMAND, "extract"]


def _start_command(project: Path, disposition: Callable[[], None]) -> subprocess.Popen[str]:
    """Start extracting a project on the command line, and wait until there is something done."""
    process = subprocess.Popen(
        [*EXTRACT, str(project)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=disposition
    )
    _wait_for_entries(project / "extraction/.unfinished_data/1/journal", process)
    return process


def _server_of(process: subprocess.Popen[bytes]) -> psutil.Process | None:
    """The process that a run forks its workers from; None if there is none yet, or the run has ended."""
    servers = wait_until(lambda: [None] if process.poll() is not None else _servers_below(process.pid))
    return servers[0]


def _servers_below(pid: int) -> list[psutil.Process | None]:
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(pid).children()
        return [child for child in children if "cellstamp.engines.fork_server" in " ".join(child.cmdline())]
    return []


@pytest.mark.leaves_files
def test_finished_cells_are_mentioned_if_there_are_some(tmp_path: Path, make_step: MakeStep, undisturbed: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellstamp.pipeline.job.StampTask", Refused)
        with pytest.raises(InputError, match="on purpose") as none:
            make_step(cells=[40])()
        log = log_of(tmp_path)
        with pytest.raises(InputError, match="on purpose") as some:
            make_step()()
    assert notes_of(none.value) == []
    assert "inished cells" not in log
    n_done = count_cells(attempts_in(tmp_path / "out/.unfinished_data")[0] / JOURNAL)
    note = f"Finished cells are kept ({n_done} of {n_cells_of(undisturbed)}): run again to resume"
    assert notes_of(some.value) == [note]
    assert f"failed: InputError: broken on purpose. {note}" in log_of(tmp_path)


@pytest.mark.leaves_files
@pytest.mark.parametrize(("task", "told"), [(Interrupted, "Interrupted"), (Refused, "Error: broken on purpose")])
def test_the_command_line_mentions_finished_cells_if_there_are_some(
    project: Path, monkeypatch: pytest.MonkeyPatch, task: type, told: str
) -> None:
    monkeypatch.setattr("cellstamp.pipeline.job.StampTask", task)
    settings = ["--set", "threads=1", "--set", "engine=serial"]
    none = run_command("extract", project, *settings, "--set", "cells=[40]")
    assert none.stderr.splitlines()[-1] == told + (". Run the command again." if task is Interrupted else "")
    some = run_command("extract", project, *settings).stderr.splitlines()[-1]
    assert re.fullmatch(rf"{told}\. Finished cells are kept \(\d+ of \d+\): run again to resume\.?", some)


# the workers of a store die in the middle of a shard, as killed workers do: `make faults` is often enough
@pytest.mark.parametrize("file_format", ["h5sc", "zarr"] if N_KILLS > 1 else ["h5sc"], indirect=True)
def test_runs_whose_server_is_killed_at_random_moments_make_the_same_file(
    tmp_path: Path, many: Path, many_undisturbed: Path, file_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server that workers are forked from: while it imports, while it forks, while they work."""
    draw = random.Random(N_KILLS)
    survived = killed = 0
    for number in range(N_KILLS):
        folder = tmp_path / str(number)
        folder.mkdir()
        process = _start(folder, many, file_format=file_format)
        for _ in range(1 + number % 2):
            server = _server_of(process)
            with suppress(subprocess.TimeoutExpired):
                process.wait(draw.uniform(0, 1.5))
            # at the end of a run, it may be gone before the run is
            with suppress(psutil.NoSuchProcess):
                if server is not None:
                    server.kill()
                    killed += 1
        assert process.wait(120) == 0
        assert_same(folder / "out/data" / many_undisturbed.name, many_undisturbed)
        survived += 1
    with capsys.disabled():
        if N_KILLS > 1:
            print(f"\nserver killed {killed} times in {N_KILLS} runs: {survived} runs ended with the same file")
    assert survived == N_KILLS


@pytest.mark.leaves_files
@pytest.mark.parametrize(
    ("file_format", "number", "code"),
    [
        ("h5sc", signal.SIGINT, 130),
        ("h5sc", signal.SIGTERM, 143),
        ("h5sc", signal.SIGHUP, 129),
        ("zarr", signal.SIGTERM, 143),
    ],
    indirect=["file_format"],
)
def test_the_command_line_ends_tidily_and_goes_on(
    tmp_path: Path, project: Path, undisturbed: Path, number: signal.Signals, code: int
) -> None:
    process = _start_command(project, as_started_from_a_terminal)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    assert process.wait(60) == code
    # all of them are gone by now, not some time later
    assert [child for child in family if child.is_running()] == []
    _, err = process.communicate()
    n_done = count_cells(project / "extraction/.unfinished_data/1/journal")
    assert f"Finished cells are kept ({n_done} of {n_cells_of(undisturbed)}): run again to resume.\n" in err
    assert "Traceback" not in err
    assert list((tmp_path / "cache").iterdir()) == []
    assert not (project / "extraction/data").exists()
    done = run_command("extract", project)
    assert done.exit_code == 0, done.output
    assert re.search(r"Resuming: \d+ of \d+ cells done", done.stdout)
    assert_same(project / "extraction/data" / undisturbed.name, undisturbed)


@only_h5sc
def test_the_command_line_ignores_what_it_was_started_to_ignore(project: Path, undisturbed: Path) -> None:
    process = _start_command(project, as_started_with_nohup)
    everybody = [process, *psutil.Process(process.pid).children(recursive=True)]
    for number in (signal.SIGHUP, signal.SIGINT):
        for each in everybody:
            each.send_signal(number)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, (out, err)
    assert_same(project / "extraction/data" / undisturbed.name, undisturbed)
