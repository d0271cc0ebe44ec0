"""Load an input that the project already has: it is kept; other content is an error."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from spatialdata.transformations import get_transformation

from cellstamp.errors import InputError, OutputError
from cellstamp.pipeline.project import Project
from cellstamp.source.find.placement import placements
from cellstamp.source.library_messages import quiet
from cellstamp.source.load.pixels import as_pixels
from cellstamp.source.load.same_content import Content, is_stored
from cellstamp.source.load.store import open_sdata
from cellstamp.source.ome import multiscale_of, raster_attributes

IMAGE = np.random.default_rng(0).integers(0, 2**16, (3, 60, 80)).astype(np.uint16)
EXISTS = r"already exists?\. Set overwrite=True"
NAMES = ("image", "nucleus", "cytosol")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


def files_of(project: Project) -> dict[str, tuple[int, int, bytes]]:
    """Every file of the store, with what changes when it is written again."""
    store = Path(project.sdata_path)
    return {
        str(path.relative_to(store)): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for path in store.rglob("*")
        if path.is_file()
    }


def log_of(project: Project) -> list[str]:
    return (Path(project.directory) / "processing.log").read_text().splitlines()


def check_kept(project: Project, load: Callable[[], None], *lines: str) -> None:
    before, n_before = files_of(project), len(log_of(project))
    load()
    assert files_of(project) == before
    new = log_of(project)[n_before:]
    assert len(new) == len(lines)
    for line, wanted in zip(new, lines, strict=True):
        assert re.search(wanted, line)


def check_refused(project: Project, load: Callable[[], None], error: type[Exception] = OutputError) -> None:
    before = files_of(project)
    with pytest.raises(error, match=EXISTS):
        load()
    assert files_of(project) == before
    assert not list(Path(project.directory).glob(".*"))


def write_tiffs(folder: Path, image: np.ndarray) -> list[Path]:
    paths = [folder / f"{index}.tif" for index in range(len(image))]
    for path, plane in zip(paths, image, strict=True):
        tifffile.imwrite(path, plane, tile=(16, 16), compression="zlib")
    return paths


def write_pngs(folder: Path, image: np.ndarray) -> list[Path]:
    paths = [folder / f"{index}.png" for index in range(len(image))]
    for path, plane in zip(paths, image, strict=True):
        path.write_bytes(imagecodecs.png_encode(plane))
    return paths


def write_omezarr(folder: Path, image: np.ndarray) -> Path:
    group = zarr.create_group(str(folder / "image.zarr"), overwrite=True, zarr_format=3)
    names = [f"channel {index}" for index in range(len(image))]
    group.attrs.update(raster_attributes("images", "image", [image.shape], format_=3, channel_names=names))
    group.create_array("s0", data=image, chunks=(1, 16, 16))
    return folder / "image.zarr"


def from_array(project: Project, folder: Path, image: np.ndarray) -> Callable[[], None]:
    return lambda: project.load_input_from_array(image)


def from_dask(project: Project, folder: Path, image: np.ndarray) -> Callable[[], None]:
    return lambda: project.load_input_from_dask(da.from_array(image, chunks=(1, 7, 80)))


def from_tiffs(project: Project, folder: Path, image: np.ndarray) -> Callable[[], None]:
    paths = write_tiffs(folder, image)
    return lambda: project.load_input_from_tif_files(paths)


def from_pngs(project: Project, folder: Path, image: np.ndarray) -> Callable[[], None]:
    paths = write_pngs(folder, image)
    return lambda: project.load_input_from_tif_files(paths)


def from_omezarr(project: Project, folder: Path, image: np.ndarray) -> Callable[[], None]:
    path = write_omezarr(folder, image)
    return lambda: project.load_input_from_omezarr(path)


class TestImage:
    @pytest.mark.parametrize("load", [from_array, from_dask, from_tiffs, from_pngs, from_omezarr])
    def test_the_same_image_is_kept_and_another_is_refused(self, tmp_path: Path, project: Project, load: Any) -> None:
        load(project, tmp_path, IMAGE)()
        check_kept(
            project, load(project, tmp_path, IMAGE), r"Input image kept: .* has the same content \(\(3, 60, 80\)"
        )
        other = IMAGE.copy()
        other[-1, -1, -1] ^= 1
        check_refused(project, load(project, tmp_path, other))
        load(project, tmp_path, IMAGE)()

    def test_another_kind_of_input_with_the_same_content(self, tmp_path: Path, project: Project) -> None:
        project.load_input_from_array(IMAGE)
        check_kept(project, from_tiffs(project, tmp_path, IMAGE), "kept: .*0.tif, .*2.tif has the same content")

    def test_a_second_project_object_keeps_it(self, project: Project) -> None:
        project.load_input_from_array(IMAGE)
        again = Project(project.directory)
        check_kept(project, lambda: again.load_input_from_array(IMAGE), "kept")

    @pytest.mark.parametrize(
        ("array", "options"),
        [
            (IMAGE[:2], {}),
            (IMAGE[:, :-1], {}),
            (IMAGE.astype(np.uint32), {}),
            (IMAGE.astype(np.float32), {}),
            (IMAGE, {"remap": [1, 0, 2]}),
        ],
    )
    def test_shape_dtype_and_order_count(self, project: Project, array: np.ndarray, options: dict) -> None:
        project.load_input_from_array(IMAGE)
        check_refused(project, lambda: project.load_input_from_array(array, **options))

    def test_missing_pixels_equal_each_other(self, project: Project) -> None:
        image = IMAGE.astype(np.float32)
        image[0, 5, 5] = np.nan
        project.load_input_from_array(image)
        check_kept(project, lambda: project.load_input_from_array(image.copy()), "kept")

    def test_choices_of_the_call_count(self, tmp_path: Path, project: Project) -> None:
        paths = write_tiffs(tmp_path, IMAGE)
        project.load_input_from_tif_files(paths, ["a", "b", "c"], crop=[(10, 50), (5, 80)], remap=[2, 0, 1])
        check_kept(
            project,
            lambda: project.load_input_from_tif_files(
                paths, ["a", "b", "c"], crop=[(10, 50), (5, 80)], remap=[2, 0, 1]
            ),
            "kept",
        )
        check_refused(
            project, lambda: project.load_input_from_tif_files(paths, ["a", "b", "c"], crop=[(10, 50), (4, 79)])
        )

    def test_overwrite_writes_it_again(self, project: Project) -> None:
        project.load_input_from_array(IMAGE)
        before = files_of(project)
        project.load_input_from_array(IMAGE, overwrite=True)
        assert files_of(project) != before
        assert log_of(project)[-1].endswith("channels channel_0, channel_1, channel_2")
        assert "Input image loaded from an array" in log_of(project)[-1]

    def test_the_first_difference_ends_the_comparison(self, project: Project) -> None:
        read = []

        def block(values: np.ndarray, block_info: Any = None) -> np.ndarray:
            read.append(block_info[0]["chunk-location"])
            return values + np.uint16(block_info[0]["chunk-location"] == (1, 0, 0))

        image = np.zeros((3, 5000, 5000), np.uint16)
        project.load_input_from_array(image)
        array = da.from_array(image, chunks=(1, 5000, 5000)).map_blocks(block, dtype=np.uint16, meta=image[:0, :0, :0])
        check_refused(project, lambda: project.load_input_from_dask(array))
        assert {channel for channel, _, _ in read} == {0, 1}

    def test_an_input_that_cannot_be_read_changes_nothing(self, project: Project) -> None:
        def fail(values: np.ndarray) -> np.ndarray:
            raise RuntimeError("lost connection")

        project.load_input_from_array(IMAGE)
        before = files_of(project)
        array = da.from_array(IMAGE, chunks=(1, 30, 40)).map_blocks(fail, dtype=np.uint16, meta=IMAGE[:0])
        with pytest.raises(RuntimeError, match="lost connection"):
            project.load_input_from_dask(array)
        assert files_of(project) == before

    @pytest.mark.parametrize("damage", ["chunk", "metadata", "array"])
    def test_a_damaged_image_is_not_kept(self, project: Project, damage: str) -> None:
        project.load_input_from_array(IMAGE)
        group = Path(project.sdata_path) / "images" / "input_image"
        path = {"chunk": next((group / "s0" / "c").rglob("0")), "metadata": group / "zarr.json"}.get(
            damage, group / "s0" / "zarr.json"
        )
        path = next(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else path
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(OutputError, match=EXISTS):
            project.load_input_from_array(IMAGE)
        project.load_input_from_array(IMAGE, overwrite=True)
        np.testing.assert_array_equal(project.input_image.to_numpy(), IMAGE)

    def test_an_image_elsewhere_in_space_is_another(self, tmp_path: Path, sample_store: Any, make_cells: Any) -> None:
        from spatialdata.transformations import Scale, set_transformation

        store = sample_store()
        with quiet():
            sdata = open_sdata(store)
            for name in NAMES:
                set_transformation(sdata[name], Scale([2.0, 2.0], ("x", "y")), write_to_sdata=sdata)
        project = Project(tmp_path / "project")
        project.load_input_from_sdata(store, *NAMES)
        check_refused(project, lambda: project.load_input_from_array(make_cells()[0], ["ch0", "ch1", "ch2"]))


class TestMasks:
    @pytest.fixture
    def masks(self, project: Project, make_cells: Any) -> tuple[np.ndarray, np.ndarray]:
        image, nucleus, cytosol = make_cells()
        project.load_input_from_array(image)
        return nucleus, cytosol

    def test_the_same_masks_are_kept_with_their_centres(
        self, project: Project, masks: tuple[np.ndarray, np.ndarray]
    ) -> None:
        project.load_segmentation(*masks)
        lines = [f"Mask seg_all_{kind} kept: same content" for kind in ("nucleus", "cytosol")]
        check_kept(project, lambda: project.load_segmentation(*masks), *lines)
        check_kept(project, lambda: project.load_segmentation(masks[0].astype(masks[0].dtype)), lines[0])

    def test_from_files(self, tmp_path: Path, project: Project, masks: tuple[np.ndarray, np.ndarray]) -> None:
        tifffile.imwrite(tmp_path / "nucleus.tif", masks[0], tile=(32, 32), compression="zlib")
        np.save(tmp_path / "cells.npy", masks[1])
        paths = (tmp_path / "nucleus.tif", tmp_path / "cells.npy")
        project.load_segmentation(*paths)
        check_kept(project, lambda: project.load_segmentation(*paths), "seg_all_nucleus kept", "seg_all_cytosol kept")

    def test_a_missing_mask_is_added_to_one_that_is_kept(
        self, project: Project, masks: tuple[np.ndarray, np.ndarray]
    ) -> None:
        nucleus, cytosol = masks
        project.load_segmentation(nucleus)
        before = files_of(project)
        project.load_segmentation(nucleus, cytosol)
        assert log_of(project)[-2].endswith("Mask seg_all_nucleus kept: same content")
        assert log_of(project)[-1].endswith("Mask seg_all_cytosol loaded: 16 cells")
        after = files_of(project)
        kept = {name for name in before if "seg_all_nucleus" in name}
        assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
        np.testing.assert_array_equal(project.sdata.labels["seg_all_cytosol"].to_numpy(), cytosol)

    @pytest.mark.parametrize("changed", ["pixel", "dtype"])
    def test_another_mask_is_refused_and_none_is_added(
        self, project: Project, masks: tuple[np.ndarray, np.ndarray], changed: str
    ) -> None:
        nucleus, cytosol = masks
        project.load_segmentation(nucleus)
        other = nucleus.astype(np.uint64 if changed == "dtype" else nucleus.dtype)
        if changed == "pixel":
            other[-1, -1] = other.max()
        check_refused(project, lambda: project.load_segmentation(other, cytosol))
        assert not project.cyto_seg_status

    def test_a_mask_that_does_not_fit_the_image_any_more(
        self, project: Project, masks: tuple[np.ndarray, np.ndarray]
    ) -> None:
        project.load_segmentation(*masks)
        with pytest.warns(UserWarning, match="has another size than the new image"):
            project.load_input_from_array(IMAGE, overwrite=True)
        with pytest.raises(InputError, match="must have the same size"):
            project.load_segmentation(*masks)

    def test_overwrite_writes_them_again(self, project: Project, masks: tuple[np.ndarray, np.ndarray]) -> None:
        project.load_segmentation(*masks)
        project.load_segmentation(*masks, overwrite=True)
        assert log_of(project)[-1].endswith("Mask seg_all_cytosol loaded: 16 cells")


class TestSpatialData:
    @pytest.mark.parametrize("zarr_format", [2, 3])
    @pytest.mark.parametrize("options", [{}, {"multiscale": True}, {"chunks": 50, "label_chunks": 200}])
    def test_the_same_store_is_kept(self, project: Project, sample_store: Any, options: dict, zarr_format: int) -> None:
        store = sample_store(zarr_format=zarr_format, **options)
        project.load_input_from_sdata(store, *NAMES)
        lines = [r"Input image kept: .*sample\.zarr", "seg_all_nucleus kept", "seg_all_cytosol kept"]
        check_kept(project, lambda: project.load_input_from_sdata(store, *NAMES), *lines)
        check_kept(project, lambda: project.load_input_from_sdata(open_sdata(store), *NAMES), *lines)

    @pytest.mark.parametrize("zarr_format", [2, 3])
    @pytest.mark.parametrize("chunks", [16, 64])  # small chunks are written again, others copied
    def test_a_scale_of_the_full_resolution_stays(
        self, project: Project, sample_store: Any, chunks: int, zarr_format: int
    ) -> None:
        store = sample_store(zarr_format=zarr_format, chunks=chunks)
        for element in ("images/image", "labels/nucleus", "labels/cytosol"):
            group = zarr.open_group(str(store / element))
            attributes: Any = group.attrs.asdict()
            level = attributes.get("ome", attributes)["multiscales"][0]["datasets"][0]
            level["coordinateTransformations"][0]["scale"][-2:] = [0.5, 0.25]
            group.attrs.update(attributes)
        project.load_input_from_sdata(store, *NAMES)
        for element in ("images/input_image", "labels/seg_all_nucleus", "labels/seg_all_cytosol"):
            found = placements(multiscale_of(Path(project.sdata_path) / element)[0])
            np.testing.assert_allclose(found["global"], np.diag([0.5, 0.25, 1]))
        with quiet():
            labels = open_sdata(project.sdata_path)["seg_all_nucleus"]
            in_spatialdata = get_transformation(labels).to_affine_matrix(("y", "x"), ("y", "x"))
        np.testing.assert_allclose(in_spatialdata, np.diag([0.5, 0.25, 1]))
        check_kept(project, lambda: project.load_input_from_sdata(store, *NAMES), "kept", "kept", "kept")

    @pytest.mark.parametrize("options", [{}, {"keep_all": False}, {"remove_duplicates": False}])
    def test_with_a_table(self, project: Project, sample_store: Any, options: dict) -> None:
        store = sample_store()
        add_table(store, [3, 6, 9])
        project.load_input_from_sdata(store, *NAMES, **options)
        load = lambda: project.load_input_from_sdata(store, *NAMES, **options)  # noqa: E731
        check_kept(project, load, "kept", "kept", "kept")
        add_table(store, [3, 6, 12])
        if options.get("keep_all", True):
            check_refused(project, load)
        else:
            load()

    def test_other_elements_that_were_left_out_are_not_skipped(self, project: Project, sample_store: Any) -> None:
        store = sample_store()
        add_table(store, [3, 6, 9])
        project.load_input_from_sdata(store, *NAMES, keep_all=False)
        check_refused(project, lambda: project.load_input_from_sdata(store, *NAMES))

    def test_fewer_masks_are_other_content(self, project: Project, sample_store: Any) -> None:
        store = sample_store()
        project.load_input_from_sdata(store, *NAMES)
        check_refused(project, lambda: project.load_input_from_sdata(store, "image", "nucleus"))

    def test_swapped_masks_are_other_content(self, project: Project, sample_store: Any) -> None:
        store = sample_store()
        project.load_input_from_sdata(store, *NAMES)
        check_refused(project, lambda: project.load_input_from_sdata(store, "image", "cytosol", "nucleus"))


def add_table(store: Path, ids: list[int]) -> None:
    """Write a table of the nucleus mask into a store."""
    import anndata
    import pandas as pd
    from spatialdata.models import TableModel

    obs = pd.DataFrame({"region": pd.Categorical(["nucleus"] * len(ids)), "id": ids}, index=[str(k) for k in ids])
    table = TableModel.parse(
        anndata.AnnData(np.ones((len(ids), 1), np.float32), obs=obs),
        region="nucleus",
        region_key="region",
        instance_key="id",
    )
    with quiet():
        sdata = open_sdata(store)
        if "measured" in sdata.tables:
            del sdata.tables["measured"]
            sdata.delete_element_from_disk("measured")
        sdata.tables["measured"] = table
        sdata.write_element("measured")


def test_comparing_reads_a_bounded_part(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    image = np.zeros((2, 6000, 6000), np.uint16)
    project.load_input_from_array(image)
    sizes = []

    def read(region: tuple[slice, ...]) -> np.ndarray:
        block = image[region]
        sizes.append(block.nbytes)
        return block

    pixels = as_pixels(image)
    content = Content(type(pixels)(pixels.shape, pixels.dtype, pixels.chunks, read), ("channel_0", "channel_1"))
    assert is_stored(Path(project.sdata_path), "images/input_image", content)
    assert max(sizes) <= 64 * 2**20 < sum(sizes)


@pytest.mark.once
def test_a_script_runs_twice(tmp_path: Path, make_cells: Any) -> None:
    """The quickstart's lines, in two processes, and twice in each."""
    image, nucleus, cytosol = make_cells()
    for name, plane in (("dapi", image[0]), ("actin", image[1]), ("nuclei", nucleus), ("cells", cytosol)):
        tifffile.imwrite(tmp_path / f"{name}.tif", plane)
    script = """
from cellstamp import Project

for _ in range(2):
    config = {"HDF5CellExtraction": {"threads": 1, "image_size": 40, "cache": "./cache"}}
    project = Project("my_project", config_path=config)
    project.load_input_from_tif_files(["dapi.tif", "actin.tif"], channel_names=["DAPI", "actin"])
    project.load_segmentation(nucleus="nuclei.tif", cytosol="cells.tif")
    project.extract()
    print(project.h5sc.n_obs)
"""
    for _ in range(2):
        out = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True, text=True)
        assert out.stdout.count("\n16\n") == 2
    log = (tmp_path / "my_project" / "processing.log").read_text()
    assert log.count("Input image loaded") == log.count("Mask seg_all_nucleus loaded") == 1
    assert log.count("Input image kept") == log.count("Mask seg_all_nucleus kept") == 3


