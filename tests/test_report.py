"""The progress bar, the closing line and the table of runs."""

import csv
import dataclasses
import io
import logging
import os
import pty
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cellstamp.report import PeakMemory, Progress, RunSummary, announce, append_benchmark, format_bytes, read_benchmark

pytestmark = pytest.mark.once

BAR = """
from cellstamp.report import Progress, announce
with Progress(1000, {mode!r}) as progress:
    for _ in range(10):
        progress.advance(100)
announce("all done", mode={mode!r})
"""


def run_in_terminal(code: str) -> tuple[int, str]:
    """Run Python code with a real terminal on all three streams; return its exit code and what the terminal got."""
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (24, 100))
    process = subprocess.Popen([sys.executable, "-c", code], stdin=child, stdout=child, stderr=child)
    os.close(child)
    shown = io.BytesIO()

    def read() -> None:
        while True:
            try:
                data = os.read(parent, 4096)
            except OSError:  # Linux's way to say that the other side is closed
                return
            if not data:
                return
            shown.write(data)

    reader = threading.Thread(target=read)
    reader.start()
    code_ = process.wait()
    reader.join()
    os.close(parent)
    return code_, shown.getvalue().decode()


@pytest.mark.parametrize("gone", ["sys.stderr = None", "sys.stderr.close()"])
@pytest.mark.parametrize("mode", ["auto", True])
def test_no_bar_and_no_error_without_standard_streams(gone: str, mode: object) -> None:
    both = f"import sys\n{gone}\n{gone.replace('stderr', 'stdout')}\n"
    code = both + BAR.format(mode=mode)
    assert subprocess.run([sys.executable, "-c", code], check=True).returncode == 0


def run_in_pipes(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


@pytest.fixture
def summary(tmp_path: Path) -> RunSummary:
    return RunSummary(
        image_size=(6000, 5000),
        cells_in_mask=15615,
        cells_kept=15063,
        cells_empty=3,
        cells_removed=552,
        cells_not_chosen=0,
        masks=2,
        crop_size=128,
        workers=2,
        batch_size=1000,
        setup_s=0.1,
        reading_s=0.4,
        extracting_s=2.7,
        total_s=3.2,
        peak_rss=987654321,
        path=tmp_path / "data" / "single_cells.h5sc",
        file_bytes=454_000_000,
    )


def test_a_bar_in_cells_with_rate_and_remaining_time_in_a_terminal():
    code, shown = run_in_terminal(BAR.format(mode="auto"))
    assert code == 0
    assert "1000/1000" in shown
    assert "cells/s" in shown
    assert "<00:00" in shown  # remaining time
    assert shown.rstrip().endswith("all done")


def test_no_bar_in_a_terminal_when_not_wanted():
    assert run_in_terminal(BAR.format(mode=False)) == (0, "")


def test_silent_without_a_terminal():
    result = run_in_pipes(BAR.format(mode="auto"))
    assert (result.stdout, result.stderr) == ("", "")


def test_a_bar_without_a_terminal_when_asked_for():
    result = run_in_pipes(BAR.format(mode=True))
    assert "1000/1000" in result.stderr
    assert result.stdout == "all done\n"


def test_a_jupyter_kernel_counts_as_someone_who_can_see():
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(BAR.format(mode="auto"))])
    nbclient.NotebookClient(notebook, kernel_name="python3").execute()
    outputs = notebook.cells[0].outputs
    text = "".join(output.get("text", "") for output in outputs)
    widgets = [output for output in outputs if "application/vnd.jupyter.widget-view+json" in output.get("data", {})]
    assert "1000/1000" in text or widgets
    assert "all done" in text
    assert "IProgress" not in text  # tqdm's complaint when there is no ipywidgets


def test_the_bar_is_closed_when_the_block_fails(capsys):
    def run() -> None:
        with Progress(10, mode=True) as progress:
            progress.advance(3)
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        run()
    assert capsys.readouterr().err.endswith("\n")


def test_who_listens_to_the_log_shows_the_closing_line_alone(capsys, caplog):
    with caplog.at_level(logging.INFO, logger="cellstamp"):
        announce("all done", mode=True)
    assert caplog.messages == ["all done"]
    assert capsys.readouterr().out == ""


def test_closing_line(summary):
    expected = (
        "Extracted 15,063 of 15,615 cells (552 too close to the image border), 3 of them empty in the cell mask -> "
        f"{summary.path} (454 MB) in 3.2 s (4,707 cells/s)"
    )
    assert summary.closing_line() == expected


def test_closing_line_of_a_long_run_and_of_one_cell(summary):
    long = dataclasses.replace(summary, total_s=725.0).closing_line()
    assert "in 12 min 5 s (21 cells/s)" in long
    assert "in 2 h 0 min" in dataclasses.replace(summary, total_s=7201.0).closing_line()
    one = dataclasses.replace(summary, cells_kept=1, cells_not_chosen=62, cells_empty=0)
    assert one.closing_line().startswith(
        "Extracted 1 of 15,615 cells (552 too close to the image border, 62 not selected, "
        "15,000 not in the random sample) -> "
    )


