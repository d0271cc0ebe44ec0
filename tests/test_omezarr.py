"""OME-Zarr in the layouts that people have: one image, bioformats2raw's, plates, labels; versions 0.1 to 0.5."""

from __future__ import annotations

import shutil
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from cellstamp import HDF5CellExtraction, Project, read_h5sc
from cellstamp.errors import InputError
from cellstamp.location import FSSPEC_FOR_ZIP, check_zip
from cellstamp.source.find.elements import find_labels
from cellstamp.source.library_messages import quiet
from cellstamp.source.load.omezarr import is_folder
from cellstamp.source.load.store import open_image, open_sdata
from conftest import make_cells
from test_remote import Server

IMAGE, NUCLEUS, CYTOSOL = make_cells(channels=2)
READS_ZIP = pytest.mark.skipif(
    tuple(map(int, metadata.version("fsspec").split(".")[:2])) < FSSPEC_FOR_ZIP,
    reason="fsspec cannot read zip files reliably",
)
NAMES = ["DAPI", "CD3"]
KINDS = {"t": "time", "c": "channel"}


def described(version: str, axes: str, **more: Any) -> dict[str, Any]:
    """The attributes of an image, as a version of OME-Zarr has them."""
    multiscale: dict[str, Any] = {"datasets": [{"path": "0"}]}
    if version >= "0.3":
        multiscale["axes"] = list(axes)
    if version >= "0.4":
        multiscale["axes"] = [{"name": axis, "type": KINDS.get(axis, "space")} for axis in axes]
        scale = {"type": "scale", "scale": [1.0] * len(axes)}
        multiscale["datasets"] = [{"path": "0", "coordinateTransformations": [scale]}]
    return as_attributes(version, {"multiscales": [multiscale], **more})


def as_attributes(version: str, ome: dict[str, Any]) -> dict[str, Any]:
    if version == "0.5":
        return {"ome": {"version": version, **ome}}
    for multiscale in ome.get("multiscales", []):
        multiscale["version"] = version
    return ome


