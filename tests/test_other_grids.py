"""Extractions from labels and images with other pixels than the first image: equal to those of resampled arrays."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spatialdata
from numpy.typing import NDArray
from scipy import ndimage
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel, PointsModel
from spatialdata.transformations import Affine, Identity, Scale, Translation, set_transformation
from spatialdata.transformations import Sequence as Chain

import restatement
from cellstamp import HDF5CellExtraction, read_h5sc
from cellstamp.errors import ConfigError, InputError, OutputError
from cellstamp.source.load.store import open_sdata
from kept_code import extract_twice
from outlined import placed, polygons_of
from stores import CYTOSOL, NUCLEUS, make_sample

SAMPLE = make_sample((160, 190))
CELLS, NUCLEI = SAMPLE.masks[CYTOSOL], SAMPLE.masks[NUCLEUS]
SIZE = 24
HERE = {"global": Identity()}


def scale(factor: float) -> Any:
    return Scale([factor, factor], axes=("y", "x"))


def shift(y: float, x: float) -> Any:
    return Translation([y, x], axes=("y", "x"))


def affine(rows: Any) -> Any:
    """For (y, x, 1)."""
    return Affine(np.array([*rows, [0, 0, 1]]), ("y", "x"), ("y", "x"))


def image(pixels: Any, ways: dict[str, Any], names: list[str] | None = None, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Image2DModel.parse(pixels, dims=("c", "y", "x"), c_coords=names, transformations=ways, **options)


def labels(mask: Any, ways: dict[str, Any], **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Labels2DModel.parse(mask, dims=("y", "x"), transformations=ways, **options)


def written(path: Path, **elements: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata = SpatialData()
        for name, element in elements.items():
            sdata[name] = element
        sdata.write(path)
    return path


def extracted(store: Any, folder: Path, **config: Any) -> HDF5CellExtraction:
    keys = {"threads": 1, "image_size": SIZE, "progress": False, "cache": str(folder / "cache"), **config}
    step = HDF5CellExtraction(keys, folder / "out", filehandler=store)
    step()
    return step


def resampled(pixels: NDArray[Any], way: Any, shape: tuple[int, int] = (160, 190), order: int = 0) -> NDArray[Any]:
    """The pixels of an element on the grid of an image at identity, by scipy; ``way`` is the element's, for (y, x)."""
    back = np.linalg.inv(way.to_affine_matrix(("y", "x"), ("y", "x")))
    offset = back[:2] @ [0.5, 0.5, 1] - 0.5
    mode = "nearest" if order else "grid-constant"
    found = ndimage.affine_transform(pixels, back[:2, :2], offset, output_shape=shape, order=order, mode=mode)
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    rows, columns = (a * y + b * x + c + 1e-9 for a, b, c in back[:2])
    return found * ((rows >= 0) & (rows < pixels.shape[0]) & (columns >= 0) & (columns < pixels.shape[1]))


def check(step: HDF5CellExtraction, masks: list[NDArray[Any]], pixels: NDArray[Any], **how: Any) -> None:
    ids, _, stamps = restatement.extract(
        masks, pixels, how.pop("size", SIZE), how.pop("quantiles", (0.001, 0.999)), **how
    )
    read = read_h5sc(str(step.output_path))
    assert len(ids) > 8
    assert read.obs["scportrait_cell_id"].tolist() == ids.tolist()
    assert restatement.same_bits(np.asarray(read.obsm["single_cell_images"][:]), stamps)
    all_ids, centers = restatement.centers(masks[0])
    np.testing.assert_allclose(read.obsm["spatial"], centers[np.isin(all_ids, ids)], atol=1e-9)


def log_of(step: HDF5CellExtraction) -> str:
    return (Path(step.directory) / "processing.log").read_text()


# --- labels -----------------------------------------------------------------------------------------------------------

