"""Whatever code, call or command a message prints, run in the case it is printed for. Resampling: see test_grid.py."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import skimage
import zarr

import cellstamp
from cellstamp import HDF5CellExtraction, Project, plot_cells, read_h5sc
from cellstamp.errors import ConfigError, InputError, OutputError
from cellstamp.source.load.store import open_sdata, store_centers
from cellstamp.source.points import load_centers
from cellstamp.source.values import Centers
from commands import run_command
from conftest import make_cells, write_store
from test_remote import Server

ROOT = Path(__file__).parents[1]
IMAGE, NUCLEI, CELLS = make_cells()
NUCLEUS = "seg_all_nucleus"


def keys(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {"threads": 1, "image_size": 40, "cache": str(tmp_path / "cache"), "progress": False, **more}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "project", keys(tmp_path))
    made.load_input_from_array(IMAGE)
    return made


@pytest.fixture
def extracted(project: Project) -> Project:
    project.load_segmentation(NUCLEI, CELLS)
    project.extract()
    return project


def run(code: str, **names: Any) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(code, names)
    return names


MASK_FIXES = {
    "transposed": (CELLS[:150].T, IMAGE[:, :150], CELLS[:150]),
    "half as large": (CELLS[::2, ::2], IMAGE, np.kron(CELLS[::2, ::2], np.ones((2, 2), CELLS.dtype))),
    "twice as large": (np.kron(CELLS, np.ones((2, 2), CELLS.dtype)), IMAGE, CELLS),
}


@pytest.mark.parametrize("name", MASK_FIXES)
def test_a_mask_of_another_size(tmp_path: Path, name: str) -> None:
    mask, image, expected = MASK_FIXES[name]
    project = Project(tmp_path / "p", keys(tmp_path))
    project.load_input_from_array(image)
    with pytest.raises(InputError, match=r"must have the same size.*: give `.*`") as caught:
        project.load_segmentation(cytosol=mask)
    assert ("It is transposed" in str(caught.value)) == (name == "transposed")
    (code,) = re.findall("`(.*?)`", str(caught.value))
    fixed = eval(code, {"mask": mask, "skimage": skimage})
    assert fixed.dtype == mask.dtype
    np.testing.assert_array_equal(fixed, expected)
    project.load_segmentation(cytosol=fixed)


def test_a_mask_of_another_region(project: Project) -> None:
    with pytest.raises(InputError, match=r"same size\. Crop image and mask to the same region") as caught:
        project.load_segmentation(cytosol=CELLS[:-1])
    assert "`" not in str(caught.value)


def refused(call: Callable[[], Any], *calls: str, kind: type[Exception] = InputError) -> None:
    """The call is refused, and the message prints these pieces of code."""
    with pytest.raises(kind, match=r"[\s\S]*".join(map(re.escape, calls))):
        call()


def extract(store: Path | str, tmp_path: Path, out: str = "out", **more: Any) -> int:
    step = HDF5CellExtraction(keys(tmp_path, **more), tmp_path / out, filehandler=store)
    step()
    return read_h5sc(step.output_path).n_obs


# --- input ------------------------------------------------------------------------------------------------------------


def test_a_boolean_mask_is_labelled(project: Project) -> None:
    pytest.importorskip("skimage")
    mask = CELLS > 0
    refused(lambda: project.load_segmentation(cytosol=mask), "skimage.measure.label")
    project.load_segmentation(cytosol=run("import skimage\nmask = skimage.measure.label(mask)", mask=mask)["mask"])
    project.extract()
    assert project.h5sc.n_obs == 16


def test_the_blocks_of_a_dask_array_are_sized(project: Project) -> None:
    image = da.from_array(IMAGE[0].astype(np.float32), chunks=50)
    unknown = image[image[:, 0] >= 0]
    project.overwrite = True
    refused(lambda: project.load_input_from_dask(unknown, ["a"]), "compute_chunk_sizes()")
    run("unknown.compute_chunk_sizes()", unknown=unknown)
    project.load_input_from_dask(unknown, ["a"])
    assert project.input_image.shape == (1, 200, 200)


def test_a_spatialdata_object_in_memory_is_written(tmp_path: Path, project: Project) -> None:
    sdata = open_sdata(write_store(tmp_path / "s.zarr", IMAGE, {NUCLEUS: NUCLEI}))
    project.overwrite = True
    sdata["added"] = (sdata[NUCLEUS] * 1).assign_attrs(sdata[NUCLEUS].attrs)
    given = "write it first (sdata.write_element) and give the path, or load it with load_input_from_array"
    refused(lambda: project.load_input_from_sdata(sdata, "input_image", "added"), given)
    run("sdata.write_element('added')", sdata=sdata)
    project.load_input_from_sdata(tmp_path / "s.zarr", "input_image", "added")
    project.load_input_from_array(np.asarray(sdata["input_image"]))
    project.load_segmentation(np.asarray(sdata["added"]))
    sdata.path = None
    refused(
        lambda: project.load_input_from_sdata(sdata, "input_image", NUCLEUS),
        "write it first (sdata.write), and give the path",
    )
    run("sdata.write(path)", sdata=sdata, path=tmp_path / "new.zarr")
    project.load_input_from_sdata(tmp_path / "new.zarr", "input_image", NUCLEUS)
    project.extract()
    assert project.h5sc.n_obs == 16


def test_what_else_is_in_a_store_of_the_other_format_is_left(tmp_path: Path, project: Project) -> None:
    store = write_store(tmp_path / "s.zarr", IMAGE, {NUCLEUS: NUCLEI, "other": CELLS}, zarr_format=2)
    project.overwrite = True
    refused(lambda: project.load_input_from_sdata(store, "input_image", NUCLEUS), "keep_all=False", "a new project")
    project.load_input_from_sdata(store, "input_image", NUCLEUS, keep_all=False)
    Project(tmp_path / "new", keys(tmp_path)).load_input_from_sdata(store, "input_image", NUCLEUS)


def test_centres_without_a_common_system_are_given_one(tmp_path: Path) -> None:
    import spatialdata
    from spatialdata.models import PointsModel
    from spatialdata.transformations import Identity

    store = write_store(tmp_path / "s.zarr", IMAGE, {NUCLEUS: NUCLEI})
    sdata = open_sdata(store)
    frame = pd.DataFrame({"x": [25.0, 75.0], "y": [25.0, 75.0]}, index=[1, 9])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata["middles"] = PointsModel.parse(frame, transformations={"elsewhere": Identity()})
        sdata.write_element("middles")
    setting = "spatialdata.transformations.set_transformation"
    refused(lambda: extract(store, tmp_path, centers="middles", border="pad"), f"Set one with {setting}")
    run(f"{setting}(points, way, 'global')", spatialdata=spatialdata, points=sdata["middles"], way=Identity())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata.write_transformations("middles")
        extract(store, tmp_path, centers="middles", border="pad")


def test_metadata_are_consolidated_for_a_server_that_lists_nothing(tmp_path: Path) -> None:
    store = write_store(tmp_path / "web/s.zarr", IMAGE, {NUCLEUS: NUCLEI})
    for path in store.glob("zarr.json"):
        path.write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    served = Server(tmp_path / "web")
    served.fail = lambda path: 404 if path.endswith("/") else None
    try:
        refused(lambda: extract(f"{served.url}/s.zarr", tmp_path), "zarr.consolidate_metadata")
        run("zarr.consolidate_metadata(store)", zarr=zarr, store=str(store))
        assert extract(f"{served.url}/s.zarr", tmp_path) == 16
    finally:
        served.close()


@pytest.mark.parametrize("of_table", [False, True])
def test_a_table_says_which_cells_its_rows_are_of(tmp_path: Path, *, of_table: bool) -> None:
    import anndata
    import spatialdata

    obs = pd.DataFrame({"good": True, "cell": np.unique(NUCLEI)[1:], "region": NUCLEUS})
    obs["region"] = obs["region"].astype("category")
    obs.index = obs.index.astype(str)
    table = anndata.AnnData(obs=obs)
    store = write_store(tmp_path / "s.zarr", IMAGE, {NUCLEUS: NUCLEI}, tables={"plain": table})
    cells = {"table": "plain", "column": "good"}
    refused(lambda: extract(store, tmp_path, cells=cells), "spatialdata.models.TableModel.parse", kind=ConfigError)
    code = "made = spatialdata.models.TableModel.parse(table, region=of, region_key='region', instance_key='cell')"
    sdata = open_sdata(store)
    sdata["made"] = run(code, spatialdata=spatialdata, table=table.copy(), of=NUCLEUS)["made"]
    if of_table:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sdata.write_element("made")
    assert extract(store if of_table else sdata, tmp_path, cells={"table": "made", "column": "good"}) == 16


def test_points_that_are_not_centres_are_deleted(tmp_path: Path) -> None:
    import shutil

    store = write_store(tmp_path / "s.zarr", IMAGE, {NUCLEUS: NUCLEI})
    store_centers(store, NUCLEUS, Centers(np.array([1], np.uint64), np.array([[999.0, 5.0]])))
    refused(lambda: extract(store, tmp_path), "delete the points, and they are computed")
    shutil.rmtree(store / "points" / f"centers_{NUCLEUS}")
    assert extract(store, tmp_path) == 16


def test_centres_are_stored_as_the_log_says(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s.zarr", IMAGE, {NUCLEUS: NUCLEI})
    extract(store, tmp_path)
    assert "unless store_centers is 'always'" in (tmp_path / "out/processing.log").read_text()
    extract(store, tmp_path, "again", store_centers="always")
    assert load_centers(store, NUCLEUS) is not None


# --- results ----------------------------------------------------------------------------------------------------------


def test_a_result_is_replaced_or_goes_elsewhere(extracted: Project) -> None:
    extracted.extraction_f.config["border"] = "pad"
    refused(extracted.extract, "Set overwrite=True", "output_folder_name", kind=OutputError)
    extracted.extract(overwrite=True)
    extracted.extract(output_folder_name="other")
    other = NUCLEI.copy()
    other[tuple(np.argwhere(NUCLEI)[0])] = 0
    refused(lambda: extracted.load_segmentation(other), "Set overwrite=True", kind=OutputError)
    extracted.load_segmentation(other, overwrite=True)


def test_a_preview_is_asked_for(extracted: Project) -> None:
    refused(lambda: extracted.extract(n_cells=3), "without partial=True", kind=ConfigError)
    extracted.extract(partial=True, n_cells=3)
    assert extracted.h5sc.n_obs in (3, 16)


def test_there_is_no_extraction_yet(project: Project) -> None:
    project.load_segmentation(NUCLEI)
    refused(lambda: project.h5sc, "call extract() first")
    run("project.extract()", project=project)
    assert project.h5sc.n_obs == 16


@pytest.mark.parametrize("code", ["path", "read_h5sc(path)", "project.h5sc"])
def test_pictures_of_what_a_message_names(extracted: Project, code: str) -> None:
    pytest.importorskip("matplotlib")
    refused(lambda: plot_cells(5), "read_h5sc(path) or project.h5sc")
    bare = read_h5sc(extracted.extraction_f.output_path, images=False)
    refused(lambda: plot_cells(bare.copy()[:, :0].copy()), "Read the file with read_h5sc(path)")
    scope = {"path": extracted.extraction_f.output_path, "read_h5sc": read_h5sc, "project": extracted}
    plot_cells(run(f"h5sc = {code}", **scope)["h5sc"], n=2)


def test_the_path_of_a_result_for_training(extracted: Project) -> None:
    pytest.importorskip("torch")
    refused(lambda: cellstamp.SingleCellDataset(5), "project.extraction_f.output_path")
    path = run("path = project.extraction_f.output_path", project=extracted)["path"]
    assert len(cellstamp.SingleCellDataset(path)) == 16


# --- commands ---------------------------------------------------------------------------------------------------------


def messages() -> str:
    """All source, in which messages are split between lines."""
    sources = sorted((ROOT / "src/cellstamp").rglob("*.py"))
    return re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text() for path in sources))


def test_every_extra_that_is_to_be_installed_is_one() -> None:
    named = set(re.findall(r"pip install 'cellstamp\[(\w+)\]'", messages()))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"torch", "dask", "plot", "demo", "segmentation"} <= named <= set(extras)


def test_every_command_of_ours_is_one() -> None:
    from cellstamp.cli import commands

    named = set(re.findall(r'cellstamp (\w+)(?: lists| made|")', messages()))
    assert {"validate", "extract", "demo"} <= named <= set(commands.commands)


@pytest.mark.parametrize("command", [["scheduler"], ["worker", "ADDRESS", "--nthreads", "1"]])
def test_every_command_of_dask_is_one(command: list[str]) -> None:
    pytest.importorskip("distributed")
    assert f"dask {command[0]}" in messages()
    line = [sys.executable, "-m", "dask", command[0], "--help"]
    told = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    assert all(option in told for option in command if option.startswith("--"))


def test_a_setting_of_the_command_line(extracted: Project) -> None:
    base = ["extract", extracted.project_location, "--overwrite", "--set"]
    assert "write KEY=VALUE, like threads=4" in run_command(*base, "threads").stderr
    assert run_command(*base, "threads=1").exit_code == 0