def test_only_the_names_of_channels_differ(tmp_path: Path) -> None:
    project, image = Project(tmp_path / "names"), np.ones((2, 20, 30), np.uint16)
    project.load_input_from_array(image, ["dna", "actin"])
    with pytest.raises(OutputError, match=r"same pixels, but .* named dna, actin, not DAPI, actin\. Set over"):
        project.load_input_from_array(image, ["DAPI", "actin"])
    with pytest.raises(OutputError, match=EXISTS):
        project.load_input_from_array(image + 1, ["DAPI", "actin"])
    project.load_input_from_array(image, ["DAPI", "actin"], overwrite=True)
    assert project.input_image.c.values.tolist() == ["DAPI", "actin"]


def test_floats_that_are_no_ids_get_the_error_only(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    project, mask = Project(tmp_path / "floats"), np.zeros((20, 30), np.float32)
    project.load_input_from_array(np.ones((1, 20, 30), np.uint16))
    with pytest.raises(InputError, match=r"0\.5 in row 0"):
        project.load_segmentation(nucleus=mask + 0.5)
    assert not [warning for warning in recwarn if "integers" in str(warning.message)]
    mask[5:9, 5:9] = 1
    with pytest.warns(UserWarning, match="nucleus mask holds integers as float32") as told:
        project.load_segmentation(nucleus=mask)
    assert len(told) == 1
