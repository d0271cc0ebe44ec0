"""Features of complete runs: values, engines and formats, functions of users, interrupted runs, and checks."""

from __future__ import annotations

import importlib.util
import re
import shutil
import signal
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anndata
import geopandas as gpd
import numpy as np
import pytest
import shapely
import tifffile
from scipy import ndimage
from skimage.measure import regionprops_table

from cellstamp import (
    ConfigError,
    HDF5CellExtraction,
    InputError,
    OutputError,
    Project,
    WorkerError,
    iter_batches,
    read_h5sc,
)
from cellstamp.features.declared import AREA_RATIO, GROUPS, INTENSITIES, SHAPES, TEXTURES, declared_features
from cellstamp.features.texture import measure_texture
from cellstamp.h5sc.feature_table import features_beside, read_features
from cellstamp.h5sc.journal import Journal, ShardEntry, _line, as_bytes, count_cells, read_entries, read_shards
from cellstamp.h5sc.layout import removed_name
from cellstamp.h5sc.validate import errors_in
from cellstamp.zarr_store.shard_task import ShardTask
from commands import run_command
from outlined import polygons_of, write_outlined
from stamp_tasks import Interrupted, Killed, Refused
from stores import CYTOSOL, NUCLEUS, Sample, make_sample, write_store
from waiting import wait_until

SAMPLE = make_sample((300, 260))
CONFIG: dict[str, Any] = {"threads": 2, "image_size": 24, "features": True, "progress": False}
N_SHAPES, N_VALUES = 2 * len(SHAPES) + 1, 3 * len(INTENSITIES)
REAL = Path(__file__).parents[2] / "shared" / "data"
PAGES = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("slide") / "s.zarr", SAMPLE)


def step_for(slide: Any, folder: Path, **config: Any) -> HDF5CellExtraction:
    keys = {**CONFIG, "cache": str(folder.parent / "cache"), **config}
    return HDF5CellExtraction(keys, folder, filehandler=slide)


def extract(slide: Any, folder: Path, **config: Any) -> Path:
    step = step_for(slide, folder, **config)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(extend|exceed|crop)")
        step()
    return Path(str(step.output_path))


