"""Open `.h5sc` files of cellstamp and scportrait."""

from __future__ import annotations

from pathlib import Path

import h5py

from cellstamp.errors import InputError
from cellstamp.h5sc.layout import IMAGES


def open_h5sc(path: Path) -> h5py.File:
    """Open a file for reading, and check that it is an `.h5sc` file.

    Raises
    ------
    InputError
        If the file is missing, damaged, or not an `.h5sc` file.
    """
    if not path.is_file():
        message = f"there is no file {path}"
        raise InputError(message)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        message = f"{path} is not an HDF5 file, or it is damaged: {error}"
        raise InputError(message) from error
    problem = _problem(file)
    if problem is not None:
        file.close()
        message = f"{path} is not an .h5sc file: {problem}"
        raise InputError(message)
    return file


def _problem(file: h5py.File) -> str | None:
    """Return why an HDF5 file is not an `.h5sc` file."""
    missing = [name for name in (f"obsm/{IMAGES}", "obs", "var", "uns") if name not in file]
    if missing:
        return f"it lacks {', '.join(missing)}"
    images = file["obsm"][IMAGES]
    if not isinstance(images, h5py.Dataset) or images.ndim != 4:
        return f"obsm/{IMAGES} must be an array with four axes"
    return None
