"""The benchmarks run with the code as it is: a quick round of the stages, and one extraction."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("benchmarks", reason="the benchmarks are not part of a wheel")
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
