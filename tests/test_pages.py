"""Pages of the documentation: code that is executed as it stands there, as a notebook or not; dead links are found."""

from __future__ import annotations

import base64
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from cellstamp import ConfigError, read_h5sc

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
        f"deep/b.html: dead link {link!r}" for link in ("../a.html#up", "../b.html", "c.png")
    ]


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """The folder in which the page's cells ran, and all they put out."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    folder = tmp_path_factory.mktemp("page")
    cells = r"^```{code-cell} ipython3\n(?::tags:[^\n]*\n\n)?(.*?)^```$"
    blocks = re.findall(cells, PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 8
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
    both = read_h5sc(folder / "both" / "data" / "single_cells.h5sc")
    stains = ["slide:hematoxylin", "DAB", "he_image:hematoxylin", "eosin"]
    assert both.var["channels"].tolist() == ["nuclei", "cells", *stains]
    of_slide, of_he = (both.obsm["single_cell_images"][:][:, plane].astype(float) for plane in (2, 4))
    alike = [np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in zip(of_slide, of_he, strict=True)]
    assert np.median(alike) > 0.9  # the same tissue, seen twice


def test_its_pictures_show_stamps(executed: tuple[Path, list[Any]]) -> None:
    folder, outputs = executed
    pictures = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 2
    for png in pictures:
        (folder / "picture.png").write_bytes(base64.b64decode(png))
        picture = matplotlib.image.imread(folder / "picture.png")[..., :3].mean(axis=-1)
        assert picture.shape[1] > 600
        assert 0.3 < np.mean(picture < 0.05) < 0.8  # stamps are black around their cells
        grey = (picture > 0.1) & (picture < 0.9)
        assert 0.03 < grey.mean() < 0.5  # what the channels show


OWN_STEP = DOCS / "own-step.md"


def cellpose_stand_in() -> ModuleType:
    """Two modules that look like Cellpose 4, as far as the page uses it: everything above the mean is one nucleus."""

    class CellposeModel:
        def __init__(self, *, gpu: bool) -> None:
            assert gpu is False

        def eval(self, x: np.ndarray, *, diameter: float | None) -> tuple[np.ndarray, list[Any], np.ndarray]:
            assert diameter == 30
            return (x > x.mean()).astype(np.uint16), [], np.zeros(256)

    package, models = ModuleType("cellpose"), ModuleType("cellpose.models")
    package.models, models.CellposeModel = models, CellposeModel  # type: ignore[attr-defined]
    return package


def own_step_page(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Any:
    """The project that the page about steps of one's own makes, in a folder."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", OWN_STEP.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        exec(block, names)
    return names["project"]


def test_the_step_on_the_page_wraps_cellpose_in_20_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = cellpose_stand_in()
    monkeypatch.setitem(sys.modules, "cellpose", package)
    monkeypatch.setitem(sys.modules, "cellpose.models", package.models)
    project = own_step_page(monkeypatch, tmp_path)
    image = np.zeros((2, 300, 300), np.uint16)
    image[0, 100:120, 130:150] = 9000
    project.load_input_from_array(image)
    project.segment()
    assert np.array_equal(np.asarray(project.sdata["seg_all_nucleus"]), image[0] > 0)
    project.extract()
    assert project.h5sc.obsm["spatial"].tolist() == [[139.5, 109.5]]
    (code, *_) = re.findall(r"^class (.*?)^```$", OWN_STEP.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(code.splitlines()) <= 20


def test_without_cellpose_the_step_on_the_page_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cellpose", None)
    project = own_step_page(monkeypatch, tmp_path)
    project.load_input_from_array(np.zeros((1, 30, 30), np.uint16))
    with pytest.raises(ConfigError, match="needs cellpose: pip install cellpose"):
        project.segment()
    assert not project.nuc_seg_status


def test_the_page_about_pixel_sizes_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib.pyplot")
    page = (DOCS / "pixel-sizes.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```{code-cell} ipython3\n(?::tags:[^\n]*\n\n)?(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "pixel-sizes.md", "exec"), names)
    fine, coarse = names["fine"].h5sc, names["coarse"].h5sc
    assert fine.obsm["single_cell_images"].shape[2:] == coarse.obsm["single_cell_images"].shape[2:] == (56, 56)
    assert "0.5 um per pixel" in repr(names["fine"])
    same = np.intersect1d(fine.obs["scportrait_cell_id"], coarse.obs["scportrait_cell_id"])
    assert same.size > 100
