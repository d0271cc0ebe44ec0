"""The gallery without its front end: views, images, selections, files, messages, widget, and server."""

from __future__ import annotations

import asyncio
import http.client
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlsplit

import anndata
import numpy as np
import pandas as pd
import pytest
import yaml

import cellstamp
from cellstamp import ConfigError, InputError, OutputError, Project, cell_images, read_h5sc
from cellstamp.gallery import browse as browsing
from cellstamp.gallery.messages import Messages, Reply
from cellstamp.gallery.opening import find
from cellstamp.gallery.planes import Range
from cellstamp.gallery.saving import ExistsError
from cellstamp.gallery.server import GalleryServer
from cellstamp.gallery.session import GallerySession
from cellstamp.gallery.slide import overview_of
from cellstamp.gallery.tabs import CLOSED, LOST, Tabs
from cellstamp.gallery.values import histogram_of, in_range, sorted_rows, text_of, values_of
from cellstamp.gallery.views import Filter, View, parse_view
from cellstamp.gallery.widget import GalleryWidget
from cellstamp.h5sc.validate import errors_in
from commands import run_command
from formats import NAMES
from galleries import CHANNELS, N_CELLS, make_project, open_tab, request, served
from stamp_files import layout_of, store_anew, write_file

IDS = np.arange(3, 3 * N_CELLS + 1, 3)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("template") / "project")


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Path:
    """A copy to write to."""
    return Path(shutil.copytree(template, tmp_path / "project"))


@pytest.fixture(scope="module")
def session(template: Path) -> GallerySession:
    """A session that no test changes."""
    return GallerySession(find(template))


def session_of(project: Any, features: Any = None) -> GallerySession:
    found = find(project, features)
    return GallerySession(found, found.folder)


def result_of(project: Path) -> Path:
    return project / "extraction" / "data" / "single_cells.h5sc"


def features_of(project: Path) -> Path:
    return result_of(project).with_name("features.h5ad")


def ask(messages: Messages, kind: str, **content: Any) -> Reply:
    reply = messages.answer({"type": kind, **content})
    assert "error" not in reply.content, reply.content
    return reply


# --- values and views -------------------------------------------------------------------------------------------------


def test_columns_of_all_types_become_values() -> None:
    numbers = values_of(pd.Series([1, None, 3], dtype="Int64"))
    assert numbers.kind == "number"
    np.testing.assert_array_equal(numbers.missing, [False, True, False])
    boolean = values_of(pd.Series([True, None, False], dtype="boolean"))
    assert (boolean.kind, boolean.labels, boolean.numbers.tolist()) == ("category", ("False", "True"), [1, -1, 0])
    assert values_of(np.array([True, False])).numbers.tolist() == [1, 0]
    clusters = values_of(pd.Series(pd.Categorical(["b", None, "a"], categories=["b", "a", "c"])))
    assert (clusters.labels, clusters.numbers.tolist()) == (("b", "a", "c"), [0, -1, 1])
    texts = values_of(pd.Series(["y", "x", None], dtype=object))
    assert (texts.kind, texts.labels, texts.numbers.tolist()) == ("category", ("x", "y"), [1, 0, -1])
    assert values_of([f"cell {k}" for k in range(300)]).kind == "text"
    assert values_of(np.float32([0.5, 1.25])).numbers.dtype == np.float32


def test_values_are_written_for_readers() -> None:
    values = [None, pd.NA, np.nan, np.float32(0.25), 3.0, np.int64(2**60), "b", np.True_, 1 / 3]
    assert [text_of(value) for value in values] == [
        "missing", "missing", "missing", "0.25", "3", str(2**60), "b", "True", "0.333333",
    ]  # fmt: skip


def test_rows_are_sorted_and_missing_values_come_last() -> None:
    values = values_of(np.array([2.0, np.nan, 1.0, 2.0, np.nan, 0.0]))
    rows = np.arange(6)
    assert sorted_rows(values, rows, descending=False).tolist() == [5, 2, 0, 3, 1, 4]
    assert sorted_rows(values, rows, descending=True).tolist() == [0, 3, 2, 5, 1, 4]


def test_ranges_include_their_ends_and_leave_out_missing_values() -> None:
    values = values_of(np.array([0.0, 1.0, 2.0, np.nan]))
    assert in_range(values, 1, None).tolist() == [False, True, True, False]
    assert in_range(values, None, 1).tolist() == [True, True, False, False]
    assert in_range(values, None, None).tolist() == [True, True, True, False]


def test_histograms_count_every_cell_once() -> None:
    values = values_of(np.array([0.0, 1, 2, 2, np.nan, np.inf]))
    found = histogram_of(values, np.arange(6), 2)
    assert (found.counts.tolist(), found.low, found.high, found.n_missing) == ([1, 3], 0, 2, 1)
    labels = histogram_of(values_of(["a", "b", "a", None]), np.arange(4), 2)
    assert (labels.counts.tolist(), labels.n_missing) == ([2, 1], 1)
    assert histogram_of(values_of([np.nan]), np.arange(1), 2).low is None


def test_a_view_filters_sorts_and_draws_a_sample(session: GallerySession, template: Path) -> None:
    obs = read_h5sc(result_of(template), images=False).obs
    area = Project(template).features.to_df()["cell__area"].to_numpy()
    low = float(np.median(area))
    view = View(filters=(Filter("cell__area", low=low), Filter("x", high=200.0)), sort="y", descending=True)
    expected = np.flatnonzero((area >= low) & (obs["x"] <= 200).to_numpy())
    expected = expected[np.argsort(-obs["y"].to_numpy()[expected], kind="stable")]
    np.testing.assert_array_equal(session.rows(view), expected)
    sample = session.rows(View(sample=10, seed=1))
    assert sample.size == 10
    assert (np.diff(sample) > 0).all()
    np.testing.assert_array_equal(session.rows(View(sample=10, seed=1)), sample)
    assert session.rows(View(sample=10, seed=2)).tolist() != sample.tolist()
    assert session.rows(View(sample=10**6)).size == N_CELLS
    within = session.rows(View(filters=(Filter("cell__area", low=low),), sample=5))
    assert (area[within] >= low).all()


