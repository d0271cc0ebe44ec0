"""A project from its folder to its result: what it keeps, what each loader takes and refuses."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import tifffile
import xarray as xr
import yaml
import zarr

from cellstamp.errors import ConfigError, InputError, OutputError
from cellstamp.pipeline.base import ProcessingStep
from cellstamp.pipeline.extraction import HDF5CellExtraction
from cellstamp.pipeline.project import Project
from cellstamp.source.library_messages import quiet
from cellstamp.source.load.store import open_sdata, store_centers
from cellstamp.source.points import load_centers
from cellstamp.source.values import Centers

IMAGE = np.random.default_rng(0).integers(0, 2**16, (3, 60, 80)).astype(np.uint16)


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    return {"HDF5CellExtraction": {"threads": 1, "image_size": 40, "cache": str(tmp_path / "cache"), "progress": False}}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


@pytest.fixture
def loaded(tmp_path: Path, config: dict, make_cells) -> Project:
    image, nucleus, cytosol = make_cells()
    made = Project(tmp_path / "project", config)
    made.load_input_from_array(image)
    made.load_segmentation(nucleus, cytosol)
    return made


def pixels(project: Project) -> np.ndarray:
    return project.input_image.to_numpy()


def log_of(project: Project) -> str:
    return (Path(project.directory) / "processing.log").read_text()


class TestFolder:
    def test_the_signature_is_scportraits(self) -> None:
        names = ["project_location", "config_path", "segmentation_f", "extraction_f", "overwrite", "debug"]
        assert list(inspect.signature(Project).parameters) == names

    def test_a_dict_is_kept_as_config(self, tmp_path: Path, config: dict) -> None:
        before = json.dumps(config)
        Project(tmp_path / "project", config)
        assert yaml.safe_load((tmp_path / "project" / "config.yml").read_text()) == config
        assert json.dumps(config) == before

    def test_a_file_is_copied_and_found_again(self, tmp_path: Path, config: dict) -> None:
        path = tmp_path / "mine.yml"
        path.write_text("# why these values\n" + yaml.safe_dump(config))
        Project(tmp_path / "project", str(path))
        again = Project(tmp_path / "project")
        assert (tmp_path / "project" / "config.yml").read_text() == path.read_text()
        assert again.config == config
        assert isinstance(again.extraction_f, HDF5CellExtraction)

    def test_its_own_file_can_be_named(self, tmp_path: Path, config: dict) -> None:
        Project(tmp_path / "project", config)
        again = Project(tmp_path / "project", tmp_path / "project" / "config.yml")
        assert again.config == config

    def test_a_config_without_sections_is_the_extractions(self, tmp_path: Path, config: dict) -> None:
        flat = Project(tmp_path / "project", config["HDF5CellExtraction"])
        assert flat.extraction_f.config["image_size"] == 40

    @pytest.mark.parametrize(
        "value",
        [{"normalization_range": {"channel_0": [0.01, 0.99]}}, {"cells": {"table": "t", "column": "good"}}],
        ids=lambda value: next(iter(value)),
    )
    @pytest.mark.parametrize("others", [{}, {"CellFeaturizer": {"threads": 1}}], ids=["alone", "beside a section"])
    @pytest.mark.parametrize("given", [None, HDF5CellExtraction], ids=["default step", "given step"])
    def test_a_mapping_under_a_key_is_no_section(
        self, tmp_path: Path, config: dict, value: dict, others: dict, given: Any
    ) -> None:
        flat = {**config["HDF5CellExtraction"], **value, **others}
        made = Project(tmp_path / "project", flat, extraction_f=given)
        assert made.extraction_f.config == flat
        assert Project(tmp_path / "project").extraction_f.config == flat

    def test_a_step_of_ones_own_may_have_mappings_in_its_keys(self, tmp_path: Path) -> None:
        class Mine(ProcessingStep):
            pass

        flat = {"cache": str(tmp_path), "model": {"diameter": 30}}
        assert Project(tmp_path / "project", flat, extraction_f=Mine).extraction_f.config == flat

    def test_sections_of_others_make_no_extraction_step(self, tmp_path: Path) -> None:
        other = {"cache": str(tmp_path), "CellFeaturizer": {"threads": 1}}
        assert Project(tmp_path / "project", other).extraction_f is None

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"config file '.*none.yml': there is no such file"):
            Project(tmp_path / "project", tmp_path / "none.yml")

    def test_a_missing_section_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"config: no section 'HDF5CellExtraction' .*\(it has: Other\)"):
            Project(tmp_path / "project", {"Other": {"a": 1}}, extraction_f=HDF5CellExtraction)

    @pytest.mark.parametrize("section", ["HDF5CellExtracton", "ThresholdSegmentaton"])
    def test_a_misspelt_section_is_an_error_and_nothing_is_written(self, tmp_path: Path, section: str) -> None:
        wanted = {"H": "HDF5CellExtraction", "T": "ThresholdSegmentation"}[section[0]]
        message = rf"config: no section '{wanted}', but '{section}'\. Rename it to '{wanted}'"
        with pytest.raises(ConfigError, match=message):
            Project(tmp_path / "project", {section: {"image_size": 40}, "CellFeaturizer": {"threads": 1}})
        assert not (tmp_path / "project").exists()

    def test_what_yaml_cannot_hold_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"config: cannot be kept as config.yml: it holds a object"):
            Project(tmp_path / "project", {"Other": {"a": object()}})

    def test_a_step_that_is_no_class_is_refused(self, tmp_path: Path, config: dict) -> None:
        with pytest.raises(ConfigError, match="a step must be given as a class"):
            Project(tmp_path / "project", config, extraction_f=print)

    def test_steps_are_told_what_they_need(self, tmp_path: Path, config: dict) -> None:
        made = Project(tmp_path / "project", config, extraction_f=HDF5CellExtraction, overwrite=True)
        step = made.extraction_f
        assert step.directory == str(tmp_path / "project" / "extraction")
        assert step.config == config["HDF5CellExtraction"]
        assert (step.project, step.project_location, step.from_project) == (made, made.directory, True)
        assert (step.overwrite, step.debug) == (True, False)
        assert step.filehandler.sdata_path == str(tmp_path / "project" / "scportrait.sdata")

    def test_a_reopened_project_appends_to_its_log(self, tmp_path: Path) -> None:
        Project(tmp_path / "project").log("first")
        Project(tmp_path / "project", overwrite=True).log("second")
        assert re.search(r"first\n.*second", (tmp_path / "project" / "processing.log").read_text())

    def test_overwrite_never_empties_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "project").mkdir()
        (tmp_path / "project" / "notes.txt").write_text("mine")
        Project(tmp_path / "project", overwrite=True).load_input_from_array(IMAGE)
        assert (tmp_path / "project" / "notes.txt").read_text() == "mine"

    def test_without_steps_the_errors_say_so(self, tmp_path: Path) -> None:
        project = Project(tmp_path / "project", {"OtherStep": {"a": 1}})
        with pytest.raises(ConfigError, match=r"no extraction step\. Add a section 'HDF5CellExtraction' to"):
            project.extract()
        with pytest.raises(ConfigError, match="no segmentation step"):
            project.segment()
        with pytest.raises(InputError, match="is new and empty: check its name, or load an image"):
            _ = project.h5sc
        with pytest.raises(InputError, match="there is no image 'input_image'"):
            _ = project.input_image
        with pytest.raises(InputError, match="there is no SpatialData store"):
            _ = project.sdata

    @pytest.mark.leaves_files
    def test_what_a_killed_load_left_is_gone_when_the_project_is_opened(self, tmp_path: Path, project: Project) -> None:
        project.load_input_from_array(IMAGE)
        code = f"""
