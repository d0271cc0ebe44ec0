"""How many batches may be in flight: what was measured, and what is allowed, make a number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellstamp.engines.inflight import InflightLimit

pytestmark = pytest.mark.once

MIB = 2**20
PARENT = 1


class Talk:
    """A limit, and what it warned of and logged."""

    def __init__(self, budget: int, *, n_workers: int = 2, n_batches: int = 1000, override: int | None = None) -> None:
        self.warnings: list[str] = []
        self.lines: list[str] = []
        self.limit = InflightLimit(
            budget * MIB, n_workers, n_batches, override, self.warnings.append, self.lines.append
        )

    def see(self, pid: int, rss: int, *, parent_rss: int = 100, batch: int = 10) -> int:
        self.limit.observe(
            pid=pid, rss=rss * MIB, parent_pid=PARENT, parent_rss=parent_rss * MIB, batch_bytes=batch * MIB
        )
        return self.limit()


def test_one_batch_a_worker_until_each_has_shown_what_it_needs():
    talk = Talk(1000, n_workers=3)
    assert talk.limit() == 3
    assert talk.see(11, 100) == 3
    assert talk.see(11, 100) == 3
    assert talk.see(12, 100) == 3
    assert talk.lines == []
    assert talk.see(13, 100) == (1000 - 100 - 300) // 10


def test_what_is_left_of_the_budget_by_the_size_of_a_batch():
    talk = Talk(1000)
    talk.see(11, 150)
    assert talk.see(12, 250, parent_rss=99, batch=7) == (1000 - 99 - 150 - 250) // 10  # the larger of the two batches
    assert talk.see(12, 250, parent_rss=99, batch=30) == (1000 - 99 - 150 - 250) // 30


def test_the_serial_engines_worker_is_this_process_and_counts_once():
    assert Talk(1000, n_workers=1).see(PARENT, 500, parent_rss=500) == 50


def test_measured_again_with_every_result():
    talk = Talk(1000)
    talk.see(11, 100)
    assert talk.see(12, 100) == 70
    assert talk.see(11, 300) == 50
    assert talk.see(12, 100, parent_rss=400) == 20
    assert talk.see(11, 100, parent_rss=100) == 70


def test_never_more_than_there_are_batches():
    talk = Talk(10_000, n_batches=5)
    talk.see(11, 100)
    assert talk.see(12, 100) == 5


def test_fewer_batches_than_workers_are_measured_too():
    talk = Talk(1000, n_workers=4, n_batches=2)
    talk.see(11, 100)
    talk.see(12, 100)
    assert len(talk.lines) == 1


def test_never_less_than_one_batch_a_worker_and_one_warning_says_so():
    talk = Talk(310, n_workers=2)
    talk.see(11, 100)
    assert talk.see(12, 100) == 2
    assert talk.see(12, 300) == 2
    (warning,) = talk.warnings
    assert "budget of 310.0 MiB" in warning
    assert "one batch (10.0 MiB) for each of 2 workers" in warning
    assert "Lower threads" in warning


def test_no_warning_when_there_is_just_enough():
    talk = Talk(320, n_workers=2)
    talk.see(11, 100)
    assert talk.see(12, 100) == 2
    assert talk.warnings == []


def test_an_override_holds_whatever_is_measured():
    talk = Talk(10, override=3)
    assert talk.limit() == 3
    talk.see(11, 500)
    assert talk.see(12, 500) == 3
    assert (talk.warnings, talk.lines) == ([], [])


def test_the_numbers_are_logged_once_they_are_known_and_when_they_have_changed_much():
    talk = Talk(1000)
    talk.see(11, 100)
    talk.see(12, 100)
    (line,) = talk.lines
    assert line == (
        "in-flight limit 70 batches: budget 1,000.0 MiB, this process 100.0 MiB, 2 workers 200.0 MiB, "
        "largest batch 10.0 MiB"
    )
    talk.see(12, 150)
    assert len(talk.lines) == 1  # 65: not worth a line
    talk.see(12, 450)
    assert talk.lines[1].startswith("in-flight limit 35 batches")
    talk.see(12, 100)
    assert talk.lines[2].startswith("in-flight limit 70 batches")


def test_an_empty_result_does_not_divide_by_zero():
    talk = Talk(1000, n_workers=1, n_batches=9)
    assert talk.see(11, 100, batch=0) == 9


@given(
    budget=st.integers(0, 2**14),
    n_workers=st.integers(1, 8),
    n_batches=st.integers(1, 300),
    seen=st.lists(st.tuples(st.integers(10, 17), st.integers(0, 4000), st.integers(0, 4000), st.integers(0, 500))),
)
def test_always_between_the_floor_and_what_fits(
    budget: int, n_workers: int, n_batches: int, seen: list[tuple[int, int, int, int]]
) -> None:
    talk = Talk(budget, n_workers=n_workers, n_batches=n_batches)
    workers: dict[int, int] = {}
    largest = 0
    for pid, rss, parent_rss, batch in seen:
        limit = talk.see(pid, rss, parent_rss=parent_rss, batch=batch)
        workers[pid] = rss
        largest = max(largest, batch)
        assert n_workers <= limit <= max(n_workers, n_batches)
        if limit > n_workers:
            assert parent_rss + sum(workers.values()) + limit * largest <= budget


@pytest.mark.parametrize("n_workers", [1, 2, 5])
def test_the_floor_is_the_number_of_workers(n_workers: int) -> None:
    talk = Talk(0, n_workers=n_workers)
    assert [talk.see(10 + worker, 100) for worker in range(n_workers)] == [n_workers] * n_workers