TURNED = affine([[0.8, -0.6, 70], [0.6, 0.8, -40]])
GRIDS: dict[str, tuple[NDArray[Any], Any]] = {
    "half the resolution": (CELLS[::2, ::2], scale(2)),
    "double the resolution": (CELLS.repeat(2, 0).repeat(2, 1), scale(0.5)),
    "shifted by a fraction": (CELLS, shift(12.3, -7.6)),
    "a part": (CELLS[31:130, 20:], shift(31, 20)),
    "mirrored": (CELLS[:, ::-1].copy(), affine([[1, 0, 0], [0, -1, 190]])),
    "turned by a right angle": (np.rot90(CELLS).copy(), affine([[0, 1, 0], [-1, 0, 190]])),
    "registered": (CELLS, TURNED),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("multiscale", [False, True])
@pytest.mark.filterwarnings("ignore:left out", "ignore:.*too close to the image border")
def test_labels_are_sampled_at_the_centres_of_pixels(
    tmp_path: Path, grid: tuple[NDArray[Any], Any], *, multiscale: bool
) -> None:
    mask, way = grid
    levels = {"scale_factors": [2]} if multiscale else {}
    store = written(
        tmp_path / "s.zarr", scan=image(SAMPLE.image, HERE, **levels), cells=labels(mask, {"global": way}, **levels)
    )
    step = extracted(store, tmp_path, image="scan", cytosol_labels="cells")
    check(step, [resampled(mask, way)], SAMPLE.image)


def test_right_angles_and_mirrors_lose_nothing(tmp_path: Path) -> None:
    for name in ("mirrored", "turned by a right angle"):
        mask, way = GRIDS[name]
        np.testing.assert_array_equal(resampled(mask, way), CELLS)


@pytest.mark.parametrize("threads", [1, 2])
def test_workers_sample(tmp_path: Path, start_method: str, threads: int) -> None:
    del start_method
    nuclei = NUCLEI[::2, ::2]
    store = written(
        tmp_path / "s.zarr",
        scan=image(SAMPLE.image, HERE, chunks=(1, 50, 60)),
        other=image(SAMPLE.image[:1, ::2, ::2], {"global": scale(2)}, ["far"]),
        nuclei=labels(nuclei, {"global": scale(2)}),
        cells=labels(CELLS, HERE),
    )
    config = {
        "image": ["scan", "other"],
        "nucleus_labels": "nuclei",
        "cytosol_labels": "cells",
        "interpolation": "nearest",
    }
    step = extracted(store, tmp_path, **config, threads=threads, max_batch_size=7)
    far = resampled(SAMPLE.image[0, ::2, ::2], scale(2))
    check(step, [resampled(nuclei, scale(2)), CELLS], np.concatenate([SAMPLE.image, far[None]]))


def test_an_image_that_is_registered_to_the_labels(tmp_path: Path) -> None:
    """The image has the transformation, of (c, y, x) once it is read from disk; in microns, at an odd place."""
    um = Chain([scale(0.2125), shift(5, -3)])
    pixels = np.broadcast_to((np.arange(150 * 161) + 1).astype(np.uint16).reshape(150, 161), (2, 150, 161))
    store = written(
        tmp_path / "s.zarr", he=image(pixels, {"global": Chain([TURNED, um])}), cells=labels(CELLS, {"global": um})
    )
    expected = resampled(CELLS, affine(np.linalg.inv(TURNED.matrix)[:2]), (150, 161))
    for number, handler in enumerate((store, open_sdata(store))):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*(left out|too close to the image border)")
            step = extracted(handler, tmp_path / str(number), image="he", cytosol_labels="cells")
        check(step, [expected], pixels)


def test_half_a_pixel_is_where_spatialdata_has_it(tmp_path: Path) -> None:
    """Centroids of spatialdata have pixel [0, 0] at (0.5, 0.5), and extents begin at 0."""
    way = Chain([scale(2), shift(3, -9)])
    mask = labels(CELLS[::2, ::2], {"global": way})
    store = written(tmp_path / "s.zarr", scan=image(np.ones((1, 400, 400), np.uint8), HERE), cells=mask)
    extent = spatialdata.get_extent(mask)
    assert (extent["y"], extent["x"]) == ((3, 163), (-9, 181))
    step = extracted(store, tmp_path, image="scan", cytosol_labels="cells")
    read = read_h5sc(str(step.output_path))
    centroids = spatialdata.get_centroids(mask, "global").compute().loc[read.obs["scportrait_cell_id"].to_numpy()]
    np.testing.assert_allclose(read.obsm["spatial"], centroids[["x", "y"]].to_numpy() - 0.5, atol=1e-9)


def test_padded_crops_end_where_the_image_does(tmp_path: Path) -> None:
    store = written(
        tmp_path / "s.zarr",
        scan=image(SAMPLE.image[:, 30:100, 40:150], {"global": shift(30, 40)}),
        cells=labels(CELLS, HERE),
    )
    with pytest.warns(
        UserWarning,
        match=r"left out 32 of 48 cells of 'cells' without a pixel on the image, which is 70 x 110 pixels \(y, x\)",
    ):
        step = extracted(store, tmp_path, image="scan", cytosol_labels="cells", border="pad")
    check(step, [CELLS[30:100, 40:150]], SAMPLE.image[:, 30:100, 40:150], pad=True)


def test_cells_between_centres_are_counted(tmp_path: Path) -> None:
    fine = np.kron(CELLS, np.ones((4, 4), np.uint32))
    fine[0, 0] = 999
    store = written(tmp_path / "s.zarr", scan=image(SAMPLE.image, HERE), cells=labels(fine, {"global": scale(0.25)}))
    with pytest.warns(UserWarning, match=r"left out 1 of 49 cells of 'cells' without a pixel .* like cell 999"):
        step = extracted(store, tmp_path, image="scan", cytosol_labels="cells")
    check(step, [CELLS], SAMPLE.image)


def test_cells_are_chosen_and_drawn(tmp_path: Path) -> None:
    store = written(
        tmp_path / "s.zarr", scan=image(SAMPLE.image, HERE), cells=labels(CELLS[::2, ::2], {"global": scale(2)})
    )
    config = {"image": "scan", "cytosol_labels": "cells"}
    step = extracted(store, tmp_path / "chosen", **config, cells=[20, 27, 30])
    assert read_h5sc(str(step.output_path)).obs["scportrait_cell_id"].tolist() == [20, 27, 30]
    step = HDF5CellExtraction({"threads": 1, "image_size": SIZE, **config}, tmp_path / "drawn", filehandler=store)
    step(partial=True, n_cells=5, seed=3)
    assert read_h5sc(str(step.output_path)).n_obs == 5


@pytest.mark.parametrize("where", ["labels", "elsewhere"])
def test_given_centres_move_with_the_labels(tmp_path: Path, where: str) -> None:
    """The centre of the first pixel is (0, 0): half a pixel is added before a transformation, and then taken."""
    way = Chain([scale(2), shift(10, 20)])
    mask = CELLS[::2, ::2]
    ids, xy = restatement.centers(mask)
    columns = dict(zip(("x", "y"), (xy if where == "labels" else xy / 4).T, strict=True))
    import pandas as pd

    own = way if where == "labels" else Chain([scale(4), way])
    points = PointsModel.parse(pd.DataFrame(columns, index=ids), transformations={"global": own})
    scan = np.pad(SAMPLE.image, ((0, 0), (20, 20), (20, 30)))
    store = written(tmp_path / "s.zarr", scan=image(scan, HERE), cells=labels(mask, {"global": way}), middles=points)
    step = extracted(store, tmp_path, image="scan", cytosol_labels="cells", centers="middles")
    read = read_h5sc(str(step.output_path))
    expected = 2 * (xy + 0.5) + [20, 10] - 0.5
    found = np.isin(ids, read.obs["scportrait_cell_id"])
    np.testing.assert_allclose(read.obsm["spatial"], expected[found], atol=1e-6)


def test_given_centres_outside_of_the_image_are_counted(tmp_path: Path) -> None:
    import pandas as pd

    ids, xy = restatement.centers(CELLS)
    points = PointsModel.parse(pd.DataFrame(xy, columns=["x", "y"], index=ids), transformations=HERE)
    part = image(SAMPLE.image[:, 80:], {"global": shift(80, 0)})
    store = written(tmp_path / "s.zarr", scan=part, cells=labels(CELLS, HERE), middles=points)
    n_above = int((xy[:, 1] < 79.5).sum())
    with pytest.warns(UserWarning, match=rf"left out {n_above} of {ids.size} cells with a centre outside of the image"):
        step = extracted(store, tmp_path, image="scan", cytosol_labels="cells", centers="middles", border="pad")
    found = read_h5sc(str(step.output_path))
    assert found.obs["scportrait_cell_id"].tolist() == ids[xy[:, 1] >= 79.5].tolist()


def test_stored_centres_are_of_other_pixels(tmp_path: Path) -> None:
    """Those of the labels, from any program; so they are neither used nor written."""
    import pandas as pd

    half = CELLS[::2, ::2]
    ids, xy = restatement.centers(half)
    store = written(
        tmp_path / "s.zarr",
        scan=image(SAMPLE.image, HERE),
        cells=labels(half, {"global": scale(2)}),
        centers_cells=PointsModel.parse(pd.DataFrame(xy, columns=["x", "y"], index=ids), transformations=HERE),
    )
    before = sorted((store / "points").rglob("*"))
    config = {"image": "scan", "cytosol_labels": "cells", "store_centers": "always"}
    step = extracted(store, tmp_path / "scan", **config)
    check(step, [resampled(half, scale(2))], SAMPLE.image)
    assert sorted((store / "points").rglob("*")) == before
    assert "did not store the centres (they are centres on other pixels than those of the labels" in log_of(step)


# --- several images ---------------------------------------------------------------------------------------------------

COLOURS = np.random.default_rng(0).integers(0, 256, (3, 170, 150)).astype(np.uint8)
ON_CELLS = affine([[1.1, 0.3, -30.5], [-0.2, 1.4, 12.25]])


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fluorescence image and its labels; a stained image that was registered to them; polygons in micrometres."""
    to_pixels = {"global": Scale([4, 4], axes=("x", "y"))}
    shapes = polygons_of(CELLS)
    shapes["geometry"] = shapes.geometry.scale(0.25, 0.25, origin=(0, 0))
    return written(
        tmp_path_factory.mktemp("slide") / "s.zarr",
        scan=image(SAMPLE.image, HERE, ["DAPI", "actin", "red"]),
        he=image(COLOURS, {"global": ON_CELLS}, ["red", "green", "blue"]),
        cells=labels(CELLS, HERE),
        outlines=placed(shapes, to_pixels),
    )


def colours_on_cells(order: int) -> NDArray[Any]:
    return np.stack([resampled(plane.astype(float), ON_CELLS, order=order) for plane in COLOURS])


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("mask", ["cytosol_labels", "cytosol_shapes"])
def test_channels_of_several_images(slide: Path, tmp_path: Path, interpolation: str, mask: str) -> None:
    config = {"image": ["scan", "he"], mask: {"cytosol_labels": "cells", "cytosol_shapes": "outlines"}[mask]}
    step = extracted(slide, tmp_path, **config, interpolation=interpolation)
    others = colours_on_cells(0 if interpolation == "nearest" else 1)
    found = read_h5sc(str(step.output_path))
    assert list(found.uns["single_cell_images"]["channel_names"]) == [
        config[mask],
        "DAPI",
        "actin",
        "scan:red",
        "he:red",
        "green",
        "blue",
    ]
    whole = np.concatenate([SAMPLE.image, np.rint(others).astype(np.uint16)])
    check(step, [CELLS], whole)


def test_each_channel_has_the_scale_of_its_type(slide: Path, tmp_path: Path) -> None:
    step = extracted(slide, tmp_path, image=["scan", "he"], cytosol_labels="cells", normalize_output=False)
    whole = np.concatenate([SAMPLE.image, np.rint(colours_on_cells(1)).astype(np.uint16)])
    limits = [(0, 65535)] * 3 + [(0, 255)] * 3
    check(step, [CELLS], whole, limits=limits)
    about = read_h5sc(str(step.output_path)).uns["cellstamp"]["settings"]
    assert about["intensities"] == "divided by 65535 or divided by 255: comparable between cells and images"
    assert (about["image"], list(about["images"])) == ("scan", ["scan", "he"])


def test_floats_beside_integers(tmp_path: Path) -> None:
    share = (SAMPLE.image[:1] / 65535).astype(np.float32)
    store = written(
        tmp_path / "s.zarr",
        scan=image(SAMPLE.image, HERE),
        floats=image(share, HERE, ["share"]),
        cells=labels(CELLS, HERE),
    )
    step = extracted(store, tmp_path, image=["scan", "floats"], cytosol_labels="cells", normalize_output=False)
    whole = np.concatenate([SAMPLE.image.astype(np.float32), share])
    check(step, [CELLS], whole, limits=[(0, 65535)] * 3 + [(0, 1)])


def test_channels_are_chosen_by_their_new_names(slide: Path, tmp_path: Path) -> None:
    config = {"image": ["scan", "he"], "cytosol_labels": "cells", "channels": ["he:red", "DAPI", "blue"]}
    scaled = {"normalization_scope": "image", "normalization_range": {"he:red": [0, 1], "DAPI": [0.1, 0.9]}}
    step = extracted(slide, tmp_path, **config, **scaled)
    colours = np.rint(colours_on_cells(1)).astype(np.uint16)
    whole = np.stack([colours[0], SAMPLE.image[0], colours[2]])
    quantiles = ((0, 1), (0.1, 0.9), (0.001, 0.999))
    limits = [np.quantile(plane.astype(float), pair) for plane, pair in zip(whole, quantiles, strict=True)]
    check(step, [CELLS], whole, limits=limits)
    with pytest.raises(
        InputError,
        match=r"channels: no channel named 'red' in image 'scan \+ he' .* scan:red, he:red, green, blue; did you mean "
        r"'scan:red' or 'he:red'\?",
    ):
        extracted(slide, tmp_path / "x", image=["scan", "he"], cytosol_labels="cells", channels=["red"])
    with pytest.raises(ConfigError, match=r"normalization_range: no channel named 'red'.*'scan:red' or 'he:red'\?"):
        extracted(slide, tmp_path / "x", **config | {"channels": None, "normalization_range": {"red": [0, 1]}})


@pytest.mark.parametrize("text", ["scan, he", "scan,he", "scan + he"])
def test_images_in_one_text_are_an_error_with_a_list(slide: Path, tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"image: no .*; for several images, give a list: \['scan', 'he'\]$") as caught:
        extracted(slide, tmp_path, image=text, cytosol_labels="cells")
    images = ast.literal_eval(str(caught.value).rpartition("list: ")[2])
    assert extracted(slide, tmp_path, image=images, cytosol_labels="cells").output_path is not None


def test_a_list_of_one_image_is_this_image(slide: Path, tmp_path: Path) -> None:
    check(extracted(slide, tmp_path, image=["scan"], cytosol_labels="cells"), [CELLS], SAMPLE.image)


@pytest.mark.parametrize("value", [[], ["scan", "scan"], ["scan", 3]])
def test_lists_that_are_no_images(slide: Path, tmp_path: Path, value: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"image = .*: must be the name of an image in the store, a list of such names, each once"
    ):
        extracted(slide, tmp_path, image=value, cytosol_labels="cells")
    with pytest.raises(ConfigError, match=r"interpolation = 'cubic': must be \"bilinear\" or \"nearest\""):
        extracted(slide, tmp_path, image="scan", cytosol_labels="cells", interpolation="cubic")
    with pytest.raises(InputError, match=r"image: no images element named 'hee' in .*'he'"):
        extracted(slide, tmp_path, image=["scan", "hee"], cytosol_labels="cells")


def test_cells_outside_of_a_further_image_are_counted(tmp_path: Path) -> None:
    part = image(SAMPLE.image[:1, 50:], {"global": shift(50, 0)}, ["part"])
    store = written(tmp_path / "s.zarr", scan=image(SAMPLE.image, HERE), he=part, cells=labels(CELLS, HERE))
    config = {"image": ["scan", "he"], "cytosol_labels": "cells", "interpolation": "nearest"}
    ids, xy = restatement.centers(CELLS)
    n_kept = restatement.extract([CELLS], SAMPLE.image, SIZE)[0].size
    kept = np.array([restatement.is_kept(each, SIZE, (160, 190)) for each in xy])
    n_above = int((xy[kept, 1] + 0.5 < 50).sum())
    assert 0 < n_above < n_kept < ids.size
    said = rf"{n_above} of {n_kept} cells have their centre outside of image 'he', whose channels are 0 there"
    with pytest.warns(UserWarning, match=said):
        step = extracted(store, tmp_path, **config)
    below = SAMPLE.image[:1] * (np.arange(160) >= 50)[:, None].astype(np.uint16)
    check(step, [CELLS], np.concatenate([SAMPLE.image, below]))


def test_an_object_in_memory(slide: Path, tmp_path: Path) -> None:
    sdata = open_sdata(slide)
    moved = Chain([ON_CELLS, shift(4, 0)])
    set_transformation(sdata["he"], moved, "global")
    step = extracted(sdata, tmp_path, image=["scan", "he"], cytosol_labels="cells")
    others = np.stack([resampled(plane.astype(float), moved, order=1) for plane in COLOURS])
    check(step, [CELLS], np.concatenate([SAMPLE.image, np.rint(others).astype(np.uint16)]))


# --- what is said, and when a run is the same -------------------------------------------------------------------------


def test_elements_and_transformations_are_logged(
    slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = extracted(
        slide, tmp_path, image=["scan", "he"], nucleus_labels="cells", cytosol_shapes="outlines", progress=True
    )
    said = (
        r"image 'he' on image 'scan' in 'global': affine \(turned by 10\.3 degrees, a pixel is 1\.118 x 1\.432 pixels "
        r"of the image\); sampled at the centres of the image's pixels \(bilinear\)\. In 'global', a pixel of the "
        r"image is 1 x 1 \(y, x\), one of the other image 1\.118\d* x 1\.431\d*"
    )
    log = log_of(step)
    assert re.search(said, log)
    assert re.search(said, capsys.readouterr().out)
    assert "labels 'cells': identity, the pixels of image 'scan'" in log
    assert "shapes 'outlines' in 'global': scale (one unit of the shapes is 4 pixels high and 4 wide)" in log
    assert "image: scan + he, (6, 160, 190) (c, y, x), uint16" in log


def test_sampling_on_crops_of_another_pixel_size_is_logged(tmp_path: Path) -> None:
    sizes = {"image_pixel_size": 1.0, "crop_pixel_size": 2.0}
    store = written(
        tmp_path / "s.zarr",
        slide=image(SAMPLE.image, HERE),
        other=image(SAMPLE.image, {"global": TURNED}, ["a", "b", "c"]),
        cells=labels(CELLS[::2, ::2], {"global": scale(2)}),
    )
    keys: dict[str, Any] = {"image": ["slide", "other"], "cytosol_labels": "cells", "border": "pad", **sizes}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log = log_of(extracted(store, tmp_path, **keys))
        nearest = log_of(extracted(store, tmp_path / "n", interpolation="nearest", **keys))
    averaged = (
        "averaged over the crops' pixels where these are larger than its own, otherwise interpolated (bilinear). In"
    )
    sampled = "sampled at the centres of the crops' pixels (nearest). In"
    (other,) = re.findall(r"image 'other' on image 'slide'.*", log)
    (cells,) = re.findall(r"labels 'cells' on image 'slide'.*", log)
    assert averaged in other
    assert sampled in cells
    assert nearest.count(sampled) == 2
    assert "centres of the image's pixels" not in log + nearest
    assert "did not store the centres (they are centres on other pixels than those of the labels)" in log


def test_a_run_is_up_to_date_until_an_element_or_a_transformation_changes(tmp_path: Path) -> None:
    def store(**ways: Any) -> Path:
        path = tmp_path / f"{'-'.join(ways) or 'first'}.zarr"
        return written(
            path,
            scan=image(SAMPLE.image, HERE),
            he=image(COLOURS, {"global": ways.get("he", ON_CELLS)}, ["r", "g", "b"]),
            cells=labels(CELLS[::2, ::2], {"global": ways.get("cells", scale(2))}),
        )

    config = {"image": ["scan", "he"], "cytosol_labels": "cells"}
    first = store()
    extracted(first, tmp_path, **config)
    assert "Up to date" in log_of(extracted(first, tmp_path, **config))
    for path, name in (
        (store(he=Chain([ON_CELLS, shift(0, 1)])), "he"),
        (store(cells=Chain([scale(2), shift(1, 0)])), "cells"),
    ):
        with pytest.raises(OutputError, match=f"different settings or input .*{name} has changed"):
            extracted(path, tmp_path, **config)
    with pytest.raises(OutputError, match="he has changed"):
        extracted(first, tmp_path, **config, interpolation="nearest")
    with pytest.raises(OutputError, match="channels"):
        extracted(first, tmp_path, image="scan", cytosol_labels="cells")


def test_removed_cells_are_drawn_on_the_image(tmp_path: Path) -> None:
    from cellstamp import plot_removed

    store = written(
        tmp_path / "s.zarr", scan=image(SAMPLE.image, HERE), cells=labels(CELLS[::2, ::2], {"global": scale(2)})
    )
    step = extracted(store, tmp_path, image="scan", cytosol_labels="cells")
    axes = plot_removed(str(step.output_path), store)
    assert max(axes.get_xlim()) >= 189


# --- what is not sampled ----------------------------------------------------------------------------------------------


def test_an_image_of_another_resolution_without_a_transformation(tmp_path: Path) -> None:
    store = written(
        tmp_path / "s.zarr",
        scan=image(SAMPLE.image, HERE),
        he=image(SAMPLE.image[:, ::2, ::2], HERE, ["a", "b", "c"]),
        cells=labels(CELLS, HERE),
    )
    config = {"image": ["scan", "he"], "cytosol_labels": "cells", "interpolation": "nearest"}
    with pytest.raises(InputError, match=r"image 'scan' and image 'he' .*do not match") as caught:
        extracted(store, tmp_path, **config)
    message = str(caught.value)
    assert "In 'global' the image covers y 0 to 160 and x 0 to 190, the other image y 0 to 80 and x 0 to 95." in message
    code = "".join(line[4:] for line in message.splitlines(keepends=True) if line.startswith("    "))
    sdata = open_sdata(store)
    exec(code, {"sdata": sdata})
    step = extracted(sdata, tmp_path, **config)
    check(step, [CELLS], np.concatenate([SAMPLE.image, SAMPLE.image[:, ::2, ::2].repeat(2, 1).repeat(2, 2)]))


@pytest.mark.parametrize(
    ("mask", "of_image", "of_labels", "told"),
    [
        (CELLS, HERE, {"global": shift(500, 0)}, "do not match: .*500 pixels lower"),
        (CELLS[:150], HERE, HERE, "10 rows fewer .*In 'global' the image covers y 0 to 160"),
        (CELLS, {"global": scale(0.5)}, HERE, "In 'global' the image covers y 0 to 80 .*the labels y 0 to 160"),
        (CELLS[1:], {"a": Identity()}, {"b": Identity()}, "no coordinate system in common"),
        (CELLS, HERE, {"global": affine([[0, 0, 1], [0, 1, 1]])}, "a transformation to 'global' has no inverse"),
        (
            CELLS,
            {"a": scale(2), "b": scale(3)},
            {"a": shift(1, 1), "b": shift(2, 2)},
            "several coordinate systems: a, b",
        ),
    ],
)
def test_positions_that_are_unclear(
    tmp_path: Path, mask: NDArray[Any], of_image: Any, of_labels: Any, told: str
) -> None:
    store = written(tmp_path / "s.zarr", scan=image(SAMPLE.image, of_image), cells=labels(mask, of_labels))
    with pytest.raises(InputError, match=f"(?s){told}"):
        extracted(store, tmp_path, image="scan", cytosol_labels="cells")


def test_the_coordinate_system_of_labels_is_chosen(tmp_path: Path) -> None:
    ways = {"a": scale(2), "b": Chain([scale(2), shift(8, 0)])}
    store = written(
        tmp_path / "s.zarr",
        scan=image(SAMPLE.image, {"a": Identity(), "b": Identity()}),
        cells=labels(CELLS[::2, ::2], ways),
    )
    config = {"image": "scan", "cytosol_labels": "cells"}
    with pytest.raises(InputError, match=r"share several coordinate systems: a, b\. Set coordinate_system to one"):
        extracted(store, tmp_path, **config)
    with pytest.raises(InputError, match=r"coordinate_system: image 'scan' in .* is not in 'c'; it is in a, b"):
        extracted(store, tmp_path, **config, coordinate_system="c")
    for system, way in ways.items():
        step = extracted(store, tmp_path / system, **config, coordinate_system=system)
        check(step, [resampled(CELLS[::2, ::2], way)], SAMPLE.image)


# --- stores as programs write them ------------------------------------------------------------------------------------


def test_cells_of_xenium_on_its_h_and_e_and_the_other_way_round(tmp_path: Path) -> None:
    """An affine of (x, y) for H&E, all in `global`; rasters at identity."""
    matrix = np.array([[0, -0.5, 180], [0.5, 0, 4], [0, 0, 1]])
    way, colours = (
        Affine(matrix, ("x", "y"), ("x", "y")),
        np.random.default_rng(1).integers(1, 256, (3, 320, 360)).astype(np.uint8),
    )
    store = written(
        tmp_path / "xenium.zarr",
        morphology_focus=image(SAMPLE.image, HERE, ["DAPI", "ATP1A1", "18S"], scale_factors=[2]),
        he_image=image(colours, {"global": way}, ["r", "g", "b"], scale_factors=[2]),
        cell_labels=labels(CELLS, HERE, scale_factors=[2]),
        nucleus_labels=labels(NUCLEI, HERE, scale_factors=[2]),
    )
    masks = {"nucleus_labels": "nucleus_labels", "cytosol_labels": "cell_labels"}
    step = extracted(store, tmp_path / "a", image=["morphology_focus", "he_image"], **masks)
    on_cells = np.stack([np.rint(resampled(plane.astype(float), way, order=1)) for plane in colours]).astype(np.uint16)
    check(step, [NUCLEI, CELLS], np.concatenate([SAMPLE.image, on_cells]))
    with pytest.warns(UserWarning, match="left out .* cells of 'nucleus_labels' without a pixel on the image"):
        step = extracted(store, tmp_path / "b", image="he_image", image_size=60, border="pad", **masks)
    back = affine(np.linalg.inv(way.to_affine_matrix(("y", "x"), ("y", "x")))[:2])
    on_he = [resampled(mask, back, (320, 360)) for mask in (NUCLEI, CELLS)]
    check(step, on_he, colours, size=60, pad=True)


@pytest.mark.parametrize("system", [None, "fov_3", "global"])
def test_cosmx(tmp_path: Path, system: str | None) -> None:
    """Pixels of a field of view at identity, and an affine to the slide; both for image and labels."""
    ways = {
        "fov_3": Identity(),
        "global": Affine(np.array([[1, 0, 4256.0], [0, -1, 900], [0, 0, 1]]), ("x", "y"), ("x", "y")),
    }
    fov = {"3_image": image(SAMPLE.image, ways), "3_labels": labels(CELLS, ways)}
    store = written(tmp_path / "cosmx.zarr", **fov)
    step = extracted(store, tmp_path, image="3_image", cytosol_labels="3_labels", coordinate_system=system)
    check(step, [CELLS], SAMPLE.image)


def test_mcmicro_arrays_of_tissue(tmp_path: Path) -> None:
    """A core has a translation; its labels too, or they are at identity of a system with the core's name."""
    ways = {"global": shift(1200, 300), "core_7": Identity()}
    store = written(
        tmp_path / "m.zarr",
        core_image=image(SAMPLE.image, ways),
        core_cells=labels(CELLS, ways),
        whole=labels(np.pad(CELLS, ((1200, 20), (300, 40))), HERE),
    )
    step = extracted(store, tmp_path / "core", image="core_image", cytosol_labels="core_cells")
    check(step, [CELLS], SAMPLE.image)
    step = extracted(store, tmp_path / "whole", image="core_image", cytosol_labels="whole")
    check(step, [CELLS], SAMPLE.image)


def test_visium_hd_has_no_global(tmp_path: Path) -> None:
    name = "Colon"
    store = written(
        tmp_path / "v.zarr",
        Colon_full_image=image(SAMPLE.image, {name: Identity()}),
        Colon_hires_image=image(
            SAMPLE.image[:, ::2, ::2], {name: scale(2), f"{name}_downscaled_hires": Identity()}, ["a", "b", "c"]
        ),
        cells=labels(CELLS, {name: Identity()}),
    )
    step = extracted(
        store,
        tmp_path,
        image=["Colon_full_image", "Colon_hires_image"],
        cytosol_labels="cells",
        interpolation="nearest",
    )
    check(step, [CELLS], np.concatenate([SAMPLE.image, SAMPLE.image[:, ::2, ::2].repeat(2, 1).repeat(2, 2)]))


@pytest.fixture
def served(slide: Path) -> Iterator[str]:
    from test_remote import Server

    server = Server(slide.parent)
    yield f"{server.url}/{slide.name}"
    server.close()


def test_stores_behind_a_url(slide: Path, served: str, tmp_path: Path) -> None:
    config = {"image": ["he", "scan"], "cytosol_labels": "cells", "border": "pad"}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "left out")
        near, far = (extracted(store, tmp_path / str(n), **config) for n, store in enumerate((slide, served)))
    same = [np.asarray(read_h5sc(str(step.output_path)).obsm["single_cell_images"][:]) for step in (near, far)]
    assert len(same[0]) > 20
    np.testing.assert_array_equal(*same)


