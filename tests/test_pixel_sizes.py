"""Sizes of pixels in micrometres: read from metadata, kept in a project, and used for sizes and scales of crops."""

from __future__ import annotations

import logging
import math
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

import restatement
from cellstamp import HDF5CellExtraction, Project, read_h5sc
from cellstamp.config import ExtractionConfig
from cellstamp.errors import ConfigError
from cellstamp.lengths import even_pixels, in_micrometres, parse_length
from cellstamp.source.load.store import image_pixel_size, open_sdata
from cellstamp.source.pixel_size import stored_pixel_size
from stores import CYTOSOL, NUCLEUS, as_spatialdata, make_sample, write_store

SAMPLE = make_sample((160, 192))
IMAGE = SAMPLE.image
SIZE = 24


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("tifffile").setLevel(logging.WARNING)


def project(folder: Path, **config: Any) -> Project:
    keys = {"threads": 1, "image_size": SIZE, "progress": False, "cache": str(folder / "cache"), **config}
    return Project(folder / "project", keys)


def extracted(store: Any, folder: Path, **config: Any) -> HDF5CellExtraction:
    keys = {"threads": 1, "image_size": SIZE, "progress": False, "cache": str(folder / "cache"), **config}
    step = HDF5CellExtraction(keys, folder / "out", filehandler=store)
    step()
    return step


def settings_of(step: HDF5CellExtraction) -> Any:
    return read_h5sc(str(step.output_path)).uns["cellstamp"]["settings"]


def log_of(directory: str | Path) -> str:
    return (Path(directory) / "processing.log").read_text()


def ome_tiff(path: Path, pixels: NDArray[Any] = IMAGE, **metadata: Any) -> Path:
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata={"axes": "CYX", **metadata}, ome=True)
    return path


# --- lengths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "micrometres"),
    [
        ("30 um", 30),
        ("30um", 30),
        ("30 \N{MICRO SIGN}m", 30),
        ("30 \N{GREEK SMALL LETTER MU}m", 30),
        ("0.03 mm", 30),
        (".5 microns", 0.5),
        ("30000 nm", 30),
        ("2 micrometres", 2),
        ("30", None),
        ("30 px", None),
        ("-3 um", None),
        ("3 Mm", None),
        ("um", None),
    ],
)
def test_a_length_is_a_number_with_a_unit(text: str, micrometres: float | None) -> None:
    found = parse_length(text)
    assert found == (None if micrometres is None else pytest.approx(micrometres))


def test_units_of_files_are_known() -> None:
    units = ["micrometer", "micron", "\\u00B5m", "nanometer", "\N{LATIN CAPITAL LETTER A WITH RING ABOVE}", "pixel", ""]
    assert [in_micrometres(unit) for unit in units] == [1, 1, 1, 1e-3, 1e-4, None, None]


@pytest.mark.parametrize(
    ("length", "pixel", "n"), [(30, 0.5, 60), (30.1, 0.5, 62), (30, 0.3, 100), (0.9, 0.3, 4), (21, 0.35, 60), (1, 5, 2)]
)
def test_a_length_is_rounded_up_to_even_pixels(length: float, pixel: float, n: int) -> None:
    assert even_pixels(length, pixel) == n


