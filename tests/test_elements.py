"""Image and masks found in stores that spatialdata wrote, and clear words about stores that can't be used."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from cellstamp.errors import InputError
from cellstamp.source.find.elements import find_labels, find_source
from cellstamp.source.library_messages import quiet
from cellstamp.source.load.ome_groups import open_group
from cellstamp.source.load.spatialdata_in_memory import as_store
from cellstamp.source.values import Rect
from conftest import make_cells, write_store

WHOLE = Rect(0, 200, 0, 200)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> dict[str, Path]:
    """Stores that spatialdata wrote, by how: each once for all tests here, which work on copies."""
    return {"folder": tmp_path_factory.mktemp("written")}


@pytest.fixture
def copied_store(written, tmp_path) -> Callable[..., Path]:
    """Copy a store with made-up cells; options are those of `write_store`."""

    def copy(**options: Any) -> Path:
        key = str(options)
        if key not in written:
            image, nucleus, cytosol = make_cells()
            masks = {"seg_all_nucleus": nucleus, "seg_all_cytosol": cytosol}
            store = written["folder"] / f"{len(written)}.zarr"
            written[key] = write_store(store, image, masks, **{"chunks": 200, **options})
        return shutil.copytree(written[key], tmp_path / "scportrait.sdata")

    return copy


def metadata_file(group: Path) -> Path:
    return next(path for path in (group / "zarr.json", group / ".zattrs") if path.exists())


def edit_ome(group: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the OME metadata of an element where it stands."""
    path = metadata_file(group)
    content = json.loads(path.read_text())
    attributes = content["attributes"] if path.name == "zarr.json" else content
    change(attributes.get("ome", attributes))
    path.write_text(json.dumps(content))


def replace_array(group: Path, data: np.ndarray) -> None:
    """Put other pixels in the place of an element's full-resolution level."""
    zarr.create_array(store=str(group), name="s0", data=data, chunks=data.shape, overwrite=True)


def rename_labels(store: Path, **names: str) -> None:
    """Rename labels (nucleus=..., cytosol=...), or remove them (an empty name)."""
    for which, name in names.items():
        folder = store / "labels" / f"seg_all_{which}"
        folder.rename(folder.with_name(name)) if name else shutil.rmtree(folder)


# --- what is found ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["s0", "0"])
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("multiscale", [False, True])
def test_the_full_resolution_arrays_are_found(copied_store, path, zarr_format, multiscale):
    image, nucleus, cytosol = make_cells()
    store = copied_store(zarr_format=zarr_format, multiscale=multiscale, chunks=80, label_chunks=64)
    for element in ("images/input_image", "labels/seg_all_nucleus", "labels/seg_all_cytosol"):
        if path != "s0":
            (store / element / "s0").rename(store / element / path)
            edit_ome(store / element, lambda ome: ome["multiscales"][0]["datasets"][0].update(path=path))
        assert (store / element / "s1").exists() == multiscale
    source = find_source(str(store))
    assert source.image.path == f"images/input_image/{path}"
    assert (source.image.shape, source.image.chunks, source.image.dtype) == ((3, 200, 200), (1, 80, 80), "uint16")
    assert source.shape == (200, 200)
    assert source.mask_names == ("seg_all_nucleus", "seg_all_cytosol")
    assert source.main_mask.name == "seg_all_nucleus"
    assert [(mask.shape, mask.chunks, mask.dtype) for mask in source.masks] == [((200, 200), (64, 64), "uint32")] * 2
    assert source.channel_names == ("ch0", "ch1", "ch2")
    assert np.array_equal(source.image.read(WHOLE), image)
    assert np.array_equal(source.masks[0].read(WHOLE), nucleus)
    assert np.array_equal(source.masks[1].read(WHOLE), cytosol)


def test_levels_are_taken_in_the_order_of_the_metadata(copied_store):
    store = copied_store(multiscale=True)
    for element in ("images/input_image", "labels/seg_all_nucleus", "labels/seg_all_cytosol"):
        levels = store / element
        (levels / "s0").rename(levels / "zz")
        edit_ome(levels, lambda ome: ome["multiscales"][0]["datasets"][0].update(path="zz"))
    assert find_source(store).image.shape == (3, 200, 200)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("multiscale", [False, True])
@pytest.mark.parametrize(
    "names",
    [
        [0, 1, 2],
        [7, "actin", 9],
        ["a channel name of more than fifteen characters", "a channel name of more", "β-tubulin"],
    ],
)
def test_channel_names_are_texts_and_whole(copied_store, names, zarr_format, multiscale):
    store = copied_store(channel_names=names, zarr_format=zarr_format, multiscale=multiscale)
    assert find_source(store).channel_names == tuple(map(str, names))


