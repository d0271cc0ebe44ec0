"""Pixels and centres on their way into a store: values kept, memory bounded, all or nothing."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import zarr

from cellstamp.errors import InputError, OutputError
from cellstamp.source.find.elements import find_source
from cellstamp.source.library_messages import quiet
from cellstamp.source.load import store as stores
from cellstamp.source.load.pixels import as_pixels, reordered, stack
from cellstamp.source.load.raster import level_shapes, regions
from cellstamp.source.load.spatialdata_in_memory import as_store
from cellstamp.source.load.staging import recover, staged, zarr_format
from cellstamp.source.ome import points_attributes
from cellstamp.source.points import load_centers, write_points
from cellstamp.source.values import Centers

LARGEST_ID = 2**63 - 1


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, so that two states of it can be compared to the byte."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def failing(shape: tuple[int, ...], dtype: type = np.uint16, error: str = "no such block") -> da.Array:
    """A dask array of blocks of 100 x 100 whose last block cannot be computed."""
    last = tuple((size - 1) // 100 for size in shape[-2:])

    def block(block_info: dict | None = None) -> np.ndarray:
        info = block_info[None]
        if tuple(info["chunk-location"][-2:]) == last:
            raise RuntimeError(error)
        return np.ones(info["chunk-shape"], dtype)

    chunks = tuple((1,) * size if axis < len(shape) - 2 else 100 for axis, size in enumerate(shape))
    return da.map_blocks(block, chunks=da.core.normalize_chunks(chunks, shape), dtype=dtype, meta=np.empty((), dtype))


def centers(*ids: int) -> Centers:
    return Centers(np.array(ids, np.uint64), np.arange(2 * len(ids), dtype=np.float64).reshape(-1, 2) + 0.25)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "scportrait.sdata"


class TestImages:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int16, np.float32, ">u2"])
    def test_values_and_dtype_are_kept(self, store: Path, dtype: type) -> None:
        image = np.random.default_rng(0).integers(0, 100, (2, 130, 90)).astype(dtype)
        stores.load_image(store, image)
        read = stores.open_image(store)
        assert read.dtype == np.dtype(dtype).newbyteorder("=")
        np.testing.assert_array_equal(read.to_numpy(), image)

    def test_spatialdata_reads_the_levels_scportrait_writes(self, store: Path) -> None:
        image = np.random.default_rng(0).integers(0, 2**16, (2, 300, 210)).astype(np.uint16)
        stores.load_image(store, image)
        tree = stores.open_sdata(store).images["input_image"]
        shapes = [tree[scale].image.shape for scale in tree.children]
        assert shapes == [(2, 300, 210), (2, 150, 105), (2, 37, 26), (2, 4, 3)]

    def test_levels_are_means_of_squares(self, store: Path) -> None:
        image = np.random.default_rng(0).integers(0, 2**16, (2, 301, 210)).astype(np.uint16)
        stores.load_image(store, image)
        half = stores.open_sdata(store).images["input_image"]["scale1"].image.to_numpy()
        np.testing.assert_array_equal(half, np.rint(image[:, :300].reshape(2, 150, 2, 105, 2).mean((2, 4))))

    def test_blocks_are_of_one_channel_and_2000_pixels(self, store: Path) -> None:
        stores.load_image(store, da.zeros((2, 2100, 2500), np.uint8, chunks=(2, 300, 300)))
        assert find_source_image(store).chunks == (1, 2000, 2000)

    def test_a_plane_is_an_image_of_one_channel(self, store: Path) -> None:
        stores.load_image(store, np.ones((40, 50), np.uint8))
        assert stores.open_image(store).shape == (1, 40, 50)

    def test_names_given_are_read_back_in_the_new_order(self, store: Path) -> None:
        image = np.stack([np.full((40, 50), value, np.uint8) for value in (1, 2, 3)])
        stores.load_image(
            store, image, channel_names=["dna", "a name of more than fifteen letters", 7], remap=[2, 0, 1]
        )
        read = stores.open_image(store)
        assert read.coords["c"].to_numpy().tolist() == ["7", "dna", "a name of more than fifteen letters"]
        assert read.to_numpy()[:, 0, 0].tolist() == [3, 1, 2]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"channel_names": ["a"]}, r"channel_names: 1 name \(a\) for 2 channels"),
            ({"channel_names": ["a", "a"]}, "channel_names: a, a: a more than once; each channel needs a unique name"),
            ({"channel_names": ["a", " "]}, "an empty name"),
            ({"channel_names": "ab"}, "channel_names = 'ab': must be a list of names"),
            ({"remap": [0]}, r"remap = \[0\]: must hold each of the channels 0 to 1 once"),
            ({"remap": [1, 1]}, r"remap = \[1, 1\]"),
        ],
    )
    def test_wrong_names_and_orders_are_refused(self, store: Path, options: dict, message: str) -> None:
        with pytest.raises(InputError, match=message):
            stores.load_image(store, np.ones((2, 40, 50), np.uint8), **options)
        assert not store.exists()

    @pytest.mark.parametrize(
        ("image", "message"),
        [
            (np.ones(5, np.uint8), r"image of shape \(5,\): must have the axes \(c, y, x\)"),
            (np.ones((1, 2, 3, 4), np.uint8), r"image of shape \(1, 2, 3, 4\)"),
            (np.ones((1, 0, 4), np.uint8), "it has no pixels"),
            (np.ones((2, 4, 4), bool), "array of dtype bool: must hold integers or floats"),
            (np.ones((2, 4, 4), complex), "array of dtype complex128"),
            ([["a", "b"]], "array of dtype <U1"),
        ],
    )
    def test_what_is_no_image_is_refused(self, store: Path, image: object, message: str) -> None:
        with pytest.raises(InputError, match=message):
            stores.load_image(store, image)
        assert not store.exists()

    def test_a_dask_array_of_unknown_size_is_refused(self, store: Path) -> None:
        unknown = da.ones((100,), chunks=10)
        with pytest.raises(InputError, match="call compute_chunk_sizes"):
            stores.load_image(store, unknown[unknown > 0])

    @pytest.mark.once
    def test_memory_does_not_grow_with_the_image(self, store: Path) -> None:
        image = da.ones((24, 1500, 1500), np.uint8, chunks=(1, 500, 500))
        tracemalloc.start()
        stores.load_image(store, image)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < image.nbytes / 2

    def test_what_is_no_store_is_refused(self, store: Path) -> None:
        store.mkdir()
        (store / "thesis.txt").write_text("mine")
        with pytest.raises(InputError, match="this is not a zarr store"):
            stores.load_image(store, np.ones((2, 40, 50), np.uint8))
        assert contents(store) == {"thesis.txt": b"mine"}


def find_source_image(store: Path) -> zarr.Array:
    return zarr.open_array(str(store / "images" / "input_image" / "s0"), mode="r")


class TestRegions:
    @pytest.mark.parametrize("budget", [1, 10_000, 10**9])
    @pytest.mark.parametrize(("source", "target"), [((3, 64, 64), (1, 50, 50)), ((1, 500, 500), (1, 20, 30))])
    def test_every_pixel_is_in_one_region(self, source: tuple, target: tuple, budget: int) -> None:
        count = np.zeros((3, 130, 170), int)
        for region in regions(count.shape, source, target, 2, budget):
            count[region] += 1
        assert (count == 1).all()

    def test_source_blocks_are_decoded_once_where_memory_allows(self) -> None:
        reads = np.zeros((1, 4, 5), int)
        for _, y, x in regions((3, 2000, 2500), (3, 500, 500), (1, 300, 300), 2, 10**9):
            reads[:, y.start // 500 : -(-y.stop // 500), x.start // 500 : -(-x.stop // 500)] += 1
        assert reads.max() <= 2

    def test_the_budget_holds(self) -> None:
        sizes = [
            np.prod([part.stop - part.start for part in region])
            for region in regions((40, 30000, 30000), (40, 2500, 2500), (1, 2000, 2000), 2, 256 * 2**20)
        ]
        assert 2 * max(sizes) <= 256 * 2**20

    def test_no_level_is_empty(self) -> None:
        assert level_shapes((3, 30, 10), (2, 4, 8)) == [(3, 30, 10), (3, 15, 5), (3, 3, 1)]


class TestPixels:
    def test_stacked_and_reordered(self) -> None:
        planes = [np.full((4, 5), value, np.uint8) for value in range(3)]
        image = reordered(stack([as_pixels(plane) for plane in planes]), [2, 0, 1])
        read = image.read((slice(1, 3), slice(0, 2), slice(1, 5)))
        assert read.shape == (2, 2, 4)
        assert read[:, 0, 0].tolist() == [0, 1]


class TestMasks:
    @pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64, np.uint64])
    def test_ids_are_kept_to_the_last(self, store: Path, dtype: type) -> None:
        mask = np.zeros((40, 50), dtype)
        mask[5:9, 5:9] = top = min(np.iinfo(dtype).max, LARGEST_ID)
        stores.load_image(store, np.ones((2, 40, 50), np.uint8))
        found = stores.load_masks(store, {"nucleus": mask})
        assert found["labels/seg_all_nucleus"].ids.tolist() == [top]
        read = stores.open_sdata(store).labels["seg_all_nucleus"]
        assert read.dtype == dtype
        np.testing.assert_array_equal(read.to_numpy(), mask)

    def test_centres_are_stored_with_the_masks(self, store: Path, make_cells) -> None:
        image, nucleus, cytosol = make_cells()
        stores.load_image(store, image)
        stores.load_masks(store, {"nucleus": nucleus, "cytosol": cytosol})
        for name, mask in (("seg_all_nucleus", nucleus), ("seg_all_cytosol", cytosol)):
            stored = load_centers(store, name)
            expected = [[np.nonzero(mask == cell)[axis].mean() for axis in (1, 0)] for cell in stored.ids]
            np.testing.assert_allclose(stored.xy, expected)

    @pytest.mark.parametrize(
        ("mask", "message"),
        [
            (np.ones((41, 50), np.uint8), r"nucleus mask is 41 x 50 pixels \(y, x\), the image 40 x 50"),
            (np.ones((2, 40, 50), np.uint8), r"nucleus mask of shape \(2, 40, 50\): must be 2-D .*: mask\[0, :, :\]"),
            (np.ones(50, np.uint8), r"nucleus mask of shape \(50,\): must be 2-D \(y, x\)$"),
            (
                np.ones((40, 50), bool),
                r"nucleus mask of dtype bool: must hold integers, .* load the result: skimage\.measure\.label\(mask\)",
            ),
            (np.ones((40, 50), complex), "nucleus mask of dtype complex128: must hold integers"),
            (np.full((40, 50), -3, np.int32), r"^nucleus mask: the negative value -3; .* load numpy\.where\(mask < 0"),
            (np.full((40, 50), 2**63, np.uint64), r"^nucleus mask for 'seg_all_nucleus' in .*: ids above 2\*\*63 - 1"),
        ],
    )
    def test_what_is_no_mask_of_the_image_is_refused(self, store: Path, mask: np.ndarray, message: str) -> None:
        stores.load_image(store, np.ones((2, 40, 50), np.uint8))
        before = contents(store)
        with pytest.raises(InputError, match=message):
            stores.load_masks(store, {"nucleus": mask})
        assert contents(store) == before

    def test_a_mask_needs_an_image(self, store: Path) -> None:
        with pytest.raises(InputError, match="there is no image 'input_image'; load one before its masks"):
            stores.load_masks(store, {"nucleus": np.ones((40, 50), np.uint8)})

    def test_no_mask_at_all_is_refused(self, store: Path) -> None:
        with pytest.raises(InputError, match="give nucleus, cytosol, or both"):
            stores.load_masks(store, {})


class TestAllOrNothing:
    def test_failing_midway_leaves_nothing_of_a_new_store(self, tmp_path: Path, store: Path) -> None:
        with pytest.raises(RuntimeError, match="no such block"):
            stores.load_image(store, failing((2, 350, 250)))
        assert list(tmp_path.iterdir()) == []

    def test_failing_midway_leaves_a_filled_store_as_it_was(self, tmp_path: Path, project_store) -> None:
        store = project_store()
        before = contents(tmp_path)
        with pytest.raises(RuntimeError, match="no such block"):
            stores.load_image(store, failing((2, 350, 250)), overwrite=True)
        assert contents(tmp_path) == before

    def test_failing_in_a_mask_leaves_the_other_one_and_its_centres(self, tmp_path: Path, project_store) -> None:
        store = project_store()
        stores.store_centers(store, "seg_all_nucleus", centers(3))
        before = contents(tmp_path)
        nucleus = np.ones((200, 200), np.uint32)
        with pytest.raises(RuntimeError, match="no such block"):
            stores.load_masks(store, {"nucleus": nucleus, "cytosol": failing((200, 200), np.uint32)}, overwrite=True)
        assert contents(tmp_path) == before

    def test_a_failing_commit_puts_everything_back(self, tmp_path: Path, project_store) -> None:
        """The metadata of another element is broken, so the new list of all metadata cannot be made."""
        store = project_store()
        (store / "labels" / "seg_all_nucleus" / "zarr.json").write_text("{")
        before = contents(tmp_path)
        with pytest.raises(json.JSONDecodeError, match="Expecting property name"):
            stores.load_image(store, np.ones((2, 200, 200), np.uint16), overwrite=True)
        assert contents(tmp_path) == before

    @pytest.mark.once
    @pytest.mark.leaves_files
    def test_a_process_killed_at_any_rename_leaves_one_state_or_the_other(self, tmp_path: Path, project_store) -> None:
        original = project_store(tmp_path / "original.zarr")
        runs = [tmp_path / f"run_{count}" / "scportrait.sdata" for count in range(1, 9)]
        subprocess.run([sys.executable, "-c", KILLED_AT_RENAME, original, *runs], check=True, timeout=120)
        seen = set()
        for run in runs:
            recover(run)
            assert [path.name for path in run.parent.iterdir()] == ["scportrait.sdata"]
            assert (
                zarr.open_group(str(run), use_consolidated=True)["images/input_image/s0"].shape[0]
                == (find_source_image(run).shape[0])
            )
            state = "old" if contents(run) == contents(original) else "new"
            if state == "new":
                assert find_source_image(run)[:].max() == 1
                assert load_centers(run, "seg_all_nucleus").ids.tolist() == [5]
            seen.add(state)
        assert seen == {"old", "new"}

    def test_a_store_that_cannot_be_restored_at_once_is_restored_later(
        self, tmp_path: Path, project_store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A disk that fails, or on Windows a program that has files open."""
        store = project_store()
        before, real, moved = contents(store), os.rename, []

        def rename(source: Path, target: Path) -> None:
            if moved:
                raise OSError(errno.EIO, "Input/output error")
            real(source, target)
            moved.extend([target] if "/old/" in str(target) else [])

        monkeypatch.setattr(os, "rename", rename)
        with pytest.raises(OSError, match="Input/output error"):
            stores.load_image(store, np.ones((2, 200, 200), np.uint16), overwrite=True)
        monkeypatch.undo()
        assert contents(store) != before
        recover(store)
        assert contents(store) == before
        assert [path.name for path in store.parent.iterdir()] == [store.name]

    def test_overwriting_needs_to_be_asked_for(self, store: Path) -> None:
        stores.load_image(store, np.ones((2, 40, 50), np.uint8))
        stores.load_masks(store, {"nucleus": np.ones((40, 50), np.uint8)})
        with pytest.raises(OutputError, match=r"images/input_image already exists. Set overwrite=True"):
            stores.load_image(store, np.zeros((2, 40, 50), np.uint8))
        with pytest.raises(OutputError, match=r"labels/seg_all_nucleus already exists. Set overwrite=True"):
            stores.load_masks(store, {"nucleus": np.full((40, 50), 2, np.uint8)})

    def test_overwriting_replaces_metadata_too(self, store: Path) -> None:
        stores.load_image(store, np.ones((2, 40, 50), np.uint8))
        stores.load_image(store, np.ones((3, 60, 50), np.uint16), overwrite=True)
        consolidated = zarr.open_group(str(store), use_consolidated=True)
        assert consolidated["images/input_image/s0"].shape == (3, 60, 50)
        assert stores.open_image(store).shape == (3, 60, 50)

    def test_two_loads_at_once_do_not_remove_each_others_files(self, store: Path) -> None:
        with staged(store) as outer:
            write_points(outer, "centers_a", centers(1))
            stores.store_centers(store, "b", centers(2))
        assert load_centers(store, "a").ids.tolist() == [1]
        assert load_centers(store, "b").ids.tolist() == [2]


