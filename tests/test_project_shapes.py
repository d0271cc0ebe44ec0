"""Polygons as masks of a project: written, replaced, kept, drawn, and extracted like labels."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely

from cellstamp import Project
from cellstamp.errors import ConfigError, InputError, OutputError
from outlined import outlined, placed, polygons_of, with_index, write_outlined
from stores import CYTOSOL, NUCLEUS, make_sample

SAMPLE = make_sample()
MASKS = {"nucleus": SAMPLE.masks[NUCLEUS], "cytosol": SAMPLE.masks[CYTOSOL]}
SHAPES = {kind: polygons_of(mask) for kind, mask in MASKS.items()}
CONFIG = {"threads": 1, "image_size": 32, "progress": False}


def new_project(folder: Path, **masks: Any) -> Project:
    project = Project(folder, CONFIG)
    project.load_input_from_array(SAMPLE.image, SAMPLE.channel_names)
    if masks:
        project.load_segmentation(**masks)
    return project


def content(project: Project) -> tuple[list[int], bytes]:
    project.extract()
    cells = project.h5sc
    return cells.obs["scportrait_cell_id"].tolist(), np.asarray(cells.obsm["single_cell_images"][:]).tobytes()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[int], bytes]:
    return content(new_project(tmp_path_factory.mktemp("labels"), **MASKS))


def opened(project: Project) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return project.sdata


def log_of(project: Project) -> str:
    return Path(project.directory, "processing.log").read_text()


def in_units(shapes: gpd.GeoDataFrame, size: float) -> gpd.GeoDataFrame:
    return shapes.set_geometry(shapes.geometry.scale(size, size, origin=(0, 0)))


@pytest.mark.parametrize(
    "masks",
    [
        SHAPES,
        {**MASKS, "cytosol": SHAPES["cytosol"]},
        {**MASKS, "nucleus": SHAPES["nucleus"]},
        {kind: shapes.geometry for kind, shapes in SHAPES.items()},
    ],
)
def test_polygons_give_the_images_of_labels(tmp_path: Path, expected: Any, masks: dict[str, Any]) -> None:
    assert content(new_project(tmp_path / "p", **masks)) == expected


def test_spatialdata_reads_them_and_they_are_valid(tmp_path: Path) -> None:
    from spatialdata.models import ShapesModel

    project = new_project(tmp_path / "p", **SHAPES)
    sdata = opened(project)
    assert sorted(sdata.shapes) == [CYTOSOL, NUCLEUS]
    assert not list(sdata.labels)
    for kind, shapes in SHAPES.items():
        element = sdata[f"seg_all_{kind}"]
        ShapesModel().validate(element)
        assert element.geometry.geom_equals(shapes.geometry).all()
        assert element.index.tolist() == shapes.index.tolist()
    status = project.get_project_status()
    assert status["nucleus_segmentation"]
    assert status["cytosol_segmentation"]


@pytest.mark.parametrize(
    "place",
    [
        {"pixel_size": 0.2125},
        {"transform": [[1 / 0.2125, 0, 0], [0, 1 / 0.2125, 0]]},
        {"transform": np.diag([1 / 0.2125, 1 / 0.2125, 1])},
    ],
)
def test_polygons_in_micrometres(tmp_path: Path, expected: Any, place: dict[str, Any]) -> None:
    micrometres = {kind: in_units(shapes, 0.2125) for kind, shapes in SHAPES.items()}
    project = new_project(tmp_path / "p", **micrometres, **place)
    assert content(project) == expected
    from spatialdata.transformations import get_transformation

    matrix = get_transformation(opened(project)[CYTOSOL]).to_affine_matrix(("x", "y"), ("x", "y"))
    np.testing.assert_allclose(matrix, np.diag([1 / 0.2125, 1 / 0.2125, 1]))


def test_micrometres_that_are_taken_for_pixels(tmp_path: Path, expected: Any) -> None:
    cells = in_units(SHAPES["cytosol"], 0.2125)
    project = Project(tmp_path / "p", {**CONFIG, "border": "pad", "image_pixel_size": 0.2125})
    project.load_input_from_array(SAMPLE.image, SAMPLE.channel_names)
    project.load_segmentation(cytosol=cells)
    again = r"fits polygons in micrometres .*: load_segmentation\(\.\.\., pixel_size=0\.2125, overwrite=True\)$"
    with pytest.warns(UserWarning, match=again):
        project.extract()
    project.load_segmentation(cytosol=cells, pixel_size=0.2125, overwrite=True)
    project.extract(overwrite=True)
    assert len(project.h5sc) == len(cells)


def test_a_transform_that_mirrors_and_shifts(tmp_path: Path, expected: Any) -> None:
    # x and y exchanged, and 7 further right
    moved = {
        kind: shapes.set_geometry(shapes.geometry.affine_transform([0, 1, 1, 0, 0, -7]))
        for kind, shapes in SHAPES.items()
    }
    assert content(new_project(tmp_path / "p", **moved, transform=[[0, 1, 7], [1, 0, 0]])) == expected


def test_an_element_of_a_spatialdata_object_lies_where_that_says(tmp_path: Path, expected: Any) -> None:
    from spatialdata.transformations import Scale

    element = placed(in_units(SHAPES["cytosol"], 0.5), {"global": Scale([2, 2], axes=("x", "y"))})
    project = new_project(tmp_path / "p", nucleus=SHAPES["nucleus"], cytosol=element)
    assert content(project) == expected


def test_an_image_that_is_shifted_in_its_coordinate_system(tmp_path: Path, expected: Any) -> None:
    from spatialdata.transformations import Translation, set_transformation

    sdata = outlined(SAMPLE, {})
    set_transformation(sdata["input_image"], Translation([30, -20], axes=("x", "y")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata.write(tmp_path / "s.zarr")
    project = Project(tmp_path / "p", CONFIG)
    project.load_input_from_sdata(tmp_path / "s.zarr", "input_image", keep_all=False)
    project.load_segmentation(**SHAPES)
    assert content(project) == expected


# --- labels and shapes replace each other -----------------------------------------------------------------------------


def test_a_mask_is_labels_or_shapes(tmp_path: Path, expected: Any) -> None:
    project = new_project(tmp_path / "p", **MASKS)
    with pytest.raises(OutputError, match="labels/seg_all_cytosol already exists"):
        project.load_segmentation(cytosol=SHAPES["cytosol"])
    project.load_segmentation(cytosol=SHAPES["cytosol"], overwrite=True)
    assert (sorted(opened(project).labels), sorted(opened(project).shapes)) == ([NUCLEUS], [CYTOSOL])
    assert sorted(opened(project).points) == [f"centers_{NUCLEUS}"]
    with pytest.raises(OutputError, match="shapes/seg_all_cytosol already exists"):
        project.load_segmentation(cytosol=MASKS["cytosol"])
    project.load_segmentation(cytosol=MASKS["cytosol"], overwrite=True)
    assert (sorted(opened(project).labels), sorted(opened(project).shapes)) == ([CYTOSOL, NUCLEUS], [])
    assert content(project) == expected


def files_below(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_polygons_that_the_project_has_are_kept(tmp_path: Path) -> None:
    micrometres = in_units(SHAPES["cytosol"], 0.5).assign(kind="a", size=1.5)
    project = new_project(tmp_path / "p", cytosol=micrometres, pixel_size=0.5)
    before = files_below(Path(project.sdata_path))
    project.load_segmentation(cytosol=micrometres, pixel_size=0.5)
    assert files_below(Path(project.sdata_path)) == before
    moved = micrometres.set_geometry(micrometres.geometry.translate(0.001))
    for other, size in [(micrometres, 0.51), (moved, 0.5), (micrometres.assign(kind="b"), 0.5), (micrometres[1:], 0.5)]:
        with pytest.raises(OutputError, match=r"shapes/seg_all_cytosol already exists. Set overwrite=True"):
            project.load_segmentation(cytosol=other, pixel_size=size)


def test_one_mask_after_the_other(tmp_path: Path, expected: Any) -> None:
    project = new_project(tmp_path / "p", cytosol=SHAPES["cytosol"])
    project.load_segmentation(nucleus=SHAPES["nucleus"])
    assert content(project) == expected
    assert "matched to 'seg_all_cytosol'" in log_of(project)


def test_an_error_leaves_the_project_unchanged(tmp_path: Path) -> None:
    project = new_project(tmp_path / "p", nucleus=MASKS["nucleus"])
    before = files_below(Path(project.sdata_path))
    texts = with_index(SHAPES["cytosol"], [f"c{cell}" for cell in SHAPES["cytosol"].index])
    with pytest.raises(InputError, match="index must have the ids of the labels, positive integers; it has 'c1'"):
        project.load_segmentation(cytosol=texts)
    others = with_index(SHAPES["cytosol"], SHAPES["cytosol"].index + 7)
    with pytest.raises(InputError, match="do not belong together"):
        project.load_segmentation(cytosol=others)
    assert files_below(Path(project.sdata_path)) == before
    assert sorted(path.name for path in Path(project.directory).glob(".*staging*")) == []


def test_segmenting_replaces_shapes(tmp_path: Path) -> None:
    from cellstamp import ThresholdSegmentation

    keys = {"threads": 1, "nucleus_channel": "dna", "progress": False}
    project = Project(tmp_path / "p", {"ThresholdSegmentation": keys}, segmentation_f=ThresholdSegmentation)
    project.load_input_from_array(SAMPLE.image, SAMPLE.channel_names)
    project.load_segmentation(**SHAPES)
    with pytest.raises(OutputError, match="shapes/seg_all_nucleus, shapes/seg_all_cytosol already exist"):
        project.segment()
    project.segment(overwrite=True)
    assert not list(opened(project).shapes)
    assert sorted(opened(project).labels) == [CYTOSOL, NUCLEUS]


# --- a store with shapes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("keep_all", [False, True])
def test_shapes_of_a_store(tmp_path: Path, expected: Any, in_memory: bool, keep_all: bool) -> None:  # noqa: FBT001
    import spatialdata
    from spatialdata.transformations import Scale

    shapes = {
        kind: placed(in_units(each, 0.5), {"global": Scale([2, 2], axes=("x", "y"))}) for kind, each in SHAPES.items()
    }
    path: Any = write_outlined(tmp_path / "s.zarr", SAMPLE, {"nuclei": shapes["nucleus"], "cells": shapes["cytosol"]})
    if in_memory:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = spatialdata.read_zarr(path)
    project = Project(tmp_path / "p", CONFIG)
    project.load_input_from_sdata(path, "input_image", "nuclei", "cells", keep_all=keep_all)
    assert sorted(opened(project).shapes) == [CYTOSOL, NUCLEUS]
    assert content(project) == expected


def test_shapes_that_were_changed_in_memory(tmp_path: Path) -> None:
    import spatialdata

    path = write_outlined(tmp_path / "s.zarr", SAMPLE, {"cells": SHAPES["cytosol"]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata = spatialdata.read_zarr(path)
    sdata["cells"]["geometry"] = sdata["cells"].geometry.translate(1)
    with pytest.raises(InputError, match="shapes/cells of this SpatialData object differs from its store"):
        Project(tmp_path / "p", CONFIG).load_input_from_sdata(sdata, "input_image", cytosol_segmentation_name="cells")


# --- invalid input ----------------------------------------------------------------------------------------------------

CELLS = SHAPES["cytosol"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cytosol": CELLS, "pixel_size": 0}, "pixel_size = 0: must be a positive number"),
        ({"cytosol": CELLS, "pixel_size": "0.2"}, "pixel_size = '0.2': must be a positive number"),
        ({"cytosol": CELLS, "pixel_size": "0.2125 um"}, r"like 0\.2125 if they are in micrometres; write 0\.2125$"),
        ({"cytosol": CELLS, "pixel_size": "212.5 nm"}, r"; write 0\.2125$"),
        ({"cytosol": CELLS, "pixel_size": "small"}, r"like 0\.2125 if they are in micrometres$"),
        ({"cytosol": CELLS, "pixel_size": 1, "transform": np.eye(3)}, "Give one of them"),
        ({"cytosol": CELLS, "transform": np.eye(2)}, "must be an affine matrix .* with an inverse"),
        ({"cytosol": CELLS, "transform": [[1, 0, 0], [2, 0, 0]]}, "must be an affine matrix .* with an inverse"),
        ({"cytosol": CELLS, "ids": 3}, "ids = 3: must be the name of the column"),
        ({"cytosol": CELLS, "ids": "cell"}, r"no column or property 'cell' \(ids\); it has none"),
        ({"cytosol": MASKS["cytosol"], "pixel_size": 0.5}, "are for polygons, but no mask is polygons"),
        ({"cytosol": CELLS, "pixel_size": 0.001}, "none of its 72 cells is on the image.*give pixel_size"),
        ({"cytosol": with_index(CELLS, [1] * len(CELLS))}, "the id 1 is repeated"),
        ({"cytosol": with_index(CELLS, [None] * len(CELLS))}, "row 0 has no id"),
        ({"cytosol": with_index(CELLS, [f"\0{cell}" for cell in CELLS.index])}, r"the id '\\x001' contains NUL"),
        ({"cytosol": gpd.GeoDataFrame({"a": [1]})}, "has no geometry. Set it with set_geometry"),
        ({"cytosol": CELLS.set_geometry(CELLS.centroid)}, "no polygon that can be a cell .*neither polygons nor"),
    ],
)
def test_clear_errors(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        new_project(tmp_path / "p", **options)


def test_messages_do_not_name_a_folder_for_unfinished_elements(tmp_path: Path) -> None:
    project = Project(tmp_path / "p", CONFIG)
    project.load_input_from_array(SAMPLE.image, SAMPLE.channel_names)
    nuclei = with_index(SHAPES["nucleus"], [f"nucleus {number}" for number in SHAPES["nucleus"].index])
    store = re.escape(str(tmp_path / "p" / "scportrait.sdata"))
    with pytest.raises(
        InputError, match=rf"^shapes 'seg_all_nucleus' in {store} and shapes 'seg_all_cytosol' in {store} "
    ):
        project.load_segmentation(nucleus=nuclei, cytosol=SHAPES["cytosol"])


def test_cells_without_a_nucleus_are_extracted_without_the_nucleus_mask(tmp_path: Path) -> None:
    project = new_project(tmp_path / "p", nucleus=SHAPES["nucleus"].iloc[5:], cytosol=SHAPES["cytosol"])
    hint = re.search("without a nucleus.*; to extract them too, set only (.*), or use (.*)", log_of(project))
    assert hint is not None
    key, _, name = hint[1].partition(": ")
    ids, _ = content(Project(tmp_path / "p", CONFIG | {key: name}))
    assert hint[2] == "load_segmentation(cytosol=...) into a new project"
    assert ids == content(new_project(tmp_path / "cells only", cytosol=SHAPES["cytosol"]))[0]


def test_polygons_before_an_image(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no image 'input_image'; load one before its masks"):
        Project(tmp_path / "p", CONFIG).load_segmentation(cytosol=CELLS)


def test_shapes_that_cannot_be_cells_are_reported(tmp_path: Path, expected: Any) -> None:
    cells = with_index(CELLS, CELLS.index)
    cells.loc[900, "geometry"] = shapely.Polygon([(0, 0), (5, 5), (9, 9)])
    cells.loc[901, "geometry"] = shapely.Point(3, 3)
    cells["notes"] = [{"a": 1}] * len(cells)
    with pytest.warns(UserWarning, match="left out") as caught:
        project = new_project(tmp_path / "p", nucleus=SHAPES["nucleus"], cytosol=cells)
    said = [str(each.message) for each in caught]
    assert said == [
        "cytosol mask: left out 1 of 74 features, neither polygons nor circles, like 901",
        "cytosol mask: left out 1 of 74 features, without an area, like 900",
        "cytosol mask: left out the columns notes, whose values are not numbers, texts or dates",
    ]
    assert all(line in log_of(project) for line in said)
    assert content(project) == expected
    assert 900 in cells.index, "the user's object is unchanged"


def test_shapes_of_a_store_that_cannot_be_cells_are_reported(tmp_path: Path) -> None:
    path = write_outlined(tmp_path / "s.zarr", SAMPLE, {"cells": CELLS})
    cells = with_index(CELLS, CELLS.index)
    cells.loc[900, "geometry"] = None
    cells.to_parquet(path / "shapes/cells/shapes.parquet")
    project = Project(tmp_path / "p", CONFIG)
    with pytest.warns(UserWarning, match="left out 1 of 73 shapes, missing or damaged, like 900") as caught:
        project.load_input_from_sdata(path, "input_image", cytosol_segmentation_name="cells")
    assert str(tmp_path / "p" / "scportrait.sdata") in str(caught[0].message)
    assert str(caught[0].message) in log_of(project)
    with pytest.warns(UserWarning, match="left out 1 of 73 shapes, missing or damaged, like 900"):
        project.extract()


def test_circles(tmp_path: Path) -> None:
    circles = gpd.GeoDataFrame({"radius": [8.0, 5.5]}, geometry=gpd.points_from_xy([60.5, 120], [70.5, 100]))
    project = new_project(tmp_path / "p", cytosol=circles)
    project.extract()
    np.testing.assert_allclose(project.h5sc.obsm["spatial"], [[60, 70], [119.5, 99.5]], atol=1e-6)


def test_centers_of_shapes_are_not_given(tmp_path: Path) -> None:
    project = Project(tmp_path / "p", {**CONFIG, "centers": "points"})
    project.load_input_from_array(SAMPLE.image)
    project.load_segmentation(cytosol=CELLS)
    with pytest.raises(ConfigError, match=r"centers = 'points': cells are given as the shapes .* Remove the key"):
        project.extract()


# --- what a project shows ---------------------------------------------------------------------------------------------


def test_pictures_and_tables(tmp_path: Path) -> None:
    texts = {kind: with_index(each, [f"c{cell}" for cell in each.index]) for kind, each in SHAPES.items()}
    project = new_project(tmp_path / "p", **texts)
    project.extract()
    axes = project.plot_segmentation_masks(region=[(20, 80), (20, 80)])
    lines = {tuple(each.get_color()[0]): each.get_segments() for each in axes.collections}
    inside = CELLS[CELLS.intersects(shapely.box(20, 20, 80, 80))]
    assert len(list(lines.values())[1]) == len(inside)
    removed = project.plot_removed()
    assert removed.get_title() == f"{project.h5sc.n_obs} of {len(CELLS)} cells kept"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        project.add_table("cells")
        table = project.sdata["cells"]
    assert table.obs["instance_id"].isin(texts["cytosol"].index).all()
    assert table.uns["spatialdata_attrs"]["region"] == CYTOSOL


@pytest.mark.parametrize("masks", [{"cytosol": CELLS}, {"nucleus": SHAPES["nucleus"], "cytosol": MASKS["cytosol"]}])
def test_removed_cells_of_one_shapes_element(tmp_path: Path, masks: dict[str, Any]) -> None:
    project = new_project(tmp_path / "p", **masks)
    project.extract()
    assert project.plot_removed().get_title() == f"{project.h5sc.n_obs} of {len(CELLS)} cells kept"


def test_cells_chosen_by_a_file_of_texts(tmp_path: Path) -> None:
    project = Project(tmp_path / "p", {**CONFIG, "cells": str(tmp_path / "chosen.csv")})
    project.load_input_from_array(SAMPLE.image)
    project.load_segmentation(cytosol=with_index(CELLS, [f"c{cell}" for cell in CELLS.index]))
    (tmp_path / "chosen.csv").write_text("cell_id\nc22\nc30\n")
    project.extract()
    assert project.h5sc.obs["instance_id"].tolist() == ["c22", "c30"]


def test_the_command_line_shows_a_result_from_shapes(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from cellstamp.cli import commands

    project = new_project(tmp_path / "p", **SHAPES)
    project.extract()
    told = CliRunner().invoke(commands, ["info", str(project.extraction_f.output_path)])
    assert f"2: {NUCLEUS}, {CYTOSOL}" in told.output
    picture = tmp_path / "cells.png"
    assert CliRunner().invoke(commands, ["preview", str(project.directory), "-o", str(picture)]).exit_code == 0
    assert picture.stat().st_size