@pytest.mark.parametrize(
    "change",
    [
        lambda ome: ome.pop("omero"),
        lambda ome: ome.update(omero=None),
        lambda ome: ome["omero"].pop("channels"),
        lambda ome: ome["omero"].update(channels=ome["omero"]["channels"][:2]),
        lambda ome: ome["omero"].update(channels=["a", "b", "c"]),
    ],
)
def test_without_usable_names_channels_are_numbered(copied_store, change):
    store = copied_store()
    edit_ome(store / "images/input_image", change)
    assert find_source(store).channel_names == ("0", "1", "2")


def test_a_channel_without_a_label_is_numbered(copied_store):
    store = copied_store()
    edit_ome(store / "images/input_image", lambda ome: ome["omero"]["channels"][1].pop("label"))
    assert find_source(store).channel_names == ("ch0", "1", "ch2")


def described_as(ome: dict[str, Any], version: str, keys: tuple[str, ...]) -> None:
    """Name channels as a version of SpatialData's format does; ``keys`` are those of its time."""
    ome.pop("omero", None)
    for key in keys:
        ome[key] = {"channels": [{"label": f"{key} {channel}"} for channel in "abc"]}
    if "version" in ome["multiscales"][0]:
        ome["multiscales"][0]["version"] = version


@pytest.mark.parametrize("multiscale", [False, True])
@pytest.mark.parametrize("keys", [("channels_metadata",), ("channels_metadata", "omero"), ("omero",)])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_channel_names_are_those_that_spatialdata_reads(copied_store, zarr_format, keys, multiscale):
    """In every version of the format that the installed spatialdata reads."""
    with quiet():
        import spatialdata
        from spatialdata._io.format import RasterFormats

    versions = [form.version for form in RasterFormats.values() if form.zarr_format == zarr_format]
    assert versions
    store = copied_store(zarr_format=zarr_format, multiscale=multiscale)
    for version in versions:
        edit_ome(store / "images/input_image", partial(described_as, version=version, keys=keys))
        with quiet():
            sdata = spatialdata.read_zarr(store)
            theirs = spatialdata.models.get_channel_names(sdata["input_image"])
        assert theirs == [f"{keys[-1]} {channel}" for channel in "abc"]
        assert find_source(store).channel_names == tuple(theirs)
        assert open_group(store / "images/input_image", ("c", "y", "x"))[1] == theirs
        assert as_store(sdata, ["input_image", "seg_all_nucleus"], store.parent) == str(store)  # no other names


def test_another_image_is_found_by_its_name(copied_store):
    store = copied_store()
    (store / "images/input_image").rename(store / "images/other")
    assert find_source(store, image="other").image.name == "other"


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32, np.int64, np.uint64])
def test_labels_of_any_integer_type(copied_store, dtype):
    store = copied_store()
    for which in ("nucleus", "cytosol"):
        replace_array(store / f"labels/seg_all_{which}", np.ones((200, 200), dtype))
    assert find_source(store).main_mask.dtype == np.dtype(dtype).name


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.uint64, np.int16, np.int32])
def test_images_of_any_integer_type(copied_store, dtype):
    store = copied_store()
    replace_array(store / "images/input_image", np.ones((3, 200, 200), dtype))
    assert find_source(store).image.dtype == np.dtype(dtype).name


# --- which masks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", ["nucleus", "cytosol"])
def test_one_mask_is_enough(copied_store, gone):
    store = copied_store()
    rename_labels(store, **{gone: ""})
    (left,) = {"nucleus", "cytosol"} - {gone}
    source = find_source(store)
    assert source.mask_names == (f"seg_all_{left}",)
    assert source.main_mask.name == f"seg_all_{left}"


def test_the_key_must_be_the_whole_of_the_name_before_the_word(copied_store):
    store = copied_store()
    rename_labels(store, nucleus="my_seg_all_nucleus", cytosol="seg_all_cytosol_2")
    message = (
        r"no labels named seg_all_nucleus or seg_all_cytosol in .*scportrait\.sdata; "
        r"it has my_seg_all_nucleus, seg_all_cytosol_2\. Load masks, or name .* nucleus_labels and cytosol_labels"
    )
    with pytest.raises(InputError, match=message):
        find_source(store)
    with pytest.raises(InputError, match="no labels named seg_nucleus or seg_cytosol"):
        find_source(store, segmentation_key="seg")
    assert find_source(store, segmentation_key="my_seg_all").mask_names == ("my_seg_all_nucleus",)


def test_a_store_without_any_labels_says_so(copied_store):
    store = copied_store()
    shutil.rmtree(store / "labels")
    with pytest.raises(InputError, match=r"no labels named seg_all_nucleus .*; it has none\. Load masks"):
        find_source(store)


