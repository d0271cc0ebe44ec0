"""Files written by our writer, for tests of the format. Not a test module."""

from __future__ import annotations

from pathlib import Path

from cellstamp.h5sc.layout import Layout
from cellstamp.h5sc.writer import StampWriter


def new_writer(path: Path, layout: Layout) -> StampWriter:
    """A writer of a new file, with its journal beside it."""
    return StampWriter(path, layout, path.with_suffix(".journal"), {})
