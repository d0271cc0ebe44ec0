"""Runs with ``images: False``: they measure the same features, resume, and keep away from single-cell images."""

from __future__ import annotations

import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest

from cellstamp import ConfigError, HDF5CellExtraction, InputError, OutputError, Project, read_h5sc
from cellstamp.h5sc.feature_table import read_features
from commands import run_command
from stores import CYTOSOL, NUCLEUS, Sample, make_sample, write_store
from waiting import wait_until

SAMPLE = make_sample((300, 260))
CONFIG: dict[str, Any] = {"threads": 1, "image_size": 24, "features": True, "progress": False}


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("slide") / "s.zarr", SAMPLE)


def step_for(slide: Path, folder: Path, **config: Any) -> HDF5CellExtraction:
    keys = {**CONFIG, "cache": str(folder.parent / "cache"), **config}
    return HDF5CellExtraction(keys, folder, filehandler=slide)


def extract(slide: Path, folder: Path, **config: Any) -> Path:
    step = step_for(slide, folder, **config)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(extend|exceed|crop)")
        step()
    return Path(str(step.output_path))


def assert_equal(one: anndata.AnnData, other: anndata.AnnData) -> None:
    np.testing.assert_array_equal(one.X, other.X)
    assert one.obs.equals(other.obs)
    assert one.var.equals(other.var)
    counts = [{k: v for k, v in each.uns["cellstamp"].items() if k.startswith("cells_")} for each in (one, other)]
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"threads": 2, "max_batch_size": 7},
        {"engine": "dask", "threads": 2},
        {"file_format": "zarr"},
        {"border": "pad"},
        {"image_size": 8, "max_batch_size": 20},  # cells are larger than crops
        {"features": ["intensity"], "channels": ["tubulin"]},
    ],
    ids=["one", "processes", "dask", "zarr", "pad", "small crops", "one group"],
)
@pytest.mark.once
def test_features_are_those_beside_images(slide: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    images = extract(slide, tmp_path / "images", **config)
    found = extract(slide, tmp_path / "measured", **config, images=False)
    suffix = "zarr" if "file_format" in config else "h5ad"
    assert found == tmp_path / f"measured/features/features.{suffix}"
    assert_equal(read_features(found), read_features(images))
    removed = "removed_classes.zarr.csv" if suffix == "zarr" else "removed_classes.csv"
    assert {path.name for path in found.parent.iterdir()} == {found.name, removed}
    assert (found.parent / removed).read_text() == (images.parent / removed).read_text()
    assert not [*(tmp_path / "measured").glob(".unfinished*")]
    assert "Measured" in (tmp_path / "measured/processing.log").read_text()


@pytest.mark.once
def test_a_killed_run_resumes(slide: Path, tmp_path: Path) -> None:
    keys = {**CONFIG, "images": False, "cache": str(tmp_path / "cache"), "flush_every": 1, "max_batch_size": 3}
    step = f"HDF5CellExtraction({keys!r}, {str(tmp_path / 'out')!r}, filehandler={str(slide)!r})"
    code = f"from cellstamp import HDF5CellExtraction; {step}()"
    run = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    journal = tmp_path / "out/.unfinished_features/1/journal"
    wait_until(lambda: run.poll() is not None or (journal.exists() and journal.read_bytes().count(b"\n") > 3))
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not (tmp_path / "out/features").exists()
    found = extract(slide, tmp_path / "out", images=False)
    assert "Resuming: " in (tmp_path / "out/processing.log").read_text()
    assert_equal(read_features(found), read_features(extract(slide, tmp_path / "whole", images=False)))
    assert not journal.exists()


def test_its_table_instead_of_images(slide: Path, tmp_path: Path) -> None:
    found = extract(slide, tmp_path / "out", images=False)
    with pytest.raises(InputError, match=r"no single-cell images\. It was made with images = False: extract with"):
        read_h5sc(found)


def test_a_journal_without_content_is_replaced(slide: Path, tmp_path: Path) -> None:
    work = tmp_path / "out/.unfinished_features/1"
    work.mkdir(parents=True)
    (work / "journal").write_bytes(b"")
    found = extract(slide, tmp_path / "out", images=False)
    assert len(read_features(found))


def test_equal_runs_are_up_to_date(slide: Path, tmp_path: Path) -> None:
    found = extract(slide, tmp_path / "out", images=False)
    before = found.stat().st_mtime_ns
    extract(slide, tmp_path / "out", images=False)
    assert found.stat().st_mtime_ns == before
    with pytest.raises(OutputError, match=r"different settings or input \(features: shape, intensity -> shape\)"):
        extract(slide, tmp_path / "out", images=False, features=["shape"])
    step_for(slide, tmp_path / "out", images=False, features=["shape"])(overwrite=True)
    assert set(read_features(found).var["group"]) == {"shape"}


def test_images_and_measurements_do_not_mix(slide: Path, tmp_path: Path) -> None:
    images, measured = step_for(slide, tmp_path / "out"), step_for(slide, tmp_path / "out", images=False)
    images(output_folder_name="a")
    measured(output_folder_name="b")
    kept = (tmp_path / "out/a/features.h5ad").read_bytes()
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"has single-cell images \(single_cells\.h5sc\), and images = False"):
            measured(output_folder_name="a", overwrite=overwrite)
    assert (tmp_path / "out/a/features.h5ad").read_bytes() == kept
    with pytest.raises(OutputError, match=r"has features\.h5ad of a run with images = False"):
        images(output_folder_name="b")
    images(output_folder_name="b", overwrite=True)
    assert len(read_h5sc(tmp_path / "out/b/single_cells.h5sc")) == len(read_features(tmp_path / "out/b/features.h5ad"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"features": False}, "images = False: nothing is left to do without features"),
        ({"output_url": "s3://bucket/run", "file_format": "zarr"}, "output_url = 's3://bucket/run': needs single-cell"),
        ({"images": "no"}, "images = 'no'"),
    ],
)
def test_settings_that_contradict(slide: Path, tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        step_for(slide, tmp_path / "out", **{"images": False, **config})()


def test_a_project_and_commands(slide: Path, tmp_path: Path) -> None:
    keys = {**CONFIG, "cache": str(tmp_path / "cache"), "images": False}
    project = Project(tmp_path / "project", keys)
    project.load_input_from_sdata(slide, "input_image", NUCLEUS, CYTOSOL)
    project.extract()
    for each in (project, Project(tmp_path / "project")):
        features = each.features
        assert f"results: extraction/features (features, {len(features)} cells)" in repr(each)
        assert "next step: read the features with project.features" in repr(each)
        with pytest.raises(InputError, match="only features were extracted; extract again without images: False"):
            _ = each.h5sc
    project.add_table(features=True)
    np.testing.assert_array_equal(project.sdata["single_cells"].X, features.X)
    shown = run_command("info", tmp_path / "project/extraction/features/features.h5ad").output
    assert f"cells          {len(features)}\n" in shown
    assert f"features       {features.n_vars}: shape, intensity (features.h5ad)" in shown


OF_IMAGES: list[dict[str, Any]] = [
    {"normalize_output": False},
    {"normalization_scope": "image"},
    {"normalization_range": [0.1, 0.9], "apply_masks": False},
    {"normalize_output": False, "dtype": "uint16", "compression": "gzip"},
]


def test_settings_of_images_change_nothing(slide: Path, tmp_path: Path) -> None:
    found = read_features(extract(slide, tmp_path / "out", images=False))
    for config in OF_IMAGES:
        step = step_for(slide, tmp_path / "out", images=False, **config)
        step()
        assert "Up to date" in (tmp_path / "out" / "processing.log").read_text().splitlines()[-1]
    for number, config in enumerate(OF_IMAGES):
        assert_equal(read_features(extract(slide, tmp_path / str(number), images=False, **config)), found)
    settings = found.uns["cellstamp"]["settings"]
    assert settings["intensities"] == "as in the image: comparable between cells and images"
    assert not [key for key in settings if key.startswith("normali") or key in ("apply_masks", "dtype", "compression")]


@pytest.mark.parametrize("config", OF_IMAGES[:2], ids=["not normalised", "by image"])
def test_float_images_may_have_any_values(slide: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    bright = write_store(tmp_path / "f.zarr", replace(SAMPLE, image=SAMPLE.image.astype(np.float32)))
    found = read_features(extract(bright, tmp_path / "out", images=False, **config))
    np.testing.assert_array_equal(found.X, read_features(extract(slide, tmp_path / "other", images=False)).X)
    with pytest.raises(InputError, match="values from 0 to 1"):
        extract(bright, tmp_path / "images", normalize_output=False)


def test_measurements_are_validated(slide: Path, tmp_path: Path) -> None:
    found = extract(slide, tmp_path / "out", images=False)
    assert run_command("validate", found).exit_code == 0
    table = anndata.read_h5ad(found)
    table.obs.loc["1", "scportrait_cell_id"] = table.obs["scportrait_cell_id"].iloc[0]
    table.X[0, 0] = np.inf
    table.write_h5ad(found)
    output = run_command("validate", found).stderr
    assert "1 ids are repeated" in output
    assert "values must be finite or NaN" in output


def test_cells_beyond_their_crops_need_no_warning(slide: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*too close")
        step_for(slide, tmp_path / "out", images=False, image_size=8)()
    assert read_features(tmp_path / "out/features/features.h5ad").obs["exceeds_crop"].any()


@pytest.mark.parametrize("images", [True, False])
def test_cells_that_are_measured_in_part_are_told(tmp_path: Path, *, images: bool) -> None:
    mask = np.zeros((128, 160), np.uint32)
    mask[50:70, 20:140], mask[100:110, 60:70] = 1, 2
    store = write_store(tmp_path / "s.zarr", Sample(np.ones((1, *mask.shape), np.uint16), {CYTOSOL: mask}, ["dna"]))
    told = (
        r"1 of 2 cells exceeds the window of 72 x 72 pixels that features are measured in, 3 times image_size: areas "
        r"and sums are too small\. obs\['measured_in_part'\] marks them\. Set a larger image_size"
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*crop of 24 x 24 pixels.* Features are measured beyond the crop\.")
        with pytest.warns(UserWarning, match=told):
            step_for(store, tmp_path / "out", image_size=24, images=images)()


def test_cells_exceed_their_crops_alike_with_and_without_images(tmp_path: Path) -> None:
    nucleus, cytosol = np.zeros((2, 128, 128), np.uint32)
    nucleus[40:80, 40:80] = 1  # touches all edges of the crop
    cytosol[55:65, 55:65] = 1
    cytosol[80:84, 80:84] = 1  # a piece outside of the crop
    image = np.ones((1, 128, 128), np.uint16)
    store = write_store(tmp_path / "s.zarr", Sample(image, {NUCLEUS: nucleus, CYTOSOL: cytosol}, ["dna"]))
    images, measured = (extract(store, tmp_path / str(on), images=on) for on in (True, False))
    assert_equal(read_features(measured), read_features(images))


def test_cells_are_chosen_from_measurements(slide: Path, tmp_path: Path) -> None:
    found = extract(slide, tmp_path / "out", images=False)
    features = read_features(found)
    large = features[:, "cell__area"].X.ravel() > np.median(features[:, "cell__area"].X)
    query = {"path": str(found), "query": f"cell__area > {np.median(features[:, 'cell__area'].X)}"}
    images = read_h5sc(extract(slide, tmp_path / "large", cells={"features": query}))
    ids = features.obs["scportrait_cell_id"][large]
    assert images.obs["scportrait_cell_id"].tolist() == ids.tolist()
