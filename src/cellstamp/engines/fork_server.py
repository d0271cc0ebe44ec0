"""Run the server: a process that imports the modules workers need once, and forks workers on request.

It has one socket, to the process that started it. It answers requests in order, and ends when the other end is closed.
Requests and replies have fixed sizes, so none can be read in part.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

from cellstamp.engines.interpreter import open_standard_streams, run_and_exit

FORK, REAP, KILL = b"F", b"R", b"K"
"""Requests: fork a worker with the file descriptors sent along; wait for a worker to end; kill a worker."""
REQUEST = struct.Struct("!cq")
"""The kind of a request, and the process id of the worker to wait for or to kill."""
REPLY = struct.Struct("!?q")
"""Whether the request succeeded, and the process id or exit code; otherwise, ``errno``."""
MAX_DESCRIPTORS = 8
"""File descriptors that can be sent along with a request."""

Work = Callable[[Sequence[int]], object]
"""Function that a worker calls with the file descriptors sent to it."""


def main(preload: Sequence[str], work: str) -> NoReturn:
    """Serve the process at the other end of the standard input.

    Parameters
    ----------
    preload
        Modules to import first.
    work
        Function that workers call, as ``module:function``; imported in the server.
    """
    run_and_exit(lambda: _serve(_take_standard_input(), preload, work))


def _take_standard_input() -> socket.socket:
    """Return the socket of the standard input."""
    null = open_standard_streams()
    control = os.dup(0)
    os.dup2(null, 0)
    os.close(null)
    return socket.socket(fileno=control)


def _serve(control: socket.socket, preload: Sequence[str], work: str) -> None:
    # the terminal sends Ctrl-C to every process; the caller stops the workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # a caller that ignores SIGCHLD passes that on, and exit codes would be lost
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for name in preload:
        import_module(name)
    module, _, function = work.partition(":")
    _Nursery(control, getattr(import_module(module), function)).answer()


class _Nursery:
    """Forks workers, and keeps their exit codes."""

    def __init__(self, control: socket.socket, work: Work) -> None:
        self._control, self._work = control, work
        self._exit_codes: dict[int, int] = {}
        signal.signal(signal.SIGCHLD, self._note_ends)

    def answer(self) -> None:
        """Answer requests until the other end is closed."""
        with suppress(ConnectionError):
            while True:
                request, descriptors, _, _ = socket.recv_fds(
                    self._control, REQUEST.size, MAX_DESCRIPTORS, socket.MSG_WAITALL
                )
                if len(request) < REQUEST.size:
                    return
                kind, pid = REQUEST.unpack(request)
                try:
                    reply = True, self._carry_out(kind, pid, descriptors)
                except OSError as error:
                    reply = False, error.errno or errno.EIO
                self._control.sendall(REPLY.pack(*reply))

    def _carry_out(self, kind: bytes, pid: int, descriptors: Sequence[int]) -> int:
        if kind == FORK:
            return self._fork(descriptors)
        return self._kill(pid) if kind == KILL else self._reap(pid)

    def _fork(self, descriptors: Sequence[int]) -> int:
        try:
            pid = os.fork()
            if not pid:
                run_and_exit(lambda: self._become_worker(descriptors))
        finally:
            # only the worker keeps them, so its connection ends when it does
            for descriptor in descriptors:
                os.close(descriptor)
        return pid

    def _become_worker(self, descriptors: Sequence[int]) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._control.close()
        self._work(descriptors)

    def _note_ends(self, *_: object) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                self._note(*ended)

    def _note(self, pid: int, status: int) -> None:
        self._exit_codes[pid] = os.waitstatus_to_exitcode(status)

    def _reap(self, pid: int) -> int:
        with suppress(ChildProcessError):  # its exit code is known already
            self._note(*os.waitpid(pid, 0))
        if pid not in self._exit_codes:
            raise ChildProcessError(errno.ECHILD, "not a child")
        return self._exit_codes.pop(pid)

    def _kill(self, pid: int) -> int:
        """Kill a worker that has not ended; OSError if there is none of this number."""
        # until it is reaped, which the handler does, no other process has its number
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        try:
            ended = os.waitpid(pid, os.WNOHANG)
            if ended[0]:
                self._note(*ended)
            else:
                os.kill(pid, signal.SIGKILL)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        return pid
