"""The benchmarks run with the code as it is: a quick round of the stages, and one extraction."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("benchmarks", reason="the benchmarks are not part of a wheel")
from benchmarks import features, gallery, limits, results
from benchmarks.extraction import Case, extract
from benchmarks.in_turn import compare, run_in_turn
from benchmarks.sample import Sample
from benchmarks.sampled import CASES, placed_store
from cellstamp import HDF5CellExtraction, read_h5sc

ROOT = Path(__file__).parent.parent


pytestmark = pytest.mark.once
SAMPLE = Sample(1000, chunk=500)


def test_the_gallery_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("playwright", reason="drives the browser: pip install 'cellstamp[dev]'")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium (on Debian: apt install chromium)")
    gallery.make_file(tmp_path / "cells.h5sc", 3000, 16)
    found = gallery.measure(tmp_path / "cells.h5sc", chromium, 2)
    assert found["cells_on_screen"] == 80
    assert all(found[name]["median"] > 0 for name in ("next_screen_s", "far_screen_s", "sorted_far_screen_s"))


def test_the_stages_are_measured(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks", "stages", "--quick", "--data", str(tmp_path), "--out", str(report)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    measured, stored = json.loads(report.read_text())["stages"].values()
    assert measured["cells"] == stored["cells"] == 335
    assert {"read", "cut", "encode", "write"} <= set(measured["stages"])
    assert {"read", "cut", "encode", "write shard", "record"} <= set(stored["stages"])
    assert stored["batch_mib"] < 1e-3 * measured["batch_mib"]


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


def _stages_of(**costs: float) -> dict[str, Any]:
    stages = {name: {"core_us": us, "wall_us": us} for name, us in costs.items()}
    about = {"cells": 10, "megapixels": 0.02, "batches": 1, "file_bytes_per_cell": 20_000, "batch_mib": 0.2}
    return about | {"stages": stages}


def test_limits_of_both_formats_are_computed() -> None:
    common = {"centres": 1.0, "read": 30.0, "cut": 60.0, "plan": 1.0, "receive": 0.5}
    stages = {
        "x lzf 2w": _stages_of(**common, write=19.5, sync=0),
        "x lzf 2w zarr": _stages_of(**common, **{"write shard": 10.0}, record=0.25, sync=0.25) | {"batch_mib": 0.001},
    }
    clusters = {
        "h5sc": {"caller_us_per_batch": 300.0, "scheduler_us_per_batch": 10.0},
        "zarr": {"caller_us_per_batch": 10.0, "scheduler_us_per_batch": 40.0},
    }
    shown = limits.report_limits({"stages": stages, "runs": {}, "sweeps": {}, "clusters": clusters})
    assert "20.0 in the caller. The caller writes up to 50,000 cells/s, the output of 5.5 workers" in shown
    assert "1.0 in the caller. The caller records up to 1,000,000 cells/s, the output of 101.0 workers" in shown
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.splitlines() if line.startswith("|")]
    assert ["16", "h5sc", "20,000", "the caller", "400.0", "419.4"] in rows
    assert ["16", "zarr", "160,000", "the workers", "3,200.0", "16.8"] in rows
    assert ["400", "zarr", "250,000", "the scheduler", "5,000.0", "26.2"] in rows


def test_costs_of_features_are_relative_to_measuring_only() -> None:
    def seen(cpu_seconds: float) -> list[dict[str, float]]:
        return [{"cells": 9, "features": 4, "seconds": 2 * cpu_seconds, "cpu_seconds": cpu_seconds}]

    rows = {name: features.Row(name, "tool", "python") for name in (features.BESIDE, features.WITHOUT, "other")}
    runs = dict(zip(rows.values(), map(seen, (3.0, 2.0, 10.0)), strict=True))
    assert "| other | 9 | 4 | 20.00 | 10.00 | 10.0 |" in features.table(runs)
    only = {features.Row(features.COMPARED, "tool", "python"): seen(0.5)}
    assert "| other | 9 | 4 | 20.00 | 10.00 | 20.0 |" in features.table(only | runs)


def test_a_slide_is_killed_and_resumed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.large_slide", "--sample", "1000", "--chunk", "500", "--side", "2000"]
    options = ["--kill-at", "400", "--data", str(tmp_path)]
    run = subprocess.run([*command, *options], check=True, cwd=ROOT, capture_output=True, text=True)
    shown = dict(line.split(": ") for line in run.stdout.splitlines() if ": " in line)
    assert float(shown["resumed"]) == 1
    assert float(shown["cells"]) == 1543
    assert float(shown["first_images_s"]) > 0
    assert not list(tmp_path.glob("2000px*"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_memory_for_each_cell_is_measured() -> None:
    command = [sys.executable, "-m", "benchmarks.caller_memory", "--sides", "60,240", "--formats", "h5sc"]
    run = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    name, n_cells, peak, _ = run.stdout.splitlines()[-1].split()
    assert (name, n_cells) == ("h5sc", "400")
    assert int(peak) > 50


@pytest.mark.parametrize("file_format", ["h5sc", "zarr"])
def test_an_extraction_is_measured(tmp_path: Path, file_format: str) -> None:
    measured = extract(Case(SAMPLE, file_format=file_format), tmp_path)
    assert measured["cells"] == 335
    assert measured["pss_workers_mib"] > 0
    # all cells of a store are in one shard, after which none is left to measure
    assert (measured["caller_us_per_cell"] > 0) == (file_format == "h5sc")
    assert measured["file_bytes"] > 10**6


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