@pytest.fixture(scope="module")
def result(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract(slide, tmp_path_factory.mktemp("result") / "out", threads=1)


@pytest.fixture
def own(result: Path, tmp_path: Path) -> Path:
    """A copy with its features, to be changed."""
    return Path(shutil.copytree(result.parent, tmp_path / "own")) / result.name


def ids_of(features: anndata.AnnData) -> np.ndarray:
    return features.obs["scportrait_cell_id"].to_numpy()


def expected(mask: np.ndarray, cell: int, image: np.ndarray, name: str) -> dict[str, float]:
    """Features of one mask, by scikit-image and numpy, from the complete image."""
    filled = ndimage.binary_fill_holes(mask == cell)
    properties = tuple(dict.fromkeys(shape.name.split("-")[0] for shape in SHAPES))
    table = regionprops_table(filled.astype(np.uint8), properties=properties)
    values = {f"{name}__{key}": float(column[0]) for key, column in table.items()}
    return {**values, **expected_values(filled, image, name)}


def expected_values(pixels: np.ndarray, image: np.ndarray, name: str) -> dict[str, float]:
    found = {}
    for channel, plane in zip(SAMPLE.channel_names, image, strict=False):
        own = plane[pixels].astype(np.float64)
        statistics = {"mean": own.mean(), "std": own.std(), "min": own.min(), "max": own.max(), "sum": own.sum()}
        shares = {f"quantile-{share}": np.quantile(own, share) for share in (0.05, 0.25, 0.75, 0.95)}
        for key, value in {**statistics, "median": np.median(own), **shares}.items():
            found[f"{name}__intensity_{key}__{channel}"] = float(value)
    return found


def assert_features(row: anndata.AnnData, values: Mapping[str, float]) -> None:
    for name, value in values.items():
        found = float(row[:, name].X[0, 0])
        if "orientation" in name:
            assert abs(np.sin(found - value)) < 1e-4, name
            continue
        np.testing.assert_allclose(found, value, rtol=1e-6, atol=1e-5 if "eccentricity" in name else 0, err_msg=name)


# --- values ----------------------------------------------------------------------------------------------------------


def test_features_are_those_of_scikit_image_on_the_complete_image(result: Path) -> None:
    features = read_features(result)
    assert features.X.dtype == np.float32
    nucleus, cytosol = SAMPLE.masks[NUCLEUS], SAMPLE.masks[CYTOSOL]
    for number in range(0, len(features), 7):
        row, cell = features[number], int(ids_of(features)[number])
        assert_features(row, expected(nucleus, cell, SAMPLE.image, "nucleus"))
        assert_features(row, expected(cytosol, cell, SAMPLE.image, "cell"))
        inside = [ndimage.binary_fill_holes(mask == cell) for mask in (nucleus, cytosol)]
        assert_features(row, expected_values(inside[1] & ~inside[0], SAMPLE.image, "cytoplasm"))
        ratio = inside[0].sum() / inside[1].sum()
        assert float(row[:, "nucleus__area_ratio"].X[0, 0]) == pytest.approx(ratio, rel=1e-6)


def test_the_table_belongs_to_the_images(result: Path) -> None:
    features, images = read_features(result), read_h5sc(result)
    assert features.shape == (len(images), N_SHAPES + 3 * N_VALUES)
    assert features.obs.drop(columns="measured_in_part").equals(images.obs)
    assert features.obs_names.tolist() == images.obs_names.tolist()
    np.testing.assert_array_equal(features.obsm["spatial"], images.obsm["spatial"])
    assert dict(features.uns["spatialdata_attrs"]) == dict(images.uns["spatialdata_attrs"])
    assert features.uns["cellstamp"]["settings"]["features"] == "shape, intensity"
    assert features.var.loc["cell__intensity_mean__actin"].tolist() == ["intensity", "cell", "actin", "image value"]
    assert features.var.loc["nucleus__area"].tolist() == ["shape", "nucleus", "", "px²"]
    from spatialdata.models import TableModel

    TableModel().validate(features)


@pytest.mark.parametrize(
    "config",
    [
        {"engine": "serial"},
        {"threads": 3, "max_batch_size": 7},
        {"engine": "dask"},
        {"file_format": "zarr"},
        {"normalize_output": False, "dtype": "uint16", "apply_masks": False},
        {"border": "pad"},
        {"image_size": 8, "max_batch_size": 20},  # cells are larger than crops
        {"image_size": 100, "border": "pad"},
    ],
    ids=["serial", "small batches", "dask", "zarr", "not normalised", "pad", "small crops", "large crops"],
)
@pytest.mark.once
def test_features_depend_on_the_cell_only(slide: Path, result: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    one, other = read_features(result), read_features(extract(slide, tmp_path / "out", **config))
    common, first, second = np.intersect1d(ids_of(one), ids_of(other), return_indices=True)
    assert common.size == len(one)
    np.testing.assert_array_equal(other.X[second], one.X[first])
    assert not other.obs["measured_in_part"].any()
    assert other.obs["exceeds_crop"].any() == (config.get("image_size") == 8)


@pytest.mark.filterwarnings("ignore:.*memory")
@pytest.mark.parametrize("file_format", ["h5sc", "zarr"])
@pytest.mark.once
def test_features_do_not_depend_on_the_memory(
    slide: Path, result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_format: str
) -> None:
    """With little memory, tiles are small: cells of a shard come from several, in another order than their rows."""
    monkeypatch.setattr("cellstamp.pipeline.extraction.memory_budget", lambda _: 300_000)
    pieces: list[int] = []
    task = ShardTask.__call__

    def noting(self: ShardTask, shard: Any) -> Any:
        rows = np.concatenate([piece.rows for piece in shard.pieces])
        pieces.append(len(shard.pieces) if (np.diff(rows) < 0).any() else 1)
        return task(self, shard)

    monkeypatch.setattr(ShardTask, "__call__", noting)
    one = read_features(result)
    other = read_features(extract(slide, tmp_path / "out", threads=1, file_format=file_format))
    common, first, second = np.intersect1d(ids_of(one), ids_of(other), return_indices=True)
    assert common.size == len(one)
    np.testing.assert_array_equal(other.X[second], one.X[first])
    assert max(pieces, default=0) > 1 or file_format == "h5sc"


@pytest.mark.once
def test_channels_cells_groups_and_samples(slide: Path, result: Path, tmp_path: Path) -> None:
    features = read_features(result)
    chosen = ids_of(features)[[5, 3, 20]].tolist()
    some = read_features(extract(slide, tmp_path / "a", cells=chosen, channels=["tubulin"], features=["intensity"]))
    assert ids_of(some).tolist() == sorted(chosen)
    assert some.n_vars == N_VALUES
    np.testing.assert_array_equal(some.X, features[np.sort([5, 3, 20]), some.var_names].X)
    step = step_for(slide, tmp_path / "b", features=["shape"])
    step(partial=True, n_cells=9)
    drawn = read_features(Path(str(step.output_path)))
    assert drawn.shape == (9, N_SHAPES)
    same = features[np.isin(ids_of(features), ids_of(drawn)), drawn.var_names]
    np.testing.assert_array_equal(drawn.X, same.X)


def test_polygons_are_measured_as_labels(slide: Path, result: Path, tmp_path: Path) -> None:
    shapes = {f"{name}_shapes": polygons_of(mask) for name, mask in SAMPLE.masks.items()}
    store = write_outlined(tmp_path / "p.zarr", SAMPLE, shapes)
    names = {"nucleus_shapes": f"{NUCLEUS}_shapes", "cytosol_shapes": f"{CYTOSOL}_shapes"}
    for size in (24, 8):
        found = read_features(extract(store, tmp_path / f"out{size}", image_size=size, **names))
        one = read_features(result)
        common, first, second = np.intersect1d(ids_of(one), found.obs["instance_id"], return_indices=True)
        assert common.size == len(one)
        np.testing.assert_array_equal(found.X[second], one.X[first])


@pytest.mark.parametrize("size", [24, 12])
def test_pixels_outside_of_the_image_are_not_measured(tmp_path: Path, size: int) -> None:
    height, width = SAMPLE.image.shape[1:]
    boxes = [(-4, 40, 6, 60), (width - 7, 100, width + 3, 110), (90, -3, 100, 4), (30, height - 8, 50, height + 2)]
    shapes = gpd.GeoDataFrame(geometry=[shapely.box(*box) for box in boxes], index=[1, 2, 3, 4])
    store = write_outlined(tmp_path / "p.zarr", SAMPLE, {"cells": shapes})
    config = {"cytosol_shapes": "cells", "border": "pad", "image_size": size}
    features = read_features(extract(store, tmp_path / "out", threads=1, **config))
    assert features[:, "cell__area"].X.ravel().tolist() == [6 * 20, 7 * 10, 10 * 4, 20 * 8]
    assert features[0, ["cell__bbox-0", "cell__bbox-1"]].X.tolist() == [[40, 0]]
    assert not features.obs["measured_in_part"].any()
    assert features[0, "cell__intensity_min__dna"].X.item() == SAMPLE.image[0, 40:60, :6].min() > 0


@pytest.mark.parametrize(("mask", "prefix"), [(NUCLEUS, "nucleus"), (CYTOSOL, "cell")])
def test_one_mask(tmp_path: Path, mask: str, prefix: str) -> None:
    sample = SAMPLE.only(mask)
    store = write_store(tmp_path / "s.zarr", sample)
    features = read_features(extract(store, tmp_path / "out", threads=1))
    assert features.var_names.tolist() == [
        feature.name for feature in declared_features(("shape", "intensity"), (prefix,), SAMPLE.channel_names)
    ]
    row, cell = features[3], int(ids_of(features)[3])
    assert_features(row, expected(sample.masks[mask], cell, SAMPLE.image, prefix))


def test_cells_that_exceed_three_crops_are_marked(tmp_path: Path) -> None:
    mask = np.zeros((128, 160), np.uint32)
    mask[50:70, 20:140], mask[100:110, 60:70] = 1, 2
    image = np.arange(mask.size, dtype=np.uint16).reshape(1, *mask.shape)
    store = write_store(tmp_path / "s.zarr", Sample(image, {CYTOSOL: mask}, ["dna"]))
    features = read_features(extract(store, tmp_path / "out", threads=1, image_size=24))
    assert features.obs["measured_in_part"].tolist() == [True, False]
    assert features[:, "cell__area"].X.ravel().tolist() == [20 * 72, 100]
    features = read_features(extract(store, tmp_path / "wide", threads=1, image_size=48))
    assert features.obs["measured_in_part"].tolist() == [False]
    assert features[:, "cell__area"].X.ravel().tolist() == [20 * 120]


def test_a_cell_without_pixels_in_one_mask(tmp_path: Path) -> None:
    nucleus, cytosol = (SAMPLE.masks[name].copy() for name in (NUCLEUS, CYTOSOL))
    cytosol[cytosol == 40] = 0
    store = write_store(tmp_path / "s.zarr", Sample(SAMPLE.image, {NUCLEUS: nucleus, CYTOSOL: cytosol}))
    step = step_for(store, tmp_path / "out", threads=1)
    with pytest.warns(UserWarning, match="no pixel"):
        step()
    features = read_features(Path(str(step.output_path)))
    row = features[ids_of(features) == 40]
    assert row[:, ["cell__area", "cell__intensity_sum__dna", "cytoplasm__intensity_sum__dna"]].X.tolist() == [[0, 0, 0]]
    assert np.isnan(row[:, ["cell__perimeter", "cell__intensity_mean__dna", "nucleus__area_ratio"]].X).all()
    assert_features(row, expected(nucleus, 40, SAMPLE.image, "nucleus"))


def test_channels_of_one_name_have_distinct_features() -> None:
    names = [feature.name for feature in declared_features(["intensity"], ["cell"], ["a", "a", "a-1", "a"])]
    assert len(set(names)) == len(names) == 4 * len(INTENSITIES)
    assert names[0] == "cell__intensity_mean__a"


@pytest.mark.skipif(not REAL.is_dir(), reason="without the real images")
@pytest.mark.parametrize("name", ["jump_BR00117006_A01", "codex_murphy_R001_X003_Y004"])
@pytest.mark.once
def test_real_images(tmp_path: Path, name: str) -> None:
    folder = REAL / name
    image = tifffile.imread(folder / "image.tif")[:3]
    files = {NUCLEUS: "labels_nucleus.tif", CYTOSOL: "labels_cytosol.tif"}
    masks = {mask: tifffile.imread(folder / file) for mask, file in files.items() if (folder / file).exists()}
    store = write_store(tmp_path / "s.zarr", Sample(image, masks, SAMPLE.channel_names), chunks=512)
    features = read_features(extract(store, tmp_path / "out", image_size=128, border="pad"))
    for number in range(0, len(features), max(1, len(features) // 60)):
        cell, row = int(ids_of(features)[number]), features[number]
        assert not row.obs["measured_in_part"].item()
        for mask, prefix in zip(masks, ("nucleus", "cell")[-len(masks) :], strict=True):
            assert_features(row, expected(masks[mask], cell, image, prefix))


# --- functions of users ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{"threads": 1}, {}, {"file_format": "zarr"}], ids=["one", "two", "zarr"])
@pytest.mark.once
def test_functions_of_users(slide: Path, result: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    paths = ["feature_functions.changing", "feature_functions.brightest"]
    features = read_features(extract(slide, tmp_path / "out", features=["shape", *paths], **config))
    names = ["total", "brightest_0", "brightest_1", "brightest_2", "pixels", "is_bool"]
    assert features.var_names[N_SHAPES:].tolist() == names
    assert set(features.var["group"]) == {"shape", "function"}
    for number in range(0, len(features), 9):
        row, cell = features[number], int(ids_of(features)[number])
        inside = ndimage.binary_fill_holes(SAMPLE.masks[CYTOSOL] == cell)
        nucleus = ndimage.binary_fill_holes(SAMPLE.masks[NUCLEUS] == cell)
        box = ndimage.find_objects((inside | nucleus).astype(np.uint8))[0]
        brightest = SAMPLE.image[:, inside].max(axis=1).tolist()
        values = [float(SAMPLE.image[:, *box].sum()), *brightest, inside.sum() + nucleus.sum(), 1]
        np.testing.assert_allclose(row[:, names].X[0], values, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("failing", "feature_functions.failing failed at cell [0-9]+: ValueError: no such cell"),
        ("a_number", "a_number returned float for cell [0-9]+: it must return a dict"),
        ("a_text", "a_text returned 'shade' = 'dark' for cell [0-9]+: values must be single numbers"),
        ("other_names", r"other_names returned other names for cell [0-9]+ than for the first cell \(missing: of_"),
    ],
)
def test_wrong_results_name_the_function_and_the_cell(slide: Path, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        extract(slide, tmp_path / "out", threads=1, features=[f"feature_functions.{name}"])
    assert not (tmp_path / "out/data").exists()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("feature_functions.absent", r"cannot import 'feature_functions\.absent': AttributeError"),
        ("no_such_module.f", r"cannot import 'no_such_module\.f': ModuleNotFoundError"),
        ("feature_functions.NOT_A_FUNCTION", "is int, and must be a function"),
        ("__main__.f", "is in the main script, which workers do not import"),
        ("feature_functions.a_known_name", "several are called cell__area"),
    ],
)
def test_functions_that_cannot_be_used(slide: Path, tmp_path: Path, path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        extract(slide, tmp_path / "out", threads=1, features=["shape", path])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("shape", r"must be True, False, or a list .* \(got a str; write \['shape'\]\)"),
        ("true", r"must be True, False, or a list .* \(got a str; write True without quotes\)"),
        ([], "must be True, False, or a list"),
        (["shape", "shape"], "must be True, False, or a list"),
        (["shape", 3], r"\(item 1 is 3\)"),
        (["shapes"], r"\('shapes' is neither a group nor a dotted path; did you mean 'shape'\?\)"),
        (["my module.f"], r"\(item 0 is 'my module\.f'\)"),
    ],
)
def test_wrong_values_of_the_key(slide: Path, tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        extract(slide, tmp_path / "out", features=value)


# --- texture ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{"threads": 1}, {"file_format": "zarr"}], ids=["one", "zarr"])
@pytest.mark.once
def test_texture(slide: Path, result: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    chosen = ids_of(read_features(result))[::8].tolist()
    groups = ["texture", "shape", "feature_functions.changing"]
    features = read_features(extract(slide, tmp_path / "out", cells=chosen, features=groups, **config))
    declared = declared_features(("shape", "texture"), ("nucleus", "cell"), SAMPLE.channel_names)
    assert features.var_names.tolist() == [*(feature.name for feature in declared), "total"]
    assert np.isfinite(features.X).all()
    for number, cell in enumerate(ids_of(features).tolist()):
        mask = ndimage.binary_fill_holes(SAMPLE.masks[CYTOSOL] == cell)
        contrast, energy = _co_occurrence(mask, SAMPLE.image[1])
        names = [f"cell__texture_{name}__actin" for name in ("contrast", "energy")]
        np.testing.assert_allclose(features[number, names].X[0], [contrast, energy], rtol=1e-5)


def _co_occurrence(mask: np.ndarray, channel: np.ndarray) -> tuple[float, float]:
    """Contrast and energy, pair by pair."""
    low, high = int(channel[mask].min()), int(channel[mask].max())
    pixels = {
        (y, x): min(31, int((int(channel[y, x]) - low) * 32 / (high - low))) for y, x in np.argwhere(mask).tolist()
    }
    contrasts, energies = [], []
    for step in ((0, 1), (1, 1), (1, 0), (1, -1)):
        pairs: Counter[tuple[int, int]] = Counter()
        for (y, x), level in pixels.items():
            other = pixels.get((y + step[0], x + step[1]))
            if other is not None:
                pairs.update([(level, other), (other, level)])
        total = sum(pairs.values())
        contrasts.append(sum(count * (i - j) ** 2 for (i, j), count in pairs.items()) / total)
        energies.append(np.sqrt(sum((count / total) ** 2 for count in pairs.values())))
    return float(np.mean(contrasts)), float(np.mean(energies))


def test_texture_without_pairs_of_pixels() -> None:
    masks, image = np.zeros((2, 3, 3), np.bool_), np.ones((1, 3, 3), np.uint16)
    masks[1, 1, 1] = True
    assert np.isnan(measure_texture(masks, image)).all()
    flat = dict(zip([each.name for each in TEXTURES], measure_texture(~masks[:1], image), strict=True))
    assert (flat["texture_contrast"], flat["texture_energy"], flat["texture_homogeneity"]) == (0, 1, 1)


def test_texture_needs_scikit_image(slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    with pytest.raises(ConfigError, match=r"texture needs scikit-image: pip install 'cellstamp\[segmentation\]'"):
        extract(slide, tmp_path / "out", threads=1, features=["texture"])


# --- interrupted runs, and results in the way -----------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:2 workers were killed")
@pytest.mark.parametrize("file_format", ["h5sc", "zarr"])
@pytest.mark.parametrize(
    ("task", "error", "threads"),
    [(Refused, InputError, 1), (Interrupted, KeyboardInterrupt, 1), (Killed, WorkerError, 2)],
)
@pytest.mark.once
def test_an_interrupted_run_keeps_its_features(
    slide: Path, result: Path, tmp_path: Path, file_format: str, task: Any, error: Any, threads: int
) -> None:
    config = {"file_format": file_format, "max_batch_size": 5, "threads": threads}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellstamp.zarr_store.layout.MOST_ROWS", 8)
        with patch.context() as inner:
            inner.setattr("cellstamp.pipeline.job.StampTask", task)
            with pytest.raises(error, match=r"on purpose|workers died while working"):
                extract(slide, tmp_path / "out", flush_every=1, **config)
        assert not (tmp_path / "out/data").exists()
        measured = []
        patch.setattr("cellstamp.cells.cutter.StampCutter.cut", _noting(measured))
        found = extract(slide, tmp_path / "out", **{**config, "threads": 1})
    one, other = read_features(result), read_features(found)
    assert 0 < len(measured) < len(other)
    assert len(measured) == len(set(measured))
    order = np.argsort(ids_of(other))
    np.testing.assert_array_equal(other.X[order], one.X)
    assert errors_in(found) == []
    assert sorted(path.name for path in found.parent.iterdir()) == sorted(
        [features_beside(found).name, removed_name(found.name), found.name]
    )
    assert not [*(tmp_path / "out").glob(".unfinished*")]


def _noting(measured: list[int]) -> Any:
    from cellstamp.cells.cutter import StampCutter

    cut = StampCutter.cut

    def noting(cutter: StampCutter, batch: Any) -> Any:
        measured.extend(batch.ids.tolist())
        return cut(cutter, batch)

    return noting


@pytest.mark.once
def test_features_survive_a_file_that_was_never_closed(slide: Path, result: Path, tmp_path: Path) -> None:
    """The images are copied into a new file, and the features with them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellstamp.pipeline.job.StampTask", Refused)
        with pytest.raises(InputError, match="on purpose"):
            extract(slide, tmp_path / "out", threads=1, max_batch_size=5, flush_every=1)
    attempt = tmp_path / "out/.unfinished_data/1"
    written = (attempt / "journal").read_bytes()
    closing = written.rindex(b"\n", 0, -1) + 1
    assert b"closed" in written[closing:]
    (attempt / "journal").write_bytes(written[:closing])
    with (attempt / "single_cells.h5sc").open("r+b") as file:
        file.write(b"\0" * 64)
    found = extract(slide, tmp_path / "out")
    np.testing.assert_array_equal(read_features(found).X, read_features(result).X)
    assert errors_in(found) == []


@pytest.mark.once
def test_a_run_whose_process_is_killed_resumes_with_features(slide: Path, result: Path, tmp_path: Path) -> None:
    keys = {**CONFIG, "cache": str(tmp_path / "cache"), "flush_every": 1, "max_batch_size": 3}
    step = f"HDF5CellExtraction({keys!r}, {str(tmp_path / 'out')!r}, filehandler={str(slide)!r})"
    code = f"from cellstamp import HDF5CellExtraction; {step}()"
    run = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    journal = tmp_path / "out/.unfinished_data/1/journal"
    wait_until(lambda: run.poll() is not None or (journal.exists() and journal.read_bytes().count(b"\n") > 3))
    run.send_signal(signal.SIGKILL)
    run.wait()
    np.testing.assert_array_equal(read_features(extract(slide, tmp_path / "out")).X, read_features(result).X)


@pytest.mark.parametrize("harm", ["torn", "damaged"])
def test_an_entry_with_incomplete_features_and_those_after_it_are_lost(tmp_path: Path, harm: str) -> None:
    values = np.frombuffer(b"\n" * 48, np.float32).reshape(3, 4)
    path = tmp_path / "journal"
    journal = Journal(path, {}, 1)
    sizes = []
    for number in range(3):
        journal.append([ShardEntry(number, 3, [0, 0], [], as_bytes(values * number))])
        sizes.append(path.stat().st_size)
    journal.close(file_is_closed=False)
    assert [entry.features for entry in read_shards(path)] == [as_bytes(values * number) for number in range(3)]
    written = bytearray(path.read_bytes())
    written[sizes[1] - 5] ^= 1
    path.write_bytes(written if harm == "damaged" else written[: sizes[1] - 5])
    assert [entry.shard for entry in read_shards(path)] == [0]
    assert count_cells(path) == 3
    # the next run continues after the last whole entry
    journal = Journal(path, {}, 1)
    journal.append([ShardEntry(7, 3, [0, 0], [], as_bytes(values))])
    journal.close(file_is_closed=True)
    assert [entry.shard for entry in read_shards(path)] == [0, 7]


def test_entries_with_features_as_text_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, {}, 1)
    journal.append([ShardEntry(0, 3, [0, 0], [])])
    journal.close(file_is_closed=False)
    with path.open("ab") as file:
        file.write(_line({"shard": 1, "n_cells": 3, "n_empty": [0, 0], "on_edge": [], "features": "AAAA"}))
    assert [entry.shard for entry in read_shards(path)] == [0]


@pytest.mark.once
def test_journals_without_features_are_as_before(slide: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellstamp.pipeline.job.StampTask", Refused)
        with pytest.raises(InputError, match="on purpose"):
            extract(slide, tmp_path / "out", threads=1, max_batch_size=5, flush_every=1, features=False)
    journal = tmp_path / "out/.unfinished_data/1/journal"
    assert [*read_entries(journal)]
    assert b"features" not in journal.read_bytes()
    assert not (journal.parent / "features.rows").exists()
    assert not features_beside(extract(slide, tmp_path / "out", features=False)).exists()


def test_other_features_are_other_results(slide: Path, tmp_path: Path) -> None:
    path = extract(slide, tmp_path / "out", threads=1, features=["shape"])
    before = features_beside(path).stat().st_mtime_ns
    extract(slide, tmp_path / "out", threads=1, features=["shape"])  # up to date
    assert features_beside(path).stat().st_mtime_ns == before
    with pytest.raises(OutputError, match=r"different settings or input \(features: shape -> shape, intensity\)"):
        extract(slide, tmp_path / "out", threads=1)
    features_beside(path).unlink()
    with pytest.raises(OutputError, match=r"already exists without features\.h5ad"):
        extract(slide, tmp_path / "out", threads=1, features=["shape"])


@pytest.mark.parametrize("file_format", ["h5sc", "zarr"])
def test_features_of_replaced_images_are_removed(slide: Path, tmp_path: Path, file_format: str) -> None:
    config = {"threads": 1, "file_format": file_format}
    assert features_beside(extract(slide, tmp_path / "out", **config)).exists()
    step = step_for(slide, tmp_path / "out", **config, features=False)
    step(overwrite=True)
    path = Path(str(step.output_path))
    assert not features_beside(path).exists()
    with pytest.raises(InputError, match="has no features: set the key features to True"):
        read_features(path)


# --- around the table ------------------------------------------------------------------------------------------------


def test_a_project_and_commands(slide: Path, result: Path, tmp_path: Path) -> None:
    keys = {**CONFIG, "threads": 1, "cache": str(tmp_path / "cache")}
    project = Project(tmp_path / "project", keys)
    project.load_input_from_sdata(slide, "input_image", NUCLEUS, CYTOSOL)
    project.extract()
    np.testing.assert_array_equal(project.features.X, read_features(result).X)
    project.add_table(features=True)
    table = project.sdata["single_cells"]
    np.testing.assert_array_equal(table.X, project.features.X)
    assert table.var_names.tolist() == project.features.var_names.tolist()
    shown = run_command("info", result)
    assert f"features       {N_SHAPES + 3 * N_VALUES}: shape, intensity (features.h5ad)" in shown.output
    assert run_command("validate", result).exit_code == 0


def _with_other(own: Path, change: Any) -> list[str]:
    """Errors found after a change of the table of features."""
    path = features_beside(own)
    features = anndata.read_h5ad(path)
    change(features).write_h5ad(path)
    return errors_in(own)


def test_validate_compares_features_with_images(own: Path) -> None:
    assert errors_in(own) == []

    def swapped(features: anndata.AnnData) -> anndata.AnnData:
        return features[[1, 0, *range(2, len(features))]].copy()

    assert "obs/scportrait_cell_id differs between features.h5ad and this file" in _with_other(own, swapped)
    found = _with_other(own, lambda features: features[:-1].copy())
    assert [error for error in found if "rows for" in error]


def test_validate_finds_other_runs_and_damage(own: Path) -> None:
    def of_another_run(features: anndata.AnnData) -> anndata.AnnData:
        features.uns["cellstamp"]["fingerprint"] = "another"
        features.X[0, 0] = np.inf
        return features

    assert _with_other(own, of_another_run) == [
        "features.h5ad was made with other settings or input than this file. Extract again",
        "features.h5ad: values must be finite or NaN",
    ]
    path = features_beside(own)
    path.write_bytes(path.read_bytes()[:1000])
    assert [error for error in errors_in(own) if "features.h5ad is damaged" in error]
    shown = run_command("info", own)
    assert shown.exit_code != 0
    assert "features.h5ad is damaged" in shown.output + shown.stderr


# --- documentation ---------------------------------------------------------------------------------------------------


def _rows_of_the_page(kind: str) -> dict[str, list[str]]:
    """Return the texts of each feature in the generated tables of one kind."""
    spec = importlib.util.spec_from_file_location("feature_reference", PAGES / "feature_reference.py")
    assert spec is not None
    assert spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = reference  # where dataclasses look for their module
    spec.loader.exec_module(reference)
    rows = [re.split(r" (?<!\\)\| ", line.strip("| ")) for line in reference.lines(kind) if line.startswith("| `")]
    assert f"```{{feature-reference}} {kind}\n" in (PAGES / "features.md").read_text(encoding="utf-8")
    return {name.strip("`"): texts for name, *texts in rows}


@pytest.mark.parametrize("kind", ["definitions", "names"])
def test_the_page_lists_all_declared_features(kind: str) -> None:
    declared = declared_features(GROUPS, ("nucleus", "cell"), ("dna",))
    names = dict.fromkeys(feature.name.split("__")[1] for feature in declared)
    assert list(_rows_of_the_page(kind)) == list(names)


def test_the_page_defines_each_feature() -> None:
    rows = _rows_of_the_page("definitions")
    assert {len(texts) for texts in rows.values()} == {3}
    # "|" ends a cell of the table, unless it is escaped
    assert rows["texture_dissimilarity"] == ["", r"Σ p(i, j) \|i - j\|", "`skimage.feature.graycoprops`"]


def test_the_page_names_each_feature_in_other_programs() -> None:
    rows = _rows_of_the_page("names")
    for each in (*SHAPES, AREA_RATIO, *INTENSITIES, *TEXTURES):
        assert rows[each.name] == [each.cellprofiler, each.cellfeaturizer]
        for entry in rows[each.name]:
            assert re.fullmatch(r"-|`\w+`(, .+)?", entry)
    assert rows["intensity_sum"] == ["`Intensity_IntegratedIntensity_CHANNEL`", "`CHANNEL_summed_intensity_MASK`"]
    assert rows["orientation"] == ["`AreaShape_Orientation`, in degrees", "-"]
    assert rows["area_ratio"] == ["-", "-"]


@pytest.mark.once
def test_the_function_on_the_page_runs(slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (PAGES / "features.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(# my_module.py\n.*?)```", text, re.DOTALL)
    (tmp_path / "my_module.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    features = read_features(extract(slide, tmp_path / "out", threads=2, features=["my_module.measure"]))
    assert features.var_names.tolist() == ["spread"]
    assert (features.X > 0).all()


# --- use features -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["features.h5ad", "single_cells.h5sc"])
def test_cells_are_chosen_by_a_condition(slide: Path, result: Path, tmp_path: Path, path: str) -> None:
    features = read_features(result)
    areas = features[:, "cell__area"].X.ravel()
    limit = float(np.median(areas))
    x = features.obs["x"].to_numpy()
    expected = ids_of(features)[(areas > limit) & (x < np.median(x))]
    query = f"cell__area > {limit} and x < {np.median(x)}"
    chosen = extract(slide, tmp_path / "out", cells={"features": {"path": result.with_name(path), "query": query}})
    assert 0 < len(expected) < len(features) / 2
    assert np.array_equal(np.sort(read_h5sc(chosen).obs["scportrait_cell_id"]), np.sort(expected))
    recorded = read_h5sc(chosen).uns["cellstamp"]["settings"]["cells"]
    assert recorded == f"features {result.with_name(path)}, query {query}"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("cell__aera > 4", r"there is no feature 'cell__aera'; did you mean 'cell__area'\?"),
        (
            "sdkfj > 4",
            r"there is no feature 'sdkfj'; there are scportrait_cell_id, region, x, y, .*, \.\.\. \(\d+ in all\)$",
        ),
        ("cell__area", "must be true or false for each cell, like cell__area > 400"),
        ("cell__area >", "Write a condition, like cell__area > 400"),
        ("cell__area > 1e9", r"none of \d+ cells fulfils it"),
        ("cell__area > @limit", "there is no feature 'limit'"),
    ],
)
def test_conditions_that_choose_nothing(slide: Path, result: Path, tmp_path: Path, query: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        extract(slide, tmp_path / "out", cells={"features": {"path": result, "query": query}})


def test_features_that_are_missing_choose_nothing(slide: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there are no features at .*nothing\.h5ad"):
        extract(slide, tmp_path / "out", cells={"features": {"path": tmp_path / "nothing.h5ad", "query": "x > 1"}})


def test_a_feature_is_a_label(result: Path) -> None:
    features = read_features(result)
    expected = dict(zip(ids_of(features), features[:, "cell__area"].X.ravel(), strict=True))
    batches = list(iter_batches(result, batch_size=8, labels="cell__area"))
    assert {
        int(i): float(label) for _, labels, ids in batches for i, label in zip(ids, labels, strict=True)
    } == expected


def test_labels_that_are_no_feature(own: Path) -> None:
    with pytest.raises(ConfigError, match=r"no feature named 'cell__aera'; did you mean 'cell__area'\?"):
        next(iter(iter_batches(own, batch_size=8, labels="cell__aera")))
    own.with_name("features.h5ad").unlink()
    with pytest.raises(ConfigError, match=r"no column 'cell__area' .* Extract with features: true"):
        next(iter(iter_batches(own, batch_size=8, labels="cell__area")))


# --- tables of other cells -------------------------------------------------------------------------------------------


def _reversed(own: Path) -> None:
    table = anndata.read_h5ad(features_beside(own))[::-1].copy()
    table.write_h5ad(features_beside(own))


def _shortened(own: Path) -> None:
    table = anndata.read_h5ad(features_beside(own))[5:].copy()
    table.write_h5ad(features_beside(own))


@pytest.mark.parametrize("change", [_reversed, _shortened])
def test_tables_of_other_cells_are_refused(own: Path, change: Any) -> None:
    change(own)
    with pytest.raises(InputError, match=r"features\.h5ad has other cells .* or another order of cells"):
        read_features(own)
    with pytest.raises(InputError, match=r"features\.h5ad has other cells .* or another order of cells"):
        next(iter(iter_batches(own, 4, labels="cell__area")))


@pytest.mark.parametrize("name", ["X/c/0/0", "X"])
def test_stores_without_all_values_are_damaged(slide: Path, tmp_path: Path, name: str) -> None:
    path = extract(slide, tmp_path / "out", threads=1, file_format="zarr")
    lost = features_beside(path) / name
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    with pytest.raises(InputError, match=r"features\.zarr is damaged: "):
        read_features(path)
    assert any("features.zarr is damaged" in error for error in errors_in(path))


def test_features_of_zeros_are_complete(slide: Path, tmp_path: Path) -> None:
    path = extract(slide, tmp_path / "out", threads=1, file_format="zarr", features=["feature_functions.zero"])
    assert not read_features(path).X.any()


def test_conditions_on_features_of_other_cells(slide: Path, tmp_path: Path) -> None:
    other = write_store(tmp_path / "other.zarr", make_sample((300, 260), seed=5))
    query = {"query": "nucleus__area > 0"}
    for store in (other, slide):
        path = extract(store, tmp_path / store.stem, threads=1, nucleus_labels=NUCLEUS)
        chosen = {"features": {"path": str(path), **query}}
        config = {"threads": 1, "features": False, "cells": chosen}
        if store is other:
            with pytest.raises(InputError, match=r"measured on other cells: '.*' of this run has changed since, or is"):
                extract(slide, tmp_path / "out", nucleus_labels=NUCLEUS, **config)
        else:
            with pytest.raises(InputError, match=r"measured on other cells: '.*' of this run is another mask"):
                extract(slide, tmp_path / "out", cytosol_labels=CYTOSOL, **config)
            assert extract(slide, tmp_path / "out", nucleus_labels=NUCLEUS, **config).exists()


def test_a_folder_is_no_table(slide: Path, result: Path, tmp_path: Path) -> None:
    chosen = {"features": {"path": str(result.parent), "query": "cell__area > 0"}}
    with pytest.raises(InputError, match=r"is a folder. Give the path of a features\.h5ad"):
        extract(slide, tmp_path / "out", features=False, cells=chosen)
