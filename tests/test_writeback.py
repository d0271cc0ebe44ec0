"""A growing file is brought to the disk in the background, and errors of that are raised."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from cellstamp.h5sc.writeback import Writeback

pytestmark = pytest.mark.once


def test_an_error_of_the_thread_is_raised_at_the_end(tmp_path: Path) -> None:
    reading, writing = os.pipe()  # a pipe cannot be brought to a disk
    with (tmp_path / "file").open("wb") as file:
        descriptors = iter([file.fileno(), writing, file.fileno()])
        writeback = Writeback(lambda: os.fsync(next(descriptors)))
        writeback.finish()
        writeback.begin()
        writeback._thread.join()
        with pytest.raises(OSError, match="Invalid argument"):
            writeback.finish()
        writeback.stop()
    os.close(reading)
    os.close(writing)


def test_its_thread_ends(tmp_path: Path) -> None:
    before = threading.active_count()
    with (tmp_path / "file").open("wb") as file:
        writeback = Writeback(lambda: os.fsync(file.fileno()))
        file.write(b"some bytes")
        file.flush()
        writeback.begin()
        writeback.finish()
        writeback.stop()
    assert threading.active_count() == before
