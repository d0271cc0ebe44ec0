"""A growing `.h5sc` file is brought to the disk meanwhile, and what goes wrong there is told.

Shards are brought to the disk one by one, by `cellstamp.zarr_store.writer`.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from cellstamp.h5sc.writeback import Writeback

pytestmark = pytest.mark.once


def test_an_error_is_told_when_asked(tmp_path: Path) -> None:
    reading, writing = os.pipe()  # a pipe cannot be brought to a disk
    writeback = Writeback(lambda: os.fsync(writing))
    writeback.check()
    writeback.begin()
    writeback._thread.join()
    with pytest.raises(OSError, match="Invalid argument"):
        writeback.check()
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
        writeback.stop()
        writeback.check()
    assert threading.active_count() == before
