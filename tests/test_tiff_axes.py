"""TIFF files that don't name their axes follow the rule of arrays, with a warning; `axes` overrides it."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cellstamp.errors import InputError
from cellstamp.pipeline.project import Project

LAST = np.random.default_rng(0).integers(1, 60_000, (70, 90, 8)).astype(np.uint16)
FIRST = np.moveaxis(LAST, -1, 0)
UNNAMED: dict[str, dict[str, Any]] = {
    "tifffile": {"photometric": "minisblack"},
    "other programs": {"photometric": "minisblack", "metadata": None},
}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project", {"image_size": 32, "progress": False})


def loaded(project: Project, path: Path, **options: Any) -> np.ndarray:
    """Load a file without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        project.load_input_from_tif_files(path, overwrite=True, **options)
    return project.input_image.values


@pytest.mark.parametrize("options", UNNAMED.values(), ids=list(UNNAMED))
def test_few_channels_on_the_last_axis(tmp_path: Path, project: Project, options: dict[str, Any]) -> None:
    path = tmp_path / "last.tif"
    tifffile.imwrite(path, LAST, **options)
    with pytest.warns(
        UserWarning, match=r"last.tif: the file does not name .* \(70, 90, 8\)\. .* y, x, c: give"
    ) as told:
        project.load_input_from_tif_files(path)
    np.testing.assert_array_equal(project.input_image.values, FIRST)
    for given in re.findall(r"axes='(\w+)'", str(told[0].message)):
        np.testing.assert_array_equal(loaded(project, path, axes=given), FIRST if given == "yxc" else LAST)


def test_a_numpy_file(tmp_path: Path, project: Project) -> None:
    np.save(tmp_path / "last.npy", LAST)
    with pytest.warns(UserWarning, match="assumed to be y, x, c"):
        project.load_input_from_tif_files(tmp_path / "last.npy")
    np.testing.assert_array_equal(project.input_image.values, FIRST)


@pytest.mark.parametrize("options", UNNAMED.values(), ids=list(UNNAMED))
@pytest.mark.parametrize("size", [(3, 60, 80), (20, 64, 64), (8, 90, 16)])
def test_channels_on_the_first_axis(
    tmp_path: Path, project: Project, options: dict[str, Any], size: tuple[int, ...]
) -> None:
    image = np.resize(LAST, size)
    tifffile.imwrite(tmp_path / "first.tif", image, **options)
    np.testing.assert_array_equal(loaded(project, tmp_path / "first.tif"), image)


def test_axes_that_the_file_names_are_kept(tmp_path: Path, project: Project) -> None:
    tifffile.imwrite(tmp_path / "a.ome.tif", LAST, photometric="minisblack", metadata={"axes": "CYX"})
    assert loaded(project, tmp_path / "a.ome.tif").shape == LAST.shape
    tifffile.imwrite(tmp_path / "a.tif", LAST, photometric="minisblack", metadata={"axes": "YXC"})
    np.testing.assert_array_equal(loaded(project, tmp_path / "a.tif"), FIRST)
    np.testing.assert_array_equal(loaded(project, tmp_path / "a.ome.tif", axes="yxc"), FIRST)


def test_more_channels_than_pixels_on_a_side(tmp_path: Path, project: Project) -> None:
    image = np.resize(LAST, (60, 50, 20))
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack")
    with pytest.raises(InputError, match=r"a.tif: image of shape \(60, 50, 20\): .* more channels \(60\)") as error:
        project.load_input_from_tif_files(tmp_path / "a.tif")
    last, first = re.findall(r"axes='(\w+)'", str(error.value))
    np.testing.assert_array_equal(loaded(project, tmp_path / "a.tif", axes=last), np.moveaxis(image, -1, 0))
    np.testing.assert_array_equal(loaded(project, tmp_path / "a.tif", axes=first), image)


def test_axes_of_a_stack(tmp_path: Path, project: Project) -> None:
    image = np.resize(LAST, (4, 60, 80))
    with tifffile.TiffWriter(tmp_path / "pages.tif") as file:
        for page in image:
            file.write(page, contiguous=False)
    np.testing.assert_array_equal(loaded(project, tmp_path / "pages.tif", axes="zyx", z=2), image[2:3])


@pytest.mark.parametrize("axes", ["yx", "yxcz", "yyx", "yxs", 3])
def test_wrong_axes(tmp_path: Path, project: Project, axes: Any) -> None:
    tifffile.imwrite(tmp_path / "a.tif", LAST, photometric="minisblack")
    with pytest.raises(InputError, match=r"a.tif: axes = .*: must have one of the letters t, c, z, y, x for each axis"):
        project.load_input_from_tif_files(tmp_path / "a.tif", axes=axes)


def test_masks_are_not_guessed(tmp_path: Path, project: Project) -> None:
    project.load_input_from_array(np.ones((1, 70, 90), np.uint16))
    tifffile.imwrite(tmp_path / "a.tif", LAST, photometric="minisblack")
    with pytest.raises(InputError, match="it holds 70 planes"):
        project.load_segmentation(nucleus=tmp_path / "a.tif")
