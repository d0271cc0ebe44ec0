"""Stores that spatialdata writes once in a test run; each test gets a copy, made in milliseconds."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

_FOLDERS: list[Path] = []
"""Where they are kept, as soon as tests run; processes that tests start keep none."""


def keep_in(folder: Path) -> None:
    """Keep stores in a folder from now on."""
    _FOLDERS[:] = [folder]


def written(path: Path, write: Callable[[Path], Any], *content: Any) -> Path:
    """Return ``path``, with the store of this content: ``write(path)`` if it was not written before, else a copy.

    The content, which all of the store follows from, consists of numpy arrays and plain values.
    """
    if not _FOLDERS or path.exists():
        write(path)
        return path
    kept = _FOLDERS[0] / hashlib.sha256(pickle.dumps(content)).hexdigest()
    if not kept.exists():
        write(path)
        aside = kept.with_suffix(".new")
        shutil.copytree(path, aside)
        aside.rename(kept)
        return path
    # files are new ones, as when they are written
    return Path(shutil.copytree(kept, path, copy_function=shutil.copyfile))
