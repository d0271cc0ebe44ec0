"""Pages of the documentation: one that is a notebook is executed, cell by cell; dead links are found."""

from __future__ import annotations

import base64
import importlib.util
import re
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from cellstamp import read_h5sc

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "outside-a-project.md"


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("dead_links", DOCS / "dead_links.py")
    assert spec is not None
    assert spec.loader is not None
    extension = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extension)
    fine = '<p id="top"></p><a href="deep/b.html#here"></a><a href="#top"></a><img src="a%20b.png"><a href="https://x.org">'
    dead = '<a href="../b.html"></a><a href="../a.html#up"></a><img src="c.png"><p id="here"></p>'
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.html").write_text(fine)
    (tmp_path / "a b.png").touch()
    (tmp_path / "deep" / "b.html").write_text(dead)
    assert extension.dead_links(tmp_path) == [
        f"deep/b.html: the link {link!r} leads nowhere" for link in ("../a.html#up", "../b.html", "c.png")
    ]


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """The folder in which the page's cells ran, and all they put out."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    folder = tmp_path_factory.mktemp("page")
    cells = r"^```{code-cell} ipython3\n(?::tags:[^\n]*\n\n)?(.*?)^```$"
    blocks = re.findall(cells, PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(block) for block in blocks])
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=120, resources=resources).execute()
    return folder, [output for cell in notebook.cells for output in cell.outputs]


def test_the_page_outside_a_project_runs(executed: tuple[Path, list[Any]]) -> None:
    folder, outputs = executed
    stamps = read_h5sc(folder / "out" / "data" / "single_cells.h5sc")
    assert stamps.n_obs > 300
    assert stamps.var["channels"].tolist() == ["nuclei", "cells", "hematoxylin", "DAB"]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("AnnData object" in str(output.get("data")) for output in outputs)
    assert not (folder / "tissue.zarr" / "points").exists()


def test_its_picture_shows_stamps(executed: tuple[Path, list[Any]]) -> None:
    folder, outputs = executed
    (png,) = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    (folder / "picture.png").write_bytes(base64.b64decode(png))
    picture = matplotlib.image.imread(folder / "picture.png")[..., :3].mean(axis=-1)
    assert picture.shape[1] > 800
    assert 0.3 < np.mean(picture < 0.05) < 0.8  # stamps are black around their cells
    grey = (picture > 0.1) & (picture < 0.9)
    assert 0.03 < grey.mean() < 0.5  # what the channels show
