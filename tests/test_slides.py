"""Stores as other programs write them: small copies of their elements, ids and transformations, and extractions."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import anndata
import geopandas as gpd
import h5py
import numpy as np
import pandas as pd
import pytest
import shapely
from numpy.typing import NDArray

from cellstamp import HDF5CellExtraction, Project, read_h5sc
from cellstamp.errors import ConfigError
from outlined import placed, polygons_of, with_index
from stores import CYTOSOL, NUCLEUS, make_sample, write_store

SAMPLE = make_sample()
NUCLEI, CELLS = polygons_of(SAMPLE.masks[NUCLEUS]), polygons_of(SAMPLE.masks[CYTOSOL])
SIZE = 32


def extracted(store: Any, folder: Path, **config: Any) -> HDF5CellExtraction:
    keys = {"threads": 1, "image_size": SIZE, "progress": False, **config}
    step = HDF5CellExtraction(keys, folder, filehandler=store)
    step()
    return step


def images_of(step: Any) -> NDArray[np.float16]:
    with h5py.File(str(step.output_path)) as file:
        return np.asarray(file["obsm/single_cell_images"][:])


def instances_of(step: Any) -> list[Any]:
    return read_h5sc(str(step.output_path)).obs["instance_id"].tolist()


class Expected:
    """The images of labels of the same cells: of both masks, or of one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._store = write_store(folder / "labels.zarr", SAMPLE)
        self.ids = read_h5sc(str(self._step({}).output_path)).obs["scportrait_cell_id"].tolist()
        self.both = images_of(self._step({}))
        self.cells = images_of(self._step({"cytosol_labels": CYTOSOL}))

    def _step(self, config: dict[str, Any]) -> HDF5CellExtraction:
        return extracted(self._store, self._folder / f"of_{len(config)}", **config)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Expected:
    return Expected(tmp_path_factory.mktemp("labels"))


def written(path: Path, **elements: Any) -> Path:
    import spatialdata

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata = spatialdata.SpatialData()
        for name, element in elements.items():
            sdata[name] = element
        sdata.write(path)
    return path


def image(transformations: dict[str, Any], pixels: Any = SAMPLE.image, **options: Any) -> Any:
    from spatialdata.models import Image2DModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Image2DModel.parse(pixels, dims=("c", "y", "x"), transformations=transformations, **options)


def labels(mask: Any, transformations: dict[str, Any]) -> Any:
    from spatialdata.models import Labels2DModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Labels2DModel.parse(mask, dims=("y", "x"), transformations=transformations, scale_factors=[2])


def table(obs: pd.DataFrame, region: str, instance_key: str) -> Any:
    from spatialdata.models import TableModel

    obs = obs.assign(region=pd.Categorical([region] * len(obs)))
    obs.index = obs.index.astype(str)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return TableModel.parse(anndata.AnnData(obs=obs), region=region, region_key="region", instance_key=instance_key)


def moved(shapes: gpd.GeoDataFrame, matrix: Any) -> gpd.GeoDataFrame:
    """The shapes by an affine matrix (3, 3) for (x, y, 1)."""
    (a, b, c), (d, e, f) = np.asarray(matrix)[:2].tolist()
    return shapes.set_geometry(shapes.geometry.affine_transform([a, b, d, e, c, f]))


