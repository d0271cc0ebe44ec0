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
        r"left out 1 of \d+ cells of 'cells' outside of the image, .* like 900. The cells cover rows \d+ to 1004 and "
        r"columns \d+ to 1004. .*is pixel_size or the transformation of the shapes wrong, or is the image resampled\?"
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
    assert "left out 1 of 3 cells without a nucleus in 'nuclei'" in log
    assert "1 cells have several nuclei" in log


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


def test_repeated_ids(tmp_path: Path) -> None:
    index = SHAPES["cells"].index.to_list()
    cells = with_index(SHAPES["cells"], [index[0], index[0], *index[2:]])
    slide = write_outlined(tmp_path / "s.zarr", SAMPLE, {"cells": cells})
    with pytest.raises(InputError, match="its index has 1 more than once") as caught:
        extract(slide, tmp_path / "s", cytosol_shapes="cells")
    import spatialdata

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata = spatialdata.read_zarr(slide)
        exec(re.search(r"sdata\[.*", str(caught.value))[0], {"sdata": sdata})  # type: ignore[index]
    assert sdata["cells"].index.is_unique


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
        "without an area (flat, or its outline crosses itself), like 902",
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