def put(root: Path, path: str, data: np.ndarray, version: str, axes: str = "tczyx", **more: Any) -> None:
    group = group_at(root, version).require_group(path) if path else group_at(root, version)
    encoding = {} if version == "0.5" else {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    chunks = (*[1] * (data.ndim - 2), 64, 64)
    group.create_array("0", shape=data.shape, chunks=chunks, dtype=data.dtype, **encoding)[...] = data
    group.attrs.update(described(version, axes, **more))


def group_at(root: Path, version: str) -> Any:
    return zarr.open_group(str(root), mode="a", zarr_format=3 if version == "0.5" else 2, use_consolidated=False)


def put_image(root: Path, path: str = "", version: str = "0.4", *, image: np.ndarray = IMAGE) -> None:
    channels = {"channels": [{"label": name} for name in NAMES]}
    put(root, path, image[None, :, None], version, omero=channels)


def put_labels(root: Path, path: str = "", version: str = "0.4", **masks: np.ndarray) -> None:
    group = f"{path}/labels".lstrip("/")
    group_at(root, version).require_group(group).attrs.update(as_attributes(version, {"labels": sorted(masks)}))
    for name, mask in masks.items():
        colors = [{"label-value": 1, "rgba": [255, 0, 0, 255]}]
        put(root, f"{group}/{name}", mask[None, None, None], version, **{"image-label": {"colors": colors}})


def bioformats2raw(root: Path, version: str, *paths: str, series: list[str] | None = None) -> Path:
    """Images below a root that says so; `series`: it lists them, too."""
    group_at(root, version).attrs.update(as_attributes(version, {"bioformats2raw.layout": 3}))
    for path in paths:
        put_image(root, path, version)
    if series is not None:
        group_at(root, version).require_group("OME").attrs.update(as_attributes(version, {"series": series}))
    return root


@pytest.fixture
def project(tmp_path: Path) -> Project:
    keys = {"threads": 1, "image_size": 40, "cache": str(tmp_path / "cache"), "progress": False}
    return Project(tmp_path / "project", keys)


def check_image(project: Project, image: np.ndarray = IMAGE) -> None:
    loaded = open_image(project.sdata_path)
    assert np.array_equal(loaded, image)
    assert loaded.coords["c"].to_numpy().tolist() == NAMES


def check_mask(project: Project, mask: np.ndarray = CYTOSOL, name: str = "seg_all_cytosol") -> None:
    assert np.array_equal(find_labels(project.sdata_path, name).array[...], mask)


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.1", "0.2", "0.3", "0.4", "0.5"])
def test_an_image_of_any_version(tmp_path: Path, project: Project, version: str) -> None:
    put_image(tmp_path / "slide.zarr", version=version)
    project.load_input_from_omezarr(tmp_path / "slide.zarr")
    check_image(project)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("series", [None, ["0"]])
def test_the_only_image_of_bioformats2raw(
    tmp_path: Path, project: Project, version: str, series: list[str] | None
) -> None:
    root = bioformats2raw(tmp_path / "slide.zarr", version, "0", series=series)
    project.load_input_from_omezarr(root)
    check_image(project)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("series", [None, ["0", "1"], ["1", "0"]])
def test_several_images_of_bioformats2raw_are_listed(
    tmp_path: Path, project: Project, version: str, series: list[str] | None
) -> None:
    root = bioformats2raw(tmp_path / "slide.zarr", version, "0", "1", series=series)
    names = "".join(f'<Image ID="Image:{k}" Name="scan {k}"/>' for k in series or "01")
    (root / "OME").mkdir(exist_ok=True)
    (root / "OME/METADATA.ome.xml").write_text(f'<OME xmlns="http://www.openmicroscopy.org/x">{names}</OME>')
    first = (series or ["0"])[0]
    sizes = "t 1, c 2, z 1, y 200, x 200"
    message = (
        rf"slide\.zarr: holds 2 images: {first} \(scan {first}, {sizes}\), . \(scan ., {sizes}\)\. Give the path of"
    )
    with pytest.raises(InputError, match=rf"{message} one, like .*slide\.zarr/{first}$"):
        project.load_input_from_omezarr(root)
    project.load_input_from_omezarr(root / "1")
    check_image(project)


def test_images_below_a_group_that_says_nothing_are_listed(tmp_path: Path, project: Project) -> None:
    for path in ("left", "right"):
        put_image(tmp_path / "slide.zarr", path)
    with pytest.raises(InputError, match=r"holds 2 images: left \(t 1, .*\), right \(.*like .*/left$"):
        project.load_input_from_omezarr(tmp_path / "slide.zarr")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_plate(tmp_path: Path, project: Project, version: str) -> None:
    root = tmp_path / "plate.zarr"
    wells = [{"path": "A/1", "rowIndex": 0, "columnIndex": 0}, {"path": "B/2", "rowIndex": 1, "columnIndex": 1}]
    plate = {"rows": [{"name": "A"}, {"name": "B"}], "columns": [{"name": "1"}, {"name": "2"}], "wells": wells}
    group_at(root, version).attrs.update(as_attributes(version, {"plate": plate}))
    for well, fields in (("A/1", "01"), ("B/2", "0")):
        images = [{"path": field} for field in fields]
        group_at(root, version).require_group(well).attrs.update(as_attributes(version, {"well": {"images": images}}))
        for field in fields:
            put_image(root, f"{well}/{field}", version)
    with pytest.raises(InputError, match=r"holds 3 images: A/1/0 \(t 1, .*\), A/1/1 \(.*\), B/2/0 \(.*like .*/A/1/0$"):
        project.load_input_from_omezarr(root)
    with pytest.raises(InputError, match=r"A/1: holds 2 images: 0 \(.*\), 1 \(.*\)\. Give the path of one"):
        project.load_input_from_omezarr(root / "A/1")
    project.load_input_from_omezarr(root / "B/2")  # the only field of its well
    check_image(project)


def test_what_ome_zarr_writes(tmp_path: Path, project: Project) -> None:
    with quiet():
        from ome_zarr.writer import write_image, write_labels

    for version, form in (("0.4", 2), ("0.5", 3)):
        root = tmp_path / f"{version}.zarr"
        group = zarr.open_group(str(root), mode="w", zarr_format=form)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write_image(IMAGE, group, axes="cyx")
            write_labels(CYTOSOL, group, name="cells", axes="yx")
        project.overwrite = True
        project.load_input_from_omezarr(root, channel_names=NAMES)
        check_image(project)
        project.load_segmentation(cytosol=root / "labels" / "cells")
        check_mask(project)


@pytest.mark.parametrize(
    "way", [*(pytest.param(way, marks=READS_ZIP) for way in ("zip", "folder in a zip", "ozx")), "http"]
)
def test_zip_files_and_servers(tmp_path: Path, project: Project, way: str) -> None:
    root = bioformats2raw(tmp_path / "web" / "slide.zarr", "0.5", "0")
    put_labels(root, "0", "0.5", cells=CYTOSOL)
    if way == "http":
        served = Server(tmp_path / "web")
        try:
            project.load_input_from_omezarr(f"{served.url}/slide.zarr")
            project.load_segmentation(cytosol=f"{served.url}/slide.zarr/0/labels/cells")
        finally:
            served.close()
    else:
        top = {"root_dir": tmp_path / "web", "base_dir": "slide.zarr"} if "folder" in way else {"root_dir": root}
        made = Path(shutil.make_archive(str(tmp_path / "slide"), "zip", **top))
        packed = made.rename(made.with_suffix(".ozx")) if way == "ozx" else made
        project.load_input_from_omezarr(packed)
        with pytest.raises(
            InputError, match=r"holds one label image: 0/labels/cells .*Give its path: (zip://.*cells::/.*/slide\.\w+)$"
        ) as e:
            project.load_segmentation(cytosol=packed)
        project.load_segmentation(cytosol=str(e.value).rsplit(" ", 1)[1])
    check_image(project)
    check_mask(project)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", r"nowhere: there is no such folder"),
        ("empty", r"empty: not a zarr group"),
        ("group", r"group: its metadata names no array of an image"),
        (5, r"ome_zarr_path = 5: must be the path of a folder \(got int\)"),
    ],
)
def test_what_is_no_image(tmp_path: Path, project: Project, path: Any, message: str) -> None:
    (tmp_path / "empty").mkdir()
    zarr.create_group(str(tmp_path / "group"))
    with pytest.raises(InputError, match=message):
        project.load_input_from_omezarr(path if isinstance(path, int) else tmp_path / path)


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["0.4", "0.5"])
def slide(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    root = bioformats2raw(tmp_path / "slide.zarr", request.param, "0")
    put_labels(root, "0", request.param, cells=CYTOSOL, nuclei=NUCLEUS)
    return root


@pytest.mark.parametrize("level", ["", "/0"])
def test_labels_by_their_path(slide: Path, project: Project, level: str) -> None:
    project.load_input_from_omezarr(slide)
    project.load_segmentation(f"{slide}/0/labels/nuclei{level}", slide / f"0/labels/cells{level}")
    check_mask(project)
    check_mask(project, NUCLEUS, "seg_all_nucleus")
    project.extract()
    assert project.h5sc.n_obs == 16


def test_the_only_labels_of_a_group(tmp_path: Path, project: Project) -> None:
    put_image(tmp_path / "slide.zarr")
    put_labels(tmp_path / "slide.zarr", cells=CYTOSOL)
    project.load_input_from_omezarr(tmp_path / "slide.zarr")
    project.load_segmentation(cytosol=tmp_path / "slide.zarr/labels")
    check_mask(project)


def test_labels_of_several_planes_are_advised_an_index(tmp_path: Path, project: Project) -> None:
    put(tmp_path / "cells.zarr", "", np.stack([CYTOSOL] * 3), "0.4", "zyx", **{"image-label": {}})
    project.load_input_from_array(IMAGE)
    with pytest.raises(InputError, match=r"Choose the plane: z=0 to z=2$"):
        project.load_segmentation(cytosol=tmp_path / "cells.zarr")
    with pytest.raises(InputError, match=r"series = 2, .* this mask holds one image\. Leave series out"):
        project.load_segmentation(cytosol=tmp_path / "cells.zarr", z=1, series=2)
    project.load_segmentation(cytosol=tmp_path / "cells.zarr", z=1, series=0)
    check_mask(project)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["DAPI", "DAPI", "GFP"], ["DAPI", "DAPI_2", "GFP"]),
        (["DAPI", None, "GFP"], ["DAPI", "channel_1", "GFP"]),
        ([0, 1, 2], ["0", "1", "2"]),
        ([None] * 3, ["channel_0", "channel_1", "channel_2"]),
    ],
)
def test_names_that_come_twice_or_are_missing(
    tmp_path: Path, project: Project, labels: list[Any], expected: list[str]
) -> None:
    omero = {"channels": [{"label": label} for label in labels]}
    put(tmp_path / "a.zarr", "", np.stack([IMAGE[0]] * 3), "0.4", "cyx", omero=omero)
    project.load_input_from_omezarr(tmp_path / "a.zarr")
    assert project.input_image.coords["c"].to_numpy().tolist() == expected


