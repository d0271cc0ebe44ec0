"""Emulate Windows or macOS on Linux, as far as cellstamp can notice.

``CELLSTAMP_FOREIGN=windows`` (or ``macos``) chooses the system. Names that it lacks are hidden from the modules of
cellstamp only: the standard library and other packages have their own code for each system. Rules for files apply to
every caller. Child processes inherit all this through the environment.
"""

from __future__ import annotations

import builtins
import ctypes
import errno
import importlib
import io
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

VARIABLE = "CELLSTAMP_FOREIGN"
FOLDER = Path(__file__).parent

_UNIX_ONLY = {
    "os": """
        WNOHANG O_DIRECTORY O_NOFOLLOW O_CLOEXEC O_NONBLOCK O_SYNC O_TMPFILE WEXITSTATUS WIFSIGNALED WTERMSIG
        chown chroot ctermid eventfd fchdir fchmod fchown fork forkpty fpathconf getegid geteuid getgid getgroups
        getloadavg getpgid getpgrp getpriority getrandom getsid getuid killpg lchown lockf major makedev memfd_create
        minor mkfifo mknod nice openpty pathconf pidfd_open pipe2 posix_fadvise posix_fallocate posix_spawn
        posix_spawnp pread preadv pwrite pwritev register_at_fork sched_getaffinity sched_setaffinity sched_yield
        sendfile setpgid setpriority setsid setuid splice statvfs fstatvfs sync sysconf tcgetpgrp uname wait wait3
        wait4 waitid copy_file_range
    """,
    "signal": """
        SIGALRM SIGBUS SIGCHLD SIGCLD SIGCONT SIGHUP SIGIO SIGKILL SIGPIPE SIGPOLL SIGPROF SIGPWR SIGQUIT SIGSTOP
        SIGTRAP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGUSR1 SIGUSR2 SIGVTALRM SIGWINCH SIGXCPU SIGXFSZ SIG_BLOCK
        SIG_SETMASK SIG_UNBLOCK alarm getitimer pause pidfd_send_signal pthread_kill pthread_sigmask setitimer
        siginterrupt sigpending sigtimedwait sigwait sigwaitinfo
    """,
    "select": "devpoll epoll kqueue poll",
    "socket": "AF_UNIX SCM_RIGHTS CMSG_LEN CMSG_SPACE recv_fds send_fds",
    "multiprocessing.reduction": "DupFd recvfds sendfds",
}
_NOT_ON_MACOS = {
    "os": """
        eventfd memfd_create pidfd_open posix_fadvise posix_fallocate preadv pwritev sched_getaffinity
        sched_setaffinity splice copy_file_range getrandom O_TMPFILE
    """,
    "signal": "SIGPOLL SIGPWR pidfd_send_signal sigtimedwait sigwaitinfo",
    "select": "devpoll epoll",
}
_UNIX_MODULES = {"fcntl", "grp", "pty", "pwd", "resource", "termios", "tty", "_posixshmem", "_posixsubprocess"}

_LENIENT = ("tempfile", "filelock", "multiprocessing", "_pytest", "pytest", "xdist", "execnet", "distributed")
"""Packages that use other calls on Windows."""

_FORBIDDEN = set('<>:"|?*') | {chr(number) for number in range(32)}
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}
_SHARING_VIOLATION, _ACCESS_DENIED, _NO_PRIVILEGE, _EXISTS, _BAD_NAME = 32, 5, 1314, 183, 123
_BINARY, _TEMPORARY = 1 << 29, 1 << 30
"""Flags of ``os.open`` that Linux has no use for."""


def install() -> None:
    """Become the system that the environment names, in this process and its children."""
    system = os.environ.get(VARIABLE)
    if not system or getattr(sys, "_foreign_system", None):
        return
    if system not in ("windows", "macos"):
        raise SystemExit(f"{VARIABLE}={system}: must be windows or macos")
    sys._foreign_system = system  # type: ignore[attr-defined]
    import multiprocessing.reduction

    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(FOLDER) not in path:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(FOLDER), *filter(None, path)])
    # what is not defined here is only imported by whoever uses it
    modules = {"os": os, "signal": signal, "select": select, "socket": socket}
    modules["multiprocessing.reduction"] = multiprocessing.reduction
    for name, text in (_UNIX_ONLY if system == "windows" else _NOT_ON_MACOS).items():
        _hide(modules[name], set(text.split()))
    if system == "windows":
        _become_windows()
    else:
        _become_macos()
    os.readlink = _reading_link(os.readlink)  # type: ignore[assignment]


