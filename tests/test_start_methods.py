"""How workers start: what both ways promise, and what can go wrong where each worker is a new interpreter."""

from __future__ import annotations

import dataclasses
import multiprocessing.spawn
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

import psutil
import pytest

from cellstamp import HDF5CellExtraction
from cellstamp.engines import connected
from cellstamp.engines.connected import ConnectedPython
from cellstamp.engines.open_files import OPEN_FILES
from cellstamp.engines.processes import ProcessEngine
from cellstamp.engines.start_methods import METHODS, available_methods, find_method
from cellstamp.engines.threads import usable_cores
from cellstamp.engines.worker_exits import how_it_ended, was_killed
from cellstamp.errors import ConfigError, WorkerError
from comparing import assert_same
from engine_tasks import Arrays, Batch, DieOnce, Large, Wait, content_of, fail_with_a_file, number_of
from listening import as_started_from_a_terminal
from stores import make_sample, write_store

pytestmark = pytest.mark.once
each_start_method = pytest.mark.usefixtures("start_method")


def batches(n: int) -> list[Batch]:
    return [Batch(number) for number in range(n)]


# --- the choice ------------------------------------------------------------------------------------------------------


def test_linux_forks_and_systems_without_memfd_spawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CELLSTAMP_START_METHOD", raising=False)
    assert find_method(None) is METHODS["fork"]
    monkeypatch.delattr(os, "memfd_create")  # as on macOS
    assert find_method(None) is METHODS["spawn"]
    with pytest.raises(ConfigError, match=r"CELLSTAMP_START_METHOD = 'fork': must be spawn on this system\. Unset it"):
        find_method("fork")


def test_an_unknown_start_method_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLSTAMP_START_METHOD", "forkserver")
    with pytest.raises(ConfigError, match=r"CELLSTAMP_START_METHOD = 'forkserver': must be fork or spawn on this"):
        ProcessEngine(2)


def test_there_are_no_more_workers_than_the_system_can_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "spawn", dataclasses.replace(METHODS["spawn"], most_workers=3))
    log: list[str] = []
    assert ProcessEngine(8, start_method="spawn", log=log.append).n_workers == 3
    assert log == ["this system can wait for at most 3 workers: using 3, not 8"]
    assert ProcessEngine(2, start_method="spawn").n_workers == 2


@pytest.mark.parametrize(
    ("code", "killed", "text"),
    [
        (-9, True, "killed by SIGKILL"),
        (-15, False, "killed by SIGTERM"),
        (7, False, "exit code 7"),
        (0xC0000005, False, "exit code 0xC0000005"),
    ],
)
def test_how_a_process_ended(code: int, text: str, *, killed: bool) -> None:
    assert was_killed(code) is killed
    assert how_it_ended(code) == text


# --- orders and results ----------------------------------------------------------------------------------------------


class Counted(Sequence[Any]):
    """Batches that count how many were taken."""

    def __init__(self, batches: Sequence[Any]) -> None:
        self._batches, self.taken = batches, threading.Semaphore(0)

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: Any) -> Any:
        self.taken.release()
        return self._batches[index]


@each_start_method
def test_the_caller_never_waits_to_send_batches(tmp_path: Path) -> None:
    """A worker that is at a batch is sent more of them, though they fill any pipe."""
    task = Wait(0, tmp_path).prepare()
    orders = Counted([Large(number) for number in range(8)])
    values: list[int] = []
    engine = ProcessEngine(1)
    run = threading.Thread(
        target=lambda: values.extend(o.value for o in engine.run(task, orders, lambda: 4)), daemon=True
    )
    run.start()
    task.worker()
    # the third is taken when the second was sent
    assert all(orders.taken.acquire(timeout=60) for _ in range(3))
    task.release()
    run.join()
    assert sorted(values) == list(range(8))


@each_start_method
def test_large_batches_and_large_results_pass_each_other() -> None:
    """Neither the caller nor a worker waits for the other to read."""
    found: list[tuple[int, bytes]] = []
    engine = ProcessEngine(2)
    orders = [Large(number) for number in range(6)]
    run = threading.Thread(
        target=lambda: found.extend(o.value for o in engine.run(content_of, orders, lambda: 8)), daemon=True
    )
    run.start()
    run.join(120)
    assert sorted(found) == [(order.number, order.content) for order in orders]


@each_start_method
def test_an_error_that_cannot_be_pickled_is_told_in_words() -> None:
    with pytest.raises(WorkerError, match=r"batch number 0\): RuntimeError: LocalError: nobody can pickle this"):
        list(ProcessEngine(1).run(fail_with_a_file, batches(1), lambda: 1))


def test_both_start_methods_write_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = write_store(tmp_path / "sample.zarr", make_sample((90, 110)))
    files = []
    for name in available_methods():
        monkeypatch.setenv("CELLSTAMP_START_METHOD", name)
        config = {"threads": 2, "image_size": 24, "cache": str(tmp_path / "cache"), "max_batch_size": 5}
        step = HDF5CellExtraction(config, str(tmp_path / name), filehandler=str(store))
        step()
        assert " 2 workers " in (tmp_path / name / "processing.log").read_text()
        files.append(str(step.output_path))
    assert_same(*files)


# --- what other systems lack -----------------------------------------------------------------------------------------


def test_without_a_limit_on_open_files_any_number_of_workers_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellstamp.engines.open_files._resource", None)  # as on Windows
    with OPEN_FILES.room_for(10**6, 3):
        pass


def test_usable_cores_on_windows_and_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores() == allowed
    monkeypatch.delattr(psutil.Process, "cpu_affinity")  # macOS
    assert usable_cores() == os.cpu_count()