def multi(shapes: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    kinds = shapes.geometry.map(lambda each: each if each.geom_type == "MultiPolygon" else shapely.MultiPolygon([each]))
    return shapes.set_geometry(gpd.GeoSeries(kinds, index=shapes.index))


def xenium_names(ids: Any) -> list[str]:
    """Ids as Xenium has them: letters for digits, and the number of the dataset."""
    return [f"{''.join(chr(ord('a') + int(digit, 16)) for digit in f'{cell:08x}')}-1" for cell in ids]


# --- Xenium -----------------------------------------------------------------------------------------------------------

UM = 0.2125
WITHOUT_NUCLEUS = 22
"""A cell."""


def in_float32(shapes: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """The shapes with coordinates as exact as those of Xenium's files."""
    rounded = shapely.transform(shapes.geometry.array, lambda xy: xy.astype(np.float32).astype(np.float64))
    return shapes.set_geometry(rounded)


@pytest.fixture(scope="module")
def xenium(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from spatialdata.transformations import Affine, Identity, Scale

    here, micrometres = {"global": Identity()}, {"global": Scale([1 / UM, 1 / UM], axes=("x", "y"))}
    h_and_e = Affine(np.array([[0, -0.5, 180], [0.5, 0, 4], [0, 0, 1]]), ("x", "y"), ("x", "y"))
    to_um = np.diag([UM, UM, 1])
    names = xenium_names(CELLS.index)
    # nuclei have their own numbers, which are their labels
    owners = [cell for cell in NUCLEI.index if cell != WITHOUT_NUCLEUS]
    numbers = range(1, len(owners) + 1)
    nuclei = with_index(in_float32(moved(NUCLEI.loc[owners], to_um)), numbers, cell_id=xenium_names(owners))
    own_numbers = np.zeros(SAMPLE.masks[NUCLEUS].max() + 1, np.uint32)
    own_numbers[owners] = numbers
    rows = pd.DataFrame({"cell_id": names, "cell_labels": list(CELLS.index), "good": False})
    rows.loc[[20, 30], "good"] = True
    return written(
        tmp_path_factory.mktemp("xenium") / "xenium.zarr",
        morphology_focus=image(here, scale_factors=[2], c_coords=["DAPI", "ATP1A1", "18S"]),
        he_image=image({"global": h_and_e}, np.zeros((3, 320, 360), np.uint8)),
        cell_labels=labels(SAMPLE.masks[CYTOSOL], here),
        nucleus_labels=labels(own_numbers[SAMPLE.masks[NUCLEUS]], here),
        # in another order than the labels: numbers of cells are not those of the labels
        cell_boundaries=placed(with_index(in_float32(moved(CELLS, to_um)), names)[::-1], micrometres),
        nucleus_boundaries=placed(nuclei, micrometres),
        table=table(rows, "cell_labels", "cell_labels"),
    )


XENIUM = {"image": "morphology_focus", "nucleus_shapes": "nucleus_boundaries", "cytosol_shapes": "cell_boundaries"}


def test_xenium(xenium: Path, tmp_path: Path, expected: Expected) -> None:
    step = extracted(xenium, tmp_path / "x", **XENIUM)
    with_nucleus = np.array(expected.ids) != WITHOUT_NUCLEUS
    # the last cell is the first of the element, and has the number 1
    np.testing.assert_array_equal(images_of(step), expected.both[with_nucleus][::-1])
    assert instances_of(step) == xenium_names(np.array(expected.ids)[with_nucleus][::-1])
    read = read_h5sc(str(step.output_path))
    assert read.uns["spatialdata_attrs"]["region"] == "cell_boundaries"


def test_the_table_of_xenium_chooses_cells(xenium: Path, tmp_path: Path) -> None:
    good = {"table": "table", "column": "good"}
    choices: list[Any] = [good, {**good, "ids": "cell_id"}, xenium_names(CELLS.index[[20, 30]])]
    for number, choice in enumerate(choices):
        step = extracted(xenium, tmp_path / str(number), **XENIUM, cells=choice, border="pad")
        assert sorted(instances_of(step)) == xenium_names(CELLS.index[[20, 30]])


def test_integers_of_a_table_of_labels_are_not_taken_for_those_of_nuclei(xenium: Path, tmp_path: Path) -> None:
    nuclei = {"image": "morphology_focus", "nucleus_shapes": "nucleus_boundaries"}
    with pytest.raises(ConfigError, match=r"the table annotates cell_labels, not .*nucleus_boundaries"):
        extracted(xenium, tmp_path / "x", **nuclei, cells={"table": "table", "column": "good"})


def test_cells_of_xenium_on_its_rotated_h_and_e(xenium: Path, tmp_path: Path) -> None:
    import spatialdata

    with pytest.warns(UserWarning, match="left out .* outside of the image, which is 320 x 360 pixels"):
        step = extracted(xenium, tmp_path / "x", **{**XENIUM, "image": "he_image", "image_size": 60}, border="pad")
    found = dict(zip(instances_of(step), read_h5sc(str(step.output_path)).obsm["spatial"], strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        centroids = spatialdata.get_centroids(spatialdata.read_zarr(xenium)["nucleus_boundaries"]).compute()
    # x' = (y - 4) / 0.5 and y' = (180 - x) / 0.5 in pixels of the H&E, whose pixel [0, 0] has its centre at (0.5, 0.5)
    x, y = centroids[["x", "y"]].to_numpy().T
    names = [name for name in xenium_names(CELLS.index) if name != xenium_names([WITHOUT_NUCLEUS])[0]]
    pixels = dict(zip(names, np.stack([2 * (y - 4), 2 * (180 - x)], axis=1) - 0.5, strict=True))
    assert len(found) > 30
    for cell, center in found.items():
        np.testing.assert_allclose(center, pixels[cell], atol=1e-3)


def test_nuclei_of_xenium_only(xenium: Path, tmp_path: Path) -> None:
    step = extracted(xenium, tmp_path / "x", image="morphology_focus", nucleus_shapes="nucleus_boundaries")
    assert set(instances_of(step)) <= set(range(1, len(NUCLEI)))


@pytest.mark.filterwarnings("ignore:.* exceed", "ignore:.* no pixel of")
def test_nuclei_and_cells_of_xenium_are_numbered_apart(xenium: Path, tmp_path: Path) -> None:
    masks = {"nucleus_labels": "nucleus_labels", "cytosol_labels": "cell_labels"}
    message = (
        r"'nucleus_labels' and 'cell_labels' seem to number cells differently: at the centres of \d+ of \d+ cells of "
        r"'nucleus_labels', 'cell_labels' has another cell \(such as \d+ in \d+\)"
    )
    with pytest.warns(UserWarning, match=message):
        extracted(xenium, tmp_path / "x", image="morphology_focus", **masks)


# --- MERSCOPE ---------------------------------------------------------------------------------------------------------


def merscope(path: Path, micrometres: Any = ((9.2, 0, 371.5), (0, 9.2, -28), (0, 0, 1))) -> Path:
    from spatialdata.transformations import Affine, Identity

    cells = multi(with_index(moved(CELLS, np.linalg.inv(micrometres)), entity_ids(CELLS.index)))
    cells.index.name = "EntityID"
    return written(
        path,
        **{
            f"{MERSCOPE}_z3": image({"global": Identity()}, scale_factors=[2, 2]),
            f"{MERSCOPE}_polygons": placed(cells, {"global": Affine(np.array(micrometres), ("x", "y"), ("x", "y"))}),
        },
    )


MERSCOPE = "202310_slide_region_0"


def entity_ids(cells: Any) -> list[str]:
    return [f"{2_657_180_801_000_100_000 + cell}" for cell in cells]


@pytest.mark.parametrize("micrometres", [np.diag([9.2, 9.2, 1]), np.array([[9.2, 0, 371.5], [0, 9.2, -28], [0, 0, 1]])])
def test_merscope(tmp_path: Path, expected: Expected, micrometres: NDArray[np.float64]) -> None:
    store = merscope(tmp_path / "m.zarr", micrometres)
    step = extracted(store, tmp_path / "x", image=f"{MERSCOPE}_z3", cytosol_shapes=f"{MERSCOPE}_polygons")
    np.testing.assert_array_equal(images_of(step), expected.cells)
    assert instances_of(step) == entity_ids(expected.ids)


@pytest.mark.parametrize("way", ["texts", "integers", "file", "numbers"])
def test_cells_of_merscope_are_chosen_by_their_entity_ids(tmp_path: Path, way: str) -> None:
    """They are texts in the store, and look like integers."""
    names = entity_ids([20, 30])
    pd.DataFrame({"EntityID": names, "volume": 100.5}).to_csv(tmp_path / "chosen.csv", index=False)
    numbers = [1 + CELLS.index.get_loc(cell) for cell in (20, 30)]
    choices: dict[str, Any] = {
        "texts": names,
        "integers": [int(name) for name in names],
        "file": str(tmp_path / "chosen.csv"),
        "numbers": numbers,  # scportrait_cell_id
    }
    config = {"image": f"{MERSCOPE}_z3", "cytosol_shapes": f"{MERSCOPE}_polygons", "border": "pad"}
    step = extracted(merscope(tmp_path / "m.zarr"), tmp_path / "x", **config, cells=choices[way])
    assert instances_of(step) == names


def test_entity_ids_that_the_polygons_lack_are_named(tmp_path: Path) -> None:
    config = {"image": f"{MERSCOPE}_z3", "cytosol_shapes": f"{MERSCOPE}_polygons"}
    cells = [int(cell) for cell in entity_ids([20, 7_000, 30])]
    with pytest.raises(ConfigError, match=rf"1 of 3 cells are not among the .*_polygons'.*: {cells[1]}\. Give ids"):
        extracted(merscope(tmp_path / "m.zarr"), tmp_path / "x", **config, cells=cells)


# --- Visium HD --------------------------------------------------------------------------------------------------------


@pytest.fixture
def visium_hd(tmp_path: Path) -> Path:
    from spatialdata.transformations import Identity, Scale

    half, double = Scale([0.5, 0.5], axes=("x", "y")), Scale([2, 2], axes=("x", "y"))
    sample = "Visium_HD_Mouse"
    names = [f"cellid_{cell:09d}-1" for cell in CELLS.index]
    systems = {sample: Identity(), f"{sample}_downscaled_hires": half}
    return written(
        tmp_path / "v.zarr",
        **{
            f"{sample}_full_image": image({sample: Identity()}),
            f"{sample}_hires_image": image(
                {sample: double, f"{sample}_downscaled_hires": Identity()}, SAMPLE.image[:, ::2, ::2]
            ),
            f"{sample}_cell_segmentations": placed(with_index(CELLS, names), systems),
        },
    )


def test_visium_hd_has_no_global(visium_hd: Path, tmp_path: Path, expected: Expected) -> None:
    cells = "Visium_HD_Mouse_cell_segmentations"
    full = extracted(visium_hd, tmp_path / "full", image="Visium_HD_Mouse_full_image", cytosol_shapes=cells)
    np.testing.assert_array_equal(images_of(full), expected.cells)
    assert instances_of(full) == [f"cellid_{cell:09d}-1" for cell in expected.ids]


@pytest.mark.parametrize("system", [None, "Visium_HD_Mouse", "Visium_HD_Mouse_downscaled_hires"])
def test_systems_that_agree_need_no_choice(visium_hd: Path, tmp_path: Path, system: str | None) -> None:
    step = extracted(
        visium_hd,
        tmp_path / "x",
        image="Visium_HD_Mouse_hires_image",
        cytosol_shapes="Visium_HD_Mouse_cell_segmentations",
        coordinate_system=system,
        border="pad",
    )
    read = read_h5sc(str(step.output_path))
    centroids = CELLS.geometry.centroid.loc[read.obs["scportrait_cell_id"].astype(int)]
    pixels = np.stack([centroids.x, centroids.y], axis=1) / 2 - 0.5
    np.testing.assert_allclose(read.obsm["spatial"], pixels, atol=1e-5)
    assert read.n_obs == len(CELLS)


# --- sopa -------------------------------------------------------------------------------------------------------------


def test_sopa(tmp_path: Path, expected: Expected) -> None:
    from spatialdata.transformations import Identity, Scale

    names = xenium_names(CELLS.index)
    store = written(
        tmp_path / "s.zarr",
        image=image({"global": Identity()}),
        cellpose_boundaries=placed(with_index(CELLS, names)),
        baysor_boundaries=placed(
            with_index(moved(CELLS, np.diag([0.5, 0.5, 1])), names), {"global": Scale([2, 2], axes=("x", "y"))}
        ),
        table=table(pd.DataFrame({"cell_id": names, "area": CELLS.area.to_list()}), "cellpose_boundaries", "cell_id"),
    )
    for shapes in ("cellpose_boundaries", "baysor_boundaries"):
        step = extracted(store, tmp_path / shapes, image="image", cytosol_shapes=shapes)
        np.testing.assert_array_equal(images_of(step), expected.cells)
        assert instances_of(step) == xenium_names(expected.ids)


# --- Proseg -----------------------------------------------------------------------------------------------------------


def proseg(path: Path) -> Path:
    """A store without an image; ids from 0, micrometres."""
    cells = multi(with_index(moved(CELLS, np.diag([UM, UM, 1])), np.arange(len(CELLS), dtype=np.uint32)))
    return written(path, cell_boundaries=placed(cells))


@pytest.mark.parametrize("by", ["element", "file"])
def test_proseg_on_an_aligned_image(tmp_path: Path, expected: Expected, by: str) -> None:
    import spatialdata

    store = proseg(tmp_path / "proseg.zarr")
    project = Project(tmp_path / "p", {"threads": 1, "image_size": SIZE, "progress": False})
    project.load_input_from_array(SAMPLE.image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        element = spatialdata.read_zarr(store)["cell_boundaries"]
    cells = {"element": element, "file": store / "shapes/cell_boundaries/shapes.parquet"}[by]
    project.load_segmentation(cytosol=cells, pixel_size=UM)
    project.extract()
    np.testing.assert_array_equal(images_of(project.extraction_f), expected.cells)
    # the first cell has id 0 in Proseg, and 1 here
    read = project.h5sc.obs
    assert (read["scportrait_cell_id"] == read["instance_id"] + 1).all()


def test_the_cell_0(tmp_path: Path) -> None:
    project = Project(tmp_path / "p", {"threads": 1, "image_size": SIZE, "progress": False, "border": "pad"})
    project.load_input_from_array(SAMPLE.image)
    project.load_segmentation(
        cytosol=proseg(tmp_path / "s.zarr") / "shapes/cell_boundaries/shapes.parquet", pixel_size=UM
    )
    project.extract()
    assert project.h5sc.obs["instance_id"].tolist() == list(range(len(CELLS)))


@pytest.mark.parametrize(
    ("column", "values"), [("cell", [0, 11]), ("cell_id", [0, 11]), ("scportrait_cell_id", [1, 12]), (None, [1, 12])]
)
def test_cells_of_proseg_are_chosen_by_its_ids_in_files_of_its_columns(
    tmp_path: Path, column: str | None, values: list[int]
) -> None:
    """The ids of cellstamp are larger by 1."""
    path = tmp_path / "chosen.csv"
    pd.DataFrame({column or "x": values}).to_csv(path, index=False, header=column is not None)
    cells = {"path": str(path), "ids": column} if column else str(path)
    config = {"threads": 1, "image_size": SIZE, "progress": False, "border": "pad", "cells": cells}
    project = Project(tmp_path / "p", config)
    project.load_input_from_array(SAMPLE.image)
    polygons = proseg(tmp_path / "s.zarr") / "shapes/cell_boundaries/shapes.parquet"
    project.load_segmentation(cytosol=polygons, pixel_size=UM)
    # without a name, the column's integers could be either
    with nullcontext() if column else pytest.warns(UserWarning, match="integers are values of scportrait_cell_id"):
        project.extract()
    assert project.h5sc.obs["instance_id"].tolist() == [0, 11]


def test_cells_that_proseg_lacks_are_named(tmp_path: Path) -> None:
    pd.DataFrame({"cell": [0, 11, len(CELLS)]}).to_csv(tmp_path / "chosen.csv", index=False)
    cells = {"path": str(tmp_path / "chosen.csv"), "ids": "cell"}
    project = Project(tmp_path / "p", {"threads": 1, "image_size": SIZE, "progress": False, "cells": cells})
    project.load_input_from_array(SAMPLE.image)
    polygons = proseg(tmp_path / "s.zarr") / "shapes/cell_boundaries/shapes.parquet"
    project.load_segmentation(cytosol=polygons, pixel_size=UM)
    with pytest.raises(ConfigError, match=rf"1 of 3 cells are not among .*: {len(CELLS)}\. Give ids .*, like 0, 1, 2$"):
        project.extract()


# --- traps ------------------------------------------------------------------------------------------------------------


def test_centres_are_half_a_pixel_before_those_of_spatialdata(tmp_path: Path) -> None:
    import spatialdata
    from spatialdata.transformations import Identity

    store = written(tmp_path / "s.zarr", slide=image({"global": Identity()}), cells=placed(CELLS))
    step = extracted(store, tmp_path / "x", image="slide", cytosol_shapes="cells", border="pad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        centroids = spatialdata.get_centroids(spatialdata.read_zarr(store)["cells"]).compute()
    spatial = read_h5sc(str(step.output_path)).obsm["spatial"]
    np.testing.assert_allclose(spatial, centroids[["x", "y"]].to_numpy() - 0.5, atol=1e-4)


@pytest.mark.parametrize(
    "matrix",
    [
        [[-1, 0, 230], [0, 1, 0], [0, 0, 1]],
        [[0, -1, 230], [1, 0, 0], [0, 0, 1]],
        [[0, 2, 0], [2, 0, 0], [0, 0, 1]],
    ],
)
def test_mirrored_and_rotated_affines(tmp_path: Path, expected: Expected, matrix: list[list[float]]) -> None:
    from spatialdata.transformations import Affine, Identity

    affine = {"global": Affine(np.array(matrix), ("x", "y"), ("x", "y"))}
    cells = placed(moved(CELLS, np.linalg.inv(matrix)), affine)
    store = written(tmp_path / "s.zarr", slide=image({"global": Identity()}), cells=cells)
    step = extracted(store, tmp_path / "x", image="slide", cytosol_shapes="cells")
    np.testing.assert_array_equal(images_of(step), expected.cells)


def test_one_invalid_geometry_among_thousands(tmp_path: Path) -> None:
    from spatialdata.transformations import Identity

    rng = np.random.default_rng(0)
    corners = rng.uniform(20, 170, (3_000, 2))
    shapes = [shapely.box(x, y, x + 6, y + 5) for x, y in corners]
    shapes[1_234] = shapely.Polygon([(20, 20), (30, 30), (40, 40)])
    shapes[2_345] = shapely.Polygon()
    cells = gpd.GeoDataFrame(geometry=shapes, index=[f"c{cell}" for cell in range(len(shapes))])
    store = written(tmp_path / "s.zarr", slide=image({"global": Identity()}), cells=placed(cells))
    with pytest.warns(UserWarning, match="left out 1 of 3000 shapes") as caught:
        step = extracted(store, tmp_path / "x", image="slide", cytosol_shapes="cells", image_size=10)
    told = [str(each.message) for each in caught if "left out" in str(each.message)]  # libraries may warn, too
    assert {"c1234", "c2345"} == {message[-6:-1] for message in told}
    assert instances_of(step) == [name for name in cells.index if name not in ("c1234", "c2345")]
    log = (tmp_path / "x" / "processing.log").read_text()
    assert "left out 1 of 3000 shapes, without an area, like 'c1234'" in log
    assert "left out 1 of 3000 shapes, empty, like 'c2345'" in log


def test_ids_in_any_order(tmp_path: Path, expected: Expected) -> None:
    from spatialdata.transformations import Identity

    order = np.random.default_rng(1).permutation(len(CELLS))
    shuffled = {"nuclei": placed(NUCLEI.iloc[order]), "cells": placed(CELLS.iloc[order[::-1]])}
    store = written(tmp_path / "s.zarr", slide=image({"global": Identity()}), **shuffled)
    step = extracted(store, tmp_path / "x", image="slide", nucleus_shapes="nuclei", cytosol_shapes="cells")
    np.testing.assert_array_equal(images_of(step), expected.both)
    assert instances_of(step) == expected.ids
