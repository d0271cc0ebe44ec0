"""Extractions whose compiled code is their own: other tests, which run at the same time, neither keep nor remove it."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from cellstamp.cells.load_kernels import load_kernels
from cellstamp.compiling.cache_folders import find_folders

_EXTRACT_TWICE = """
import time, warnings
warnings.simplefilter("ignore")
from cellstamp import HDF5CellExtraction

def extract(folder):
    HDF5CellExtraction({keys!r}, folder, filehandler={store!r})()

started = time.perf_counter()
extract({first!r})
seconds = time.perf_counter() - started
extract({second!r})
print(seconds)
"""


class ExtractedTwice(NamedTuple):
    first_log: str
    second_log: str
    seconds: float
    """Duration of the first extraction as its caller measures it."""
    reported_s: float
    """Duration of the first extraction in ``benchmarking.csv``."""


def copy_code(folder: Path, without: str | None = None) -> None:
    """Copy the code that is kept here, but not the notes for which types of pixels all of it is there.

    Parameters
    ----------
    without
        A function whose code is not copied: compiling it takes a second, compiling all would take fifteen.
    """
    load_kernels()
    folder.mkdir(parents=True, exist_ok=True)
    for each in find_folders().to_load_from:
        left_out = set(each.glob(f"{without}-*")) if without else set()
        for file in {*each.glob("*.nb[ci]")} - left_out:
            shutil.copy(file, folder)


def extract_twice(folder: Path, store: Path, *, without: str | None = None, **config: Any) -> ExtractedTwice:
    """Extract into ``first``, and again into ``second``, in a process that has the code of `copy_code`."""
    first, second = folder / "first", folder / "second"
    keys = {"progress": False, "cache": str(folder / "cache"), **config}
    code = _EXTRACT_TWICE.format(keys=keys, store=str(store), first=str(first), second=str(second))
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder / "compiled"), "PYTHONPATH": os.pathsep.join(sys.path)}
    where = "from cellstamp.compiling.cache_folders import find_folder; print(find_folder())"
    copy_code(Path(_run(where, environment).strip()), without)
    seconds = float(_run(code, environment).split()[-1])
    with (first / "benchmarking.csv").open() as file:
        (row,) = csv.DictReader(file)
    logs = ((each / "processing.log").read_text() for each in (first, second))
    return ExtractedTwice(*logs, seconds=seconds, reported_s=float(row["total_s"]))


def _run(code: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
