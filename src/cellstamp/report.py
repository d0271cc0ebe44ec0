"""Report on a run: progress bar, closing line, and a row in a table of runs. Observers only."""

import csv
import io
import itertools
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, Self, TextIO, TypeGuard

from cellstamp.location import Location

ProgressMode = Literal["auto"] | bool
"""``True``, ``False``, or ``"auto"``: in terminals and notebooks."""

BENCHMARK_FILE = "benchmarking.csv"
"""Table of runs in a step's folder, with one row for each run."""

_LOGGER = logging.getLogger("cellstamp.report")


def is_visible(mode: ProgressMode) -> bool:
    """Return whether progress is shown; with ``"auto"``, in a terminal or notebook."""
    if mode == "auto":
        return _stderr_is_terminal() or in_notebook()
    return bool(mode) and (_is_open(sys.stderr) or in_notebook())


def _stderr_is_terminal() -> bool:
    return _is_open(sys.stderr) and sys.stderr.isatty()


def _is_open(stream: TextIO | None) -> bool:
    """Return whether a standard stream can be used; Python has None for one that was closed at its start."""
    return stream is not None and not getattr(stream, "closed", False)


def in_notebook() -> bool:
    """Return whether this process is a Jupyter kernel, without importing IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


def announce(line: str, *, mode: ProgressMode) -> None:
    """Show a line about the progress of a run once, if progress is shown.

    The line goes to the logger ``cellstamp`` if that has a handler for level INFO, as on the command line. Otherwise it
    goes to stdout.
    """
    _show(line, on_stdout=is_visible(mode))


def conclude(line: str, *, mode: ProgressMode) -> None:
    """Show the result of a run once, also in scripts, unless ``mode`` is False; see `announce`."""
    _show(line, on_stdout=mode is not False)


def _show(line: str, *, on_stdout: bool) -> None:
    if _LOGGER.isEnabledFor(logging.INFO) and _LOGGER.hasHandlers():
        _LOGGER.info(line)
    elif on_stdout and _is_open(sys.stdout):
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        # a file name that the encoding lacks must not stop a run
        sys.stdout.write(f"{line}\n".encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()


class Progress:
    """Show a progress bar with rate and remaining time, on stderr or in a notebook.

    A context manager; the bar is closed when the block ends, also after an error.

    Parameters
    ----------
    total
        Number of cells, or of other units, to process.
    mode
        ``True``, ``False``, or ``"auto"``: only in a terminal or notebook.
    doing, unit
        Name of the task, and of the units.
    """

    def __init__(
        self, total: int, mode: ProgressMode = "auto", *, doing: str = "extracting", unit: str = "cells"
    ) -> None:
        self._bar: Any = _make_bar(total, doing, unit) if is_visible(mode) else None

    def advance(self, n_cells: int) -> None:
        """Count this many more units as done."""
        if self._bar is not None:
            self._bar.update(n_cells)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _make_bar(total: int, doing: str, unit: str) -> Any:
    with warnings.catch_warnings():
        # In a notebook without ipywidgets, tqdm warns and draws its bar as text, as we want.
        warnings.filterwarnings("ignore", message="IProgress not found")
        from tqdm.auto import tqdm
    return tqdm(total=total, desc=doing, unit=f" {unit}", dynamic_ncols=True)


class PeakMemory:
    """Track the peak memory of this process and its workers together.

    Each observation of a worker replaces its previous one. This process is measured each time.

    Attributes
    ----------
    peak
        Largest sum of resident set sizes so far, in bytes.
    """

    def __init__(self) -> None:
        import psutil

        # making this object takes three times as long as asking it
        self._process = psutil.Process()
        self._rss: dict[int, int] = {}
        self.peak = 0
        self.observe(os.getpid(), self._own_rss())

    @property
    def own_rss(self) -> int:
        """Resident set size of this process at the last observation, in bytes."""
        return self._rss[os.getpid()]

    def observe(self, pid: int, rss: int) -> list[int]:
        """Record ``rss`` bytes of memory for the process ``pid``; return the ids of processes that have ended."""
        # a new worker may have replaced one that died
        ended = [] if pid in self._rss else self._forget_ended()
        self._rss[os.getpid()] = self._own_rss()
        self._rss[pid] = rss
        self.peak = max(self.peak, sum(self._rss.values()))
        return ended

    def _own_rss(self) -> int:
        return int(self._process.memory_info().rss)

    def _forget_ended(self) -> list[int]:
        import psutil

        # negative ids are workers on other machines
        ended = [pid for pid in self._rss if pid > 0 and not psutil.pid_exists(pid)]
        for pid in ended:
            del self._rss[pid]
        return ended


class Stopwatch:
    """Measure the seconds of each part of a run, by the part's name.

    Attributes
    ----------
    total
        Sum of all parts so far.
    """

    def __init__(self) -> None:
        self._laps: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        """End a part, and start the next."""
        now = time.perf_counter()
        self._laps[name] = now - self._since
        self._since = now

    def skip(self) -> None:
        """Leave the time since the last part ended out of all parts and of the total."""
        self._since = time.perf_counter()

    def __getitem__(self, name: str) -> float:
        return self._laps[name]

    @property
    def total(self) -> float:
        """Sum of all parts so far."""
        return sum(self._laps.values())


@dataclass(frozen=True)
class RunSummary:
    """Numbers of a finished run.

    Attributes
    ----------
    image_size
        Height and width of the image, in pixels.
    cells_in_mask, cells_kept, cells_removed, cells_not_chosen, cells_empty
        Cells in the mask, cells extracted, cells too close to the image border, cells not selected by the key
        ``cells``, and extracted cells without a pixel of the cell mask.
    masks
        Number of masks.
    crop_size
        Side of a crop, in pixels.
    workers, batch_size
        Number of worker processes, and maximum number of cells in one batch.
    setup_s, reading_s, extracting_s, total_s
        Seconds for: config and elements; centres and plan; batches and writing; all of these. Compiling is not
        included.
    peak_rss
        Peak resident set size of this process and its workers together, in bytes.
    path
        The output file.
    file_bytes
        Size of the output file, in bytes.
    verb
        First word of the closing line, such as "Extracted".
    """

    image_size: tuple[int, int]
    cells_in_mask: int
    cells_kept: int
    cells_removed: int
    cells_not_chosen: int
    cells_empty: int
    masks: int
    crop_size: int
    workers: int
    batch_size: int
    setup_s: float
    reading_s: float
    extracting_s: float
    total_s: float
    peak_rss: int
    path: Location
    file_bytes: int
    verb: str = "Extracted"

    @property
    def cells_per_second(self) -> float:
        """Extracted cells / seconds of the whole run."""
        return self.cells_kept / self.total_s if self.total_s > 0 else 0.0

    def closing_line(self) -> str:
        """Return one line for people: number of cells, file, size, time and rate."""
        not_drawn = self.cells_in_mask - self.cells_kept - self.cells_removed - self.cells_not_chosen
        left_out = {
            "too close to the image border": self.cells_removed,
            "not selected": self.cells_not_chosen,
            "not in the random sample": not_drawn,
        }
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items() if count)
        counts = f"{self.verb} {self.cells_kept:,} of {self.cells_in_mask:,} cells" + (
            f" ({reasons})" if reasons else ""
        )
        if self.cells_empty:
            counts += f", {self.cells_empty:,} of them empty in the cell mask"
        speed = f"{format_seconds(self.total_s)} ({self.cells_per_second:,.0f} cells/s)"
        return f"{counts} -> {self.path} ({format_bytes(self.file_bytes)}) in {speed}"


def format_bytes(n: int) -> str:
    """Format a size in decimal units: ``454 MB``, ``1.2 GB``."""
    if n < 1000:
        return f"{n} bytes"
    size = float(n)
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.5:
            return f"{size:.1f} {unit}" if size < 9.95 else f"{size:.0f} {unit}"
    return f"{size / 1000:.1f} TB"


def format_cells(n_cells: int) -> str:
    """Return a number of cells in words, like ``"1 cell"`` or ``"1,234 cells"``."""
    return "1 cell" if n_cells == 1 else f"{n_cells:,} cells"


def format_seconds(seconds: float) -> str:
    """Return a time for people: ``9.3 s``, ``2 min 5 s``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def append_benchmark(summary: RunSummary, folder: Path) -> Path:
    """Add a run to the folder's table of runs, and return the table's path.

    The table is ``benchmarking.csv``. If this file has other columns (scportrait writes one), it stays unchanged, and
    the table is ``benchmarking_cellstamp.csv`` (then ``benchmarking_cellstamp_2.csv``, and so on).
    """
    row = _benchmark_row(summary, folder)
    header = _csv_line(row)
    path, table = next(
        (path, table)
        for path in _benchmark_paths(folder)
        if (table := _read(path)).partition("\n")[0].rstrip("\r") in ("", header)
    )
    # the new row would join a last line without a line break
    start = f"{header}\n" if not table else "" if table.endswith("\n") else "\n"
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(f"{start}{_csv_line(row.values())}\n")
    return path


