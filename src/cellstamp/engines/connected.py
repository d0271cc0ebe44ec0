"""Start a Python interpreter that connects back to this process.

This works on every system: the new process inherits nothing but the standard streams. The address of this process and
a random key go through its standard input. The connection is a named pipe on Windows, and TCP on the loopback interface
elsewhere, which needs no file and no path.
"""

from __future__ import annotations

import os
import pickle
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from multiprocessing import AuthenticationError, connection
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from cellstamp.engines.inherited import close, keep_from_forks
from cellstamp.engines.interpreter import open_standard_streams, refused, start_python
from cellstamp.errors import WorkerError

_HAS_PIPES = "AF_PIPE" in connection.families  # type: ignore[attr-defined]
MOST_CONNECTIONS = 60 if _HAS_PIPES else None
"""Windows can wait for 63 objects at the same time."""
_PATIENCE = 120.0
"""Seconds until a process must have connected; on a busy network file system, Python may take half a minute."""
_LOOK = 0.02
"""Seconds between looks at a process that has not connected."""


class ConnectedPython:
    """A Python process that connects back to this one.

    Parameters
    ----------
    module
        Module with the function ``main``, which calls `connect_to_caller` first.
    arguments
        Arguments of ``main``; their ``repr`` must be Python code.

    Attributes
    ----------
    process
        The process.

    Raises
    ------
    WorkerError
        The system refuses to start a process.
    """

    def __init__(self, module: str, *arguments: object) -> None:
        self._key = secrets.token_bytes(32)
        self._listener = _listen(self._key)
        self._connection: Connection[Any, Any] | None = None
        self._is_settled = threading.Event()
        self._is_late = False
        try:
            self.process = start_python(module, *arguments, stdin=subprocess.PIPE)
        except BaseException:
            self._listener.close()
            raise
        self._hand_over_address()
        threading.Thread(target=self._watch_start, daemon=True).start()

    def _hand_over_address(self) -> None:
        with suppress(OSError), self.process.stdin as pipe:  # type: ignore[union-attr]  # a dead process is noticed later
            pipe.write(pickle.dumps((self._listener.address, self._key)))

    @property
    def connection(self) -> Connection[Any, Any]:
        """Connection to the process; it ends when the process does. Waits until it has connected.

        Raises
        ------
        WorkerError
            If it doesn't connect.
        """
        if self._connection is None:
            self._connection = self._accept()
            keep_from_forks(self._connection)
            self._stop_listening()
        if self._is_late:
            raise WorkerError(
                f"cannot start a worker: Python did not start within {_PATIENCE:.0f} s. Most likely the disk with "
                "its packages is slow: try again, or set threads to 1"
            )
        return self._connection

    def _accept(self) -> Connection[Any, Any]:
        while True:
            try:
                accepted: Any = self._listener.accept()
            except (AuthenticationError, EOFError, ConnectionError):
                continue  # a stranger, or a process that has just died
            except OSError as error:
                raise refused(error) from error
            _send_at_once(accepted)
            return accepted  # type: ignore[no-any-return]

    def _watch_start(self) -> None:
        """Connect in place of a process that has died or hangs, so that `_accept` returns an ended connection."""
        deadline = time.monotonic() + _PATIENCE
        while not self._is_settled.wait(_LOOK) and self.process.poll() is None:
            if time.monotonic() > deadline:
                self._is_late = True
                self.process.kill()
                break
        if not self._is_settled.is_set():
            with suppress(OSError, EOFError, AuthenticationError):
                Client(self._listener.address, authkey=self._key).close()

    def _stop_listening(self) -> None:
        self._is_settled.set()
        self._listener.close()

    def hang_up(self) -> None:
        """Close the connection, which the process sees."""
        self._stop_listening()
        if self._connection is not None:
            close(self._connection)

    def wait(self, seconds: float) -> None:
        """Wait for the end of the process, and kill it after this time; then close the connection."""
        deadline = time.monotonic() + max(0.0, seconds)
        try:
            self._wait_for_news(deadline)
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.hang_up()

    def _wait_for_news(self, deadline: float) -> None:
        """Wait for the end of the connection: `Popen.wait` with a time sleeps up to 50 ms too long."""
        if self._connection is not None:
            with suppress(OSError, EOFError):
                self._connection.poll(max(0.0, deadline - time.monotonic()))


def _listen(key: bytes) -> Listener:
    address = None if _HAS_PIPES else ("127.0.0.1", 0)
    try:
        return Listener(address, "AF_PIPE" if _HAS_PIPES else "AF_INET", authkey=key)
    except OSError as error:
        raise refused(error) from error


def connect_to_caller() -> Connection[Any, Any]:
    """Return the connection to the process that started this one; end this process if that has ended."""
    # the caller stops it; a terminal sends Ctrl-C to every process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.close(open_standard_streams())
    try:
        address, key = pickle.load(sys.stdin.buffer)
        caller: Any = Client(address, authkey=key)
    except (OSError, EOFError):
        os._exit(1)
    _send_at_once(caller)
    return caller  # type: ignore[no-any-return]


def _send_at_once(connected: Connection[Any, Any]) -> None:
    """Send small messages without waiting for the answer to earlier ones, as TCP does by default."""
    if not _HAS_PIPES:
        with socket.socket(fileno=os.dup(connected.fileno())) as end:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
