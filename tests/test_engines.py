"""Where batches run: the same promises by every engine, and what becomes of processes that die."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, overload

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellstamp.engines.base import Engine, Outcome
from cellstamp.engines.dask import DaskEngine
from cellstamp.engines.interpreter import start_python
from cellstamp.engines.parcels import Parcel, pack, unpack
from cellstamp.engines.processes import ProcessEngine
from cellstamp.engines.result_memory import PackedSlots, ResultMemory, Slots, SparseSlots
from cellstamp.engines.serial import SerialEngine
from cellstamp.engines.spans import Spans
from cellstamp.engines.spawning import SpawnedChild
from cellstamp.errors import InputError, WorkerError
from engine_tasks import (
    Arrays,
    Batch,
    Die,
    DieAtNumber,
    DieOnArrival,
    DieOnce,
    Fail,
    Span,
    Square,
    Wait,
    descendants,
    environment,
    imported_modules,
    n_threads_at_import,
    oom_score,
)

# libraries have a part in one of them
WITH_WORKERS = [*(pytest.param(method, marks=pytest.mark.once) for method in ("fork", "spawn")), "dask"]


@pytest.fixture(params=["serial", *WITH_WORKERS])
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == "dask":
        return DaskEngine(request.getfixturevalue("dask_client"))
    return SerialEngine() if request.param == "serial" else ProcessEngine(2, start_method=request.param)


def each_start_method(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.once(pytest.mark.usefixtures("start_method")(test))


def batches(n: int) -> list[Batch]:
    return [Batch(number) for number in range(n)]


class Watched(Sequence[Batch]):
    """Batches, and a record of how many were in flight each time one more was asked for."""

    def __init__(self, n: int, limit: Callable[[], int]) -> None:
        self._batches = batches(n)
        self._limit = limit
        self.submitted = self.taken = 0
        self.in_flight: list[int] = []
        self.allowed: list[int] = []

    def limit(self) -> int:
        """The limit an engine is given; what it was told last is kept."""
        self._told = self._limit()
        return self._told

    def __len__(self) -> int:
        return len(self._batches)

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Batch]: ...
    def __getitem__(self, index: Any) -> Any:
        batch = self._batches[index]
        self.submitted += 1
        self.in_flight.append(self.submitted - self.taken)
        self.allowed.append(getattr(self, "_told", 1))
        return batch

    def __iter__(self) -> Iterator[Batch]:
        return (self[index] for index in range(len(self)))

    def take_all(self, outcomes: Iterator[Outcome[Any]], folder: Path) -> None:
        """Consume outcomes; after each, look at what has been started for real."""
        for _ in outcomes:
            started = len(list(folder.iterdir()))
            assert started <= self.submitted
            self.taken += 1  # from now on: the next one is asked for


# --- what every engine does ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2, 23])
def test_every_batch_runs_exactly_once(engine: Engine, tmp_path: Path, n: int) -> None:
    outcomes = list(engine.run(Square(tmp_path), batches(n), lambda: 5))
    assert sorted(outcome.value for outcome in outcomes) == [number**2 for number in range(n)]
    runs = {int(file.name): file.read_text().split() for file in tmp_path.iterdir()}
    assert sorted(runs) == list(range(n))
    assert all(len(pids) == 1 for pids in runs.values())
    if not isinstance(engine, DaskEngine):
        by_value = {outcome.value: str(outcome.pid) for outcome in outcomes}
        assert all(pids == [by_value[number**2]] for number, pids in runs.items())


def test_an_outcome_says_which_process_made_it_and_its_memory(engine: Engine, tmp_path: Path) -> None:
    outcomes = list(engine.run(Square(tmp_path), batches(8), lambda: 4))
    pids = {outcome.pid for outcome in outcomes}
    if isinstance(engine, DaskEngine):
        # they may be anywhere: each has a number that is no process's of this machine
        assert pids == {-1, -2}
        assert {outcome.rss for outcome in outcomes} == {0}
        return
    if isinstance(engine, SerialEngine):
        assert pids == {os.getpid()}
    else:
        assert len(pids) == 2
        assert os.getpid() not in pids
    assert all(2**20 < outcome.rss < 2**40 for outcome in outcomes)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 100])
def test_never_more_in_flight_than_the_limit(engine: Engine, tmp_path: Path, limit: int) -> None:
    watched = Watched(30, lambda: limit)
    watched.take_all(engine.run(Square(tmp_path), watched, watched.limit), tmp_path)
    assert watched.submitted == watched.taken == 30
    assert max(watched.in_flight) <= limit
    # The process engine makes use of what it is given: at first, half of what is left and never less than two a worker.
    assert max(watched.in_flight) == (1 if isinstance(engine, SerialEngine) else min(limit, 8))


@pytest.mark.parametrize("engine", WITH_WORKERS, indirect=True)
def test_a_limit_that_changes_is_honoured_at_once(engine: Engine, tmp_path: Path) -> None:
    watched = Watched(40, lambda: 1 if watched.taken < 10 else 4 if watched.taken < 20 else 2)
    watched.take_all(engine.run(Square(tmp_path), watched, watched.limit), tmp_path)
    assert all(n <= allowed for n, allowed in zip(watched.in_flight, watched.allowed, strict=True))
    assert max(watched.in_flight[:10]) == 1
    assert max(watched.in_flight) == 4
    assert max(watched.in_flight[-15:]) == 2


def test_a_taken_batch_counts_until_the_next_is_asked_for(engine: Engine, tmp_path: Path) -> None:
    watched = Watched(3, lambda: 1)
    with closing(engine.run(Square(tmp_path), watched, watched.limit)) as outcomes:
        next(outcomes)
        assert watched.submitted == 1  # the first is being written: with a limit of 1 nothing else may begin
        watched.taken = 1
        next(outcomes)
        assert watched.submitted == 2


@pytest.mark.parametrize("engine", WITH_WORKERS, indirect=True)
def test_results_come_in_order_of_completion(engine: Engine, tmp_path: Path) -> None:
    task = Wait(0, tmp_path).prepare()
    order = []
    for outcome in engine.run(task, batches(9), lambda: 4):
        order.append(outcome.value)
        if len(order) == 4:
            task.release()  # four batches overtook the first, which waited for us
    assert 0 not in order[:4]
    assert sorted(order) == list(range(9))


def test_the_serial_engine_keeps_the_order(tmp_path: Path) -> None:
    outcomes = SerialEngine().run(Square(tmp_path), batches(5), lambda: 1)
    assert [outcome.value for outcome in outcomes] == [0, 1, 4, 9, 16]


def test_an_engine_can_be_used_again(engine: Engine, tmp_path: Path) -> None:
    for _ in range(2):
        assert {o.value for o in engine.run(Square(tmp_path), batches(4), lambda: 2)} == {0, 1, 4, 9}


def test_a_failing_batch_is_named_and_its_error_kept(engine: Engine) -> None:
    with pytest.raises(WorkerError, match=r"batch number 3.*KeyError.*something is wrong here") as caught:
        list(engine.run(Fail(3, KeyError), batches(6), lambda: 2))
    assert isinstance(caught.value.__cause__, KeyError)


def test_our_own_errors_pass_as_they_are(engine: Engine) -> None:
    with pytest.raises(InputError, match=r"^something is wrong here$"):
        list(engine.run(Fail(3, InputError), batches(6), lambda: 2))


@each_start_method
def test_closing_early_ends_the_workers(tmp_path: Path) -> None:
    engine = ProcessEngine(2)
    before = descendants()  # with the server that workers are forked from
    with closing(engine.run(Square(tmp_path), batches(50), lambda: 4)) as outcomes:
        next(outcomes)
        assert descendants() - before
    assert not descendants() - before
    assert len(list(tmp_path.iterdir())) < 50


@each_start_method
def test_no_process_is_left_after_a_run_or_a_failure() -> None:
    engine = ProcessEngine(2)
    before = descendants()
    list(engine.run(Fail(-1, KeyError), batches(5), lambda: 4))
    assert not descendants() - before
    with pytest.raises(WorkerError, match="batch number 1"):
        list(engine.run(Fail(1, KeyError), batches(5), lambda: 4))
    assert not descendants() - before


@pytest.mark.parametrize("sizes", [(0,), (100,), (70_000,), (200_000, 3, 65_536, 1_000_001)])
def test_arrays_of_any_size_arrive_whole(engine: Engine, sizes: tuple[int, ...]) -> None:
    seen = []
    for outcome in engine.run(Arrays(sizes), batches(40), lambda: 16):
        (number,) = {int(value) for array in outcome.value for value in np.unique(array)} or {-1}
        seen.append(number)
        assert [array.size for array in outcome.value] == list(sizes)
    assert sorted(seen) == (list(range(40)) if any(sizes) else [-1] * 40)


def carry(values: list[np.ndarray], memory: tuple[ResultMemory, Slots], slot: int) -> tuple[Parcel, list[np.ndarray]]:
    parcel = pack(values, memory[1], slot)
    return parcel, unpack(parcel, memory[0])


def test_a_result_too_large_for_its_slot_takes_the_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellstamp.engines.result_memory._DISTANCE", 2**16)
    memory = ResultMemory(os.memfd_create("test"))
    sent = [np.full(2**15, number, np.uint8) for number in range(3)]
    parcel, got = carry(sent, (memory, SparseSlots(memory)), 1)
    assert parcel.places == ()
    assert np.array_equal(got, sent)
    memory.close()


@pytest.mark.parametrize("kind", [SparseSlots, PackedSlots])
def test_a_slot_is_mapped_once_for_results_of_about_the_same_size(kind: Callable[[ResultMemory], Slots]) -> None:
    memory = ResultMemory(os.memfd_create("test")) if kind is SparseSlots else ResultMemory.with_name()
    slots = kind(memory)
    sent, received = [], []
    for size in (100_000, 110_000, 124_000):
        value = np.full(size, size % 251, np.uint8)
        sent.append(np.frombuffer(slots.memory(2, size)[1], np.uint8))
        received += carry([value], (memory, slots), 2)[1]
        assert np.array_equal(received[-1], value)
    assert np.shares_memory(sent[0], sent[2])
    assert np.shares_memory(received[0], received[2])
    memory.close()


@settings(deadline=None)  # a busy disk
@given(sizes=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 300_000)), max_size=30))
def test_slots_do_not_overlap_however_their_results_grow(sizes: list[tuple[int, int]]) -> None:
    memory = ResultMemory.with_name()
    slots = PackedSlots(memory)
    waiting: dict[int, tuple[Parcel, int]] = {}
    for number, (slot, size) in enumerate(sizes):
        waiting[slot] = pack([np.full(size, number, np.uint8)], slots, slot), number
        for parcel, mark in waiting.values():
            assert set(np.unique(unpack(parcel, memory)[0])) <= {mark}
    assert memory.file is not None
    largest = [max((size for slot, size in sizes if slot == number), default=0) for number in range(4)]
    assert os.fstat(memory.file).st_size <= 6 * sum(largest) + 4 * 2**18
    memory.close()


def test_places_of_grown_slots_are_used_again() -> None:
    memory = ResultMemory.with_name()
    slots = PackedSlots(memory)
    start, _ = slots.memory(0, 100_000)
    assert slots.memory(0, 1_000_000)[0] > start
    assert slots.memory(1, 100_000)[0] == start
    memory.close()


def test_a_file_with_a_name_stays_mapped_until_a_slot_moves() -> None:
    """On macOS, mapping a file brings it to the disk."""
    memory = ResultMemory.with_name()
    slots = PackedSlots(memory)
    first = carry([np.zeros(100_000, np.uint8)], (memory, slots), 0)[1][0]
    second = carry([np.ones(90_000, np.uint8)], (memory, slots), 0)[1][0]
    assert np.shares_memory(first, second)
    moved = carry([np.ones(900_000, np.uint8)], (memory, slots), 0)[1][0]
    assert not np.shares_memory(first, moved)
    memory.close()
    assert moved.all()


_FULL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
import numpy as np
from cellstamp.engines.parcels import pack, unpack
from cellstamp.engines.result_memory import PackedSlots, ResultMemory
memory = ResultMemory.with_name()
parcel = pack(np.full(2**22, 7, np.uint8), PackedSlots(memory), 0)
print(parcel.places, np.unique(unpack(parcel, memory)), memory.path.exists())
memory.close()
print(memory.path.exists())
"""