def _for_cellstamp(depth: int = 2) -> bool:
    """Return whether a module of cellstamp made the call; `depth` frames above this function's caller."""
    name = sys._getframe(depth).f_globals.get("__name__", "")
    return name == "cellstamp" or name.startswith("cellstamp.")


# --- names that a system lacks ----------------------------------------------------------------------------------------


def _hide(module: types.ModuleType, names: set[str]) -> None:
    """Hide names of a module from cellstamp."""
    plain = types.ModuleType.__getattribute__

    class Module(types.ModuleType):
        def __getattribute__(self, name: str) -> Any:
            if name in names and _for_cellstamp():
                raise AttributeError(f"module {plain(self, '__name__')!r} has no attribute {name!r} (foreign system)")
            return plain(self, name)

    module.__class__ = Module


def _refuse_imports() -> None:
    real_import, real_import_module = builtins.__import__, importlib.import_module

    def refusing_import(name: str, globals: Any = None, *more: Any, **options: Any) -> Any:
        importer = (globals or {}).get("__name__", "")
        if name in _UNIX_MODULES and importer.split(".")[0] == "cellstamp":
            raise ModuleNotFoundError(f"No module named {name!r} (foreign system)", name=name)
        return real_import(name, globals, *more, **options)

    def refusing_import_module(name: str, package: str | None = None) -> Any:
        if name in _UNIX_MODULES and _for_cellstamp():
            raise ModuleNotFoundError(f"No module named {name!r} (foreign system)", name=name)
        return real_import_module(name, package)

    builtins.__import__, importlib.import_module = refusing_import, refusing_import_module


def _refuse_calls() -> None:
    """Refuse arguments that Windows does not take."""
    import multiprocessing
    import multiprocessing.context

    real_library = ctypes.CDLL

    class Library(real_library):  # type: ignore[misc, valid-type]
        def __init__(self, name: Any, *more: Any, **options: Any) -> None:
            if name is None and _for_cellstamp():
                raise TypeError("LoadLibrary() argument 1 must be str, not None (foreign system)")
            super().__init__(name, *more, **options)

    ctypes.CDLL = Library  # type: ignore[misc]
    real_start = subprocess.Popen.__init__

    def start(self: Any, *arguments: Any, **options: Any) -> None:
        if _for_cellstamp():
            for name in ("pass_fds", "preexec_fn", "start_new_session", "process_group", "umask"):
                if options.get(name) not in (None, (), False, -1):
                    raise ValueError(f"{name} is not supported on Windows platforms (foreign system)")
        real_start(self, *arguments, **options)

    subprocess.Popen.__init__ = start  # type: ignore[method-assign]
    real_context = multiprocessing.context.DefaultContext.get_context

    def get_context(self: Any, method: str | None = None) -> Any:
        if method in ("fork", "forkserver") and _for_cellstamp():
            raise ValueError(f"cannot find context for {method!r} (foreign system)")
        return real_context(self, method)

    multiprocessing.context.DefaultContext.get_context = get_context  # type: ignore[method-assign]
    multiprocessing.get_context = multiprocessing.context._default_context.get_context  # type: ignore[attr-defined]


# --- files on Windows -------------------------------------------------------------------------------------------------


