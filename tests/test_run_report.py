"""The page about a run: its numbers are those of the result, it needs no other file, and it replaces none of others."""

from __future__ import annotations

import base64
import csv
import re
import shutil
import subprocess
import sys
import warnings
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pytest
from PIL import Image

from cellstamp import ConfigError, InputError, OutputError, Project, plot_removed, write_report
from cellstamp.demo import CELL_CHANNELS, CELL_SEGMENTATION, load_cells
from cellstamp.pipeline.report_cells import _on_one_scale, at_quantiles
from cellstamp.run_report.content import Note, RunReport, Section, Table
from cellstamp.run_report.histogram import binned, histogram
from cellstamp.run_report.page import html_of, write_page
from cellstamp.run_report.thumbnails import OUTLINE, thumbnail
from commands import run_command
from conftest import make_cells

SIZE = 64
VOID = {"img", "meta", "source", "line", "rect"}


class Page(HTMLParser):
    """Headings, rows of tables, paragraphs, bars, pictures and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: dict[str, dict[str, str]] = {}
        self.captions: dict[str, list[str]] = {}
        self.bars: dict[str, int] = {}
        self.notes: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.pictures: list[bytes] = []
        self._open: list[str] = []
        self._section = self._heading = self._name = ""
        self.title = ""
        self.feed(text)
        self.close()
        assert self._open == []  # each element is closed

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self._open.append(tag)
        values = {name: value or "" for name, value in attrs}
        self.attributes += [(tag, name, value) for name, value in values.items()]
        if tag == "img":
            self.pictures.append(base64.b64decode(values["src"].removeprefix("data:image/png;base64,")))
        if tag == "rect":
            self.bars[self._heading] = self.bars.get(self._heading, 0) + int(values["data-count"])
        if tag == "p":
            self.notes.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        tag = self._open[-1] if self._open else ""
        if tag == "h2":
            self._section = data
            self.sections[data] = {}
        elif tag == "h3":
            self._heading = data
        elif tag == "th":
            self._name = data
        elif tag == "td":
            self.sections[self._section][self._name] = data
        elif tag == "figcaption":
            self.captions.setdefault(self._heading, []).append(data)
        elif tag == "p":
            self.notes[-1] += data
        elif tag == "h1":
            self.title = data

    @property
    def counts(self) -> dict[str, int]:
        return {name.split(":")[0]: int(value.replace(",", "")) for name, value in self.sections["Cells"].items()}


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def make(folder: Path, channels: list[str], **config: Any) -> Project:
    settings = {"image_size": SIZE, "threads": 1, "cache": str(folder / "cache"), "progress": False, **config}
    project = Project(folder / "project", {"ThresholdSegmentation": CELL_SEGMENTATION, "HDF5CellExtraction": settings})
    project.load_input_from_array(load_cells(), channel_names=channels)
    project.segment()
    return project


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a project of the demo image, segmented."""
    folder = tmp_path_factory.mktemp("segmented")
    return Path(make(folder, list(CELL_CHANNELS)).directory)


def extracted(segmented: Path, folder: Path, **config: Any) -> Project:
    shutil.copytree(segmented, folder / "project")
    settings = {"image_size": SIZE, "threads": 1, "cache": str(folder / "cache"), "progress": False, **config}
    project = Project(folder / "project", {"HDF5CellExtraction": settings})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(extend|exceed|crop)")
        project.extract()
    return project


