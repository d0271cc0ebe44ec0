"""Vendors' folders, read with spatialdata-io, written as stores and extracted by the names of their elements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spatialdata
import spatialdata_io
import write_cosmx
import write_mcmicro
import write_merscope
import write_steinbock
import write_visium_hd
import write_xenium
from comparing_cells import assert_equal_images, extracted, images_by_id, write
from made_slide import WITHOUT_NUCLEUS, Slide
from write_visium_hd import cell_name

from conftest import FromLabels

# --- Xenium -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def xenium(tmp_path_factory: pytest.TempPathFactory, slide: Slide) -> Path:
    folder = tmp_path_factory.mktemp("xenium")
    return write(spatialdata_io.xenium(write_xenium.write_xenium(folder / "outs", slide)), folder / "xenium.zarr")


SHAPES = {"nucleus_shapes": "nucleus_boundaries", "cytosol_shapes": "cell_boundaries"}
FOCUS = {"image": "morphology_focus", **SHAPES}


@pytest.fixture(scope="module")
def xenium_name(slide: Slide) -> Any:
    names = write_xenium.cell_names(slide.n_cells)
    return lambda cell: names[cell - 1]


def test_xenium_nuclei_and_cells(xenium: Path, tmp_path: Path, from_labels: FromLabels, xenium_name: Any) -> None:
    cells = extracted(xenium, tmp_path / "out", **FOCUS)
    assert_equal_images(images_by_id(cells), from_labels.images("nuclei", "cells"), xenium_name)
    assert cells.var["channels"].tolist()[2:] == list(write_xenium.STAINS)
    assert xenium_name(WITHOUT_NUCLEUS) not in cells.obs["instance_id"].tolist()


def test_xenium_cells_without_nuclei(xenium: Path, tmp_path: Path, from_labels: FromLabels, xenium_name: Any) -> None:
    cells = extracted(xenium, tmp_path / "out", image="morphology_focus", cytosol_shapes="cell_boundaries")
    assert_equal_images(images_by_id(cells), from_labels.images("cells"), xenium_name)
    assert xenium_name(WITHOUT_NUCLEUS) in cells.obs["instance_id"].tolist()


def test_xenium_cell_labels(xenium: Path, tmp_path: Path, from_labels: FromLabels) -> None:
    cells = extracted(xenium, tmp_path / "out", image="morphology_focus", cytosol_labels="cell_labels")
    assert_equal_images(images_by_id(cells), from_labels.images("cells"))


def test_xenium_numbers_nuclei_and_cells_apart(xenium: Path, tmp_path: Path) -> None:
    masks = {"nucleus_labels": "nucleus_labels", "cytosol_labels": "cell_labels"}
    with pytest.warns(UserWarning, match="'nucleus_labels' and 'cell_labels' seem to number cells differently"):
        extracted(xenium, tmp_path / "out", image="morphology_focus", **masks)


def test_xenium_joins_its_table(xenium: Path, tmp_path: Path, slide: Slide) -> None:
    cells = extracted(xenium, tmp_path / "out", **FOCUS)
    table = spatialdata.read_zarr(xenium)["table"].obs.set_index("cell_id")
    joined = cells.obs.join(table, on="instance_id", validate="one_to_one", rsuffix="_of_table")
    numbers = joined["cell_labels"].to_numpy(int)
    areas = slide.measured()["area"].loc[numbers] * write_xenium.UM**2
    np.testing.assert_allclose(joined["cell_area"], areas)


def test_xenium_table_chooses_cells(xenium: Path, tmp_path: Path, xenium_name: Any) -> None:
    sdata = spatialdata.read_zarr(xenium)
    table = sdata["table"]
    table.obs["good"] = table.obs["cell_labels"].isin([20, 30])
    sdata.delete_element_from_disk("table")
    sdata.write_element("table")
    cells = extracted(xenium, tmp_path / "out", **FOCUS, cells={"table": "table", "column": "good"})
    assert sorted(cells.obs["instance_id"]) == sorted(map(xenium_name, [20, 30]))


def test_xenium_h_and_e_beside_the_focus_image(
    xenium: Path, tmp_path: Path, slide: Slide, from_labels: FromLabels, xenium_name: Any
) -> None:
    keys: dict[str, Any] = {"image": ["morphology_focus", "he_image"], "interpolation": "nearest"}
    with pytest.warns(UserWarning, match="outside of image 'he_image'"):
        cells = extracted(xenium, tmp_path / "out", **keys, **SHAPES)
    # the pixels of the focus image that the H&E image covers; it has four pixels of one value for each
    stain = np.zeros_like(slide.image[:3])
    stain[:, 4:174, 20:180] = slide.image[:3, 4:174, 20:180] // 256
    expected = from_labels.images("nuclei", "cells", pixels=np.concatenate([slide.image, stain]))
    assert_equal_images(images_by_id(cells), expected, xenium_name)
    assert cells.var["channels"].tolist()[-3:] == ["r", "g", "b"]


def test_xenium_on_its_turned_h_and_e(
    xenium: Path, tmp_path: Path, slide: Slide, from_labels: FromLabels, xenium_name: Any
) -> None:
    keys: dict[str, Any] = {"image": "he_image", "image_size": 64}
    with pytest.warns(UserWarning, match="outside of the image, which is 320 x 340 pixels"):
        cells = extracted(xenium, tmp_path / "out", **keys, **SHAPES)
    masks = {name: write_xenium.on_h_and_e(mask) for name, mask in slide.sample.masks.items()}
    expected = from_labels.images_of(write_xenium.h_and_e(slide), masks, image_size=64)
    assert_equal_images(images_by_id(cells), expected, xenium_name, at_least=10)


# --- MERSCOPE ---------------------------------------------------------------------------------------------------------


def test_merscope(tmp_path: Path, slide: Slide, from_labels: FromLabels) -> None:
    sdata = spatialdata_io.merscope(write_merscope.write_merscope(tmp_path, slide))
    name = f"{write_merscope.RUN}_{write_merscope.REGION}"
    # the reader's order of channels changes from run to run
    keys = {"image": f"{name}_z3", "channels": list(write_merscope.STAINS), "cytosol_shapes": f"{name}_polygons"}
    cells = extracted(write(sdata, tmp_path / "m.zarr"), tmp_path / "out", **keys)
    ids = write_merscope.entity_ids(slide.n_cells)
    assert_equal_images(images_by_id(cells), from_labels.images("cells"), lambda cell: str(ids[cell - 1]))
    table = sdata["table"].obs.set_index("EntityID", drop=True)
    joined = cells.obs.join(table, on="instance_id", validate="one_to_one", rsuffix="_of_table")
    np.testing.assert_allclose(joined["volume"], slide.measured()["area"].loc[cells.obs["scportrait_cell_id"]])


# --- CosMx ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cosmx(tmp_path_factory: pytest.TempPathFactory, slide: Slide) -> Path:
    folder = tmp_path_factory.mktemp("cosmx")
    flipped = Slide(slide.image[..., ::-1, :], slide.cells[::-1], slide.nuclei[::-1], slide.owners)
    return write(
        spatialdata_io.cosmx(write_cosmx.write_cosmx(folder / "flat", {1: slide, 2: flipped})), folder / "c.zarr"
    )


@pytest.mark.parametrize("system", [None, "1", "global"])
def test_cosmx(cosmx: Path, tmp_path: Path, slide: Slide, from_labels: FromLabels, system: str | None) -> None:
    keys = {"image": "1_image", "cytosol_labels": "1_labels", "coordinate_system": system}
    cells = extracted(cosmx, tmp_path / "out", **keys)
    # the composite is a JPEG
    pixels = spatialdata.read_zarr(cosmx)["1_image"].to_numpy()
    assert np.abs(pixels.astype(int) - slide.image[:3] // 256).mean() < 3
    assert_equal_images(images_by_id(cells), from_labels.images("cells", pixels=pixels))


def test_cosmx_table_of_several_fields(cosmx: Path, tmp_path: Path) -> None:
    sdata = spatialdata.read_zarr(cosmx)
    obs = sdata["table"].obs
    obs["good"] = (obs["fov"] == "2") & obs["cell_ID"].isin([20, 30]) | (obs["fov"] == "1") & (obs["cell_ID"] == 22)
    sdata.delete_element_from_disk("table")
    sdata.write_element("table")
    keys = {"image": "2_image", "cytosol_labels": "2_labels", "cells": {"table": "table", "column": "good"}}
    cells = extracted(cosmx, tmp_path / "out", **keys)
    assert cells.obs["scportrait_cell_id"].tolist() == [20, 30]


# --- Visium HD --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def visium_hd(tmp_path_factory: pytest.TempPathFactory, slide: Slide) -> Path:
    folder = tmp_path_factory.mktemp("visium_hd")
    sdata = spatialdata_io.visium_hd(
        write_visium_hd.write_visium_hd(folder / "outs", slide),
        load_segmentations_only=True,
        load_nucleus_segmentations=True,
    )
    return write(sdata, folder / "v.zarr")


def test_visium_hd(visium_hd: Path, tmp_path: Path, slide: Slide, from_labels: FromLabels) -> None:
    sample = write_visium_hd.SAMPLE
    keys = {"image": f"{sample}_full_image", "cytosol_shapes": f"{sample}_cell_segmentations"}
    cells = extracted(visium_hd, tmp_path / "out", **keys)
    pixels = write_visium_hd.full_image(slide).transpose(2, 0, 1)
    assert_equal_images(images_by_id(cells), from_labels.images("cells", pixels=pixels), cell_name)
    table = spatialdata.read_zarr(visium_hd)["cell_segmentations"].obs
    assert set(cells.obs["instance_id"]) <= set(table["cell_id"])


def test_visium_hd_nuclei(visium_hd: Path, tmp_path: Path, slide: Slide, from_labels: FromLabels) -> None:
    sample = write_visium_hd.SAMPLE
    keys = {
        "image": f"{sample}_full_image",
        "nucleus_shapes": f"{sample}_nucleus_segmentations",
        "cytosol_shapes": f"{sample}_cell_segmentations",
    }
    cells = extracted(visium_hd, tmp_path / "out", **keys)
    expected = from_labels.images("nuclei", "cells", pixels=write_visium_hd.full_image(slide).transpose(2, 0, 1))
    in_store = spatialdata.read_zarr(visium_hd)[f"{sample}_nucleus_segmentations"].index
    expected = {cell: images for cell, images in expected.items() if cell_name(cell) in in_store}
    assert_equal_images(images_by_id(cells), expected, cell_name)


# --- steinbock and MCMICRO --------------------------------------------------------------------------------------------


def test_steinbock(tmp_path: Path, slide: Slide, from_labels: FromLabels) -> None:
    folder = write_steinbock.write_steinbock(tmp_path / "s", {"Patient1_001": slide, "Patient1_002": slide})
    store = write(spatialdata_io.steinbock(folder), tmp_path / "s.zarr")
    keys = {"image": "Patient1_002_image", "cytosol_labels": "Patient1_002_labels"}
    cells = extracted(store, tmp_path / "out", **keys)
    assert_equal_images(images_by_id(cells), from_labels.images("cells"))


def test_mcmicro(tmp_path: Path, slide: Slide, from_labels: FromLabels) -> None:
    store = write(spatialdata_io.mcmicro(write_mcmicro.write_mcmicro(tmp_path / "m", slide)), tmp_path / "m.zarr")
    sample = write_mcmicro.SAMPLE
    keys = {"image": f"{sample}_image", "nucleus_labels": f"{sample}_nuclei", "cytosol_labels": f"{sample}_cell"}
    cells = extracted(store, tmp_path / "out", **keys)
    assert_equal_images(images_by_id(cells), from_labels.images("nuclei", "cells"))
    assert cells.var["channels"].tolist()[2:] == list(write_mcmicro.MARKERS)


def test_mcmicro_cores_of_an_array(tmp_path: Path, slide: Slide, from_labels: FromLabels) -> None:
    centers = {1: (500.0, 400.0), 2: (900.5, 401.25)}
    folder = write_mcmicro.write_mcmicro_array(tmp_path / "m", dict.fromkeys(centers, slide), centers)
    store = write(spatialdata_io.mcmicro(folder), tmp_path / "m.zarr")
    keys = {"image": "core_2_image", "nucleus_labels": "core_2_nuclei", "cytosol_labels": "core_2_cell"}
    cells = extracted(store, tmp_path / "out", **keys)
    assert_equal_images(images_by_id(cells), from_labels.images("nuclei", "cells"))
