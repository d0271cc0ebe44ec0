"""Repeat the image of a sample without copying it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np


def link_chunks(source: Path, target: Path, n: int) -> None:
    """Fill an image with n x n copies of another: hard links to the files of its chunks."""
    for file in source.rglob("*"):
        if file.is_file():
            channel, row, column = map(int, file.relative_to(source).parts)
            side = sum(1 for _ in (source / str(channel)).iterdir())
            for i, j in np.ndindex(n, n):
                place = target / str(channel) / str(row + i * side) / str(column + j * side)
                place.parent.mkdir(parents=True, exist_ok=True)
                os.link(file, place)
