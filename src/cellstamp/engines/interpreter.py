"""Start another Python interpreter with a socket as its standard input; both ends of it."""

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
    """Settings that a process copies from the caller before it imports anything.

    Attributes
    ----------
    path
        ``sys.path``.
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
        """Use them in this process."""
        sys.path[:] = self.path
        if self.folder is not None:
            with suppress(OSError):
                os.chdir(self.folder)


def start_python(module: str, *arguments: object) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start an interpreter that calls ``main`` of a module; return the process and our end of the socket.

    It starts with SIGINT blocked; the caller stops it by closing the socket.

    Parameters
    ----------
    module
        Module with the function ``main``, imported with this process's ``sys.path``.
    arguments
        Arguments of ``main``; their ``repr`` must be Python code.

    Raises
    ------
    WorkerError
        The system refuses to start a process.
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
    """Return the socket of the standard input, and open any closed standard stream."""
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
            f"cannot start a worker: {_executable()!r} is not an executable Python interpreter "
            f"({error.strerror}). Set one with multiprocessing.set_executable(path), or set threads to 1"
        )
    return WorkerError(
        f"cannot start a worker: {error.strerror}. Set threads lower, or raise the limits on processes and memory "
        "(ulimit -u; the job's or the container's)"
    )