def read_benchmark(path: Location, folder: Path) -> dict[str, str] | None:
    """Return the row of the latest run that made a result, from a folder's tables of runs; None if there is none."""
    name = _name_in_table(path, folder)
    for table in takewhile(Path.exists, _benchmark_paths(folder)):
        rows = [row for row in csv.DictReader(io.StringIO(_read(table))) if row.get("file") == name]
        if rows and "total_s" in rows[-1]:
            return rows[-1]
    return None


def _benchmark_row(summary: RunSummary, folder: Path) -> dict[str, object]:
    height, width = summary.image_size
    return {
        "file": _name_in_table(summary.path, folder),
        "image_height": height,
        "image_width": width,
        "cells_in_mask": summary.cells_in_mask,
        "cells_kept": summary.cells_kept,
        "cells_removed": summary.cells_removed,
        "cells_empty": summary.cells_empty,
        "masks": summary.masks,
        "crop_size": summary.crop_size,
        "workers": summary.workers,
        "batch_size": summary.batch_size,
        "setup_s": round(summary.setup_s, 3),
        "reading_s": round(summary.reading_s, 3),
        "extracting_s": round(summary.extracting_s, 3),
        "total_s": round(summary.total_s, 3),
        "cells_per_s": round(summary.cells_per_second, 1),
        "peak_rss_bytes": summary.peak_rss,
        "file_bytes": summary.file_bytes,
    }


def _name_in_table(path: Location, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if _is_below(path, folder) else str(path)


def _is_below(path: Location, folder: Path) -> TypeGuard[Path]:
    return isinstance(path, Path) and path.is_relative_to(folder)


def _benchmark_paths(folder: Path) -> Iterator[Path]:
    ours = (folder / f"benchmarking_cellstamp_{n}.csv" for n in itertools.count(2))
    return itertools.chain([folder / BENCHMARK_FILE, folder / "benchmarking_cellstamp.csv"], ours)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _csv_line(values: Iterable[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()
