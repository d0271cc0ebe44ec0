"""Whether the kernels have been compiled on this machine before, told from numba's files: importing it takes long."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ANNOUNCEMENT = (
    "first run of this version on this machine: compiling, which takes 20 seconds or so; numba keeps the result for "
    "the runs to come"
)


def is_compiled() -> bool:
    """Whether numba has kept compiled kernels since they were last changed, by the names it gives its indexes."""
    changed = Path(__file__).with_name("kernels.py").stat().st_mtime
    name = "kernels.cut_stamps-*.py{}{}.nbi".format(*sys.version_info)
    indexes = (index for place in _places() for index in place.glob(name))
    return any(index.stat().st_mtime >= changed for index in indexes)


def _places() -> list[Path]:
    """Where numba keeps what it compiled: where it is told to, else beside the source, else in the user's cache."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        return [*Path(chosen).glob("cells_*")]
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return [Path(__file__).with_name("__pycache__"), *(users / "numba").glob("cells_*")]
