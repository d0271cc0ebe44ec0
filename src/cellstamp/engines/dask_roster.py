"""List and check the workers of a dask cluster, prepare them for a run, and clean up after it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from cellstamp.engines.dask_worker import Findings, forget, probe, warm_up
from cellstamp.errors import WorkerError

if TYPE_CHECKING:
    from distributed import Client


class Roster:
    """The workers for one run.

    Parameters
    ----------
    client
        Client of the cluster.
    packages
        Packages whose major and minor versions must be the same on the workers.
    task
        The pickled task.

    Attributes
    ----------
    address
        Address of the scheduler.
    """

    def __init__(self, client: Client, packages: Sequence[str], task: bytes) -> None:
        self._client, self._packages, self._task = client, packages, task
        self.address = _where(client)
        self._expected = probe(packages, task)

    @property
    def is_lost(self) -> bool:
        """Whether the connection to the scheduler is lost."""
        return self._client.status != "running"

    def lost(self, error: BaseException | None = None) -> WorkerError:
        """Return the error for a lost scheduler."""
        detail = f" ({type(error).__name__})" if error is not None else ""
        return WorkerError(
            f"the scheduler at {self.address} is lost, or was restarted{detail}. Start one, and extract again"
        )

    def threads(self) -> dict[str, int]:
        """Return the number of threads of each worker, by its address.

        Raises
        ------
        WorkerError
            The scheduler is lost.
        """
        with self._scheduler_answers():
            return dict(self._client.nthreads())

    @contextmanager
    def _scheduler_answers(self) -> Iterator[None]:
        if self.is_lost:
            raise self.lost()
        try:
            yield
        except OSError as error:
            raise self.lost(error) from error

    def faults(self, addresses: Iterable[str]) -> dict[str, str]:
        """Return a message for each unusable worker, by its address.

        Raises
        ------
        WorkerError
            The scheduler is lost.
        """
        addresses = list(addresses)
        with self._scheduler_answers():
            found = self._client.run(probe, self._packages, self._task, workers=addresses, on_error="return")
        faults = {address: self._fault(found.get(address)) for address in addresses}
        return {address: f"worker {address}: {fault}" for address, fault in faults.items() if fault}

    def _fault(self, found: Findings | BaseException | None) -> str:
        """Return the reason why a worker cannot be used; empty if it can."""
        if not isinstance(found, Findings):
            advice = "Check that it has the same cellstamp and the same paths"
            return f"cannot be used: {type(found).__name__}: {found}. {advice}"
        differing = [
            f"{name} {found.versions.get(name)} (here {here})"
            for name, here in self._expected.versions.items()
            if found.versions.get(name) != here
        ]
        if differing:
            return f"has {', '.join(differing)}; install the same versions there"
        if found.signature != self._expected.signature:
            return (
                "reads other data at the path of the input than this process. Check that both use the same file system"
            )
        return ""

    def warm_up(self, addresses: Iterable[str]) -> None:
        """Load slow modules on workers; their first batch raises any error.

        Raises
        ------
        WorkerError
            The scheduler is lost.
        """
        with self._scheduler_answers():
            self._client.run(warm_up, self._task, workers=list(addresses), on_error="ignore")

    def forget(self, run: str) -> None:
        """Make all workers drop their state of a run."""
        if not self.is_lost:
            # workers that left have nothing to drop
            with suppress(OSError):
                self._client.run(forget, run, on_error="ignore")


def no_workers(client: Client, patience: float) -> WorkerError:
    """Return the error for a cluster without workers."""
    address = _where(client)
    return WorkerError(
        f"the scheduler at {address} has had no worker for {patience:g} s. Start some with 'dask worker {address} "
        "--nthreads 1', and extract again"
    )


def _where(client: Client) -> str:
    return str(getattr(client.scheduler, "address", "its address"))
