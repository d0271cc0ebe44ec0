"""Masks in which one id stands for many cells are recognised; masks of cells are left alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import numpy as np
import pytest
import skimage
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from cellstamp.errors import InputError
from cellstamp.pipeline.extraction import HDF5CellExtraction
from cellstamp.pipeline.project import Project
from cellstamp.source.load.store import store_centers
from cellstamp.source.read import centers as blocks
from cellstamp.source.read.centers import compute_centers, positions_of_runs, runs_of, sum_up
from cellstamp.source.read.runs import join_runs
from cellstamp.source.read.shared_ids import survey
from cellstamp.source.values import Rect, SharedIds
from conftest import write_store
from pixel_stores import write_array

SHARED = Path(__file__).parents[2] / "shared" / "data"


def discs(per_row: int, pitch: int = 20, radius: float = 7, rows: int | None = None) -> np.ndarray:
    """Round cells with the ids 1, 2, ... in reading order."""
    height, width = (rows or per_row) * pitch, per_row * pitch
    y, x = np.mgrid[:height, :width]
    inside = (y % pitch - pitch // 2) ** 2 + (x % pitch - pitch // 2) ** 2 < radius**2
    return np.where(inside, y // pitch * per_row + x // pitch + 1, 0).astype(np.int64)


def wrapped(cells: np.ndarray, n_ids: int) -> np.ndarray:
    return np.where(cells > 0, (cells - 1) % n_ids + 1, 0)


def tiles(per_side: int) -> np.ndarray:
    """Tiles that were segmented one by one, each with ids from 1."""
    return np.tile(discs(8), (per_side, per_side))


def clumped() -> np.ndarray:
    """A threshold of cells half of which touch."""
    return (discs(8) > 0) | (np.arange(160) < 80)


def filled(cells: np.ndarray, background: int) -> np.ndarray:
    return np.where(cells > 0, cells, background)


def surveyed(folder: Path, mask: np.ndarray, chunks: tuple[int, int] = (500, 500)) -> SharedIds | None:
    return survey(write_array(folder / "x.zarr", "labels/cells/s0", mask, chunks)).shared


SHARED_IDS: dict[str, tuple[Callable[[], np.ndarray], SharedIds]] = {
    "0 and 255": (lambda: (discs(12) > 0).astype(np.uint8) * 255, SharedIds("boolean", 255, 144)),
    "0 and 255, objects of 9 pixels": (
        lambda: np.kron(np.ones((8, 8), np.uint8), np.pad(np.full((3, 3), 255, np.uint8), 4)),
        SharedIds("boolean", 255, 64),
    ),
    "0 and 255, two cells": (lambda: (discs(3, rows=1) % 2).astype(np.uint8) * 255, SharedIds("boolean", 255, 2)),
    "0 and 1, four cells": (lambda: (discs(2) > 0).astype(np.uint8), SharedIds("boolean", 1, 4)),
    "0 and 1, one clump and single cells": (lambda: clumped().astype(np.int32), SharedIds("boolean", 1, 33)),
    "two classes": (lambda: wrapped(discs(12), 2).astype(np.uint8), SharedIds("classes", 1, 72)),
    "two classes, five cells of one": (
        lambda: np.where(discs(3, rows=2) == 6, 2, np.minimum(discs(3, rows=2), 1)),
        SharedIds("classes", 1, 5),
    ),
    "two classes, six cells": (lambda: wrapped(discs(3, rows=2), 2).astype(np.uint8), SharedIds("classes", 1, 3)),
    "five classes": (lambda: wrapped(discs(12), 5).astype(np.uint16), SharedIds("classes", 1, 29)),
    "ten ids for 40 cells": (lambda: wrapped(discs(8, rows=5), 10).astype(np.uint8), SharedIds("classes", 1, 4)),
    "one class is rare": (lambda: np.minimum(discs(8), 2).astype(np.uint8), SharedIds("classes", 2, 63)),
    "300 cells in 8 bits": (lambda: wrapped(discs(20, rows=15), 255).astype(np.uint8), SharedIds("8 bits", 1, 2)),
    "900 cells in 8 bits": (lambda: discs(30).astype(np.uint8), SharedIds("8 bits", 1, 4)),
    "3600 cells in 8 bits": (lambda: discs(60, 16, 6).astype(np.uint8), SharedIds("8 bits", 1, 15)),
    "8 bits in 32": (lambda: discs(30).astype(np.uint8).astype(np.uint32), SharedIds("8 bits", 1, 4)),
    "16 bits": (
        lambda: np.where(tiles(2) > 0, tiles(2) + 65_535 - 64, 0).astype(np.uint16),
        SharedIds("16 bits", 65_535, 4),
    ),
    "four tiles": (lambda: tiles(2).astype(np.uint32), SharedIds("repeated", 1, 4)),
    "100 tiles": (lambda: tiles(10).astype(np.uint32), SharedIds("repeated", 1, 100)),
    "60 of 144 cells share an id": (lambda: with_unassigned(60), SharedIds("repeated", 1, 60)),
    "30,000 ids, each twice": (lambda: wrapped(discs(245, 10, 4), 30_000), SharedIds("repeated", 1, 3)),
    "ilastik: 1 are cells, 2 background": (
        lambda: np.where(discs(6) > 0, 1, 2).astype(np.uint8),
        SharedIds("boolean", 1, 36, background=2),
    ),
    "background 255": (
        lambda: filled(discs(6), 255).astype(np.uint8),
        SharedIds("background", 255, 1, background=255),
    ),
}


@pytest.mark.parametrize("name", SHARED_IDS)
def test_masks_whose_ids_are_not_cells(tmp_path: Path, name: str) -> None:
    make, expected = SHARED_IDS[name]
    found = surveyed(tmp_path, make())
    assert found is not None
    assert (found.kind, found.n_places, found.background) == (expected.kind, expected.n_places, expected.background)


@pytest.mark.parametrize("name", ["0 and 255", "two classes", "five classes", "900 cells in 8 bits", "100 tiles"])
def test_whatever_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A piece that a block's border cuts is not counted, so that none is counted twice."""
    monkeypatch.setattr(blocks, "BLOCK_SIDE", 70)
    make, expected = SHARED_IDS[name]
    found = surveyed(tmp_path, make(), (70, 70))
    assert found is not None
    assert found.kind == expected.kind
    assert found.n_places <= expected.n_places


