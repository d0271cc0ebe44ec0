"""Masks whose nuclei and cells don't belong together are recognised at loading; usual masks are left alone."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from cellstamp import Project, match_masks
from stores import make_sample

SHARED = Path(__file__).parents[2] / "shared" / "data"
REAL = pytest.mark.skipif(not SHARED.is_dir(), reason="the real data are not here")
CELLS, NUCLEI = (make_sample().masks[f"seg_all_{kind}"].astype(np.uint32) for kind in ("cytosol", "nucleus"))
N_CELLS = int(CELLS.max())


def permuted(mask: np.ndarray) -> np.ndarray:
    return np.append(0, np.random.default_rng(0).permutation(int(mask.max())) + 1).astype(np.uint32)[mask]


def shifted(mask: np.ndarray, down: int, right: int) -> np.ndarray:
    return ndimage.shift(mask, (down, right), order=0)


def beside(cells: np.ndarray, nuclei: np.ndarray) -> np.ndarray:
    """The part of each cell on the right of its nucleus."""
    ends = np.array([0, *(box[1].stop for box in ndimage.find_objects(nuclei))])
    return np.where(np.arange(cells.shape[1]) >= ends[cells], cells, 0)


def fragmented(cells: np.ndarray) -> np.ndarray:
    """One cell in three pieces, far from each other."""
    pieces = cells.copy()
    pieces[cells == 3] = 0
    pieces[2:9, 2:9] = pieces[-9:-2, -9:-2] = 3
    return pieces


def loaded(folder: Path, nucleus: np.ndarray, cytosol: np.ndarray) -> list[str]:
    """Load both masks; return the warnings."""
    project = Project(folder / "project", {"image_size": 32, "progress": False})
    project.load_input_from_array(np.ones((1, *nucleus.shape), np.uint16))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        project.load_segmentation(nucleus=nucleus, cytosol=cytosol)
    return [str(warning.message) for warning in caught]


def test_swapped_masks(tmp_path: Path) -> None:
    (message,) = loaded(tmp_path, CELLS, NUCLEI)
    assert re.match(
        rf"the nucleus mask is larger than the cytosol mask in \d+ of {N_CELLS} cells, like cell 1", message
    )
    assert "Are the masks swapped?" in message


@pytest.mark.parametrize(
    "change",
    [permuted, lambda mask: shifted(mask, 0, 110), lambda mask: shifted(mask, 90, 0), np.transpose],
    ids=["permuted ids", "shifted along x", "shifted along y", "transposed"],
)
def test_nuclei_outside_of_their_cells(tmp_path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    nuclei, cells = (np.pad(mask, ((0, CELLS.shape[1] - CELLS.shape[0]), (0, 0))) for mask in (NUCLEI, CELLS))
    (message,) = unusual(loaded(tmp_path, change(nuclei), cells))
    assert re.match(r"\d+ of \d+ nuclei are outside of the cell with the same id, like nucleus \d+\. ", message)
    assert "match_masks" in message


def test_matched_masks_do_not_warn(tmp_path: Path) -> None:
    matched = match_masks(permuted(NUCLEI), CELLS)
    assert loaded(tmp_path, matched.nucleus, matched.cytosol) == []


def test_the_second_mask_is_compared_with_the_first(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", {"image_size": 32, "progress": False})
    project.load_input_from_array(np.ones((1, *CELLS.shape), np.uint16))
    project.load_segmentation(cytosol=CELLS)
    with pytest.warns(UserWarning, match="nuclei are outside of the cell with the same id"):
        project.load_segmentation(nucleus=permuted(NUCLEI))


USUAL: dict[str, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "as they are": lambda nuclei, cells: (nuclei, cells),
    "one mask twice": lambda nuclei, cells: (nuclei, nuclei),
    "cytosol without the area of the nuclei": lambda nuclei, cells: (nuclei, np.where(nuclei > 0, 0, cells)),
    "cytosol beside the nuclei": lambda nuclei, cells: (nuclei, beside(cells, nuclei)),
    "tiny overlaps": lambda nuclei, cells: (nuclei, np.where(ndimage.binary_erosion(nuclei > 0), 0, cells)),
    "cut at the border": lambda nuclei, cells: (nuclei[30:-30, 30:-30], cells[30:-30, 30:-30]),
    "a fragmented cell": lambda nuclei, cells: (nuclei, fragmented(cells)),
    "a few larger nuclei": lambda nuclei, cells: (
        np.where((cells > 0) & (cells < N_CELLS / 3), cells, nuclei),
        np.where(cells < N_CELLS / 3, nuclei, cells),
    ),
}


def unusual(messages: list[str]) -> list[str]:
    """Leave out the warnings of cells that only one mask has."""
    return [message for message in messages if "its cells are a subset" not in message]


@pytest.mark.parametrize("name", USUAL)
def test_usual_masks_do_not_warn(tmp_path: Path, name: str) -> None:
    assert unusual(loaded(tmp_path, *kept_in_both(*USUAL[name](NUCLEI, CELLS)))) == []


@REAL
@pytest.mark.parametrize("name", USUAL)
def test_usual_real_masks_do_not_warn(tmp_path: Path, name: str) -> None:
    nuclei, cells = (tifffile.imread(next(SHARED.glob(f"jump*/labels_{kind}.tif"))) for kind in ("nucleus", "cytosol"))
    assert unusual(loaded(tmp_path, *kept_in_both(*USUAL[name](nuclei, cells)))) == []


def kept_in_both(nuclei: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leave out nuclei without a cell."""
    return np.where(np.isin(nuclei, cells), nuclei, 0), cells


class TestImagesAsMasks:
    @pytest.mark.once
    @REAL
    @pytest.mark.parametrize("where", sorted(SHARED.glob("*/image.tif")), ids=lambda path: path.parent.name)
    @pytest.mark.parametrize("channel", range(3))
    @pytest.mark.parametrize("dtype", [np.uint16, np.uint8])
    def test_real_channels(self, tmp_path: Path, where: Path, channel: int, dtype: type) -> None:
        image = tifffile.imread(where)[channel]
        if dtype == np.uint8:
            image = (image / image.max() * 255).astype(np.uint8)
        messages = self.loaded(tmp_path, image)
        assert any("this looks like an image, not a mask" in text for text in messages), messages

    def test_an_image(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).normal(500, 60, (300, 300))
        (message,) = self.loaded(tmp_path, noise.astype(np.uint16))
        assert re.search(
            r"seg_all_nucleus: this looks like an image, not a mask: the pixels of most ids are scattered, like the "
            r"[\d,]+ pixels of id \d+\. Load labels",
            message,
        )

    def test_an_image_without_background(self, tmp_path: Path) -> None:
        image = ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 3000, (300, 300)), 2)
        (message,) = self.loaded(tmp_path, np.clip(image, 0, None).astype(np.uint16))
        assert "this looks like an image" in message

    def test_seeds_are_a_mask(self, tmp_path: Path) -> None:
        seeds = np.zeros((300, 300), np.uint16)
        seeds[5::10, 5::10] = np.arange(1, 901).reshape(30, 30)
        assert self.loaded(tmp_path, seeds) == []

    def loaded(self, folder: Path, mask: np.ndarray) -> list[str]:
        project = Project(folder / "project", {"image_size": 32, "progress": False})
        project.load_input_from_array(np.ones((1, *mask.shape), np.uint16))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            project.load_segmentation(nucleus=mask)
        return [str(warning.message) for warning in caught]