KILLED_AT_RENAME = textwrap.dedent(
    """
    import os, shutil, sys
    import numpy as np
    from cellstamp.source.load import store as stores

    original, *runs = sys.argv[1:]
    for count, run in enumerate(runs, 1):
        shutil.copytree(original, run)
        child = os.fork()
        if child == 0:
            left = count

            def die(event, arguments):
                global left
                # zarr renames single files inside arrays; only our renames change the store
                if event == "os.rename" and "/c/" not in str(arguments[1]):
                    left -= 1
                    if left < 0:
                        os._exit(9)

            from pathlib import Path
            from cellstamp.source.points import write_points
            from cellstamp.source.load.raster import write_raster
            from cellstamp.source.load.pixels import as_pixels
            from cellstamp.source.load.staging import staged
            from cellstamp.source.values import Centers

            with staged(Path(run)) as staging:
                write_raster(staging, "images/input_image", as_pixels(np.ones((2, 40, 50), np.uint16)))
                write_points(staging, "centers_seg_all_nucleus", Centers(np.array([5], "u8"), np.zeros((1, 2))))
                staging.remove("labels/seg_all_cytosol")
                sys.addaudithook(die)
            os._exit(0)
        os.waitpid(child, 0)
    """
)


class TestCenters:
    def test_written_and_read(self, store: Path) -> None:
        stores.store_centers(store, "seg_all_nucleus", centers(3, LARGEST_ID))
        read = load_centers(store, "seg_all_nucleus")
        assert read.ids.dtype == np.uint64
        assert read.ids.tolist() == [3, LARGEST_ID]
        np.testing.assert_array_equal(read.xy, centers(3, LARGEST_ID).xy)

    def test_spatialdata_reads_them(self, store: Path) -> None:
        stores.store_centers(store, "seg_all_nucleus", centers(3, 8))
        with quiet():
            table = stores.open_sdata(store).points["centers_seg_all_nucleus"].compute()
        assert list(table.columns) == ["x", "y"]
        assert table.index.tolist() == [3, 8]

    def test_what_spatialdata_wrote_is_read(self, tmp_path: Path) -> None:
        table = pd.DataFrame({"x": [2.5, 1.5], "y": [4.5, 3.5]}, index=[4, 9])
        with quiet():
            import spatialdata
            from spatialdata.models import PointsModel

            points = {"centers_seg_all_nucleus": PointsModel.parse(table)}
            spatialdata.SpatialData(points=points).write(tmp_path / "other.zarr")
        read = load_centers(tmp_path / "other.zarr", "seg_all_nucleus")
        assert read.ids.tolist() == [4, 9]
        assert read.xy.tolist() == [[2.5, 4.5], [1.5, 3.5]]

    def test_none_where_there_are_none(self, project_store) -> None:
        assert load_centers(project_store(), "seg_all_nucleus") is None

    def test_no_cells(self, store: Path) -> None:
        stores.store_centers(store, "seg_all_nucleus", centers())
        assert len(load_centers(store, "seg_all_nucleus")) == 0

    def test_they_are_ascending_by_id(self, store: Path) -> None:
        self.write(store, pd.DataFrame({"x": [1.0, 2.0], "y": [3.0, 4.0]}, index=[9, 4]))
        assert load_centers(store, "seg_all_nucleus").xy.tolist() == [[2.0, 4.0], [1.0, 3.0]]

    def test_columns_are_read_by_position(self, store: Path) -> None:
        self.write(store, pd.DataFrame({"0": [1.0], "1": [2.0]}, index=[7]))
        assert load_centers(store, "seg_all_nucleus").xy.tolist() == [[1.0, 2.0]]

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            (pd.DataFrame({"x": [1.0, 2], "y": [1.0, 2]}, index=[4, 4]), "cell 4 has more than one centre"),
            (pd.DataFrame({"x": [1.0, 2], "y": [1.0, 2]}, index=[4, -1]), "cell id -1 is invalid"),
            (pd.DataFrame({"x": [1.0, 2], "y": [1.0, 2]}), "cell id 0 is invalid"),
            (pd.DataFrame({"x": [1.0, np.nan], "y": [1.0, 2]}, index=[4, 5]), "the centre of cell 5 is not finite"),
            (pd.DataFrame({"x": [1.0], "y": [np.inf]}, index=[4]), "the centre of cell 4 is not finite"),
            (
                pd.DataFrame({"x": [1.0], "y": [1.0], "z": [1.0]}, index=[4]),
                r"must have two columns.* has 3 \(x, y, z\)",
            ),
            (pd.DataFrame({"x": [1.0]}, index=[4]), "has 1"),
            (pd.DataFrame({"x": ["a"], "y": [1.0]}, index=[4]), "x and y must be numbers"),
            (pd.DataFrame({"x": [1.0], "y": [1.0]}, index=["a"]), "the index must have integer cell ids"),
        ],
    )
    def test_what_cannot_be_centres_is_refused(self, store: Path, table: pd.DataFrame, message: str) -> None:
        self.write(store, table)
        with pytest.raises(InputError, match=f"points 'centers_seg_all_nucleus' in .*{message}.*delete the points"):
            load_centers(store, "seg_all_nucleus")

    def test_a_broken_file_is_named(self, store: Path) -> None:
        stores.store_centers(store, "seg_all_nucleus", centers(3))
        file = store / "points" / "centers_seg_all_nucleus" / "points.parquet" / "part.0.parquet"
        file.write_bytes(b"no parquet")
        with pytest.raises(InputError, match=r"points 'centers_seg_all_nucleus' in .*: the table cannot be read"):
            load_centers(store, "seg_all_nucleus")

    @staticmethod
    def write(store: Path, table: pd.DataFrame) -> None:
        with staged(store) as staging:
            folder = staging.group("points/centers_seg_all_nucleus", points_attributes(format_=3)) / "points.parquet"
            folder.mkdir()
            table.to_parquet(folder / "part.0.parquet")

    def test_reading_them_does_not_import_spatialdata(self, store: Path) -> None:
        stores.store_centers(store, "seg_all_nucleus", centers(3))
        code = (
            "import sys; from cellstamp.source.points import load_centers;"
            f"assert len(load_centers({str(store)!r}, 'seg_all_nucleus')) == 1; assert 'spatialdata' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


class TestOlderStores:
    """Stores of zarr format 2, which spatialdata wrote before 0.5, stay what they are."""

    def test_an_element_is_added_in_the_format_of_the_store(self, project_store) -> None:
        store = project_store(zarr_format=2)
        stores.store_centers(store, "seg_all_nucleus", centers(3))
        stores.load_image(store, np.ones((2, 200, 200), np.uint16), overwrite=True)
        assert zarr_format(store) == zarr_format(store / "images" / "input_image") == 2
        sdata = stores.open_sdata(store)
        assert stores.open_image(store).shape == (2, 200, 200)
        assert "centers_seg_all_nucleus" in sdata.points
        assert find_source(store).image.shape == (2, 200, 200)


class TestInMemory:
    NAMES = ("input_image", "seg_all_nucleus", "seg_all_cytosol")

    @pytest.mark.parametrize("options", [{}, {"multiscale": True}, {"zarr_format": 2}])
    def test_what_is_on_disk_is_read_there(self, tmp_path: Path, project_store, options: dict) -> None:
        sdata = stores.open_sdata(project_store(**options))
        stored = as_store(sdata, self.NAMES, tmp_path / "cache")
        assert Path(stored) == tmp_path / "scportrait.sdata"
        assert not (tmp_path / "cache").exists()

    def test_what_is_in_memory_is_written(self, tmp_path: Path, make_cells) -> None:
        image, nucleus, cytosol = make_cells()
        sdata = self.in_memory(image, nucleus, cytosol)
        source = find_source(as_store(sdata, self.NAMES, tmp_path))
        assert source.channel_names == ("a", "b", "c")
        np.testing.assert_array_equal(source.image.array[:], image)
        np.testing.assert_array_equal(source.masks[1].array[:], cytosol)

    @pytest.mark.parametrize("zarr_format", [2, 3])
    def test_what_was_changed_since_it_was_read_is_written_and_the_rest_linked(
        self, tmp_path: Path, project_store, zarr_format: int
    ) -> None:
        """The changed image has the name, the shape and the dtype of the one on disk."""
        store = project_store(zarr_format=zarr_format)
        sdata = stores.open_sdata(store)
        image = sdata.images["input_image"]
        sdata.images["input_image"] = image.copy(data=image.data + 1)
        source = find_source(as_store(sdata, self.NAMES, tmp_path / "cache"))
        np.testing.assert_array_equal(source.image.array[:], image.to_numpy() + 1)
        np.testing.assert_array_equal(source.masks[0].array[:], sdata.labels["seg_all_nucleus"].to_numpy())
        assert (tmp_path / "cache" / "sdata.zarr" / "labels" / "seg_all_nucleus" / "s0").resolve().is_relative_to(store)

    def test_renamed_channels_are_a_change(self, tmp_path: Path, project_store) -> None:
        sdata = stores.open_sdata(project_store())
        sdata.images["input_image"] = sdata.images["input_image"].assign_coords(c=["x", "y", "z"])
        source = find_source(as_store(sdata, self.NAMES, tmp_path / "cache"))
        assert source.channel_names == ("x", "y", "z")

    def test_a_smaller_level_under_the_name_is_a_change(self, tmp_path: Path, project_store) -> None:
        sdata = stores.open_sdata(project_store(multiscale=True))
        for name in self.NAMES:
            element = sdata[name]["scale1"].image
            del sdata[name]
            (sdata.images if "c" in element.dims else sdata.labels)[name] = element
        source = find_source(as_store(sdata, self.NAMES, tmp_path / "cache"))
        assert source.shape == (100, 100)

    def test_an_element_read_under_another_name_is_linked(self, tmp_path: Path, sample_store) -> None:
        import spatialdata

        store = sample_store()
        read = stores.open_sdata(store)
        labels = {"seg_all_nucleus": read["nucleus"], "seg_all_cytosol": read["cytosol"]}
        sdata = spatialdata.SpatialData(images={"input_image": read["image"]}, labels=labels)
        stored = Path(as_store(sdata, self.NAMES, tmp_path / "cache"))
        assert (stored / "images" / "input_image" / "s0").resolve() == store / "images" / "image" / "s0"
        assert find_source(stored).shape == (200, 200)

    def test_a_missing_element_is_named(self, tmp_path: Path, make_cells) -> None:
        with pytest.raises(InputError, match=r"no image or labels named 'seg' \(it has: input_image, seg_all_nucleus"):
            as_store(self.in_memory(*make_cells()), ["seg"], tmp_path)

    @staticmethod
    def in_memory(image: np.ndarray, nucleus: np.ndarray, cytosol: np.ndarray) -> object:
        with quiet():
            import spatialdata
            from spatialdata.models import Image2DModel, Labels2DModel

            labels = {"seg_all_nucleus": nucleus, "seg_all_cytosol": cytosol}
            return spatialdata.SpatialData(
                images={"input_image": Image2DModel.parse(image, dims=("c", "y", "x"), c_coords=["a", "b", "c"])},
                labels={name: Labels2DModel.parse(mask, dims=("y", "x")) for name, mask in labels.items()},
            )


def test_the_log_lines_of_ome_zarr_are_kept_from_the_user(project_store, caplog: pytest.LogCaptureFixture) -> None:
    store = project_store()
    with caplog.at_level("DEBUG"):
        stores.open_sdata(store)
    assert "no parent found" not in caplog.text


def test_a_missing_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no SpatialData store here; load an input first"):
        stores.open_sdata(tmp_path / "none.zarr")
    with pytest.raises(InputError, match="there is no image 'input_image'; load one first"):
        stores.open_image(tmp_path / "none.zarr")


def test_folders_can_be_given_as_text(project_store) -> None:
    store = os.fspath(project_store())
    stores.store_centers(store, "seg_all_nucleus", centers(3))
    assert len(load_centers(store, "seg_all_nucleus")) == 1
