"""The benchmarks run with the code as it is: a quick round of the stages, and one extraction."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("benchmarks", reason="the benchmarks are not part of a wheel")
from benchmarks.extraction import Case, extract
from benchmarks.sample import Sample

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
