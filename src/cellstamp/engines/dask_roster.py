"""The workers of a dask cluster: which there are, whether they can be used, and what they keep of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from cellstamp.engines.dask_worker import Findings, forget, probe, warm_up
from cellstamp.errors import WorkerError

if TYPE_CHECKING:
    from distributed import Client


class Roster:
    """Who is there for one run.

    Parameters
    ----------
    client
        Of the cluster.
    packages
        Whose versions must be the same on the workers, up to the second number.
    task
        The pickled task.

    Attributes
    ----------
    address
        That of the scheduler.
    """

    def __init__(self, client: Client, packages: Sequence[str], task: bytes) -> None:
        self._client, self._packages, self._task = client, packages, task
        self.address = _where(client)
        self._expected = probe(packages, task)

    @property
    def is_lost(self) -> bool:
        """Whether the scheduler is not there any more."""
        return self._client.status != "running"

    def lost(self, error: BaseException | None = None) -> WorkerError:
        """The error that says so."""
        detail = f" ({type(error).__name__})" if error is not None else ""
        return WorkerError(
            f"the scheduler at {self.address} is lost, or was restarted{detail}: what is finished is kept; extract "
            "again to go on"
        )

    def threads(self) -> dict[str, int]:
        """Threads of each worker, by its address.

        Raises
        ------
        WorkerError
            If the scheduler is lost.
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
        """What is wrong with workers, by their address.

        Raises
        ------
        WorkerError
            If the scheduler is lost.
        """
        addresses = list(addresses)
        with self._scheduler_answers():
            found = self._client.run(probe, self._packages, self._task, workers=addresses, on_error="return")
        faults = {address: self._fault(found.get(address)) for address in addresses}
        return {address: f"worker {address}: {fault}" for address, fault in faults.items() if fault}

    def _fault(self, found: Findings | BaseException | None) -> str:
        """What is wrong with a worker, in words; empty if nothing is."""
        if not isinstance(found, Findings):
            return f"cannot be used: {type(found).__name__}: {found}. Has it the same cellstamp, and the same paths?"
        differing = [
            f"{name} {found.versions.get(name)} (here {here})"
            for name, here in self._expected.versions.items()
            if found.versions.get(name) != here
        ]
        if differing:
            return f"has {', '.join(differing)}; install the same versions there"
        if found.signature != self._expected.signature:
            return "sees other data at the path of the input than this process; is it the same file system?"
        return ""

    def warm_up(self, addresses: Iterable[str]) -> None:
        """Have workers load what takes long; what goes wrong there is told at their first batch.

        Raises
        ------
        WorkerError
            If the scheduler is lost.
        """
        with self._scheduler_answers():
            self._client.run(warm_up, self._task, workers=list(addresses), on_error="ignore")

    def forget(self, run: str) -> None:
        """Have all workers drop what they keep for a run."""
        if not self.is_lost:
            # workers that are gone have nothing to forget
            with suppress(OSError):
                self._client.run(forget, run, on_error="ignore")


def no_workers(client: Client, patience: float) -> WorkerError:
    """The error that says that nobody is there."""
    address = _where(client)
    return WorkerError(
        f"the scheduler at {address} has had no worker for {patience:g} s; start some with 'dask worker {address} "
        "--nthreads 1', and run it again: what is finished is kept"
    )


def _where(client: Client) -> str:
    return str(getattr(client.scheduler, "address", "its address"))
