"""scportrait's Project with our extraction step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from cellstamp import HDF5CellExtraction
from interop.bench import IMAGE_SIZE, Bench, TheirExtraction
from tests.conftest import write_store

DATA = Path(__file__).parents[2] / "shared" / "data"
REAL = ["jump_BR00117006_A01", "codex_murphy_R001_X003_Y004"]


def stamps(path: str | Path) -> np.ndarray:
    with h5py.File(path) as file:
        return file["obsm/single_cell_images"][:]


def removed(path: str | Path) -> list[int]:
    """Return removed ids, sorted; scportrait writes them unsorted."""
    return sorted(map(int, (Path(path).parent / "removed_classes.csv").read_text().split()))


def same_extraction(ours: str | Path, theirs: str | Path) -> None:
    """Assert equal cells in equal order, bitwise equal images, equal channels, and equal removed cells."""
    with h5py.File(ours) as got, h5py.File(theirs) as expected:
        for name in ("obs/scportrait_cell_id", "obs/_index", "var/channels", "var/_index"):
            assert np.array_equal(got[name], expected[name]), name
        images, wanted = got["obsm/single_cell_images"], expected["obsm/single_cell_images"]
        assert images.shape == wanted.shape
        assert len(images)
        assert np.array_equal(images[:].view(np.uint16), wanted[:].view(np.uint16))
        assert dict(wanted.attrs).keys() <= dict(images.attrs).keys()
    assert removed(ours) == removed(theirs)


def test_full_run(bench: Bench) -> None:
    """Project.extract(): a full run, and Project.h5sc."""
    project = bench.loaded("project", HDF5CellExtraction)
    project.extract()
    assert project.extraction_f.output_path == str(bench.folder / "project/extraction/data/single_cells.h5sc")
    cells = project.h5sc
    assert cells.obs["scportrait_cell_id"].is_monotonic_increasing
    assert 0 < cells.n_obs == 49 - len(removed(project.extraction_f.output_path)) < 49
    assert cells.obsm["single_cell_images"].shape == (cells.n_obs, 5, IMAGE_SIZE, IMAGE_SIZE)
    assert cells.var["channels"].tolist()[2:] == ["ch0", "ch1", "ch2"]


def test_partial_run(bench: Bench) -> None:
    """Project.extract(partial=True): the requested number of cells, in a separate folder."""
    project = bench.loaded("project", HDF5CellExtraction)
    project.extract()
    n_cells, full = project.h5sc.n_obs, Path(project.extraction_f.output_path)
    project.extract(partial=True, n_cells=5, seed=7)
    assert project.h5sc.n_obs == 5
    assert Path(project.extraction_f.output_path).parent.name == "partial_data_ncells_5_seed_7"
    assert len(stamps(full)) == n_cells


def test_named_folder(bench: Bench) -> None:
    """Project.extract(output_folder_name=...): the result is in this folder."""
    project = bench.loaded("project", HDF5CellExtraction)
    project.extract(output_folder_name="mine")
    assert Path(project.extraction_f.output_path).parent.name == "mine"
    assert project.h5sc.n_obs


def test_overwrite(bench: Bench) -> None:
    """Project.extract(overwrite=True): replaces a result, for this call only; without it a result is never replaced."""
    project = bench.loaded("project", HDF5CellExtraction)
    project.extract()
    path = Path(project.extraction_f.output_path)
    first = path.stat().st_mtime_ns
    project.extract()
    assert path.stat().st_mtime_ns == first
    project.extract(overwrite=True)
    second = path.stat().st_mtime_ns
    assert second > first
    project.extract()
    project = bench.theirs("project", HDF5CellExtraction, overwrite=True)
    project.extract(overwrite=False)
    assert path.stat().st_mtime_ns == second
    project.extract()
    assert path.stat().st_mtime_ns > second


def test_after_theirs(bench: Bench) -> None:
    """Our step after scportrait's step: an error, or a replaced result with overwrite=True."""
    bench.loaded("project", TheirExtraction).extract()
    project = bench.theirs("project", HDF5CellExtraction)
    assert project.h5sc.n_obs
    with pytest.raises(ValueError, match="already exists"):
        project.extract()
    project.extract(overwrite=True)
    with h5py.File(project.extraction_f.output_path) as file:
        assert "uns/cellstamp" in file


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({}, id="defaults"),
        pytest.param({"normalize_output": False}, id="not normalised"),
        pytest.param({"normalization_range": [0.05, 0.9]}, id="other range"),
        pytest.param({"compression": "gzip"}, id="gzip"),
        pytest.param({"threads": 1, "max_batch_size": 3}, id="one thread"),
    ],
)
def test_same_as_their_step(bench: Bench, keys: dict[str, Any]) -> None:
    """The same cells and bitwise equal images as with scportrait's step on the same project."""
    project = bench.loaded("project", TheirExtraction, **keys)
    project.extract(output_folder_name="theirs")
    theirs = project.extraction_f.output_path
    project = bench.theirs("project", HDF5CellExtraction, **keys)
    project.extract(output_folder_name="ours")
    same_extraction(project.extraction_f.output_path, theirs)


@pytest.mark.parametrize("mask", ["nucleus", "cytosol"])
def test_one_mask(bench: Bench, mask: str) -> None:
    """The same with one mask only."""
    project = bench.theirs("project", TheirExtraction, overwrite=True)
    project.load_input_from_sdata(str(bench.sample()), "image", **{f"{mask}_segmentation_name": mask}, keep_all=False)
    project.extract(output_folder_name="theirs")
    theirs = project.extraction_f.output_path
    project = bench.theirs("project", HDF5CellExtraction)
    project.extract(output_folder_name="ours")
    same_extraction(project.extraction_f.output_path, theirs)


@pytest.mark.skipif(not DATA.is_dir(), reason="the real images are missing")
@pytest.mark.parametrize("name", REAL)
def test_real_images(bench: Bench, name: str) -> None:
    """The same on real images."""
    found = {mask: DATA / name / f"labels_{mask}.tif" for mask in ("nucleus", "cytosol")}
    masks = {mask: tifffile.imread(path) for mask, path in found.items() if path.exists()}
    image = tifffile.imread(DATA / name / "image.tif")
    store = write_store(bench.folder / "real.zarr", image, masks, image_name="image", chunks=500, multiscale=True)
    project = bench.theirs("project", TheirExtraction, overwrite=True, image_size=64)
    project.load_input_from_sdata(str(store), "image", **{f"{mask}_segmentation_name": mask for mask in masks})
    project.extract(output_folder_name="theirs")
    theirs = project.extraction_f.output_path
    project = bench.theirs("project", HDF5CellExtraction, image_size=64)
    project.extract(output_folder_name="ours")
    same_extraction(project.extraction_f.output_path, theirs)


def test_documented_but_absent_parameter(bench: Bench) -> None:
    """input_segmentation_path, documented but not in the signature: refused by both steps."""
    for step in (TheirExtraction, HDF5CellExtraction):
        project = bench.theirs("project", step)
        with pytest.raises(TypeError, match="unexpected keyword argument 'input_segmentation_path'"):
            project.extraction_f(input_segmentation_path="segmentation.h5")