import os, dask.array as da, numpy as np
from cellstamp import Project
die = lambda: os.kill(os.getpid(), 9)
array = da.map_blocks(die, chunks=((1,), (9,), (9,)), dtype=np.uint8, meta=np.empty(0, "u1"))
Project({project.directory!r}).load_input_from_dask(array, overwrite=True)
"""
        killed = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
        assert killed.returncode == -9
        folder = Path(project.directory)
        assert list(folder.glob(".*staging*"))
        np.testing.assert_array_equal(pixels(Project(folder)), IMAGE)
        assert not list(folder.glob(".*staging*"))


class TestArray:
    def test_a_new_project_loads_without_overwrite(self, project: Project) -> None:
        project.load_input_from_array(IMAGE, ["a", "b", 3])
        np.testing.assert_array_equal(pixels(project), IMAGE)
        assert project.input_image.coords["c"].to_numpy().tolist() == ["a", "b", "3"]
        assert "Input image loaded from an array: (3, 60, 80) (c, y, x) uint16, channels a, b, 3" in log_of(project)

    def test_names_by_default(self, project: Project) -> None:
        project.load_input_from_array(IMAGE)
        assert project.input_image.coords["c"].to_numpy().tolist() == ["channel_0", "channel_1", "channel_2"]

    def test_a_second_load_needs_overwrite(self, project: Project) -> None:
        project.load_input_from_array(IMAGE)
        with pytest.raises(OutputError, match=r"images/input_image already exists. Set overwrite=True"):
            project.load_input_from_array(IMAGE[:2])
        project.load_input_from_array(IMAGE[:2], overwrite=True)
        assert pixels(project).shape == (2, 60, 80)

    def test_overwrite_of_a_call_wins(self, tmp_path: Path) -> None:
        project = Project(tmp_path / "project", overwrite=True)
        project.load_input_from_array(IMAGE)
        with pytest.raises(OutputError, match="already exists"):
            project.load_input_from_array(IMAGE[:1], overwrite=False)
        project.load_input_from_array(IMAGE[:1])
        assert pixels(project).shape == (1, 60, 80)

    def test_remap(self, project: Project) -> None:
        project.load_input_from_array(IMAGE, ["a", "b", "c"], remap=[2, 0, 1])
        np.testing.assert_array_equal(pixels(project), IMAGE[[2, 0, 1]])
        assert project.input_image.coords["c"].to_numpy().tolist() == ["c", "a", "b"]

    def test_masks_of_another_size_stay_with_a_warning(self, loaded: Project) -> None:
        with pytest.warns(UserWarning, match=r"seg_all_(nucleus|cytosol) has another size than the new image"):
            loaded.load_input_from_array(IMAGE, overwrite=True)
        assert loaded.nuc_seg_status

    @pytest.mark.parametrize("n_channels", [1, 3, 16])
    def test_channels_last_are_recognised_with_a_note(self, project: Project, n_channels: int) -> None:
        image = np.random.default_rng(1).integers(0, 255, (64, 80, n_channels)).astype(np.uint8)
        names = [f"c{index}" for index in range(n_channels)]
        project.load_input_from_array(image, names, remap=list(range(n_channels))[::-1])
        np.testing.assert_array_equal(pixels(project), np.moveaxis(image, -1, 0)[::-1])
        assert project.input_image.coords["c"].to_numpy().tolist() == names[::-1]
        assert "an array (axes assumed to be y, x, c; if they are c, y, x, give axes='cyx'): (" in log_of(project)
        again = Project(project.directory)
        again.load_input_from_dask(da.from_array(image, chunks=(10, 80, 1)), names, overwrite=True)
        np.testing.assert_array_equal(pixels(project), np.moveaxis(image, -1, 0))
        assert "a dask array (axes assumed to be y, x, c; " in log_of(project)

    @pytest.mark.parametrize(
        "shape",
        [(3, 500, 3), (16, 16, 64), (3, 64, 64), (64, 80, 64), (64, 64, 64), (3, 500, 10)],
    )
    def test_other_shapes_are_channels_first(self, project: Project, shape: tuple[int, ...]) -> None:
        image = np.random.default_rng(1).integers(0, 255, shape).astype(np.uint8)
        project.load_input_from_array(image)
        np.testing.assert_array_equal(pixels(project), image)
        assert "assumed" not in log_of(project)

    @pytest.mark.parametrize(("axes", "shape"), [("cyx", (64, 80, 3)), ("yxc", (40, 50, 20)), ("yxc", (3, 500, 3))])
    def test_axes_of_the_call_win(self, project: Project, axes: str, shape: tuple[int, ...]) -> None:
        image = np.random.default_rng(1).integers(0, 255, shape).astype(np.uint8)
        project.load_input_from_array(image, axes=axes)
        np.testing.assert_array_equal(pixels(project), image if axes == "cyx" else np.moveaxis(image, -1, 0))
        assert "assumed" not in log_of(project)

    @pytest.mark.parametrize("shape", [(70, 64, 20), (64, 70, 20), (10, 500, 3), (5, 4, 4), (70, 20, 80)])
    def test_unclear_axes_are_an_error_with_both_ways_out(self, project: Project, shape: tuple[int, ...]) -> None:
        """The code in the message is executed."""
        array = np.random.default_rng(1).integers(0, 255, shape).astype(np.uint8)
        with pytest.raises(InputError, match=re.escape(f"image of shape {shape}: as (c, y, x), it has more")) as error:
            project.load_input_from_array(array)
        assert not Path(project.sdata_path).exists()
        line = re.search(r"load (np\.moveaxis\(.*?\))", str(error.value))[1]
        moved = eval(line, {"np": np, "array": array})
        assert moved.shape[0] == min(shape[1:])
        project.load_input_from_array(moved)
        np.testing.assert_array_equal(pixels(project), moved)
        axes = re.search(r"give (axes='cyx')", str(error.value))[1]
        eval(f"load(array, overwrite=True, {axes})", {"load": project.load_input_from_array, "array": array})
        np.testing.assert_array_equal(pixels(project), array)

    def test_named_dimensions_are_not_guessed(self, project: Project) -> None:
        image = xr.DataArray(np.zeros((64, 80, 3), np.uint8), dims=("c", "y", "x"))
        project.load_input_from_array(image)
        assert pixels(project).shape == (64, 80, 3)

    def test_dask(self, project: Project) -> None:
        project.load_input_from_dask(da.from_array(IMAGE, chunks=(1, 7, 80)), channel_names=["a", "b", "c"])
        np.testing.assert_array_equal(pixels(project), IMAGE)

    def test_a_failing_dask_array_leaves_no_store(self, project: Project) -> None:
        def fail(block: np.ndarray) -> np.ndarray:
            raise RuntimeError("lost connection")

        array = da.from_array(IMAGE, chunks=(1, 30, 40)).map_blocks(fail, dtype=np.uint16, meta=IMAGE[:0])
        with pytest.raises(RuntimeError, match="lost connection"):
            project.load_input_from_dask(array)
        assert not Path(project.sdata_path).exists()
        assert not any(project.get_project_status().values())


class TestTiff:
    @pytest.fixture
    def files(self, tmp_path: Path) -> list[Path]:
        paths = [tmp_path / f"channel_{index}.tif" for index in range(3)]
        for path, plane in zip(paths, IMAGE, strict=True):
            tifffile.imwrite(path, plane)
        return paths

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    @pytest.mark.parametrize(
        "options",
        [{}, {"tile": (16, 16), "compression": "zlib"}, {"rowsperstrip": 7, "compression": "zlib"}, {"byteorder": ">"}],
    )
    def test_the_whole_image_in_its_dtype(self, tmp_path: Path, project: Project, dtype: type, options: dict) -> None:
        image = (IMAGE >> 8).astype(dtype)
        paths = [tmp_path / f"{index}.tif" for index in range(3)]
        for path, plane in zip(paths, image, strict=True):
            tifffile.imwrite(path, plane, **options)
        project.load_input_from_tif_files([str(path) for path in paths])
        assert pixels(project).dtype == dtype
        np.testing.assert_array_equal(pixels(project), image)

    def test_several_channels_in_a_file(self, tmp_path: Path, project: Project, files: list[Path]) -> None:
        tifffile.imwrite(tmp_path / "more.tif", IMAGE[:2], photometric="minisblack", metadata={"axes": "CYX"})
        project.load_input_from_tif_files([files[2], tmp_path / "more.tif"])
        np.testing.assert_array_equal(pixels(project), IMAGE[[2, 0, 1]])

    @pytest.mark.parametrize("crop", [[(10, 50), (5, 80)], [slice(10, 50), slice(5, None)]])
    def test_crop(self, project: Project, files: list[Path], crop: list) -> None:
        project.load_input_from_tif_files(files, ["a", "b", "c"], crop, remap=[1, 0, 2])
        np.testing.assert_array_equal(pixels(project), IMAGE[[1, 0, 2], 10:50, 5:80])

    @pytest.mark.parametrize(
        ("crop", "message"),
        [
            ([(0, 61), (0, 80)], "must lie inside the image of 60 x 80 pixels"),
            ([(10, 10), (0, 80)], "each start below its stop"),
            ([(-5, 10), (0, 80)], "must lie inside"),
            ([(0, 10)], r"must be \[\(y_start, y_stop\), \(x_start, x_stop\)\]"),
            ("all", r"crop = 'all': must be \["),
            ([slice(0, 50, 2), slice(0, 80)], r"must be .* in whole pixels"),
            ([(0.5, 50), (0, 80)], r"must be .* in whole pixels"),
            ([("a", "b"), (0, 80)], r"must be .* in whole pixels"),
        ],
    )
    def test_a_wrong_crop_is_refused(self, project: Project, files: list[Path], crop: Any, message: str) -> None:
        with pytest.raises(InputError, match=message):
            project.load_input_from_tif_files(files, crop=crop)

    def test_a_number_for_a_list_is_refused(self, project: Project, files: list[Path]) -> None:
        with pytest.raises(InputError, match=r"remap = \[1\]: must hold each of the channels"):
            project.load_input_from_tif_files(files, remap=1)
        with pytest.raises(InputError, match=r"channel_names = 3: must be a list of names"):
            project.load_input_from_tif_files(files, channel_names=3)

    def test_files_that_differ_are_named(self, tmp_path: Path, project: Project, files: list[Path]) -> None:
        tifffile.imwrite(files[1], IMAGE[1, :50])
        with pytest.raises(
            InputError, match=r"channel_1.tif: \(50, 80\) pixels .*, but .*channel_0.tif has \(60, 80\)"
        ):
            project.load_input_from_tif_files(files)
        tifffile.imwrite(files[1], IMAGE[1].astype(np.uint8))
        with pytest.raises(InputError, match=r"channel_1.tif: .* of uint8, but .* of uint16"):
            project.load_input_from_tif_files(files)

    @pytest.mark.parametrize("names", [["red", "green", "blue"], ["red", "green", "blue", "alpha"]])
    @pytest.mark.parametrize("planar", ["contig", "separate"])
    @pytest.mark.parametrize("options", [{}, {"tile": (16, 16), "compression": "zlib"}, {"byteorder": ">"}])
    def test_colours_are_channels(
        self, tmp_path: Path, project: Project, names: list[str], planar: str, options: dict
    ) -> None:
        colours = np.random.default_rng(1).integers(0, 2**16, (len(names), 60, 80)).astype(np.uint16)
        stored = colours if planar == "separate" else np.moveaxis(colours, 0, -1)
        extra = ["unassalpha"] if len(names) == 4 else None
        options = {"photometric": "rgb", "planarconfig": planar, "extrasamples": extra, **options}
        tifffile.imwrite(tmp_path / "colours.tif", stored, **options)
        project.load_input_from_tif_files([tmp_path / "colours.tif"], crop=[(3, 50), (7, 80)])
        np.testing.assert_array_equal(pixels(project), colours[:, 3:50, 7:])
        assert project.input_image.coords["c"].to_numpy().tolist() == names

    def test_colours_beside_other_channels(self, tmp_path: Path, project: Project, files: list[Path]) -> None:
        tifffile.imwrite(tmp_path / "colours.tif", np.moveaxis(IMAGE, 0, -1), photometric="rgb")
        project.load_input_from_tif_files([files[2], tmp_path / "colours.tif"], remap=[1, 0, 2, 3])
        np.testing.assert_array_equal(pixels(project), IMAGE[[0, 2, 1, 2]])
        assert project.input_image.coords["c"].to_numpy().tolist() == ["red", "channel_0", "green", "blue"]
        shutil.copy(tmp_path / "colours.tif", tmp_path / "more.tif")
        project.load_input_from_tif_files([tmp_path / "colours.tif", tmp_path / "more.tif"], overwrite=True)
        names = ["red", "green", "blue"]
        assert project.input_image.coords["c"].to_numpy().tolist() == [*names, *(f"{name}_2" for name in names)]

    def test_samples_that_are_no_colours_have_numbers(self, tmp_path: Path, project: Project) -> None:
        options = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unspecified"] * 2}
        tifffile.imwrite(tmp_path / "samples.tif", np.moveaxis(IMAGE, 0, -1), **options)
        project.load_input_from_tif_files([tmp_path / "samples.tif"])
        np.testing.assert_array_equal(pixels(project), IMAGE)
        assert project.input_image.coords["c"].to_numpy().tolist() == ["channel_0", "channel_1", "channel_2"]

    def test_what_is_no_tiff_is_named(self, tmp_path: Path, project: Project) -> None:
        (tmp_path / "notes.tif").write_text("no TIFF at all")
        with pytest.raises(InputError, match=r"notes.tif: cannot be read as TIFF"):
            project.load_input_from_tif_files([tmp_path / "notes.tif"])
        with pytest.raises(InputError, match=r"none.tif: there is no such file"):
            project.load_input_from_tif_files([tmp_path / "none.tif"])

    @pytest.mark.parametrize("paths", [[], [5], None])
    def test_paths_are_needed(self, project: Project, paths: Any) -> None:
        with pytest.raises(InputError, match=r"file_paths = .*: must be the path of an image file, or a list of paths"):
            project.load_input_from_tif_files(paths)

    @pytest.mark.parametrize("kind", [str, Path])
    def test_one_path_is_enough(self, project: Project, files: list[Path], kind: type) -> None:
        project.load_input_from_tif_files(kind(files[1]), ["actin"])
        np.testing.assert_array_equal(pixels(project), IMAGE[1:2])
        assert f"Input image loaded from {files[1]}: (1, 60, 80)" in log_of(project)


class TestOmeZarr:
    @pytest.mark.parametrize("zarr_format", [2, 3])
    def test_what_spatialdata_wrote_with_its_names(self, project: Project, project_store, zarr_format: int) -> None:
        store = project_store(channel_names=["dna", "er", "golgi"], zarr_format=zarr_format)
        project.load_input_from_omezarr(store / "images" / "input_image")
        assert project.input_image.coords["c"].to_numpy().tolist() == ["dna", "er", "golgi"]
        expected = zarr.open_array(str(store / "images" / "input_image" / "s0"), mode="r")[:]
        np.testing.assert_array_equal(pixels(project), expected)

    @pytest.mark.parametrize(("axes", "shape"), [("tczyx", (1, 3, 1, 60, 80)), ("cyx", (3, 60, 80))])
    def test_axes_of_one_pixel_are_left_out(self, tmp_path: Path, project: Project, axes: str, shape: tuple) -> None:
        self.write(tmp_path / "image.zarr", IMAGE.reshape(shape), axes)
        project.load_input_from_omezarr(str(tmp_path / "image.zarr"), channel_names=["a", "b", "c"], remap=[1, 0, 2])
        np.testing.assert_array_equal(pixels(project), IMAGE[[1, 0, 2]])
        assert project.input_image.coords["c"].to_numpy().tolist() == ["b", "a", "c"]

    def test_a_plane_without_channel_axis(self, tmp_path: Path, project: Project) -> None:
        self.write(tmp_path / "image.zarr", IMAGE[0], "yx")
        project.load_input_from_omezarr(tmp_path / "image.zarr")
        np.testing.assert_array_equal(pixels(project), IMAGE[:1])

    @pytest.mark.parametrize(("axes", "order"), [("yxc", (1, 2, 0)), ("xyc", (2, 1, 0)), ("cxy", (0, 2, 1))])
    def test_axes_in_any_order(self, tmp_path: Path, project: Project, axes: str, order: tuple) -> None:
        self.write(tmp_path / "image.zarr", IMAGE.transpose(order), axes)
        project.load_input_from_omezarr(tmp_path / "image.zarr")
        np.testing.assert_array_equal(pixels(project), IMAGE)

    @pytest.mark.parametrize("path", [None, 5])
    def test_a_path_is_needed(self, project: Project, path: Any) -> None:
        with pytest.raises(InputError, match=rf"ome_zarr_path = {path}: must be the path of a folder \(got"):
            project.load_input_from_omezarr(path)

    @pytest.mark.parametrize("depth", [1, 3, 5])
    @pytest.mark.parametrize("axes", ["tczyx", "tzcyx", "ctzyx"])
    def test_planes_of_a_stack_are_chosen(self, tmp_path: Path, project: Project, axes: str, depth: int) -> None:
        stack = np.random.default_rng(1).integers(0, 2**16, (2, 3, 5, 60, 80)).astype(np.uint16)  # t, c, z, y, x
        arranged = np.moveaxis(stack, [0, 1, 2], [axes.index(axis) for axis in "tcz"])
        chunks = {"z": depth, "y": 32, "x": 32}
        self.write(tmp_path / "image.zarr", arranged, axes, [chunks.get(axis, 1) for axis in axes])
        for z, expected in (
            (4, stack[1, :, 4]),
            ("max", stack[1].max(1)),
            ([4, 0], stack[1][:, [4, 0]].reshape(-1, 60, 80)),
        ):
            project.load_input_from_omezarr(tmp_path / "image.zarr", z=z, t=1, overwrite=True)
            np.testing.assert_array_equal(pixels(project), expected)
        names = [f"channel_{channel}_z{z}" for channel in range(3) for z in (4, 0)]
        assert project.input_image.coords["c"].to_numpy().tolist() == names

    def test_a_stack_without_a_choice_is_refused(self, tmp_path: Path, project: Project) -> None:
        self.write(tmp_path / "image.zarr", IMAGE, "zyx")
        message = (
            r"image.zarr: its axes are z = 3, y = 60, x = 80. Choose the planes: z=0 to z=2, a list of them, or z='max'"
        )
        with pytest.raises(InputError, match=message):
            project.load_input_from_omezarr(tmp_path / "image.zarr")

    def test_what_is_no_image_is_named(self, tmp_path: Path, project: Project, project_store) -> None:
        with pytest.raises(InputError, match=r"none.zarr: there is no such folder"):
            project.load_input_from_omezarr(tmp_path / "none.zarr")
        with pytest.raises(InputError, match="names no array of an image"):
            project.load_input_from_omezarr(project_store())
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match="not a zarr group"):
            project.load_input_from_omezarr(tmp_path / "empty")

    @staticmethod
    def write(path: Path, image: np.ndarray, axes: str, chunks: list[int] | None = None) -> None:
        """As the OME-Zarr 0.4 specification has it, without spatialdata."""
        group = zarr.open_group(str(path), mode="w", zarr_format=2)
        group.create_array("0", data=image, chunks=tuple(chunks or [*[1] * (image.ndim - 2), 32, 32]))
        datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0] * image.ndim}]}]
        group.attrs["multiscales"] = [{"version": "0.4", "axes": [{"name": a} for a in axes], "datasets": datasets}]


class TestSpatialData:
    NAMES = ("image", "nucleus", "cytosol")

    def test_an_object_read_from_a_store(self, project: Project, sample_store, make_cells) -> None:
        image, nucleus, _ = make_cells()
        project.load_input_from_sdata(open_sdata(sample_store()), *self.NAMES)
        np.testing.assert_array_equal(pixels(project), image)
        np.testing.assert_array_equal(project.sdata.labels["seg_all_nucleus"].to_numpy(), nucleus)

    def test_an_object_that_is_not_as_on_disk(self, project: Project, sample_store) -> None:
        sdata = open_sdata(sample_store())
        sdata["image"] = (sdata["image"] + 1).assign_attrs(sdata["image"].attrs)
        with pytest.raises(InputError, match=r"images/image of this SpatialData object differs from its store"):
            project.load_input_from_sdata(sdata, *self.NAMES)
        sdata.path = None
        with pytest.raises(InputError, match=r"sdata_path: this SpatialData object is in memory only; write it first"):
            project.load_input_from_sdata(sdata, *self.NAMES)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (None, r"sdata_path = None: must be the path of a store, or a SpatialData object \(got NoneType\)"),
            ("http://127.0.0.1/s.zarr", r"'http://127.0.0.1/s.zarr': is a URL; .* copy the store first"),
        ],
    )
    def test_what_is_no_store_is_named(self, project: Project, given: Any, message: str) -> None:
        with pytest.raises(InputError, match=message):
            project.load_input_from_sdata(given, *self.NAMES)

    @pytest.mark.parametrize("zarr_format", [2, 3])
    @pytest.mark.parametrize("options", [{}, {"multiscale": True}, {"chunks": 50, "label_chunks": 200}])
    def test_image_masks_and_centres(
        self, project: Project, sample_store, make_cells, options: dict, zarr_format: int
    ) -> None:
        """Blocks of 50 pixels are too small to be copied as they are."""
        image, nucleus, cytosol = make_cells()
        project.load_input_from_sdata(sample_store(zarr_format=zarr_format, **options), *self.NAMES)
        np.testing.assert_array_equal(pixels(project), image)
        assert project.input_image.coords["c"].to_numpy().tolist() == ["ch0", "ch1", "ch2"]
        for name, mask in (("seg_all_nucleus", nucleus), ("seg_all_cytosol", cytosol)):
            element = project.sdata.labels[name]
            element = element["scale0"].image if hasattr(element, "children") else element
            np.testing.assert_array_equal(element.to_numpy(), mask)
            assert load_centers(project.sdata_path, name).ids.tolist() == list(range(3, 49, 3))
        assert project.get_project_status() == {
            "input_image": True,
            "nucleus_segmentation": True,
            "cytosol_segmentation": True,
            "nucleus_centers": True,
            "cytosol_centers": True,
            "extraction": False,
        }
        assert re.search(r"Mask seg_all_nucleus loaded: 16 cells\n.*Mask seg_all_cytosol loaded: 16", log_of(project))

    def test_fitting_elements_are_copied_to_the_byte(self, project: Project, sample_store) -> None:
        store = sample_store(multiscale=True, chunks=128)
        project.load_input_from_sdata(store, *self.NAMES)
        for ours, theirs in (("images/input_image", "images/image"), ("labels/seg_all_nucleus", "labels/nucleus")):
            for path in filter(Path.is_file, (store / theirs).glob("s*/**/*")):
                copied = Path(project.sdata_path) / ours / path.relative_to(store / theirs)
                assert copied.read_bytes() == path.read_bytes()

    def test_an_image_without_smaller_copies_is_given_them(self, project: Project, sample_store) -> None:
        """Without them scportrait cannot extract from the folder."""
        project.load_input_from_sdata(sample_store(), *self.NAMES)
        tree = project.sdata.images["input_image"]
        assert [tree[scale].image.shape[1] for scale in tree.children] == [200, 100, 25, 3]

    def test_coordinate_systems_are_kept(self, project: Project, sample_store) -> None:
        with quiet():
            from spatialdata.transformations import Scale, get_transformation, set_transformation

            store = sample_store(chunks=50, label_chunks=200)
            sdata = open_sdata(store)
            for name in self.NAMES:
                scale = Scale([0.5, 0.5], axes=("x", "y"))
                set_transformation(sdata[name], scale, "microns", write_to_sdata=sdata)
        project.load_input_from_sdata(store, *self.NAMES)
        for name in ("input_image", "seg_all_nucleus"):
            transformation = get_transformation(project.sdata[name], "microns")
            assert transformation.to_affine_matrix(("x", "y"), ("x", "y"))[0, 0] == 0.5

    @pytest.mark.parametrize("which", ["nucleus", "cytosol"])
    def test_one_mask(self, project: Project, sample_store, which: str) -> None:
        names = {f"{which}_segmentation_name": which}
        project.load_input_from_sdata(sample_store(), "image", **names)
        assert (project.nuc_seg_status, project.cyto_seg_status) == (which == "nucleus", which == "cytosol")

    def test_a_subset_of_ids_is_a_warning(self, project: Project, sample_store, make_cells) -> None:
        image, nucleus, cytosol = make_cells()
        nucleus[np.isin(nucleus, [3, 9])] = 0
        store = sample_store(cells=(image, nucleus, cytosol))
        message = r"seg_all_nucleus lacks 2 cells \(3, 9\) that seg_all_cytosol has: its cells are a subset"
        with pytest.warns(UserWarning, match=message):
            project.load_input_from_sdata(store, *self.NAMES)
        assert project.nuc_seg_status

    def test_masks_that_do_not_belong_together_are_refused(self, project: Project, sample_store, make_cells) -> None:
        image, nucleus, cytosol = make_cells()
        nucleus[nucleus == 3] = 0
        cytosol[cytosol == 9] = 0
        store = sample_store(cells=(image, nucleus, cytosol))
        message = r"do not belong together: 1 cell \(9\) only in seg_all_nucleus, 1 cell \(3\) only in seg_all_cytosol"
        with pytest.raises(InputError, match=message):
            project.load_input_from_sdata(store, *self.NAMES)
        assert not Path(project.sdata_path).exists()

    def test_masks_of_another_size_are_refused(self, project: Project, sample_store, make_cells) -> None:
        image, nucleus, cytosol = make_cells()
        store = sample_store(cells=(image, nucleus[:150], cytosol))
        with pytest.raises(InputError, match=r"nucleus mask is 150 x 200 pixels \(y, x\), the image 200 x 200"):
            project.load_input_from_sdata(store, *self.NAMES)

    def test_negative_ids_are_refused(self, project: Project, sample_store, make_cells) -> None:
        image, nucleus, _ = make_cells(dtype=np.int32)
        store = sample_store(cells=(image, -nucleus, None))
        with pytest.raises(InputError, match="negative value"):
            project.load_input_from_sdata(store, "image", "nucleus")
        assert not Path(project.sdata_path).exists()

    def test_missing_elements_are_named(self, tmp_path: Path, project: Project, sample_store) -> None:
        store = sample_store()
        with pytest.raises(InputError, match=r"no images element named 'img' \(there are: image\)"):
            project.load_input_from_sdata(store, "img", "nucleus")
        with pytest.raises(InputError, match=r"no labels element named 'cells' \(there are: cytosol, nucleus\)"):
            project.load_input_from_sdata(store, "image", "cells")
        with pytest.raises(InputError, match=r"none.zarr: there is no SpatialData store here"):
            project.load_input_from_sdata(tmp_path / "none.zarr", "image")

    def test_overwriting_replaces_image_and_masks_as_one_set(self, loaded: Project, sample_store) -> None:
        with pytest.raises(OutputError, match=r"images/input_image, labels/seg_all_nucleus, .* already exist\. Set"):
            loaded.load_input_from_sdata(sample_store(), "image", "nucleus")
        store = Path(loaded.project_location).with_name("sample.zarr")
        loaded.load_input_from_sdata(store, "image", "nucleus", overwrite=True, keep_all=False)
        assert loaded.nuc_seg_status
        assert not loaded.cyto_seg_status
        assert not loaded.get_project_status()["cytosol_centers"]
        assert sorted(loaded.sdata.labels) == ["seg_all_nucleus"]

    @pytest.mark.parametrize(
        ("options", "images", "labels"),
        [
            ({}, ["input_image"], ["seg_all_cytosol", "seg_all_nucleus"]),
            ({"keep_all": False}, ["input_image"], ["seg_all_cytosol", "seg_all_nucleus"]),
            (
                {"remove_duplicates": False},
                ["image", "input_image"],
                ["cytosol", "nucleus", "seg_all_cytosol", "seg_all_nucleus"],
            ),
        ],
    )
    def test_copies_under_the_old_names(
        self, project: Project, sample_store, options: dict, images: list, labels: list
    ) -> None:
        project.load_input_from_sdata(sample_store(), *self.NAMES, **options)
        assert (sorted(project.sdata.images), sorted(project.sdata.labels)) == (images, labels)

    def test_everything_else_comes_along_unless_it_bears_our_names(self, project: Project, sample_store) -> None:
        store = sample_store()
        store_centers(store, "seg_all_nucleus", Centers(np.array([1], np.uint64), np.zeros((1, 2))))
        store_centers(store, "mine", Centers(np.array([1], np.uint64), np.zeros((1, 2))))
        project.load_input_from_sdata(store, "image", "nucleus")
        assert sorted(project.sdata.points) == ["centers_mine", "centers_seg_all_nucleus"]
        assert sorted(project.sdata.labels) == ["cytosol", "seg_all_nucleus"]
        assert len(load_centers(project.sdata_path, "seg_all_nucleus")) == 16

    @pytest.mark.parametrize("zarr_format", [2, 3])
    @pytest.mark.parametrize(("column", "key"), [(None, "cell"), ("other", "other")])
    def test_tables_follow_their_mask(
        self, project: Project, sample_store, column: str | None, key: str, zarr_format: int
    ) -> None:
        store = sample_store(tables={"measured": self.table()}, zarr_format=zarr_format)
        project.load_input_from_sdata(store, *self.NAMES, cell_id_identifier=column)
        table = project.sdata.tables["measured"]
        assert table.uns["spatialdata_attrs"]["region"] in ("seg_all_nucleus", ["seg_all_nucleus"])
        assert table.uns["spatialdata_attrs"]["instance_key"] == key
        assert table.obs["region"].tolist() == ["seg_all_nucleus"] * 16

    def test_tables_stay_with_the_original_when_that_comes_along(self, project: Project, sample_store) -> None:
        store = sample_store(tables={"measured": self.table()})
        project.load_input_from_sdata(store, *self.NAMES, remove_duplicates=False)
        assert project.sdata.tables["measured"].obs["region"].tolist() == ["nucleus"] * 16

    @pytest.mark.parametrize(
        ("column", "message"),
        [
            ("id", r"table 'measured' has no column 'id' \(cell_id_identifier\); it has region, cell, other"),
            ("region", r"table 'measured', column 'region' .*: must have integer cell ids"),
        ],
    )
    def test_a_wrong_id_column_is_named(self, project: Project, sample_store, column: str, message: str) -> None:
        store = sample_store(tables={"measured": self.table()})
        with pytest.raises(InputError, match=message):
            project.load_input_from_sdata(store, *self.NAMES, cell_id_identifier=column)
        assert not Path(project.sdata_path).exists()

    @staticmethod
    def table() -> Any:
        with quiet():
            import anndata
            from spatialdata.models import TableModel

            ids = np.arange(3, 49, 3)
            obs = pd.DataFrame({"region": pd.Categorical(["nucleus"] * 16), "cell": ids, "other": ids + 1})
            obs.index = obs.index.astype(str)
            table = anndata.AnnData(np.ones((16, 2)), obs=obs)
            return TableModel.parse(table, region="nucleus", region_key="region", instance_key="cell")


class TestSegmentation:
    def test_from_tiff_files(self, tmp_path: Path, project: Project, make_cells) -> None:
        image, nucleus, cytosol = make_cells()
        tifffile.imwrite(tmp_path / "nucleus.tif", nucleus, tile=(32, 32), compression="zlib")
        project.load_input_from_array(image)
        project.load_segmentation(str(tmp_path / "nucleus.tif"), cytosol)
        np.testing.assert_array_equal(project.sdata.labels["seg_all_nucleus"].to_numpy(), nucleus)
        np.testing.assert_array_equal(project.sdata.labels["seg_all_cytosol"].to_numpy(), cytosol)

    def test_cells_is_another_name_of_cytosol(self, project: Project, make_cells) -> None:
        image, nucleus, cytosol = make_cells()
        project.load_input_from_array(image)
        with pytest.raises(InputError, match=r"cytosol and cells are the same mask, but both are given\. Give one"):
            project.load_segmentation(cytosol=cytosol, cells=cytosol)
        assert not project.cyto_seg_status
        project.load_segmentation(nucleus, cells=cytosol)
        np.testing.assert_array_equal(project.sdata.labels["seg_all_cytosol"].to_numpy(), cytosol)

    def test_the_second_mask_must_fit_the_first(self, project: Project, make_cells) -> None:
        image, nucleus, cytosol = make_cells()
        project.load_input_from_array(image)
        project.load_segmentation(nucleus=nucleus)
        with pytest.raises(InputError, match="seg_all_nucleus and seg_all_cytosol do not belong together"):
            project.load_segmentation(cytosol=np.where(cytosol > 0, cytosol + 1, 0))
        assert not project.cyto_seg_status
        project.load_segmentation(cytosol=cytosol)
        assert project.cyto_seg_status

    def test_a_mask_without_cells_is_told(self, project: Project, sample_store, make_cells) -> None:
        image, nucleus, _ = make_cells()
        project.load_input_from_array(image)
        with pytest.warns(
            UserWarning, match="seg_all_nucleus holds no cell: all of the mask is 0, which is background"
        ):
            project.load_segmentation(nucleus=np.zeros_like(nucleus))
        assert project.nuc_seg_status
        store = sample_store(cells=(image, np.zeros_like(nucleus), None))
        with pytest.warns(UserWarning, match="seg_all_nucleus holds no cell"):
            project.load_input_from_sdata(store, "image", "nucleus", overwrite=True)

    def test_new_masks_have_new_centres(self, loaded: Project, make_cells) -> None:
        _, nucleus, cytosol = make_cells()
        with pytest.raises(OutputError, match=r"labels/seg_all_nucleus, labels/seg_all_cytosol already exist\. Set"):
            loaded.load_segmentation(nucleus * 2, cytosol * 2)
        loaded.load_segmentation(nucleus * 2, cytosol * 2, overwrite=True)
        assert load_centers(loaded.sdata_path, "seg_all_nucleus").ids.tolist() == list(range(6, 97, 6))

    def test_without_masks_or_image_it_says_so(self, project: Project) -> None:
        with pytest.raises(InputError, match="no mask: give nucleus, cytosol, or both"):
            project.load_segmentation()
        with pytest.raises(InputError, match="load one before its masks"):
            project.load_segmentation(nucleus=np.ones((4, 4), int))

    def test_a_step_that_returns_masks(self, tmp_path: Path, make_cells) -> None:
        image, nucleus, _ = make_cells()

        class Threshold(ProcessingStep):
            def process(self, pixels: Any) -> dict[str, Any]:
                assert pixels.shape == image.shape
                return {"nucleus": nucleus}

        config = {"Threshold": {"cache": str(tmp_path)}}
        project = Project(tmp_path / "project", config, segmentation_f=Threshold)
        project.load_input_from_array(image)
        project.segment()
        assert project.nuc_seg_status
        assert project.segmentation_f.directory == str(tmp_path / "project" / "segmentation")

    @pytest.mark.parametrize(
        ("returned", "message"),
        [
            (
                np.ones((60, 80), np.uint16),
                r"Own.process returned ndarray: return a dict {'nucleus': ..., 'cytosol': .*}",
            ),
            ((np.ones((60, 80), int), None), "Own.process returned tuple: return a dict .*, or None if it has written"),
            (
                {"nuclei": 1},
                "a dict with the key 'nuclei': allowed are 'nucleus' and 'cytosol'; did you mean 'nucleus'?",
            ),
            ({"overwrite": True}, "a dict with the key 'overwrite': allowed are 'nucleus' and 'cytosol'$"),
            ({}, "Own.process returned a dict without a mask: return a dict"),
            ({"nucleus": None, "cytosol": None}, "Own.process returned a dict without a mask"),
        ],
    )
    def test_what_a_step_returns_is_not_dropped(self, tmp_path: Path, returned: Any, message: str) -> None:
        class Own(ProcessingStep):
            def process(self, _: Any) -> Any:
                return returned

        project = Project(tmp_path / "project", {"Own": {"cache": str(tmp_path)}}, segmentation_f=Own)
        project.load_input_from_array(IMAGE)
        with pytest.raises(ConfigError, match=message):
            project.segment()
        assert not project.nuc_seg_status


class TestExtraction:
    def test_from_load_to_result(self, loaded: Project) -> None:
        loaded.extract()
        assert loaded.extraction_f.output_path == loaded.project_location + "/extraction/data/single_cells.h5sc"
        assert loaded.h5sc.obs["scportrait_cell_id"].tolist() == list(range(3, 49, 3))
        assert loaded.h5sc.var["channels"].tolist()[:2] == ["seg_all_nucleus", "seg_all_cytosol"]
        assert loaded.get_project_status()["extraction"]

    def test_a_full_run_and_a_partial_one_both_stay(self, loaded: Project) -> None:
        loaded.overwrite = True
        loaded.extract()
        loaded.extract(partial=True, n_cells=4, seed=1)
        folders = {path.parent.name for path in Path(loaded.project_location, "extraction").glob("*/*.h5sc")}
        assert folders == {"data", "partial_data_ncells_4_seed_1"}
        assert loaded.h5sc.n_obs == 4

    def test_overwrite_holds_for_one_call(self, loaded: Project) -> None:
        loaded.extract()
        loaded.extract(overwrite=True)
        path = Path(loaded.extraction_f.output_path)
        written = path.stat().st_mtime_ns
        loaded.extract()
        assert path.stat().st_mtime_ns == written

    def test_a_reopened_project_knows_its_result(self, loaded: Project) -> None:
        loaded.extract(output_folder_name="mine")
        again = Project(loaded.project_location)
        assert again.h5sc.n_obs == 16
        assert again.get_project_status()["extraction"]

    def test_a_single_scale_image_with_integer_names(self, tmp_path: Path, config: dict, project_store) -> None:
        """A folder that another tool wrote, without pyramid and centres."""
        project_store(tmp_path / "project" / "scportrait.sdata", channel_names=[0, 1, 2])
        project = Project(tmp_path / "project", config)
        project.extract()
        assert project.h5sc.var["channels"].tolist()[2:] == ["0", "1", "2"]
        assert project.get_project_status()["nucleus_centers"]

    def test_names_are_not_shortened(self, tmp_path: Path, config: dict, make_cells) -> None:
        image, nucleus, _ = make_cells(channels=1)
        project = Project(tmp_path / "project", config)
        project.load_input_from_array(image, ["a name of more than fifteen letters"])
        project.load_segmentation(nucleus)
        project.extract()
        assert project.h5sc.var["channels"].tolist() == ["seg_all_nucleus", "a name of more than fifteen letters"]
