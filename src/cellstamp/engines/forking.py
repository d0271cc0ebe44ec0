"""Fork worker processes from a server, on Linux.

The server forks the workers. It is a process without threads that has imported the modules they need. cellstamp doesn't
use the server of ``multiprocessing``: other code of the caller shares it, and would get our preloaded modules. Workers
never import the caller's ``__main__``, so a script needs no ``if __name__ == "__main__"`` guard.

A server is kept for the next run. Servers and workers end when the caller's process does.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from typing import Any

from cellstamp.engines.fork_server import FORK, KILL, REAP, REPLY, REQUEST
from cellstamp.engines.inherited import close, open_pair
from cellstamp.engines.interpreter import refused, start_python
from cellstamp.engines.result_memory import ResultMemory
from cellstamp.engines.worker_exits import how_it_ended

_WORK = "cellstamp.engines.worker:work"
_DYING = 1.0
"""Seconds to wait for a killed process."""


class ServerDiedError(Exception):
    """The server died; the message says how."""


class Server:
    """A process that forks workers; thread-safe.

    Parameters
    ----------
    preload
        Modules that it imports once, starting now.

    Raises
    ------
    WorkerError
        The system refuses to start a process.
    """

    def __init__(self, preload: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self._workers: set[int] = set()
        self._control, theirs = open_pair(socket.socketpair)
        try:
            module = "cellstamp.engines.fork_server"
            self._process = start_python(module, tuple(preload), _WORK, stdin=theirs.fileno())
        except BaseException:
            close(self._control)
            raise
        finally:
            close(theirs)

    @property
    def is_alive(self) -> bool:
        """Whether it can fork workers."""
        return self._control.fileno() >= 0 and self._process.poll() is None

    @property
    def is_idle(self) -> bool:
        """Whether all workers that were forked have been reaped."""
        return not self._workers

    def fork(self, descriptors: Sequence[int]) -> int:
        """Fork a worker and return its process id. Waits until the server has imported its modules.

        Parameters
        ----------
        descriptors
            File descriptors to pass to the worker.

        Raises
        ------
        ServerDiedError
            The server is dead, or dies meanwhile.
        WorkerError
            The system refuses to fork.
        """
        try:
            pid = self._ask(FORK, 0, descriptors)
        except OSError as error:
            raise refused(error) from error
        self._workers.add(pid)
        return pid

    def reap(self, pid: int) -> int | None:
        """Wait for a worker that is ending, and return its exit code; None if the server doesn't know it."""
        self._workers.discard(pid)
        try:
            return self._ask(REAP, pid)
        except (ServerDiedError, OSError):
            return None

    def kill(self, pid: int) -> None:
        """Kill a worker, unless it has ended: its number may be another process's by then.

        Raises
        ------
        ServerDiedError
            If the server is dead, so that nobody knows.
        """
        with suppress(OSError):
            self._ask(KILL, pid)

    def _ask(self, kind: bytes, pid: int, descriptors: Sequence[int] = ()) -> int:
        with self._lock:
            try:
                reply = self._exchange(REQUEST.pack(kind, pid), descriptors)
            except BaseException:
                # the next request would receive the reply of this one
                self._end()
                raise
            if len(reply) < REPLY.size:
                # it closes the connection before it ends; wait for its exit code
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(_DYING)
                self._end()
                raise ServerDiedError(how_it_ended(self._process.returncode))
        succeeded, value = REPLY.unpack(reply)
        if not succeeded:
            raise OSError(value, os.strerror(value))
        return int(value)

    def _exchange(self, request: bytes, descriptors: Sequence[int]) -> bytes:
        """Send a request and return the reply; an incomplete reply means that the server is dead."""
        if self._control.fileno() < 0:
            return b""
        with suppress(ConnectionError):
            socket.send_fds(self._control, [request], descriptors)
            return self._control.recv(REPLY.size, socket.MSG_WAITALL)
        return b""

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        close(self._control)

    def close(self) -> None:
        """Kill the server; its workers keep running."""
        self._process.kill()  # a thread that waits for a reply stops waiting
        with self._lock:
            self._end()


class ForkedChild:
    """A worker that the server has forked; see `cellstamp.engines.start_methods.Child`.

    Parameters
    ----------
    preload
        Modules that it needs; its server has imported them.

    Raises
    ------
    ServerDiedError
        The server died. The next child gets a new one.
    WorkerError
        The system refuses to start a process.
    """

    def __init__(self, preload: Sequence[str]) -> None:
        self.exit_code: int | None = None
        self._server = running_server(preload)
        file = os.memfd_create("cellstamp")
        self.memory = ResultMemory(file)
        self.connection: Connection[Any, Any]
        self.connection, theirs = open_pair(Pipe)
        try:
            self._pid = self._server.fork([theirs.fileno(), file])
        except BaseException:
            self._close()
            raise
        finally:
            close(theirs)

    def _close(self) -> None:
        close(self.connection)
        self.memory.close()

    def kill(self) -> None:
        """Kill the worker."""
        # the system may have reused the id of a worker that has ended
        if self.connection.closed or self._has_ended(0):
            return
        try:
            self._server.kill(self._pid)
        except ServerDiedError:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def wait(self, deadline: float) -> None:
        """Wait for the worker, kill it at the deadline, and close connection and memory."""
        if self.connection.closed:
            return
        if not self._has_ended(deadline - time.monotonic()):
            self.kill()
            self._has_ended(_DYING)
        self.exit_code = self._server.reap(self._pid)
        self._close()

    def _has_ended(self, seconds: float) -> bool:
        """Wait until the other end of the connection is closed; earlier messages can still be read."""
        watch = select.poll()
        watch.register(self.connection, 0)
        return bool(watch.poll(1000 * max(0.0, seconds)))


_lock = threading.Lock()
_servers: dict[tuple[int, tuple[str, ...]], Server] = {}
"""Servers by the process that started them and their imported modules."""


def running_server(preload: Sequence[str]) -> Server:
    """Return this process's server with these modules; start one if it is missing or dead.

    Raises
    ------
    WorkerError
        The system refuses to start a process.
    """
    key = os.getpid(), tuple(preload)
    with _lock:
        server = _servers.get(key)
        if server is not None and server.is_alive:
            return server
        _close_idle(key)
        _servers[key] = Server(preload)
        return _servers[key]


def _close_idle(key: tuple[int, tuple[str, ...]]) -> None:
    """Close a dead server, and servers with other modules that have no workers: each takes memory that runs may use."""
    for other, server in list(_servers.items()):
        if other == key or (other[0] == key[0] and server.is_idle):
            _servers.pop(other).close()


def _close_servers() -> None:
    for (pid, _), server in list(_servers.items()):
        if pid == os.getpid():
            server.close()


def _replace_lock() -> None:
    """Replace the lock in a fork of the caller's process, where the thread that may hold it does not exist."""
    global _lock
    _lock = threading.Lock()


atexit.register(_close_servers)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_replace_lock)
