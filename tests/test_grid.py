"""Images and labels on different grids: errors of projects and extractions, and that the code they print works."""

from __future__ import annotations

import re
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel
from spatialdata.transformations import Affine, Identity, Scale, Translation
from spatialdata.transformations import Sequence as Chain

import restatement
from cellstamp import HDF5CellExtraction, Project, rasterize_labels
from cellstamp.errors import InputError
from cellstamp.source.find.elements import find_image, find_labels, find_source
from cellstamp.source.find.grid import check_same_grid
from cellstamp.source.find.masks import MaskChoice
from cellstamp.source.load.spatialdata_in_memory import as_store
from cellstamp.source.load.store import open_sdata
from cellstamp.source.store_root import open_root
from stores import CYTOSOL, make_sample

SAMPLE = make_sample((160, 190))
LABELS = SAMPLE.masks[CYTOSOL]
CELLS = MaskChoice(cytosol_labels="cells")


def scale(y: float, x: float) -> Any:
    return Scale([y, x], axes=("y", "x"))


def shift(y: float, x: float) -> Any:
    return Translation([y, x], axes=("y", "x"))


def made(labels: np.ndarray, of_image: Any, of_labels: Any, *, multiscale: bool = False) -> SpatialData:
    options: dict[str, Any] = {"scale_factors": [2]} if multiscale else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image2DModel.parse(
            SAMPLE.image, dims=("c", "y", "x"), c_coords=SAMPLE.channel_names, transformations=of_image, **options
        )
        masks = Labels2DModel.parse(labels, dims=("y", "x"), transformations=of_labels, **options)
        return SpatialData(images={"scan": image}, labels={"cells": masks})


