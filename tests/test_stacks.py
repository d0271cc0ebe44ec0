"""Arrays with z, t and other axes: what is taken of them, and how little of them is in memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from spatialdata import SpatialData
from spatialdata.models import Image2DModel

from cellstamp.errors import InputError
from cellstamp.pipeline.project import Project
from cellstamp.source.load.pixels import Pixels, brightest
from cellstamp.source.load.plane_choice import chosen, plane_choice
from cellstamp.source.load.stacks import Stack

STACK = np.random.default_rng(0).integers(0, 2**16, (2, 5, 3, 60, 80)).astype(np.uint16)  # t, z, c, y, x


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project", overwrite=True)


def pixels(project: Project) -> np.ndarray:
    return project.input_image.to_numpy()


def names(project: Project) -> list[str]:
    return project.input_image.coords["c"].to_numpy().tolist()


def kinds_of_array(folder: Path) -> dict[str, Any]:
    stored = zarr.create_array(str(folder / "a.zarr"), shape=STACK.shape, chunks=(1, 2, 1, 32, 32), dtype=STACK.dtype)
    stored[:] = STACK
    return {"numpy": STACK, "dask": da.from_array(STACK, chunks=(1, 3, 2, 30, 80)), "zarr": stored}


class TestArrays:
    @pytest.mark.parametrize("kind", ["numpy", "dask", "zarr"])
    def test_axes_are_named(self, tmp_path: Path, project: Project, kind: str) -> None:
        array = kinds_of_array(tmp_path)[kind]
        load = project.load_input_from_dask if kind == "dask" else project.load_input_from_array
        load(array, axes="tzcyx", z="max", t=1)
        np.testing.assert_array_equal(pixels(project), STACK[1].max(0))
        load(array, axes="tzcyx", z=3, t=0)
        np.testing.assert_array_equal(pixels(project), STACK[0, 3])
        load(array, ["a", "b", "c", "d", "e", "f"], axes="tzcyx", z=[3, 1], t=0)
        np.testing.assert_array_equal(pixels(project), STACK[0, [3, 1]].swapaxes(0, 1).reshape(-1, 60, 80))
        assert names(project) == ["a", "b", "c", "d", "e", "f"]

    def test_named_dimensions_in_any_order(self, project: Project) -> None:
        array = xr.DataArray(STACK, dims=("T", "Z", "C", "Y", "X"), coords={"C": ["DAPI", "GFP", "RFP"]})
        project.load_input_from_array(array, z="max", t=0)
        np.testing.assert_array_equal(pixels(project), STACK[0].max(0))
        assert names(project) == ["DAPI", "GFP", "RFP"]
        project.load_input_from_array(array[0, 1].transpose("Y", "X", "C"))
        np.testing.assert_array_equal(pixels(project), STACK[0, 1])
        project.load_input_from_array(array[0].chunk(), z=[2])
        assert names(project) == ["DAPI_z2", "GFP_z2", "RFP_z2"]

    def test_named_dimensions_of_zarr(self, tmp_path: Path, project: Project) -> None:
        names = ["z", "c", "y", "x"]
        array = zarr.create_array(str(tmp_path / "a.zarr"), data=STACK[0], dimension_names=names)
        project.load_input_from_array(array, z=4)
        np.testing.assert_array_equal(pixels(project), STACK[0, 4])

    def test_the_advice_for_a_stack_works(self, project: Project) -> None:
        with pytest.raises(
            InputError, match=r"image of shape \(5, 3, 60, 80\): must have the axes \(c, y, x\)"
        ) as caught:
            project.load_input_from_array(STACK[0])
        code = re.search(r"axes='zcyx', z=0", str(caught.value))[0]
        eval(f"project.load_input_from_array(STACK[0], {code})", {"project": project, "STACK": STACK})
        np.testing.assert_array_equal(pixels(project), STACK[0, 0])

    def test_z_or_t_of_three_axes_needs_their_names(self, project: Project) -> None:
        for choice, axes in (({"z": "max"}, "zyx"), ({"z": 0}, "zyx"), ({"z": [0, 1]}, "zyx"), ({"t": 1}, "tyx")):
            with pytest.raises(InputError, match=rf"image of shape \(5, 60, 80\): .*axes='{axes}'$"):
                project.load_input_from_array(STACK[0, :, 0], **choice)
            project.load_input_from_array(STACK[0, :, 0], axes=axes, **choice)

    @pytest.mark.parametrize("axes", ["cyx", "zzyx", "zcyxx", "zcab", 5])
    def test_wrong_axes_are_refused(self, project: Project, axes: Any) -> None:
        with pytest.raises(InputError, match=r"axes = .*: must have one of the letters t, c, z, y, x for each axis of"):
            project.load_input_from_array(STACK[0], axes=axes)

    def test_a_missing_choice_lists_the_axes(self, project: Project) -> None:
        message = (
            r"image: its axes are t = 2, z = 5, c = 3, y = 60, x = 80. Choose the planes: z=0 to z=4, .*; t=0 to t=1"
        )
        with pytest.raises(InputError, match=message):
            project.load_input_from_array(STACK, axes="tzcyx")

    def test_masks(self, project: Project) -> None:
        project.load_input_from_array(STACK[0, 0])
        masks = np.zeros((2, 3, 60, 80), np.int64)
        for t, z in np.ndindex(2, 3):
            masks[t, z, 5 : 9 + t, 5 : 9 + z] = 7
        for given in (masks, xr.DataArray(masks.transpose(3, 2, 1, 0), dims=("x", "y", "z", "t"))):
            project.load_segmentation(given, z=2, t=1)
            np.testing.assert_array_equal(np.asarray(project.sdata["seg_all_nucleus"]), masks[1, 2])
        project.load_segmentation(xr.DataArray(masks[0, 1].T, dims=("x", "y")))
        np.testing.assert_array_equal(np.asarray(project.sdata["seg_all_nucleus"]), masks[0, 1])
        with pytest.raises(InputError, match=r"nucleus mask: z = 3, but its axes are t = 2, z = 3, .*: 0 to 2"):
            project.load_segmentation(masks, z=3, t=0)

    def test_axes_of_length_1_of_masks(self, project: Project) -> None:
        project.load_input_from_array(STACK[0, 0])
        masks = np.zeros((2, 4, 60, 80), np.int64)
        for t, z in np.ndindex(2, 4):
            masks[t, z, 5 : 9 + t, 5 : 9 + z] = 7
        for given, choice, plane in (
            (masks[:, None], {"t": 1, "z": 1}, masks[1, 1]),
            (masks[None, None, 0], {"z": 2}, masks[0, 2]),
            (masks[None, None, 0], {"t": 0, "z": 2}, masks[0, 2]),
            (masks[:1, 0], {"t": 0, "z": 0}, masks[0, 0]),
            (masks[0], {"t": 0, "z": 3}, masks[0, 3]),
            (masks[0, 0], {"t": 0, "z": 0}, masks[0, 0]),
        ):
            project.load_segmentation(given, **choice)
            np.testing.assert_array_equal(np.asarray(project.sdata["seg_all_nucleus"]), plane)

    @pytest.mark.parametrize(
        ("choice", "message"),
        [
            ({"z": 7}, r"nucleus mask: z = 7, but its axes are y = 60, x = 80: it has one plane of z"),
            ({"t": 1}, r"nucleus mask: t = 1, but its axes are y = 60, x = 80: it has one plane of t"),
            ({"series": 7}, r"nucleus mask: series = 7, .* holds one image. Leave series out"),
        ],
    )
    @pytest.mark.parametrize("named", [False, True])
    def test_what_a_mask_does_not_have(self, project: Project, choice: dict, message: str, *, named: bool) -> None:
        project.load_input_from_array(STACK[0, 0])
        mask = np.ones((60, 80), int)
        with pytest.raises(InputError, match=message):
            project.load_segmentation(xr.DataArray(mask, dims=("y", "x")) if named else mask, **choice)

    def test_masks_with_named_axes_are_advised_an_index(self, project: Project) -> None:
        project.load_input_from_array(STACK[0, 0])
        with pytest.raises(InputError, match=r"Choose the plane: z=0 to z=2$"):
            project.load_segmentation(xr.DataArray(np.ones((3, 60, 80), int), dims=("z", "y", "x")))
        with pytest.raises(InputError, match=r"z = 'all': a mask is one plane, so z must be an index"):
            project.load_segmentation(np.ones((3, 60, 80), int), z="all")

    def test_names_that_come_twice_are_numbered(self, project: Project) -> None:
        array = xr.DataArray(STACK[0, 0], dims=("c", "y", "x"), coords={"c": ["DAPI", "DAPI", "GFP"]})
        project.load_input_from_array(array)
        assert names(project) == ["DAPI", "DAPI_2", "GFP"]

    def test_float16_is_loaded_as_float32(self, project: Project) -> None:
        halves = (STACK[0, 0] / 7).astype(np.float16)
        with pytest.warns(UserWarning, match=r"image of dtype float16 is loaded as float32: the same values"):
            project.load_input_from_array(halves)
        assert project.input_image.dtype == np.float32
        np.testing.assert_array_equal(pixels(project), halves.astype(np.float32))

    def test_float16_of_a_spatialdata_store_is_loaded_as_float32(self, tmp_path: Path, project: Project) -> None:
        halves = (STACK[0, 0] / 7).astype(np.float16)
        SpatialData(images={"scan": Image2DModel.parse(halves, dims=("c", "y", "x"))}).write(tmp_path / "a.zarr")
        with pytest.warns(UserWarning, match=r"image of dtype float16 is loaded as float32: the same values"):
            project.load_input_from_sdata(tmp_path / "a.zarr", "scan")
        np.testing.assert_array_equal(pixels(project), halves.astype(np.float32))


class TestMemory:
    """A stack of 20,000 x 20,000 pixels is never in memory, nor is a part of it that is much larger than a block."""

    def recorded(self, chunks: tuple[int, ...]) -> tuple[Pixels, list[int]]:
        sizes: list[int] = []

        def read(region: tuple[slice, ...]) -> np.ndarray:
            shape = [part.stop - part.start for part in region]
            sizes.append(int(np.prod(shape)) * 2)
            return np.broadcast_to(np.arange(region[0].start, region[0].stop, dtype=np.uint16)[:, None, None], shape)

        return Pixels((60, 20_000, 20_000), np.dtype(np.uint16), chunks, read), sizes

    @pytest.mark.parametrize("chunks", [(1, 1, 1), (1, 256, 256), (16, 256, 256), (60, 512, 512), (1, 100, 20_000)])
    def test_a_projection_reads_a_few_blocks_at_once(self, chunks: tuple[int, ...]) -> None:
        stack, sizes = self.recorded(chunks)
        projected = brightest(stack, 0)
        block = projected.read((slice(2_000, 2_500), slice(0, 20_000)))
        assert (block == 59).all()
        assert max(sizes) <= 2 * 2**27
        assert sum(sizes) == 60 * 500 * 20_000 * 2  # each pixel once

    def test_one_plane_reads_that_plane(self) -> None:
        stack, sizes = self.recorded((1, 256, 256))
        plane = chosen(Stack(stack, "zyx"), plane_choice(z=42), "a")
        assert (plane.read((slice(0, 10), slice(5, 10))) == 42).all()
        assert sizes == [10 * 5 * 2]
