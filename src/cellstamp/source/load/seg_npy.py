"""Read Cellpose's ``_seg.npy``, a pickled dictionary, without running code in it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cellstamp.errors import InputError

_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    # older and newer names of the same functions of numpy
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
}
"""Names that pickles of NumPy arrays and numbers need. Builtin containers, text and numbers need none."""

_DAMAGED = (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, KeyError, IndexError, OSError)


class _ArraysOnly(pickle.Unpickler):
    """Unpickles arrays in containers; anything else could run code."""

    def find_class(self, module: str, name: str) -> Any:
        """Look up a class or function by its name."""
        if (module, name) not in _ALLOWED:
            raise _ForbiddenError(f"{module}.{name}")
        return super().find_class(module, name)


class _ForbiddenError(Exception):
    """A pickle that names something other than arrays."""


def read_seg_npy(path: Path) -> Any:
    """Read the array ``masks`` of a file that Cellpose wrote.

    Parameters
    ----------
    path
        A ``.npy`` file of a dictionary with arrays, numbers, text, lists and dictionaries.

    Returns
    -------
    numpy.ndarray
        Its ``"masks"``.

    Raises
    ------
    InputError
        If the pickle has other objects than arrays and numbers, is damaged, or has no masks.
    """
    try:
        with path.open("rb") as file:
            _skip_header(file)
            content = _ArraysOnly(file).load()
    except _ForbiddenError as error:
        raise InputError(
            f"{path}: holds a pickled {error}; only arrays, numbers, text, lists and dictionaries are read, since "
            "other pickles can run code. If you trust the file, load its array: "
            f"numpy.load({str(path)!r}, allow_pickle=True).item()['masks']"
        ) from error
    except _DAMAGED as error:
        raise InputError(f"{path}: cannot be read as a pickled .npy file: {error}; write it again") from error
    content = content.item() if isinstance(content, np.ndarray) and content.size == 1 else content
    if not isinstance(content, dict) or not isinstance(content.get("masks"), np.ndarray):
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise InputError(
            f"{path}: holds no array named 'masks' (it holds: {found}). Cellpose's _seg.npy files have one; "
            "save a mask of your own with numpy.save"
        )
    return content["masks"]


def _skip_header(file: BinaryIO) -> None:
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(file)
    if version not in read_header:
        raise ValueError(f"version {version} of the format is unknown")
    read_header[version](file)