@pytest.mark.parametrize("value", ["0 um", "30 px", "big", "1e400 um", "3 um 4 um"])
def test_another_text_is_no_size(value: str) -> None:
    with pytest.raises(ConfigError, match=r'must be an even integer >= 2, a length like "30 um", or "auto"'):
        ExtractionConfig.parse({"image_size": value})


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("12 mum", r"'mum' is not a known unit; write um, µm, nm or mm, like \"12 um\""),
        ("30 UM", r"'UM' is not a known unit; write um, µm, nm or mm, like \"30 um\""),
        ("56px", "pixels have no unit: write 56, without quotes"),
        ("56 Pixels", "pixels have no unit: write 56, without quotes"),
        ("55.5", "pixels have no unit: write 56, without quotes"),
        ("56", "pixels have no unit: write 56, without quotes"),
    ],
)
def test_a_unit_that_is_not_known_is_an_error_with_a_fix(value: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=f"image_size = '{value}': must be .*{hint}$"):
        ExtractionConfig.parse({"image_size": value})
    advised = re.search(r'like "(.*)"|write (\d+)', hint.replace("\\", ""))
    assert advised is not None
    ExtractionConfig.parse({"image_size": advised[1] or int(advised[2])})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_pixel_size", 0),
        ("image_pixel_size", [1, 2, 3]),
        ("image_pixel_size", [1, -2]),
        ("image_pixel_size", "0.5 um"),
        ("image_pixel_size", math.nan),
        ("crop_pixel_size", [1, 1]),
        ("crop_pixel_size", math.inf),
        ("crop_pixel_size", True),
    ],
)
def test_a_wrong_pixel_size_is_an_error(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{key} = .*must be a number above 0 \(micrometres\)"):
        ExtractionConfig.parse({"image_size": 24, key: value})


# --- metadata ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "size"),
    [
        ({"PhysicalSizeX": 0.325, "PhysicalSizeY": 0.325}, (0.325, 0.325)),
        (
            {"PhysicalSizeX": 325, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"},
            (0.5, 0.325),
        ),
        ({"PhysicalSizeX": 1, "PhysicalSizeXUnit": "pixel", "PhysicalSizeY": 1}, None),
        ({"PhysicalSizeX": 0.325}, None),
        ({"PhysicalSizeX": 0.0, "PhysicalSizeY": 0.0}, None),
        ({}, None),
    ],
)
def test_ome_tiff(tmp_path: Path, metadata: dict[str, Any], size: Any) -> None:
    loaded = project(tmp_path)
    loaded.load_input_from_tif_files(ome_tiff(tmp_path / "slide.ome.tif", **metadata), crop=[(0, 100), (10, 100)])
    found = image_pixel_size(Path(loaded.sdata_path))
    assert found == (None if size is None else pytest.approx(size))
    assert (" per pixel" in log_of(loaded.directory)) == (size is not None)
    assert open_sdata(loaded.sdata_path).images["input_image"] is not None


def test_imagej(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    resolution = {"resolution": (1 / 0.25, 1 / 0.5), "metadata": {"unit": "micron", "axes": "CYX"}}
    tifffile.imwrite(path, IMAGE, imagej=True, **resolution)
    loaded = project(tmp_path)
    loaded.load_input_from_tif_files(path)
    assert image_pixel_size(Path(loaded.sdata_path)) == pytest.approx((0.5, 0.25))
    assert "0.5 x 0.25 um (y, x) per pixel" in log_of(loaded.directory)


@pytest.mark.parametrize("unit", ["pixel", "inch", None])
def test_imagej_without_a_metric_unit(tmp_path: Path, unit: str | None) -> None:
    path, metadata = tmp_path / "slide.tif", {"axes": "CYX"} | ({} if unit is None else {"unit": unit})
    tifffile.imwrite(path, IMAGE, imagej=True, resolution=(4, 4), metadata=metadata)
    loaded = project(tmp_path)
    loaded.load_input_from_tif_files(path)
    assert image_pixel_size(Path(loaded.sdata_path)) is None


def test_resolution_in_dots_per_inch_is_no_pixel_size(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, IMAGE[0], resolution=(300, 300), resolutionunit="INCH")
    loaded = project(tmp_path)
    loaded.load_input_from_tif_files(path)
    assert image_pixel_size(Path(loaded.sdata_path)) is None


def test_files_of_different_pixel_sizes(tmp_path: Path) -> None:
    files = [
        ome_tiff(tmp_path / f"{size}.ome.tif", IMAGE[:1], PhysicalSizeX=size, PhysicalSizeY=size) for size in (0.5, 0.6)
    ]
    loaded = project(tmp_path)
    with pytest.warns(UserWarning, match=r"different pixel sizes \(0.5 um, 0.6 um\). None is kept; set image_pixel"):
        loaded.load_input_from_tif_files(files, channel_names=["a", "b"])
    assert image_pixel_size(Path(loaded.sdata_path)) is None


def test_the_chosen_image_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        for size in (0.5, 0.25):
            meta = {"axes": "CYX", "PhysicalSizeX": size, "PhysicalSizeY": size}
            file.write(IMAGE, photometric="minisblack", metadata=meta)
    loaded = project(tmp_path)
    loaded.load_input_from_tif_files(path, series=1)
    assert image_pixel_size(Path(loaded.sdata_path)) == (0.25, 0.25)


def ome_zarr(path: Path, unit: str | None, *, version: str = "0.4") -> Path:
    format_ = 2 if version == "0.4" else 3
    group = zarr.open_group(str(path), mode="w", zarr_format=format_)
    group.create_array("0", data=IMAGE, chunks=(1, 64, 64))
    spaces = [{"name": axis, "type": "space"} | ({} if unit is None else {"unit": unit}) for axis in "yx"]
    scale = {"type": "scale", "scale": [1, 250, 125]}
    outer = [{"type": "scale", "scale": [1, 2, 2]}]
    image = {"axes": [{"name": "c", "type": "channel"}, *spaces], "coordinateTransformations": outer}
    image["datasets"] = [{"path": "0", "coordinateTransformations": [scale]}]
    ome = {"multiscales": [image | ({"version": "0.4"} if format_ == 2 else {})]}
    group.attrs.update(ome if format_ == 2 else {"ome": {"version": "0.5", **ome}})
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(("unit", "size"), [("nanometer", (0.5, 0.25)), (None, None), ("parsec", None)])
def test_ome_zarr(tmp_path: Path, unit: str | None, size: Any, version: str) -> None:
    loaded = project(tmp_path)
    loaded.load_input_from_omezarr(ome_zarr(tmp_path / "slide.zarr", unit, version=version))
    found = image_pixel_size(Path(loaded.sdata_path))
    assert found == (None if size is None else pytest.approx(size))


@pytest.mark.parametrize("wrong", [None, 3, [], {"multiscales": [{}]}, {"multiscales": [{"axes": ["y", "x"]}]}])
def test_incomplete_metadata_has_no_pixel_size(wrong: Any) -> None:
    assert stored_pixel_size({"ome": wrong}) is None
    assert stored_pixel_size({"cellstamp": {"pixel_size": wrong}}) is None


def test_loading_an_image_again_records_its_pixel_size(tmp_path: Path) -> None:
    loaded = project(tmp_path)
    loaded.load_input_from_array(IMAGE)
    before = [path.stat().st_mtime_ns for path in (Path(loaded.sdata_path) / "images").rglob("c/**/*")]
    names = [f"channel_{number}" for number in range(3)]
    path = ome_tiff(tmp_path / "slide.ome.tif", PhysicalSizeX=0.5, PhysicalSizeY=0.5)
    loaded.load_input_from_tif_files(path, channel_names=names)
    assert "Input image kept" in log_of(loaded.directory)
    assert image_pixel_size(Path(loaded.sdata_path)) == (0.5, 0.5)
    root = zarr.open_group(loaded.sdata_path, mode="r", use_consolidated=True)
    assert root["images/input_image"].attrs["cellstamp"] == {"pixel_size": [0.5, 0.5]}
    loaded.load_input_from_array(IMAGE)  # says nothing of it
    assert image_pixel_size(Path(loaded.sdata_path)) == (0.5, 0.5)
    assert before == [path.stat().st_mtime_ns for path in (Path(loaded.sdata_path) / "images").rglob("c/**/*")]


@pytest.mark.parametrize("dtype", ["uint16", "float16"])
def test_a_store_keeps_the_pixel_size_on_its_way_into_a_project(tmp_path: Path, dtype: str) -> None:
    store = write_store(tmp_path / "slide.zarr", SAMPLE)
    if dtype == "float16":  # written, not copied
        group = zarr.open_group(str(store / "images/input_image"), mode="r+", use_consolidated=False)
        path = group.attrs["ome"]["multiscales"][0]["datasets"][0]["path"]
        group.create_array(path, data=(IMAGE / 65535).astype(dtype), dimension_names=["c", "y", "x"], overwrite=True)
    with_pixel_size(store, 0.5)
    loaded = project(tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "image of dtype float16")
        loaded.load_input_from_sdata(str(store), "input_image", NUCLEUS, CYTOSOL, keep_all=False)
    assert image_pixel_size(Path(loaded.sdata_path)) == (0.5, 0.5)


def test_loading_a_store_again_records_its_pixel_size(tmp_path: Path) -> None:
    store = write_store(tmp_path / "slide.zarr", SAMPLE)
    loaded = project(tmp_path)
    loaded.load_input_from_sdata(str(store), "input_image", NUCLEUS, CYTOSOL)
    assert image_pixel_size(Path(loaded.sdata_path)) is None
    loaded.load_input_from_sdata(str(with_pixel_size(store, 0.5)), "input_image", NUCLEUS, CYTOSOL)
    assert image_pixel_size(Path(loaded.sdata_path)) == (0.5, 0.5)
    assert "0.5 um per pixel" in repr(loaded)


def test_a_store_of_zarr_2(tmp_path: Path) -> None:
    from spatialdata._io.format import SpatialDataContainerFormatV01

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        as_spatialdata(SAMPLE).write(tmp_path / "old.zarr", sdata_formats=SpatialDataContainerFormatV01())
    loaded = project(tmp_path)
    loaded.load_input_from_sdata(str(tmp_path / "old.zarr"), "input_image", NUCLEUS, CYTOSOL)
    path = ome_tiff(tmp_path / "slide.ome.tif", PhysicalSizeX=0.5, PhysicalSizeY=0.5)
    names = SAMPLE.channel_names
    loaded.load_input_from_tif_files(path, channel_names=names)  # the same pixels
    assert (Path(loaded.sdata_path) / ".zgroup").exists()
    assert image_pixel_size(Path(loaded.sdata_path)) == (0.5, 0.5)
    loaded.load_input_from_tif_files(path, channel_names=names, overwrite=True)
    assert image_pixel_size(Path(loaded.sdata_path)) == (0.5, 0.5)
    assert open_sdata(loaded.sdata_path).images["input_image"] is not None


def with_pixel_size(store: Path, *size: float) -> Path:
    group = zarr.open_group(str(store / "images/input_image"), mode="r+", use_consolidated=False)
    group.attrs["cellstamp"] = {"pixel_size": list(size * 2)[:2]}
    return store


# --- image_size -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_a_size_in_micrometres_is_that_in_pixels(tmp_path: Path, threads: int) -> None:
    loaded = project(tmp_path, image_size="7.3 um", threads=threads)
    meta = {"PhysicalSizeX": 0.325, "PhysicalSizeY": 0.325}
    loaded.load_input_from_tif_files(ome_tiff(tmp_path / "slide.ome.tif", **meta))
    loaded.load_segmentation(SAMPLE.masks[NUCLEUS], SAMPLE.masks[CYTOSOL])
    loaded.extract()
    read = loaded.h5sc
    ids, _, stamps = restatement.extract([SAMPLE.masks[NUCLEUS], SAMPLE.masks[CYTOSOL]], IMAGE, SIZE)
    assert read.obs["scportrait_cell_id"].tolist() == ids.tolist()
    assert restatement.same_bits(np.asarray(read.obsm["single_cell_images"][:]), stamps)
    settings = read.uns["cellstamp"]["settings"]
    assert settings["image_size"] == SIZE
    assert list(settings["image_pixel_size"]) == list(settings["crop_pixel_size"]) == pytest.approx([0.325, 0.325])
    log = "".join(path.read_text() for path in Path(loaded.directory).rglob("processing.log"))
    assert "image_size '7.3 um' is 24 pixels" in log
    assert "image 'input_image': 0.325 um per pixel, from its metadata" in log


def test_without_a_pixel_size_the_error_says_which_key_to_set(tmp_path: Path) -> None:
    store = write_store(tmp_path / "slide.zarr", SAMPLE)
    with pytest.raises(ConfigError, match=r"image_size = '30 um': the pixel size of image 'input_image' in .* is unk"):
        extracted(store, tmp_path, image_size="30 um")
    step = extracted(store, tmp_path, image_size="0.012 mm", image_pixel_size=0.5)
    assert settings_of(step)["image_size"] == 24


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    store = with_pixel_size(write_store(tmp_path / "slide.zarr", SAMPLE), 0.5, 0.6)
    with pytest.raises(ConfigError, match=r"are 0.5 x 0.6 um \(y, x\), not square. Set crop_pixel_size"):
        extracted(store, tmp_path, image_size="12 um")
    assert settings_of(extracted(store, tmp_path, image_size="14 um", crop_pixel_size=0.5))["image_size"] == 28


def test_the_configuration_overrides_metadata(tmp_path: Path) -> None:
    store = with_pixel_size(write_store(tmp_path / "slide.zarr", SAMPLE), 0.25)
    step = extracted(store, tmp_path, image_size="12 um", image_pixel_size=0.5)
    assert settings_of(step)["image_size"] == 24
    said = "image 'input_image': 0.5 um per pixel, from image_pixel_size, not 0.25 um as in its metadata"
    assert log_of(step.directory).count(said) == 1


def test_without_sizes_nothing_is_recorded(tmp_path: Path) -> None:
    step = extracted(write_store(tmp_path / "slide.zarr", SAMPLE), tmp_path)
    assert not {"image_pixel_size", "crop_pixel_size"} & set(settings_of(step))
    assert "um per pixel" not in log_of(step.directory)


def test_a_size_that_is_larger_than_the_image(tmp_path: Path) -> None:
    store = write_store(tmp_path / "slide.zarr", SAMPLE)
    with pytest.raises(ConfigError, match="image_size = 200: must not be larger than the image"):
        extracted(store, tmp_path, image_size="100 um", image_pixel_size=0.5)


def test_a_partial_extraction(tmp_path: Path) -> None:
    keys = {"threads": 1, "image_size": "12 um", "image_pixel_size": 0.5, "progress": False}
    step = HDF5CellExtraction(keys, tmp_path / "out", filehandler=write_store(tmp_path / "slide.zarr", SAMPLE))
    step(partial=True, n_cells=5)
    assert read_h5sc(str(step.output_path)).obsm["single_cell_images"].shape == (5, 5, 24, 24)
