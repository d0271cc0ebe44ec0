"""Images and labels on different grids: what is told about them, and that the advice given works."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel
from spatialdata.transformations import Affine, Identity, Scale, Translation
from spatialdata.transformations import Sequence as Chain

import restatement
from cellstamp import HDF5CellExtraction
from cellstamp.errors import InputError
from cellstamp.source.elements import find_source
from cellstamp.source.masks import MaskChoice
from cellstamp.source.spool import spool
from cellstamp.source.store import open_sdata
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
            "as many columns; in 'global' a pixel .*: in pixels of the image, the labels lie 10 pixels lower. Both",
        ),
        (
            LABELS,
            ONE,
            {"global": shift(12.5, -3)},
            "the labels lie 12.5 pixels lower, the labels lie 3 pixels further left",
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
        (LABELS, {"um": scale(0.5, 0.5)}, {"um": Chain([scale(0.5, 0.5), shift(1, 0)])}, "labels lie 2 pixels lower"),
        (LABELS, ONE, {"global": TURNED}, "the labels are turned or sheared"),
    ],
)
def test_what_differs_is_told_in_pixels(
    tmp_path: Path, labels: np.ndarray, of_image: Any, of_labels: Any, told: str
) -> None:
    store = on_disk(made(labels, of_image, of_labels), tmp_path / "s.zarr")
    with pytest.raises(InputError, match=rf"image 'scan' and labels 'cells' in .*s\.zarr do not lie .*{told}"):
        find_source(store, image="scan", masks=CELLS)


def test_without_a_common_system_there_is_no_telling(tmp_path: Path) -> None:
    store = on_disk(made(LABELS[1:], {"a": Identity()}, {"b": Identity()}), tmp_path / "s.zarr")
    message = r"no coordinate system in common \(the image's: a; the labels': b\): say where .*set_transformation"
    with pytest.raises(InputError, match=message):
        find_source(store, image="scan", masks=CELLS)


def advice(sdata: Any, image: str, labels: str, path: Path) -> list[str]:
    """The pieces of Python in the error, as someone would copy them."""
    with pytest.raises(InputError, match="With sdata the SpatialData object") as caught:
        find_source(on_disk(sdata, path), image=image, masks=MaskChoice(cytosol_labels=labels))
    pieces = [[]]
    for line in str(caught.value).splitlines():
        pieces[-1].append(line) if line.startswith("    ") or not line else pieces.append([])
    return [textwrap.dedent("\n".join(piece)) for piece in pieces if any(piece)]


def follow(code: str, sdata: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(code, {"sdata": sdata})


def extract(handler: Any, folder: Path, labels: str) -> HDF5CellExtraction:
    keys = {"threads": 1, "image_size": 24, "cache": str(folder / "cache"), "image": "scan", "cytosol_labels": labels}
    step = HDF5CellExtraction(keys, folder / "out", overwrite=True, filehandler=handler)
    step()
    return step


def check(step: HDF5CellExtraction, labels: np.ndarray) -> None:
    ids, _, stamps = restatement.extract([labels], SAMPLE.image, 24, (0.001, 0.999))
    with h5py.File(str(step.output_path)) as file:
        assert file["obs/scportrait_cell_id"][:].tolist() == ids.tolist()
        assert restatement.same_bits(file["obsm/single_cell_images"][:], stamps)


def upper_rows_missing() -> np.ndarray:
    labels = LABELS.copy()
    labels[:10] = 0
    return labels


def doubled() -> np.ndarray:
    """Beyond the middle of the outermost pixels, rasterize sees nothing."""
    labels = np.pad(np.repeat(np.repeat(LABELS[::2, ::2], 2, 0), 2, 1)[1:-1, 1:-1], 1)
    assert labels.shape == LABELS.shape
    return labels


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
    with pytest.raises(InputError, match="the labels lie 3 pixels lower"):
        extract(sdata, tmp_path, "cells")
    spooled = Path(spool(sdata, ["scan", "cells"], tmp_path))  # and yet no pixel is copied
    assert (spooled / "labels/cells/s0").resolve() == tmp_path / "s.zarr/labels/cells/s0"


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
        r"The labels lie on 'Colon_HD_full_image': set image to that"
    )
    with pytest.raises(InputError, match=message):
        find_source(store, image=f"{name}_hires_image", masks=CELLS)
    assert find_source(store, image=f"{name}_full_image", masks=CELLS).shape == LABELS.shape
