"""Extraction from stores as other programs write them: elements of any name, and centres that the user names."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

import restatement
from cellstamp import HDF5CellExtraction
from cellstamp.errors import InputError
from stores import CYTOSOL, NUCLEUS, Sample, make_sample

SIZE = 32
N = int(make_sample().masks[NUCLEUS].max())
# ids as a table of a machine has them: with gaps, in no relation to the place
SAMPLE = make_sample().with_ids(np.random.default_rng(1).permutation(np.arange(1, N + 1) * 37 + 5).astype(np.uint32))


def spatialdata_like(
    image: str, labels: dict[str, str], *, scales: list[int] | None = None, transformations: Any = None
) -> Any:
    """The sample as a SpatialData object: its image under a name, and under each name of labels one of its masks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import dask.array
        from spatialdata import SpatialData
        from spatialdata.models import Image2DModel, Labels2DModel

        options: dict[str, Any] = {"scale_factors": scales, "transformations": transformations}
        pixels = dask.array.from_array(SAMPLE.image, chunks=(1, 64, 64))
        parsed = Image2DModel.parse(pixels, dims=("c", "y", "x"), c_coords=SAMPLE.channel_names, **options)
        masks = {
            name: Labels2DModel.parse(
                dask.array.from_array(SAMPLE.masks[mask], chunks=(64, 64)), dims=("y", "x"), **options
            )
            for name, mask in labels.items()
        }
        return SpatialData(images={image: parsed}, labels=masks)


def xenium() -> Any:
    from spatialdata.transformations import Identity

    labels = {"cell_labels": CYTOSOL, "nucleus_labels": NUCLEUS}
    return spatialdata_like("morphology_focus", labels, scales=[2, 2], transformations={"global": Identity()})


def merscope() -> Any:
    from spatialdata.transformations import Scale

    microns = {"global": Scale([9.2, 9.2], axes=("x", "y"))}
    labels = {"region_0_cellpose_z3": CYTOSOL}
    return spatialdata_like("region_0_z3", labels, scales=[2], transformations=microns)


def cosmx() -> Any:
    from spatialdata.transformations import Affine, Identity

    # as its reader places a field of view: an affine of (x, y), beside its own pixels
    place = Affine([[1, 0, 4000], [0, -1, 9000], [0, 0, 1]], input_axes=("x", "y"), output_axes=("x", "y"))
    return spatialdata_like("7_image", {"7_labels": CYTOSOL}, transformations={"7": Identity(), "global": place})


def visium_hd() -> Any:
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Identity, Scale

    name = "Colon_HD"
    labels = {f"{name}_nucleus_segmentation_labels": NUCLEUS, f"{name}_cell_segmentation_labels": CYTOSOL}
    sdata = spatialdata_like(f"{name}_full_image", labels, scales=[2], transformations={name: Identity()})
    for level, factor in (("hires", 2), ("lowres", 5)):
        place = {name: Scale([factor, factor], axes=("x", "y")), f"{name}_downscaled_{level}": Identity()}
        smaller = SAMPLE.image[:, ::factor, ::factor]
        sdata[f"{name}_{level}_image"] = Image2DModel.parse(smaller, dims=("c", "y", "x"), transformations=place)
    return sdata


