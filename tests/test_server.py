"""The server that workers are forked from: when it dies, whose it is, what it takes, and where it may be started."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from cellstamp.engines.forking import running_server
from cellstamp.engines.open_files import OpenFiles
from cellstamp.engines.processes import ProcessEngine
from cellstamp.engines.start_methods import find_method
from cellstamp.errors import WorkerError
from engine_tasks import Arrays, Batch, Wait, number_of
from server_tasks import (
    PRELOAD_THAT_WAITS,
    KillsItself,
    KillsServerAndItself,
    KillsServerOnArrival,
    has_open,
    squares,
    work_until_killed,
)
from stores import make_sample, write_store
from waiting import wait_until

pytestmark = pytest.mark.once
each_start_method = pytest.mark.usefixtures("start_method")


def batches(n: int) -> list[Batch]:
    return [Batch(number) for number in range(n)]


def server(preload: tuple[str, ...] = ()) -> psutil.Process:
    return psutil.Process(running_server(preload)._process.pid)


def run_python(code: str, *arguments: object, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=check, timeout=120, **options)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules can be imported."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


# --- it dies ---------------------------------------------------------------------------------------------------------


def test_killed_while_it_imports(modules: Path) -> None:
    for name in ("importing", "never"):
        os.mkfifo(modules / name)
    (modules / "waits_once.py").write_text(PRELOAD_THAT_WAITS.format(folder=str(modules)))
    log: list[str] = []
    engine = ProcessEngine(2, ["waits_once"], log=log.append, start_method="fork")
    (modules / "importing").open("rb").close()
    values: list[int] = []
    run = threading.Thread(target=lambda: values.extend(o.value for o in engine.run(number_of, batches(6), lambda: 4)))
    run.start()
    wait_until(lambda: _function_of(run) == "_exchange")  # it waits for its first worker
    os.kill(int((modules / "pid").read_text()), signal.SIGKILL)
    run.join()
    assert sorted(values) == list(range(6))
    assert log == ["the process that forks workers died (killed by SIGKILL); restarting it"]


def _function_of(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    return frame.f_code.co_name if frame else ""


def test_killed_before_the_first_worker() -> None:
    engine = ProcessEngine(2, start_method="fork")
    server().kill()
    assert sorted(outcome.value for outcome in engine.run(number_of, batches(6), lambda: 4)) == list(range(6))


def test_killed_while_a_worker_is_started(tmp_path: Path) -> None:
    values = [
        o.value
        for o in ProcessEngine(4, start_method="fork").run(
            KillsServerOnArrival(tmp_path / "mark"), batches(9), lambda: 8
        )
    ]
    assert (tmp_path / "mark").exists()
    assert sorted(values) == list(range(9))


def test_a_worker_that_dies_with_it_is_not_put_down_to_its_batch(tmp_path: Path) -> None:
    log: list[str] = []
    engine = ProcessEngine(2, log=log.append, start_method="fork")
    values = [o.value for o in engine.run(KillsServerAndItself(3, tmp_path / "mark"), batches(9), lambda: 8)]
    assert sorted(values) == list(range(9))
    assert "a worker died (exit code unknown, because the process that forked it died too)" in log[0]
    assert "batch number 3; retrying the batch" in log[0]


def test_its_workers_go_on_when_it_dies(tmp_path: Path) -> None:
    task = Wait(0, tmp_path).prepare()
    outcomes = ProcessEngine(2, start_method="fork").run(task, batches(5), lambda: 4)
    first = next(outcomes)
    task.worker()
    server().kill()
    task.release()
    rest = list(outcomes)
    assert sorted(o.value for o in [first, *rest]) == list(range(5))


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", r"killed by SIGKILL\).*lower threads"),
        ("raise RuntimeError('broken')", r"exit code 1\).*standard error"),
    ],
)
def test_one_that_always_dies_is_one_clear_error(modules: Path, code: str, told: str) -> None:
    name = "killed_always" if "SIGKILL" in code else "broken_always"
    (modules / f"{name}.py").write_text(code)
    with pytest.raises(WorkerError, match=rf"that forks workers died 3 times in a row .*{told}"):
        list(ProcessEngine(2, [name], start_method="fork").run(number_of, batches(4), lambda: 4))


# --- it is nobody else's ---------------------------------------------------------------------------------------------

_TWO_THREADS = """
import pickle, sys, threading
from pathlib import Path
from server_tasks import count
class Own: pass
me, names = sys.modules["__main__"], set()
def look():
    while any(thread.is_alive() for thread in threads):
        names.add(pickle.loads(pickle.dumps(Own())).__class__ is Own)
threads = [threading.Thread(target=count, args=(20, 2)) for _ in range(2)]
for _ in range(4):
    threads = [threading.Thread(target=count, args=(20, 2)) for _ in range(2)]
    [thread.start() for thread in threads]
    look()
    [thread.join() for thread in threads]