def test_a_category_is_filtered_by_its_labels(session: GallerySession) -> None:
    exceeding = session.columns.values("exceeds_crop").numbers
    for label, number in (("False", 0), ("True", 1)):
        rows = session.rows(View(filters=(Filter("exceeds_crop", labels=(label,)),)))
        np.testing.assert_array_equal(rows, np.flatnonzero(exceeding == number))
    assert session.rows(View(filters=(Filter("exceeds_crop", labels=()),))).size == 0


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ({"sample": 0}, "sample = 0: must be an integer >= 1"),
        ({"sample": True}, "sample = True: must be"),
        ({"sample": 5, "seed": -1}, "seed = -1: must be an integer >= 0"),
        ({"filters": [{"low": 1}]}, "view: 'column'"),
        ({"filters": [{"column": "x", "low": "a"}]}, "could not convert"),
        ({"filters": 3}, "not iterable"),
    ],
)
def test_an_invalid_view_is_refused(view: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_view(view)


def test_the_columns_are_those_of_cells_features_and_embeddings(project: Path) -> None:
    table = Project(project).features
    table.obsm["X_umap"] = np.random.default_rng(0).random((table.n_obs, 2))
    table.obs["cluster"] = pd.Categorical(np.where(np.arange(N_CELLS) % 2, "odd", "even"))
    session = session_of(project, table)
    sources = {column.name: column.source for column in session.columns}
    assert sources["scportrait_cell_id"] == sources["cluster"] == sources["measured_in_part"] == "obs"
    assert sources["cell__area"] == "feature"
    assert sources["X_umap-1"] == "embedding"
    assert "spatial-0" not in sources
    np.testing.assert_array_equal(session.columns.values("X_umap-1").numbers, table.obsm["X_umap"][:, 1])
    assert session.rows(View(filters=(Filter("cluster", labels=("odd",)),))).tolist() == list(range(1, N_CELLS, 2))
    with pytest.raises(ConfigError, match="there is no column 'cell_area'; did you mean 'cell__area'"):
        session.rows(View(sort="cell_area"))


# --- features ---------------------------------------------------------------------------------------------------------


def test_features_in_another_order_or_of_some_cells_are_joined_by_id(project: Path) -> None:
    table = Project(project).features
    area = table.to_df()["cell__area"].to_numpy()
    table[::-1].copy().write_h5ad(project / "reversed.h5ad")
    np.testing.assert_array_equal(
        session_of(project, project / "reversed.h5ad").columns.values("cell__area").numbers, area
    )
    some = session_of(project, table[5::-1].copy())
    values = some.columns.values("cell__area").numbers
    np.testing.assert_array_equal(values[:6], area[:6])
    assert np.isnan(values[6:]).all()
    assert some.features is not None
    assert some.features.n_missing == N_CELLS - 6


def test_features_of_other_cells_are_refused(project: Path) -> None:
    table = Project(project).features
    table.obs["scportrait_cell_id"] = IDS + 1
    table.write_h5ad(project / "other.h5ad")
    with pytest.raises(InputError, match=r"100 of its 100 cells are not in .*single_cells.h5sc, such as 4, 7, 10"):
        session_of(project, project / "other.h5ad")
    with pytest.raises(InputError, match="the AnnData of features has other cells: it has cells more than once"):
        session_of(project, anndata.concat([Project(project).features] * 2, index_unique="-"))
    with pytest.raises(InputError, match="features: the AnnData is not a table of features"):
        session_of(project, anndata.AnnData(np.zeros((3, 1))))
    with pytest.raises(InputError, match=r"features: there is no file .*none\.h5ad"):
        session_of(project, project / "none.h5ad")
    (project / "text.h5ad").write_text("no HDF5")
    with pytest.raises(InputError, match=r"text.h5ad is not an AnnData file, or it is damaged"):
        session_of(project, project / "text.h5ad")


# --- what is opened ---------------------------------------------------------------------------------------------------


def test_projects_folders_files_and_tables_in_memory_are_opened(template: Path) -> None:
    path = result_of(template)
    for given in (template, str(template), Project(template)):
        found = find(given)
        assert (found.h5sc, found.features, found.folder) == (path, features_of(template), template)
    of_file = find(path)
    assert (of_file.folder, of_file.features, of_file.store) == (
        None,
        features_of(template),
        template / "scportrait.sdata",
    )
    data = read_h5sc(path)
    assert find(data).features == features_of(template)
    whole, part = session_of(data), session_of(data[::2])
    assert (whole.n_cells, part.n_cells) == (N_CELLS, N_CELLS // 2)
    rows = np.array([4, 0])
    np.testing.assert_array_equal(part.planes(rows, [2, 3], 32), whole.planes(rows * 2, [2, 3], 32))
    np.testing.assert_array_equal(session_of(path).planes(rows, [2], 32), whole.planes(rows, [2], 32))


@pytest.mark.parametrize("suffix", NAMES)
def test_both_formats_are_shown_and_tagged(template: Path, tmp_path: Path, suffix: str) -> None:
    project = make_project(tmp_path / "project", file_format=suffix) if suffix != "h5sc" else template
    session = session_of(project)
    assert session.n_cells == N_CELLS
    planes = session.planes(np.array([session.row_of("24")]), range(5), 32)
    expected = cell_images(project / "extraction" / "data" / f"single_cells.{suffix}", [24], list(range(5)))
    np.testing.assert_array_equal(planes, np.rint(255 * np.sqrt(expected.astype(np.float32))).astype(np.uint8))


def test_what_has_no_cells_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(InputError, match=r"a\.txt is not an HDF5 file"):
        session_of(tmp_path / "a.txt")
    with pytest.raises(ConfigError, match="this folder has no extraction"):
        session_of(tmp_path)
    with pytest.raises(InputError, match=r"there is no file .*none\.h5sc"):
        session_of(tmp_path / "none.h5sc")
    with pytest.raises(InputError, match="browse: int has no single-cell images: give the path"):
        session_of(3)


# --- images -----------------------------------------------------------------------------------------------------------


def test_bytes_are_roots_of_the_stored_values(session: GallerySession, template: Path) -> None:
    rows = np.array([50, 3, 4])
    stored = cell_images(result_of(template), IDS[rows], [*range(5)]).astype(np.float32)
    expected = np.rint(255 * np.sqrt(stored)).astype(np.uint8)
    np.testing.assert_array_equal(session.planes(rows, range(5), 32), expected)
    np.testing.assert_array_equal(session.planes(rows, [4, 2], 20), expected[:, [4, 2], 6:26, 6:26])
    squares = expected.reshape(3, 5, 16, 2, 16, 2).mean(axis=(3, 5), dtype=np.float32).astype(np.uint8)
    np.testing.assert_array_equal(session.planes(rows, range(5), 32, 2), squares)
    assert session.planes(rows[:0], [0], 32).shape == (0, 1, 32, 32)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_images_that_are_not_normalised_use_all_bytes(tmp_path: Path, dtype: str) -> None:
    layout = layout_of(30, dtype=dtype, compression="lzf")
    stamps = write_file(tmp_path / "a.h5sc", layout)
    session = session_of(tmp_path / "a.h5sc")
    limits = session.ranges[2]
    unit = 1 if dtype == "float32" else np.iinfo(dtype).max
    values = stamps[:, 2].astype(np.float64) / unit
    assert (limits.low, limits.high) == (0, 1)  # twice the brightest value, at most 1
    assert 0 <= limits.black < limits.white <= 1
    shown = session.planes(np.arange(30), [2], 16)[:, 0]
    assert np.abs((shown / 255.0) ** 2 - values).max() < 0.01


def test_dark_images_are_not_lost_in_the_first_bytes(tmp_path: Path) -> None:
    layout = layout_of(30, dtype="uint16")
    stamps = write_file(tmp_path / "a.h5sc", layout)
    import h5py

    with h5py.File(tmp_path / "a.h5sc", "a") as file:
        images = (stamps // 64).astype(np.uint16)
        file["obsm/single_cell_images"][...] = images
    session = session_of(tmp_path / "a.h5sc")
    assert session.ranges[2].high == pytest.approx(2 * images[:, 2].max() / 65535)
    assert session.planes(np.arange(30), [2], 16).max() > 150


def test_files_of_other_programs_are_shown(tmp_path: Path) -> None:
    stamps = write_file(tmp_path / "a.h5sc", layout_of(20))
    store_anew(tmp_path / "a.h5sc", chunks=(2, 1, 8, 8), compression="gzip")
    session = session_of(tmp_path / "a.h5sc")
    expected = np.rint(255 * np.sqrt(stamps[[7, 2]].astype(np.float32))).astype(np.uint8)
    np.testing.assert_array_equal(session.planes(np.array([7, 2]), [0, 1], 16), expected[:, :2])


@pytest.mark.parametrize(
    ("planes", "crop", "step", "message"),
    [
        ([5], 32, 1, "planes = [5]: must be numbers from 0 to 4"),
        ([-1], 32, 1, "planes = [-1]"),
        ([0], 33, 1, "crop = 33, step = 1: must be at least 1; crop at most 32"),
        ([0], 0, 1, "crop = 0"),
        ([0], 8, 9, "crop = 8, step = 9"),
    ],
)
def test_invalid_planes_and_sizes_are_refused(
    session: GallerySession, planes: list[int], crop: int, step: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        session.planes(np.array([0]), planes, crop, step)


def test_a_replaced_file_is_refused(project: Path) -> None:
    session = session_of(project)
    session.planes(np.array([0]), [0], 32)
    path = result_of(project)
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data + b" ")
    with pytest.raises(InputError, match="was modified after it was opened"):
        session.planes(np.array([1]), [0], 32)


def test_only_visible_cells_are_read(session: GallerySession, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = type(session.images).read
    monkeypatch.setattr(
        type(session.images), "read", lambda self, rows, planes: read.extend(rows) or original(self, rows, planes)
    )
    reply = ask(Messages(session), "cells", view={"sort": "y"}, first=40, count=7, planes=[2], crop=32)
    assert len(read) == len(reply.content["ids"]) == 7


# --- the slide --------------------------------------------------------------------------------------------------------


def test_the_overview_counts_all_centres(session: GallerySession) -> None:
    overview = session.overview
    assert overview is not None
    assert max(overview.pixels.shape) in (63, 64)  # rounded
    assert (overview.pixels > 0).sum() <= N_CELLS
    x, y = ((session.centers - overview.origin) / overview.scale).astype(int).T
    assert (overview.pixels[y, x] > 0).all()
    assert overview_of(None) is overview_of(np.zeros((0, 2))) is None
    assert overview_of(np.ones((2, 2))).pixels.tolist() == [[255]]


def test_the_surroundings_are_pixels_of_the_image(session: GallerySession, tmp_path: Path) -> None:
    from conftest import make_cells

    image, _, _ = make_cells(300, N_CELLS)
    found = session.surroundings(55)
    assert found is not None
    assert found.names == tuple(CHANNELS)
    left, right, top, bottom = map(int, found.extent)
    assert (right - left, bottom - top) == (192, 192)
    pixels = image[0, top:bottom, left:right].astype(float)
    low, high = np.quantile(pixels, [0.01, 0.998])
    np.testing.assert_allclose(found.planes[0], np.clip((pixels - low) / (high - low), 0, 1), atol=1e-5)
    write_file(tmp_path / "alone.h5sc", layout_of(3))
    assert session_of(tmp_path / "alone.h5sc").surroundings(0) is None


# --- selections, tags, files ------------------------------------------------------------------------------------------


def test_cells_are_selected_in_all_ways(project: Path) -> None:
    seen: list[int] = []
    session = GallerySession(find(project), when_selected=lambda: seen.append(1))
    for mode, rows, expected in (
        ("add", [1, 2, 3], [1, 2, 3]),
        ("remove", [2], [1, 3]),
        ("toggle", [3, 4], [1, 4]),
        ("set", [7], [7]),
    ):
        session.select(np.array(rows), mode)
        np.testing.assert_array_equal(session.selected_ids, IDS[expected])
    assert len(seen) == 4
    with pytest.raises(ConfigError, match="mode = 'all': must be one of add, remove, toggle, set"):
        session.select(np.array([1]), "all")


def test_a_saved_selection_is_what_cells_takes(project: Path) -> None:
    session = session_of(project)
    session.select(np.array([10, 20, 30]), "add")
    saved = session.save_ids("round", overwrite=False)
    assert saved.path == project / "round.csv"
    assert saved.path.read_text() == "scportrait_cell_id\n33\n63\n93\n"
    config = yaml.safe_load((project / "config.yml").read_text())
    for cells in (str(saved.path), {"path": str(saved.path), "ids": "scportrait_cell_id"}):
        config["HDF5CellExtraction"]["cells"] = cells
        second = Project(project, config)
        second.extract(output_folder_name="some", overwrite=True)
        assert second.h5sc.obs["scportrait_cell_id"].tolist() == [33, 63, 93]


def test_files_are_not_overwritten_without_consent(project: Path) -> None:
    session = session_of(project)
    with pytest.raises(ConfigError, match="no cells are selected"):
        session.save_ids("a", overwrite=False)
    session.select(np.array([0]), "add")
    session.save_ids("a.csv", overwrite=False)
    session.select(np.array([1]), "add")
    with pytest.raises(ExistsError, match=r"a.csv exists"):
        session.save_ids("a", overwrite=False)
    assert (project / "a.csv").read_text() == "scportrait_cell_id\n3\n"
    session.save_ids("a", overwrite=True)
    assert (project / "a.csv").read_text() == "scportrait_cell_id\n3\n6\n"
    assert not list(project.glob(".a.csv*"))


@pytest.mark.parametrize(
    "name", ["", "  ", "../a", "/etc/passwd", "a/b", "a\\b", ".a", "a" * 101, "a\nb", "C:a", "核" * 100]
)
def test_names_cannot_be_paths(project: Path, name: str) -> None:
    session = session_of(project)
    session.select(np.array([0]), "add")
    with pytest.raises(ConfigError, match="must be a name of up to 100 letters"):
        session.save_ids(name, overwrite=True)
    with pytest.raises(ConfigError, match="must be a name of up to 100 letters"):
        session.tag(name, None)


def test_without_a_folder_nothing_is_written(template: Path) -> None:
    session = session_of(result_of(template))
    session.select(np.array([1]), "add")
    before = sorted(template.rglob("*"))
    saved = session.save_ids("a", overwrite=False)
    assert (saved.path, saved.name, saved.text) == (None, "a.csv", "scportrait_cell_id\n6\n")
    assert sorted(template.rglob("*")) == before


def test_a_folder_that_cannot_be_written_is_reported(template: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    session = GallerySession(find(template), tmp_path / "file" / "below")
    session.select(np.array([1]), "add")
    with pytest.raises(OutputError, match=r"a.csv cannot be written"):
        session.save_ids("a", overwrite=False)


def test_ids_of_shapes_are_saved_if_they_are_text(tmp_path: Path) -> None:
    instances = np.array([f"aaa-{k}" for k in range(5)], object)
    write_file(tmp_path / "a.h5sc", layout_of(5, instances=instances))
    session = session_of(tmp_path / "a.h5sc")
    session.select(np.array([3]), "add")
    assert session.save_ids("a", overwrite=False).text == "instance_id\naaa-3\n"


def test_a_tag_is_a_column_at_once(project: Path) -> None:
    session = session_of(project)
    session.select(np.array([1, 2]), "set")
    assert session.tag("mitotic", None) == "mitotic"
    assert session.rows(View(filters=(Filter("mitotic", labels=("True",)),))).tolist() == [1, 2]
    session.select(np.array([3]), "set")
    session.tag("mitotic", None, overwrite=True)
    assert session.rows(View(filters=(Filter("mitotic", labels=("True",)),))).tolist() == [3]
    session.tag("phase", "late")
    session.select(np.array([1, 3]), "set")
    session.tag("phase", "early")
    assert session.columns.values("phase").labels == ("early",)
    session.select(np.array([9]), "set")
    session.tag("phase", "late")
    assert session.rows(View(sort="phase"))[:3].tolist() == [1, 3, 9]
    for name in ("x", "cell__area", "scportrait_cell_id", "measured_in_part"):
        with pytest.raises(ConfigError, match="this column was measured or extracted; choose another name"):
            session.tag(name, None)


def test_labels_are_not_lost_without_consent(project: Path) -> None:
    session = session_of(project)

    def tag(rows: list[int], name: str, value: str | None, question: str | None = None) -> list[Any]:
        session.select(np.array(rows, np.int64), "set")
        if question is not None:
            before = session.tags[name]
            with pytest.raises(ExistsError, match=f"^{re.escape(question)}$"):
                session.tag(name, value)
            assert session.tags[name] is before
        session.tag(name, value, overwrite=question is not None)
        return session.tags[name].iloc[:4].astype(object).tolist()

    assert tag([1, 2], "a", None) == [False, True, True, False]
    assert tag([1, 2, 3], "a", None) == [False, True, True, True]
    question = "a has labels True (2) of cells that are not selected. Replace them by False?"
    assert tag([1], "a", None, question) == [False, True, False, False]
    question = "a has labels True (1). Remove them, and label the selected cells late?"
    assert tag([2], "a", "late", question) == [np.nan, np.nan, "late", np.nan]
    assert tag([3], "a", "early") == [np.nan, np.nan, "late", "early"]
    assert tag([3, 0], "a", "late") == ["late", np.nan, "late", "late"]
    question = "a has labels late (3). Replace them by True and False?"
    assert tag([0], "a", None, question) == [True, False, False, False]
    question = "a has labels True (1) of cells that are not selected. Replace them by False?"
    assert tag([], "a", None, question) == [False, False, False, False]
    assert tag([3], "a", "late") == [np.nan, np.nan, np.nan, "late"]


@pytest.mark.parametrize("n_cells", [N_CELLS, N_CELLS - 10])
def test_labels_of_a_table_in_another_order_are_kept(project: Path, n_cells: int) -> None:
    table = Project(project).features[:n_cells][::-1].copy()
    table.obs["number"] = np.arange(n_cells)[::-1]
    table.obs["yes"] = table.obs["number"] < 2
    session = session_of(project, table)
    session.select(np.array([1]), "set")
    session.tag("number", "late")
    assert session.tags["number"].iloc[:3].tolist() == ["0", "late", "2"]
    assert session.tags["number"].notna().sum() == n_cells
    with pytest.raises(ExistsError, match=r"labels True \(1\) of cells that are not selected"):
        session.tag("yes", None)
    session.tag("number", "early")
    session.save_column("number", overwrite=True)
    assert table.obs["number"].iloc[-3:].tolist() == ["2", "early", "0"]
    with pytest.raises(ExistsError, match=r"number has labels .*, .*, .*, .*, .* \(1\) and \d+ more\. Replace them"):
        session.tag("number", None)


@pytest.mark.parametrize("suffix", NAMES)
def test_tags_are_saved_in_the_table_of_features(project: Path, tmp_path: Path, suffix: str) -> None:
    if suffix != "h5sc":
        project = make_project(tmp_path / "other", file_format=suffix)
    session = session_of(project)
    before = Project(project).features
    session.select(np.array([1, 2]), "set")
    session.tag("mitotic", None)
    session.tag("phase", "late")
    assert "obs['mitotic'] of" in session.save_column("mitotic", overwrite=False)
    session.save_column("phase", overwrite=False)
    after = Project(project).features
    assert after.obs["mitotic"].dtype == bool
    np.testing.assert_array_equal(np.flatnonzero(after.obs["mitotic"]), [1, 2])
    assert after.obs["phase"].dtype == "category"
    assert after.obs["phase"].isna().sum() == N_CELLS - 2
    pd.testing.assert_frame_equal(after.obs.drop(columns=["mitotic", "phase"]), before.obs)
    pd.testing.assert_frame_equal(after.to_df(), before.to_df())
    assert errors_in(next((project / "extraction" / "data").glob("single_cells.*"))) == []
    assert not [path.name for path in (project / "extraction" / "data").iterdir() if path.name.startswith(".")]
    # in the next gallery, a saved tag is a column that can be continued
    again = session_of(project)
    again.select(np.array([5]), "set")
    again.tag("phase", "early")
    with pytest.raises(ExistsError, match="has a column 'phase'"):
        again.save_column("phase", overwrite=False)
    again.save_column("phase", overwrite=True)
    phases = Project(project).features.obs["phase"]
    assert (phases.iloc[[1, 2, 5]].tolist(), phases.notna().sum()) == (["late", "late", "early"], 3)


@pytest.mark.filterwarnings(
    "ignore:Consolidated metadata is currently not part",
    "ignore:zarr v3 autosharding",
    "ignore:Writing zarr v2 data will no longer be the default",
    "ignore:This setting will be removed in 0.14",
    "ignore:zarr v3 will become the only option in 0.14",
)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_tag_is_found_in_stores_of_other_programs(project: Path, zarr_format: int) -> None:
    import zarr

    path = project / "theirs.zarr"
    with anndata.settings.override(zarr_write_format=zarr_format):
        Project(project).features.write_zarr(path)
    zarr.consolidate_metadata(path)
    session = session_of(project, path)
    session.select(np.array([4]), "set")
    session.tag("mine", None)
    session.save_column("mine", overwrite=False)
    again = session_of(project, path)
    assert again.rows(View(filters=(Filter("mine", labels=("True",)),))).tolist() == [4]
    assert zarr.open_group(path, mode="r").metadata.consolidated_metadata is not None
    assert np.flatnonzero(anndata.io.read_zarr(path).obs["mine"]).tolist() == [4]


def test_a_tag_of_a_table_in_memory_and_another_order(project: Path) -> None:
    table = Project(project).features[::-1].copy()
    session = session_of(project, table)
    session.select(np.array([0]), "set")
    session.tag("first", None)
    assert session.save_column("first", overwrite=False) == "obs['first'] of the AnnData"
    assert np.flatnonzero(table.obs["first"]).tolist() == [N_CELLS - 1]
    with pytest.raises(ExistsError, match="the AnnData has a column 'first'"):
        session.save_column("first", overwrite=False)


@pytest.mark.parametrize("suffix", NAMES)
def test_a_column_is_not_saved_in_a_table_of_other_cells(project: Path, tmp_path: Path, suffix: str) -> None:
    if suffix != "h5sc":
        project = make_project(tmp_path / "other", file_format=suffix)
    session = session_of(project)
    session.select(np.array([0]), "set")
    session.tag("mine", None)
    config = yaml.safe_load((project / "config.yml").read_text())
    config["HDF5CellExtraction"]["cells"] = [9, 3, 6]
    Project(project, config).extract(overwrite=True)
    with pytest.raises(InputError, match=r"was replaced by one with other cells: open the gallery again"):
        session.save_column("mine", overwrite=True)
    with pytest.raises(InputError, match=r"was replaced by one with other cells: open the gallery again"):
        session.rows(View(sort="cell__area"))
    with pytest.raises(InputError, match=r"was replaced by one with other cells: open the gallery again"):
        session.describe(3)
    assert Project(project).features.obs["scportrait_cell_id"].isin([3, 6, 9]).all()


_SAVE = """
import sys
import numpy as np
from cellstamp.gallery.opening import find
from cellstamp.gallery.session import GallerySession

session = GallerySession(find(sys.argv[1]))
session.select(np.array([0]), "set")
sys.stdin.readline()
for number in range(5):
    session.tag(f"{sys.argv[2]}{number}", None)
    session.save_column(f"{sys.argv[2]}{number}", overwrite=False)
"""


def test_galleries_that_save_columns_at_once_keep_all(project: Path) -> None:
    command = [sys.executable, "-c", _SAVE, str(project)]
    galleries = [subprocess.Popen([*command, name], stdin=subprocess.PIPE, text=True) for name in "ab"]
    for each in galleries:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    for each in galleries:
        each.communicate()
        assert each.returncode == 0
    assert {f"{name}{number}" for name in "ab" for number in range(5)} <= set(Project(project).features.obs)
    assert not [path.name for path in (project / "extraction" / "data").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("values", [np.arange(N_CELLS) % 3 + 0.5, pd.Categorical(np.arange(N_CELLS) % 3)])
def test_a_column_of_numbers_is_continued_as_text(project: Path, values: Any) -> None:
    table = Project(project).features
    table.obs["grade"] = values
    session = session_of(project, table)
    session.select(np.array([0]), "set")
    session.tag("grade", "good")
    session.save_column("grade", overwrite=True)
    assert table.obs["grade"].iloc[:2].tolist() == ["good", str(values[1])]
    table.write_h5ad(project / "graded.h5ad")


def test_the_index_of_the_table_is_not_a_tag(project: Path) -> None:
    with pytest.raises(ConfigError, match="'_index': this column was measured or extracted"):
        session_of(project).tag("_index", None)


def test_numbers_too_large_for_bins_are_counted() -> None:
    values = values_of(pd.Series(np.full(5, 2**64 - 1, np.uint64)))
    assert histogram_of(values, np.arange(5), 60).counts.sum() == 5
    values = values_of(pd.Series([1e300, 1e300 * (1 + 1e-15), -np.inf]))
    assert histogram_of(values, np.arange(3), 60).counts.sum() == 2


def test_infinite_pixels_are_white() -> None:
    with warnings.catch_warnings(action="error"):
        coded = Range(0, 1e-3, 0, 1).table(np.array([0, 1e-3, np.inf, -np.inf, np.nan], np.float32))
    assert coded.tolist() == [0, 255, 255, 0, 0]


def test_columns_need_a_table_of_features(tmp_path: Path) -> None:
    write_file(tmp_path / "a.h5sc", layout_of(5))
    session = session_of(tmp_path / "a.h5sc")
    session.select(np.array([0]), "set")
    session.tag("a", None)
    with pytest.raises(ConfigError, match=r"there is no table of features.*Save the ids, or"):
        session.save_column("a", overwrite=False)
    assert session.rows(View(filters=(Filter("a", labels=("True",)),))).tolist() == [0]


def test_an_interrupted_write_leaves_the_table(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cellstamp.h5sc import tag_column

    session = session_of(project)
    session.tag("a", None)
    before = features_of(project).read_bytes()

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tag_column, "sync_file", fails)
    with pytest.raises(OutputError, match=r"features.h5ad: the column 'a' cannot be written: No space left"):
        session.save_column("a", overwrite=False)
    assert features_of(project).read_bytes() == before
    assert sorted(path.name for path in features_of(project).parent.iterdir()) == [
        "features.h5ad",
        "removed_classes.csv",
        "single_cells.h5sc",
    ]


# --- messages ---------------------------------------------------------------------------------------------------------


def test_messages_describe_the_gallery(session: GallerySession, template: Path) -> None:
    about = ask(Messages(session), "hello").content
    assert (about["n_cells"], about["image_size"]) == (N_CELLS, 32)
    assert [plane["name"] for plane in about["planes"]] == ["seg_all_nucleus", "seg_all_cytosol", *CHANNELS]
    assert [plane["is_mask"] for plane in about["planes"]] == [True, True, False, False, False]
    assert about["planes"][0]["colour"] == "#ffd23f"
    assert about["features"] == str(features_of(template))


def test_messages_send_cells_of_a_view(session: GallerySession) -> None:
    messages = Messages(session)
    view = {"sort": "scportrait_cell_id", "descending": True}
    reply = ask(messages, "cells", view=view, first=2, count=3, planes=[2, 4], crop=32, step=2)
    assert reply.content["ids"] == ["294", "291", "288"]
    assert (reply.content["total"], reply.content["side"], reply.content["selected"]) == (N_CELLS, 16, [0, 0, 0])
    assert reply.buffers[0].shape == (3, 2, 16, 16)
    assert ask(messages, "find", id="291", view=view).content == {"place": 3}
    assert ask(messages, "find", id="3", view={"sample": 1, "seed": 0}).content == {"place": None}
    beyond = ask(messages, "cells", view=view, first=500, count=3, planes=[2], crop=32)
    assert (beyond.content["ids"], beyond.buffers[0].size) == ([], 0)


def test_messages_describe_a_cell_and_its_place(session: GallerySession) -> None:
    messages = Messages(session)
    cell = ask(messages, "cell", id=" 9 ")
    values = dict(cell.content["values"])
    assert values["scportrait_cell_id"] == "9"
    assert (values["region"], values["measured_in_part"]) == ("seg_all_nucleus", "False")
    assert values["cell__area"] == f"{session.columns.values('cell__area').numbers[2]:.0f}"
    assert cell.buffers[0].shape == (1, 5, 32, 32)
    around = ask(messages, "surroundings", id="9")
    assert tuple(around.content["shape"]) == around.buffers[0].shape == (3, 192, 192)


def test_the_histogram_of_a_column_ignores_its_own_filter(session: GallerySession) -> None:
    messages = Messages(session)
    ids = {"column": "scportrait_cell_id", "low": 100, "high": None}
    own = ask(messages, "histogram", column="scportrait_cell_id", view={"filters": [ids]}).content
    assert (sum(own["counts"]), own["low"], own["high"]) == (N_CELLS, 3, 300)
    other = ask(messages, "histogram", column="region", view={"filters": [ids]}).content
    assert (other["kind"], list(other["labels"]), other["counts"]) == ("category", ["seg_all_nucleus"], [67])


def test_messages_select_a_range_or_all_that_pass(project: Path) -> None:
    session = session_of(project)
    messages = Messages(session)
    view = {"filters": [{"column": "scportrait_cell_id", "low": 151}], "sort": "scportrait_cell_id", "descending": True}
    assert ask(messages, "select", view=view, mode="add", first=0, last=2).content == {"n_selected": 3}
    assert session.selected_ids.tolist() == [294, 297, 300]
    assert ask(messages, "select", view=view, mode="add").content == {"n_selected": 50}
    reply = ask(messages, "cells", view={}, first=49, count=2, planes=[2], crop=8)
    assert reply.content["selected"] == [0, 1]
    assert ask(messages, "select", view={}, mode="remove").content == {"n_selected": 0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"type": "cells", "view": {}, "first": 0, "count": 5000, "planes": [0], "crop": 8}, "count = 5000"),
        ({"type": "cells", "view": {}, "first": -1, "count": 5, "planes": [0], "crop": 8}, "first = -1"),
        ({"type": "cells"}, "the request failed: KeyError: 'first'"),
        ({"type": "select", "view": {}, "mode": "add", "first": -1, "last": 3}, "first = -1, last = 3: must be places"),
        ({"type": "select", "view": {}, "mode": "add", "first": 4, "last": 3}, "first = 4, last = 3: must be places"),
        ({"type": "cell", "id": "4"}, "there is no cell '4'; ids are numbers such as 3, 6, 9"),
        ({"type": "cell", "id": "-3"}, "there is no cell '-3'"),
        ({"type": "cell", "id": str(2**70)}, "there is no cell"),
        ({"type": "histogram", "column": "nothing", "view": {}}, "there is no column 'nothing'"),
        ({"type": "files"}, "type = 'files': must be one of hello, cells"),
        ({}, "type = None"),
        ([], "type = None"),
    ],
)
def test_invalid_messages_are_answered(session: GallerySession, content: Any, message: str) -> None:
    assert message in Messages(session).answer(content).content["error"]


# --- widget -----------------------------------------------------------------------------------------------------------


class SentWidget(GalleryWidget):
    """A widget that keeps what it sends to its front end."""

    def send(self, content: Any, buffers: Any = None) -> None:
        self.__dict__.setdefault("sent", []).append((content, buffers))


def test_the_widget_answers_its_front_end_and_its_selection_is_live(project: Path) -> None:
    found = find(project)
    widget = SentWidget(found, found.folder)
    changes: list[int] = []
    widget.observe(lambda change: changes.append(change.new.size), "selected")
    assert widget.selected.dtype == np.uint64
    assert widget.selected.size == 0

    def tell(number: int, **content: Any) -> None:
        widget._handle_custom_msg({"number": number, "request": content}, [])

    tell(1, type="select", view={}, mode="add", first=1, last=2)
    tell(2, type="cells", view={}, first=0, count=3, planes=[2], crop=32)
    tell(3, type="save_ids", name="of widget")
    (first, _), (second, buffers), _ = widget.sent
    assert first == {"number": 1, "reply": {"n_selected": 2}}
    assert (second["number"], second["reply"]["selected"]) == (2, [0, 1, 1])
    assert len(buffers[0]) == 3 * 32 * 32
    assert (widget.selected.tolist(), changes) == ([6, 9], [2])
    assert (project / "of widget.csv").read_text() == "scportrait_cell_id\n6\n9\n"
    assert "render" in widget._esm
    widget.close()


def test_browse_is_a_widget_in_a_notebook(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browsing, "in_notebook", lambda: True)
    widget = cellstamp.browse(template)
    assert isinstance(widget, GalleryWidget)
    assert widget.selected.size == 0
    widget.close()


def test_the_loop_of_the_documentation_runs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="the example trains with scikit-learn")
    page = (Path(__file__).parents[1] / "docs" / "browse.md").read_text(encoding="utf-8")
    first, train, again = re.findall(r"^   ```python\n(.*?)^   ```$", page, re.MULTILINE | re.DOTALL)
    monkeypatch.setattr(browsing, "in_notebook", lambda: True)
    names: dict[str, Any] = {}
    exec(textwrap.dedent(first).replace('"my_project"', repr(str(project))), names)
    area = Project(project).features.to_df()["cell__area"].to_numpy()
    large = {"filters": [{"column": "cell__area", "low": float(np.quantile(area, 0.7))}]}
    messages = names["gallery"]._messages
    ask(messages, "select", view=large, mode="set")
    ask(messages, "tag", name="large")
    ask(messages, "save_column", name="large")
    exec(textwrap.dedent(train), names)
    exec(textwrap.dedent(again), names)
    wrong = names["features"].obs["wrong"].to_numpy()
    messages = names["gallery"]._messages
    view = {"filters": [{"column": "wrong", "labels": ["True"]}]}
    reply = ask(messages, "cells", view=view, first=0, count=100, planes=[2], crop=32)
    assert reply.content["total"] == wrong.sum() < 20
    ask(messages, "select", view=view, mode="set")
    ask(messages, "tag", name="large", overwrite=True)
    assert "overwrite" not in ask(messages, "save_column", name="large", overwrite=True).content
    np.testing.assert_array_equal(names["features"].obs["large"], wrong)


@pytest.mark.parametrize("is_running", [True, False])
def test_notebooks_of_marimo_have_widgets(monkeypatch: pytest.MonkeyPatch, *, is_running: bool) -> None:
    monkeypatch.setitem(sys.modules, "marimo", SimpleNamespace(running_in_notebook=lambda: is_running))
    assert browsing._is_interactive() is is_running


def test_missing_packages_are_named() -> None:
    with pytest.raises(
        ConfigError, match=re.escape("the gallery needs nothing_1 and nothing_2: install them with pip")
    ):
        browsing.check_installed(("nothing_1", "sys", "nothing_2"))


# --- server -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(session: GallerySession) -> Iterator[str]:
    with served(Messages(session)) as (address, _):
        yield address


def test_the_page_and_its_parts_are_served(address: str) -> None:
    page = request(address)
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"gallery.js" in page.body
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for name, kind in (("gallery.js", "text/javascript"), ("gallery.css", "text/css")):
        answer = request(address, name)
        assert (answer.status, answer.headers["content-type"].split(";")[0]) == (200, kind)


def test_nothing_of_the_page_is_loaded_from_elsewhere() -> None:
    assets = Path(browsing.__file__).parent / "assets"
    for path in assets.iterdir():
        addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", path.read_text(encoding="utf-8")))
        assert addresses <= {"http://www.w3.org"}  # the name of SVG


def test_messages_are_answered_over_http(address: str) -> None:
    content = {"type": "cells", "view": {}, "first": 5, "count": 2, "planes": [2, 3], "crop": 32}
    head, (images,) = request(address, "message", body=content).unpacked()
    assert head["ids"] == ["18", "21"]
    assert images.size == 2 * 2 * 32 * 32
    error, buffers = request(address, "message", body={"type": "cell", "id": "1"}).unpacked()
    assert (error["error"][:20], buffers) == ("there is no cell '1'", [])
    assert request(address, "message", body=b"{no json").status == 400
    assert request(address, "message", body=b" " * 2**21).status == 413
    assert request(address, "message", body=b"[" * 100_000).status == 400
    assert request(address, "message", body={"type": "hello"}, Origin="http://[::1").status == 403
    for view in ([], None, {"filters": [1]}):
        error, _ = request(
            address, "message", body={"type": "cells", "view": view, "planes": [0], "crop": 8}
        ).unpacked()
        assert "error" in error


def test_large_requests_in_pieces_are_refused(address: str) -> None:
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
    pieces = (b" " * 2**16 for _ in range(100))
    with suppress(BrokenPipeError, ConnectionResetError):  # the server may answer before it has everything
        connection.request("POST", f"{place.path}message", pieces, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_a_request_that_is_given_up_is_no_error(session: GallerySession) -> None:
    server = GalleryServer(Messages(session))
    place = urlsplit(server.address)
    events = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    scope = {
        "type": "http", "method": "POST", "path": f"{place.path}message", "query_string": b"",
        "headers": [(b"host", place.netloc.encode())],
    }  # fmt: skip
    sent = []

    async def receive() -> dict[str, Any]:
        return events.pop(0)

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    asyncio.run(server.app()(scope, receive, send))
    server._socket.close()
    assert sent[0]["status"] == 400


def test_a_wrong_or_missing_token_is_refused(address: str) -> None:
    root, token = address[:-1].rsplit("/", 1)
    root += "/"
    for path in ("", "gallery.js", "x/", "x/gallery.js", f"{token[:-1]}/", f"{token}x/", token[:-1], f"é{token}/"):
        answer = request(root, quote(path))
        assert (answer.status, b"script" in answer.body) == (403, False)
    assert request(f"{root}x/", "message", body={"type": "hello"}).status == 403
    assert request(f"{root}x/", "goodbye", body=b"").status == 403
    assert request(f"{root}x/", "open").status == 403


@pytest.mark.parametrize("host", ["example.org", "example.org:80", "127.0.0.1.example.org", "", "localhost.evil:1"])
def test_another_host_is_refused(address: str, host: str) -> None:
    answer = request(address, Host=host)
    assert (answer.status, answer.body) in (
        (403, b"this page is for this computer only"),
        (400, b"Invalid HTTP request received."),
    )


def test_a_tunnel_with_another_port_is_allowed(address: str) -> None:
    assert request(address, Host="localhost:9999").status == 200


@pytest.mark.parametrize("origin", ["http://example.org", "null", "http://127.0.0.1:1"])
def test_a_page_of_another_site_is_refused(address: str, origin: str) -> None:
    assert request(address, "message", body={"type": "hello"}, Origin=origin).status == 403


@pytest.mark.parametrize(
    "path",
    ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "server.py", "../server.py", "%2fetc%2fpasswd", "assets/gallery.js"],
)
def test_paths_outside_are_refused(address: str, path: str) -> None:
    answer = request(address, path)
    assert answer.status in (403, 404)
    assert b"root:" not in answer.body
    assert b"import" not in answer.body


def test_it_listens_on_this_computer_only(session: GallerySession) -> None:
    server = GalleryServer(Messages(session))
    assert server._socket.getsockname()[0] == "127.0.0.1"
    assert len(server.address.split("/")[-2]) >= 32
    server._socket.close()


def test_a_port_in_use_is_reported(session: GallerySession) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port = {port}: cannot be used \(.*in use"):
            GalleryServer(Messages(session), port)


def test_a_port_is_free_again_at_once(session: GallerySession) -> None:
    with served(Messages(session)) as (address, thread):
        # a connection that the server closes first keeps the port for a minute
        place = urlsplit(address)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
        connection.request("GET", f"{place.path}open?tab=1")
        answer = connection.getresponse()
        assert answer.read(1) == b"."
    thread.join()
    answer.close()
    connection.close()
    GalleryServer(Messages(session), place.port)._socket.close()


def test_tabs_are_gone_when_all_are_closed_for_good() -> None:
    clock = [0.0]
    tabs = Tabs(lambda: clock[0])
    assert not tabs.are_gone()  # none has been opened yet
    tabs.open("a")
    tabs.open("b")
    tabs.say_goodbye("a")
    tabs.disconnect("a")
    clock[0] += LOST
    assert not tabs.are_gone()  # one is open
    tabs.say_goodbye("b")
    tabs.disconnect("b")
    assert not tabs.are_gone()  # it may be loading again
    tabs.open("c")
    clock[0] += CLOSED
    assert not tabs.are_gone()
    tabs.disconnect("c")
    clock[0] += CLOSED
    assert not tabs.are_gone()  # unloaded in the background
    clock[0] += LOST
    assert tabs.are_gone()


@pytest.mark.parametrize("first", ["goodbye", "disconnect"])
def test_a_closed_tab_is_gone_soon_whatever_arrives_first(first: str) -> None:
    clock = [0.0]
    tabs = Tabs(lambda: clock[0])
    tabs.open("a")
    steps = [tabs.say_goodbye, tabs.disconnect]
    for step in steps if first == "goodbye" else reversed(steps):
        step("a")
    assert not tabs.are_gone()
    clock[0] += CLOSED
    assert tabs.are_gone()


def test_the_server_ends_when_its_tab_is_closed_for_good(session: GallerySession) -> None:
    with served(Messages(session), closed=0.05) as (address, thread):
        with open_tab(address, "1"):
            assert request(address, "goodbye?tab=1", body=b"").status == 200
            with open_tab(address, "2"):
                pass
            assert request(address).status == 200
        thread.join(timeout=60)
        assert not thread.is_alive()


# --- command line -----------------------------------------------------------------------------------------------------


def browse_process(*arguments: object) -> tuple[subprocess.Popen[str], str]:
    """Run the command, and return its process and the address that it shows."""
    code = "from cellstamp.cli import main; main()"
    command = [sys.executable, "-u", "-c", code, "browse", *map(str, arguments), "--no-open"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    match = re.search(r"^Gallery of 100 cells: (http://127\.0\.0\.1:\d+/\S+/)$", line.strip())
    assert match, (line, process.communicate())
    assert process.stdout.readline() == "Close the page or press Ctrl-C to end.\n"
    return process, match[1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_signals_end_the_command_while_a_tab_is_open(template: Path, number: int, code: int) -> None:
    process, address = browse_process(template)
    with open_tab(address):
        assert request(address, "message", body={"type": "hello"}).unpacked()[0]["n_cells"] == N_CELLS
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (code, "", "" if code == 0 else "Terminated.\n")


def test_the_command_reports_wrong_input(template: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run_command("browse", template, "--no-open", "--port", port)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Error: --port = {port}: cannot be used (")
    for arguments, message in (
        ([tmp_path / "a.txt"], "is not an HDF5 file"),
        ([tmp_path / "none"], "does not exist"),
        ([tmp_path], "this folder has no extraction"),
        ([template, "--features", tmp_path / "a.txt"], "--features: "),
        ([template, "--save", tmp_path / "a.txt"], "--save = "),
    ):
        result = run_command("browse", *arguments, "--no-open")
        assert result.exit_code == 2
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_browse_returns_the_selected_ids_outside_of_a_notebook(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def use(self: GalleryServer) -> None:
        self._messages.answer({"type": "select", "view": {}, "mode": "add", "first": 0, "last": 1})
        self._socket.close()

    monkeypatch.setattr(GalleryServer, "run", use)
    monkeypatch.setattr(browsing, "_open_in_browser", lambda address: None)
    with warnings.catch_warnings():
        np.testing.assert_array_equal(cellstamp.browse(template), np.array([3, 6], np.uint64))