def on_disk(sdata: Any, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata.write(path)
    return path


def read_back(sdata: Any, path: Path) -> Any:
    from cellstamp.source.load.store import open_sdata

    return open_sdata(on_disk(sdata, path))


def changed(sdata: Any, path: Path) -> Any:
    """On disk, and its image not the one in memory any more; its pixels are."""
    again = read_back(sdata, path)
    for name in again.labels:
        element = again.labels[name]
        level = element["scale0"].image if hasattr(element, "children") else element
        level.data = level.data + np.uint32(0)
    return again


def in_memory(sdata: Any, path: Path) -> Any:
    del path
    return sdata


WAYS = [on_disk, read_back, changed, in_memory]


def two_ways(n: int) -> list[tuple[int, Any]]:
    """Each of n cases on disk and in one other way; each way is taken."""
    return [(case, way) for case in range(n) for way in (on_disk, WAYS[1 + case % 3])]


@pytest.fixture
def extract(tmp_path: Path) -> Callable[..., HDF5CellExtraction]:
    def run(handler: Any, **config: Any) -> HDF5CellExtraction:
        keys = {"threads": 1, "image_size": SIZE, "cache": str(tmp_path / "cache"), **config}
        step = HDF5CellExtraction(keys, tmp_path / "out", overwrite=True, filehandler=handler)
        step()
        return step

    return run


Extract = Callable[..., HDF5CellExtraction]


def check(step: HDF5CellExtraction, sample: Sample, names: list[str]) -> None:
    ids, _, stamps = restatement.extract(list(sample.masks.values()), sample.image, SIZE, (0.001, 0.999))
    with h5py.File(str(step.output_path)) as file:
        assert file["obs/scportrait_cell_id"][:].tolist() == ids.tolist()
        assert restatement.same_bits(file["obsm/single_cell_images"][:], stamps)
        assert file["var/channels"].asstr()[:].tolist() == [*names, *sample.channel_names]


# --- elements of any name --------------------------------------------------------------------------------------------


PROGRAMS = [
    (xenium, {"image": "morphology_focus", "nucleus_labels": "nucleus_labels", "cytosol_labels": "cell_labels"}),
    (merscope, {"image": "region_0_z3", "cytosol_labels": "region_0_cellpose_z3"}),
    (cosmx, {"image": "7_image", "cytosol_labels": "7_labels"}),
    (
        visium_hd,
        {
            "image": "Colon_HD_full_image",
            "nucleus_labels": "Colon_HD_nucleus_segmentation_labels",
            "cytosol_labels": "Colon_HD_cell_segmentation_labels",
        },
    ),
]


@pytest.mark.parametrize(("program", "way"), two_ways(len(PROGRAMS)))
def test_stores_of_other_programs(tmp_path: Path, extract: Extract, program: int, way: Any) -> None:
    make, config = PROGRAMS[program]
    step = extract(way(make(), tmp_path / "s.zarr"), **config)
    keys = {"nucleus_labels": NUCLEUS, "cytosol_labels": CYTOSOL}
    masks = {config[key]: SAMPLE.masks[mask] for key, mask in keys.items() if key in config}
    check(step, Sample(SAMPLE.image, masks), list(masks))
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("key", ["nucleus_labels", "cytosol_labels"])
def test_only_the_labels_given_are_masks(tmp_path: Path, extract: Extract, key: str) -> None:
    """``segmentation_key`` would find two more."""
    sdata = spatialdata_like("input_image", {NUCLEUS: NUCLEUS, CYTOSOL: CYTOSOL, "mine": NUCLEUS})
    step = extract(on_disk(sdata, tmp_path / "s.zarr"), **{key: "mine"})
    check(step, Sample(SAMPLE.image, {"mine": SAMPLE.masks[NUCLEUS]}), ["mine"])


@pytest.mark.parametrize("way", [on_disk, in_memory])
@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"nucleus_labels": "nuclei"},
            r"nucleus_labels: no labels named 'nuclei' in .*; it has cell_labels, nucleus_labels$",
        ),
        (
            {"cytosol_labels": "morphology_focus"},
            r"cytosol_labels: no labels named 'morphology_focus' in .*; 'morphology_focus' is one of its images",
        ),
        ({"nucleus_labels": "spots"}, r"nucleus_labels: no labels named 'spots' in .*; 'spots' is one of its points"),
        (
            {"image": "cell_labels", "cytosol_labels": "cell_labels"},
            r"image: no images element named 'cell_labels' in .*; it has morphology_focus; .* one of its labels",
        ),
        (
            {"image": "scan", "cytosol_labels": "cell_labels"},
            r"image: no images element named 'scan' in .*; it has morphology_focus$",
        ),
        ({}, r"no labels named seg_all_nucleus or .*; it has cell_labels, nucleus_labels\. .*nucleus_labels and cyto"),
    ],
)
def test_elements_that_are_not_there(
    tmp_path: Path, extract: Extract, config: dict, message: str, way: Callable[..., Any]
) -> None:
    sdata = xenium()
    sdata["spots"] = points(pd.DataFrame({"x": [1.0], "y": [2.0]}))
    with pytest.raises(InputError, match=message):
        extract(way(sdata, tmp_path / "s.zarr"), **{"image": "morphology_focus", **config})


