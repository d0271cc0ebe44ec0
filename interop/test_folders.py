"""Project folders made by one package and opened by the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

import cellstamp
from interop.bench import Bench, TheirExtraction
from interop.test_drop_in import same_extraction

WHOLE = {
    "input_image": True,
    "nucleus_segmentation": True,
    "cytosol_segmentation": True,
    "nucleus_centers": True,
    "cytosol_centers": True,
}


def test_theirs_opens_here(bench: Bench) -> None:
    """scportrait's folder, loaded from SpatialData, opens with cellstamp.Project: status, extract(), h5sc."""
    theirs = bench.loaded("project", TheirExtraction)
    project = bench.ours("project")
    assert project.get_project_status().items() >= {**WHOLE, "extraction": False}.items()
    assert np.array_equal(project.input_image, bench.image)
    theirs.extract(output_folder_name="theirs")
    assert project.get_project_status()["extraction"]
    assert project.h5sc.n_obs == theirs.h5sc.n_obs
    project.extract()
    same_extraction(project.extraction_f.output_path, theirs.extraction_f.output_path)
    # also without arguments, with the configuration that scportrait wrote to the folder
    assert cellstamp.Project(bench.folder / "project").h5sc.n_obs == theirs.h5sc.n_obs


@pytest.mark.parametrize("source", ["array", "tif files"])
def test_masks_loaded_here(bench: Bench, source: str) -> None:
    """scportrait loads the image, cellstamp the masks, scportrait's step extracts."""
    names = ["a", "b", "c"]
    theirs = bench.theirs("project", TheirExtraction, overwrite=True)
    image = bench.image
    if source == "array":
        theirs.load_input_from_array(image, channel_names=names)
    else:
        paths = [str(bench.folder / f"{name}.tif") for name in names]
        for path, channel in zip(paths, image, strict=True):
            tifffile.imwrite(path, channel)
        theirs.load_input_from_tif_files(paths, channel_names=names, cache=str(bench.folder / "cache"))
    project = bench.ours("project")
    # scportrait drops the last row and the last column of TIFF files
    height, width = project.input_image.shape[1:]
    project.load_segmentation(nucleus=bench.nucleus[:height, :width], cytosol=bench.cytosol[:height, :width])
    project.extract(output_folder_name="ours")
    theirs = bench.theirs("project", TheirExtraction)
    theirs.extract(output_folder_name="theirs")
    same_extraction(project.extraction_f.output_path, theirs.extraction_f.output_path)


def _load(bench: Bench, source: str) -> cellstamp.Project:
    project = bench.ours("project")
    names = ["dna", "membrane", "third"]
    if source == "SpatialData":
        project.load_input_from_sdata(bench.sample(), "image", "nucleus", "cytosol")
        return project
    if source == "array":
        project.load_input_from_array(bench.image, channel_names=names)
    elif source == "tif files":
        paths = [Path(bench.folder / f"{index}.tif") for index in range(3)]
        for path, channel in zip(paths, bench.image, strict=True):
            tifffile.imwrite(path, channel)
        project.load_input_from_tif_files(paths, channel_names=names)
    project.load_segmentation(nucleus=bench.nucleus, cytosol=bench.cytosol)
    return project


@pytest.mark.parametrize("source", ["array", "tif files", "SpatialData"])
def test_ours_opens_there(bench: Bench, source: str) -> None:
    """cellstamp's folder opens with scportrait's Project: sdata, h5sc, extraction with both steps."""
    project = _load(bench, source)
    project.extract()
    theirs = bench.theirs("project", TheirExtraction)
    assert theirs.h5sc.n_obs == project.h5sc.n_obs
    assert {"input_image", "seg_all_nucleus", "seg_all_cytosol"} <= {name for _, name, _ in theirs.sdata.gen_elements()}
    theirs.extract(output_folder_name="theirs")
    assert len(theirs.h5sc.obs) == project.h5sc.n_obs
    drop_in = bench.theirs("project", cellstamp.HDF5CellExtraction)
    drop_in.extract(output_folder_name="drop_in")
    same_extraction(drop_in.extraction_f.output_path, project.extraction_f.output_path)
    same_extraction(project.extraction_f.output_path, theirs.extraction_f.output_path)
