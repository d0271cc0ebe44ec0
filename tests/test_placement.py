"""Where image and masks lie, as spatialdata stores it; what does not lie on each other is no project."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spatialdata
from spatialdata.transformations import Affine, Identity, Scale, Sequence, Translation

from cellstamp.errors import InputError
from cellstamp.source.find.elements import find_image, find_labels, find_source
from cellstamp.source.find.grid import check_same_grid
from cellstamp.source.store_root import open_root
from stores import as_spatialdata, make_sample

SAMPLE = make_sample()
HALF = Scale([0.5, 0.5], axes=("y", "x"))
MOVED = Translation([3.0, -7.5], axes=("y", "x"))
TURNED = Affine([[0, 1, 2], [-1, 0, 4], [0, 0, 1]], input_axes=("y", "x"), output_axes=("y", "x"))


def store_with(tmp_path: Path, image: dict[str, Any], cytosol: dict[str, Any], *, multiscale: bool = False) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata = as_spatialdata(SAMPLE, multiscale=multiscale)
        for element, transformations in (("input_image", image), ("seg_all_cytosol", cytosol)):
            spatialdata.transformations.set_transformation(sdata[element], transformations, set_all=True)
        sdata.write(tmp_path / "s.zarr")
    return tmp_path / "s.zarr"


@pytest.mark.parametrize(
    ("image", "cytosol", "multiscale"),
    [
        ({"global": HALF}, {"global": HALF}, False),
        ({"global": HALF}, {"global": HALF}, True),
        ({"global": Sequence([HALF, MOVED])}, {"global": Sequence([HALF, MOVED])}, True),
        ({"global": Sequence([MOVED, MOVED])}, {"global": Translation([6.0, -15.0], axes=("y", "x"))}, False),
        ({"global": TURNED}, {"global": TURNED}, True),
        ({"global": Identity(), "um": HALF}, {"global": Identity(), "other": MOVED}, False),
    ],
)
def test_the_same_place_said_in_any_way(tmp_path: Path, image: Any, cytosol: Any, *, multiscale: bool) -> None:
    # the nucleus lies where it is put by default: at its pixels
    store = store_with(tmp_path, image, cytosol, multiscale=multiscale)
    assert find_source(store, segmentation_mask="seg_all_cytosol").mask_names == ("seg_all_cytosol",)


@pytest.mark.parametrize(
    ("image", "cytosol", "told", "multiscale"),
    [
        (
            {"global": HALF},
            {"global": Identity()},
            r"image is at \(0\.5 y \+0, 0\.5 x \+0\), one .* \(1 y \+0, 1 x \+0\)",
            True,
        ),
        ({"global": Identity()}, {"global": MOVED}, r"one of the labels at \(1 y \+3, 1 x -7\.5\)", False),
        ({"global": Identity()}, {"global": TURNED}, r"one of the labels at \(0 y \+1 x \+2, -1 y \+0 x \+4\)", True),
        ({"a": HALF, "b": HALF}, {"a": HALF, "b": MOVED}, r"do not match: in 'b' a pixel", False),
    ],
)
def test_another_place_is_refused(tmp_path: Path, image: Any, cytosol: Any, told: str, *, multiscale: bool) -> None:
    store = store_with(tmp_path, image, cytosol, multiscale=multiscale)
    with pytest.raises(InputError, match=rf"'input_image' and labels 'seg_all_cytosol' .*{told}"):
        check_same_grid(open_root(str(store)), find_image(store).image, find_labels(store, "seg_all_cytosol"))


def test_our_matrices_are_those_of_spatialdata(tmp_path: Path) -> None:
    from cellstamp.source import ome
    from cellstamp.source.find.placement import placements

    swapped = Affine([[1, 2, 3], [4, 6, 5], [0, 0, 1]], input_axes=("x", "y"), output_axes=("x", "y"))
    whole = Sequence([HALF, TURNED, swapped, Scale([2, 3], axes=("x", "y")), MOVED])
    store = store_with(tmp_path, {"global": whole}, {"global": whole})
    attributes = ome.read_attributes(store / "labels/seg_all_cytosol")
    ours = placements(attributes.get("ome", attributes))["global"]
    theirs = whole.to_affine_matrix(input_axes=("y", "x"), output_axes=("y", "x"))
    assert np.allclose(ours, theirs)
