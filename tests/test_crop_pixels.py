"""Extractions with pixels of another size than the image's: equal to those of a resized image and resized masks."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
from numpy.typing import NDArray
from spatialdata.models import Image2DModel
from spatialdata.transformations import Scale

import restatement
from cellstamp import HDF5CellExtraction, Project, plot_removed, read_h5sc
from cellstamp.errors import ConfigError, OutputError
from outlined import polygons_of, write_outlined
from stores import CYTOSOL, NUCLEUS, make_sample, write_store

SAMPLE = make_sample((162, 192))
IMAGE, MASKS = SAMPLE.image, [SAMPLE.masks[NUCLEUS], SAMPLE.masks[CYTOSOL]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("slide") / "slide.zarr", SAMPLE)


def extracted(store: Any, folder: Path, **config: Any) -> HDF5CellExtraction:
    keys = {"threads": 1, "image_pixel_size": 0.5, "progress": False, "cache": str(folder / "cache"), **config}
    step = HDF5CellExtraction(keys, folder / "out", filehandler=store)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*(exceed|image border|centre of no pixel)")
        step()
    return step


def smaller(factor: int, image: NDArray[Any] = IMAGE) -> NDArray[Any]:
    means = skimage.measure.block_reduce(image.astype(np.float64), (1, factor, factor), np.mean)
    return np.rint(means).astype(image.dtype)


def every(factor: int) -> list[NDArray[Any]]:
    """The pixels of the masks that contain the centres of larger pixels."""
    return [mask[factor // 2 :: factor, factor // 2 :: factor] for mask in MASKS]


def larger(factor: int, image: NDArray[Any] = IMAGE) -> NDArray[Any]:
    sides = (len(image), factor * image.shape[1], factor * image.shape[2])
    resized = skimage.transform.resize(image, sides, order=1, mode="edge", anti_aliasing=False, preserve_range=True)
    return np.rint(resized.round(6)).astype(image.dtype)


def check(step: HDF5CellExtraction, masks: Any, image: Any, size: int, scale: float, **how: Any) -> None:
    ids, _, stamps = restatement.extract(masks, image, size, how.pop("quantiles", (0.001, 0.999)), **how)
    read = read_h5sc(str(step.output_path))
    assert len(ids) > 8
    assert read.obs["scportrait_cell_id"].tolist() == ids.tolist()
    assert restatement.same_bits(np.asarray(read.obsm["single_cell_images"][:]), stamps)
    all_ids, centers = restatement.centers(masks[0])
    on_image = (centers[np.isin(all_ids, ids)] + 0.5) * scale - 0.5
    np.testing.assert_allclose(read.obsm["spatial"], on_image, atol=1e-9)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("factor", [2, 3])
def test_larger_pixels(store: Path, tmp_path: Path, factor: int, threads: int) -> None:
    step = extracted(store, tmp_path, crop_pixel_size=0.5 * factor, image_size="10 um", threads=threads)
    size = {2: 10, 3: 8}[factor]
    check(step, every(factor), smaller(factor), size, factor)
    settings = read_h5sc(str(step.output_path)).uns["cellstamp"]["settings"]
    assert list(settings["image_pixel_size"]) == [0.5, 0.5]
    assert list(settings["crop_pixel_size"]) == [0.5 * factor] * 2
    assert settings["image_size"] == size
    log = (Path(step.directory) / "processing.log").read_text()
    assert f"a pixel is {factor} x {factor} pixels of the image (y, x)" in log


@pytest.mark.parametrize("threads", [1, 2])
def test_smaller_pixels(store: Path, tmp_path: Path, threads: int) -> None:
    step = extracted(store, tmp_path, crop_pixel_size=0.25, image_size=48, threads=threads)
    check(step, [mask.repeat(2, 0).repeat(2, 1) for mask in MASKS], larger(2), 48, 0.5)


def test_border_padding_and_values_without_normalisation(store: Path, tmp_path: Path) -> None:
    options = {"border": "pad", "normalize_output": False, "dtype": "uint16", "channels": ["actin"]}
    step = extracted(store, tmp_path, crop_pixel_size=1.5, image_size=8, **options)
    check(step, every(3), smaller(3)[1:2], 8, 3, pad=True, quantiles=None, dtype="uint16")


def test_a_measured_size_is_in_pixels_of_the_crops(store: Path, tmp_path: Path) -> None:
    step = extracted(store, tmp_path, crop_pixel_size=1.5, image_size="auto")
    full = extracted(store, tmp_path / "full", image_size="auto")
    sizes = [read_h5sc(str(each.output_path)).obsm["single_cell_images"].shape[-1] for each in (step, full)]
    assert sizes[0] < sizes[1] <= 3 * (sizes[0] + 2)


def test_intensities_of_the_image(store: Path, tmp_path: Path) -> None:
    step = extracted(store, tmp_path, crop_pixel_size=1.5, image_size=8, normalization_scope="image")
    limits = [tuple(np.quantile(channel, (0.001, 0.999))) for channel in smaller(3)]
    check(step, every(3), smaller(3), 8, 3, limits=limits)


def test_the_pixel_size_of_the_image_changes_nothing(store: Path, tmp_path: Path) -> None:
    plain = extracted(store, tmp_path / "a", image_size=24, image_pixel_size=None)
    same = extracted(store, tmp_path / "b", image_size=24, crop_pixel_size=0.5)
    files = [read_h5sc(str(step.output_path)) for step in (plain, same)]
    assert restatement.same_bits(*(np.asarray(file.obsm["single_cell_images"][:]) for file in files))
    assert "crops:" not in (Path(same.directory) / "processing.log").read_text()


def test_a_partial_extraction(store: Path, tmp_path: Path) -> None:
    keys = {"threads": 1, "image_size": 8, "image_pixel_size": 0.5, "crop_pixel_size": 1.5, "progress": False}
    step = HDF5CellExtraction(keys, tmp_path / "out", filehandler=store)
    step(partial=True, n_cells=6)
    read = read_h5sc(str(step.output_path))
    ids, _, stamps = restatement.extract(every(3), smaller(3), 8)
    rows = np.isin(ids, read.obs["scportrait_cell_id"])
    assert rows.sum() == 6
    assert restatement.same_bits(np.asarray(read.obsm["single_cell_images"][:]), stamps[rows])


@pytest.mark.parametrize("crop", [0.25, 1.5])
def test_polygons_are_drawn_on_the_pixels_of_the_crops(tmp_path: Path, crop: float) -> None:
    shapes = {"cells": polygons_of(MASKS[1])}
    store = write_outlined(tmp_path / "slide.zarr", SAMPLE, shapes)
    options = {"crop_pixel_size": crop, "image_size": 48 if crop < 1 else 10, "normalize_output": False}
    step = extracted(store, tmp_path / "a", cytosol_shapes="cells", **options)
    read = read_h5sc(str(step.output_path))
    ids, centers = restatement.centers(MASKS[1])
    found = read.obs["scportrait_cell_id"].to_numpy()
    # exact centroids of polygons, in pixels of the image
    np.testing.assert_allclose(read.obsm["spatial"], centers[np.isin(ids, found)], atol=1e-9)
    labels = MASKS[1].repeat(2, 0).repeat(2, 1) if crop < 1 else every(3)[1]
    image = larger(2) if crop < 1 else smaller(3)
    scale, size = crop / 0.5, options["image_size"]
    for cell, xy, stamp in zip(found, read.obsm["spatial"], read.obsm["single_cell_images"][:], strict=True):
        top, left = restatement.corner((xy + 0.5) / scale - 0.5, size)
        window = (slice(top, top + size), slice(left, left + size))
        expected = restatement.stamp([labels[window]], image[:, *window], cell, None)
        assert restatement.same_bits(np.asarray(stamp), expected)


def test_further_images_and_masks_on_other_grids(tmp_path: Path) -> None:
    store = tmp_path / "slide.zarr"
    shutil.copytree(write_store(tmp_path / "plain.zarr", SAMPLE), store)
    fine = np.random.default_rng(1).integers(0, 60_000, (1, 324, 384)).astype(np.uint16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import spatialdata

        sdata = spatialdata.read_zarr(store)
        half = Scale([0.5, 0.5], axes=("y", "x"))
        sdata["fine"] = Image2DModel.parse(fine, dims=("c", "y", "x"), c_coords=["h"], transformations={"global": half})
        sdata.write_element("fine")
    options = {"image": ["input_image", "fine"], "crop_pixel_size": 1.5, "image_size": 8}
    step = extracted(store, tmp_path / "means", **options)
    check(step, every(3), np.concatenate([smaller(3), smaller(6, fine)]), 8, 3)
    step = extracted(store, tmp_path / "nearest", **options, interpolation="nearest")
    check(step, every(3), np.concatenate([smaller(3), fine[:, 3::6, 3::6]]), 8, 3)


def test_slides_of_two_magnifications_give_comparable_images(store: Path, tmp_path: Path) -> None:
    fine = make_sample((162, 192))
    fine = type(fine)(
        fine.image.repeat(2, 1).repeat(2, 2),
        {name: mask.repeat(2, 0).repeat(2, 1) for name, mask in fine.masks.items()},
        fine.channel_names,
    )
    keys = {"image_size": "12 um", "crop_pixel_size": 0.5}
    coarse_step = extracted(store, tmp_path / "a", **keys)
    fine_step = extracted(write_store(tmp_path / "fine.zarr", fine), tmp_path / "b", image_pixel_size=0.25, **{**keys})
    coarse, finer = (read_h5sc(str(step.output_path)) for step in (coarse_step, fine_step))
    assert coarse.obs["scportrait_cell_id"].tolist() == finer.obs["scportrait_cell_id"].tolist()
    assert restatement.same_bits(
        np.asarray(coarse.obsm["single_cell_images"][:]), np.asarray(finer.obsm["single_cell_images"][:])
    )
    np.testing.assert_allclose((finer.obsm["spatial"] + 0.5) / 2 - 0.5, coarse.obsm["spatial"], atol=1e-9)


def test_given_centres_are_those_of_the_image(store: Path, tmp_path: Path) -> None:
    own = tmp_path / "slide.zarr"
    shutil.copytree(store, own)
    extracted(own, tmp_path / "a", image_size=24, store_centers="always")
    step = extracted(own, tmp_path / "b", image_size=8, crop_pixel_size=1.5, centers=f"centers_{NUCLEUS}")
    read = read_h5sc(str(step.output_path))
    ids, centers = restatement.centers(MASKS[0])
    rows = np.isin(ids, read.obs["scportrait_cell_id"])
    assert rows.sum() > 8
    np.testing.assert_allclose(read.obsm["spatial"], centers[rows], atol=1e-9)


def test_cells_smaller_than_a_pixel_are_counted(store: Path, tmp_path: Path) -> None:
    step = HDF5CellExtraction(
        {"image_size": 2, "crop_pixel_size": 8, "image_pixel_size": 0.5, "border": "pad", "progress": False},
        tmp_path / "out",
        filehandler=store,
    )
    with pytest.warns(UserWarning, match="centre of no pixel") as caught:
        step()
    (message,) = (str(each.message) for each in caught if "crop_pixel_size" in str(each.message))
    n_left = np.unique(every(16)[0]).size - 1
    n_all = np.unique(MASKS[0]).size - 1
    assert f"left out {n_all - n_left} of {n_all} cells of '{NUCLEUS}' that contain the centre of no pixel" in message
    assert "Choose a smaller crop_pixel_size" in message


def test_a_run_with_another_pixel_size_does_not_resume(store: Path, tmp_path: Path) -> None:
    extracted(store, tmp_path, image_size=8, crop_pixel_size=1.5)
    with pytest.raises(OutputError, match=r"crop_pixel_size: \[1.5, 1.5\] -> \[1.0, 1.0\]"):
        extracted(store, tmp_path, image_size=8, crop_pixel_size=1)
    with pytest.raises(OutputError, match=r"image_pixel_size: \[0.5, 0.5\] -> \[0.25, 0.25\]"):
        extracted(store, tmp_path, image_size=8, crop_pixel_size=1.5, image_pixel_size=0.25)
    again = extracted(store, tmp_path, image_size="12 um", crop_pixel_size=1.5)  # 8 pixels, too
    assert "Up to date" in (Path(again.directory) / "processing.log").read_text()


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_images_of_other_types(tmp_path: Path, dtype: str) -> None:
    sample = make_sample((162, 192))
    image = sample.image / 65_535 * (255 if dtype == "uint8" else 1)
    image = image.astype(dtype)
    store = write_store(tmp_path / "slide.zarr", type(sample)(image, sample.masks, sample.channel_names))
    step = extracted(store, tmp_path, image_size=8, image_pixel_size=0.1, crop_pixel_size=0.3)
    means = skimage.measure.block_reduce(image.astype(np.float64), (1, 3, 3), np.mean)
    read = read_h5sc(str(step.output_path))
    assert list(read.uns["cellstamp"]["settings"]["crop_pixel_size"]) == [0.3, 0.3]
    expected = np.rint(means).astype(dtype) if dtype == "uint8" else means.astype(dtype)
    _, _, stamps = restatement.extract(every(3), expected, 8)
    found = np.asarray(read.obsm["single_cell_images"][:])
    if dtype == "uint8":
        assert restatement.same_bits(found, stamps)
    else:  # the order of a sum
        np.testing.assert_allclose(found, stamps, atol=2e-3)


def test_errors_name_the_key(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"crop_pixel_size = 1: the pixel size of image 'input_image' in .* is unk"):
        extracted(store, tmp_path, image_size=24, crop_pixel_size=1, image_pixel_size=None)
    with pytest.raises(ConfigError, match=r"crop_pixel_size = 325: a pixel of the crops is larger than image 'input"):
        extracted(store, tmp_path, image_size=24, crop_pixel_size=325)
    with pytest.raises(ConfigError, match="larger than the image, which is 54 x 64 pixels of the crops"):
        extracted(store, tmp_path, image_size=60, crop_pixel_size=1.5)


def test_a_project_and_its_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib.pyplot")
    keys = {"threads": 1, "image_size": "12 um", "image_pixel_size": 0.5, "crop_pixel_size": 1.5, "progress": False}
    project = Project(tmp_path / "project", keys)
    project.load_input_from_array(IMAGE, channel_names=SAMPLE.channel_names)
    project.load_segmentation(*MASKS)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*(exceed|image border)")
        project.extract()
    read = project.h5sc
    _, _, stamps = restatement.extract(every(3), smaller(3), 8)
    assert restatement.same_bits(np.asarray(read.obsm["single_cell_images"][:]), stamps)
    assert plot_removed(read) is not None