def test_closing_line_without_lost_cells(summary):
    all_ = dataclasses.replace(summary, cells_kept=15615, cells_removed=0, cells_empty=0)
    assert all_.closing_line().startswith("Extracted 15,615 of 15,615 cells -> ")


def test_no_time_at_all_is_no_rate(summary):
    assert dataclasses.replace(summary, total_s=0.0).cells_per_second == 0.0


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (9_949, "9.9 kB"),
        (9_950, "10 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (454_000_000, "454 MB"),
        (1_240_000_000, "1.2 GB"),
        (3_000_000_000_000, "3.0 TB"),
    ],
)
def test_sizes_for_people(n, text):
    assert format_bytes(n) == text


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_row_of_the_latest_run_of_a_file_is_read(summary, tmp_path):
    assert read_benchmark(summary.path, tmp_path) is None
    (tmp_path / "benchmarking.csv").write_text("Size,file\n1,data/single_cells.h5sc\n")  # of scportrait
    assert read_benchmark(summary.path, tmp_path) is None
    mine = dataclasses.replace(summary, path=tmp_path / "data" / "single_cells.h5sc")
    for workers, path in ((1, mine.path), (8, mine.path), (3, tmp_path / "data" / "single_cells.zarr")):
        append_benchmark(dataclasses.replace(mine, workers=workers, path=path), tmp_path)
    row = read_benchmark(mine.path, tmp_path)
    assert row is not None
    assert (row["file"], row["workers"]) == ("data/single_cells.h5sc", "8")


def test_each_run_adds_a_row_to_one_table(summary, tmp_path):
    path = append_benchmark(summary, tmp_path)
    assert append_benchmark(dataclasses.replace(summary, workers=8), tmp_path) == path == tmp_path / "benchmarking.csv"
    first, second = rows(path)
    assert first == {
        "file": "data/single_cells.h5sc",
        "image_height": "6000",
        "image_width": "5000",
        "cells_in_mask": "15615",
        "cells_kept": "15063",
        "cells_empty": "3",
        "cells_removed": "552",
        "masks": "2",
        "crop_size": "128",
        "workers": "2",
        "batch_size": "1000",
        "setup_s": "0.1",
        "reading_s": "0.4",
        "extracting_s": "2.7",
        "total_s": "3.2",
        "cells_per_s": "4707.2",
        "peak_rss_bytes": "987654321",
        "file_bytes": "454000000",
    }
    assert second == first | {"workers": "8"}


def test_another_programs_table_is_left_alone(summary, tmp_path):
    other = tmp_path / "benchmarking.csv"
    other.write_text('Size of image extracted from,Rate of extraction\n"(3, 9, 9)",258.2\n')
    before = other.read_bytes()
    path = append_benchmark(summary, tmp_path)
    assert append_benchmark(summary, tmp_path) == path == tmp_path / "benchmarking_cellstamp.csv"
    assert len(rows(path)) == 2
    assert other.read_bytes() == before


def test_a_table_of_ours_with_other_columns_is_left_alone_too(summary, tmp_path):
    for name in ("benchmarking.csv", "benchmarking_cellstamp.csv"):
        (tmp_path / name).write_text("file,seconds\nx,1\n")
    assert append_benchmark(summary, tmp_path) == tmp_path / "benchmarking_cellstamp_2.csv"
    assert (tmp_path / "benchmarking_cellstamp.csv").read_text() == "file,seconds\nx,1\n"


@pytest.mark.parametrize("spoil", [lambda text: text.rstrip("\n"), lambda text: text.replace("\n", "\r\n")])
def test_a_table_that_an_editor_saved_is_extended(summary, tmp_path, spoil):
    path = append_benchmark(summary, tmp_path)
    path.write_bytes(spoil(path.read_text()).encode())
    assert append_benchmark(summary, tmp_path) == path
    first, second = rows(path)
    assert first == second


def test_a_file_outside_the_folder_is_named_whole(summary, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (row,) = rows(append_benchmark(summary, elsewhere))
    assert row["file"] == str(summary.path)


@pytest.fixture
def others() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two processes that wait until their input ends."""
    processes = [subprocess.Popen(["cat"], stdin=subprocess.PIPE) for _ in range(2)]
    yield processes
    for process in processes:
        process.communicate()


def test_peak_memory_adds_up_this_process_and_the_last_sight_of_each_worker(others):
    memory = PeakMemory()
    own = memory.peak
    assert own > 0
    assert own <= 2 * psutil.Process().memory_info().rss
    first, second = (process.pid for process in others)
    assert memory.observe(first, 10**12) == []
    assert memory.observe(second, 10**12) == []
    high = memory.peak
    assert 2 * 10**12 < high < 2 * 10**12 + 10**11
    assert memory.observe(first, 5) == []
    assert memory.peak == high


def test_peak_memory_forgets_a_worker_that_ended_when_another_takes_its_place(others):
    memory = PeakMemory()
    first, second = others
    memory.observe(first.pid, 10**12)
    first.communicate()
    assert memory.observe(second.pid, 10**12) == [first.pid]
    assert memory.peak < 2 * 10**12


def test_peak_memory_counts_a_batch_run_in_this_process_once():
    memory = PeakMemory()
    memory.observe(os.getpid(), psutil.Process().memory_info().rss)
    assert memory.peak < 2 * psutil.Process().memory_info().rss