print(sys.modules["__main__"] is me, names)
"""


@each_start_method
def test_runs_in_two_threads_leave_the_main_module_alone() -> None:
    assert run_python(_TWO_THREADS).stdout == "True {True}\n"


_OWN_FORKSERVER = """
import gc, multiprocessing, sys
from multiprocessing import resource_tracker
from server_tasks import look_around
from cellstamp import HDF5CellExtraction
if __name__ == "__main__":
    config = dict(threads=2, image_size=16, cache=sys.argv[2], max_batch_size=5)
    HDF5CellExtraction(config, sys.argv[2], filehandler=sys.argv[1])()
    print(resource_tracker._resource_tracker._pid)
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        print(pool.apply(look_around))
"""


@each_start_method
def test_the_users_own_forkserver_has_none_of_our_settings(tmp_path: Path) -> None:
    store = write_store(tmp_path / "sample.zarr", make_sample((90, 110)))
    script = tmp_path / "script.py"
    script.write_text(_OWN_FORKSERVER)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script), str(store), str(tmp_path / "out")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=120)
    # Python 3.12 freezes some objects itself
    count = [sys.executable, "-c", "import gc; print(gc.get_freeze_count())"]
    n_frozen = subprocess.run(count, capture_output=True, text=True, check=True).stdout.strip()
    assert done.stdout.splitlines()[-2:] == ["None", f"(None, {n_frozen})"], done.stdout


# --- open files ------------------------------------------------------------------------------------------------------


def test_the_open_files_of_workers(start_method: str) -> None:
    running_server(())
    n_before = psutil.Process().num_fds()
    engine = ProcessEngine(6)
    n_open = set()
    for outcome in engine.run(Arrays((100_000, 5, 70_000)), batches(40), lambda: 24):
        n_open.add(psutil.Process().num_fds())
        del outcome
    assert max(n_open) - n_before <= find_method(start_method).n_files * 6 + 2  # with the result that is looked at
    assert psutil.Process().num_fds() <= n_before


@contextmanager
def limits(soft: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def soft_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@each_start_method
def test_the_soft_limit_is_raised_for_a_run_and_restored() -> None:
    soft = psutil.Process().num_fds() + 5
    with limits(soft):
        outcomes = ProcessEngine(8).run(Arrays((100_000,)), batches(40), lambda: 32)
        assert len([soft_limit() > soft for _ in outcomes]) == 40
        assert soft_limit() == soft


def test_the_soft_limit_is_restored_by_the_last_of_several_runs() -> None:
    soft = psutil.Process().num_fds() + 50
    files = OpenFiles()
    with limits(soft):
        first, second = files.room_for(1, 2), files.room_for(1, 2)
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert soft_limit() > soft
        second.__exit__(None, None, None)
        assert soft_limit() == soft


_FEW_FILES = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from server_tasks import count
print(count(4 * int(sys.argv[1]), int(sys.argv[1])))
"""


def test_too_many_workers_for_the_hard_limit_are_refused_with_a_number_that_works(start_method: str) -> None:
    done = run_python(_FEW_FILES, 40, check=False)
    told = done.stderr.splitlines()[-1]
    needed = 40 * find_method(start_method).n_files
    assert (
        f"ConfigError: threads = 40: workers need {needed} open files, but this process may have only 64 open" in told
    )
    fitting = told.split("Set threads to ")[1].split(",")[0]
    assert run_python(_FEW_FILES, fitting).stdout == f"{4 * int(fitting)}\n"


# --- where it is started ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@each_start_method
def test_from_a_worker_of_a_pool(tmp_path: Path, method: str) -> None:
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(squares, (str(tmp_path),)) == [number**2 for number in range(8)]


@each_start_method
def test_workers_of_a_daemonic_process_end_with_it(tmp_path: Path) -> None:
    task = Wait(0, tmp_path).prepare()
    process = multiprocessing.get_context("spawn").Process(target=work_until_killed, args=(str(tmp_path),), daemon=True)
    process.start()
    family = [task.worker(), *psutil.Process(process.pid).children(recursive=True)]
    process.kill()
    process.join()
    assert [child for child in psutil.wait_procs(family, timeout=30)[1] if child.status() != "zombie"] == []


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_from_a_worker_that_a_nanny_started(dask_client: Any, tmp_path: Path, method: str) -> None:
    assert dask_client.submit(squares, str(tmp_path), method).result() == [number**2 for number in range(8)]