def on_disk(sdata: SpatialData, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata.write(path)
    return path


def check_project(store: str | Path, image: str = "scan", labels: str = "cells") -> None:
    """The check of a project: its masks have the pixels of its image."""
    check_same_grid(open_root(str(store)), find_image(store, image).image, find_labels(store, labels))  # type: ignore[arg-type]


ONE = {"global": Identity()}
TURNED = Affine([[0, 1, 2], [-1, 0, 4], [0, 0, 1]], input_axes=("y", "x"), output_axes=("y", "x"))


@pytest.mark.parametrize(
    ("labels", "of_image", "of_labels", "told"),
    [
        (LABELS[10:], ONE, ONE, "labels 150 x 190, which is 10 rows fewer and as many columns. Both must"),
        (
            LABELS[10:],
            ONE,
            {"global": shift(10, 0)},
            "as many columns; in 'global' a pixel .*: in pixels of the image, the labels are 10 pixels lower. Both",
        ),
        (
            LABELS,
            ONE,
            {"global": shift(12.5, -3)},
            "the labels are 12.5 pixels lower, the labels are 3 pixels further left",
        ),
        (
            LABELS[::2, ::2],
            ONE,
            {"global": scale(2, 2)},
            "80 rows fewer and 95 columns fewer; .*2 pixels high and 2 wide",
        ),
        (
            LABELS,
            {"um": scale(0.5, 0.5)},
            {"um": scale(0.25, 0.5)},
            "in 'um' .*a pixel of the labels is 0.5 pixels high and 1",
        ),
        (LABELS, {"um": scale(0.5, 0.5)}, {"um": Chain([scale(0.5, 0.5), shift(1, 0)])}, "labels are 2 pixels lower"),
        (LABELS, ONE, {"global": TURNED}, "the labels are rotated or sheared"),
    ],
)
def test_what_differs_is_told_in_pixels(
    tmp_path: Path, labels: np.ndarray, of_image: Any, of_labels: Any, told: str
) -> None:
    store = on_disk(made(labels, of_image, of_labels), tmp_path / "s.zarr")
    with pytest.raises(InputError, match=rf"image 'scan' and labels 'cells' in .*s\.zarr do not match.*{told}"):
        check_project(store)


def test_without_a_common_system_there_is_no_telling(tmp_path: Path) -> None:
    store = on_disk(made(LABELS[1:], {"a": Identity()}, {"b": Identity()}), tmp_path / "s.zarr")
    message = (
        r"no coordinate system in common \(the image's: a; the labels': b\): set the position .*set_transformation"
    )
    with pytest.raises(InputError, match=message):
        find_source(store, image="scan", masks=CELLS)


@pytest.mark.parametrize("system", [None, "a"])
def test_pixels_in_different_systems_are_no_match_even_if_there_are_as_many(tmp_path: Path, system: str | None) -> None:
    store = on_disk(made(LABELS, {"a": Identity()}, {"b": Identity()}), tmp_path / "s.zarr")
    message = (
        r"image 'scan' and labels 'cells' in .*s\.zarr do not match\. Both must have .*They have no coordinate system "
        r"in common \(the image's: a; the labels': b\)\. If they match pixel by pixel, give both the same "
        "transformation:"
    )
    with pytest.raises(InputError, match=f"(?s){message}") as caught:
        find_source(store, image="scan", masks=CELLS, coordinate_system=system)
    with pytest.raises(InputError, match=f"(?s){message}"):
        check_project(store)
    sdata = open_sdata(store)
    follow(pieces_of(str(caught.value))[0], sdata)
    check(extract(sdata, tmp_path, "cells"), LABELS)


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_pixels_without_any_transformation_are_at_identity(tmp_path: Path) -> None:
    """As plain OME-Zarr has them."""
    store = on_disk(made(LABELS, {"a": Identity()}, {"b": Identity()}), tmp_path / "s.zarr")
    group = zarr.open_group(store / "labels/cells")
    described = group.attrs["ome"]
    del described["multiscales"][0]["coordinateTransformations"]
    group.attrs["ome"] = described
    zarr.consolidate_metadata(store)
    for system in (None, "a"):
        found = find_source(store, image="scan", masks=CELLS, coordinate_system=system)
        assert "labels 'cells': identity, the pixels of image 'scan'" in found.positions
    check_project(store)


METRES = {"global": scale(4e-7, 4e-7)}


def far_away(right: float) -> dict[str, Any]:
    """A tenth of a micrometre per pixel, at the position of a stage in micrometres."""
    return {"global": Chain([scale(0.1, 0.1), shift(2e5, 2e5 + right)])}


@pytest.mark.parametrize(
    ("of_image", "of_labels", "told"),
    [
        (METRES, {"global": scale(2e-7, 2e-7)}, r"scale \(a pixel of the labels is 0\.5 pixels high and 0\.5 wide\)"),
        (METRES, {"global": Chain([scale(4e-7, 4e-7), shift(0, 8e-7)])}, "2 pixels further right"),
        (far_away(0), far_away(0.1), "1 pixels further right"),
        (far_away(0), far_away(0.05), r"0\.5 pixels further right"),
        (far_away(0), far_away(1e-5), "identity, the pixels of image 'scan'"),
        (METRES, {"global": Chain([shift(1, 1), scale(4e-7, 4e-7), shift(-4e-7, -4e-7)])}, "identity, the pixels"),
    ],
)
def test_positions_are_compared_in_pixels_whatever_the_unit(
    tmp_path: Path, of_image: Any, of_labels: Any, told: str
) -> None:
    store = on_disk(made(LABELS, of_image, of_labels), tmp_path / "s.zarr")
    (said,) = [each for each in find_source(store, image="scan", masks=CELLS).positions if "'cells'" in each]
    assert re.search(told, said)


def advice(sdata: Any, image: str, labels: str, path: Path) -> list[str]:
    """The pieces of Python in the error, as someone would copy them."""
    with pytest.raises(InputError, match="sdata is the SpatialData object") as caught:
        check_project(on_disk(sdata, path), image, labels)
    return pieces_of(str(caught.value))


def pieces_of(message: str) -> list[str]:
    blocks = re.findall(r"((?:^    .*\n|^\n)+)", message, re.MULTILINE)
    return [textwrap.dedent(block) for block in blocks if block.strip()]


def keep(sdata: Any, name: str) -> None:
    """Write new labels into the store, if they are not there yet."""
    if not (Path(sdata.path) / "labels" / name).exists():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sdata.write_element(name)


def follow(code: str, sdata: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(code, {"sdata": sdata})


def pixels_of(element: Any) -> np.ndarray:
    return np.asarray((element["scale0"].image if hasattr(element, "children") else element).data)


def extract(handler: Any, folder: Path, labels: str, image: str = "scan") -> HDF5CellExtraction:
    keys = {"threads": 1, "image_size": 24, "cache": str(folder / "cache"), "image": image, "cytosol_labels": labels}
    step = HDF5CellExtraction(keys, folder / "out", overwrite=True, filehandler=handler)
    step()
    return step


def check(step: HDF5CellExtraction, labels: np.ndarray, image: np.ndarray = SAMPLE.image) -> None:
    ids, _, stamps = restatement.extract([labels], image, 24, (0.001, 0.999))
    with h5py.File(str(step.output_path)) as file:
        assert file["obs/scportrait_cell_id"][:].tolist() == ids.tolist()
        assert restatement.same_bits(file["obsm/single_cell_images"][:], stamps)


def upper_rows_missing() -> np.ndarray:
    labels = LABELS.copy()
    labels[:10] = 0
    return labels


def doubled() -> np.ndarray:
    return np.repeat(np.repeat(LABELS[::2, ::2], 2, 0), 2, 1)


CASES: list[tuple[Callable[[], np.ndarray], Any, Any, Callable[[], np.ndarray]]] = [
    # cut off above; both in microns, at an odd place
    (
        lambda: LABELS[10:],
        {"global": Chain([scale(0.2, 0.2), shift(7, -40)])},
        {"global": Chain([shift(10, 0), scale(0.2, 0.2), shift(7, -40)])},
        upper_rows_missing,
    ),
    # every second pixel; seen from elsewhere and turned
    (
        lambda: LABELS[::2, ::2],
        {"global": TURNED},
        {"global": Chain([scale(2, 2), TURNED])},
        doubled,
    ),
    # of another image's size, and larger
    (lambda: np.pad(LABELS, 5), ONE, {"global": shift(-5, -5)}, lambda: LABELS),
    # of the same size, moved by whole pixels
    (
        lambda: np.roll(LABELS, -4, axis=0) * (np.arange(160) < 156)[:, None].astype(np.uint32),
        ONE,
        {"global": shift(4, 0)},
        lambda: LABELS * (np.arange(160) >= 4)[:, None].astype(np.uint32),
    ),
]


@pytest.mark.parametrize("multiscale", [False, True])
@pytest.mark.parametrize("case", range(len(CASES)))
def test_following_the_advice_puts_the_labels_onto_the_image(tmp_path: Path, case: int, *, multiscale: bool) -> None:
    make, of_image, of_labels, expected = CASES[case]
    sdata = made(make(), of_image, of_labels, multiscale=multiscale)
    *_, draw = advice(sdata, "scan", "cells", tmp_path / "s.zarr")
    follow(draw, sdata)
    assert np.array_equal(pixels_of(sdata["cells_on_image"]), expected())
    check(extract(sdata, tmp_path, "cells_on_image"), expected())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata.write_element("cells_on_image")
    check(extract(tmp_path / "s.zarr", tmp_path, "cells_on_image"), expected())


def test_following_the_advice_gives_both_the_same_place(tmp_path: Path) -> None:
    """The pixels belong together; only what is said about their place is wrong."""
    sdata = made(LABELS, {"global": scale(0.5, 0.5)}, ONE)
    first, _ = advice(sdata, "scan", "cells", tmp_path / "s.zarr")
    with pytest.raises(InputError, match="2 pixels high and 2 wide"):
        extract(sdata, tmp_path, "cells")
    follow(first, sdata)
    check(extract(sdata, tmp_path, "cells"), LABELS)
    sdata.write_transformations()
    check(extract(tmp_path / "s.zarr", tmp_path, "cells"), LABELS)


def test_an_object_is_checked_as_it_is_in_memory(tmp_path: Path) -> None:
    """Not as it was written: there its elements lay on each other."""
    from spatialdata.transformations import set_transformation

    sdata = open_sdata(on_disk(made(LABELS, ONE, ONE), tmp_path / "s.zarr"))
    set_transformation(sdata["cells"], shift(3, 0), "global")
    check(extract(sdata, tmp_path, "cells"), np.pad(LABELS[:-3], ((3, 0), (0, 0))))
    stored = Path(as_store(sdata, ["scan", "cells"], tmp_path))  # and yet no pixel is copied
    assert (stored / "labels/cells/s0").resolve() == tmp_path / "s.zarr/labels/cells/s0"


def test_another_image_that_lies_on_the_labels_is_named(tmp_path: Path) -> None:
    """Visium HD: an image in high resolution, and the one it was made from, which is what was segmented."""
    name = "Colon_HD"
    sdata = made(LABELS, {name: Identity()}, {name: Identity()}, multiscale=True)
    sdata[f"{name}_full_image"] = sdata["scan"]
    small = {name: scale(4, 4), f"{name}_downscaled_hires": Identity()}
    sdata[f"{name}_hires_image"] = Image2DModel.parse(
        SAMPLE.image[:, ::4, ::4], dims=("c", "y", "x"), transformations=small
    )
    del sdata["scan"]
    store = on_disk(sdata, tmp_path / "s.zarr")
    message = (
        r"image 'Colon_HD_hires_image' and labels 'cells' .* 40 x 48 pixels \(y, x\) and the labels 160 x 190, .*: in "
        r"pixels of the image, a pixel of the labels is 0\.25 pixels high and 0\.25 wide\. .*"
        r"The labels match 'Colon_HD_full_image': set image to that"
    )
    with pytest.raises(InputError, match=message):
        check_project(store, f"{name}_hires_image")
    assert find_source(store, image=f"{name}_full_image", masks=CELLS).shape == LABELS.shape


# --- what spatialdata reads from disk: an image's transformation is one of c, y and x ---------------------------------


ROUND = [[1.3 * np.cos(0.2), -1.3 * np.sin(0.2), 40], [1.3 * np.sin(0.2), 1.3 * np.cos(0.2), -30], [0, 0, 1]]
REGISTERED = {"global": Affine(ROUND, input_axes=("x", "y"), output_axes=("x", "y"))}
SCANNED = np.broadcast_to(np.array([200, 90], np.uint16)[:, None, None], (2, 130, 140))


def looked_up(labels: np.ndarray, shape: tuple[int, int], to_labels: np.ndarray) -> np.ndarray:
    """The labels under the centre of each pixel, one after the other; ``to_labels`` takes (x, y, 1)."""
    found = np.zeros(shape, labels.dtype)
    for y, x in np.ndindex(*shape):
        column, row, _ = np.floor(to_labels @ [x + 0.5, y + 0.5, 1]).astype(int)
        if 0 <= row < labels.shape[0] and 0 <= column < labels.shape[1]:
            found[y, x] = labels[row, column]
    return found


def registered(path: Path, *, multiscale: bool, others: bool = False) -> Any:
    """A stained image that was registered to the cells of another one, as it is read from disk."""
    options: dict[str, Any] = {"scale_factors": [2]} if multiscale else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata = made(LABELS, ONE, ONE, multiscale=multiscale)
        sdata["he"] = Image2DModel.parse(SCANNED, dims=("c", "y", "x"), transformations=REGISTERED, **options)
        if not others:
            del sdata["scan"]
        return open_sdata(on_disk(sdata, path))


def advised(handler: Any, image: str, labels: str) -> tuple[str, list[str]]:
    """The error for a store on disk, and the pieces of Python in it."""
    with pytest.raises(InputError, match="do not match") as caught:
        check_project(handler.path, image, labels)
    return str(caught.value), pieces_of(str(caught.value))


@pytest.mark.parametrize("multiscale", [False, True])
def test_labels_follow_an_image_that_was_registered(tmp_path: Path, *, multiscale: bool) -> None:
    sdata = registered(tmp_path / "s.zarr", multiscale=multiscale)
    message, (draw,) = advised(sdata, "he", "cells")
    assert "If the position of the labels is correct, resample them to the image's pixels" in message
    follow(draw, sdata)
    expected = looked_up(LABELS, (130, 140), np.array(ROUND))
    assert np.array_equal(pixels_of(sdata["cells_on_image"]), expected)
    assert np.unique(expected).size > 10
    for handler in (sdata, tmp_path / "s.zarr"):
        check(extract(handler, tmp_path, "cells_on_image", image="he"), expected, SCANNED)
        keep(sdata, "cells_on_image")


def test_with_another_image_in_the_store_the_one_asked_for_can_be_had(tmp_path: Path) -> None:
    sdata = registered(tmp_path / "s.zarr", multiscale=False, others=True)
    message, (draw,) = advised(sdata, "he", "cells")
    assert "The labels match 'scan': set image to that. To extract from 'he' itself:\n" in message
    follow(draw, sdata)
    expected = looked_up(LABELS, (130, 140), np.array(ROUND))
    check(extract(sdata, tmp_path, "cells_on_image", image="he"), expected, SCANNED)
    check(extract(sdata, tmp_path, "cells"), LABELS)


@pytest.mark.parametrize("multiscale", [False, True])
def test_one_transformation_for_both_when_it_is_an_affine_one(tmp_path: Path, *, multiscale: bool) -> None:
    sdata = open_sdata(on_disk(made(LABELS, REGISTERED, ONE, multiscale=multiscale), tmp_path / "s.zarr"))
    _, (same, draw) = advised(sdata, "scan", "cells")
    follow(draw, sdata)
    expected = looked_up(LABELS, LABELS.shape, np.array(ROUND))
    check(extract(sdata, tmp_path, "cells_on_image"), expected)
    follow(same, sdata)
    check(extract(sdata, tmp_path, "cells"), LABELS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata.write_transformations("cells")
    check(extract(tmp_path / "s.zarr", tmp_path, "cells"), LABELS)


# --- labels of another resolution, and nothing that says so -----------------------------------------------------------


MICRONS = {"global": scale(0.2125, 0.2125)}


@pytest.mark.parametrize(
    ("labels", "of_image", "of_labels", "told"),
    [
        (LABELS[::2, ::2], ONE, ONE, "y 0 to 160 and x 0 to 190, the labels y 0 to 80 and x 0 to 95"),
        (LABELS[1::4, 1::4], ONE, ONE, "the labels y 0 to 40 and x 0 to 48"),
        (LABELS[::2, ::2], MICRONS, ONE, "y 0 to 34 and x 0 to 40.375, the labels y 0 to 80 and x 0 to 95"),
        (np.kron(LABELS, np.ones((3, 3), np.uint32)), ONE, ONE, "the labels y 0 to 480 and x 0 to 570"),
        (LABELS[::2, ::2], {"a": Identity()}, {"b": Identity()}, r"no coordinate system in common \(the image's: a; "),
    ],
)
def test_labels_of_another_resolution_are_put_where_their_cells_are(
    tmp_path: Path, labels: np.ndarray, of_image: Any, of_labels: Any, told: str
) -> None:
    # with copies of lower resolution where the grids differ by a factor that such copies have, too
    multiscale = len(labels) < 160 and of_image is not MICRONS
    sdata = open_sdata(on_disk(made(labels, of_image, of_labels, multiscale=multiscale), tmp_path / "s.zarr"))
    message, (draw,) = advised(sdata, "scan", "cells")
    assert re.search(told, message)
    assert "If both show the same field of view" in message
    with pytest.raises(InputError, match=f"(?s)do not match: .* transformations that place them.*{told}"):
        find_source(sdata.path, image="scan", masks=CELLS)
    follow(draw, sdata)
    to_labels = np.diag([labels.shape[1] / 190, labels.shape[0] / 160, 1])
    expected = looked_up(labels, (160, 190), to_labels)
    assert np.array_equal(pixels_of(sdata["cells_on_image"]), expected)
    for handler in (sdata, tmp_path / "s.zarr"):
        check(extract(handler, tmp_path, "cells_on_image"), expected)
        keep(sdata, "cells_on_image")
    assert farthest_apart(expected) <= 160 / labels.shape[0]  # one pixel of the labels


def farthest_apart(found: np.ndarray) -> float:
    """How far cells are from where they truly are."""
    (ids, xy), (all_ids, true_xy) = restatement.centers(found), restatement.centers(LABELS)
    true_xy = true_xy[np.isin(all_ids, ids)]
    inner = ((true_xy > 12) & (true_xy < (178, 148))).all(axis=1)  # of the others, another part is cut off
    assert inner.sum() > 20
    return float(np.hypot(*(xy - true_xy)[inner].T).max())


def test_leaving_out_the_same_field_takes_the_labels_where_they_are_said_to_be(tmp_path: Path) -> None:
    sdata = open_sdata(on_disk(made(LABELS[:80, :95], ONE, ONE), tmp_path / "s.zarr"))
    message, (draw,) = advised(sdata, "scan", "cells")
    assert "If the labels cover that part only, leave out same_field=True" in message
    assert ", same_field=True" in draw
    follow(draw.replace(", same_field=True", ""), sdata)
    check(extract(sdata, tmp_path, "cells_on_image"), np.pad(LABELS[:80, :95], ((0, 80), (0, 95))))


def test_labels_that_were_put_somewhere_are_taken_to_be_there(tmp_path: Path) -> None:
    """Their proportions are those of the image, but someone has said where this part of it lies."""
    sdata = open_sdata(on_disk(made(LABELS[40:120, 20:115], ONE, {"global": shift(40, 20)}), tmp_path / "s.zarr"))
    message, (draw,) = advised(sdata, "scan", "cells")
    assert "In 'global' the image covers y 0 to 160 and x 0 to 190, the labels y 40 to 120 and x 20 to 115." in message
    assert "same_field" not in message
    follow(draw, sdata)
    check(extract(sdata, tmp_path, "cells_on_image"), np.pad(LABELS[40:120, 20:115], ((40, 40), (20, 75))))


def test_labels_of_a_part_of_the_image_are_asked_about(tmp_path: Path) -> None:
    sdata = open_sdata(on_disk(made(LABELS[:140], ONE, ONE), tmp_path / "s.zarr"))
    message, (draw,) = advised(sdata, "scan", "cells")
    assert "In 'global' the image covers y 0 to 160 and x 0 to 190, the labels y 0 to 140 and x 0 to 190." in message
    assert "If not, set the position of the labels with spatialdata.transformations.set_transformation" in message
    follow(draw, sdata)
    check(extract(sdata, tmp_path, "cells_on_image"), np.pad(LABELS[:140], ((0, 20), (0, 0))))


@pytest.mark.parametrize(("labels", "n_pieces"), [(LABELS[:140], 0), (LABELS, 1)])
def test_labels_that_lie_elsewhere_are_not_drawn(tmp_path: Path, labels: np.ndarray, n_pieces: int) -> None:
    sdata = open_sdata(on_disk(made(labels, ONE, {"global": shift(500, 0)}), tmp_path / "s.zarr"))
    message, pieces = advised(sdata, "scan", "cells")
    assert len(pieces) == n_pieces
    assert ("They do not overlap: set the position of the labels" in message) == (n_pieces == 0)
    assert "rasterize" not in message


def test_a_project_is_not_loaded_from_what_does_not_lie_on_each_other(tmp_path: Path) -> None:
    sdata = open_sdata(on_disk(made(LABELS, ONE, {"global": shift(0, 7)}), tmp_path / "s.zarr"))
    project = Project(tmp_path / "project", {"threads": 1, "image_size": 24, "cache": str(tmp_path / "cache")})
    with pytest.raises(InputError, match=r"image 'scan' and labels 'cells' .* do not match") as caught:
        project.load_input_from_sdata(tmp_path / "s.zarr", "scan", None, "cells")
    assert not Path(project.sdata_path).exists()
    *_, draw = pieces_of(str(caught.value))
    follow(draw, sdata)
    keep(sdata, "cells_on_image")
    project.load_input_from_sdata(tmp_path / "s.zarr", "scan", None, "cells_on_image")
    project.extract()
    with h5py.File(str(project.extraction_f.output_path)) as file:
        assert file["obs/scportrait_cell_id"].size > 10


# --- resampling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(100, 90), (2300, 2200)])
def test_ids_are_kept_to_the_last_bit_in_every_block(shape: tuple[int, int]) -> None:
    labels = (np.arange(35, dtype=np.uint64).reshape(5, 7) + 1) * np.uint64(2**57 + 1)
    sdata = made(labels, ONE, ONE)
    sdata["scan"] = Image2DModel.parse(np.zeros((1, *shape), np.uint8), dims=("c", "y", "x"))
    found = rasterize_labels(sdata, "cells", "scan", same_field=True)
    assert (found.dtype, found.shape) == (np.uint64, shape)
    rows, columns = (np.arange(size) * 2 + 1 for size in shape)
    expected = labels[np.ix_(rows * 5 // (2 * shape[0]), columns * 7 // (2 * shape[1]))]
    assert np.array_equal(pixels_of(found), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "nuclei"}, r"no labels named 'nuclei' in the SpatialData object; it has cells"),
        ({"image": "dapi"}, r"no images named 'dapi' in the SpatialData object; it has scan"),
        ({"coordinate_system": "um"}, r"coordinate_system = 'um': image 'scan' .*both are in a, b\."),
        ({}, r"coordinate_system = 'global': .* are not both in it; both are in a, b\. Name one of these"),
    ],
)
def test_what_cannot_be_resampled(options: dict[str, Any], message: str) -> None:
    sdata = made(LABELS, {"a": Identity(), "b": Identity()}, {"a": Identity(), "b": Identity()})
    with pytest.raises(InputError, match=message):
        rasterize_labels(sdata, **{"labels": "cells", "image": "scan", **options})