def split(cells: np.ndarray) -> np.ndarray:
    """Every cell in two fragments, a gap between them."""
    return np.where(np.arange(len(cells))[:, np.newaxis] % 20 == 10, 0, cells)


def fibres() -> np.ndarray:
    """Long thin cells, upright, in staggered columns."""
    y, x = np.mgrid[:400, :400]
    return np.where(x % 4 < 3, (x // 4) + 100 * ((y + 7 * (x // 4)) // 130) + 1, 0)


def tissue() -> np.ndarray:
    """Cells of many sizes side by side, without any background."""
    rng = np.random.default_rng(0)
    points = np.ones((600, 600), bool)
    points[tuple(rng.integers(0, 600, (2, 900)))] = False
    nearest = ndimage.distance_transform_edt(points, return_distances=False, return_indices=True)
    return np.unique(nearest[0] * 600 + nearest[1], return_inverse=True)[1].reshape(600, 600) + 1


def nuclei_of_large_cells() -> np.ndarray:
    """Nuclei with the ids of their cells: nine in each of them."""
    y, x = np.mgrid[:480, :480]
    nuclei = (y % 20 - 10) ** 2 + (x % 20 - 10) ** 2 < 36
    return np.where(nuclei, y // 60 * 8 + x // 60 + 1, 0)


def with_odd_cells() -> np.ndarray:
    """A few ids among many were used twice by mistake."""
    cells = discs(40, 16, 6)
    cells[cells == 1600] = 1
    cells[cells == 1500] = 30
    return cells


def with_crumbs(n: int, side: int) -> np.ndarray:
    """Many cells, one of which has crumbs all over the image."""
    cells = discs(12)
    for number in range(n):
        y, x = 20 * (number // 11) + 18, 20 * (number % 11) + 18
        cells[y : y + side, x : x + side] = 7
    return cells


def with_a_shattered_cell(n_rows: int, n_columns: int) -> np.ndarray:
    """Many cells, and a large one in this number of fragments."""
    cells = np.pad(discs(12), ((0, 100), (0, 0)))
    fragments = np.kron(np.ones((n_rows, n_columns), int), np.pad(np.ones((4, 4), int), 2))
    cells[245 : 245 + 8 * n_rows, 10 : 10 + 8 * n_columns] = 1000 * fragments
    return cells


def with_unassigned(n: int) -> np.ndarray:
    """Many cells, some of which share an id."""
    cells = discs(12)
    return np.where((cells > 0) & (cells <= n), 1, cells)


def specks() -> np.ndarray:
    """Cells with crumbs all over the image."""
    cells, rng = discs(10), np.random.default_rng(0)
    for _ in range(400):
        y, x = rng.integers(0, 198, 2)
        cells[y : y + 2, x : x + 2] = rng.integers(1, 101)
    return cells


FINE: dict[str, Callable[[], np.ndarray]] = {
    "cells": lambda: discs(12),
    "many cells": lambda: discs(60, 16, 6),
    "cells of a few pixels": lambda: discs(5, 10, 1.5),
    "no cell": lambda: np.zeros((50, 60), np.int64),
    "one cell": lambda: discs(1),
    "two cells": lambda: discs(2, rows=1),
    "one cell and nothing else": lambda: np.ones((40, 50), np.int64),
    "a cell with the id 255": lambda: 255 * discs(1),
    "a cell in two fragments": lambda: split(discs(1)),
    "two cells in two fragments each": lambda: split(discs(2, rows=1)),
    "a cell in two fragments far apart": lambda: np.minimum(discs(2, rows=1), 1),
    "every cell in two fragments": lambda: split(discs(12)),
    "fibres": fibres,
    "tissue": tissue,
    "nuclei of large cells": nuclei_of_large_cells,
    "a few odd cells": with_odd_cells,
    "specks": specks,
    "a cell with crumbs": lambda: with_crumbs(40, 3),
    "a cell in three pieces": lambda: with_unassigned(3),
    "a cell in three fragments": lambda: with_a_shattered_cell(1, 3),
    "a cell in 90 fragments": lambda: with_a_shattered_cell(9, 10),
    "two cells, one in three pieces": lambda: np.where(discs(2, 40) == 4, 2, np.minimum(discs(2, 40), 1)),
    "rings": lambda: np.where(discs(6, radius=4) > 0, 0, discs(6)),
    "a huge cell among small ones": lambda: np.where(np.arange(240)[:, np.newaxis] > 100, 1000, discs(12)),
}


@pytest.mark.parametrize("name", FINE)
def test_masks_of_cells_are_left_alone(tmp_path: Path, name: str) -> None:
    assert surveyed(tmp_path, FINE[name]()) is None


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data are not here")
@pytest.mark.parametrize(
    "path", sorted(SHARED.glob("*/labels_*.tif")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_real_masks_are_left_alone(tmp_path: Path, path: Path) -> None:
    assert surveyed(tmp_path, tifffile.imread(path)) is None


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.int64, st.tuples(st.integers(1, 25), st.integers(1, 25)), elements=st.integers(0, 2), fill=st.just(0))
)
def test_connected_components_are_those_of_scipy(mask: np.ndarray) -> None:
    ids, totals = runs_of(mask, Rect(0, mask.shape[0], 0, mask.shape[1]))
    rows, firsts, lasts = positions_of_runs(totals)
    root = join_runs(ids, rows, firsts, lasts)
    assert len(np.unique(root)) == sum(ndimage.label(mask == cell, np.ones((3, 3)))[1] for cell in (1, 2))
    for cell in (1, 2):
        expected = ndimage.label(mask == cell, np.ones((3, 3)))[0][rows[ids == cell], firsts[ids == cell]]
        assert len(set(zip(expected, root[ids == cell], strict=True))) == len(set(expected))


def test_runs_and_box_of_each_cell(tmp_path: Path, make_cells: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_SIDE", 50)
    _, _, cytosol = make_cells()
    sums = sum_up(write_array(tmp_path / "x.zarr", "labels/cells/s0", cytosol, (50, 200)))
    for cell, (n_runs, *box) in zip(sums.ids, sums.spans, strict=True):
        rows = np.nonzero((cytosol == cell).any(axis=1))[0]
        columns = np.nonzero((cytosol == cell).any(axis=0))[0]
        assert box == [rows[0], rows[-1], columns[0], columns[-1]]
        assert n_runs == rows.size


def test_centres_are_those_of_compute_centers(tmp_path: Path, make_cells: Any) -> None:
    labels = write_array(tmp_path / "x.zarr", "labels/cells/s0", make_cells()[1], (64, 64))
    found, expected = survey(labels), compute_centers(labels)
    assert found.ids.tolist() == expected.ids.tolist()
    assert found.xy.tolist() == expected.xy.tolist()


class TestWarnings:
    CELLS = discs(6)
    IMAGE = np.ones((1, *CELLS.shape), np.uint16)

    @pytest.mark.parametrize(
        ("mask", "message"),
        [
            (np.where(CELLS > 0, 255, 0), "id 255 has 36 separate pieces. It looks like a boolean mask"),
            (wrapped(CELLS, 2), "id 1 has 18 separate pieces. It looks like a mask of classes"),
            (np.where(CELLS > 0, 1, 2), "id 1 has 36 separate pieces. It looks like a boolean mask"),
        ],
    )
    def test_loading_says_how_to_number_the_cells(self, tmp_path: Path, mask: np.ndarray, message: str) -> None:
        project = Project(tmp_path / "project")
        project.load_input_from_array(self.IMAGE)
        wanted = rf"^seg_all_cytosol: one id stands for many cells: {message}.*: (skimage\.measure\.label\(.*\))$"
        with pytest.warns(UserWarning, match=wanted) as told:
            project.load_segmentation(cytosol=mask.astype(np.uint8))
        code = re.search(wanted, str(told[0].message))[1]
        numbered = eval(code, {"skimage": skimage, "numpy": numpy, "mask": mask})
        project.load_segmentation(cytosol=numbered, overwrite=True)
        np.testing.assert_array_equal(np.asarray(project.sdata["seg_all_cytosol"]), self.CELLS)

    def test_a_background_that_is_not_0(self, tmp_path: Path) -> None:
        project, mask = Project(tmp_path / "project"), filled(self.CELLS, 255)
        project.load_input_from_array(self.IMAGE)
        wanted = r"no pixel is 0, and most have id 255\. .* use this as mask: (numpy\.where\(.*\))$"
        with pytest.warns(UserWarning, match=wanted) as told:
            project.load_segmentation(cytosol=mask)
        numbered = eval(re.search(wanted, str(told[0].message))[1], {"numpy": numpy, "mask": mask})
        np.testing.assert_array_equal(numbered, self.CELLS)

    def test_it_is_said_before_ids_of_two_masks_are_compared(self, tmp_path: Path) -> None:
        project = Project(tmp_path / "project")
        project.load_input_from_array(self.IMAGE)
        with (
            pytest.warns(UserWarning, match="seg_all_cytosol: one id stands for many cells"),
            pytest.raises(InputError, match="do not belong together"),
        ):
            project.load_segmentation(nucleus=self.CELLS, cytosol=np.where(self.CELLS > 0, 255, 0))

    def test_loading_from_a_store(self, tmp_path: Path) -> None:
        store = write_store(tmp_path / "a.zarr", self.IMAGE, {"mask": wrapped(self.CELLS, 2)})
        project = Project(tmp_path / "project")
        with pytest.warns(UserWarning, match="seg_all_nucleus: one id stands for many cells"):
            project.load_input_from_sdata(store, "input_image", "mask")

    def test_extracting_from_a_store(self, tmp_path: Path) -> None:
        """First with centres that are computed, then with those that were stored."""
        store = write_store(tmp_path / "a.zarr", self.IMAGE, {"seg_all_cytosol": wrapped(self.CELLS, 2)})
        for run in ("first", "second"):
            told = extracted(tmp_path / run, store)
            assert re.match(r"'seg_all_cytosol' in .*a\.zarr: one id stands for many cells: id 1 has 18 ", told[0])
            assert not any("would hold all of them" in each or "delete the points" in each for each in told)

    def test_advice_on_the_crop_is_conditional_where_ids_were_not_looked_at(self, tmp_path: Path) -> None:
        """Centres that another program has stored."""
        store = write_store(tmp_path / "a.zarr", self.IMAGE, {"seg_all_cytosol": (self.CELLS > 0).astype(np.uint8)})
        labels = write_array(tmp_path / "x.zarr", "labels/cells/s0", (self.CELLS > 0).astype(np.uint8), (64, 64))
        store_centers(store, "seg_all_cytosol", compute_centers(labels))
        told = extracted(tmp_path / "run", store)
        assert re.search(r"image_size \d+ would hold all of them, if each id is one cell; if one id stands", told[-1])


def extracted(folder: Path, store: Path) -> list[str]:
    """Extract, and return what the user is warned of."""
    config = {"threads": 1, "image_size": 20, "cache": str(folder), "progress": False}
    with pytest.warns(UserWarning, match="cells") as told:
        HDF5CellExtraction(config, folder, filehandler=store)()
    return [str(each.message) for each in told]
