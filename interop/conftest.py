"""Fixtures, and a final summary of the proved claims and the versions."""

from __future__ import annotations

import platform
import textwrap
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

import cellstamp
from interop.bench import Bench, TheirExtraction, TheirProject

NAMED = ("scportrait", "spatialdata", "anndata", "h5py", "numpy", "torch")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TheirProject]:
    """Return two scportrait projects with the same cells, extracted with our step and with scportrait's step."""
    bench = Bench(tmp_path_factory.mktemp("extracted"))
    projects = {"ours": bench.loaded("a", cellstamp.HDF5CellExtraction), "theirs": bench.loaded("b", TheirExtraction)}
    for project in projects.values():
        project.extract()
    return projects


@pytest.fixture(autouse=True)
def _no_figure_stays_open() -> Iterator[None]:
    yield
    plt.close("all")


# ---- the summary ----

_PROOFS: dict[str, tuple[str, str, str]] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if report.when == "call" or report.skipped or report.failed:
        proof = item.function.__doc__ or item.name  # type: ignore[attr-defined]
        case = item.name.partition("[")[2].rstrip("]")
        _PROOFS[item.nodeid] = (proof.splitlines()[0].rstrip("."), case, report.outcome)
    return report


def _lines() -> Iterator[str]:
    """Yield a line for each claim, with all of its cases."""
    together: dict[tuple[str, str], list[str]] = {}
    for proof, case, outcome in _PROOFS.values():
        together.setdefault((proof, outcome), []).append(case)
    for (proof, outcome), cases in together.items():
        listed = f" ({', '.join(cases)})" if cases != [""] else ""
        yield textwrap.fill(f"{outcome:<8}{proof}{listed}", 110, subsequent_indent=" " * 10)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("cellstamp with scportrait")
    for line in _lines():
        terminalreporter.write_line(line)
    terminalreporter.write_line("")
    versions = ", ".join(f"{name} {version(name)}" for name in NAMED)
    terminalreporter.write_line(f"cellstamp {cellstamp.__version__}, {versions}")
    terminalreporter.write_line(f"Python {platform.python_version()}, {platform.system()}, {date.today():%Y-%m-%d}")