# --- centres that are given ------------------------------------------------------------------------------------------


def points(frame: pd.DataFrame, transformations: Any = None, **options: Any) -> Any:
    from spatialdata.models import PointsModel

    coordinates = {axis: axis for axis in ("x", "y", "z") if axis in frame}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an index in no order
        return PointsModel.parse(frame, coordinates=coordinates, transformations=transformations, **options)


def table(frame: pd.DataFrame, xy: Any, region: list[str]) -> Any:
    from anndata import AnnData
    from spatialdata.models import TableModel

    frame = frame.set_index(frame.index.astype(str)).astype({"region": "category"})
    made = AnnData(np.ones((len(frame), 3), np.float32), obs=frame)
    if xy is not None:
        made.obsm["spatial"] = np.asarray(xy)
    return TableModel.parse(made, region=region, region_key="region", instance_key="cell")


def some_centers(every: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Ids and moved centres of some of the cells, in no order."""
    ids, xy = restatement.centers(SAMPLE.masks[NUCLEUS])
    order = np.random.default_rng(2).permutation(len(ids))[::every]
    return ids[order], np.asarray(xy, float)[order] + (1.25, -0.75)


def check_centers(step: HDF5CellExtraction, ids: np.ndarray, xy: np.ndarray) -> None:
    """The file holds these cells, at these places, but for those too near the border."""
    inside = ((np.round(xy) > SIZE // 2) & (np.round(xy) < np.array([230, 200]) - SIZE // 2)).all(axis=1)
    order = np.argsort(ids[inside])
    assert inside.sum() > 10
    with h5py.File(str(step.output_path)) as file:
        assert file["obs/scportrait_cell_id"][:].tolist() == ids[inside][order].tolist()
        assert np.allclose(file["obsm/spatial"][:], xy[inside][order], rtol=0, atol=1e-6)
        nuclei = file["obsm/single_cell_images"][:, 0]
    assert (nuclei > 0).any(axis=(1, 2)).all()


def moved_by_points() -> list[tuple[Any, Any]]:
    from spatialdata.transformations import Affine, Identity, Scale
    from spatialdata.transformations import Sequence as Chain

    turned = Affine([[0.2, 0, 3], [0.1, 0.4, -8], [0, 0, 1]], input_axes=("x", "y"), output_axes=("x", "y"))
    microns = Scale([0.2125, 0.3], axes=("x", "y"))
    return [
        ({"global": Identity()}, {"global": Identity()}),
        ({"global": Identity()}, {"global": microns}),
        ({"global": microns}, {"global": Identity()}),
        ({"global": turned, "own": microns}, {"global": microns, "other": Identity()}),
        ({"a": Chain([turned, microns]), "b": turned}, {"a": microns, "b": Identity()}),
    ]


@pytest.mark.parametrize(("case", "way"), two_ways(5))
def test_centres_from_points(tmp_path: Path, extract: Extract, case: int, way: Any) -> None:
    """Wherever points and labels lie, and whatever their coordinates are, it is the place in the world that counts."""
    of_labels, of_points = moved_by_points()[case]
    sdata = spatialdata_like("scan", {"nuclei": NUCLEUS}, scales=[2], transformations=of_labels)
    ids, xy = some_centers()
    system = next(name for name in of_labels if name in of_points)
    there, here = (
        way_.to_affine_matrix(input_axes=("x", "y"), output_axes=("x", "y"))
        for way_ in (of_labels[system], of_points[system])
    )
    coordinates = (np.linalg.inv(here) @ there @ np.column_stack([xy, np.ones(len(xy))]).T).T
    # a column that is no coordinate, and ids in a column or in the index
    frame = pd.DataFrame({"y": coordinates[:, 1], "size": 1.0, "x": coordinates[:, 0], "cell": ids})
    if case % 2:
        sdata["middles"] = points(frame, of_points, instance_key="cell")
    else:
        sdata["middles"] = points(frame.set_index("cell")[["x", "y"]], of_points)
    step = extract(way(sdata, tmp_path / "s.zarr"), image="scan", nucleus_labels="nuclei", centers="middles")
    check_centers(step, ids, xy)
    assert f"centres of {len(ids)} cells from 'middles'" in (Path(step.directory) / "processing.log").read_text()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("regions", [["nuclei"], ["nuclei", "elsewhere"]])
def test_centres_from_a_table(tmp_path: Path, extract: Extract, way: Any, regions: list[str]) -> None:
    sdata = xenium()
    ids, xy = some_centers()
    frame = pd.DataFrame({"region": "nucleus_labels", "cell": ids})
    if len(regions) == 2:  # the same ids, and other places
        other = frame.assign(region="cell_labels")
        frame, places = pd.concat([other, frame], ignore_index=True), np.concatenate([xy * 0 + 100, xy])
    else:
        places = xy
    sdata["measured"] = table(frame, places, sorted(set(frame["region"])))
    step = extract(
        way(sdata, tmp_path / "s.zarr"),
        image="morphology_focus",
        nucleus_labels="nucleus_labels",
        cytosol_labels="cell_labels",
        centers="measured",
    )
    check_centers(step, ids, xy)


def test_how_many_cells_are_left_out_is_told_where_that_is_known(tmp_path: Path, extract: Extract) -> None:
    ids, xy = some_centers()
    frame = pd.DataFrame({"x": xy[:, 0], "y": xy[:, 1]}, index=ids)
    store, config = on_disk(with_points(frame)(), tmp_path / "s.zarr"), {"image": "scan", "nucleus_labels": "nuclei"}
    log = Path(extract(store, **config, centers="middles").directory) / "processing.log"
    assert f"centres of {len(ids)} cells from 'middles'; other cells of the mask are not extracted" in log.read_text()
    extract(store, **config, store_centers="always")
    extract(store, **config, centers="middles")
    assert f"'middles'; {N - len(ids)} other cells of the mask are not extracted" in log.read_text()


def with_points(frame: pd.DataFrame, **options: Any) -> Callable[[], Any]:
    def make() -> Any:
        sdata = spatialdata_like("scan", {"nuclei": NUCLEUS})
        sdata["middles"] = points(frame, **options)
        return sdata

    return make


def with_table(frame: pd.DataFrame, xy: Any, labels: str = "nuclei") -> Callable[[], Any]:
    def make() -> Any:
        sdata = spatialdata_like("scan", {"nuclei": NUCLEUS, "cells": CYTOSOL})
        sdata["middles"] = table(frame.assign(region=labels), xy, [labels])
        return sdata

    return make


def elsewhere() -> Any:
    from spatialdata.transformations import Identity

    return {"microns": Identity()}


def contradicting() -> Any:
    from spatialdata.transformations import Identity, Scale

    sdata = spatialdata_like("scan", {"nuclei": NUCLEUS}, transformations={"a": Identity(), "b": Identity()})
    half = Scale([0.5, 0.5], axes=("x", "y"))
    sdata["middles"] = points(pd.DataFrame({"x": [50.0], "y": [50.0]}, index=[1]), {"a": Identity(), "b": half})
    return sdata


def twice_in_a_table() -> Any:
    sdata = with_table(pd.DataFrame({"cell": [4, 5]}), TWO.to_numpy())()
    sdata["middles"].obs["cell"] = [4, 4]  # spatialdata would not make such a table
    return sdata


TWO = pd.DataFrame({"x": [50.0, 60.0], "y": [50.0, 60.0]}, index=[1, 2])


@pytest.mark.parametrize("way", [on_disk, in_memory])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: spatialdata_like("scan", {"nuclei": NUCLEUS}),
            r"no points and no table named 'middles' in .*points there are: none; tables: none",
        ),
        (with_points(TWO.assign(x=np.nan)), r"points 'middles' in .*: the centre of cell 1 is not finite"),
        (with_points(TWO.set_index(np.array([3, 3]))), r"points 'middles' in .*: cell 3 has more than one centre"),
        (
            with_points(TWO.assign(cell=["a", "b"]), instance_key="cell"),
            r"points 'middles' in .*: the column 'cell' must have integer cell ids; its dtype is",
        ),
        (
            with_points(TWO + 500),
            r"centers: 'middles' in .*: the centres of 2 cells are outside of 'nuclei'.* 200 x",
        ),
        (
            lambda: with_points(TWO, transformations=elsewhere())(),
            r"no coordinate system in common with labels 'nuclei' \(centres: microns; labels: global\)",
        ),
        (contradicting, r"their position on labels 'nuclei' in 'a' differs from that in b"),
        (
            with_table(pd.DataFrame({"cell": [1, 2]}), TWO.to_numpy(), "cells"),
            r"tables 'middles' in .*: its rows annotate cells, not the mask 'nuclei'",
        ),
        (
            with_table(pd.DataFrame({"cell": [1, 2]}), None),
            r"tables 'middles' in .*obsm\['spatial'\] must contain x and y, .*obsm has none",
        ),
        (
            with_table(pd.DataFrame({"cell": [1, 2]}), [[1.0], [2.0]]),
            r"obsm\['spatial'\] must contain x and y, numbers \(n, 2\); \(2, 1\) float64",
        ),
        (twice_in_a_table, r"tables 'middles' .* cell 4 has more than one"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # what spatialdata has to say about such elements
def test_centres_that_cannot_be_used(
    tmp_path: Path, extract: Extract, make: Callable[[], Any], message: str, way: Callable[..., Any]
) -> None:
    with pytest.raises(InputError, match=message):
        extract(way(make(), tmp_path / "s.zarr"), image="scan", nucleus_labels="nuclei", centers="middles")


def test_a_name_of_points_and_of_a_table(tmp_path: Path, extract: Extract) -> None:
    """spatialdata would not write that; other programs may."""
    store = on_disk(with_points(TWO)(), tmp_path / "s.zarr")
    other = on_disk(with_table(pd.DataFrame({"cell": [1, 2]}), TWO.to_numpy())(), tmp_path / "other.zarr")
    (store / "tables").mkdir(exist_ok=True)
    (other / "tables/zarr.json").replace(store / "tables/zarr.json")
    (other / "tables/middles").rename(store / "tables/middles")
    with pytest.raises(InputError, match=r"points and tables 'middles' in .*: both points and a table have this name"):
        extract(store, image="scan", nucleus_labels="nuclei", centers="middles")


def test_a_cell_that_the_mask_lacks(tmp_path: Path, extract: Extract) -> None:
    ids, xy = some_centers()
    frame = pd.DataFrame({"x": [*xy[:, 0], 100.0], "y": [*xy[:, 1], 100.0]}, index=[*ids, 10**9])
    with pytest.warns(UserWarning, match="1 of [0-9]+ cells has no pixel of") as caught:
        extract(
            on_disk(with_points(frame)(), tmp_path / "s.zarr"), image="scan", nucleus_labels="nuclei", centers="middles"
        )
    assert any("the centres in 'middles' are not those of its cells" in str(warning.message) for warning in caught)
