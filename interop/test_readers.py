"""scportrait's readers of single-cell images, with files written by cellstamp."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from scportrait import plotting
from scportrait.io import read_h5sc, write_h5sc
from scportrait.pipeline.project import Project
from scportrait.tools import h5sc as tools
from scportrait.tools.ml import datasets
from torch.utils.data import DataLoader

import cellstamp
from cellstamp.features.declared import AREA_RATIO, INTENSITIES, NONE, SHAPES, TEXTURES
from interop.bench import IMAGE_SIZE, Bench

Extracted = dict[str, Project]


@pytest.fixture
def path(extracted: Extracted) -> str:
    return extracted["ours"].extraction_f.output_path


@pytest.fixture
def cells(path: str) -> anndata.AnnData:
    return read_h5sc(path)


def test_read_h5sc(path: str, extracted: Extracted) -> None:
    """scportrait.io.read_h5sc and cellstamp.read_h5sc: equal content for files of both packages."""
    theirs = extracted["theirs"].extraction_f.output_path
    for read in (read_h5sc, cellstamp.read_h5sc):
        got, expected = read(path), read(theirs)
        pd.testing.assert_frame_equal(got.obs[expected.obs.columns], expected.obs)
        pd.testing.assert_frame_equal(got.var[expected.var.columns], expected.var)
        assert np.array_equal(got.obsm["single_cell_images"][:], expected.obsm["single_cell_images"][:])
        settings, wanted = (data.uns["single_cell_images"] for data in (got, expected))
        assert wanted.keys() <= settings.keys()
        assert all(np.array_equal(settings[key], wanted[key]) for key in wanted if key != "compression")


def test_anndata(path: str, cells: anndata.AnnData) -> None:
    """anndata.read_h5ad, with the anndata that scportrait requires."""
    whole = anndata.read_h5ad(path)
    assert np.array_equal(whole.obsm["single_cell_images"], cells.obsm["single_cell_images"][:])
    assert whole.obsm["spatial"].shape == (whole.n_obs, 2)


def test_write_h5sc(cells: anndata.AnnData, tmp_path: Path) -> None:
    """scportrait.io.write_h5sc: a copy that both packages read."""
    # load images into memory: write_h5sc can't copy images on disk, also those of scportrait's files
    cells.obsm["single_cell_images"] = cells.obsm["single_cell_images"][:]
    write_h5sc(cells, tmp_path / "copy.h5sc")
    for read in (read_h5sc, cellstamp.read_h5sc):
        copy = read(tmp_path / "copy.h5sc")
        assert np.array_equal(copy.obsm["single_cell_images"][:], cells.obsm["single_cell_images"][:])


def test_tools(cells: anndata.AnnData) -> None:
    """scportrait.tools.h5sc: images by cell id."""
    ids = cells.obs["scportrait_cell_id"].tolist()[3:6]
    got = tools.get_image_with_cellid(cells, ids)
    assert np.array_equal(got, cells.obsm["single_cell_images"][3:6])


def test_row_names_are_row_numbers(path: str, cells: anndata.AnnData) -> None:
    """scportrait.tools.h5sc uses the names of rows as row numbers: names such as cell ids would give other images."""
    ids, images = cells.obs["scportrait_cell_id"].tolist(), cells.obsm["single_cell_images"][:]
    assert np.array_equal(tools.get_image_with_cellid(cellstamp.read_h5sc(path), ids[3:6]), images[3:6])
    cells.obs_names = cells.obs_names[::-1].tolist()
    assert np.array_equal(tools.get_image_with_cellid(cells, ids[3:5]), images[::-1][3:5])


def _images(figure: Figure) -> int:
    """Draw a figure, and return its number of images."""
    figure.canvas.draw()
    axes = [inner for outer in figure.axes for inner in (outer, *outer.child_axes)]
    return sum(len(each.images) for each in axes)


@pytest.mark.parametrize(
    ("plot", "options"),
    [
        (plotting.cell_grid, {}),
        (plotting.cell_grid, {"select_channel": "ch1", "n_cells": 4}),
        (plotting.cell_grid_single_channel, {"select_channel": "ch0", "mask_id": 0, "show_cell_id": True}),
        (plotting.cell_grid_multi_channel, {"select_channels": ["ch0", "ch2"], "n_cells": 3}),
    ],
    ids=["cell_grid", "cell_grid of a channel", "cell_grid_single_channel", "cell_grid_multi_channel"],
)
def test_plots(cells: anndata.AnnData, plot: Any, options: dict[str, Any]) -> None:
    """scportrait.plotting: draws our cells."""
    assert _images(plot(cells, **options, return_fig=True, show_fig=False))


def test_project_plot(extracted: Extracted) -> None:
    """Project.plot_single_cell_images: cells by their ids."""
    ids = extracted["ours"].h5sc.obs["scportrait_cell_id"].tolist()[:2]
    assert _images(extracted["ours"].plot_single_cell_images(cell_ids=ids, return_fig=True))


@pytest.mark.parametrize("given", ["the file", "its folder"])
def test_dataset(path: str, cells: anndata.AnnData, given: str) -> None:
    """scportrait.tools.ml.datasets.H5ScSingleCellDataset, in a torch DataLoader."""
    place = path if given == "the file" else str(Path(path).parent)
    dataset = datasets.H5ScSingleCellDataset([place], dir_labels=[5], return_id=True)
    assert len(dataset) == cells.n_obs
    batches = list(DataLoader(dataset, batch_size=4))
    images, labels, ids = (torch.cat([batch[part] for batch in batches]) for part in range(3))
    assert images.shape == (cells.n_obs, 5, IMAGE_SIZE, IMAGE_SIZE)
    assert np.array_equal(images.numpy().astype(np.float16), cells.obsm["single_cell_images"][:])
    assert set(labels.tolist()) == {5}
    assert ids.tolist() == cells.obs["scportrait_cell_id"].tolist()


def test_channels_of_dataset(path: str, cells: anndata.AnnData) -> None:
    """H5ScSingleCellDataset(select_channel=...), of two files."""
    dataset = datasets.H5ScSingleCellDataset([path, path], dir_labels=[0, 1], select_channel=[2, 4])
    assert len(dataset) == 2 * cells.n_obs
    assert np.array_equal(dataset[1][0].numpy().astype(np.float16), cells.obsm["single_cell_images"][1, [2, 4]])


def test_our_dataset(extracted: Extracted) -> None:
    """cellstamp.SingleCellDataset reads our files and scportrait's as scportrait's dataset does."""
    for project in extracted.values():
        path = project.extraction_f.output_path
        theirs = datasets.H5ScSingleCellDataset([path], dir_labels=[5], return_id=True)
        got, expected = (DataLoader(each, 7) for each in (cellstamp.SingleCellDataset(path, labels=[5]), theirs))
        for batch, wanted in zip(got, expected, strict=True):
            assert all(torch.equal(one, other.to(one.dtype)) for one, other in zip(batch, wanted, strict=True))


def test_labelled_dataset(path: str, cells: anndata.AnnData) -> None:
    """LabelledH5ScSingleCellDataset: a column of obs as the label."""
    dataset = datasets.LabelledH5ScSingleCellDataset([path], label_colum="scportrait_cell_id")
    assert [int(dataset[index][1]) for index in range(3)] == cells.obs["scportrait_cell_id"].tolist()[:3]


def _features(project: Project) -> dict[str, anndata.AnnData]:
    return {name: table for name, table in project.sdata.tables.items() if name.startswith("all_")}


def _same_features(ours: Project, theirs: Project) -> None:
    got, expected = _features(ours), _features(theirs)
    assert got.keys() == expected.keys() == {"all_nucleus", "all_cytosol"}
    for name, table in expected.items():
        assert got[name].n_obs == ours.h5sc.n_obs
        assert got[name].var_names.tolist() == table.var_names.tolist()
        pd.testing.assert_frame_equal(got[name].obs, table.obs)
        assert np.array_equal(got[name].X, table.X)


def test_featurizer(extracted: Extracted) -> None:
    """Project.featurize with CellFeaturizer: equal features for files of both packages."""
    for project in extracted.values():
        project.featurize(overwrite=True)
    _same_features(extracted["ours"], extracted["theirs"])


def test_declared_names_of_featurizer(extracted: Extracted) -> None:
    """The names in CellFeaturizer that docs/features.md lists, and values as the page describes them."""
    project = extracted["ours"]
    project.featurize(overwrite=True)
    table = _features(project)["all_nucleus"].to_df()
    declared = (each.cellfeaturizer.strip("`") for each in (*SHAPES, AREA_RATIO, *INTENSITIES, *TEXTURES))
    names = [name for name in declared if name != NONE]
    # columns without a counterpart: the mean under a second name, and an area
    names.append("CHANNEL_summed_intensity_area_normalized_MASK")
    channels, masks = ("ch0", "ch1", "ch2"), ("nucleus", "cytosol", "cytosol_only")
    expected = {
        name.replace("CHANNEL", channel).replace("MASK", mask)
        for name, channel, mask in itertools.product(names, channels, masks)
    }
    assert set(table.columns) == expected
    mean = table["ch0_mean_nucleus"]
    np.testing.assert_allclose(table["ch0_summed_intensity_area_normalized_nucleus"], mean, rtol=1e-6)
    images = project.h5sc.obsm["single_cell_images"][:].astype(np.float64)
    smoothed = images[:, 0] > 0
    assert np.array_equal(table["nucleus_area"], smoothed.sum(axis=(1, 2)))
    np.testing.assert_allclose(
        mean, [image[2][mask].mean() for image, mask in zip(images, smoothed, strict=True)], 1e-5
    )


def test_featurizer_of_partial(bench: Bench) -> None:
    """Project.featurize(data_type="partial"): works on our partial runs."""
    project = bench.loaded("project", cellstamp.HDF5CellExtraction)
    project.extract()  # scportrait's project needs a full run before features of a partial run
    project.extract(partial=True, n_cells=5)
    project.featurize(n_cells=5, data_type="partial", partial_seed=42, overwrite=True)
    ids = project.h5sc.obs["scportrait_cell_id"].tolist()
    for table in _features(project).values():
        assert table.obs["scportrait_cell_id"].tolist() == ids


def test_made_from_is_readable(cells: anndata.AnnData) -> None:
    """Our settings in uns/cellstamp are readable."""
    assert json.loads(cells.uns["cellstamp"]["made_from"])["image_size"] == IMAGE_SIZE
