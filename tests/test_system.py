"""Files, locks, processes and the C library, with and without what a system lacks."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from filelock import Timeout

from cellstamp.errors import OutputError
from cellstamp.system import (
    RawFile,
    acquire_lock,
    c_function,
    check_replaceable,
    is_running,
    link_folder,
    move_folder,
    process_start,
    release_and_remove,
    remove_folder,
    replace_file,
    sync_file,
    sync_folder,
)

pytestmark = pytest.mark.once


@pytest.fixture(params=[True, False], ids=["with preadv", "without"])
def content(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A file ``file`` of bytes that a text file would change."""
    if not request.param:
        monkeypatch.delattr(os, "preadv", raising=False)
    content = b"\r\n\x1a" * 1000 + np.random.default_rng(0).bytes(50_000)
    (tmp_path / "file").write_bytes(content)
    return content


def test_bytes_from_any_position(tmp_path: Path, content: bytes) -> None:
    with RawFile(tmp_path / "file") as file:
        assert file.read(100, 5) == content[5:105]
        assert file.read(len(content), 0) == content
        assert file.read(100, len(content) - 3) == content[-3:]
        assert file.read_into(memoryview(bytearray(8)), len(content)) == 0
        assert file.status().st_size == len(content)


def test_many_threads_read_one_file(tmp_path: Path, content: bytes) -> None:
    starts = np.random.default_rng(1).integers(0, len(content) - 200, 2000).tolist()
    with RawFile(tmp_path / "file") as file, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda start: file.read(200, start) == content[start : start + 200], starts))


@pytest.mark.parametrize("missing", [None, "posix_fallocate"])
def test_reserved_space_keeps_the_content(tmp_path: Path, missing: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing:
        monkeypatch.delattr(os, missing)
    path = tmp_path / "file"
    path.write_bytes(b"kept")
    with RawFile(path, writable=True) as file:
        file.reserve(3_000_000)
        file.sync()
        assert file.read(4, 0) == b"kept"
        file.reserve(2)
    assert path.stat().st_size == 3_000_000
    assert path.stat().st_blocks * 512 >= 3_000_000
    assert path.read_bytes()[4:] == bytes(2_999_996)


def test_space_after_the_end_is_reserved(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"kept")
    with RawFile(path, writable=True) as file:
        if not file.reserve_ahead(4, 3_000_000):
            pytest.skip("this system or file system reserves no space after the end of a file")
        assert path.read_bytes() == b"kept"
        assert path.stat().st_blocks * 512 >= 3_000_000
        file.release_ahead()
    assert path.read_bytes() == b"kept"
    assert path.stat().st_blocks * 512 < 100_000


def test_space_that_the_disk_lacks_is_not_reserved(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with RawFile(path, writable=True) as file:
        assert not file.reserve_ahead(0, 2**60)
    assert path.stat().st_size == 0


def test_a_full_disk_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    with RawFile(Path("/dev/full"), writable=True) as file, pytest.raises(OSError, match="No space left on device"):
        file.reserve(10)


def test_files_and_folders_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"1")
    sync_file(tmp_path / "file")
    sync_folder(tmp_path)
    monkeypatch.delattr(os, "O_DIRECTORY")
    sync_folder(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.EIO])
