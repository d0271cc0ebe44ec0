"""TIFF files of every kind the field has: which planes are loaded, what they are called, and what is refused."""

from __future__ import annotations

import json
import logging
import re
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from spatialdata import SpatialData
from spatialdata.models import Labels2DModel

from cellstamp.errors import InputError
from cellstamp.pipeline.project import Project
from cellstamp.source.load.pixels import as_pixels
from cellstamp.source.load.plane_choice import plane_choice
from cellstamp.source.load.spatialdata_in_memory import as_store
from cellstamp.source.load.tiff import TiffChoice, open_tiffs

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(1, 60_000, (3, 60, 80)).astype(np.uint16)
STACK = RNG.integers(1, 60_000, (2, 4, 3, 60, 80)).astype(np.uint16)  # t, z, c, y, x
COLOURS = RNG.integers(0, 255, (60, 80, 3)).astype(np.uint8)
NAMES = ["DAPI", "18S", "Vimentin"]


def load(paths: Path | Sequence[Path], *, series: Any = None, z: Any = None, t: Any = None) -> np.ndarray:
    """All channels of TIFF files, as they are read."""
    return channels(paths, series=series, z=z, t=t)[0]


def channels(
    paths: Path | Sequence[Path], *, series: Any = None, z: Any = None, t: Any = None
) -> tuple[np.ndarray, list[str]]:
    """All channels of TIFF files and their names; none where one has no name."""
    given = [paths] if isinstance(paths, Path) else paths
    with open_tiffs(given, TiffChoice(series, plane_choice(z, t))) as opened:
        blocks = [pixels.read(tuple(slice(0, n) for n in pixels.shape)) for pixels in opened]
        names = [name for pixels in opened for name in pixels.names]
    return np.concatenate([block.reshape(-1, *block.shape[-2:]) for block in blocks]), names


def write_pages(path: Path, planes: Sequence[np.ndarray], **options: Any) -> Path:
    with tifffile.TiffWriter(path) as file:
        for plane in planes:
            file.write(plane, photometric="minisblack", **options)
    return path


def refused(message: str) -> Any:
    return pytest.raises(InputError, match=message)


class TestPages:
    """Pages of one shape and dtype are channels, however they were written."""

    @pytest.mark.parametrize("options", [{}, {"metadata": None}, {"contiguous": True}, {"compression": "zlib"}])
    def test_written_in_a_loop(self, tmp_path: Path, options: dict) -> None:
        np.testing.assert_array_equal(load(write_pages(tmp_path / "a.tif", IMAGE, **options)), IMAGE)

    def test_appended(self, tmp_path: Path) -> None:
        for index, plane in enumerate(IMAGE):
            tifffile.imwrite(tmp_path / "a.tif", plane, append=index > 0)
        np.testing.assert_array_equal(load(tmp_path / "a.tif"), IMAGE)

    @pytest.mark.parametrize("metadata", [None, {}])
    def test_stored_in_different_ways_they_keep_their_order(self, tmp_path: Path, metadata: Any) -> None:
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            for plane, compression in zip(IMAGE, [None, "zlib", None], strict=True):
                file.write(plane, compression=compression, metadata=metadata)
        np.testing.assert_array_equal(load(tmp_path / "a.tif"), IMAGE)

    def test_images_of_an_ome_tiff(self, tmp_path: Path) -> None:
        write_pages(tmp_path / "a.ome.tif", IMAGE)
        found, names = channels(tmp_path / "a.ome.tif")
        np.testing.assert_array_equal(found, IMAGE)
        assert names == []

    def test_in_a_project(self, tmp_path: Path) -> None:
        project = Project(tmp_path / "project")
        project.load_input_from_tif_files([write_pages(tmp_path / "a.tif", IMAGE)], crop=[(3, 50), (7, 80)])
        np.testing.assert_array_equal(project.input_image.to_numpy(), IMAGE[:, 3:50, 7:])


