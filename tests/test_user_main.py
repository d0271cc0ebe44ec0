"""However Python was started: workers never run the user's main module again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cellstamp.h5sc.reader import describe_h5sc
from stores import make_sample, write_store

# Nothing here is guarded by `if __name__ == "__main__"`.
CODE = """
from pathlib import Path
from cellstamp import HDF5CellExtraction
with open({folder!r} + "/runs", "a") as file:
    _ = file.write("once\\n")

config = dict(threads=2, image_size=16, cache={folder!r} + "/cache", max_batch_size=5)
step = HDF5CellExtraction(config, {folder!r} + "/out", filehandler={store!r})
step()
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("main") / "sample.zarr", make_sample((90, 110)))


@pytest.fixture
def code(tmp_path: Path, store: Path) -> str:
    return CODE.format(folder=str(tmp_path), store=str(store))


def run(*args: str, folder: Path, stdin: str | None = None) -> None:
    done = subprocess.run(
        [sys.executable, *args], cwd=folder, input=stdin, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, "Error" in done.stderr) == (0, False), done.stderr


def check(folder: Path) -> None:
    """One run, by two workers, to the end."""
    assert (folder / "runs").read_text() == "once\n"
    info = describe_h5sc(folder / "out" / "data" / "single_cells.h5sc")
    assert info.n_cells > 5
    assert " 2 workers " in (folder / "out" / "processing.log").read_text()
    assert list((folder / "cache").iterdir()) == []


@pytest.mark.once
@pytest.mark.usefixtures("start_method")
def test_script_without_a_guard(tmp_path: Path, code: str) -> None:
    (tmp_path / "script.py").write_text(code)
    run("script.py", folder=tmp_path)
    check(tmp_path)


@pytest.mark.once
@pytest.mark.usefixtures("start_method")
def test_script_on_stdin(tmp_path: Path, code: str) -> None:
    run("-", folder=tmp_path, stdin=code)
    check(tmp_path)


@pytest.mark.once
def test_module_of_a_package(tmp_path: Path, code: str) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").touch()
    (tmp_path / "pkg" / "mod.py").write_text(code)
    run("-m", "pkg.mod", folder=tmp_path)
    check(tmp_path)


def test_interactive(tmp_path: Path, code: str) -> None:
    run("-i", folder=tmp_path, stdin=code)
    check(tmp_path)


@pytest.mark.once
def test_interactive_after_a_script(tmp_path: Path, code: str) -> None:
    (tmp_path / "script.py").write_text(code)
    run("-i", "script.py", folder=tmp_path, stdin="print(step.output_path)\n")
    check(tmp_path)


@pytest.mark.once
def test_notebook(tmp_path: Path, code: str) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
    check(tmp_path)
