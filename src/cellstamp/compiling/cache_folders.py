"""Find the folder for compiled code, and the code in it. Doesn't import numba, which is slow."""

from __future__ import annotations

import hashlib
import os
import platform
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import NamedTuple

_PACKAGE = Path(__file__).parents[1]
SOURCES = (
    "cells/kernels/bit_rows.py",
    "cells/kernels/blur.py",
    "cells/kernels/boxes.py",
    "cells/kernels/counted.py",
    "cells/kernels/crops.py",
    "cells/kernels/holes.py",
    "cells/kernels/hull.py",
    "cells/kernels/intensity.py",
    "cells/kernels/masks.py",
    "cells/kernels/measure.py",
    "cells/kernels/outlines.py",
    "cells/kernels/parts.py",
    "cells/kernels/quantiles.py",
    "cells/kernels/rounding.py",
    "cells/kernels/shape.py",
    "cells/kernels/sorting.py",
    "encoding.py",
    "compiling/decorators.py",
    "decoding.py",
    "source/read/runs.py",
    "source/read/sampling.py",
)
"""Files of compiled functions. A change in one makes all compiled code invalid, since functions include others."""
_INDEX, _CODE = ".nbi", ".nbc"
"""Ends of names, as numba chooses them: of the file that lists a function's machine code, and of machine code."""
_CPU_BYTES = 8192
"""Bytes of ``/proc/cpuinfo`` that describe the first core."""
_CPU_LINES = ("model name", "flags", "CPU part", "Features")


class Types(NamedTuple):
    """Pixel types that the kernels of an extraction are compiled for, as numpy names them.

    Attributes
    ----------
    labels, image
        Types of masks and image in memory.
    stamps
        Type of single-cell images in the file.
    """

    labels: str = "uint32"
    image: str = "uint16"
    stamps: str = "float16"

    def __str__(self) -> str:
        return f"{self.labels} masks, a {self.image} image and {self.stamps} single-cell images"

    @property
    def in_memory(self) -> str:
        """Type of single-cell images in memory: kernels write float16 as bits in uint16."""
        return "uint16" if self.stamps == "float16" else self.stamps


Names = tuple[str, ...]
"""`Types` of kernels, or names of other functions and the types that they are compiled for."""

USUAL = Types()


class Folders(NamedTuple):
    """Folders for compiled code.

    Attributes
    ----------
    writable
        Where code is kept; None if no folder is writable.
    read_only
        Where code is only loaded from: those of a container image or of an installation for all users.
    """

    writable: Path | None
    read_only: tuple[Path, ...] = ()

    @property
    def to_load_from(self) -> tuple[Path, ...]:
        """All folders, in the order they are searched."""
        return self.read_only if self.writable is None else (self.writable, *self.read_only)


def find_folders() -> Folders:
    """Find the folders for compiled code: the first that can be written to, and those that are only readable.

    In this order: below ``NUMBA_CACHE_DIR``; ``__pycache__`` of the installed package; below the user's cache folder;
    below a private folder of this user in the temporary directory. Only the first two may be read-only: nobody but
    their owner, whose package runs anyway, can have filled them.
    """
    shared, read_only = tuple(_shared()), list[Path]()
    for folder in chain(shared, _private()):
        if _is_writable(folder):
            return Folders(folder, tuple(read_only))
        if folder in shared and folder.is_dir():
            read_only.append(folder)
    return Folders(None, tuple(read_only))


def find_folder() -> Path | None:
    """Find the folder that compiled code is kept in: the first of `find_folders` that can be written to, or None."""
    return find_folders().writable


def _shared() -> Iterator[Path]:
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(chosen) / _ours()
    yield _PACKAGE / "__pycache__"


def _private() -> Iterator[Path]:
    yield from (folder / _ours() for folder in _user_caches())
    with suppress(OSError):  # no temporary directory, or no private folder in it
        yield _private_folder(Path(tempfile.gettempdir())) / _ours()


def _ours() -> str:
    """Return the name of our folder below another; several installations may share that one."""
    return f"cellstamp_{hashlib.sha256(os.fsencode(_PACKAGE)).hexdigest()[:16]}"


def _user_caches() -> Iterator[Path]:
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        yield Path(chosen)
    with suppress(RuntimeError):  # the system does not know the user
        if Path.home().is_dir():
            yield Path.home() / ".cache"


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _private_folder(parent: Path) -> Path:
    """Create a folder that only this user can write to, since its compiled code is executed.

    Raises
    ------
    PermissionError
        Another user could write to the folder.
    """
    folder = parent / _private_name()
    folder.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid"):
        found, around = folder.lstat(), parent.stat()
        is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
        may_be_replaced = around.st_mode & 0o022 and not around.st_mode & stat.S_ISVTX
        if not is_ours or may_be_replaced:
            raise PermissionError(f"{folder} is not private")
    return folder


