"""What differs between Linux, macOS and Windows: files, locks, processes and the C library.

Each function works on all three. It looks for the feature, not for the name of the system.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from cellstamp.errors import OutputError

if TYPE_CHECKING:
    from filelock import BaseFileLock

_UNSUPPORTED = {errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS, errno.ENOTTY}
"""Errors of file systems that lack a feature."""
_OPEN_ELSEWHERE = {5, 32}
"""Windows' error codes for a file or folder that a program has open."""
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds between attempts: on Windows, virus scanners and search indexers open new files for a moment."""
_ZEROS = 2**20
_KEEP_SIZE = 1
"""``FALLOC_FL_KEEP_SIZE`` of Linux."""
_OOM_SCORE_OF_WORKERS = 300
"""Weighs like 300 thousandths of all memory, so the caller is killed only if it is much larger than its workers."""


# --- bring files to the disk ------------------------------------------------------------------------------------------


def sync(descriptor: int) -> None:
    """Bring an open file to the disk. It must be open for writing, or Windows refuses.

    On macOS, ``fsync`` leaves the data in the cache of the drive; ``F_FULLFSYNC`` writes it to the disk.
    """
    if not _sync_through_cache(descriptor):
        os.fsync(descriptor)


def _sync_through_cache(descriptor: int) -> bool:
    """Sync with macOS' command; return False where there is none."""
    fcntl = _module("fcntl")
    command = getattr(fcntl, "F_FULLFSYNC", None)
    if fcntl is None or command is None:
        return False
    try:
        fcntl.fcntl(descriptor, command)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:  # a network file system may lack it
            raise
        return False
    return True


def begin_writeback(descriptor: int) -> None:
    """Have the system begin to write a file to the disk, without waiting, so that a later sync takes little time."""
    # Linux begins to write modified pages, and keeps them until they are written
    advise, not_needed = getattr(os, "posix_fadvise", None), getattr(os, "POSIX_FADV_DONTNEED", None)
    if advise is not None:
        advise(descriptor, 0, 0, not_needed)


def sync_file(path: Path) -> None:
    """Bring a closed file to the disk."""
    with path.open("r+b", buffering=0) as file:
        sync(file.fileno())