_CLOSED = "import os; [os.close(n) for n in (0, 1, 2)]"
_ODD = {
    "SIGCHLD ignored": "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "standard input closed": "import os; os.close(0)",
    "all standard streams closed": _CLOSED,
    "a folder for temporary files that cannot be used": "import os; os.environ['TMPDIR'] = '/nowhere/' + 200 * 'x'",
    "a current directory that was removed": "import os, tempfile; d = tempfile.mkdtemp(); os.chdir(d); os.rmdir(d)",
    "SIGINT, SIGTERM and SIGHUP ignored": (
        "import signal; [signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]"
    ),
}


@each_start_method
@pytest.mark.parametrize("code", _ODD.values(), ids=_ODD)
def test_from_an_odd_process(tmp_path: Path, code: str) -> None:
    result = tmp_path / "result"
    work = (
        f"from pathlib import Path\nfrom server_tasks import count\nPath({str(result)!r}).write_text(str(count(9, 2)))"
    )
    assert run_python(f"{code}\n{work}").stderr == ""
    assert result.read_text() == "9"


@each_start_method
def test_from_another_thread(tmp_path: Path) -> None:
    values: list[int] = []
    thread = threading.Thread(target=lambda: values.extend(squares(str(tmp_path))))
    thread.start()
    thread.join()
    assert values == [number**2 for number in range(8)]


@each_start_method
def test_no_python_to_start_is_told() -> None:
    code = "import multiprocessing; multiprocessing.set_executable('/nowhere/python')\nfrom server_tasks import count"
    done = run_python(f"{code}\ncount(4, 2)", check=False)
    told = "WorkerError: cannot start a worker: '/nowhere/python' is not an executable Python interpreter"
    assert told in done.stderr.splitlines()[-1]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork")
def test_a_fork_of_the_caller_has_no_connection_to_its_workers(start_method: str) -> None:
    child = find_method(start_method).start(())
    ours = child.connection.fileno()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        # it was inherited, and dropped: the worker would not see the end of this process otherwise
        assert pool.apply(has_open, (ours,)) is False
    child.kill()
    child.wait(0)
    assert child.exit_code == -signal.SIGKILL


@contextmanager
def fork_that_lives() -> Iterator[None]:
    """A fork of this process, as a user's program may make; it lives until the block ends."""
    wakes, wake = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(wake)
        os.read(wakes, 1)
        os._exit(0)
    os.close(wakes)
    try:
        yield
    finally:
        os.close(wake)
        os.waitpid(pid, 0)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork")
def test_a_fork_made_while_a_worker_starts_does_not_hide_that_it_died(modules: Path) -> None:
    for name in ("importing", "never"):
        os.mkfifo(modules / name)
    (modules / "waits_for_fork.py").write_text(PRELOAD_THAT_WAITS.format(folder=str(modules)))
    engine = ProcessEngine(2, ["waits_for_fork"], start_method="fork")
    (modules / "importing").open("rb").close()
    values: list[int] = []
    task = KillsItself(3, modules / "mark")
    run = threading.Thread(
        target=lambda: values.extend(o.value for o in engine.run(task, batches(9), lambda: 8)), daemon=True
    )
    run.start()
    wait_until(lambda: _function_of(run) == "_exchange")  # it waits for its first worker
    with fork_that_lives():
        (modules / "never").open("wb").close()
        run.join(60)
        assert sorted(values) == list(range(9))
    assert (modules / "mark").exists()


_FORK_WHILE_THE_SERVER_STARTS = """
import os, sys
from cellstamp.engines.forking import running_server
def sockets():
    found = []
    for n in os.listdir("/proc/self/fd"):
        try: found += [n] if os.readlink(f"/proc/self/fd/{n}").startswith("socket:") else []
        except OSError: pass
    return found
before = sockets()
def fork(event, _):
    if event == "subprocess.Popen":
        print(len(sockets()) - len(before), flush=True)
        if os.fork() == 0:
            print(len(sockets()) - len(before), flush=True)
            os._exit(0)
        os.wait()
sys.addaudithook(fork)
running_server(())
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_fork_made_while_the_server_starts_has_no_connection_to_it() -> None:
    assert run_python(_FORK_WHILE_THE_SERVER_STARTS).stdout == "2\n0\n"


def test_the_server_kills_nothing_but_its_workers() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        running_server(()).kill(other.pid)
        assert other.stdin is not None
        other.stdin.write(b"\n")
    assert other.returncode == 0


@each_start_method
def test_no_more_processes_allowed_is_told(tmp_path: Path) -> None:
    """The limit counts all processes of a user, so this one is somebody whom the system does not know."""
    if os.geteuid():
        pytest.skip("only root can be somebody else")
    done = run_python(_NO_MORE_PROCESSES, check=False, cwd="/")
    assert "WorkerError: cannot start a worker: Resource temporarily unavailable. Set threads lower" in done.stderr


_NO_MORE_PROCESSES = """
import os, resource
from cellstamp.engines.forking import running_server
from server_tasks import count
os.setuid(54321)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
count(4, 2)
"""
