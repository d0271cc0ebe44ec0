"""The benchmarks run with the code as it is: a quick round of the stages, and one extraction."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("benchmarks", reason="the benchmarks are not part of a wheel")
from benchmarks import results
from benchmarks.extraction import Case, extract
from benchmarks.in_turn import compare, run_in_turn
from benchmarks.sample import Sample
from benchmarks.sampled import CASES, placed_store
from cellstamp import HDF5CellExtraction, read_h5sc

ROOT = Path(__file__).parent.parent


pytestmark = pytest.mark.once
SAMPLE = Sample(1000, chunk=500)


def test_the_stages_are_measured(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks", "stages", "--quick", "--data", str(tmp_path), "--out", str(report)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    (measured,) = json.loads(report.read_text())["stages"].values()
    assert measured["cells"] == 335
    assert {"read", "cut", "encode", "write"} <= set(measured["stages"])


def test_sums_of_stages_are_shown_beside_those_of_an_earlier_run() -> None:
    stages = {name: {"core_us": 2.0, "wall_us": 3.0} for name in ("centres", "cut", "receive", "write", "bare write")}
    measured = {
        **{"cells": 5, "batches": 1, "batch_mib": 1.0, "file_bytes_per_cell": 9.0},
        **{"bare_by_ours_cpu": 1.0, "bare_by_ours_wall": 1.0, "decodes_per_chunk": {"1": 1.0}, "stages": stages},
    }
    machine = {"cpu": "a", "cores": 1, "commit": "c", "date": "d"}
    report = {"stages": {"sample": measured}, "runs": {}, "sweeps": {}, "machine": machine}
    shown = results.tables(report, report)
    assert re.search(r"receive \+ write +4 +6 +4 +1\.00", shown)
    assert re.search(r"all without centres +6 +9 +6 +1\.00", shown)
    assert "the writer alone: 500,000 cells/s" in shown


def test_a_slide_is_killed_and_resumed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.large_slide", "--sample", "1000", "--chunk", "500", "--side", "2000"]
    options = ["--kill-at", "400", "--data", str(tmp_path)]
    run = subprocess.run([*command, *options], check=True, cwd=ROOT, capture_output=True, text=True)
    shown = dict(line.split(": ") for line in run.stdout.splitlines() if ": " in line)
    assert float(shown["resumed"]) == 1
    assert float(shown["cells"]) == 1543
    assert float(shown["first_images_s"]) > 0
    assert not list(tmp_path.glob("2000px*"))


def test_an_extraction_is_measured(tmp_path: Path) -> None:
    measured = extract(Case(SAMPLE), tmp_path)
    assert measured["cells"] == 335
    assert measured["pss_workers_mib"] > 0


def test_elements_on_other_grids_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = placed_store(Sample(400, chunk=200), tmp_path)
    n_cells = {}
    for name, keys in CASES.items():
        step = HDF5CellExtraction({"threads": 1, "image_size": 128, **keys}, tmp_path / name, filehandler=store)
        step()
        n_cells[name] = len(read_h5sc(str(step.output_path)).obs)
    # the centres of halved or turned labels differ by a pixel
    assert max(n_cells.values()) - min(n_cells.values()) <= 3 < min(n_cells.values())
    runs = run_in_turn(store, {"plain": CASES["plain"]}, tmp_path, workers=1, rounds=1)
    compare({"plain": runs["plain"], "again": runs["plain"]}, "plain", "again")
    assert [line[-11:] for line in capsys.readouterr().out.splitlines()[-3:]] == ["ratio 1.000"] * 3
