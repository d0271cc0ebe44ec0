"""Each option of an extraction, on real stores, against the plain restatement; in this process and in workers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

import restatement
from cellstamp import HDF5CellExtraction
from cellstamp.errors import ConfigError, InputError
from cellstamp.h5sc.reader import describe_h5sc
from cellstamp.h5sc.validate import errors_in
from stores import CYTOSOL, NUCLEUS, Sample, make_sample, write_store

SIZE = 32
RANGE = (0.001, 0.999)
SAMPLE = make_sample()
MASKS = [SAMPLE.masks[NUCLEUS], SAMPLE.masks[CYTOSOL]]
ENGINES: dict[str, dict[str, Any]] = {"serial": {"threads": 1}, "two workers": {"threads": 2, "max_batch_size": 13}}
EACH_ENGINE = ["serial", pytest.param("two workers", marks=pytest.mark.once)]
Run = Callable[..., Path]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("shared") / "sample.zarr", SAMPLE)


@pytest.fixture
def run(tmp_path: Path, store: Path) -> Run:
    """``run(store, key=value, ...)``: extract, and return the file."""

    def run(handler: Path = store, **config: Any) -> Path:
        keys = {"threads": 1, "image_size": SIZE, "cache": str(tmp_path / "cache"), **config}
        step = HDF5CellExtraction(keys, tmp_path / "out", filehandler=handler, overwrite=True)
        step()
        assert step.output_path is not None
        return Path(step.output_path)

    return run


def stamps(path: Path) -> NDArray:
    with h5py.File(path) as file:
        return file["obsm/single_cell_images"][:]


def settings(path: Path) -> dict[str, Any]:
    return anndata.read_h5ad(path).uns["cellstamp"]["settings"]


def check(path: Path, sample: Sample = SAMPLE, size: int = SIZE, quantiles: Any = RANGE, **how: Any) -> None:
    """The file has the cells and the numbers that the restatement gives."""
    ids, removed, expected = restatement.extract(list(sample.masks.values()), sample.image, size, quantiles, **how)
    with h5py.File(path) as file:
        assert file["obs/scportrait_cell_id"][:].tolist() == ids.tolist()
        assert restatement.same_bits(file["obsm/single_cell_images"][:], expected)
    assert [int(line) for line in path.with_name("removed_classes.csv").read_text().split()] == removed.tolist()


def with_pixels(image: NDArray) -> Sample:
    return Sample(image, SAMPLE.masks, SAMPLE.channel_names[: len(image)])


# --- surroundings, border, dtype --------------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("engine", EACH_ENGINE)
@pytest.mark.parametrize("quantiles", [RANGE, None], ids=["normalised", "raw"])
def test_surroundings_are_kept(run: Run, engine: str, quantiles: Any) -> None:
    path = run(apply_masks=False, normalize_output=quantiles is not None, **ENGINES[engine])
    check(path, quantiles=quantiles, apply_masks=False)
    assert settings(path)["apply_masks"] == np.False_


@pytest.mark.parametrize(
    ("size", "chunks", "engine"),
    [(20, 64, "serial"), (66, 64, "two workers"), (32, 100, "two workers"), (32, 400, "serial"), (66, 400, "serial")],
)
@pytest.mark.filterwarnings("ignore:.* cells exceed their crop:UserWarning")
def test_cells_near_the_border_are_padded_with_zeros(
    tmp_path: Path, run: Run, size: int, chunks: int, engine: str
) -> None:
    path = run(
        write_store(tmp_path / "s.zarr", SAMPLE, chunks=chunks), border="pad", image_size=size, **ENGINES[engine]
    )
    check(path, size=size, pad=True)
    assert settings(path)["border"] == "pad"


@pytest.mark.filterwarnings("ignore:.* cells exceed their crop:UserWarning")
def test_a_padded_crop_may_be_larger_than_the_image(tmp_path: Path, run: Run) -> None:
    small = make_sample((50, 40))
    store = write_store(tmp_path / "s.zarr", small, chunks=16)
    with pytest.warns(UserWarning, match="image_size = 128 is larger than the image"):
        path = run(store, border="pad", image_size=128)
    check(path, small, size=128, pad=True)
    with pytest.raises(ConfigError, match=r"image_size = 128: must not be larger.* or set border to 'pad'"):
        run(store, image_size=128)


def test_padding_and_surroundings_together(run: Run) -> None:
    check(run(border="pad", apply_masks=False, threads=2), pad=True, apply_masks=False)


@pytest.mark.parametrize("compression", ["lzf", "gzip", False])
@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8", "uint16"])
def test_every_dtype_and_compression(run: Run, dtype: str, compression: Any) -> None:
    path = run(dtype=dtype, compression=compression, normalize_output=False)
    check(path, quantiles=None, dtype=dtype)
    assert settings(path)["dtype"] == dtype
    with h5py.File(path) as file:
        assert file["obsm/single_cell_images"].dtype == dtype
        assert file["obsm/single_cell_images"].chunks[2:] == (SIZE, SIZE)
    assert errors_in(path) == []
    assert describe_h5sc(path).dtype == dtype


def test_float32_of_what_is_normalised_and_not_masked(run: Run) -> None:
    check(run(dtype="float32", apply_masks=False, threads=2), dtype="float32", apply_masks=False)


def test_unmasked_integers_are_the_pixels_themselves(run: Run) -> None:
    path = run(dtype="uint16", apply_masks=False, normalize_output=False)
    with h5py.File(path) as file:
        (x, y), first = np.round(file["obsm/spatial"][0]).astype(int), file["obsm/single_cell_images"][0, 2:]
    half = SIZE // 2
    assert np.array_equal(first, SAMPLE.image[:, y - half : y + half, x - half : x + half])


# --- normalisation ----------------------------------------------------------------------------------------------------


def image_limits(image: NDArray, pairs: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [tuple(np.quantile(channel.astype(np.float64), pair)) for channel, pair in zip(image, pairs, strict=True)]


@pytest.mark.parametrize("engine", EACH_ENGINE)
def test_quantiles_of_the_whole_image(run: Run, engine: str) -> None:
    path = run(normalization_scope="image", **ENGINES[engine])
    limits = image_limits(SAMPLE.image, [RANGE] * 3)
    check(path, limits=limits)
    assert settings(path)["normalization_scope"] == "image"
    assert np.array_equal(settings(path)["normalization_limits"], limits)


def test_quantiles_by_channel(run: Run) -> None:
    path = run(normalization_range={"actin": [0.1, 0.9], "dna": (0, 0.5)})
    pairs = [(0.0, 0.5), (0.1, 0.9), RANGE]
    check(path, quantiles=pairs)
    assert np.array_equal(settings(path)["normalization_range"], pairs)
    with h5py.File(path) as file:
        attributes = file["obsm/single_cell_images"].attrs
        assert attributes["normalization_range"].tolist() == ["per channel", "per channel"]
    assert describe_h5sc(path).normalization_range == "per channel"


def test_quantiles_by_channel_of_the_whole_image(run: Run) -> None:
    pairs = [(0.0, 0.5), RANGE, (0.25, 0.75)]
    path = run(normalization_range={"dna": [0, 0.5], "tubulin": [0.25, 0.75]}, normalization_scope="image")
    check(path, limits=image_limits(SAMPLE.image, pairs))


def test_ranges_of_channels_that_are_not_chosen_do_no_harm(run: Run) -> None:
    path = run(normalization_range={"actin": [0.1, 0.9], "dna": [0, 0.5]}, channels=["dna"])
    check(path, Sample(SAMPLE.image[:1], SAMPLE.masks), quantiles=(0.0, 0.5))


def test_a_range_of_an_unknown_channel_is_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"no channel named 'DNA'; the channels are dna, actin, tubulin"):
        run(normalization_range={"DNA": [0, 1]})


# --- channels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "engine"),
    [
        (["tubulin"], "serial"),
        (["tubulin", "dna"], "two workers"),
        (["dna", "actin"], "serial"),
        (["actin", "tubulin", "dna"], "serial"),
    ],
)
def test_channels_by_name_and_in_order(run: Run, names: list[str], engine: str) -> None:
    path = run(channels=names, **ENGINES[engine])
    picked = SAMPLE.image[[SAMPLE.channel_names.index(name) for name in names]]
    check(path, Sample(picked, SAMPLE.masks, names))
    with h5py.File(path) as file:
        assert file["var/channels"].asstr()[2:].tolist() == names


def test_channels_in_chunks_of_several(tmp_path: Path, run: Run) -> None:
    store = write_store(tmp_path / "s.zarr", make_sample(n_channels=6))
    rechunk_channels(store, 4)
    sample = make_sample(n_channels=6)
    names = ["channel 5", "dna", "channel 3", "channel 4", "actin"]
    picked = sample.image[[sample.channel_names.index(name) for name in names]]
    check(run(store, channels=names, threads=2, max_batch_size=9), Sample(picked, sample.masks, names))


def rechunk_channels(store: Path, n: int) -> None:
    group = zarr.open_group(str(store / "images/input_image"), mode="r+")
    old: Any = group["s0"] if "s0" in group else group["0"]
    pixels, names = old[...], old.metadata.dimension_names
    group.create_array(old.basename, data=pixels, chunks=(n, 64, 64), dimension_names=names, overwrite=True)


def test_an_unknown_channel_is_named_with_those_there_are(run: Run) -> None:
    with pytest.raises(InputError, match=r"no channel named 'gfp' in image 'input_image'.*dna, actin, tubulin"):
        run(channels=["dna", "gfp"])


# --- pixel types ------------------------------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize(
    ("dtype", "engine"),
    [
        *((dtype, "serial") for dtype in ("uint8", "uint16", "uint32", "float64")),
        ("float32", "two workers"),
    ],
)
@pytest.mark.parametrize("quantiles", [RANGE, None], ids=["normalised", "raw"])
def test_pixel_types(tmp_path: Path, run: Run, dtype: str, quantiles: Any, engine: str) -> None:
    image = SAMPLE.image / 65535
    image = (image * np.iinfo(dtype).max).astype(dtype) if dtype.startswith("u") else image.astype(dtype)
    sample = with_pixels(image)
    store = write_store(tmp_path / "s.zarr", sample)
    check(run(store, normalize_output=quantiles is not None, **ENGINES[engine]), sample, quantiles=quantiles)


@pytest.mark.parametrize("dtype", ["uint8", "uint32", "float32", "float64"])
def test_quantiles_of_the_whole_image_in_every_type(tmp_path: Path, run: Run, dtype: str) -> None:
    image = (SAMPLE.image / 255).astype(dtype)
    store = write_store(tmp_path / "s.zarr", with_pixels(image))
    check(run(store, normalization_scope="image"), with_pixels(image), limits=image_limits(image, [RANGE] * 3))


@pytest.mark.once
@pytest.mark.parametrize(("dtype", "engine"), [("float32", "two workers"), ("float64", "serial")])
def test_floats_above_1_are_refused_unless_normalised(tmp_path: Path, run: Run, dtype: str, engine: str) -> None:
    image = (SAMPLE.image / 65535).astype(dtype)
    image[1, 90, 90] = 3.5
    store = write_store(tmp_path / "s.zarr", with_pixels(image))
    message = (
        r"'input_image' in .*, channel 'actin': values from \S+ to 3.5 in rows .* must have values from 0 .*normalize"
    )
    with pytest.raises(InputError, match=message):
        run(store, normalize_output=False, **ENGINES[engine])
    check(run(store, **ENGINES[engine]), with_pixels(image))


@pytest.mark.once
@pytest.mark.parametrize("scope", ["cell", "image"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.25])
def test_pixels_that_are_no_intensities_are_refused(tmp_path: Path, run: Run, value: float, scope: str) -> None:
    image = (SAMPLE.image / 65535).astype(np.float32)
    image[2, 90, 90] = value
    store = write_store(tmp_path / "s.zarr", with_pixels(image))
    seen = "values from -0.25 to" if value == -0.25 else "NaN or infinity in rows"
    with pytest.raises(InputError, match=rf"channel 'tubulin': {seen} .*finite numbers, 0 or larger"):
        run(store, normalization_scope=scope)


def rewrite(store: Path, pixels: NDArray, axes: str) -> None:
    """Store the image with other axes, as tools other than spatialdata do."""
    group = zarr.open_group(str(store / "images/input_image"), mode="r+")
    attributes: Any = group.attrs.asdict()
    ome = attributes.get("ome", attributes)
    multiscale = ome["multiscales"][0]
    multiscale["axes"] = [axis for name in axes for axis in multiscale["axes"] if axis["name"] == name]
    path = multiscale["datasets"][0]["path"]
    chunks = tuple(min(64, side) for side in pixels.shape)
    group.create_array(path, data=pixels, chunks=chunks, overwrite=True)
    ome["omero"] = {"channels": ome["omero"]["channels"][: pixels.shape[-1] if axes == "yxc" else 1]}
    group.attrs.put(attributes)


@pytest.mark.parametrize("engine", EACH_ENGINE)
def test_an_image_without_channels(tmp_path: Path, run: Run, engine: str) -> None:
    store = write_store(tmp_path / "s.zarr", SAMPLE)
    rewrite(store, SAMPLE.image[0], "yx")
    check(run(store, border="pad", **ENGINES[engine]), with_pixels(SAMPLE.image[:1]), pad=True)


@pytest.mark.parametrize("channels", [None, ["tubulin", "dna"]])
@pytest.mark.parametrize("engine", EACH_ENGINE)
def test_an_rgb_image_stored_with_its_colours_last(
    tmp_path: Path, run: Run, channels: list[str] | None, engine: str
) -> None:
    colours = (SAMPLE.image // 257).astype(np.uint8)
    store = write_store(tmp_path / "s.zarr", with_pixels(colours))
    rewrite(store, np.moveaxis(colours, 0, -1), "yxc")
    picked = colours if channels is None else colours[[2, 0]]
    check(run(store, channels=channels, **ENGINES[engine]), Sample(picked, SAMPLE.masks))


def test_big_endian_pixels(tmp_path: Path, run: Run) -> None:
    store = write_store(tmp_path / "s.zarr", SAMPLE)
    group = zarr.open_group(str(store / "images/input_image"), mode="r+")
    path = next(iter(group.array_keys()))
    old: Any = group[path]
    group.create_array(
        path, data=old[...], chunks=(1, 64, 64), overwrite=True, serializer=zarr.codecs.BytesCodec(endian="big")
    )
    check(run(store))


# --- cells larger than their crops ------------------------------------------------------------------------------------


def grown() -> Sample:
    """The sample with one long cell, and one that ends at the edge of its window."""
    masks = {name: mask.copy() for name, mask in SAMPLE.masks.items()}
    cells = masks[CYTOSOL]
    ids, xy = restatement.centers(masks[NUCLEUS])
    inside = [k for k in range(len(ids)) if restatement.is_kept(xy[k], SIZE, cells.shape)]
    for k, reach in ((inside[10], 30), (inside[20], SIZE // 2)):
        top, left = restatement.corner(xy[k], SIZE)
        row = top + SIZE // 2
        cells[row, max(left + SIZE // 2 - reach, 0) : left + SIZE // 2] = ids[k]
    return Sample(SAMPLE.image, masks)


@pytest.mark.parametrize("engine", EACH_ENGINE)
def test_cells_that_reach_out_of_their_crop_are_told(tmp_path: Path, run: Run, engine: str) -> None:
    sample = grown()
    ids, _, _ = restatement.extract(list(sample.masks.values()), sample.image, SIZE)
    _, xy = restatement.centers(sample.masks[NUCLEUS])
    every, _ = restatement.centers(sample.masks[NUCLEUS])
    out, extents = [], []
    for cell in ids:
        top, left = restatement.corner(xy[every == cell][0], SIZE)
        rows, columns = np.nonzero(sample.masks[CYTOSOL] == cell)
        if rows.min() < top or rows.max() >= top + SIZE or columns.min() < left or columns.max() >= left + SIZE:
            out.append(cell)
            extents.append((int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1))
    assert 1 <= len(out) < len(ids)
    height, width = max(extents, key=max)
    count = f"{len(out)} of {len(ids)} cells"
    message = rf"{count} exceeds? (?:its|their) crop of {SIZE} x .* the largest is {height} x {width} pixels"
    with pytest.warns(UserWarning, match=message):
        path = run(write_store(tmp_path / "s.zarr", sample), **ENGINES[engine])
    obs = anndata.read_h5ad(path).obs
    assert obs["exceeds_crop"].dtype == np.bool_
    assert obs.loc[obs["exceeds_crop"], "scportrait_cell_id"].tolist() == out


@pytest.mark.filterwarnings("ignore:.* cells exceed their crop:UserWarning")
def test_the_crop_that_is_proposed_holds_them_all(run: Run) -> None:
    with pytest.warns(UserWarning, match="exceed their crop of 10 x 10 pixels") as told:
        run(image_size=10, border="pad")
    proposed = int(re.search(r"image_size (\d+) would hold all of them", str(told[0].message))[1])  # type: ignore[index]
    assert not anndata.read_h5ad(run(image_size=proposed, border="pad")).obs["exceeds_crop"].any()
    assert anndata.read_h5ad(run(image_size=proposed - 2, border="pad")).obs["exceeds_crop"].sum() >= 1


def test_masks_that_number_cells_differently_are_told(tmp_path: Path, run: Run) -> None:
    cells = SAMPLE.masks[CYTOSOL]
    masks = {NUCLEUS: SAMPLE.masks[NUCLEUS], CYTOSOL: np.where(cells > 0, cells + 1000, 0).astype(np.uint32)}
    store = write_store(tmp_path / "s.zarr", Sample(SAMPLE.image, masks))
    before = r"seem to number cells differently: at the centres of \d+ of \d+ cells .* \(such as \d+ in 10\d\d\)"
    with (
        pytest.warns(UserWarning, match="43 of 43 cells have no pixel .* number cells alike"),
        pytest.warns(UserWarning, match=before),
    ):
        run(store)


def test_half_of_the_cells_without_their_other_mask_get_the_hint(tmp_path: Path, run: Run) -> None:
    cells = SAMPLE.masks[CYTOSOL]
    for share, hinted in ((0.7, True), (0.1, False)):
        lost = np.unique(cells)[1:][: int(share * cells.max())]
        masks = {NUCLEUS: SAMPLE.masks[NUCLEUS], CYTOSOL: np.where(np.isin(cells, lost), 0, cells).astype(np.uint32)}
        store = write_store(tmp_path / f"{share}.zarr", Sample(SAMPLE.image, masks))
        with pytest.warns(UserWarning, match="cells have no pixel of 'seg_all_cytosol'") as told:
            run(store, border="pad")
        assert ("match_masks gives it. Or is one of them shifted or transposed" in str(told[0].message)) == hinted


def test_where_every_cell_fits_none_is_marked(run: Run) -> None:
    obs = anndata.read_h5ad(run()).obs
    assert not obs["exceeds_crop"].any()


# --- in the file ------------------------------------------------------------------------------------------------------


def test_without_options_the_settings_say_what_there_is_by_default(run: Run) -> None:
    path = run()
    found = settings(path)
    assert "not comparable between cells" in found.pop("intensities")
    assert {key: np.asarray(value).tolist() for key, value in found.items()} == {
        "image_size": SIZE,
        "image_size_measured": False,
        "normalize_output": True,
        "normalization_range": list(RANGE),
        "normalization_scope": "cell",
        "normalization_limits": "None",
        "apply_masks": True,
        "border": "drop",
        "dtype": "float16",
        "compression": "lzf",
        "image": "input_image",
        "masks": [NUCLEUS, CYTOSOL],
        "channels": ["dna", "actin", "tubulin"],
        "cells": "None",
        "centers": "None",
        "coordinate_system": "None",
    }
    made_from = json.loads(anndata.read_h5ad(path).uns["cellstamp"]["made_from"])
    assert made_from["border"] == "drop"
