"""Cells that are given as shapes: the same images as from labels, ids, positions, and what is left out."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import anndata
import geopandas as gpd
import h5py
import numpy as np
import pandas as pd
import pytest
import shapely
from scipy import ndimage

from cellstamp import HDF5CellExtraction, read_h5sc
from cellstamp.errors import ConfigError, InputError
from cellstamp.h5sc.validate import errors_in
from cellstamp.source.id_columns import SHAPE_COLUMNS
from outlined import outlined, placed, polygons_of, with_index, write_outlined
from stores import CYTOSOL, NUCLEUS, make_sample

SIZE = 32
SAMPLE = make_sample()
SHAPES = {"nuclei": polygons_of(SAMPLE.masks[NUCLEUS]), "cells": polygons_of(SAMPLE.masks[CYTOSOL])}
BOTH = {"nucleus_shapes": "nuclei", "cytosol_shapes": "cells"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_outlined(tmp_path_factory.mktemp("shapes") / "slide.zarr", SAMPLE, SHAPES)


def extract(handler: Any, folder: Path, **config: Any) -> HDF5CellExtraction:
    step = HDF5CellExtraction(
        {"threads": 1, "image_size": SIZE, "progress": False, **config}, folder, filehandler=handler
    )
    step()
    return step


def images_of(step: HDF5CellExtraction) -> np.ndarray:
    with h5py.File(str(step.output_path)) as file:
        return file["obsm/single_cell_images"][:]


def content(step: HDF5CellExtraction) -> tuple[list[int], bytes, bytes]:
    data = read_h5sc(str(step.output_path))
    return data.obs["scportrait_cell_id"].tolist(), images_of(step).tobytes(), data.obsm["spatial"].tobytes()


@pytest.mark.parametrize("masks", [BOTH, {"nucleus_shapes": "nuclei"}, {"cytosol_shapes": "cells"}])
@pytest.mark.parametrize("threads", [1, 2])
def test_polygons_of_whole_pixels_give_the_images_of_the_labels(
    store: Path, tmp_path: Path, masks: dict[str, str], threads: int
) -> None:
    labels = {
        key.replace("shapes", "labels"): {"nuclei": NUCLEUS, "cells": CYTOSOL}[name] for key, name in masks.items()
    }
    expected = extract(store, tmp_path / "labels", **labels)
    assert content(extract(store, tmp_path / "shapes", threads=threads, **masks)) == content(expected)


@pytest.mark.parametrize(
    "masks",
    [{"nucleus_labels": NUCLEUS, "cytosol_shapes": "cells"}, {"nucleus_shapes": "nuclei", "cytosol_labels": CYTOSOL}],
)
def test_one_mask_may_be_labels(store: Path, tmp_path: Path, masks: dict[str, str]) -> None:
    assert content(extract(store, tmp_path / "mixed", **masks)) == content(extract(store, tmp_path / "labels"))


def test_a_padded_mask_continues_beyond_the_image(tmp_path: Path) -> None:
    cells = gpd.GeoDataFrame(geometry=[shapely.box(-4, 50, 6, 60)], index=[1])
    slide = write_outlined(tmp_path / "s.zarr", SAMPLE, {"edge": cells})
    step = extract(slide, tmp_path / "out", cytosol_shapes="edge", border="pad", normalize_output=False)
    mask, *channels = images_of(step)[0].astype(float)
    outside = SIZE // 2 - 1  # its centre is at 0.5, which is rounded to 0, or to 1
    assert mask[SIZE // 2, outside - 3 : outside].min() > 0.5
    assert not np.array(channels)[:, :, :outside].any()


def test_a_polygon_that_crosses_itself_is_in_its_crop(tmp_path: Path) -> None:
    lobes = [(70, 70), (78, 80.5), (78, 70), (70, 80)]
    slide = write_outlined(
        tmp_path / "s.zarr", SAMPLE, {"bow": gpd.GeoDataFrame(geometry=[shapely.Polygon(lobes)], index=[1])}
    )
    step = extract(slide, tmp_path / "out", cytosol_shapes="bow", normalize_output=False)
    expected = shapely.make_valid(shapely.Polygon(lobes)).centroid
    ((x, y),) = read_h5sc(str(step.output_path)).obsm["spatial"]
    np.testing.assert_allclose([x, y], [expected.x - 0.5, expected.y - 0.5])
    assert 30 < images_of(step)[0, 0].astype(float).sum() < 60


@pytest.mark.parametrize("border", ["drop", "pad"])
def test_borders_and_options_as_for_labels(store: Path, tmp_path: Path, border: str) -> None:
    options = {
        "border": border,
        "cells": [1, 5, 40],
        "channels": ["actin"],
        "normalize_output": False,
        "apply_masks": False,
    }
    assert content(extract(store, tmp_path / "shapes", **BOTH, **options)) == content(
        extract(store, tmp_path / "labels", **options)
    )


def test_the_measured_size_of_crops_is_that_of_labels(store: Path, tmp_path: Path) -> None:
    sizes = [
        images_of(extract(store, tmp_path / f"{len(masks)}", image_size="auto", **masks)).shape for masks in ({}, BOTH)
    ]
    assert sizes[0] == sizes[1]


def test_cells_that_exceed_their_crops_are_marked_as_for_labels(store: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        marked = [
            read_h5sc(str(extract(store, tmp_path / f"{len(masks)}", image_size=14, **masks).output_path)).obs[
                "exceeds_crop"
            ]
            for masks in ({}, BOTH)
        ]
    assert marked[0].any()
    assert marked[0].tolist() == marked[1].tolist()


def test_an_object_in_memory(tmp_path: Path, store: Path) -> None:
    sdata = outlined(SAMPLE, SHAPES)
    assert content(extract(sdata, tmp_path / "memory", **BOTH)) == content(extract(store, tmp_path / "labels"))


def test_messages_about_an_object_do_not_name_its_temporary_store(tmp_path: Path) -> None:
    """The user has neither made nor seen that store, and it is deleted at the end."""
    cells = with_index(SHAPES["cells"], named(SHAPES["cells"].index))
    sdata = outlined(SAMPLE, {"nuclei": SHAPES["nuclei"], "cells": cells})
    with pytest.raises(
        InputError,
        match=r"^shapes 'nuclei' in the SpatialData object and shapes 'cells' in the SpatialData object have no ids in",
    ):
        extract(sdata, tmp_path / "memory", **BOTH)
    with pytest.warns(UserWarning, match=r"is larger than the image, .* 'input_image' in the SpatialData object\."):
        extract(sdata, tmp_path / "memory", cytosol_shapes="cells", cells=["cell-001"], image_size=300, border="pad")
    assert "sdata.zarr" not in log_of(tmp_path / "memory")


# --- positions --------------------------------------------------------------------------------------------------------


def scaled(shapes: Any, by: float, **systems: Any) -> Any:
    from spatialdata.transformations import Scale

    moved = with_index(shapes, shapes.index)
    moved["geometry"] = moved.geometry.scale(by, by, origin=(0, 0))
    return placed(moved, systems or {"global": Scale([1 / by, 1 / by], axes=("x", "y"))})


def test_micrometres_become_pixels(tmp_path: Path, store: Path) -> None:
    slide = write_outlined(tmp_path / "um.zarr", SAMPLE, {name: scaled(each, 0.2125) for name, each in SHAPES.items()})
    assert content(extract(slide, tmp_path / "um", **BOTH))[:2] == content(extract(store, tmp_path / "labels"))[:2]


def test_mirrored_and_rotated_shapes(tmp_path: Path, store: Path) -> None:
    from spatialdata.transformations import Affine

    # (x, y) of the shapes is (y, -x) of the image
    matrix = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    turned = {}
    for name, shapes in SHAPES.items():
        moved = with_index(shapes, shapes.index)
        moved["geometry"] = moved.geometry.affine_transform([0, 1, -1, 0, 0, 0])
        turned[name] = placed(moved, {"global": Affine(matrix, ("x", "y"), ("x", "y"))})
    slide = write_outlined(tmp_path / "turned.zarr", SAMPLE, turned)
    assert content(extract(slide, tmp_path / "turned", **BOTH))[:2] == content(extract(store, tmp_path / "labels"))[:2]


def test_the_coordinate_system_can_be_chosen(tmp_path: Path, store: Path) -> None:
    from spatialdata.transformations import Identity, Scale, set_transformation

    half = Scale([2, 2], axes=("x", "y"))
    shapes = {name: scaled(each, 0.5, fine=half, coarse=Identity()) for name, each in SHAPES.items()}
    sdata = outlined(SAMPLE, shapes)
    set_transformation(sdata["input_image"], {"fine": Identity(), "coarse": Identity()}, set_all=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata.write(tmp_path / "systems.zarr")
    with pytest.raises(InputError, match=r"several coordinate systems: coarse, fine\. Set coordinate_system"):
        extract(tmp_path / "systems.zarr", tmp_path / "none", **BOTH)
    with pytest.raises(
        InputError,
        match=r"coordinate_system: image 'input_image' .*systems\.zarr is not in 'other'; it is in coarse, fine",
    ):
        extract(tmp_path / "systems.zarr", tmp_path / "none", coordinate_system="other", **BOTH)
    chosen = extract(tmp_path / "systems.zarr", tmp_path / "fine", coordinate_system="fine", **BOTH)
    assert content(chosen)[:2] == content(extract(store, tmp_path / "labels"))[:2]


def test_shapes_without_a_shared_coordinate_system(tmp_path: Path) -> None:
    from spatialdata.transformations import Identity

    slide = write_outlined(tmp_path / "far.zarr", SAMPLE, {"cells": placed(SHAPES["cells"], {"elsewhere": Identity()})})
    with pytest.raises(InputError, match="no coordinate system: the image has global, the shapes elsewhere"):
        extract(slide, tmp_path / "far", cytosol_shapes="cells")


def test_cells_outside_of_the_image_are_left_out_with_a_warning(tmp_path: Path, store: Path) -> None:
    far = shapely.box(1_000, 1_000, 1_010, 1_010)
    cells = with_index(SHAPES["cells"], SHAPES["cells"].index)
    cells.loc[900] = far
    slide = write_outlined(tmp_path / "far.zarr", SAMPLE, {"cells": cells})
    message = (
        r"left out 1 of \d+ cells of 'cells' with a centre outside of the image, .* like 900. "
        r"All centres are in rows \d+ to 1004 and columns \d+ to 1004. "
        r".*is pixel_size or the transformation of the shapes wrong, or is the image resampled\?"
    )
    with pytest.warns(UserWarning, match=message):
        step = extract(slide, tmp_path / "far", cytosol_shapes="cells", border="pad")
    assert 900 not in content(step)[0]


@pytest.mark.parametrize("masks", [{"cytosol_shapes": "cells"}, {"nucleus_labels": NUCLEUS, "cytosol_shapes": "cells"}])
@pytest.mark.parametrize("crops", [{}, {"image_pixel_size": 0.5, "crop_pixel_size": 1}])
def test_all_cells_outside_of_the_image(tmp_path: Path, masks: dict[str, str], crops: dict[str, float]) -> None:
    from spatialdata.transformations import Translation

    far = placed(SHAPES["cells"], {"global": Translation([5_000, 0], axes=("x", "y"))})
    slide = write_outlined(tmp_path / "far.zarr", SAMPLE, {"cells": far})
    where = r"none of its 72 cells is on the image.* rows \d+ to \d+ and columns \d+ to \d+ of .*set_transformation"
    with pytest.raises(InputError, match=where):
        extract(slide, tmp_path / "far", border="pad", **masks, **crops)


@pytest.mark.parametrize("masks", [{"cytosol_shapes": "cells"}, {**BOTH}])
def test_cells_smaller_than_a_pixel(tmp_path: Path, masks: dict[str, str]) -> None:
    from spatialdata.transformations import Scale

    tiny = {name: placed(each, {"global": Scale([0.03, 0.03], axes=("x", "y"))}) for name, each in SHAPES.items()}
    slide = write_outlined(tmp_path / "tiny.zarr", SAMPLE, tiny)
    with pytest.warns(UserWarning, match="no pixel") as caught:
        extract(slide, tmp_path / "tiny", border="pad", **masks)
    said = [str(each.message) for each in caught]
    found = (
        r"\d+ of \d+ cells of '(cells|nuclei)' contain the centre of no pixel: their images are empty. The median area"
    )
    assert re.match(rf"{found} of the cells is that of a square of 0\.\d+ x 0\.\d+ pixels: check pixel_size", said[-1])
    assert len(said) == len(masks)
    assert not [each for each in said if "centres in the store" in each or "number cells alike" in each]


def test_one_cell_smaller_than_a_pixel(tmp_path: Path) -> None:
    cells = with_index(SHAPES["cells"], SHAPES["cells"].index)
    cells.loc[900] = shapely.box(100.6, 100.6, 100.9, 100.9)
    slide = write_outlined(tmp_path / "s.zarr", SAMPLE, {"cells": cells})
    with pytest.warns(
        UserWarning, match="^1 of 7. cells of 'cells' contains .* its images are empty. Such cells are sm"
    ):
        extract(slide, tmp_path / "x", cytosol_shapes="cells", border="pad")


@pytest.mark.parametrize("crops", [{}, {"crop_pixel_size": 0.1}])
def test_micrometres_that_are_taken_for_pixels(tmp_path: Path, store: Path, crops: dict[str, float]) -> None:
    sdata = outlined(SAMPLE, {"cells": SHAPES["cells"].scale(0.2125, 0.2125, origin=(0, 0)).to_frame("geometry")})
    config = {"cytosol_shapes": "cells", "image_pixel_size": 0.2125, "border": "pad", "image_size": 64, **crops}
    fits = r"'cells' has cells in rows \d to .* fits polygons in micrometres .* a pixel is 0.2125 um. If so, set their"
    with pytest.warns(UserWarning, match=fits) as caught:
        extract(sdata, tmp_path / "forgotten", **config)
    message = next(str(each.message) for each in caught if "in micrometres" in str(each.message))
    exec("".join(line[4:] for line in message.splitlines(keepends=True) if line.startswith("    ")), {"sdata": sdata})
    steps = [extract(each, tmp_path / name, **config) for each, name in ((sdata, "placed"), (store, "pixels"))]
    placed_there, expected = (read_h5sc(str(step.output_path)) for step in steps)
    assert placed_there.obs["instance_id"].tolist() == expected.obs["instance_id"].tolist()
    np.testing.assert_allclose(placed_there.obsm["spatial"], expected.obsm["spatial"], atol=1e-6)
    # coordinates are rounded, so pixels with their centre on an outline may differ
    assert np.isclose(*map(images_of, steps), atol=1e-3).mean() > 0.95


@pytest.mark.parametrize("pixel", [None, 0.2125, 0.45, 0.8])
def test_cells_in_a_corner_are_not_taken_for_micrometres(tmp_path: Path, pixel: float | None) -> None:
    corner = SHAPES["cells"][SHAPES["cells"].centroid.x.lt(104) & SHAPES["cells"].centroid.y.lt(90)]
    slide = write_outlined(tmp_path / "s.zarr", SAMPLE, {"cells": corner.scale(1).to_frame("geometry")})
    extract(slide, tmp_path / "x", cytosol_shapes="cells", image_pixel_size=pixel, border="pad")


# --- ids --------------------------------------------------------------------------------------------------------------


def named(ids: Any) -> list[str]:
    return [f"cell-{number:03d}" for number in ids]


def test_ids_that_are_text_are_numbered_and_annotate_the_shapes(tmp_path: Path, store: Path) -> None:
    texts = {name: with_index(each, named(each.index)) for name, each in SHAPES.items()}
    step = extract(write_outlined(tmp_path / "text.zarr", SAMPLE, texts), tmp_path / "text", **BOTH)
    assert content(step)[:2] == content(extract(store, tmp_path / "labels"))[:2]
    data = anndata.read_h5ad(str(step.output_path), backed="r")
    assert data.obs["instance_id"].tolist() == named(data.obs["scportrait_cell_id"])
    assert data.uns["spatialdata_attrs"] == {"region": "cells", "region_key": "region", "instance_key": "instance_id"}
    assert set(data.obs["region"]) == {"cells"}
    data.file.close()
    assert list(errors_in(str(step.output_path))) == []


@pytest.mark.parametrize("start", [0, -5, 2**62])
def test_integers_from_0_or_below_are_numbered_and_large_ones_kept(tmp_path: Path, start: int) -> None:
    cells = with_index(SHAPES["cells"], range(start, start + len(SHAPES["cells"])))
    step = extract(
        write_outlined(tmp_path / "a.zarr", SAMPLE, {"cells": cells}), tmp_path / "a", cytosol_shapes="cells"
    )
    obs = read_h5sc(str(step.output_path)).obs
    shift = 0 if start > 0 else 1 - start
    assert obs["scportrait_cell_id"].tolist() == (obs["instance_id"] + shift).tolist()


def test_nuclei_that_name_their_cells_in_a_column(tmp_path: Path, store: Path) -> None:
    nuclei = with_index(SHAPES["nuclei"], range(len(SHAPES["nuclei"])), cell_id=named(SHAPES["nuclei"].index))
    cells = with_index(SHAPES["cells"], named(SHAPES["cells"].index))
    slide = write_outlined(tmp_path / "xenium.zarr", SAMPLE, {"nuclei": nuclei, "cells": cells})
    step = extract(slide, tmp_path / "xenium", **BOTH)
    assert content(step)[:2] == content(extract(store, tmp_path / "labels"))[:2]
    assert "by its column 'cell_id' and their index" in log_of(tmp_path / "xenium")


def log_of(folder: Path) -> str:
    return (folder / "processing.log").read_text()


def test_nuclei_without_cells_cells_without_nuclei_and_several_nuclei(tmp_path: Path) -> None:
    def square(x: int, y: int, side: int) -> Any:
        return shapely.box(x, y, x + side, y + side)

    wide = gpd.GeoDataFrame(
        geometry=[square(40, 40, 20), square(90, 40, 20), square(140, 40, 20)], index=["a", "b", "c"]
    )
    small = gpd.GeoDataFrame(
        {"cell_id": ["a", "a", "b", None]},
        geometry=[square(42, 42, 4), square(52, 42, 4), square(95, 45, 6), square(180, 90, 6)],
    )
    slide = write_outlined(tmp_path / "s.zarr", SAMPLE, {"nuclei": small, "cells": wide})
    step = extract(slide, tmp_path / "s", **BOTH)
    data = read_h5sc(str(step.output_path))
    assert data.obs["instance_id"].tolist() == ["a", "b"]
    # the centroid of both nuclei, and both of them in the mask
    np.testing.assert_allclose(data.obsm["spatial"][0], [48.5, 43.5])
    assert ndimage.label(images_of(step)[0, 0] > 0.5)[1] == 2
    log = log_of(tmp_path / "s")
    assert "left out 1 of 4 nuclei without a cell in 'cells'" in log
    without = re.search("left out 1 of 3 cells without a nucleus in 'nuclei'; to extract them too, set only (.*)", log)
    assert without is not None
    key, _, name = without[1].partition(": ")
    assert read_h5sc(str(extract(slide, tmp_path / "all", **{key: name}).output_path)).n_obs == 3
    assert "1 cells have several nuclei" in log


ROW = [shapely.box(x, 40, x + 14, 54) for x in (40, 60, 80, 100)]
"""Cells side by side."""


def matched(tmp_path: Path, nuclei: dict[str, Any], cells: dict[str, Any]) -> tuple[list[Any], list[int], str]:
    """Instance ids and pixels of the nuclei in the cells of `ROW`, and the log; nucleus i lies in cell i + 1."""
    inner = [box.buffer(-1 - number, join_style="mitre") for number, box in enumerate(ROW)]
    shapes = {
        "nuclei": gpd.GeoDataFrame(nuclei.get("columns"), geometry=inner[1:] + inner[:1], index=nuclei["index"]),
        "cells": gpd.GeoDataFrame(cells.get("columns"), geometry=ROW, index=cells["index"]),
    }
    slide = write_outlined(tmp_path / "row.zarr", SAMPLE, shapes)
    step = extract(slide, tmp_path / "row", **BOTH)
    images = images_of(step)
    return (
        read_h5sc(str(step.output_path)).obs["instance_id"].tolist(),
        [round(float((image[0] * image[1] > 0.5).sum()) ** 0.5) for image in images],
        log_of(tmp_path / "row"),
    )


SIDES = [12, 10, 8, 6]
"""Of the nuclei in the cells of `ROW`, in pixels."""


@pytest.mark.parametrize(
    ("column", "index"),
    [
        ([2, 3, 4, 0], [1, 2, 3, 4]),
        (pd.array([2, 3, 4, None], "Int64"), [1, 2, 3, 4]),
        ([2.0, 3.0, 4.0, np.nan], [1, 2, 3, 4]),
        (["2", "3", "4", None], [1, 2, 3, 4]),
        ([2, 3, 4, 0], ["1", "2", "3", "4"]),
        (pd.Categorical(["2", "3", "4", None]), [1, 2, 3, 4]),
    ],
    ids=["integers", "Int64", "floats", "texts", "of text index", "categories"],
)
def test_a_column_that_names_cells_precedes_indexes_that_match_more(tmp_path: Path, column: Any, index: Any) -> None:
    ids, sides, log = matched(tmp_path, {"index": index, "columns": {"cell_id": column}}, {"index": index})
    assert ids == index[1:]
    assert sides == SIDES[1:]
    assert "by its column 'cell_id' and their index: 3 cells" in log


def test_columns_of_one_name_precede_the_index_of_the_cells(tmp_path: Path) -> None:
    columns = {"index": [1, 2, 3, 4], "columns": {"cell_id": [12, 13, 4, 3]}}
    ids, sides, log = matched(tmp_path, columns, {"index": [1, 2, 3, 4], "columns": {"cell_id": [11, 12, 13, 14]}})
    assert (ids, sides) == ([2, 3], SIDES[1:3])
    assert "by its column 'cell_id' and their column 'cell_id': 2 cells" in log


def test_a_column_without_an_id_of_a_cell_is_in_the_log(tmp_path: Path) -> None:
    columns = {"cell_id": [None, "x", "y", "z"]}
    ids, _, log = matched(tmp_path, {"index": [2, 3, 4, 1], "columns": columns}, {"index": [1, 2, 3, 4]})
    assert ids == [1, 2, 3, 4]
    assert "by its index and their index: 4 cells" in log
    assert "column 'cell_id' of 'nuclei' has no id of a cell in 'cells'" in log


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (["b", "c", None, "zz"], ["a", "b", "c", None]),
        ([2, 3, np.nan, 9], [1, 2, 3, np.nan]),
        (["b", "c", None, None], [None, "b", "c", None]),
    ],
    ids=["None", "NaN", "several"],
)
def test_missing_ids_are_not_equal(tmp_path: Path, ours: list[Any], theirs: list[Any]) -> None:
    nuclei = {"index": ["n1", "n2", "n3", "n4"], "columns": {"cell_id": ours}}
    ids, sides, log = matched(tmp_path, nuclei, {"index": [5, 6, 7, 8], "columns": {"cell_id": theirs}})
    assert (ids, sides) == ([6, 7], SIDES[1:3])
    assert "left out 2 of 4 nuclei without a cell" in log
    assert "left out 2 of 4 cells without a nucleus" in log


def test_elements_without_ids_in_common(tmp_path: Path) -> None:
    shapes = {"nuclei": SHAPES["nuclei"], "cells": with_index(SHAPES["cells"], named(SHAPES["cells"].index))}
    slide = write_outlined(tmp_path / "s.zarr", SAMPLE, shapes)
    with pytest.raises(
        InputError, match=r"no ids in common: their indexes have 1, 2, 3, ... and 'cell-001', 'cell-002'"
    ):
        extract(slide, tmp_path / "s", **BOTH)


def test_text_ids_beside_labels(tmp_path: Path) -> None:
    shapes = {"cells": with_index(SHAPES["cells"], named(SHAPES["cells"].index))}
    slide = write_outlined(tmp_path / "s.zarr", SAMPLE, shapes)
    with pytest.raises(
        InputError, match=r"index must have the ids of the labels, positive integers; it has 'cell-001'"
    ):
        extract(slide, tmp_path / "s", nucleus_labels=NUCLEUS, cytosol_shapes="cells")


def test_a_column_whose_values_are_no_cells_is_shown(tmp_path: Path) -> None:
    wrong = [f"{name}-1" for name in named(SHAPES["nuclei"].index)]
    nuclei = with_index(SHAPES["nuclei"], range(len(wrong)), cell_id=wrong)
    cells = with_index(SHAPES["cells"], named(SHAPES["cells"].index))
    slide = write_outlined(tmp_path / "s.zarr", SAMPLE, {"nuclei": nuclei, "cells": cells})
    with pytest.raises(
        InputError,
        match=r"no ids in common: the column 'cell_id' of 'nuclei' has 'cell-001-1', .*, \.\.\., the index of 'cells' "
        r"has 'cell-001', .*Correct the column",
    ):
        extract(slide, tmp_path / "s", **BOTH)


def test_swapped_nuclei_and_cells(tmp_path: Path) -> None:
    """Two nuclei of one cell: the column of the nuclei cannot be the key of cells."""
    twice = named(SHAPES["nuclei"].index)
    twice[1] = twice[0]
    nuclei = with_index(SHAPES["nuclei"], range(len(twice)), cell_id=twice)
    cells = with_index(SHAPES["cells"], named(SHAPES["cells"].index))
    slide = write_outlined(tmp_path / "s.zarr", SAMPLE, {"nuclei": nuclei, "cells": cells})
    with pytest.raises(InputError, match="they seem to be swapped: use 'nuclei' as nucleus and 'cells' as cyt"):
        extract(slide, tmp_path / "s", nucleus_shapes="cells", cytosol_shapes="nuclei")


@pytest.mark.parametrize("name", SHAPE_COLUMNS)
def test_columns_that_name_cells(tmp_path: Path, store: Path, name: str) -> None:
    """The documentation lists them, and so does the error about other columns."""
    nuclei = with_index(SHAPES["nuclei"], range(len(SHAPES["nuclei"])), **{name: named(SHAPES["nuclei"].index)})
    cells = with_index(SHAPES["cells"], named(SHAPES["cells"].index))
    slide = write_outlined(tmp_path / "s.zarr", SAMPLE, {"nuclei": nuclei, "cells": cells})
    assert content(extract(slide, tmp_path / "s", **BOTH))[:2] == content(extract(store, tmp_path / "labels"))[:2]
    assert f"`{name}`" in Path(__file__).parents[1].joinpath("docs/shapes.md").read_text()
    other = write_outlined(tmp_path / "o.zarr", SAMPLE, {"nuclei": nuclei.rename(columns={name: "of"}), "cells": cells})
    with pytest.raises(InputError, match=f"or the nuclei a column with the ids of the cells: .*{name}"):
        extract(other, tmp_path / "o", **BOTH)


def test_repeated_ids(tmp_path: Path) -> None:
    """The fix keeps ids of text, which join the shapes to tables."""
    areas: list[float] = []
    cells = with_index(SHAPES["cells"], ["cell-a", "cell-a", *named(SHAPES["cells"].index)[2:]])
    slide = write_outlined(tmp_path / "s.zarr", SAMPLE, {"cells": cells})
    with pytest.raises(InputError, match="its index has 'cell-a' more than once") as caught:
        extract(slide, tmp_path / "s", cytosol_shapes="cells")
    import spatialdata
    from spatialdata.transformations import get_transformation

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for code in re.findall("`(.*?)`", str(caught.value)):
            sdata = spatialdata.read_zarr(slide)
            before = get_transformation(sdata["cells"], get_all=True)
            exec(code, {"sdata": sdata})
            assert set(sdata["cells"].index) == set(cells.index)
            assert get_transformation(sdata["cells"], get_all=True) == before
            areas.append(sdata["cells"].geometry["cell-a"].area)
            found, _, _ = content(
                extract(sdata, tmp_path / f"fixed {len(areas)}", cytosol_shapes="cells", border="pad")
            )
            assert len(found) == len(SHAPES["cells"]) - 1
    first, second = SHAPES["cells"].geometry.area.tolist()[:2]
    assert areas == [first + second, first]


@pytest.mark.parametrize("region", ["cells", "circles"])
def test_cells_chosen_by_a_table_of_the_shapes(tmp_path: Path, region: str) -> None:
    from spatialdata.models import TableModel

    cells = with_index(SHAPES["cells"], named(SHAPES["cells"].index))
    sdata = outlined(SAMPLE, {"cells": cells, "circles": cells})
    obs = pd.DataFrame({"region": pd.Categorical([region] * len(cells)), "cell_id": cells.index, "good": False})
    obs.index = obs.index.astype(str)
    obs.loc[["20", "30"], "good"] = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata["table"] = TableModel.parse(
            anndata.AnnData(obs=obs), region=region, region_key="region", instance_key="cell_id"
        )
        sdata.write(tmp_path / "s.zarr")
    choices = [{"table": "table", "column": "good"}, ["cell-021", "cell-031"]]
    found = [
        content(extract(tmp_path / "s.zarr", tmp_path / f"{k}", cells=choice, cytosol_shapes="cells", border="pad"))[0]
        for k, choice in enumerate(choices)
    ]
    assert found == [[21, 31]] * 2


def cells_of_texts(tmp_path: Path, ids: Any, cells: Any) -> list[Any]:
    """The instance ids that are extracted from shapes with these ids."""
    store = tmp_path / "s.zarr"
    if not store.exists():
        write_outlined(store, SAMPLE, {"cells": with_index(SHAPES["cells"], ids)})
    step = extract(store, tmp_path / "out", cytosol_shapes="cells", cells=cells, border="pad")
    return read_h5sc(str(step.output_path)).obs["instance_id"].tolist()


@pytest.mark.parametrize("cells", [[20, 30], ["cell-020", "cell-030"]])
def test_cells_with_text_ids_are_chosen_by_them_or_by_their_numbers(tmp_path: Path, cells: list[Any]) -> None:
    assert cells_of_texts(tmp_path, named(SHAPES["cells"].index), cells) == ["cell-020", "cell-030"]


def test_cells_numbered_from_0_are_chosen_by_text_or_by_their_numbers(tmp_path: Path) -> None:
    ids = range(len(SHAPES["cells"]))
    assert cells_of_texts(tmp_path, ids, ["0", "30"]) == [0, 30]
    message = r"integers are values of scportrait_cell_id, not ids of 'cells' \(scportrait_cell_id 20 is '19' there\)"
    with pytest.warns(UserWarning, match=message):
        assert cells_of_texts(tmp_path / "n", ids, [20, 30]) == [19, 29]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            [20, 9999],
            r"cells: 1 of 2 cells .*: 9999\. Give values of scportrait_cell_id, like 1, 2, 3, or ids of the "
            r"shapes as text, like 'cell-001'",
        ),
        (
            ["cell-020", "cell-9999"],
            r"cells: 1 of 2 cells are not among the shapes 'cells': 'cell-9999'\. Give ids "
            r"like 'cell-001', 'cell-002', 'cell-003', or values of scportrait_cell_id \(1, 2, \.\.\.\)",
        ),
        (["nope"], r"cells: 1 of 1 cells are not among the shapes 'cells': 'nope'\. Give ids like 'cell-001'"),
    ],
)
def test_unknown_ids_of_shapes_are_named(tmp_path: Path, cells: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cells_of_texts(tmp_path, named(SHAPES["cells"].index), cells)


# --- shapes that cannot be cells --------------------------------------------------------------------------------------


def test_circles(tmp_path: Path) -> None:
    circles = gpd.GeoDataFrame({"radius": [8.0, 5.5]}, geometry=gpd.points_from_xy([60.5, 120], [70.5, 100]))
    slide = write_outlined(tmp_path / "s.zarr", SAMPLE, {"circles": circles})
    step = extract(slide, tmp_path / "s", cytosol_shapes="circles")
    y, x = np.mgrid[:SIZE, :SIZE]
    disk = np.hypot(y - SIZE // 2, x - SIZE // 2) < 8
    # away from the edge, the blurred mask is still 1 or 0
    assert ((images_of(step)[0, 0] > 0.5) == disk).mean() > 0.98


def test_a_few_invalid_shapes_among_many_are_named_and_counted(tmp_path: Path, store: Path) -> None:
    cells = with_index(SHAPES["cells"], SHAPES["cells"].index)
    with np.errstate(invalid="ignore"):
        not_finite = shapely.Polygon([(0, 0), (np.nan, 1), (2, 2)])
    bad = [shapely.Polygon(), shapely.Polygon([(1, 1), (2, 2), (3, 3)]), not_finite, None]
    ids = [901, 902, 903, 904]
    for cell, shape in zip(ids, bad, strict=True):
        cells.loc[cell, "geometry"] = shape
    path = write_outlined(tmp_path / "s.zarr", SAMPLE, {"cells": SHAPES["cells"]})
    with np.errstate(invalid="ignore"):  # shapely before 2.1 computes bounds of what is not finite with a warning
        cells.to_parquet(path / "shapes/cells/shapes.parquet")
    with pytest.warns(UserWarning, match="left out") as caught:
        step = extract(path, tmp_path / "s", cytosol_shapes="cells")
    assert content(step) == content(extract(store, tmp_path / "labels", cytosol_labels=CYTOSOL))
    said = "\n".join(str(each.message) for each in caught)
    log = log_of(tmp_path / "s")
    n = len(cells)
    for line in (
        f"1 of {n} shapes, empty, like 901",
        "without an area, like 902",
        "not finite, like 903",
        "missing or damaged, like 904",
    ):
        assert line in log
        assert line in said


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"cytosol_shapes": "absent"}, "cytosol_shapes: no shapes named 'absent' in .*; it has cells, nuclei"),
        ({"cytosol_shapes": CYTOSOL}, f"cytosol_shapes: no shapes named '{CYTOSOL}' in .*is one of its labels"),
        (
            {"cytosol_labels": "cells"},
            "cytosol_labels: no labels named 'cells' .*'cells' is one of its shapes: set cytosol_shapes",
        ),
    ],
)
def test_a_name_that_is_missing_or_of_another_kind(
    store: Path, tmp_path: Path, config: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        extract(store, tmp_path / "none", **config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"cytosol_shapes": "cells", "cytosol_labels": CYTOSOL}, "cytosol_labels is set too"),
        ({"cytosol_shapes": "cells", "nucleus_shapes": "cells"}, "must not be the same as nucleus_shapes"),
        ({"cytosol_shapes": "cells", "segmentation_mask": NUCLEUS}, "names the masks, and so does cytosol_shapes"),
    ],
)
def test_contradictions(store: Path, tmp_path: Path, config: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        extract(store, tmp_path / "none", **config)


def test_a_damaged_file(store: Path, tmp_path: Path) -> None:
    slide = write_outlined(tmp_path / "s.zarr", SAMPLE, {"cells": SHAPES["cells"]})
    file = slide / "shapes/cells/shapes.parquet"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(
        InputError, match=r"shapes 'cells' in .*shapes.parquet cannot be read: .*Write the element again"
    ):
        extract(slide, tmp_path / "s", cytosol_shapes="cells")


def test_an_edited_file_of_shapes_is_not_resumed_or_up_to_date(tmp_path: Path, store: Path) -> None:
    slide = write_outlined(tmp_path / "s.zarr", SAMPLE, {"cells": SHAPES["cells"]})
    first = extract(slide, tmp_path / "s", cytosol_shapes="cells")
    extract(slide, tmp_path / "s", cytosol_shapes="cells")
    assert "Up to date" in log_of(tmp_path / "s")
    smaller = with_index(SHAPES["cells"], SHAPES["cells"].index)
    smaller["geometry"] = smaller.geometry.buffer(-1)
    smaller.to_parquet(slide / "shapes/cells/shapes.parquet")
    before = Path(str(first.output_path)).read_bytes()
    with pytest.raises(Exception, match="different"):
        extract(slide, tmp_path / "s", cytosol_shapes="cells")
    assert Path(str(first.output_path)).read_bytes() == before


@pytest.mark.parametrize(
    "cut",
    [
        lambda box: shapely.from_wkt(f"MULTIPOLYGON ({box.wkt[len('POLYGON ') :]}, EMPTY)"),
        lambda box: shapely.from_wkt(box.wkt[:-1] + ", EMPTY)"),
        lambda box: shapely.from_wkt(f"MULTIPOLYGON (EMPTY, {box.wkt[len('POLYGON ') :]})"),
    ],
    ids=["part", "hole", "first part"],
)
@pytest.mark.parametrize("cell", [0, 3])
def test_empty_parts_and_holes_do_not_count(tmp_path: Path, cut: Any, cell: int) -> None:
    shapes = [cut(box) if number == cell else box for number, box in enumerate(ROW)]
    contents = [
        content(extract(outlined(SAMPLE, {"cells": cells}), tmp_path / name, cytosol_shapes="cells"))
        for name, cells in {"plain": gpd.GeoDataFrame(geometry=ROW), "empty": gpd.GeoDataFrame(geometry=shapes)}.items()
    ]
    assert contents[0] == contents[1]


def row_with(tmp_path: Path, index: Any) -> Path:
    return write_outlined(tmp_path / "row.zarr", SAMPLE, {"cells": gpd.GeoDataFrame(geometry=ROW, index=index)})


def test_whole_floats_are_integers_and_the_table_joins_the_shapes(tmp_path: Path) -> None:
    import spatialdata

    slide = row_with(tmp_path, [4.0, 3.0, 2.0, 9.0])
    step = extract(slide, tmp_path / "row", cytosol_shapes="cells")
    data = read_h5sc(str(step.output_path), images=False)
    assert data.obs["instance_id"].tolist() == data.obs["scportrait_cell_id"].tolist() == [2, 3, 4, 9]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata = spatialdata.read_zarr(slide)
        sdata.tables["measured"] = data
        shapes, _ = spatialdata.match_element_to_table(sdata, element_name="cells", table_name="measured")
    assert sorted(shapes["cells"].index) == [2, 3, 4, 9]


def fix_in(message: str, slide: Path) -> Any:
    """The object after the code that a message prints."""
    import spatialdata

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata = spatialdata.read_zarr(slide)
        exec("sdata" + message.partition(": sdata")[2], {"sdata": sdata})
    return sdata


@pytest.mark.parametrize(
    ("index", "message", "ids"),
    [
        (["a", None, "c", "d"], "its index has 1 missing ids of 4; each shape needs one id", ["a", "c", "d"]),
        ([1.0, np.nan, np.nan, 4.0], "its index has 2 missing ids of 4", [1, 4]),
        ([1.0, 2.5, 3.0, 4.0], "its index has 2.5; ids must be integers or texts", [0, 1, 2, 3]),
        (["a", "b\0", "c", "d"], r"its index has 'b\\x00'; ids must not contain NUL", ["a", "b", "c", "d"]),
    ],
    ids=["None", "NaN", "fractions", "NUL"],
)
def test_invalid_ids_and_the_code_that_corrects_them(tmp_path: Path, index: Any, message: str, ids: Any) -> None:
    slide = row_with(tmp_path, index)
    with pytest.raises(InputError, match=message) as caught:
        extract(slide, tmp_path / "row", cytosol_shapes="cells")
    step = extract(fix_in(str(caught.value), slide), tmp_path / "row", cytosol_shapes="cells")
    assert read_h5sc(str(step.output_path)).obs["instance_id"].tolist() == ids


def test_an_index_of_several_levels(tmp_path: Path) -> None:
    slide = row_with(tmp_path, pd.MultiIndex.from_product([["a", "b"], [1, 2]]))
    with pytest.raises(InputError, match=r"its index has 2 levels; each shape needs one id. Number them"):
        extract(slide, tmp_path / "row", cytosol_shapes="cells")


@pytest.mark.parametrize("part", ["index", "column"])
def test_an_object_whose_shapes_no_file_can_hold(tmp_path: Path, part: str) -> None:
    mixed = [1, "1", 2, "x"]
    frame = gpd.GeoDataFrame({"cell": mixed} if part == "column" else {}, geometry=ROW)
    frame.index = mixed if part == "index" else [1, 2, 3, 4]
    sdata = outlined(SAMPLE, {"cells": frame})
    with pytest.raises(InputError, match=r"shapes 'cells' of the SpatialData object cannot be written.*of one type"):
        extract(sdata, tmp_path / "row", cytosol_shapes="cells")


# --- chosen cells without a nucleus -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def partly_paired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cells, of which "c" has no nucleus, and a table that annotates them."""
    from spatialdata.models import TableModel

    cells = gpd.GeoDataFrame(geometry=[shapely.box(x, 40, x + 20, 60) for x in (40, 90, 140)], index=["a", "b", "c"])
    nuclei = gpd.GeoDataFrame({"cell_id": ["a", "b"]}, geometry=[shapely.box(x, 45, x + 8, 53) for x in (45, 95)])
    obs = pd.DataFrame(
        {"region": pd.Categorical(["cells"] * 3), "cell_id": ["a", "b", "c"], "good": [False, True, True]}
    )
    obs.index = ["b", "c", "a"]  # row names that are ids of other cells
    sdata = outlined(SAMPLE, {"cells": cells, "nuclei": nuclei})
    path = tmp_path_factory.mktemp("paired") / "s.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata["table"] = TableModel.parse(
            anndata.AnnData(obs=obs), region="cells", region_key="region", instance_key="cell_id"
        )
        sdata.write(path)
    return path