@pytest.mark.parametrize(
    ("nucleus", "cytosol", "mask", "found"),
    [
        ("the nucleus", "b", "the nucleus", ("the nucleus",)),
        ("a", "cytosol_v2", "cytosol_v2", ("cytosol_v2",)),
        ("a", "cytosol_v2", ["cytosol_v2"], ("cytosol_v2",)),
        ("nucleus_x", "a_cytosol", ["nucleus_x", "a_cytosol"], ("nucleus_x", "a_cytosol")),
        ("nucleus_x", "a_cytosol", ["a_cytosol", "nucleus_x"], ("nucleus_x", "a_cytosol")),
        ("nucleus_x", "a_cytosol", ("a_cytosol", "nucleus_x"), ("nucleus_x", "a_cytosol")),
    ],
)
def test_masks_named_outright(copied_store, nucleus, cytosol, mask, found):
    store = copied_store()
    rename_labels(store, nucleus=nucleus, cytosol=cytosol)
    # the key plays no part then
    source = find_source(store, segmentation_key="nothing", segmentation_mask=mask)
    assert source.mask_names == found


def test_a_single_name_with_neither_word_is_the_cytosol_mask_with_a_warning(copied_store):
    store = copied_store()
    rename_labels(store, nucleus="cells", cytosol="b")
    with pytest.warns(
        UserWarning, match="'cells': the name contains neither 'nucleus' nor 'cytosol'. It is used as the cytosol mask"
    ):
        source = find_source(store, segmentation_mask="cells")
    assert source.mask_names == ("cells",)


@pytest.mark.parametrize(
    "mask",
    [["cells", "a_nucleus"], ["cells"], [], ["a_nucleus", "a_nucleus"], ["a_nucleus", "b_nucleus"]],
)
def test_a_list_must_say_which_is_which(copied_store, mask):
    store = copied_store()
    rename_labels(store, nucleus="a_nucleus", cytosol="cells")
    shutil.copytree(store / "labels/a_nucleus", store / "labels/b_nucleus")
    message = rf"segmentation_mask {re.escape(str(mask))}: .*containing 'nucleus' .* 'cytosol'"
    with pytest.raises(InputError, match=message):
        find_source(store, segmentation_mask=mask)


def test_a_named_mask_that_is_not_there(copied_store):
    store = copied_store()
    with pytest.raises(
        InputError,
        match=r"segmentation_mask: no labels named 'my_nucleus' in .*; it has .*; did you mean 'seg_all_nucleus'\?",
    ):
        find_source(store, segmentation_mask=["my_nucleus", "seg_all_cytosol"])


# --- what can't be used -----------------------------------------------------------------------------------------------


def test_no_store(tmp_path):
    with pytest.raises(
        InputError, match=r"/nothing\.zarr does not exist\. Check the path; in a project, load an image"
    ):
        find_source(tmp_path / "nothing.zarr")


def test_no_store_at_a_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=rf"^nothing\.zarr does not exist in {re.escape(str(tmp_path))}\. Check the path"
    ):
        find_source("nothing.zarr")


