"""Masks with different ids are matched by overlap, as loops over nuclei and cells would match them."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellstamp import ConfigError, InputError, MatchedMasks, Project, match_masks
from cellstamp.source.load import mask_overlaps
from stores import make_sample

CELLS, NUCLEI = (make_sample().masks[f"seg_all_{kind}"].astype(np.uint32) for kind in ("cytosol", "nucleus"))
N_CELLS = int(CELLS.max())


def renumbered(mask: np.ndarray, seed: int = 0, dtype: Any = np.uint16) -> np.ndarray:
    """The same cells with other ids."""
    ids = np.random.default_rng(seed).permutation(int(mask.max())) + 1
    return np.append(0, ids).astype(dtype)[mask]


def matched_quietly(*masks: np.ndarray, **options: Any) -> MatchedMasks:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return match_masks(*masks, **options)


def by_loops(nuclei: np.ndarray, cells: np.ndarray, min_overlap: float) -> tuple[dict[int, int], set[int], set[int]]:
    """Cell -> its nucleus, nuclei outside of cells, extra nuclei: one nucleus and one cell at a time."""
    candidates: dict[int, list[tuple[int, int]]] = {}
    outside = set()
    for nucleus in sorted(set(nuclei.ravel().tolist()) - {0}):
        inside = cells[nuclei == nucleus].tolist()
        counts = {cell: inside.count(cell) for cell in sorted(set(inside) - {0})}
        best = max(counts, key=lambda cell: (counts[cell], -cell), default=0)
        if best and counts[best] / len(inside) >= min_overlap:
            candidates.setdefault(best, []).append((-counts[best], nucleus))
        else:
            outside.add(nucleus)
    kept = {cell: min(found)[1] for cell, found in candidates.items()}
    extra = {nucleus for found in candidates.values() for _, nucleus in found} - set(kept.values())
    return kept, outside, extra


MASK = hnp.arrays(np.uint8, (6, 7), elements=st.integers(0, 5))


@settings(max_examples=300, deadline=None)
@given(nuclei=MASK, cells=MASK, min_overlap=st.sampled_from([0, 0.2, 1 / 3, 0.5, 0.75, 1]))
def test_as_loops_match_them(nuclei: np.ndarray, cells: np.ndarray, min_overlap: float) -> None:
    kept, outside, extra = by_loops(nuclei, cells, min_overlap)
    if not kept:
        with pytest.raises(InputError, match=r"none of the|all pixels are 0"):
            match_masks(nuclei, cells, min_overlap=min_overlap)
        return
    found = matched_quietly(nuclei, cells, min_overlap=min_overlap)
    assert dict(zip(found.cell_ids.tolist(), found.nucleus_ids.tolist(), strict=True)) == kept
    assert found.cell_ids.tolist() == sorted(kept)
    assert (set(found.nuclei_outside.tolist()), set(found.extra_nuclei.tolist())) == (outside, extra)
    assert set(found.cells_without_nucleus.tolist()) == set(cells.ravel().tolist()) - {0} - set(kept)
    cell_of = {nucleus: cell for cell, nucleus in kept.items()}
    assert found.nucleus.tolist() == [[cell_of.get(value, 0) for value in row] for row in nuclei.tolist()]
    assert found.cytosol.tolist() == [[value if value in kept else 0 for value in row] for row in cells.tolist()]


def test_matched_masks_load(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", {"threads": 1, "image_size": 24, "border": "pad"})
    project.load_input_from_array(make_sample().image)
    cells = renumbered(CELLS)
    with pytest.raises(InputError, match=r"do not belong together.*made separately, cellstamp\.match_masks gives"):
        project.load_segmentation(nucleus=NUCLEI + 1000 * (NUCLEI > 0), cytosol=cells)
    matched = match_masks(nucleus=NUCLEI, cytosol=cells)
    project.load_segmentation(nucleus=matched.nucleus, cytosol=matched.cytosol)
    assert np.array_equal(project.sdata["seg_all_nucleus"], np.where(NUCLEI > 0, cells, 0))
    assert np.array_equal(project.sdata["seg_all_cytosol"], cells)
    assert (len(matched), repr(matched)) == (
        N_CELLS,
        f"Matched {N_CELLS} of {N_CELLS} nuclei to {N_CELLS} of {N_CELLS} cells",
    )


@pytest.mark.parametrize("dtypes", [(np.uint8, np.int64), (np.int32, np.uint64), (">u2", "<u4"), (np.int16, np.uint8)])
def test_every_integer_dtype(dtypes: tuple[Any, Any]) -> None:
    cells = renumbered(CELLS)
    found = match_masks(NUCLEI.astype(dtypes[0]), cells.astype(dtypes[1]))
    assert np.array_equal(found.nucleus, np.where(NUCLEI > 0, cells, 0))
    assert found.nucleus.dtype == found.cytosol.dtype == np.dtype(dtypes[1]).newbyteorder("=")


def test_ids_of_64_bits() -> None:
    high = 2**63 - 1 - N_CELLS
    cells = np.where(CELLS > 0, CELLS + np.uint64(high), np.uint64(0))
    found = match_masks(NUCLEI.astype(np.uint64) * np.uint64(2**40), cells)
    assert np.array_equal(found.nucleus, np.where(NUCLEI > 0, cells, 0))
    assert found.nucleus_ids.tolist() == [2**40 * number for number in range(1, N_CELLS + 1)]


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = renumbered(CELLS)
    expected = match_masks(NUCLEI, cells)
    monkeypatch.setattr(mask_overlaps, "_BLOCK", 17)
    found = match_masks(NUCLEI, cells)
    assert np.array_equal(np.asarray(found.nucleus), expected.nucleus)
    assert np.array_equal(found.nucleus_ids, expected.nucleus_ids)


def test_dask_stays_dask_and_zarr_is_read(tmp_path: Path) -> None:
    cells = renumbered(CELLS)
    expected = match_masks(NUCLEI, cells)
    lazy = match_masks(dask.array.from_array(NUCLEI, chunks=(64, 50)), dask.array.from_array(cells, chunks=(40, 230)))
    assert isinstance(lazy.nucleus, dask.array.Array)
    assert lazy.nucleus.dtype == lazy.cytosol.dtype == np.uint16
    stored = zarr.create_array(tmp_path / "nuclei.zarr", data=NUCLEI, chunks=(64, 50))
    for found in (lazy, match_masks(stored, cells)):
        assert np.array_equal(np.asarray(found.nucleus), expected.nucleus)
        assert np.array_equal(np.asarray(found.cytosol), expected.cytosol)


def test_elements_of_a_spatialdata_store_match(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", {"threads": 1, "image_size": 24})
    project.load_input_from_array(make_sample().image)
    project.load_segmentation(nucleus=NUCLEI, cytosol=CELLS)
    found = match_masks(project.sdata["seg_all_nucleus"], project.sdata["seg_all_cytosol"])
    project.load_segmentation(nucleus=found.nucleus, cytosol=found.cytosol, overwrite=True)
    assert np.array_equal(project.sdata["seg_all_nucleus"], NUCLEI)


def test_a_large_loss_is_a_warning_and_a_small_one_is_not() -> None:
    one_less = np.where(NUCLEI == 3, 0, NUCLEI)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = match_masks(one_less, CELLS)
    assert found.cells_without_nucleus.tolist() == [3]
    half = np.where(NUCLEI % 2 == 0, NUCLEI, 0)
    expected = f"Matched {N_CELLS // 2} of {N_CELLS // 2} nuclei to {N_CELLS // 2} of {N_CELLS} cells (dropped "
    with pytest.warns(UserWarning, match=re.escape(expected)):
        match_masks(half, CELLS)


def test_one_of_two_nuclei_in_a_cell_is_kept() -> None:
    cells = np.full((4, 8), 7)
    nuclei = np.zeros_like(cells)
    nuclei[0, :3], nuclei[2, :4] = 1, 2
    found = matched_quietly(nuclei, cells)
    assert (found.nucleus_ids.tolist(), found.extra_nuclei.tolist()) == ([2], [1])
    assert np.array_equal(found.nucleus, np.where(nuclei == 2, 7, 0))


def test_min_overlap_is_exact() -> None:
    cells = np.zeros((10, 10), int)
    cells.flat[:7] = 1
    nuclei = np.ones_like(cells)
    assert len(matched_quietly(nuclei, cells, min_overlap=0.07)) == 1
    with pytest.raises(InputError, match="none of the 1 nuclei has at least 8% of its pixels in one of the 1 cells"):
        match_masks(nuclei, cells, min_overlap=0.08)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ((NUCLEI[:-1], CELLS), r"nucleus mask of 199 x 230 pixels \(y, x\), cytosol mask of 200 x 230: must have the"),
        ((NUCLEI > 0, CELLS), r"nucleus mask of dtype bool: must hold integers.*skimage\.measure\.label"),
        ((NUCLEI, CELLS + 0.5), "cytosol mask of dtype float64: must hold integers"),
        ((NUCLEI[None], CELLS), r"nucleus mask of shape \(1, 200, 230\): must be 2-D \(y, x\)\. .* like nucleus\[0\]"),
        ((NUCLEI, CELLS.astype(int) - 1), r"cytosol mask: the negative value -1; .*numpy\.where\(cytosol < 0"),
        ((NUCLEI * 0, CELLS), "nucleus mask: all pixels are 0"),
        ((NUCLEI, CELLS * 0), "cytosol mask: all pixels are 0"),
        (("nuclei.tif", CELLS), r"nucleus = 'nuclei.tif': must be an array.*tifffile\.imread\('nuclei.tif'\)"),
        ((NUCLEI, Path("cells.tif")), "cytosol = .*: must be an array"),
    ],
)
def test_invalid_masks(masks: tuple[Any, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        match_masks(*masks)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "half", True, None])
def test_invalid_min_overlap(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"min_overlap = .*: must be a number from 0 to 1"):
        match_masks(NUCLEI, CELLS, min_overlap=value)


def test_the_advised_way_to_read_a_file_works(tmp_path: Path) -> None:
    path = tmp_path / "nuclei.tif"
    tifffile.imwrite(path, NUCLEI)
    with pytest.raises(InputError, match="must be an array") as error:
        match_masks(path, CELLS)
    code = str(error.value).partition("first: ")[2]
    assert len(match_masks(eval(code, {"tifffile": tifffile}), CELLS)) == N_CELLS
