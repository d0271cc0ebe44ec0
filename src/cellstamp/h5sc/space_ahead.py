"""Reserve disk space for a growing file in large pieces, which makes writing faster."""

from __future__ import annotations

import shutil
from pathlib import Path

from cellstamp.system import RawFile

_PIECE = 2**26
"""Bytes that are reserved at once."""
_AMPLE = 32 * _PIECE
"""Bytes of free space below which nothing is reserved: other files need it."""


class SpaceAhead:
    """Disk space after the end of a file.

    Writing into reserved space saves 2 of 12 µs that the system takes for the 21 kB of a cell. The file must be
    truncated to its size when it is closed.

    Parameters
    ----------
    path
        The file, which another handle writes.
    file
        The same file.
    """

    def __init__(self, path: Path, file: RawFile) -> None:
        self._path, self._file = path, file
        self._end = 0
        self._is_useful = True

    def reserve(self, n_bytes: int) -> None:
        """Reserve space for the next bytes, unless it is reserved already or little is free."""
        size = self._file.status().st_size
        if self._is_useful and size + n_bytes > self._end:
            self._end = size + n_bytes + _PIECE
            is_ample = shutil.disk_usage(self._path.parent).free > _AMPLE
            self._is_useful = is_ample and self._file.reserve_ahead(size, self._end - size)