def test_too_few_names_are_not_used(tmp_path: Path, project: Project) -> None:
    omero = {"channels": [{"label": "DAPI"}, {"label": "GFP"}]}
    put(tmp_path / "a.zarr", "", np.stack([IMAGE[0]] * 3), "0.4", "cyx", omero=omero)
    with pytest.warns(UserWarning, match=r"a\.zarr: the metadata names 2 channels \(DAPI, GFP\), but there are 3"):
        project.load_input_from_omezarr(tmp_path / "a.zarr")
    assert project.input_image.coords["c"].to_numpy().tolist() == ["channel_0", "channel_1", "channel_2"]


@pytest.mark.parametrize(
    ("path", "found"),
    [("", "0/labels/cells"), ("0", "labels/cells"), ("0/labels", "cells")],
)
def test_several_labels_are_listed(slide: Path, project: Project, path: str, found: str) -> None:
    project.load_input_from_omezarr(slide)
    size = r"\(t 1, c 1, z 1, y 200, x 200\)"
    message = (
        rf"holds 2 labels: {found} {size}, .*nuclei {size}\. Give the path of one, like .*slide\.zarr/0/labels/cells$"
    )
    with pytest.raises(InputError, match=message):
        project.load_segmentation(cytosol=slide / path)


def test_labels_of_a_spatialdata_store(tmp_path: Path, project: Project, project_store) -> None:
    other = project_store(tmp_path / "other.zarr", cells=(IMAGE, NUCLEUS, CYTOSOL), multiscale=True)
    project.load_input_from_array(IMAGE)
    with pytest.raises(InputError, match=r"holds 2 labels: labels/seg_all_\w+ \(y 200, x 200\), labels/"):
        project.load_segmentation(cytosol=other)
    project.load_segmentation(cytosol=other / "labels/seg_all_cytosol")
    check_mask(project)