# --- compiled loops ---------------------------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize(
    ("config", "threads", "announced"),
    [
        ({"image": "slide"}, 1, "32-bit pixels with other positions (nearest)"),
        ({"image": ["slide", "other"]}, 2, "float64 pixels with other positions (bilinear)"),
        (
            {"image": "other", "crop_pixel_size": 2.0, "image_pixel_size": 1.0},
            1,
            "float64 pixels with other positions (mean of areas)",
        ),
    ],
    ids=["nearest", "bilinear", "areas"],
)
def test_the_loops_of_sampling_are_compiled_and_announced_before_the_work(
    tmp_path: Path, config: dict[str, Any], threads: int, announced: str
) -> None:
    turned = affine([[0.8, -0.6, 40], [0.6, 0.8, -30]])
    store = written(
        tmp_path / "s.zarr",
        slide=image(SAMPLE.image, HERE),
        other=image(SAMPLE.image / 65535, {"global": turned}, ["a", "b", "c"]),
        cells=labels(CELLS, {"global": turned}),
    )
    keys = {**config, "cytosol_labels": "cells", "image_size": SIZE, "threads": threads, "border": "pad"}
    found = extract_twice(tmp_path, store, **keys)
    (line,) = re.findall(r"Compiling for (.*): \d+ to \d+ s; not counted in cells/s", found.first_log)
    assert announced in line
    assert "kept for later runs" in found.first_log
    assert "Compil" not in found.second_log