def test_results_take_the_pipe_when_no_room_is_left_for_their_file() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FULL],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "() [7] True\nFalse\n"


def test_without_a_folder_for_their_file_results_take_the_pipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    engine = ProcessEngine(2, start_method="spawn")
    for outcome in engine.run(Arrays((200_000,)), batches(12), lambda: 8):
        assert outcome.value[0].size == 200_000


# --- workers that die ------------------------------------------------------------------------------------------------

DEATHS = [(0, True), (4, False), (9, True)]
"""Batches that a worker dies of, first, between and last, and whether it is killed or leaves."""


class Told:
    """What an engine logged and warned of."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.warnings: list[str] = []

    def engine(self, n_workers: int = 2) -> ProcessEngine:
        return ProcessEngine(n_workers, log=self.log.append, warn=self.warnings.append)


@pytest.mark.parametrize(("at", "by_signal"), DEATHS)
@each_start_method
def test_a_worker_that_dies_is_replaced_and_its_batches_run_again(tmp_path: Path, at: int, *, by_signal: bool) -> None:
    told = Told()
    engine = told.engine()
    before = descendants()
    task = DieOnce(at, tmp_path, by_signal)
    outcomes = list(engine.run(task, batches(10), lambda: 4))
    assert sorted(outcome.value for outcome in outcomes) == list(range(10))
    assert not descendants() - before
    how = "killed by SIGKILL" if by_signal else "exit code 7"
    assert told.log == [f"a worker died ({how}) while working on batch number {at}; retrying the batch"]
    assert told.warnings == []


@pytest.mark.parametrize("n_workers", [1, 2, 3])
@each_start_method
def test_results_that_were_made_before_a_death_are_kept(tmp_path: Path, n_workers: int) -> None:
    """Every batch but those that died is run once, though results wait while their worker dies."""
    (tmp_path / "runs").mkdir()
    task = DieOnce(7, tmp_path, then=Square(tmp_path / "runs"))
    outcomes = list(Told().engine(n_workers).run(task, batches(16), lambda: 16))
    assert sorted(outcome.value for outcome in outcomes) == [number**2 for number in range(16)]
    assert all(len(file.read_text().split()) == 1 for file in (tmp_path / "runs").iterdir())


@each_start_method
def test_arrays_of_a_worker_that_died_arrive_whole(tmp_path: Path) -> None:
    task = DieOnce(5, tmp_path, then=Arrays((200_000, 3, 70_000)))
    seen = []
    for outcome in Told().engine().run(task, batches(12), lambda: 12):
        (number,) = {int(value) for array in outcome.value for value in np.unique(array)}
        seen.append(number)
    assert sorted(seen) == list(range(12))


@pytest.mark.parametrize(("at", "by_signal"), DEATHS)
@each_start_method
def test_a_batch_that_kills_every_worker_is_an_error_naming_it(at: int, *, by_signal: bool) -> None:
    engine = ProcessEngine(2)
    before = descendants()
    hint = "lower threads" if by_signal else "standard error"
    with pytest.raises(WorkerError, match=rf"3 workers died while working on batch number {at}\b.*{hint}"):
        list(engine.run(Die(at, by_signal), batches(10), lambda: 4))
    assert not descendants() - before


@pytest.mark.once
@pytest.mark.parametrize(
    ("culprit", "start_method"), [(0, "fork"), (17, "spawn"), (63, "fork")], indirect=["start_method"]
)
@pytest.mark.usefixtures("start_method")
def test_a_batch_that_kills_every_worker_is_divided_until_the_culprit_is_found(culprit: int) -> None:
    told = Told()
    task = DieAtNumber(culprit)
    spans = [Span(range(start, start + 16)) for start in range(0, 64, 16)]
    with pytest.raises(WorkerError, match=rf"workers died while working on numbers {culprit} to {culprit}\b"):
        list(told.engine().run(task, spans, lambda: 4))
    deaths = [line for line in told.log if "retrying its halves separately" in line]
    assert len(deaths) == 4  # 16, 8, 4, 2


@each_start_method
def test_when_workers_are_killed_again_and_again_fewer_go_on(tmp_path: Path) -> None:
    told = Told()
    task = DieOnce((1, 6, 11, 14), tmp_path)
    outcomes = list(told.engine(3).run(task, batches(15), lambda: 6))
    assert sorted(outcome.value for outcome in outcomes) == list(range(15))
    assert [re.findall(r"Continuing with \d instead of \d", warning) for warning in told.warnings] == [
        ["Continuing with 2 instead of 3"],
        ["Continuing with 1 instead of 2"],
    ]
    assert "memory ran out" in told.warnings[0]


@each_start_method
def test_workers_that_leave_by_themselves_are_all_replaced(tmp_path: Path) -> None:
    told = Told()
    task = DieOnce((1, 6, 11, 14), tmp_path, by_signal=False)
    assert len(list(told.engine(3).run(task, batches(15), lambda: 6))) == 15
    assert told.warnings == []


@each_start_method
def test_workers_that_die_before_their_first_batch() -> None:
    engine = ProcessEngine(2)
    before = descendants()
    with pytest.raises(WorkerError, match=r"died.*batch number [05]\b"):
        list(engine.run(DieOnArrival(), batches(10), lambda: 2))
    assert not descendants() - before


@each_start_method
def test_a_worker_killed_from_outside_is_noticed(tmp_path: Path) -> None:
    task = Wait(0, tmp_path).prepare()
    outcomes = Told().engine().run(task, batches(2), lambda: 2)
    assert next(outcomes).value == 1
    task.kill()
    releasing = threading.Thread(target=task.release)  # the one that takes its place waits, too
    releasing.start()
    assert next(outcomes).value == 0
    releasing.join()
    assert list(outcomes) == []


def test_the_server_that_workers_are_forked_from_may_die_too(tmp_path: Path) -> None:
    task = Wait(0, tmp_path).prepare()
    outcomes = ProcessEngine(2, start_method="fork").run(task, batches(4), lambda: 4)
    first = next(outcomes).value
    server = task.worker().parent()
    assert server is not None
    server.kill()
    (tmp_path / "pid").unlink()
    releasing = threading.Thread(target=task.release)
    releasing.start()
    assert sorted([first, *(outcome.value for outcome in outcomes)]) == [0, 1, 2, 3]
    releasing.join()


@each_start_method
def test_closing_does_not_wait_for_a_batch(tmp_path: Path) -> None:
    task = Wait(0, tmp_path).prepare()
    before = descendants()
    with closing(ProcessEngine(2).run(task, batches(2), lambda: 2)) as outcomes:
        assert next(outcomes).value == 1
        waiting = task.worker()
    assert not waiting.is_running() or waiting.status() == psutil.STATUS_ZOMBIE
    assert {process for process in descendants() - before if process.name() != "python"} == set()


# --- clean workers ---------------------------------------------------------------------------------------------------


@each_start_method
def test_workers_have_nothing_of_the_main_module() -> None:
    for outcome in ProcessEngine(1).run(imported_modules, batches(1), lambda: 1):
        assert outcome.value["__main__"] is None or "multiprocessing" in outcome.value["__main__"]
        assert "pytest" not in outcome.value
        assert "spatialdata" not in outcome.value


def test_numpy_starts_no_threads_in_the_process_that_forks_workers() -> None:
    outcomes = ProcessEngine(1, preload=["engine_tasks"], start_method="fork").run(
        n_threads_at_import, batches(1), lambda: 1
    )
    assert [outcome.value for outcome in outcomes] == [1]


@pytest.mark.parametrize("name", ["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"])
def test_the_number_of_threads_that_the_user_has_set_is_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "2")
    code = "import os, sys; sys.exit(os.environ.get('OPENBLAS_NUM_THREADS') == '1')"
    monkeypatch.setattr("cellstamp.engines.interpreter._CODE", code)
    assert start_python("sys", stdin=subprocess.DEVNULL).wait() == 0
    monkeypatch.delenv(name)
    assert start_python("sys", stdin=subprocess.DEVNULL).wait() == 1


@each_start_method
def test_workers_have_the_environment_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their server may have been started before a notebook sets credentials."""
    monkeypatch.setenv("CELLSTAMP_TEST", "before")
    assert [outcome.value for outcome in ProcessEngine(1).run(environment, batches(1), lambda: 1)] == [{**os.environ}]
    monkeypatch.setenv("CELLSTAMP_TEST", "after")
    monkeypatch.setenv("CELLSTAMP_ADDED", "1")
    assert [outcome.value for outcome in ProcessEngine(1).run(environment, batches(1), lambda: 1)] == [{**os.environ}]
    monkeypatch.delenv("CELLSTAMP_ADDED")
    assert [outcome.value for outcome in ProcessEngine(1).run(environment, batches(1), lambda: 1)] == [{**os.environ}]