def test_a_zip_file_without_zarr_is_not_taken_for_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "masks.npz", CYTOSOL)
    assert not is_folder(tmp_path / "masks.npz")


@pytest.mark.parametrize("multiscale", [False, True])
def test_elements_of_a_spatialdata_object(tmp_path: Path, project: Project, project_store, *, multiscale: bool) -> None:
    sdata = open_sdata(project_store(tmp_path / "s.zarr", cells=(IMAGE, NUCLEUS, CYTOSOL), multiscale=multiscale))
    project.load_input_from_array(sdata["input_image"], channel_names=NAMES)
    project.load_segmentation(sdata["seg_all_nucleus"], sdata["seg_all_cytosol"])
    check_image(project)
    check_mask(project)
    check_mask(project, NUCLEUS, "seg_all_nucleus")


@pytest.mark.parametrize("release", ["2024.12.0", "2026.7.0"])
def test_a_release_of_fsspec_that_cannot_read_zip_files(release: str) -> None:
    with pytest.raises(InputError, match=rf"fsspec {release}: .* Run `pip install 'fsspec>=2026.9'`, or unpack"):
        check_zip("zip://::/s.zip", release)
    check_zip("zip://::/s.zip", "2026.9.0")


@READS_ZIP
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("inner", ["", "s.zarr"])
def test_a_spatialdata_store_in_a_zip_file(tmp_path: Path, project_store, threads: int, inner: str) -> None:
    store = project_store(tmp_path / "in" / "s.zarr")
    top = {"root_dir": store.parent, "base_dir": inner} if inner else {"root_dir": store}
    packed = shutil.make_archive(str(tmp_path / "s.zarr"), "zip", **top)
    keys = {"threads": threads, "image_size": 40, "cache": str(tmp_path / "cache"), "progress": False}
    results = []
    for name, given in (("a", packed), ("b", store)):
        step = HDF5CellExtraction(keys, tmp_path / name, filehandler=given)
        step()
        results.append(read_h5sc(step.output_path))
    zipped, plain = results
    assert zipped.n_obs == 16
    assert np.array_equal(zipped.obsm["single_cell_images"][...], plain.obsm["single_cell_images"][...])
    told = (tmp_path / "a/processing.log").read_text()
    assert "did not store the centres (a remote store is only read)" in told