class TestSeveralImages:
    @pytest.fixture
    def differing(self, tmp_path: Path) -> Path:
        with tifffile.TiffWriter(tmp_path / "differ.tif") as file:
            file.write(IMAGE[0], metadata={"name": "first"})
            file.write(IMAGE[1, :50])
            file.write(IMAGE[2].astype(np.uint8))
        return tmp_path / "differ.tif"

    def test_those_that_differ_are_listed(self, differing: Path) -> None:
        message = (
            r"differ.tif: it holds 3 images that differ in shape or dtype. Choose one of them with series:\n"
            r"  series=0: y = 60, x = 80; uint16; 'first'\n  series=1: y = 50, x = 80; uint16\n  series=2: .* uint8$"
        )
        with refused(message):
            load(differing)

    @pytest.mark.parametrize("metadata", [None, {}])
    def test_one_page_for_each_channel_of_another_dtype(self, tmp_path: Path, metadata: Any) -> None:
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            file.write(IMAGE[0], metadata=metadata)
            file.write(IMAGE[1].astype(np.float32), metadata=metadata)
        with refused(r"2 images that differ in shape or dtype.*\n.*uint16\n.*float32"):
            load(tmp_path / "a.tif")

    def test_one_is_chosen(self, tmp_path: Path, differing: Path) -> None:
        np.testing.assert_array_equal(load(differing, series=1), IMAGE[1:2, :50])
        project = Project(tmp_path / "project")
        project.load_input_from_tif_files([differing], series=1)
        np.testing.assert_array_equal(project.input_image.to_numpy(), IMAGE[1:2, :50])

    @pytest.mark.parametrize(
        ("series", "message"),
        [
            (3, r"differ.tif: there is no series 3. Choose one of them with series:\n  series=0"),
            (-1, r"there is no series -1"),
            (True, r"there is no series True"),
            ("first", r"series = 'first': must be the index of an image in the file"),
        ],
    )
    def test_a_wrong_choice_is_refused(self, differing: Path, series: Any, message: str) -> None:
        with refused(message):
            load(differing, series=series)

    def test_scenes_with_the_same_channels_are_no_channels(self, tmp_path: Path) -> None:
        metadata = {"axes": "CYX", "Channel": {"Name": NAMES}}
        write_pages(tmp_path / "a.ome.tif", [IMAGE, IMAGE[::-1]], metadata=metadata)
        with refused(r"2 images with the same channels \(18S, DAPI, Vimentin\). Choose"):
            load(tmp_path / "a.ome.tif")
        np.testing.assert_array_equal(load(tmp_path / "a.ome.tif", series=1), IMAGE[::-1])

    def test_stacks_are_no_channels(self, tmp_path: Path) -> None:
        write_pages(tmp_path / "a.ome.tif", [IMAGE, IMAGE], metadata={"axes": "ZYX"})
        with refused(r"2 images of several planes \(axes ZYX\)"):
            load(tmp_path / "a.ome.tif", z="max")
        np.testing.assert_array_equal(load(tmp_path / "a.ome.tif", series=1, z="max"), IMAGE.max(0)[np.newaxis])

    def test_colour_images_are_no_channels(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            for colours in (COLOURS, COLOURS // 2):
                file.write(colours, photometric="rgb")
        with refused(r"a.tif: it holds 2 colour images. Choose one of them with series:\n  series=0: .*s = 3; uint8"):
            load(tmp_path / "a.tif")
        np.testing.assert_array_equal(load(tmp_path / "a.tif", series=1), np.moveaxis(COLOURS // 2, -1, 0))


class TestPyramids:
    """Smaller copies, thumbnails, and what a scanner has photographed beside the sample are left out."""

    @pytest.mark.parametrize("name", ["a.tif", "a.ome.tif"])
    @pytest.mark.parametrize("factor", [2, 8])
    def test_levels_in_subifds(self, tmp_path: Path, name: str, factor: int) -> None:
        options: dict[str, Any] = {"photometric": "minisblack", "tile": (16, 16), "compression": "zlib"}
        with tifffile.TiffWriter(tmp_path / name, bigtiff=True) as file:
            file.write(IMAGE, subifds=1, metadata={"axes": "CYX"}, **options)
            file.write(IMAGE[:, ::factor, ::factor], subfiletype=1, **options)
        np.testing.assert_array_equal(load(tmp_path / name), IMAGE)

    def test_levels_as_pages(self, tmp_path: Path) -> None:
        levels = [IMAGE[0, :: 2**k, :: 2**k] for k in range(3)]
        write_pages(tmp_path / "a.tif", levels, tile=(16, 16), metadata=None)
        np.testing.assert_array_equal(load(tmp_path / "a.tif"), IMAGE[:1])

    def test_a_thumbnail(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            file.write(IMAGE[0], metadata=None)
            file.write(IMAGE[0, ::7, ::7], subfiletype=1, metadata=None)
        np.testing.assert_array_equal(load(tmp_path / "a.tif"), IMAGE[:1])

    def test_a_whole_slide_image(self, tmp_path: Path) -> None:
        about = "Aperio Image Library v1\n"
        options: dict[str, Any] = {"photometric": "rgb", "metadata": None, "software": False}
        with tifffile.TiffWriter(tmp_path / "a.svs") as file:
            file.write(COLOURS, tile=(16, 16), description=f"{about}60x80", **options)
            file.write(COLOURS[::4, ::4], description=f"{about}thumbnail", **options)
            file.write(COLOURS[::2, ::2], tile=(16, 16), description=f"{about}level", **options)
            file.write(COLOURS[:20, :33], subfiletype=1, description=f"{about}label 20x33", **options)
            file.write(COLOURS[:20, :53], subfiletype=9, description=f"{about}macro 20x53", **options)
        found, names = channels(tmp_path / "a.svs")
        np.testing.assert_array_equal(found, np.moveaxis(COLOURS, -1, 0))
        assert names == ["red", "green", "blue"]

    def test_a_whole_slide_image_as_ome_tiff(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
            for name, pixels in (("slide", COLOURS), ("label image", COLOURS[:20]), ("macro image", COLOURS[:21])):
                file.write(pixels, photometric="rgb", metadata={"Name": name})
        np.testing.assert_array_equal(load(tmp_path / "a.ome.tif"), np.moveaxis(COLOURS, -1, 0))

    def test_a_channel_called_label_is_a_channel(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
            for name, plane in zip(["DAPI", "label"], IMAGE, strict=False):
                file.write(plane, metadata={"Name": name})
        found, names = channels(tmp_path / "a.ome.tif")
        np.testing.assert_array_equal(found, IMAGE[:2])
        assert names == ["DAPI", "label"]


def akoya(name: str) -> str:
    return (
        f"<?xml version='1.0'?><PerkinElmer-QPI-ImageDescription><Name>{name}</Name></PerkinElmer-QPI-ImageDescription>"
    )


class TestNames:
    """Names in a file are used when the user gives none."""

    def test_ome(self, tmp_path: Path) -> None:
        metadata = {"axes": "CYX", "Channel": {"Name": NAMES}}
        tifffile.imwrite(tmp_path / "a.ome.tif", IMAGE, photometric="minisblack", metadata=metadata)
        project = Project(tmp_path / "project", overwrite=True)
        project.load_input_from_tif_files([tmp_path / "a.ome.tif"])
        assert project.input_image.coords["c"].to_numpy().tolist() == NAMES
        project.load_input_from_tif_files([tmp_path / "a.ome.tif"], ["x", "y", "z"])
        assert project.input_image.coords["c"].to_numpy().tolist() == ["x", "y", "z"]
        project.load_input_from_tif_files([tmp_path / "a.ome.tif"], remap=[2, 0, 1])
        assert project.input_image.coords["c"].to_numpy().tolist() == ["Vimentin", "DAPI", "18S"]

    def test_ome_names_of_some_channels(self, tmp_path: Path) -> None:
        xml = ome_xml("a", '<TiffData IFD="0" PlaneCount="3"/>')
        for old, new in ((b' Name="18S"', b""), (b'Name="Vimentin"', b'Name="" Fluor="Cy5"')):
            xml = xml.replace(old, new)
        write_described(tmp_path / "a.ome.tif", IMAGE, xml)
        assert channels(tmp_path / "a.ome.tif")[1] == ["DAPI", "channel_1", "Cy5"]

    def test_names_that_come_twice_are_numbered(self, tmp_path: Path) -> None:
        for cycle, names in enumerate((["DAPI", "CD3"], ["DAPI", "CD8"])):
            metadata = {"axes": "CYX", "Channel": {"Name": names}}
            tifffile.imwrite(tmp_path / f"{cycle}.ome.tif", IMAGE[:2], photometric="minisblack", metadata=metadata)
        project = Project(tmp_path / "project")
        project.load_input_from_tif_files([tmp_path / "0.ome.tif", tmp_path / "1.ome.tif"])
        assert project.input_image.coords["c"].to_numpy().tolist() == ["DAPI", "CD3", "DAPI_2", "CD8"]

    def test_ome_without_a_word_of_its_pages(self, tmp_path: Path) -> None:
        """As libvips writes it."""
        write_described(tmp_path / "a.tif", IMAGE, ome_xml("a", ""))
        found, names = channels(tmp_path / "a.tif")
        np.testing.assert_array_equal(found, IMAGE)
        assert names == NAMES

    @pytest.mark.parametrize("byteorder", ["<", ">"])
    @pytest.mark.parametrize("prefix", ["", "c:{}/3 - ", "c:{}/3 z:1/1 - "])
    def test_labels_of_imagej(self, tmp_path: Path, byteorder: Any, prefix: str) -> None:
        labels = [prefix.format(index + 1) + name for index, name in enumerate(NAMES)]
        metadata = {"axes": "CYX", "Labels": labels}
        tifffile.imwrite(tmp_path / "a.tif", IMAGE, imagej=True, byteorder=byteorder, metadata=metadata)
        found, names = channels(tmp_path / "a.tif")
        np.testing.assert_array_equal(found, IMAGE)
        assert names == NAMES

    def test_of_images(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
            for name, plane in zip(NAMES, IMAGE, strict=True):
                file.write(plane, metadata={"Name": name})
        assert channels(tmp_path / "a.ome.tif")[1] == NAMES

    def test_on_pages(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            for name, plane in zip(NAMES, IMAGE, strict=True):
                file.write(plane, metadata=None, extratags=[("PageName", 2, None, name, True)])
        assert channels(tmp_path / "a.tif")[1] == NAMES

    def test_of_a_qptiff(self, tmp_path: Path) -> None:
        options: dict[str, Any] = {"metadata": None, "software": "PerkinElmer-QPI"}
        with tifffile.TiffWriter(tmp_path / "a.qptiff") as file:
            for name, plane in zip(NAMES, IMAGE, strict=True):
                file.write(plane, tile=(16, 16), description=akoya(name), **options)
            file.write(COLOURS[::4, ::4], photometric="rgb", description=akoya("thumbnail"), **options)
            for name, plane in zip(NAMES, IMAGE, strict=True):
                file.write(plane[::2, ::2], tile=(16, 16), description=akoya(name), **options)
            file.write(COLOURS[:20, :30], photometric="rgb", description=akoya("macro"), **options)
        found, names = channels(tmp_path / "a.qptiff")
        np.testing.assert_array_equal(found, IMAGE)
        assert names == NAMES

    def test_given_to_tifffile(self, tmp_path: Path) -> None:
        metadata = {"axes": "CYX", "Channel": {"Name": NAMES}}
        tifffile.imwrite(tmp_path / "a.tif", IMAGE, photometric="minisblack", metadata=metadata)
        assert channels(tmp_path / "a.tif")[1] == NAMES


ORDERS = ["TZCYX", "TCZYX", "ZTCYX", "CZTYX", "ZCTYX", "CTZYX"]


class TestStacks:
    @pytest.fixture(params=[*ORDERS, "imagej"])
    def path(self, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
        if request.param == "imagej":
            labels = [f"c:{c + 1}/3 z:{z + 1}/4 - {NAMES[c]}" for _ in range(2) for z in range(4) for c in range(3)]
            path = tmp_path / "a.tif"
            tifffile.imwrite(path, STACK, imagej=True, metadata={"axes": "TZCYX", "Labels": labels})
            return path
        arranged = np.moveaxis(STACK, [0, 1, 2], [request.param.index(axis) for axis in "TZC"])
        metadata = {"axes": request.param, "Channel": {"Name": NAMES}}
        tifffile.imwrite(tmp_path / "a.ome.tif", arranged, photometric="minisblack", metadata=metadata)
        return tmp_path / "a.ome.tif"

    def test_one_plane(self, path: Path) -> None:
        found, names = channels(path, z=2, t=1)
        np.testing.assert_array_equal(found, STACK[1, 2])
        assert names == NAMES

    def test_projection(self, path: Path) -> None:
        found, names = channels(path, z="max", t=0)
        np.testing.assert_array_equal(found, STACK[0].max(0))
        assert names == NAMES

    def test_planes_of_a_list_are_channels(self, path: Path) -> None:
        found, names = channels(path, z=[3, 1], t=0)
        np.testing.assert_array_equal(found, STACK[0][[3, 1]].swapaxes(0, 1).reshape(-1, 60, 80))
        assert names == [f"{name}_z{z}" for name in NAMES for z in (3, 1)]

    def test_without_a_choice_the_axes_are_listed(self, path: Path) -> None:
        with refused(
            r"its axes are (?=.*t = 2)(?=.*z = 4)(?=.*c = 3).*y = 60, x = 80. Choose the planes: z=0 to z=3, a list of "
            r"them, or z='max' for the maximum projection; t=0 to t=1$"
        ):
            load(path)
        with refused(r"z = 4.*Choose the planes: z=0 to z=3[^;]*$"):
            load(path, t=0)

    @pytest.mark.parametrize(
        ("choice", "message"),
        [
            ({"z": 4, "t": 0}, r"z = 4, but its axes are .*z = 4.*: 0 to 3"),
            ({"z": -1, "t": 0}, r"z = -1, but its axes are .*: 0 to 3"),
            ({"z": [0, 4], "t": 0}, r"z = 4, but its axes are .*: 0 to 3"),
            ({"z": 0, "t": 2}, r"t = 2, but its axes are .*: 0 to 1"),
            ({"z": "mean", "t": 0}, r"z = 'mean': must be an index, a list of them, or 'max'"),
            ({"z": 0.5, "t": 0}, r"z = 0.5: must be an index, a list"),
            ({"z": True, "t": 0}, r"z = True: must be an index, a list"),
            ({"z": [], "t": 0}, r"z = \[\]: must name one plane or more"),
            ({"z": 0, "t": "max"}, r"t = 'max': must be an index"),
        ],
    )
    def test_a_wrong_choice_is_refused(self, path: Path, choice: dict, message: str) -> None:
        with refused(message):
            load(path, **choice)

    def test_in_a_project(self, tmp_path: Path, path: Path) -> None:
        project = Project(tmp_path / "project")
        project.load_input_from_tif_files([path], crop=[(3, 50), (7, 80)], z="max", t=1, remap=[2, 1, 0])
        np.testing.assert_array_equal(project.input_image.to_numpy(), STACK[1].max(0)[::-1, 3:50, 7:])
        assert project.input_image.coords["c"].to_numpy().tolist() == NAMES[::-1]

    def test_labels_of_planes_that_are_channels(self, tmp_path: Path) -> None:
        """ImageJ calls a list of channels slices, when nobody has told it better."""
        tifffile.imwrite(tmp_path / "a.tif", IMAGE, imagej=True, metadata={"axes": "ZYX", "Labels": NAMES})
        found, names = channels(tmp_path / "a.tif", z=[0, 1, 2])
        np.testing.assert_array_equal(found, IMAGE)
        assert names == NAMES

    def test_names_of_planes_number_the_channels_of_all_files(self, tmp_path: Path) -> None:
        for name in "ab":
            tifffile.imwrite(tmp_path / f"{name}.tif", STACK[0, :, 0], imagej=True, metadata={"axes": "ZYX"})
        names = channels([tmp_path / "a.tif", tmp_path / "b.tif"], z=range(1, 3))[1]
        assert names == ["channel_0_z1", "channel_0_z2", "channel_1_z1", "channel_1_z2"]

    def test_pages_without_a_meaning_are_what_the_user_says(self, tmp_path: Path) -> None:
        path = write_pages(tmp_path / "a.tif", IMAGE, metadata=None)
        np.testing.assert_array_equal(load(path, z="max"), IMAGE.max(0)[np.newaxis])
        np.testing.assert_array_equal(load(path, t=1), IMAGE[1:2])

    @pytest.mark.parametrize("name", ["loop.tif", "loop.ome.tif", "append.tif"])
    def test_images_without_a_meaning_are_what_the_user_says(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        if name == "append.tif":
            for plane in IMAGE:
                tifffile.imwrite(path, plane, append=path.exists())
        else:
            write_pages(path, IMAGE, contiguous=False)
        np.testing.assert_array_equal(load(path, z="max"), IMAGE.max(0)[np.newaxis])
        np.testing.assert_array_equal(load(path, t=1), IMAGE[1:2])
        found, names = channels(path, z=[2, 0])
        np.testing.assert_array_equal(found, IMAGE[[2, 0]])
        assert names == ["channel_0_z2", "channel_0_z0"]
        with refused(rf"{name}: z = 3, but its axes are z = 3, y = 60, x = 80: 0 to 2"):
            load(path, z=3)

    def test_a_single_plane_needs_no_choice_and_takes_one(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", IMAGE[0])
        for choice in ({}, {"z": 0, "t": 0}, {"z": "max"}, {"z": [0]}):
            np.testing.assert_array_equal(load(tmp_path / "a.tif", **choice), IMAGE[:1])
        with refused(r"a.tif: z = 1, but its axes are y = 60, x = 80: it has one plane of z"):
            load(tmp_path / "a.tif", z=1)

    def test_colours_in_a_stack(self, tmp_path: Path) -> None:
        tifffile.imwrite(
            tmp_path / "a.tif", np.stack([COLOURS, COLOURS // 2]), photometric="rgb", metadata={"axes": "ZYXS"}
        )
        found, names = channels(tmp_path / "a.tif", z=1)
        np.testing.assert_array_equal(found, np.moveaxis(COLOURS // 2, -1, 0))
        assert names == ["red", "green", "blue"]

    def test_other_axes_are_refused(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", STACK[0], photometric="minisblack")
        with refused(r"its axes are q = 4, i = 3, y = 60, x = 80; they must be y and x, at most one of channels"):
            load(tmp_path / "a.tif")


OME = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'


def ome_xml(uuid: str | None, planes: str, *, c: int = 3, z: int = 1) -> bytes:
    """OME-XML of one image of 60 x 80 pixels."""
    names = "".join(
        f'<Channel ID="Channel:0:{k}" Name="{name}" SamplesPerPixel="1"/>' for k, name in enumerate(NAMES[:c])
    )
    root = f"<OME {OME}>" if uuid is None else f'<OME {OME} UUID="urn:uuid:{uuid}">'
    return (
        f'{root}<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="80" SizeY="60" '
        f'SizeC="{c}" SizeZ="{z}" SizeT="1">{names}{planes}</Pixels></Image></OME>'
    ).encode()


def planes_in(name: str, **where: int) -> str:
    """Where the planes of a set are: in which file, with which numbers."""
    numbers = " ".join(f'{key}="{value}"' for key, value in where.items())
    return f'<TiffData {numbers}><UUID FileName="{name}">urn:uuid:{name}</UUID></TiffData>'


def write_described(path: Path, planes: Sequence[np.ndarray], xml: bytes, **options: Any) -> Path:
    with tifffile.TiffWriter(path) as file:
        for index, plane in enumerate(planes):
            file.write(plane, description=None if index else xml, metadata=None, photometric="minisblack", **options)
    return path


EACH = "".join(planes_in(f"ch{k}.ome.tif", FirstC=k, IFD=0, PlaneCount=1) for k in range(3))


class TestSets:
    """OME-TIFF images of several files: each contributes its own planes, once."""

    @pytest.fixture(params=["counted", "uncounted", "no uuid of the file"])
    def files(self, tmp_path: Path, request: pytest.FixtureRequest) -> list[Path]:
        """A file for each channel, and each names all of them."""
        names = [f"ch{k}.ome.tif" for k in range(3)]
        uncounted = "".join(planes_in(name, FirstC=k) for k, name in enumerate(names))
        planes = uncounted if request.param == "uncounted" else EACH
        uuids = [None if request.param.startswith("no") else name for name in names]
        return [
            write_described(tmp_path / name, [plane], ome_xml(uuid, planes), tile=(16, 16))
            for name, uuid, plane in zip(names, uuids, IMAGE, strict=True)
        ]

    def test_all_files(self, tmp_path: Path, files: list[Path]) -> None:
        project = Project(tmp_path / "project", overwrite=True)
        project.load_input_from_tif_files(files)
        np.testing.assert_array_equal(project.input_image.to_numpy(), IMAGE)
        assert project.input_image.coords["c"].to_numpy().tolist() == NAMES
        project.load_input_from_tif_files(files[::-1], channel_names=["a", "b", "c"])
        np.testing.assert_array_equal(project.input_image.to_numpy(), IMAGE[::-1])

    def test_one_beside_the_others(self, files: list[Path]) -> None:
        for index, path in enumerate(files):
            found, names = channels(path)
            np.testing.assert_array_equal(found, IMAGE[index : index + 1])
            assert names == NAMES[index : index + 1]

    def test_one_alone(self, tmp_path: Path, files: list[Path], caplog: pytest.LogCaptureFixture) -> None:
        (tmp_path / "alone").mkdir()
        for index, path in enumerate(files):
            found, names = channels(Path(shutil.copy(path, tmp_path / "alone")))
            np.testing.assert_array_equal(found, IMAGE[index : index + 1])
            assert names == NAMES[index : index + 1]
            (tmp_path / "alone" / path.name).unlink()
        assert "zero" not in caplog.text

    def test_the_others_are_not_opened(self, files: list[Path]) -> None:
        """A set of 400 files would be opened 160,000 times."""
        files[0].write_text("no TIFF")
        np.testing.assert_array_equal(load(files[1:]), IMAGE[1:])

    def test_pyramids(self, tmp_path: Path) -> None:
        paths = [tmp_path / f"ch{k}.ome.tif" for k in range(3)]
        options: dict[str, Any] = {"metadata": None, "tile": (16, 16), "compression": "jpeg2000"}
        for path, plane in zip(paths, IMAGE, strict=True):
            with tifffile.TiffWriter(path) as file:
                file.write(plane, description=ome_xml(path.name, EACH), subifds=1, **options)
                file.write(plane[::2, ::2], subfiletype=1, **options)
        found, names = channels(paths)
        np.testing.assert_array_equal(found, IMAGE)
        assert names == NAMES

    def test_a_renamed_file(self, tmp_path: Path) -> None:
        named = write_described(tmp_path / "dapi.tif", IMAGE[:1], ome_xml("ch0.ome.tif", EACH))
        np.testing.assert_array_equal(load(named), IMAGE[:1])
        unnamed = write_described(tmp_path / "other.tif", IMAGE[:1], ome_xml(None, EACH))
        with refused(
            r"other.tif: its planes are in other files, and ch0.ome.tif, ch1.ome.tif, .* cannot be found; put"
        ):
            load(unnamed)

    def test_the_uuid_decides_and_not_the_name(self, tmp_path: Path) -> None:
        names = [f"p{k}/img.ome.tif" for k in range(3)]
        planes = "".join(planes_in(name, FirstC=k, IFD=0, PlaneCount=1) for k, name in enumerate(names))
        paths = [tmp_path / name for name in names]
        for path, name, plane in zip(paths, names, IMAGE, strict=True):
            path.parent.mkdir()
            write_described(path, [plane], ome_xml(name, planes))
        found, found_names = channels(paths)
        np.testing.assert_array_equal(found, IMAGE)
        assert found_names == NAMES
        swapped = write_described(tmp_path / "ch1.ome.tif", IMAGE[:1], ome_xml("ch0.ome.tif", EACH))
        assert channels(swapped)[1] == NAMES[:1]

    def test_without_a_uuid_the_folder_is_part_of_the_name(self, tmp_path: Path) -> None:
        planes = "".join(planes_in(f"p{k}/img.ome.tif", FirstC=k, IFD=0, PlaneCount=1) for k in range(3))
        for k in range(3):
            (tmp_path / f"p{k}").mkdir()
            write_described(tmp_path / f"p{k}/img.ome.tif", IMAGE[k : k + 1], ome_xml(None, planes))
            assert channels(tmp_path / f"p{k}/img.ome.tif")[1] == NAMES[k : k + 1]
        moved = write_described(tmp_path / "img.ome.tif", IMAGE[:1], ome_xml(None, planes))
        with refused(r"img.ome.tif: its OME-XML names several files called 'img.ome.tif' .*"):
            load(moved)

    def test_the_same_uuid_in_all_files(self, tmp_path: Path) -> None:
        planes = EACH.replace("ch1.ome.tif</UUID>", "ch0.ome.tif</UUID>").replace("ch2.ome.tif</", "ch0.ome.tif</")
        paths = [
            write_described(tmp_path / f"ch{k}.ome.tif", [IMAGE[k]], ome_xml("ch0.ome.tif", planes)) for k in range(3)
        ]
        assert channels(paths)[1] == NAMES

    @pytest.fixture
    def one_plane_each(self, tmp_path: Path) -> list[Path]:
        """Files of one plane each: 3 channels, 4 z; in the order c, z."""
        where = [(c, z) for c in range(3) for z in range(4)]
        planes = "".join(planes_in(f"c{c}z{z}.ome.tif", FirstC=c, FirstZ=z, IFD=0, PlaneCount=1) for c, z in where)
        return [
            write_described(tmp_path / f"c{c}z{z}.ome.tif", [STACK[0, z, c]], ome_xml(f"c{c}z{z}.ome.tif", planes, z=4))
            for c, z in where
        ]

    def test_planes_in_files_are_one_stack(self, one_plane_each: list[Path]) -> None:
        with refused(r"c0z0.ome.tif and 3 more files of its image: its axes are z = 4, .* z=0 to z=3"):
            load(one_plane_each)
        for given in (one_plane_each, one_plane_each[::-1]):
            found, names = channels(given, z="max")
            order = [0, 1, 2] if given is one_plane_each else [2, 1, 0]
            np.testing.assert_array_equal(found, STACK[0].max(0)[order])
            assert names == [NAMES[k] for k in order]
        np.testing.assert_array_equal(load(one_plane_each, z=2), STACK[0, 2])
        found, names = channels(one_plane_each[4:8], z=[3, 1])
        np.testing.assert_array_equal(found, STACK[0, [3, 1], 1])
        assert names == ["18S_z3", "18S_z1"]

    def test_z_is_counted_over_the_set(self, one_plane_each: list[Path]) -> None:
        given = one_plane_each[1:3]
        np.testing.assert_array_equal(load(given, z=2), STACK[0, 2, :1])
        with refused(r"c0z1.ome.tif and 1 more file of its image: 2 of the 4 planes of .* are in it"):
            load(given, z="max")

    def test_files_that_end_within_a_time_point_are_one_stack(self, tmp_path: Path) -> None:
        planes = planes_in("a.ome.tif", IFD=0, PlaneCount=3) + planes_in("b.ome.tif", FirstC=1, FirstZ=1, IFD=0)
        pages = STACK[0, :2, :2].reshape(-1, 60, 80)
        paths = [
            write_described(tmp_path / name, part, ome_xml(name, planes, c=2, z=2))
            for name, part in (("a.ome.tif", pages[:3]), ("b.ome.tif", pages[3:]))
        ]
        for z in (0, 1):
            np.testing.assert_array_equal(load(paths, z=z), STACK[0, z, :2])

    def test_a_copy_of_a_file_of_a_set(self, tmp_path: Path, one_plane_each: list[Path]) -> None:
        copied = Path(shutil.copy(one_plane_each[0], tmp_path / "copy.ome.tif"))
        with refused(r"copy.ome.tif: holds planes that .*c0z0.ome.tif holds, too.*Give each file once"):
            load([*one_plane_each, copied], z=0)

    def test_the_same_file_twice(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write_pages(tmp_path / "a.tif", IMAGE[:1])
        (tmp_path / "link.tif").symlink_to(path)
        monkeypatch.chdir(tmp_path)
        project = Project(tmp_path / "project")
        for again in ("a.tif", "./a.tif", "link.tif"):
            with refused(rf"file_paths: {again} and .*a\.tif are the same file. Give each file once"):
                project.load_input_from_tif_files([path, again])
        with refused(r"file_paths: a\.tif and a\.tif are the same file"):
            project.load_input_from_tif_files(["a.tif"] * 2)

    def test_split_along_z(self, tmp_path: Path) -> None:
        planes = "".join(planes_in(f"z{k}.ome.tif", FirstZ=2 * k, IFD=0, PlaneCount=4) for k in range(2))
        stack = STACK[0, :, :2]
        for k in range(2):
            name = f"z{k}.ome.tif"
            write_described(
                tmp_path / name, stack[2 * k : 2 * k + 2].reshape(-1, 60, 80), ome_xml(name, planes, c=2, z=4)
            )
        with refused(r"z0.ome.tif: its axes are z = 2, c = 2"):
            load(tmp_path / "z0.ome.tif")
        np.testing.assert_array_equal(load(tmp_path / "z1.ome.tif", z=1), stack[3])
        np.testing.assert_array_equal(load(tmp_path / "z0.ome.tif", z="max"), stack[:2].max(0))

    def test_a_file_that_ends_within_a_time_point(self, tmp_path: Path) -> None:
        """Acquisition programs begin a new file when one has 4 GB."""
        planes = planes_in("a.ome.tif", IFD=0, PlaneCount=3) + planes_in("b.ome.tif", FirstC=1, FirstZ=1, IFD=0)
        stack = STACK[0, :2, :2]
        write_described(tmp_path / "a.ome.tif", stack.reshape(-1, 60, 80)[:3], ome_xml("a.ome.tif", planes, c=2, z=2))
        np.testing.assert_array_equal(load(tmp_path / "a.ome.tif", z=0), stack[0])
        for z in (1, "max"):
            with refused(r"a.ome.tif: [13] of the [24] planes of .*c = 2, y = 60, x = 80 are in it. Choose z and t"):
                load(tmp_path / "a.ome.tif", z=z)

    def test_a_master_file(self, tmp_path: Path) -> None:
        paths = [
            write_described(tmp_path / f"ch{k}.ome.tif", [IMAGE[k]], ome_xml(f"ch{k}.ome.tif", EACH)) for k in range(3)
        ]
        master = write_described(tmp_path / "master.ome.tif", [np.zeros((60, 80), np.uint16)], ome_xml("master", EACH))
        for given, order in (([master], [0, 1, 2]), ([master, *paths], [0, 1, 2]), ([paths[1], master], [1, 0, 2])):
            found, names = channels(given)
            np.testing.assert_array_equal(found, IMAGE[order])
            assert names == [NAMES[k] for k in order]
        paths[2].unlink()
        with refused(r"master.ome.tif: its planes are in other files, and ch2.ome.tif cannot be found; put all files"):
            load(master)

    def test_a_companion(self, tmp_path: Path) -> None:
        pointer = (
            f'<OME {OME} UUID="urn:uuid:{{}}"><BinaryOnly MetadataFile="a.companion.ome" UUID="urn:uuid:a"/></OME>'
        )
        names = [f"ch{k}.ome.tif" for k in range(3)]
        paths = [
            write_described(tmp_path / name, [plane], pointer.format(name).encode())
            for name, plane in zip(names, IMAGE, strict=True)
        ]
        with refused(r"ch1.ome.tif: its axes and channels are described in 'a.companion.ome', which is missing; put"):
            load(paths[1])
        (tmp_path / "a.companion.ome").write_bytes(b'<?xml version="1.0" encoding="UTF-8"?>' + ome_xml("a", EACH))
        found, found_names = channels(paths)
        np.testing.assert_array_equal(found, IMAGE)
        assert found_names == NAMES
        with refused(r"a.companion.ome: cannot be read as TIFF: .*holds metadata only: give the TIFF files"):
            load(tmp_path / "a.companion.ome")
        paths[0].unlink()
        np.testing.assert_array_equal(load(paths[1]), IMAGE[1:2])

    @pytest.mark.parametrize(
        "planes",
        [
            '<TiffData IFD="0" PlaneCount="3"/>',
            "<TiffData/>",
            "".join(f'<TiffData FirstC="{k}" IFD="{k}"/>' for k in range(3)),
        ],
    )
    def test_a_file_that_lacks_planes(self, tmp_path: Path, planes: str, caplog: pytest.LogCaptureFixture) -> None:
        path = write_described(tmp_path / "a.ome.tif", IMAGE[:2], ome_xml("a", planes))
        with pytest.raises(InputError, match=r"a.ome.tif: 2 planes can be read, .* says that there are 3") as caught:
            load(path)
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
        code = re.search(r"load_input_from_array\(.*\)\)", str(caught.value))
        project = Project(tmp_path / "project")
        eval(f"project.{code[0]}", {"project": project, "tifffile": tifffile, "path": path})
        np.testing.assert_array_equal(project.input_image.to_numpy(), IMAGE[:2])

    def test_pages_that_are_no_planes_of_the_image(self, tmp_path: Path) -> None:
        path = write_described(
            tmp_path / "a.ome.tif", IMAGE[:, :, :1], ome_xml("a", '<TiffData IFD="0" PlaneCount="3"/>')
        )
        with refused(r"a.ome.tif: its OME-XML describes planes of 60 x 80 pixels \(y, x\), but its pages have 60 x 1"):
            load(path)

    def test_positions_of_micromanager(self, tmp_path: Path) -> None:
        stack = STACK[:, :2, :2]  # here: position, z, c, y, x
        for position in range(2):
            write_micromanager(tmp_path / f"img_MMStack_Pos{position}.ome.tif", stack[position], position)
        for position in range(2):
            found, names = channels(tmp_path / f"img_MMStack_Pos{position}.ome.tif", z=1)
            np.testing.assert_array_equal(found, stack[position, 1])
            assert names == ["DAPI", "GFP"]
        (tmp_path / "img_MMStack_Pos0.ome.tif").unlink()
        np.testing.assert_array_equal(load(tmp_path / "img_MMStack_Pos1.ome.tif", z="max"), stack[1].max(0))


def write_micromanager(path: Path, stack: np.ndarray, position: int) -> None:
    """An image stack file of Micro-Manager: header, summary, pages with 13 tags each, and the map of planes."""
    n_z, n_c, height, width = stack.shape
    names = {"ChNames": ["DAPI", "GFP"], "Prefix": "img", "MicroManagerVersion": "2.0", "MajorVersion": 0}
    sizes = {"Frames": 1, "Channels": n_c, "Slices": n_z, "Positions": 2, "TimeFirst": True, "SlicesFirst": True}
    summary = json.dumps(names | sizes).encode().ljust(400)
    content = bytearray(struct.pack("<4sI", b"II*\0", 0))
    content += struct.pack("<8I", 54773648, 0, 483765892, 0, 99384722, 0, 2355492, len(summary)) + summary
    link, index = 4, b""
    for z, c in np.ndindex(n_z, n_c):
        start, n_bytes = len(content), height * width * 2
        struct.pack_into("<I", content, link, start)
        index += struct.pack("<5I", c, z, 0, position, start)
        tags = {256: width, 257: height, 258: 16, 259: 1, 262: 1, 273: start + 162, 277: 1, 278: height, 279: n_bytes}
        tags |= {282: 0, 296: 1, 339: 1, 51123: int.from_bytes(b"{}", "little")}
        content += struct.pack("<H", 13)
        for tag, value in tags.items():
            dtype, count = {282: (4, 1), 51123: (2, 3)}.get(tag, (4, 1))
            content += struct.pack("<HHII", tag, dtype, count, value)
        link = len(content)
        content += struct.pack("<I", 0) + stack[z, c].tobytes()
    struct.pack_into("<I", content, 12, len(content))
    content += struct.pack("<2I", 3453623, n_z * n_c) + index
    for at, magic in ((20, 347834724), (28, 84720485)):  # display settings, comments
        struct.pack_into("<I", content, at, len(content))
        content += struct.pack("<2I", magic, 2) + b"{}"
    path.write_bytes(content)


def write_lsm(path: Path, stack: np.ndarray) -> None:
    """A Zeiss LSM file: a page for each z, each followed by its thumbnail, and the names of the channels at the end."""
    fields = [(name, f"<{kind}" if kind[0] not in "<|" else kind) for name, kind in tifffile.TIFF.CZ_LSMINFO]
    info = np.zeros((), np.dtype(fields))
    n_z, n_c, height, width = stack.shape
    info["MagicNumber"], info["StructureSize"], info["DataType"] = 67127628, info.dtype.itemsize, 2
    info["DimensionX"], info["DimensionY"], info["DimensionZ"], info["DimensionTime"] = width, height, n_z, 1
    info["DimensionChannels"] = n_c
    options: dict[str, Any] = {"planarconfig": "separate", "photometric": "rgb", "metadata": None, "software": False}
    with tifffile.TiffWriter(path) as file:
        for z, plane in enumerate(stack):
            tags = [] if z else [(34412, 7, info.nbytes, info.tobytes(), True)]
            file.write(plane, extratags=tags, **options)
            file.write(np.zeros((n_c, 15, 20), np.uint8), subfiletype=1, **options)
    content = path.read_bytes()
    info["OffsetChannelColors"] = len(content)
    names = b"".join(struct.pack("<I", len(name) + 1) + name.encode() + b"\0" for name in NAMES)
    head = struct.pack("<6I", 24 + 4 * n_c + len(names), n_c, n_c, 24, 24 + 4 * n_c, 0)
    at = content.index(struct.pack("<2I", 67127628, info.dtype.itemsize))
    content = content[:at] + info.tobytes() + content[at + info.nbytes :]
    path.write_bytes(content + head + bytes(4 * n_c) + names)


class TestNumbers:
    """Any integer and float type of up to 64 bits, in any byte order."""

    @pytest.mark.parametrize("compression", [None, "zlib"])
    @pytest.mark.parametrize("byteorder", ["<", ">"])
    @pytest.mark.parametrize("dtype", [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)])
    def test_integers(self, tmp_path: Path, dtype: str, byteorder: Any, compression: Any) -> None:
        image = (IMAGE % 100).astype(dtype)
        options: dict[str, Any] = {"byteorder": byteorder, "compression": compression, "photometric": "minisblack"}
        tifffile.imwrite(tmp_path / "a.tif", image, **options)
        with open_tiffs([tmp_path / "a.tif"]) as (pixels,):
            assert pixels.dtype == np.dtype(dtype)
            assert pixels.dtype.char == np.dtype(dtype).char  # C has two names for int64, and zarr knows one
            np.testing.assert_array_equal(pixels.read((slice(0, 3), slice(0, 60), slice(0, 80))), image)

    @pytest.mark.parametrize("dtype", [np.longlong, np.ulonglong, np.int64, ">i8", ">u4", "<i2"])
    def test_arrays_of_any_name(self, dtype: Any) -> None:
        pixels = as_pixels(IMAGE.astype(dtype))
        assert pixels.dtype.isnative
        assert pixels.dtype.char == np.dtype(f"{pixels.dtype.kind}{pixels.dtype.itemsize}").char
        assert pixels.read((slice(0, 1), slice(0, 2), slice(0, 2))).dtype.char == pixels.dtype.char

    @pytest.mark.parametrize("dtype", ["int64", "uint64"])
    def test_image_and_mask_in_a_project(self, tmp_path: Path, dtype: str, make_cells) -> None:
        image, nucleus, cytosol = make_cells()
        tifffile.imwrite(tmp_path / "image.tif", image.astype(dtype), photometric="minisblack")
        tifffile.imwrite(tmp_path / "nucleus.tif", nucleus.astype(dtype))
        project = Project(tmp_path / "project")
        project.load_input_from_tif_files([tmp_path / "image.tif"])
        mapped = np.memmap(tmp_path / "cytosol.raw", np.longlong, "w+", shape=cytosol.shape)
        mapped[:] = cytosol
        project.load_segmentation(tmp_path / "nucleus.tif", mapped)
        np.testing.assert_array_equal(project.input_image.to_numpy(), image)
        assert project.input_image.dtype == dtype
        np.testing.assert_array_equal(np.asarray(project.sdata["seg_all_nucleus"]), nucleus)
        np.testing.assert_array_equal(np.asarray(project.sdata["seg_all_cytosol"]), cytosol)

    def test_a_spatialdata_object_in_memory(self, tmp_path: Path) -> None:
        labels = Labels2DModel.parse(IMAGE[0].astype(np.longlong), dims=("y", "x"))
        store = as_store(SpatialData(labels={"cells": labels}), ["cells"], tmp_path)
        np.testing.assert_array_equal(np.asarray(zarr.open_array(f"{store}/labels/cells/s0", mode="r")), IMAGE[0])

    def test_what_is_not_a_number_is_refused(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "bits.tif", IMAGE[0] > 30_000)
        tifffile.imwrite(tmp_path / "complex.tif", IMAGE[0].astype(np.complex64))
        with refused(r"bits.tif: array of dtype bool: must hold integers or floats"):
            load(tmp_path / "bits.tif")
        with refused(r"complex.tif: array of dtype complex64: must hold"):
            load(tmp_path / "complex.tif")
        with refused(r"masked array: .* fill them first, with array.filled\(0\)"):
            as_pixels(np.ma.masked_less(IMAGE, 10))


class TestKinds:
    @pytest.mark.parametrize(
        "options",
        [
            {"compression": "lzw", "predictor": True},
            {"compression": "zstd"},
            {"compression": "jpeg2000"},
            {"compression": "jpegxr"},
            {"compression": "lzma", "bigtiff": True},
            {"compression": "packbits", "byteorder": ">"},
        ],
    )
    def test_compressed(self, tmp_path: Path, options: dict) -> None:
        tifffile.imwrite(tmp_path / "a.tif", IMAGE[0], tile=(16, 16), **options)
        np.testing.assert_array_equal(load(tmp_path / "a.tif"), IMAGE[:1])

    def test_pixels_of_12_bits(self, tmp_path: Path) -> None:
        """Two pixels in three bytes, as cameras write them: first as bytes, then with other tags."""
        image = IMAGE[0] & 0xFFF
        first, second = image[:, ::2], image[:, 1::2]
        packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1).astype(np.uint8)
        tifffile.imwrite(tmp_path / "a.tif", packed.reshape(60, 120), metadata=None)
        with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
            file.pages[0].tags["ImageWidth"].overwrite(80)
            file.pages[0].tags["BitsPerSample"].overwrite(12)
        np.testing.assert_array_equal(load(tmp_path / "a.tif"), image[np.newaxis])

    def test_stained_tissue_as_jpeg(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", COLOURS, photometric="ycbcr", compression="jpeg", tile=(16, 16))
        found, names = channels(tmp_path / "a.tif")
        np.testing.assert_array_equal(found, np.moveaxis(tifffile.imread(tmp_path / "a.tif"), -1, 0))
        assert names == ["red", "green", "blue"]

    def test_a_palette_says_only_how_values_are_shown(self, tmp_path: Path) -> None:
        palette = RNG.integers(0, 2**16, (3, 256)).astype(np.uint16)
        tifffile.imwrite(tmp_path / "a.tif", COLOURS[..., 0], photometric="palette", colormap=palette)
        np.testing.assert_array_equal(load(tmp_path / "a.tif"), COLOURS[np.newaxis, ..., 0])

    def test_a_stack_of_metamorph(self, tmp_path: Path) -> None:
        planes = ((1, 1) + (2_450_000, 0) * 2) * 3
        tags = [(33628, 4, 2, (0, 0)), (33629, 4, 18, planes), (33630, 5, 3, (1, 1) * 3), (33631, 4, 3, (1, 2, 3))]
        options: dict[str, Any] = {"metadata": None, "photometric": "minisblack", "truncate": True}
        tifffile.imwrite(tmp_path / "a.stk", IMAGE, extratags=[(*tag, True) for tag in tags], **options)
        content = (tmp_path / "a.stk").read_bytes()
        # tifffile can't write this tag as MetaMorph does: one value of six numbers for each plane
        content = content.replace(struct.pack("<HHI", 33629, 4, 18), struct.pack("<HHI", 33629, 5, 3))
        (tmp_path / "a.stk").write_bytes(content)
        np.testing.assert_array_equal(load(tmp_path / "a.stk", z=1), IMAGE[1:2])
        with refused(r"a.stk: its axes are z = 3, y = 60, x = 80. Choose the planes"):
            load(tmp_path / "a.stk")

    def test_a_stack_of_zeiss(self, tmp_path: Path) -> None:
        write_lsm(tmp_path / "a.lsm", STACK[0])
        found, names = channels(tmp_path / "a.lsm", z="max")
        np.testing.assert_array_equal(found, STACK[0].max(0))
        assert names == NAMES

    @pytest.mark.parametrize("compression", [None, "zstd"])
    def test_a_file_that_was_cut_off(self, tmp_path: Path, compression: Any) -> None:
        tifffile.imwrite(tmp_path / "a.tif", IMAGE[0], compression=compression)
        content = (tmp_path / "a.tif").read_bytes()
        (tmp_path / "a.tif").write_bytes(content[: len(content) // 2])
        with refused(r"a.tif: .*(ends before its last pixel; copy|cannot be decoded: .* Copy)"):
            load(tmp_path / "a.tif")

    def test_a_page_that_was_never_written(self, tmp_path: Path) -> None:
        """As libtiff leaves a file when the disk is full: the tags are there, and no tile is."""
        write_pages(tmp_path / "a.tif", IMAGE, tile=(16, 16), compression="zlib", metadata=None)
        with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
            for name in ("TileOffsets", "TileByteCounts"):
                tag = file.pages[1].tags[name]
                tag.overwrite([0] * tag.count)
        with refused(r"a.tif: 1 of its 3 pages have no pixels; copy or export"):
            load(tmp_path / "a.tif")

    def test_what_is_no_tiff(self, tmp_path: Path) -> None:
        (tmp_path / "a.czi").write_bytes(b"ZISRAWFILE" + bytes(100))
        with refused(r"a.czi: cannot be read as TIFF: .*Convert it to OME-TIFF, or load it as an array"):
            load(tmp_path / "a.czi")
        with refused(r"there is no such file, it is a folder"):
            load(tmp_path)


class TestMasks:
    @pytest.fixture
    def project(self, tmp_path: Path, make_cells) -> Project:
        project = Project(tmp_path / "project", overwrite=True)
        project.load_input_from_array(make_cells()[0])
        return project

    def test_two_in_one_file_are_refused(self, tmp_path: Path, project: Project, make_cells) -> None:
        _, nucleus, cytosol = make_cells()
        for options in ({"metadata": None}, {}, {"compression": "zlib"}):
            path = write_pages(tmp_path / "both.tif", [nucleus, cytosol], **options)
            with pytest.raises(InputError, match=r"both.tif: it holds 2 planes \(y, x\); a mask is one") as caught:
                project.load_segmentation(path)
            code = re.search(r"load_segmentation\(.*\)$", str(caught.value))
            eval(f"project.{code[0]}", {"project": project, "tifffile": tifffile, "path": path})
            np.testing.assert_array_equal(np.asarray(project.sdata["seg_all_nucleus"]), nucleus)
            np.testing.assert_array_equal(np.asarray(project.sdata["seg_all_cytosol"]), cytosol)

    def test_one_of_two_in_one_file_is_chosen(self, tmp_path: Path, project: Project, make_cells) -> None:
        _, nucleus, cytosol = make_cells()
        both = write_pages(tmp_path / "both.tif", [nucleus, cytosol])
        project.load_segmentation(both, series=0)
        project.load_segmentation(cytosol=both, series=1)
        np.testing.assert_array_equal(np.asarray(project.sdata["seg_all_nucleus"]), nucleus)
        np.testing.assert_array_equal(np.asarray(project.sdata["seg_all_cytosol"]), cytosol)

    def test_a_plane_of_a_stack(self, tmp_path: Path, project: Project, make_cells) -> None:
        _, nucleus, cytosol = make_cells()
        tifffile.imwrite(tmp_path / "a.ome.tif", np.stack([cytosol, nucleus]), metadata={"axes": "ZYX"})
        with refused(r"a.ome.tif: its axes are z = 2, .*Choose the plane: z=0 to z=1$"):
            project.load_segmentation(tmp_path / "a.ome.tif")
        project.load_segmentation(tmp_path / "a.ome.tif", np.stack([nucleus, cytosol]), z=1)
        np.testing.assert_array_equal(np.asarray(project.sdata["seg_all_nucleus"]), nucleus)
        np.testing.assert_array_equal(np.asarray(project.sdata["seg_all_cytosol"]), cytosol)

    @pytest.mark.parametrize("z", ["max", [0, 1]])
    def test_planes_of_a_mask_are_not_joined(self, project: Project, make_cells, z: Any) -> None:
        with refused(r"z = .*: a mask is one plane, so z must be an index"):
            project.load_segmentation(np.stack([make_cells()[1]] * 2), z=z)
