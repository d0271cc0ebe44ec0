"""Start another Python interpreter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import spawn
from pathlib import Path
from typing import Any, NoReturn, Self

from cellstamp.errors import WorkerError

_CODE = "import sys; sys.path[:] = {path!r}; from {module} import main; main({arguments})"
_THREADS = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")
"""Variables that numpy's library takes its number of threads from, the first one that is set."""
_OWN_GROUP = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
"""On Windows, Ctrl-C reaches all processes of a group."""


@dataclass(frozen=True)
class Surroundings:
    """Settings that a process copies from the caller before it imports anything.

    Attributes
    ----------
    path
        ``sys.path``.
    folder
        The current directory; None if it was removed.
    variables
        Environment variables: a notebook may set credentials after the server of workers was started.
    """

    path: tuple[str, ...]
    folder: str | None
    variables: Mapping[str, str]

    @classmethod
    def here(cls) -> Self:
        """Return those of this process."""
        folder = None
        with suppress(OSError):
            folder = str(Path.cwd())
        return cls(tuple(entry or folder or "" for entry in sys.path), folder, dict(os.environ))

    def enter(self) -> None:
        """Use them in this process."""
        sys.path[:] = self.path
        if os.environ != self.variables:
            os.environ.clear()
            os.environ.update(self.variables)
        if self.folder is not None:
            with suppress(OSError):
                os.chdir(self.folder)


def start_python(module: str, *arguments: object, stdin: int) -> subprocess.Popen[bytes]:
    """Start an interpreter that calls ``main`` of a module, without the caller's ``__main__``.

    Ctrl-C in a terminal doesn't reach it: the caller ends it.

    Parameters
    ----------
    module
        Module with the function ``main``, imported with this process's ``sys.path``.
    arguments
        Arguments of ``main``; their ``repr`` must be Python code.
    stdin
        File descriptor of its standard input, or ``subprocess.PIPE``.

    Raises
    ------
    WorkerError
        The system refuses to start a process.
    """
    code = _CODE.format(path=list(Surroundings.here().path), module=module, arguments=", ".join(map(repr, arguments)))
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # as multiprocessing does
    command: list[str] = [_executable(), *flags, "-c", code]
    try:
        with _interrupts_blocked():
            return subprocess.Popen(command, stdin=stdin, creationflags=_OWN_GROUP, env=_environment())
    except OSError as error:
        raise refused(error) from error


def _environment() -> dict[str, str]:
    """Return the variables of a process whose numpy has one thread, unless the user has set their number.

    Workers already use all cores, and numpy's other threads would wait busily while it is imported.
    """
    own = {} if any(name in os.environ for name in _THREADS) else {_THREADS[0]: "1"}
    return own | os.environ


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block SIGINT in this thread, and so in the processes that it starts."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows, the process group does it
        yield
        return
    numbers: Any = signal
    before = signal.pthread_sigmask(numbers.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(numbers.SIG_SETMASK, before)


def _executable() -> str:
    return os.fsdecode(spawn.get_executable() or "")


def open_standard_streams() -> int:
    """Open closed standard streams, so that no file gets their numbers; return a descriptor of the null device."""
    null = os.open(os.devnull, os.O_RDWR)
    while null <= 2:
        null = os.open(os.devnull, os.O_RDWR)
    return null


def run_and_exit(work: Callable[[], object]) -> NoReturn:
    """Call a function and end this process: exit code 0, or 1 after the traceback of an error.

    Nothing else runs at the exit, which is slow with many imported modules.
    """
    code = 1
    try:
        work()
        code = 0
    except BaseException:  # noqa: BLE001 - whatever happens, a worker never returns into its caller
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


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