def test_macos_command_that_empties_the_cache_of_the_drive(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network file system lacks it; other errors are reported."""
    synced = []

    def command(descriptor: int, which: int) -> None:
        assert which == 51
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", command)
    monkeypatch.setattr(os, "fsync", synced.append)
    (tmp_path / "file").write_bytes(b"1")
    with pytest.raises(OSError, match="Input/output error") if number == errno.EIO else nullcontext():
        sync_file(tmp_path / "file")
    assert len(synced) == (number != errno.EIO)


def test_a_folder_is_removed(tmp_path: Path) -> None:
    (tmp_path / "folder/inner").mkdir(parents=True)
    remove_folder(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


class TestMovingFolders:
    def test_an_empty_folder_is_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "new/inner").mkdir(parents=True)
        (tmp_path / "target").mkdir()
        move_folder(tmp_path / "new", tmp_path / "target")
        assert (tmp_path / "target/inner").is_dir()
        assert not (tmp_path / "new").exists()

    def test_an_empty_folder_is_replaced_on_windows(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = os.rename

        def rename(source: Path, target: Path) -> None:
            if target.exists():
                raise FileExistsError(errno.EEXIST, "exists", str(target))
            real(source, target)

        monkeypatch.setattr(os, "rename", rename)
        self.test_an_empty_folder_is_replaced(tmp_path)

    def test_a_filled_folder_is_kept(self, tmp_path: Path) -> None:
        (tmp_path / "new").mkdir()
        (tmp_path / "target/inner").mkdir(parents=True)
        with pytest.raises(OSError, match="not empty"):
            move_folder(tmp_path / "new", tmp_path / "target")
        assert (tmp_path / "target/inner").is_dir()
        assert (tmp_path / "new").is_dir()


class TestOpenElsewhere:
    """On Windows, an open file keeps its name."""

    @pytest.fixture
    def held(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """The number of times that a file is still open, as a list of one."""
        real, times = os.replace, [0]

        def replace(source: Path, target: Path) -> None:
            if times[0]:
                times[0] -= 1
                error = PermissionError(errno.EACCES, "It is being used by another process", str(target))
                error.winerror = 32  # type: ignore[attr-defined]
                raise error
            real(source, target)

        monkeypatch.setattr(os, "replace", replace)
        monkeypatch.setattr("cellstamp.system._PAUSES", (0.0,) * 5)
        (tmp_path / "new").write_bytes(b"new")
        (tmp_path / "target").write_bytes(b"old")
        return times

    def test_a_scanner_that_holds_it_for_a_moment_is_waited_for(self, tmp_path: Path, held: list[int]) -> None:
        held[0] = 3
        replace_file(tmp_path / "new", tmp_path / "target")
        assert (tmp_path / "target").read_bytes() == b"new"

    def test_a_program_that_keeps_it_open_is_an_error(self, tmp_path: Path, held: list[int]) -> None:
        held[0] = 100
        told = r"target cannot be replaced or removed: a program has it open, or you may not change it\. Close"
        with pytest.raises(OutputError, match=told):
            replace_file(tmp_path / "new", tmp_path / "target")
        assert (tmp_path / "target").read_bytes() == b"old"
        with pytest.raises(OutputError, match="target cannot be replaced"):
            check_replaceable(tmp_path / "target")
        held[0] = 0
        check_replaceable(tmp_path / "target")
        check_replaceable(tmp_path / "missing")

    def test_a_folder_without_rights_is_another_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(os, "replace", refuse)
        with pytest.raises(PermissionError, match="Permission denied"):
            replace_file(tmp_path / "new", tmp_path / "target")


@pytest.mark.parametrize("missing", [(), ("symlink",), ("symlink", "link")], ids=["links", "hard links", "copies"])
def test_a_folder_with_the_files_of_another(
    tmp_path: Path, missing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    for name in missing:
        monkeypatch.setattr(os, name, refuse)
    target = tmp_path / "array/c/0"
    target.mkdir(parents=True)
    (target / "0").write_bytes(b"chunk")
    link_folder(tmp_path / "link", tmp_path / "array")
    assert (tmp_path / "link/c/0/0").read_bytes() == b"chunk"
    assert (tmp_path / "link").is_symlink() == (not missing)
    assert (target / "0").stat().st_nlink == (2 if missing == ("symlink",) else 1)
    assert (tmp_path / "link/c/0/0").stat().st_mtime_ns == (target / "0").stat().st_mtime_ns


class TestLocks:
    def test_one_holder(self, tmp_path: Path) -> None:
        path = tmp_path / "lock"
        lock = acquire_lock(path)
        with pytest.raises(Timeout, match="lock"):
            acquire_lock(path)
        release_and_remove(lock, path)
        assert not path.exists()
        release_and_remove(acquire_lock(path), path)

    def test_waiting_for_it(self, tmp_path: Path) -> None:
        path, order = tmp_path / "lock", []
        lock = acquire_lock(path)

        def wait() -> None:
            waited = acquire_lock(path, wait=True)
            order.append("second")
            waited.release()

        thread = threading.Thread(target=wait)
        thread.start()
        order.append("first")
        lock.release()
        thread.join()
        assert order == ["first", "second"]

    def test_open_files_that_cannot_be_removed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As on Windows: removed after the release."""
        path = tmp_path / "lock"
        lock, real = acquire_lock(path), os.unlink

        def unlink(which: Path) -> None:
            if lock.is_locked:
                raise PermissionError(errno.EACCES, "It is being used by another process")
            real(which)

        monkeypatch.setattr(os, "unlink", unlink)
        release_and_remove(lock, path)
        assert not lock.is_locked
        assert not path.exists()


def test_a_process_is_known_by_its_start() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        started = process_start(child.pid)
        assert is_running(child.pid, started)
        assert not is_running(child.pid, "another time")
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is a zombie
        assert not is_running(child.pid, started)
    assert not is_running(child.pid, started)


def test_functions_of_the_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    absolute = c_function("abs")
    assert absolute is not None
    assert absolute(-3) == 3
    assert c_function("no_such_function") is None

    def refuse(name: object) -> None:
        raise TypeError("LoadLibrary() argument 1 must be str, not None")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert c_function("abs") is None