def _private_name() -> str:
    return f"cellstamp-{os.getuid() if hasattr(os, 'getuid') else 'user'}"


def is_in_temporary_directory(folder: Path) -> bool:
    """Whether a folder of `find_folder` is in the temporary directory."""
    return folder.parent.name == _private_name()


# --- compiled code in the folder --------------------------------------------------------------------------------------


def is_kept(types: Names) -> bool:
    """Whether the functions for these types are compiled, by this version and for this processor, and are intact.

    Missing files and files of another size are noticed. Code that is damaged otherwise is compiled again silently.
    """
    folders = find_folders()
    kept_alone = (_is_kept_in(folder, types, _state()) for folder in folders.read_only)
    return _is_kept_in(folders.writable, types, _state(folders.read_only)) or any(kept_alone)


def _is_kept_in(folder: Path | None, types: Names, expected: str) -> bool:
    if folder is None:
        return False
    try:
        state, *noted = _note(folder, types).read_text(encoding="utf-8").splitlines()
        sizes = _sizes(folder)
        return state == expected and all(_is_intact(line, sizes) for line in noted)
    except (OSError, ValueError):
        return False


def _is_intact(line: str, sizes: Mapping[str, int]) -> bool:
    """Whether a noted file of machine code has its size, and its function an index."""
    name, size = line.rsplit(" ", 1)
    function, _, _ = name.rsplit(".", 2)
    return sizes.get(name) == int(size) and sizes.get(f"{function}{_INDEX}", 0) > 0


@dataclass
class CodeInUse:
    """The code that this process has loaded or compiled.

    Attributes
    ----------
    kept
        Files in the writable folder.
    lost
        Whether some code could not be kept.
    """

    kept: set[str] = field(default_factory=set)
    lost: bool = False


code_in_use = CodeInUse()


def note_kept(types: Names) -> None:
    """Note that this process has loaded or compiled the functions for these types, and the files with their code."""
    folder, read_only = find_folders()
    if folder is None or code_in_use.lost:
        return
    with suppress(OSError):  # a full disk: the next run compiles them again
        sizes = _sizes(folder)
        code = sorted(f"{name} {sizes[name]}" for name in code_in_use.kept & sizes.keys())
        _note(folder, types).write_text("\n".join([_state(read_only), *code]), encoding="utf-8")


def _note(folder: Path, types: Names) -> Path:
    return folder / "cellstamp.{}.py{}{}.txt".format("-".join(types), *sys.version_info)


def _state(read_only: tuple[Path, ...] = ()) -> str:
    """Return what the code in a folder depends on; some of it may be in read-only folders."""
    behind = "".join(f" and {os.fspath(folder)!r}" for folder in read_only)
    return f"{source_stamp()} numba {_numba_version()} {_processor()}{behind}"


def _sizes(folder: Path) -> dict[str, int]:
    """Return the sizes of all indices and of all files of machine code. One pass: every run waits for it."""
    with os.scandir(folder) as files:
        return {file.name: file.stat().st_size for file in files if file.name.endswith((_INDEX, _CODE))}


@cache
def source_stamp() -> str:
    """Return a digest of the source code of all compiled functions."""
    digest = hashlib.sha256()
    for source in SOURCES:
        digest.update((_PACKAGE / source).read_bytes())
    return digest.hexdigest()


@cache
def _numba_version() -> str:
    return version("numba")


@cache
def _processor() -> str:
    """Return the processor that numba compiles for: the chosen one, or this machine's model and features.

    With a name and features, or with the name "generic", code doesn't depend on the machine.
    """
    name, features = (os.environ.get(f"NUMBA_CPU_{key}") for key in ("NAME", "FEATURES"))
    if name and name.lower() == "generic":
        features = features or ""
    chosen = f"{platform.machine()} {name or ''} {features or ''}".strip()
    return chosen if name and features is not None else f"{chosen} {_this_processor()}"


def _this_processor() -> str:
    """Return a digest of the processor's model and features; its name if the system provides neither, or 'unknown'."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            lines = file.read(_CPU_BYTES).splitlines()
    except OSError:
        return os.environ.get("PROCESSOR_IDENTIFIER", "unknown").replace("\n", " ")  # of Windows
    described = sorted({line for line in lines if line.startswith(_CPU_LINES)})
    return hashlib.sha256("\n".join(described).encode()).hexdigest()[:16]