def _become_windows() -> None:
    import multiprocessing.popen_fork  # noqa: F401  # before names are hidden

    _refuse_imports()
    _refuse_calls()
    signal.SIGBREAK = signal.SIGUSR2  # type: ignore[attr-defined]  # its number is not used otherwise
    os.O_BINARY, os.O_TEMPORARY = _BINARY, _TEMPORARY  # type: ignore[attr-defined]
    # folders are removed by path, since they cannot be opened
    shutil._use_fd_functions = False  # type: ignore[attr-defined]
    for name, change in (
        ("rename", _renaming),
        ("replace", _replacing),
        ("unlink", _removing),
        ("remove", _removing),
        ("rmdir", _removing),
        ("open", _opening),
        ("close", _closing),
        ("mkdir", _making),
        ("symlink", _linking),
        ("fsync", _syncing),
    ):
        setattr(os, name, change(getattr(os, name)))
    _check_when_opened(lambda path, mode: _check_file(path, creating=any(letter in mode for letter in "wxa")))


def _check_when_opened(check: Callable[[Any, str], None]) -> None:
    real_open = builtins.open

    def open_file(file: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
        if isinstance(file, str | bytes | os.PathLike) and not _is_lenient():
            check(os.fspath(file), mode)
        return real_open(file, mode, *more, **options)

    builtins.open = io.open = open_file  # type: ignore[assignment]


def _error(kind: type[OSError], number: int, text: str, path: Any, winerror: int) -> OSError:
    error = kind(number, f"{text} (foreign system)", os.fspath(path) if isinstance(path, os.PathLike) else path)
    error.winerror = winerror  # type: ignore[attr-defined]
    return error


def _check_file(path: Any, *, creating: bool) -> None:
    """Raise what Windows raises for a file name that it forbids, or for a folder."""
    if creating:
        _check_name(path)
    _check_exists(path)
    if os.path.isdir(path):
        raise _error(PermissionError, errno.EACCES, "Permission denied", path, _ACCESS_DENIED)


def _check_exists(path: Any) -> None:
    """Hide the files of Linux' kernel from cellstamp, but the processor: compiled code is shared with other tests."""
    name = os.fsdecode(path)
    if name.startswith(("/proc/", "/sys/")) and name != "/proc/cpuinfo" and _caller() == "cellstamp":
        raise FileNotFoundError(errno.ENOENT, "No such file or directory (foreign system)", path)


def _check_name(path: Any) -> None:
    name = os.path.basename(os.fsdecode(path).rstrip("/"))
    stem = name.split(".")[0].lower()
    if set(name) & _FORBIDDEN or stem in _RESERVED or (name[-1:] in (" ", ".") and name not in (".", "..")):
        raise _error(OSError, errno.EINVAL, "Invalid argument: file name", path, _BAD_NAME)


def _caller() -> str:
    """Return the package that called a function of ``os``, perhaps through pathlib or shutil."""
    frame: types.FrameType | None = sys._getframe(2)
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).split(".")[0]
        if package not in ("pathlib", "shutil", "os", __name__):
            return package
        frame = frame.f_back
    return ""


def _is_lenient() -> bool:
    return _caller() in _LENIENT


def _check_closed(path: Any) -> None:
    """Raise what Windows raises if this process or a child has a file open, or one in a folder."""
    try:
        about = os.lstat(path)
    except OSError:
        return
    if stat.S_ISLNK(about.st_mode):
        return
    real = os.path.realpath(os.fsdecode(path))
    inside = real + os.sep
    for held in _open_files():
        if held == real or held.startswith(inside):
            number = _ACCESS_DENIED if stat.S_ISDIR(about.st_mode) else _SHARING_VIOLATION
            raise _error(PermissionError, errno.EACCES, f"{held} is being used", path, number)


def _open_files() -> Iterator[str]:
    """Yield the paths of all files that this process and its children have open or mapped."""
    for pid in ("self", *_children("self")):
        try:
            with os.scandir(f"/proc/{pid}/fd") as entries:
                links = [entry.path for entry in entries]
            with _REAL_OPEN(f"/proc/{pid}/maps", errors="surrogateescape") as maps:
                yield from {line.split(maxsplit=5)[5].rstrip("\n") for line in maps if line.count(" /")}
        except OSError:
            continue
        for link in links:
            try:
                yield _REAL_READLINK(link)
            except OSError:
                continue


_REAL_OPEN, _REAL_READLINK, _REAL_UNLINK = open, os.readlink, os.unlink


