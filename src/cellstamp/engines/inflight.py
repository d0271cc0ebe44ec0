"""Compute the number of batches in flight from measured and allowed memory. Nothing is measured here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class InflightLimit:
    """The number of batches that may be submitted and not yet written.

    Until every worker has returned a batch, the limit is the number of workers. Then it is the free budget divided by
    the size of a batch: ``(budget - RSS) // batch bytes``, with the RSS of this process and all workers. Waiting
    results are part of the RSS. So the limit stays a little low, which leaves room for copies while sending.

    Attributes
    ----------
    budget
        Bytes that all processes together may use.
    n_workers
        Lower bound of the limit.
    n_batches
        Upper bound of the limit.
    override
        A fixed limit instead of a computed one.
    warn, log
        Called with one line: ``warn`` once if the budget is too small for one batch per worker, ``log`` whenever the
        limit is first known, halved or doubled.
    """

    budget: int
    n_workers: int
    n_batches: int
    override: int | None
    warn: Callable[[str], None]
    log: Callable[[str], None]
    _rss: dict[int, int] = field(default_factory=dict)
    _parent_rss: int = 0
    _batch_bytes: int = 0
    _logged: int = 0
    _warned: bool = False

    def __call__(self) -> int:
        """Return the current limit."""
        if self.override is not None:
            return self.override
        if len(self._rss) < min(self.n_workers, self.n_batches):
            return self.n_workers
        return max(self.n_workers, min(self.n_batches, self._affordable()))

    def observe(self, *, pid: int, rss: int, parent_pid: int, parent_rss: int, batch_bytes: int) -> None:
        """Use the measurements of one result.

        Parameters
        ----------
        pid, rss
            The worker, and its resident memory in bytes.
        parent_pid, parent_rss
            The same of this process.
        batch_bytes
            Size of the result.
        """
        self._rss[pid] = rss if pid != parent_pid else 0
        self._parent_rss = parent_rss
        self._batch_bytes = max(self._batch_bytes, batch_bytes, 1)
        if self.override is None and len(self._rss) >= min(self.n_workers, self.n_batches):
            self._report()

    def forget(self, pid: int) -> None:
        """Remove a worker that has ended."""
        self._rss.pop(pid, None)

    def _affordable(self) -> int:
        return (self.budget - self._parent_rss - sum(self._rss.values())) // self._batch_bytes

    def _report(self) -> None:
        """Log the numbers when they are first known, and when the limit has halved or doubled since."""
        limit = self()
        if not self._logged or limit <= self._logged // 2 or limit >= self._logged * 2:
            self._logged = limit
            # without workers, or with workers on other machines, there is nothing to add
            theirs = sum(self._rss.values())
            workers = f"{len(self._rss)} workers {_mib(theirs)}, " if theirs else ""
            self.log(
                f"in-flight limit {limit} batches: budget {_mib(self.budget)}, this process {_mib(self._parent_rss)}, "
                f"{workers}largest batch {_mib(self._batch_bytes)}"
            )
        if self._affordable() < self.n_workers and not self._warned:
            self._warned = True
            self.warn(
                f"the memory budget of {_mib(self.budget)} is too small for one batch ({_mib(self._batch_bytes)}) for "
                f"each of {self.n_workers} workers; continuing with {self.n_workers} batches. Lower threads or "
                "max_batch_size, or raise target_ram_utilization"
            )


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:,.1f} MiB"