def sync_folder(path: Path) -> None:
    """Bring the names in a folder to the disk. Windows cannot open folders, and its file systems log names."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- read and reserve bytes of a file ---------------------------------------------------------------------------------


class RawFile:
    """A file to read at any position, from any thread. A context manager; closes the file.

    It is opened separately from other users of the file. HDF5, for example, remembers the position of its descriptor,
    which reading would move where ``pread`` is missing.

    Parameters
    ----------
    path
        The file.
    writable
        Whether it can be synced and reserved.
    """

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        # not os.open, which translates line ends on Windows
        self._file = path.open("r+b" if writable else "rb", buffering=0)
        self._number = self._file.fileno()
        self._turn = threading.Lock()

    def status(self) -> os.stat_result:
        """Return size, times and inode of the open file."""
        return os.fstat(self._number)

    def read_into(self, target: memoryview, start: int) -> int:
        """Read bytes from a position; return their number, 0 at the end of the file."""
        if hasattr(os, "preadv"):
            n_bytes: int = os.preadv(self._number, [target], start)
            return n_bytes
        with self._turn:
            self._file.seek(start)
            return self._file.readinto(target)

    def read(self, n_bytes: int, start: int) -> bytes:
        """Return this many bytes from a position, or fewer at the end of the file."""
        data = bytearray(n_bytes)
        view, done = memoryview(data), 0
        while done < n_bytes and (got := self.read_into(view[done:], start + done)):
            done += got
        return bytes(view[:done])

    def sync(self) -> None:
        """Bring the file to the disk, also bytes written through other descriptors."""
        sync(self._number)

    def reserve(self, n_bytes: int) -> None:
        """Reserve disk space for the first bytes of the file, if the file system can; their content is kept.

        Raises
        ------
        OSError
            If the disk is full.
        """
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self._number, 0, n_bytes)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
            return
        with self._turn:
            self._extend(n_bytes)

    def reserve_ahead(self, start: int, n_bytes: int) -> bool:
        """Reserve disk space from a position on, also after the end, and keep the size of the file.

        Only Linux and some file systems can. `release_ahead` releases the rest.

        Returns
        -------
        bool
            Whether the space is reserved.
        """
        fallocate = c_function("fallocate64") or c_function("fallocate")  # musl has only the latter, of 64 bits
        if fallocate is None:
            return False
        fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        return bool(fallocate(self._number, _KEEP_SIZE, start, n_bytes) == 0)

    def release_ahead(self) -> None:
        """Release disk space that is reserved after the end of the file."""
        self._file.truncate(self.status().st_size)

    def _extend(self, n_bytes: int) -> None:
        """Write zeros after the end: a file that was only made longer takes no space on macOS."""
        end = self._file.seek(0, os.SEEK_END)
        while end < n_bytes:
            end += self._file.write(bytes(min(_ZEROS, n_bytes - end)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# --- rename and link --------------------------------------------------------------------------------------------------


def replace_file(source: Path, target: Path) -> None:
    """Give a file its final name; an existing file is replaced.

    Raises
    ------
    OutputError
        If a program has one of the files open, on Windows.
    """
    _when_closed(lambda: source.replace(target), target)


def check_replaceable(path: Path) -> None:
    """Check that a file, or a file in a folder, is not open in another program: Windows does not replace it then.

    Raises
    ------
    OutputError
        If it is open.
    """
    if path.exists():
        # a new name that is the old one changes nothing, but needs the same access; Windows replaces no folders
        rename = path.rename if path.is_dir() else path.replace
        _when_closed(lambda: rename(path), path)


def move_folder(source: Path, target: Path) -> None:
    """Rename a folder; an empty folder with the new name is replaced.

    Raises
    ------
    OutputError
        If a program has a file in it open, on Windows.
    """

    def move() -> None:
        try:
            source.rename(target)
        except FileExistsError:  # Windows does not replace empty folders
            target.rmdir()
            source.rename(target)

    _when_closed(move, source)


def replace_folder(source: Path, target: Path) -> None:
    """Give a folder its final name; a folder, file or link with this name is replaced.

    No system replaces a filled folder in one step: for a moment, nothing has the name. If the new folder does not get
    it, the earlier one has it again.

    Raises
    ------
    OutputError
        If a program has a file in one of them open, on Windows.
    """
    before = target.with_name(f".{target.name}.replaced")
    try:
        if os.path.lexists(target):
            remove(before)
            move_folder(target, before)
        move_folder(source, target)
    except BaseException:
        if os.path.lexists(before) and not os.path.lexists(target):
            before.rename(target)
        raise
    remove(before)


def remove(path: Path) -> None:
    """Remove a folder, file or link, if it exists."""
    if path.is_dir() and not path.is_symlink():
        remove_folder(path)
    else:
        path.unlink(missing_ok=True)


def remove_folder(path: Path) -> None:
    """Remove a folder and its content.

    Raises
    ------
    OutputError
        If a program has a file in it open, on Windows.
    """
    _when_closed(lambda: shutil.rmtree(path), path)


def _when_closed(action: Callable[[], object], path: Path) -> None:
    """Do something to a file or folder as soon as no other program has it open."""
    for pause in (*_PAUSES, None):
        try:
            action()
        except PermissionError as error:
            if getattr(error, "winerror", None) not in _OPEN_ELSEWHERE:
                raise
            if pause is None:
                raise OutputError(
                    f"{path} cannot be replaced or removed: a program has it open, or you may not change it. Close it "
                    "there (in Python, delete the objects that read it, or restart the notebook), and run again"
                ) from error
            time.sleep(pause)
        else:
            return


def link_folder(link: Path, target: Path) -> None:
    """Make a folder of which the files are those of another, which must not be changed through it.

    It is a link where users may make links. On Windows it is a junction, which needs no privilege. Elsewhere it has
    hard links to the files, or copies of them.
    """
    for make in (_symbolic_link, _junction):
        with suppress(OSError):
            make(link, target)
            return
    shutil.copytree(target, link, copy_function=_hard_link)


def _symbolic_link(link: Path, target: Path) -> None:
    link.symlink_to(target, target_is_directory=True)


def _junction(link: Path, target: Path) -> None:
    winapi = _module("_winapi")
    if winapi is None:
        raise OSError(errno.ENOSYS, "this system has no junctions")
    winapi.CreateJunction(str(target.absolute()), str(link.absolute()))


def _hard_link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except (OSError, AttributeError):
        shutil.copy2(source, target)


# --- locks ------------------------------------------------------------------------------------------------------------


def acquire_lock(path: Path, *, wait: bool = False) -> BaseFileLock:
    """Lock a file. The system releases the lock when this process ends, also after a crash.

    Raises
    ------
    filelock.Timeout
        If another process, or another part of this one, holds it, and ``wait`` is not set.
    """
    from filelock import FileLock, SoftFileLock  # most processes need no lock

    timeout = -1.0 if wait else 0.0
    try:
        lock: BaseFileLock = FileLock(path, timeout=timeout)
        lock.acquire()
    except NotImplementedError:
        # on a network file system without locks, the existence of a file is the lock
        lock = SoftFileLock(path.with_suffix(".softlock"), timeout=timeout)
        lock.acquire()
    return lock


def release_and_remove(lock: BaseFileLock, path: Path) -> None:
    """Release a lock and remove its file, such that no other process holds the lock of a removed file."""
    try:
        path.unlink(missing_ok=True)
    except PermissionError:
        # Windows removes only closed files, so after the release only one that nobody has locked
        lock.release()
        with suppress(PermissionError):
            path.unlink(missing_ok=True)
    else:
        lock.release()


# --- processes --------------------------------------------------------------------------------------------------------


def is_running(pid: int, started: str) -> bool:
    """Return whether the process with this id is the one of `process_start`, and not a later one with the same id."""
    import psutil

    if not psutil.pid_exists(pid):
        return False
    try:
        return process_start(pid) == started
    except psutil.AccessDenied:
        return True
    except psutil.NoSuchProcess:
        # where processes of other users are hidden, one may exist and not be seen
        return bool(psutil.pid_exists(pid))


def process_start(pid: int) -> str:
    """Return when a process began; on Linux counted from the boot, so that setting the clock changes nothing."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        import psutil

        process = psutil.Process(pid)
        return "ended" if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.0f}"
    # a zombie has ended, though its parent has not noticed
    return f"{boot} {fields[19].decode()}" if fields[0] not in b"ZX" else "ended"


def kill_first(pid: int) -> None:
    """Ask Linux to kill a worker before its caller if memory runs out: it can be replaced. Other systems don't."""
    score = Path(f"/proc/{pid}/oom_score_adj")
    with suppress(OSError, ValueError):
        raised = min(int(score.read_text(encoding="ascii")) + _OOM_SCORE_OF_WORKERS, 1000)
        score.write_text(str(raised), encoding="ascii")


def return_freed_memory() -> None:
    """Return freed memory to the system, which glibc and pyarrow keep."""
    arrow = sys.modules.get("pyarrow")
    if arrow is not None:
        arrow.default_memory_pool().release_unused()
    trim = c_function("malloc_trim")
    if trim is not None:
        trim(0)


# --- the C library ----------------------------------------------------------------------------------------------------


def c_function(name: str) -> Any:
    """Return a function of the C library that this process uses; None if it has no such function."""
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows has no handle for all libraries of a process
        return None
    return getattr(library, name, None)


def _module(name: str) -> Any:
    """Return a module of the standard library; None on systems without it."""
    try:
        return import_module(name)
    except ImportError:
        return None