def _children(pid: str) -> Iterator[str]:
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return
    for task in tasks:
        try:
            with _REAL_OPEN(f"/proc/{pid}/task/{task}/children") as file:
                found = file.read().split()
        except OSError:
            continue
        for child in found:
            yield child
            yield from _children(child)


def _renaming(real: Callable[..., None]) -> Callable[..., None]:
    def rename(src: Any, dst: Any, **options: Any) -> None:
        if not _is_lenient():
            _check_closed(src)
            _check_name(dst)
            if os.path.lexists(dst) and not os.path.samefile(src, dst):
                raise _error(FileExistsError, errno.EEXIST, "Cannot create a file that exists", dst, _EXISTS)
        real(src, dst, **options)

    return rename


def _replacing(real: Callable[..., None]) -> Callable[..., None]:
    def replace(src: Any, dst: Any, **options: Any) -> None:
        if not _is_lenient():
            _check_closed(src)
            _check_closed(dst)
            _check_name(dst)
            if os.path.isdir(dst):
                raise _error(PermissionError, errno.EACCES, "Access is denied", dst, _ACCESS_DENIED)
        real(src, dst, **options)

    return replace


def _removing(real: Callable[..., None]) -> Callable[..., None]:
    def remove(path: Any, **options: Any) -> None:
        if not _is_lenient():
            _check_closed(path)
        real(path, **options)

    return remove


def _opening(real: Callable[..., int]) -> Callable[..., int]:
    def open_descriptor(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if not _is_lenient():
            _check_file(path, creating=bool(flags & os.O_CREAT))
            if _for_cellstamp() and os.path.isfile(path) and not flags & _BINARY:
                raise AssertionError(f"{path}: os.open translates line ends on Windows; use Path.open (foreign system)")
        number = real(path, flags & ~(_BINARY | _TEMPORARY), *more, **options)
        if flags & _TEMPORARY:
            _TEMPORARY_FILES[number] = os.path.realpath(path)
        return number

    return open_descriptor


_TEMPORARY_FILES: dict[int, str] = {}
"""Files that are removed when they are closed, by descriptor."""


def _closing(real: Callable[[int], None]) -> Callable[[int], None]:
    remove = _REAL_UNLINK

    def close(fd: int) -> None:
        real(fd)
        path = _TEMPORARY_FILES.pop(fd, None)
        if path is not None and path not in _open_files():
            remove(path)

    return close


def _making(real: Callable[..., None]) -> Callable[..., None]:
    def mkdir(path: Any, *more: Any, **options: Any) -> None:
        _check_name(path)
        real(path, *more, **options)

    return mkdir


def _linking(real: Callable[..., None]) -> Callable[..., None]:
    def symlink(src: Any, dst: Any, *more: Any, **options: Any) -> None:
        # tests make links to see whether cellstamp follows them
        if _caller() == "cellstamp":
            raise _error(OSError, errno.EINVAL, "A required privilege is not held", dst, _NO_PRIVILEGE)
        real(src, dst, *more, **options)

    return symlink


def _reading_link(real: Callable[..., str]) -> Callable[..., str]:
    def readlink(path: Any, **options: Any) -> str:
        _check_exists(path)
        return real(path, **options)

    return readlink


def _syncing(real: Callable[[int], None]) -> Callable[[int], None]:
    import fcntl

    def fsync(fd: Any) -> None:
        number = fd if isinstance(fd, int) else fd.fileno()
        if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor: not open for writing (foreign system)")
        real(fd)

    return fsync


# --- macOS ------------------------------------------------------------------------------------------------------------


def _become_macos() -> None:
    """Have the command that empties the cache of a drive, and 256 open files."""
    import fcntl
    import resource

    _check_when_opened(lambda path, mode: _check_exists(path))
    fcntl.F_FULLFSYNC = 51  # type: ignore[attr-defined]
    real = fcntl.fcntl

    def with_full_sync(fd: Any, cmd: int, arg: Any = 0) -> Any:
        if cmd == 51:
            os.fsync(fd)
            return 0
        return real(fd, cmd, arg)

    fcntl.fcntl = with_full_sync
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256) if soft > 0 else 256, hard))