# --- files for results -----------------------------------------------------------------------------------------------


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@each_start_method
def test_no_file_is_left_when_workers_are_killed(tmp_path: Path, temporary: Path) -> None:
    task = DieOnce((0, 3), tmp_path, then=Arrays((100_000,)))
    for outcome in ProcessEngine(2).run(task, batches(8), lambda: 4):
        assert outcome.value[0].size == 100_000
    assert list(temporary.iterdir()) == []


def test_a_worker_that_runs_has_removed_the_name_of_its_file(tmp_path: Path, temporary: Path) -> None:
    task = Wait(1, tmp_path).prepare()
    for number, _ in enumerate(ProcessEngine(1, start_method="spawn").run(task, batches(2), lambda: 2)):
        if number == 0:
            task.worker()
            assert list(temporary.iterdir()) == []
            task.release()


# --- the caller ends -------------------------------------------------------------------------------------------------

_NEVER_DONE = """
import os
from pathlib import Path
folder = Path({folder!r})
(folder / "pid.new").write_text(str(os.getpid()))
(folder / "pid.new").rename(folder / "pid")
(folder / "never").open("rb").close()
"""


@pytest.mark.parametrize(
    ("number", "function"),
    [
        (signal.SIGKILL, "work_until_killed"),
        (signal.SIGKILL, "compute_until_killed"),
        (signal.SIGTERM, "compute_until_killed"),
        (signal.SIGKILL, "import_until_killed"),
    ],
)
def test_workers_end_with_a_killed_caller(
    tmp_path: Path, temporary: Path, start_method: str, number: int, function: str
) -> None:
    if (start_method, function) == ("fork", "import_until_killed"):
        pytest.skip("the server imports modules, and ends only after that")
    task = Wait(0, tmp_path).prepare()
    os.mkfifo(tmp_path / "never")
    (tmp_path / "never_done.py").write_text(_NEVER_DONE.format(folder=str(tmp_path)))
    caller = start(f"from server_tasks import *; {function}({str(tmp_path)!r})")
    task.worker()
    family = psutil.Process(caller.pid).children(recursive=True)
    caller.send_signal(number)
    assert caller.wait(60) == -number
    assert psutil.wait_procs(family, timeout=60)[1] == []
    assert list(temporary.iterdir()) == []


def start(code: str, **options: Any) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, env=env, preexec_fn=as_started_from_a_terminal, text=True, **options)


@each_start_method
def test_ctrl_c_in_a_terminal_reaches_only_the_caller(tmp_path: Path) -> None:
    task = Wait(0, tmp_path).prepare()
    code = f"from server_tasks import *; work_until_killed({str(tmp_path)!r})"
    caller = start(code, stderr=subprocess.PIPE, start_new_session=True)
    task.worker()
    family = psutil.Process(caller.pid).children(recursive=True)
    os.killpg(caller.pid, signal.SIGINT)
    told = caller.communicate(timeout=60)[1]
    assert told.count("Traceback") == told.count("KeyboardInterrupt") == 1, told
    assert psutil.wait_procs(family, timeout=60)[1] == []


# --- workers that don't start ----------------------------------------------------------------------------------------


@pytest.fixture
def interpreter(tmp_path: Path) -> Iterator[Path]:
    """The program that is started as Python."""
    before = multiprocessing.spawn.get_executable()
    path = tmp_path / "python"
    multiprocessing.set_executable(str(path))
    yield path
    multiprocessing.set_executable(before)


def write_program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_an_interpreter_that_ends_at_once_is_an_error(interpreter: Path) -> None:
    write_program(interpreter, "exit 5")
    with pytest.raises(WorkerError, match=r"3 workers died while working on batch number \d.*exit code 5.*standard"):
        list(ProcessEngine(2, start_method="spawn").run(number_of, batches(4), lambda: 4))


def test_an_interpreter_that_hangs_is_an_error(interpreter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_program(interpreter, "exec tail -f /dev/null")
    monkeypatch.setattr(connected, "_PATIENCE", 0.5)
    with pytest.raises(WorkerError, match=r"cannot start a worker: Python did not start within 0 s\. Most likely"):
        list(ProcessEngine(2, start_method="spawn").run(number_of, batches(4), lambda: 4))


def test_a_module_that_cannot_be_imported_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WorkerError, match=r"3 workers died while working on batch number 0.*exit code 1.*standard err"):
        list(ProcessEngine(1, ["no_such_module"], start_method="spawn").run(number_of, batches(2), lambda: 1))
    assert "No module named 'no_such_module'" in capfd.readouterr().err


def test_a_stranger_cannot_take_the_place_of_a_worker(interpreter: Path) -> None:
    write_program(interpreter, "exec tail -f /dev/null")
    python = ConnectedPython("cellstamp.engines.spawned_worker")
    accepting = threading.Thread(target=lambda: python.connection)
    accepting.start()
    with pytest.raises((AuthenticationError, EOFError), match=r"digest sent was rejected|^$"):
        Client(python._listener.address, authkey=b"guessed")
    with Client(python._listener.address, authkey=python._key) as worker:
        accepting.join()
        python.connection.send("for the worker")
        assert worker.recv() == "for the worker"
    python.wait(0)
    assert python.process.returncode == -signal.SIGKILL


def test_a_replaced_worker_that_cannot_start_leaves_the_others(
    tmp_path: Path, interpreter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter.symlink_to(sys.executable)
    warnings: list[str] = []
    engine = ProcessEngine(2, start_method="spawn", warn=warnings.append)
    seen = []
    for outcome in engine.run(DieOnce(5, tmp_path), batches(12), lambda: 4):
        interpreter.unlink(missing_ok=True)
        seen.append(outcome.value)
    assert sorted(seen) == list(range(12))
    assert "is not an executable Python interpreter" in warnings[0]
    assert warnings[0].endswith("Continuing with 1 worker")
