"""Real dask clusters on this machine: a scheduler and workers, each a process as the command line starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import psutil

from client_links import Link, free_address
from waiting import wait_until

TESTS = Path(__file__).parent
_HERE = ("--host", "127.0.0.1")


class Cluster:
    """A scheduler and its workers; a context manager that ends all of them.

    Workers have a nanny that starts another one in the place of one that died, as they do by default.
    """

    def __init__(self, folder: Path, n_workers: int = 0, **options: Any) -> None:
        self._folder = folder
        self._file = folder / "scheduler.json"
        self._workers: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._start("dask_scheduler", *_HERE, "--port", "0", "--scheduler-file", str(self._file))
        for _ in range(n_workers):
            self.add(**options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._all_processes():
            process.kill()
        for started in (self.scheduler, *self._workers):
            started.wait()

    def _all_processes(self) -> Iterator[psutil.Process]:
        """Those that were started, and theirs; what is gone has none."""
        for started in (*self._workers, self.scheduler):
            if psutil.pid_exists(started.pid):
                process = psutil.Process(started.pid)
                # first the nanny, which would start another worker
                children = process.children(recursive=True)
                yield process
                yield from (child for child in children if child.is_running())

    def add(
        self,
        *,
        nthreads: int = 1,
        memory: str = "0",
        nanny: bool = True,
        path: Sequence[Path] = (),
        command: Sequence[str] = (),
        link: Link | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a worker.

        Parameters
        ----------
        memory
            Its limit; "0" for none.
        path
            Folders in which it looks for packages before all others.
        command
            What to start it with.
        link
            Between the worker and those that connect to it; without a nanny.
        """
        place = _HERE if link is None else _behind(link)
        options = ["--nthreads", str(nthreads), "--memory-limit", memory, "--nanny" if nanny else "--no-nanny"]
        folder = ["--local-directory", str(self._folder)]
        worker = self._start("dask_worker", self.address, *place, *options, *folder, path=path, command=command)
        self._workers.append(worker)
        return worker

    def _start(
        self, module: str, *options: str, path: Sequence[Path] = (), command: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        places = [*map(str, path), str(TESTS), os.environ.get("PYTHONPATH", "")]
        arguments = ["-m", f"distributed.cli.{module}", *options, "--no-dashboard"]
        with (self._folder / f"{module}.log").open("ab") as log:
            return subprocess.Popen(
                [*command, sys.executable, *arguments],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))},
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=self._folder,
            )

    @property
    def address(self) -> str:
        """Where the scheduler is, as soon as it says so."""
        return wait_until(self._told_address)

    def _told_address(self) -> str | None:
        try:
            return str(json.loads(self._file.read_text())["address"])
        except (FileNotFoundError, json.JSONDecodeError):
            assert self.scheduler.poll() is None, (self._folder / "dask_scheduler.log").read_text()
            return None

    @contextmanager
    def client(self, n_workers: int = 0, link: Link | None = None) -> Iterator[Any]:
        """A client, as soon as there are so many workers, perhaps behind a link; no default for others."""
        from distributed import Client

        address = self.address if link is None else link.to(self.address)
        with Client(address, set_as_default=False) as client:
            if n_workers:
                client.wait_for_workers(n_workers)
            yield client


def _behind(link: Link) -> tuple[str, ...]:
    listening = free_address()
    return ("--listen-address", listening, "--contact-address", link.to(listening))