@each_start_method
@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="only Linux chooses by a score")
def test_the_system_kills_workers_before_the_caller() -> None:
    here = oom_score(Batch(0))
    for outcome in ProcessEngine(2).run(oom_score, batches(4), lambda: 4):
        assert outcome.value == min(here + 300, 1000)


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="only Linux chooses by a score")
def test_a_worker_that_imports_its_modules_is_killed_before_the_caller() -> None:
    child = SpawnedChild(["module_that_is_missing"])
    try:
        score = Path(f"/proc/{child._python.process.pid}/oom_score_adj")
        assert int(score.read_text()) == min(oom_score(Batch(0)) + 300, 1000)
    finally:
        child.kill()
        child.wait(time.monotonic() + 60)


def test_modules_to_preload_are_imported_in_the_server_process() -> None:
    # In a new process: there is one server for all engines of a process, and this one has one already.
    code = (
        "from cellstamp.engines.processes import ProcessEngine\n"
        "from engine_tasks import Batch, imported_modules\n"
        "for outcome in ProcessEngine(1, preload=['sched']).run(imported_modules, [Batch(0)], lambda: 1):\n"
        "    print('sched' in outcome.value)\n"
    )
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


# --- which batch goes to which worker --------------------------------------------------------------------------------


@given(n_items=st.integers(0, 60), n_workers=st.integers(1, 7), data=st.data())
def test_spans_deal_out_everything_once(n_items: int, n_workers: int, data: st.DataObject) -> None:
    spans = Spans(list(range(n_items)), n_workers)
    dealt = []
    while spans:
        assert len(spans) == n_items - len(dealt)
        dealt.append(spans.take(data.draw(st.integers(0, n_workers - 1))))
    assert sorted(dealt) == list(range(n_items))
    with pytest.raises(IndexError, match="range"):
        spans.take(0)


