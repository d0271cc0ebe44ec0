"""Images in files that are not TIFF."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from cellstamp.errors import InputError
from cellstamp.pipeline.project import Project

PLANES = np.random.default_rng(0).integers(0, 2**16, (3, 30, 40)).astype(np.uint16)
SMALL = (PLANES >> 8).astype(np.uint8)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


def image_of(project: Project) -> np.ndarray:
    return project.input_image.to_numpy()


def test_a_png_for_each_channel(project: Project, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.tif" for name in ("DNA", "ER", "AGP")]  # the extension says nothing
    for path, plane in zip(paths, PLANES, strict=True):
        Image.fromarray(plane).save(path, "PNG")
    project.load_input_from_tif_files(paths, channel_names=["DNA", "ER", "AGP"])
    np.testing.assert_array_equal(image_of(project), PLANES)


def test_colours_of_16_bits_are_exact_and_named(project: Project, tmp_path: Path) -> None:
    (tmp_path / "rgb.png").write_bytes(imagecodecs.png_encode(np.ascontiguousarray(np.moveaxis(PLANES, 0, -1))))
    project.load_input_from_tif_files([tmp_path / "rgb.png"])
    np.testing.assert_array_equal(image_of(project), PLANES)
    assert project.input_image.coords["c"].to_numpy().tolist() == ["red", "green", "blue"]


def test_bmp_and_npy(project: Project, tmp_path: Path) -> None:
    Image.fromarray(SMALL[0]).save(tmp_path / "a.bmp")
    np.save(tmp_path / "b.npy", SMALL[1:])
    project.load_input_from_tif_files([tmp_path / "a.bmp", tmp_path / "b.npy"], crop=[(2, 30), (0, 20)])
    np.testing.assert_array_equal(image_of(project), SMALL[:, 2:, :20])


def test_jpeg_loads_with_a_warning(project: Project, tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(30), np.arange(40)).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    with pytest.warns(UserWarning, match=r"a\.jpg: is a JPEG file, whose compression changes intensities"):
        project.load_input_from_tif_files([tmp_path / "a.jpg"])
    np.testing.assert_allclose(image_of(project)[0].astype(int), smooth, atol=6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG\r\n\x1a\n and no more", r"a\.png: cannot be read as a PNG file"),
        (b"\x93NUMPY\x01", r"a\.png: cannot be read as a NumPy file"),
        (b"", r"a\.png: is empty \(0 bytes\)"),
        (b"hello", r"a\.png: cannot be read as TIFF"),
    ],
)
def test_files_without_an_image(project: Project, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=message):
        project.load_input_from_tif_files([tmp_path / "a.png"])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((2, 3, 4, 5), np.uint8), r"b\.npy: image of shape \(2, 3, 4, 5\): must have the axes \(c, y, x\)"),
        (np.ones((3, 4), bool), r"b\.npy: array of dtype bool: must hold integers or floats"),
        (np.ones((3, 4), np.uint8), r"b\.npy: \(3, 4\) pixels .* all channels must have the same size and dtype"),
        (np.array({"a": 1}, object), r"b\.npy: cannot be read as a NumPy file"),
    ],
)
def test_arrays_that_are_no_channels(project: Project, tmp_path: Path, array: np.ndarray, message: str) -> None:
    Image.fromarray(SMALL[0]).save(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", array, allow_pickle=True)
    with pytest.raises(InputError, match=message):
        project.load_input_from_tif_files([tmp_path / "a.png", tmp_path / "b.npy"])


def test_tiff_and_other_files_together(project: Project, tmp_path: Path) -> None:
    Image.fromarray(PLANES[0]).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "b.tif", PLANES[1])
    np.save(tmp_path / "c.npy", PLANES[2])
    project.load_input_from_tif_files([tmp_path / name for name in ("a.png", "b.tif", "c.npy")])
    np.testing.assert_array_equal(image_of(project), PLANES)
    tifffile.imwrite(tmp_path / "small.tif", PLANES[0, 1:])
    with pytest.raises(InputError, match=r"small\.tif: \(29, 40\) pixels .*a\.png has \(30, 40\)"):
        project.load_input_from_tif_files([tmp_path / "a.png", tmp_path / "small.tif"])


@pytest.mark.parametrize("shape", [(3, 30, 40), (2, 3, 30, 40), (2, 2, 3, 30, 40)])
def test_a_stack_in_npy_loads_as_the_error_says(project: Project, tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.resize(PLANES, shape)
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=r"a\.npy: .* load_input_from_array\(.*\)$") as caught:
        project.load_input_from_tif_files([tmp_path / "a.npy"], z=0)
    code = str(caught.value)[str(caught.value).index("load_input_from_array") :]
    eval(f"project.{code}", {"project": project, "numpy": np})
    plane = {3: array[0], 4: array[0], 5: array[0, 0]}[len(shape)]
    np.testing.assert_array_equal(image_of(project).squeeze(), plane)


def test_a_picture_is_one_plane(project: Project, tmp_path: Path) -> None:
    Image.fromarray(PLANES[0]).save(tmp_path / "a.png")
    for choice in ({"z": 1}, {"t": 2}, {"series": 1}):
        with pytest.raises(InputError, match=r"a\.png: it is one image \(30, 40\). Leave out z, t and series"):
            project.load_input_from_tif_files([tmp_path / "a.png"], **choice)
    project.load_input_from_tif_files([tmp_path / "a.png"], z=0, t=0, series=0)
    np.testing.assert_array_equal(image_of(project), PLANES[:1])