def test_a_folder_or_a_file_that_is_no_store(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    for name in ("folder", "file"):
        with pytest.raises(InputError, match=f"{name} is not a SpatialData zarr store"):
            find_source(tmp_path / name)


def test_an_array_is_no_store(tmp_path):
    zarr.create_array(store=str(tmp_path / "x.zarr"), data=np.zeros((3, 3)))
    with pytest.raises(InputError, match=r"x\.zarr is not a SpatialData zarr store"):
        find_source(tmp_path / "x.zarr")


@pytest.mark.parametrize(
    ("broken", "where"),
    [
        ("", ""),
        ("images", "images"),
        ("images/input_image", "images"),
        ("labels/seg_all_nucleus", "labels"),
        ("labels/seg_all_nucleus/s0", "labels/seg_all_nucleus/s0"),
    ],
)
@pytest.mark.parametrize("content", [b'{"attributes": ', b"[]", b'{"zarr_format": 9}', b"\xff"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_metadata_that_cannot_be_read(copied_store, broken, where, content, zarr_format):
    store = copied_store(zarr_format=zarr_format)
    metadata = ("zarr.json", ".zarray", ".zgroup")
    next(path for name in metadata if (path := store / broken / name).exists()).write_bytes(content)
    with pytest.raises(InputError, match=rf"metadata in {re.escape(str(store / where))} is damaged .*Write it again"):
        find_source(store)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("kind", "name"), [("images", "input_image"), ("labels", "seg_all_nucleus"), ("labels", "seg_all_cytosol")]
)
@pytest.mark.parametrize(
    "change",
    [
        lambda ome: ome.clear(),
        lambda ome: ome.update(multiscales=[]),
        lambda ome: ome.update(multiscales=None),
        lambda ome: ome.update(multiscales="damaged"),
        lambda ome: ome["multiscales"][0].pop("datasets"),
        lambda ome: ome["multiscales"][0].update(datasets=[]),
        lambda ome: ome["multiscales"][0]["datasets"][0].pop("path"),
        lambda ome: ome["multiscales"][0]["datasets"][0].update(path="s7"),
        lambda ome: ome["multiscales"][0].pop("axes"),
        lambda ome: ome["multiscales"][0].update(axes=["y", "x"]),
    ],
)
def test_damaged_metadata(copied_store, zarr_format, kind, name, change):
    store = copied_store(zarr_format=zarr_format)
    edit_ome(store / kind / name, change)
    message = rf"{kind} element '{name}' in {re.escape(str(store))} has no valid OME metadata .*Write it again"
    with pytest.raises(InputError, match=message):
        find_source(store)


def test_no_image(copied_store):
    store = copied_store()
    (store / "images/input_image").rename(store / "images/scan")
    with pytest.raises(InputError, match=r"no images element named 'input_image' in .*scportrait\.sdata; it has scan"):
        find_source(store)
    shutil.rmtree(store / "images")
    with pytest.raises(InputError, match=r"no images element named 'input_image' in .*; it has none"):
        find_source(store)


def test_wrong_axes(copied_store):
    store = copied_store()
    edit_ome(store / "images/input_image", lambda ome: ome["multiscales"][0]["axes"].reverse())
    with pytest.raises(
        InputError,
        match=r"'input_image' in .* has the axes x, y, c and 3 dimensions; it must have .* c, y, x or y, x or y, x, c",
    ):
        find_source(store)
    edit_ome(store / "labels/seg_all_nucleus", lambda ome: ome["multiscales"][0]["axes"].insert(0, {"name": "z"}))
    with pytest.raises(
        InputError,
        match=r"'seg_all_nucleus' in .* has the axes z, y, x and 2 dimensions; it must have the axes y, x",
    ):
        find_labels(store, "seg_all_nucleus")


@pytest.mark.parametrize(
    ("element", "shape"),
    [
        ("images/input_image", (200, 200)),
        ("images/input_image", (1, 3, 200, 200)),
        ("labels/seg_all_nucleus", (1, 200, 200)),
    ],
)
def test_an_array_with_more_or_fewer_dimensions_than_its_axes(copied_store, element, shape):
    store = copied_store()
    replace_array(store / element, np.ones(shape, np.uint16))
    name = Path(element).name
    with pytest.raises(
        InputError, match=rf"'{name}' in .* has the axes .* and {len(shape)} dimensions; it must have the axes "
    ):
        find_source(store)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.bool_])
def test_labels_that_are_no_integers(copied_store, dtype):
    store = copied_store()
    replace_array(store / "labels/seg_all_cytosol", np.ones((200, 200), dtype))
    message = rf"labels 'seg_all_cytosol' in .* are {np.dtype(dtype)}; masks must be integers"
    with pytest.raises(InputError, match=message):
        find_source(store)
    with pytest.raises(InputError, match=message):
        find_labels(store, "seg_all_cytosol")


@pytest.mark.parametrize("dtype", [np.float16, np.bool_])
def test_images_of_another_type(copied_store, dtype):
    store = copied_store()
    replace_array(store / "images/input_image", np.ones((3, 200, 200), dtype))
    with pytest.raises(
        InputError, match=rf"image 'input_image' in .* is {np.dtype(dtype)}; it must be one of .*, float64. Convert"
    ):
        find_source(store)


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((199, 200), "1 rows fewer and as many columns"),
        ((200, 201), "as many rows and 1 columns more"),
        ((100, 100), "100 rows fewer and 100 columns fewer"),
    ],
)
def test_masks_of_another_size(copied_store, shape, told):
    store = copied_store()
    replace_array(store / "labels/seg_all_cytosol", np.ones(shape, np.uint32))
    message = (
        r"image 'input_image' and labels 'seg_all_cytosol' in .*scportrait\.sdata do not match: the image "
        rf"is 200 x 200 pixels \(y, x\) and the labels {shape[0]} x {shape[1]}, which is {told}\. Both must have "
        "the same pixels, or transformations that place them"
    )
    with pytest.raises(InputError, match=message):
        find_source(store)


def test_labels_that_are_not_there(copied_store):
    with pytest.raises(
        InputError, match=r"no labels element named 'cells' in .*; it has seg_all_cytosol, seg_all_nucleus"
    ):
        find_labels(copied_store(), "cells")