@given(n_items=st.integers(1, 200), n_workers=st.integers(1, 7))
def test_workers_in_turn_walk_neighbours(n_items: int, n_workers: int) -> None:
    spans = Spans(list(range(n_items)), n_workers)
    walked: dict[int, list[int]] = {worker: [] for worker in range(n_workers)}
    for turn in range(n_items):
        walked[turn % n_workers].append(spans.take(turn % n_workers))
    # Spans are equally long up to one item, so nobody needs to help before the very last items.
    for items in walked.values():
        jumps = sum(after != before + 1 for before, after in itertools.pairwise(items))
        assert jumps <= 1


def test_a_worker_that_is_done_takes_the_far_half_of_the_longest_span() -> None:
    spans = Spans(list(range(30)), 3)
    assert [spans.take(0) for _ in range(10)] == list(range(10))
    assert [spans.take(1) for _ in range(4)] == [10, 11, 12, 13]
    # Left are 14..19 and 20..29: the longer one is halved, and its owner keeps the nearer half.
    assert [spans.take(0) for _ in range(5)] == [25, 26, 27, 28, 29]
    assert [spans.take(2) for _ in range(5)] == [20, 21, 22, 23, 24]
    assert [spans.take(2) for _ in range(3)] == [17, 18, 19]
    assert [spans.take(1) for _ in range(3)] == [14, 15, 16]
    assert not spans


@pytest.mark.parametrize("engine", WITH_WORKERS, indirect=True)
def test_every_worker_has_a_span_of_its_own_from_the_start(engine: Engine, tmp_path: Path) -> None:
    by_worker: dict[int, list[int]] = {}
    for outcome in engine.run(Square(tmp_path), batches(10), lambda: 2):
        by_worker.setdefault(outcome.pid, []).append(outcome.value)
    assert sorted(values[0] for values in by_worker.values()) == [0, 25]