def csv_without_header(folder: Path) -> str:
    (folder / "chosen.csv").write_text("b\nc\n")
    return str(folder / "chosen.csv")


@pytest.mark.parametrize("choice", [{"table": "table", "column": "good"}, ["b", "c"], csv_without_header])
def test_chosen_cells_without_a_nucleus_are_left_out(partly_paired: Path, tmp_path: Path, choice: Any) -> None:
    cells = choice(tmp_path) if callable(choice) else choice
    with pytest.warns(UserWarning, match=r"1 of 2 chosen cells of 'cells' have no nucleus and are left out: c\. "):
        step = extract(partly_paired, tmp_path / "both", cells=cells, **BOTH)
    assert instances(step) == ["b"]
    # as the message advises
    step = extract(partly_paired, tmp_path / "cells", cells=cells, cytosol_shapes="cells")
    assert instances(step) == ["b", "c"]


def instances(step: Any) -> list[Any]:
    return read_h5sc(str(step.output_path)).obs["instance_id"].tolist()


def test_no_chosen_cell_has_a_nucleus(partly_paired: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"none of 1 chosen cells of 'cells' has a nucleus, like c\. To extract them, leave out"
    ):
        extract(partly_paired, tmp_path / "x", cells=["c"], **BOTH)


@pytest.mark.parametrize(
    ("ids", "cells", "found", "message"),
    [
        # numbered by cellstamp: the integers are 1 and 2, whatever the shapes are called
        ([0, 2, 1], [1, 2], [0, 2], "integers are values of scportrait_cell_id"),
        ([0, 2, 1], [1], [0], "integers are values of scportrait_cell_id"),
        # ids of the shapes
        ([4, 6, 5], [4, 5], [4], "1 of 2 chosen cells of 'cells' have no nucleus and are left out: 5"),
    ],
)
def test_integers_that_are_ids_of_cells_without_a_nucleus(
    tmp_path: Path, ids: list[int], cells: list[int], found: list[int], message: str
) -> None:
    shapes = gpd.GeoDataFrame(geometry=[shapely.box(x, 40, x + 20, 60) for x in (40, 90, 140)], index=ids)
    nuclei = gpd.GeoDataFrame({"cell_id": ids[:2]}, geometry=[shapely.box(x, 45, x + 8, 53) for x in (45, 95)])
    sdata = outlined(SAMPLE, {"cells": shapes, "nuclei": nuclei})
    with pytest.warns(UserWarning, match=message):
        step = extract(sdata, tmp_path / "x", cells=cells, **BOTH)
    assert instances(step) == found