def test_a_folder_without_labels(tmp_path: Path, project: Project) -> None:
    zarr.create_group(str(tmp_path / "group"))
    project.load_input_from_array(IMAGE)
    with pytest.raises(InputError, match="group: there are no labels here"):
        project.load_segmentation(cytosol=tmp_path / "group")


@pytest.mark.parametrize("n_leading", [1, 2, 3])
@pytest.mark.parametrize("of", ["numpy", "zarr", "dask"])
def test_masks_with_leading_axes_of_length_1(tmp_path: Path, project: Project, n_leading: int, of: str) -> None:
    data = CYTOSOL[(None,) * n_leading]
    if of == "zarr":
        data = zarr.create_array(str(tmp_path / "mask.zarr"), data=data, chunks=(*[1] * n_leading, 64, 64))
    if of == "dask":
        import dask.array

        data = dask.array.from_array(data, chunks=(*[1] * n_leading, 64, 64))
    project.load_input_from_array(IMAGE)
    project.load_segmentation(cytosol=data)
    check_mask(project)


@pytest.mark.parametrize("shape", [(2, 200, 200), (1, 2, 200, 200), (200,)])
def test_masks_with_other_axes_are_refused(project: Project, shape: tuple[int, ...]) -> None:
    project.load_input_from_array(IMAGE)
    with pytest.raises(InputError, match=r"cytosol mask of shape .*: must be 2-D \(y, x\)"):
        project.load_segmentation(cytosol=np.ones(shape, np.uint32))


@pytest.mark.parametrize("path", ["", "0"])
def test_a_step_is_not_given_ome_zarr(slide: Path, tmp_path: Path, path: str) -> None:
    keys = {"threads": 1, "image_size": 40, "cache": str(tmp_path / "cache"), "cytosol_labels": "cells"}
    message = r"is OME-Zarr, not a SpatialData store\. Load it into a project first \(load_input_from_omezarr, then"
    with pytest.raises(InputError, match=message):
        HDF5CellExtraction(keys, tmp_path / "out", filehandler=slide / path)()