@pytest.fixture(scope="module")
def measured(segmented: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return extracted(segmented, tmp_path_factory.mktemp("measured"), features=True)


@pytest.fixture(scope="module")
def page(measured: Project) -> Page:
    return read(measured.report())


def test_the_numbers_are_those_of_the_file(measured: Project, page: Page) -> None:
    about = measured.h5sc.uns["cellstamp"]
    assert page.counts == {
        "extracted": len(measured.h5sc),
        "removed at the image border": about["cells_removed_at_border"],
        "not selected by the key cells": 0,
        "not in the random sample": 0,
        "in the mask": 144,
        "empty": about["cells_empty_in_cell_mask"],
        "exceeding": int(measured.h5sc.obs["exceeds_crop"].sum()),
    }
    assert page.counts["removed at the image border"] > 20
    assert page.counts["extracted"] + page.counts["removed at the image border"] == 144


def test_settings_timings_files_and_versions_are_those_of_the_run(measured: Project, page: Page) -> None:
    settings = page.sections["Settings"]
    assert set(settings) == set(measured.h5sc.uns["cellstamp"]["settings"])
    assert (settings["image_size"], settings["channels"]) == ("64", ", ".join(CELL_CHANNELS))
    with (Path(measured.directory) / "extraction/benchmarking.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert page.sections["Timings"]["total"].split()[0] == f"{float(row['total_s']):.1f}"
    assert page.sections["Timings"]["workers"] == row["workers"]
    assert list(page.sections["Files"]) == ["single_cells.h5sc", "features.h5ad", "removed_classes.csv"]
    assert page.sections["Versions"]["cellstamp, extraction"] == "0.1.0"
    assert f"numpy {np.__version__}" in page.sections["Versions"]["packages, this page"]


def test_histograms_and_quantiles_are_those_of_the_features(measured: Project, page: Page) -> None:
    features = measured.features
    for title, name in {
        "Area of the cell": "cell__area",
        **{f"Mean of {channel} in the cell": f"cell__intensity_mean__{channel}" for channel in CELL_CHANNELS},
    }.items():
        values = features[:, name].X.ravel()
        assert page.bars[title] == len(values)
        captions = page.captions[title]
        assert [each.split(":")[0] for each in captions] == [
            "smallest", "5%", "25%", "median", "75%", "95%", "largest"
        ]  # fmt: skip
        ids = [int(each.split("\ncell ")[1]) for each in captions]
        of_cells = dict(zip(features.obs["scportrait_cell_id"], values, strict=True))
        ordered = np.sort(values)
        shown = [of_cells[cell] for cell in ids]
        np.testing.assert_array_equal(
            shown, ordered[[round(q * (len(values) - 1)) for q in (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)]]
        )


def test_features_of_other_cells_are_not_shown(measured: Project, tmp_path: Path) -> None:
    shutil.copytree(Path(measured.directory) / "extraction/data", tmp_path / "data")
    anndata.io.read_h5ad(tmp_path / "data/features.h5ad")[::-1].copy().write_h5ad(tmp_path / "data/features.h5ad")
    with pytest.raises(InputError, match=r"features\.h5ad has other cells .* or another order of cells"):
        write_report(tmp_path / "data/single_cells.h5sc", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_an_outlier_does_not_darken_the_other_cells() -> None:
    planes = np.full((7, 8, 8), 0.01, np.float32) * np.arange(1, 8, dtype=np.float32)[:, None, None]
    planes[-1] = 1
    shown = _on_one_scale(planes)
    assert (shown[-2].max(), shown[-1].max()) == (1, 1)
    assert shown[3].max() > 0.5
    assert not _on_one_scale(np.zeros((3, 8, 8), np.float32)).any()


def test_pictures_are_inside_the_page(page: Page) -> None:
    assert len(page.pictures) == 1 + 7 * 4
    for png in page.pictures:
        Image.open(BytesIO(png)).verify()


def assert_alone(text: str) -> None:
    """Check that a page refers to nothing outside of itself."""
    found = Page(text)
    loading = {"src", "srcset", "href", "action", "data", "poster", "background", "xlink:href"}
    assert all(value.startswith("data:") for _, name, value in found.attributes if name in loading)
    assert not re.search(r"https?://|url\(|@import|<script|<link|<iframe", re.sub(r"base64,[\w+/=]+", "", text))


def test_it_needs_no_other_file_and_no_network(measured: Project, page: Page) -> None:
    assert_alone((Path(measured.directory) / "extraction/data/report.html").read_text(encoding="utf-8"))
    assert ("meta", "content", "width=device-width, initial-scale=1") in page.attributes
    assert "prefers-color-scheme: dark" in {value.strip("()") for _, name, value in page.attributes if name == "media"}


@pytest.mark.parametrize("config", [{}, {"normalize_output": False, "file_format": "zarr"}], ids=["h5sc", "zarr"])
def test_without_features_cells_are_measured_in_their_images(
    segmented: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    project = extracted(segmented, tmp_path, **config)
    found = read(project.report())
    images = np.asarray(project.h5sc.obsm["single_cell_images"][:], np.float32)
    area = (images[:, 1] > 0.5).sum(axis=(1, 2))
    (smallest, *_, largest) = found.captions["Area of the cell"]
    assert (smallest.split()[1], largest.split()[1]) == (str(area.min()), f"{area.max():,}")
    mean = (images[:, 2] * (images[:, 1] > 0.5)).sum(axis=(1, 2)) / area
    assert float(found.captions["Mean of DAPI"][3].split()[1]) == pytest.approx(np.median(mean), rel=0.05)
    assert f"all {len(area)} cells" in " ".join(found.notes)
    assert ("not comparable between cells" in " ".join(found.notes)) == (not config)


@pytest.mark.parametrize("file_format", ["h5sc", "zarr"])
def test_features_alone_have_a_page_without_images(segmented: Path, tmp_path: Path, file_format: str) -> None:
    project = extracted(segmented, tmp_path, features=True, images=False, file_format=file_format)
    path = project.report()
    assert path == Path(project.directory) / "extraction/features/report.html"
    found = read(path)
    assert found.counts["measured"] + found.counts["removed at the image border"] == found.counts["in the mask"] == 144
    assert "Single-cell images" not in found.sections
    assert len(found.pictures) == 1  # of kept and removed cells
    assert found.bars["Mean of FITC in the cell"] == found.counts["measured"]
    axes = plot_removed(project.extraction_f.output_path)
    assert axes.get_title() == f"{found.counts['measured']} of 144 cells kept"


def test_a_sample_and_a_selection_add_up(segmented: Path, tmp_path: Path) -> None:
    shutil.copytree(segmented, tmp_path / "project")
    settings = {"image_size": SIZE, "threads": 1, "progress": False, "cells": list(range(1, 101))}
    project = Project(tmp_path / "project", {"HDF5CellExtraction": settings})
    project.extract(partial=True, n_cells=20)
    counts = read(project.report()).counts
    parts = ["extracted", "removed at the image border", "not selected by the key cells", "not in the random sample"]
    assert (counts["extracted"], counts["not selected by the key cells"]) == (20, 44)
    assert sum(counts[name] for name in parts) == counts["in the mask"] == 144
    assert counts["not in the random sample"] > 0


def test_numbers_that_do_not_add_up_are_reported(measured: Project, tmp_path: Path) -> None:
    file = tmp_path / "single_cells.h5sc"
    shutil.copy(measured.extraction_f.output_path, file)
    with h5py.File(file, "r+") as opened:
        opened["uns/cellstamp/cells_in_mask"][()] = 150
    assert "These numbers add up to 144: the result is damaged." in read(write_report(file)).notes


def test_a_file_of_another_program_has_a_page(measured: Project, tmp_path: Path) -> None:
    file = tmp_path / "cells.h5sc"
    shutil.copy(measured.extraction_f.output_path, file)
    with h5py.File(file, "r+") as opened:
        del opened["uns/cellstamp"], opened["obs/exceeds_crop"]
        opened["obs"].attrs["column-order"] = [
            name for name in opened["obs"].attrs["column-order"] if "exceeds" not in name
        ]
    path = write_report(str(file))
    assert path == tmp_path / "cells.h5sc.report.html"
    found = read(path)
    assert found.counts == {"extracted": len(measured.h5sc)}
    assert "The file does not say how many cells were in the mask." in found.notes
    assert "Settings" not in found.sections


@pytest.fixture
def awkward(tmp_path: Path) -> Project:
    """A project whose channels and folder have names with signs of HTML."""
    folder = tmp_path / "a & <b>"
    settings = {"image_size": 24, "threads": 1, "progress": False, "features": True}
    project = Project(folder, {"HDF5CellExtraction": settings})
    image, nucleus, cytosol = make_cells(side=240, n=64)
    project.load_input_from_array(image, channel_names=["<script>alert(1)</script>", "a\"&'", "x"])
    project.load_segmentation(nucleus, cytosol)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        project.extract()
    return project


def test_names_are_escaped(awkward: Project) -> None:
    path = awkward.report()
    found = read(path)
    assert found.title == "Single-cell images of a & <b>"
    assert found.sections["Single-cell images"]["channels"] == "<script>alert(1)</script>, a\"&', x"
    assert_alone(path.read_text(encoding="utf-8"))
    assert "Mean of <script>alert(1)</script> in the cell" in found.captions
    text = path.read_text(encoding="utf-8")
    assert "&lt;script&gt;" in text
    alts = [value for _, name, value in found.attributes if name == "alt"]
    assert any("a\"&'" in alt for alt in alts)


def test_a_replaced_mask_is_named_instead_of_the_picture(segmented: Path, tmp_path: Path) -> None:
    project = extracted(segmented, tmp_path)
    labels = np.zeros(load_cells().shape[1:], np.uint32)
    labels[100:120, 100:120] = 1
    project.load_segmentation(labels, labels, overwrite=True)
    found = read(project.report())
    (note,) = [note for note in found.notes if note.startswith("No picture")]
    assert "The masks were replaced after the extraction" in note


def test_a_file_outside_a_project_takes_the_store(measured: Project, tmp_path: Path) -> None:
    for name in ("single_cells.h5sc", "removed_classes.csv"):
        shutil.copy(Path(measured.extraction_f.output_path).with_name(name), tmp_path / name)
    found = read(write_report(tmp_path / "single_cells.h5sc"))
    assert any("Give write_report the store with the masks" in note for note in found.notes)
    with_store = write_report(tmp_path / "single_cells.h5sc", tmp_path / "other.html", store=measured.sdata_path)
    assert not any(note.startswith("No picture") for note in read(with_store).notes)


@pytest.mark.once
def test_results_behind_a_url_have_a_page(segmented: Path, tmp_path: Path) -> None:
    project = extracted(segmented, tmp_path, file_format="zarr", features=["shape"])
    result = Path(project.extraction_f.output_path)
    elsewhere = tmp_path / "bucket" / "data"
    elsewhere.mkdir(parents=True)
    for name in ("single_cells.zarr", "features.zarr", "removed_classes.zarr.csv"):
        shutil.move(result.with_name(name), elsewhere / name)
    url = f"file://{elsewhere / 'single_cells.zarr'}"
    result.with_name("single_cells.url").write_text(f"{url}\n", encoding="utf-8")
    path = Project(project.directory).report()
    assert path == result.with_name("report.html")
    found = read(path)
    assert found.counts["extracted"] + found.counts["removed at the image border"] == 144
    assert list(found.sections["Files"]) == ["single_cells.zarr", "features.zarr", "removed_classes.zarr.csv"]
    assert len(found.pictures) == 1 + 7 * 4
    assert "single-cell images" in found.title.lower()
    with pytest.raises(ConfigError, match=r"is a URL; give the path of the page, such as report\.html"):
        write_report(url)
    there = read(write_report(url, tmp_path / "r.html", store=project.sdata_path))
    assert there.counts == found.counts
    assert not any(note.startswith("No picture") for note in there.notes)


@pytest.mark.parametrize("content", [b"", b"<html>my notes</html>", b"\xff\xfe" * 600])
def test_other_files_are_kept(measured: Project, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mine.html").write_bytes(content)
    with pytest.raises(
        OutputError, match=r"mine\.html is a file that cellstamp did not write as a report: give another"
    ):
        measured.report(tmp_path / "mine.html")
    assert (tmp_path / "mine.html").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["mine.html"]


def test_a_report_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "report.html"
    for title in ("first", "second"):
        write_page(RunReport(title, "", []), path)
        assert read(path).title == title
    assert [each.name for each in path.parent.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("report.pdf", ConfigError),
        ("folder.html", OutputError),
        (f"{'a' * 300}.html", ConfigError),
        ("\0.html", ConfigError),
    ],
)
def test_a_page_needs_a_name(measured: Project, tmp_path: Path, name: str, error: type[Exception]) -> None:
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(error, match=r"must end with \.html|is a folder: give the path of the page|cannot be the path"):
        measured.report(tmp_path / name)


def test_a_project_without_results_says_what_to_do(segmented: Path) -> None:
    with pytest.raises(ConfigError, match=r"this folder has no extraction; make one with cellstamp extract"):
        write_report(segmented)
    with pytest.raises(InputError, match=r"result is int: must be a Project, its folder, or the path of a result"):
        write_report(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="there is no file"):
        write_report(segmented / "extraction/data/features.h5ad")


def test_the_command_writes_the_page(measured: Project, tmp_path: Path) -> None:
    result = run_command("report", measured.directory)
    assert (result.exit_code, result.output) == (0, f"Report: {measured.directory}/extraction/data/report.html\n")
    result = run_command("report", measured.extraction_f.output_path, "-o", tmp_path / "r.html")
    assert result.output == f"Report: {tmp_path}/r.html\n"
    assert read(tmp_path / "r.html").counts["in the mask"] == 144
    (tmp_path / "r.html").write_text("mine")
    result = run_command("report", measured.directory, "-o", tmp_path / "r.html")
    assert result.exit_code == 2
    assert "give another --output, or remove it" in result.stderr


def test_a_run_writes_the_page_if_asked(segmented: Path, tmp_path: Path) -> None:
    shutil.copytree(segmented, tmp_path / "project")
    arguments = ["extract", tmp_path / "project", "--set", "image_size=64", "--set", "threads=1"]
    result = run_command(*arguments, "--output-folder", "first")
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "project/extraction/first/report.html").exists()
    result = run_command(*arguments, "--report")
    assert result.exit_code == 0, result.output
    path = tmp_path / "project/extraction/data/report.html"
    assert result.output.splitlines()[-1] == f"Report: {path}"
    assert read(path).counts["in the mask"] == 144


def test_a_page_that_cannot_be_written_is_reported_before_the_run(segmented: Path, tmp_path: Path) -> None:
    shutil.copytree(segmented, tmp_path / "project")
    page = tmp_path / "project/extraction/partial_mine_ncells_5_seed_42/report.html"
    page.parent.mkdir(parents=True)
    page.write_text("my notes")
    arguments = ["--set", "image_size=64", "--report", "--partial", "5", "--output-folder", "mine"]
    result = run_command("extract", tmp_path / "project", *arguments)
    assert result.exit_code == 2
    assert "report.html is a file that cellstamp did not write" in result.stderr
    assert [path.name for path in page.parent.iterdir()] == ["report.html"]


def test_a_run_without_cells_has_no_page(segmented: Path, tmp_path: Path) -> None:
    shutil.copytree(segmented, tmp_path / "project")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = run_command("extract", tmp_path / "project", "--set", "image_size=438", "--report")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == "No report: no cell was extracted"


@pytest.mark.once
def test_without_matplotlib_nothing_is_extracted(segmented: Path, tmp_path: Path) -> None:
    shutil.copytree(segmented, tmp_path / "project")
    code = "import sys; sys.modules['matplotlib'] = None; from cellstamp.cli import main; main()"
    arguments = ["extract", str(tmp_path / "project"), "--set", "image_size=64", "--report"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "a report needs matplotlib: install it with pip install 'cellstamp[plot]'" in done.stderr
    assert not (tmp_path / "project/extraction/data").exists()


def test_cells_at_quantiles_are_named_once() -> None:
    assert at_quantiles(np.array([5.0])) == {"smallest": 0}
    assert at_quantiles(np.array([5.0, 1.0])) == {"smallest": 1, "largest": 0}
    assert at_quantiles(np.array([3.0, 1.0, 2.0])) == {"smallest": 1, "median": 2, "largest": 0}
    assert list(at_quantiles(np.arange(101.0)).values()) == [0, 5, 25, 50, 75, 95, 100]


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0, 2.0], [-1.0, 0.0, 1e9], np.linspace(0, 1, 5000)])
def test_all_cells_are_in_a_histogram(values: Any) -> None:
    values = np.asarray(values, np.float64)
    assert binned(values)[0].sum() == values.size
    assert histogram(values, "a", "b").count("<rect") == binned(values)[0].size


def test_a_thumbnail_has_the_outline_of_the_mask() -> None:
    planes, mask = np.full((1, 40, 40), 0.5, np.float32), np.zeros((40, 40), np.float32)
    mask[10:30, 10:30] = 1
    picture = np.asarray(Image.open(BytesIO(thumbnail(planes, mask, None))))
    assert picture.shape == (120, 120, 3)
    assert (picture[30, 60] == OUTLINE).all()
    assert (picture[60, 60] == 128).all()
    assert Image.open(
        BytesIO(thumbnail(np.zeros((3, 300, 300), np.float32), None, np.eye(3, dtype=np.float32)))
    ).size == (150, 150)


def test_content_is_escaped_everywhere() -> None:
    evil = "<i a=\"b\" c='d'>&"
    report = RunReport(evil, evil, [Section(evil, [Note(evil), Table([(evil, evil)], (evil, evil))])])
    text = html_of(report)
    found = Page(text)
    assert found.title == evil
    assert found.sections == {evil: {evil: evil}}
    assert not any(tag == "i" for tag, _, _ in found.attributes)