def test_text_never_names_rows_of_a_table_if_cells_are_shapes(partly_paired: Path, tmp_path: Path) -> None:
    """The row names of the table are ids of other cells, and one is in no shape."""
    sdata = with_others(partly_paired)
    with pytest.raises(ConfigError, match=r"1 of 2 cells are not among the shapes 'others': 'c'\. Give ids like"):
        extract(sdata, tmp_path / "x", cells=["a", "c"], cytosol_shapes="others")


def with_others(store: Path) -> Any:
    """A SpatialData object of a store, with shapes that its table does not annotate."""
    import spatialdata

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata = spatialdata.read_zarr(store)
        sdata["others"] = placed(with_index(sdata["cells"][:2], ["a", "b"]))
    return sdata


@pytest.mark.parametrize("wanted", [1, 500])
def test_numbers_in_the_column_of_a_program_are_never_those_of_cellstamp(tmp_path: Path, wanted: int) -> None:
    cells = gpd.GeoDataFrame(geometry=[shapely.box(x, 40, x + 20, 60) for x in (40, 90, 140)], index=[0, 500, 900])
    slide = write_outlined(tmp_path / "s.zarr", SAMPLE, {"cells": cells})
    pd.DataFrame({"cell_id": [wanted]}).to_csv(tmp_path / "c.csv", index=False)
    choice = {"cells": str(tmp_path / "c.csv"), "cytosol_shapes": "cells"}
    if wanted == 1:
        with pytest.raises(ConfigError, match=r"1 of 1 cells are not among the 3 cells of 'cells': 1\. "):
            extract(slide, tmp_path / "x", **choice)
    else:
        assert instances(extract(slide, tmp_path / "x", **choice)) == [500]
