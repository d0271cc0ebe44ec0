"""Another Python interpreter, with a socket to it as its standard input: both ends of that."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import spawn
from pathlib import Path
from typing import Self

from cellstamp.engines.inherited import close, open_pair
from cellstamp.errors import WorkerError

_CODE = "import sys; sys.path[:] = {path!r}; from {module} import main; main({arguments})"


@dataclass(frozen=True)
class Surroundings:
    """What a process takes over from the caller before it imports anything; not the caller's main module.

    Attributes
    ----------
    path
        Where modules are.
    folder
        The current directory; None if it was removed.
    """

    path: tuple[str, ...]
    folder: str | None

    @classmethod
    def here(cls) -> Self:
        """Return those of this process."""
        folder = None
        with suppress(OSError):
            folder = str(Path.cwd())
        return cls(tuple(entry or folder or "" for entry in sys.path), folder)

    def enter(self) -> None:
        """Take them over."""
        sys.path[:] = self.path
        if self.folder is not None:
            with suppress(OSError):
                os.chdir(self.folder)


def start_python(module: str, *arguments: object) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start an interpreter that calls the function ``main`` of a module, and return it and our end of the socket.

    Ctrl-C does not reach it, from its first moment on: it is the caller who stops it, by closing the socket.

    Parameters
    ----------
    module
        Where ``main`` is. It is imported with this process's ``sys.path``.
    arguments
        What ``main`` is called with; their ``repr`` is Python code.

    Raises
    ------
    WorkerError
        If the system refuses to start a process.
    """
    code = _CODE.format(path=list(Surroundings.here().path), module=module, arguments=", ".join(map(repr, arguments)))
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # as multiprocessing does
    command: list[str] = [_executable(), *flags, "-c", code]
    ours, theirs = open_pair(socket.socketpair)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        return subprocess.Popen(command, stdin=theirs.fileno()), ours
    except OSError as error:
        close(ours)
        raise refused(error) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        close(theirs)


def _executable() -> str:
    return os.fsdecode(spawn.get_executable() or "")


def take_standard_input() -> socket.socket:
    """Return the socket that is the standard input, and open all three standard streams that are closed."""
    null = os.open(os.devnull, os.O_RDWR)
    while null <= 2:
        null = os.open(os.devnull, os.O_RDWR)
    control = os.dup(0)
    os.dup2(null, 0)
    os.close(null)
    return socket.socket(fileno=control)


def refused(error: OSError) -> WorkerError:
    """Return the error for a process that cannot be started."""
    if isinstance(error, FileNotFoundError | PermissionError):
        return WorkerError(
            f"cannot start a worker: {_executable()!r} is not a Python interpreter that can be started "
            f"({error.strerror}). Name one with multiprocessing.set_executable(path), or set threads to 1"
        )
    return WorkerError(
        f"cannot start a worker: {error.strerror}. Set threads lower, or raise the limits on processes and memory "
        "(ulimit -u; the job's or the container's)"
    )
