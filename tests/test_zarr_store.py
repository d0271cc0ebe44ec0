"""Zarr stores: the values of `.h5sc` files, shards that workers write, and one reader for both.

Tests of interrupted runs are in `test_unfinished.py`, for both formats, those of full disks in `test_small_disk.py`.
"""

from __future__ import annotations

import copy
import pickle
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import zarr

from cellstamp import HDF5CellExtraction, cell_images, iter_batches, plot_cells, plot_removed, read_h5sc, select_cells
from cellstamp.cells.plan import Batch, ShardBatch, Tile
from cellstamp.cells.task import StampTask
from cellstamp.errors import ConfigError, InputError, OutputError
from cellstamp.h5sc.feature_table import features_beside
from cellstamp.h5sc.kept_and_removed import kept_and_removed
from cellstamp.h5sc.reader import describe_h5sc
from cellstamp.h5sc.validate import errors_in
from cellstamp.source.values import Rect
from cellstamp.zarr_store.destinations import LocalDestination
from cellstamp.zarr_store.layout import ShardedLayout
from cellstamp.zarr_store.shard_task import FinishedShard, ShardTask
from cellstamp.zarr_store.shards import index_of, read_index, shard_path, write_shard
from cellstamp.zarr_store.writer import ZarrWriter
from commands import run_command
from formats import cells_per_shard
from stamp_tasks import KilledOnce
from stores import make_sample, write_store

_DRAWN = make_sample((1100, 900))
# from the last to the first: cell 40, at which runs end, is in one of the last shards
SAMPLE = _DRAWN.with_ids(np.arange(int(_DRAWN.masks["seg_all_cytosol"].max()), 0, -1, dtype=np.uint32))
CONFIG = {"threads": 2, "image_size": 24}
IMAGES = "single_cell_images"
STORE = "data/single_cells.zarr"
ROWS = 256


@pytest.fixture(scope="module", autouse=True)
def several_shards() -> Iterator[None]:
    with cells_per_shard(ROWS):
        yield


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("slide") / "s.zarr", SAMPLE, chunks=1025)  # two tiles


def extract(slide: Path, folder: Path, *, overwrite: bool = False, **config: Any) -> Path:
    keys = {**CONFIG, "cache": str(folder.parent / "cache"), "file_format": "zarr", **config}
    step = HDF5CellExtraction(keys, folder, filehandler=slide, overwrite=overwrite)
    step()
    return Path(str(step.output_path))


@pytest.fixture(scope="module")
def h5sc(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract(slide, tmp_path_factory.mktemp("h5sc") / "out", file_format="h5sc")


@pytest.fixture(scope="module")
def store(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract(slide, tmp_path_factory.mktemp("zarr") / "out")


@pytest.fixture
def own(store: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(store, tmp_path / store.name))


def ids_of(path: Path) -> np.ndarray:
    return read_h5sc(path).obs["scportrait_cell_id"].to_numpy()


def shards_of(path: Path) -> dict[str, bytes]:
    files = (path / "obsm" / IMAGES / "c").glob("*/0/0/0")
    return {str(each.relative_to(path)): each.read_bytes() for each in files}


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [{}, {"compression": "gzip"}, {"compression": False}, {"normalize_output": False, "dtype": "uint16"}],
    ids=["lz4", "zstd", "plain", "uint16"],
)
def test_images_and_tables_are_those_of_an_h5sc_file(slide: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    expected = read_h5sc(extract(slide, tmp_path / "h5sc", **config, file_format="h5sc"))
    found = read_h5sc(extract(slide, tmp_path / "zarr", **config))
    by_id = np.argsort(found.obs["scportrait_cell_id"].to_numpy())
    np.testing.assert_array_equal(found.obsm[IMAGES][:][by_id], expected.obsm[IMAGES][:])
    np.testing.assert_array_equal(found.obsm["spatial"][by_id], expected.obsm["spatial"])
    for column in expected.obs:
        assert found.obs[column].to_numpy()[by_id].tolist() == expected.obs[column].tolist()
    assert found.var.astype(str).to_dict() == expected.var.astype(str).to_dict()
    assert found.obs_names.tolist() == expected.obs_names.tolist()
    for key, value in expected.uns["spatialdata_attrs"].items():
        assert found.uns["spatialdata_attrs"][key] == value


def test_rows_follow_the_slide(store: Path) -> None:
    """Neighbours in the store are neighbours on the slide: a batch reads few chunks of the image."""
    x, y = read_h5sc(store).obsm["spatial"].T
    sides = [max(np.ptp(x[k : k + ROWS]), np.ptp(y[k : k + ROWS])) for k in range(0, len(x), ROWS)]
    assert len(sides) > 4
    assert np.median(np.hypot(np.diff(x), np.diff(y))) < 150
    assert len(set(ids_of(store).tolist())) == len(x)


@pytest.mark.parametrize(
    "config",
    [
        {"threads": 1},
        {"engine": "serial"},
        {"threads": 3, "max_batch_size": 7},
    ],
    ids=["one worker", "serial", "small batches"],
)
def test_the_shards_are_the_same_whoever_writes_them(
    slide: Path, store: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    assert shards_of(extract(slide, tmp_path / "out", **config)) == shards_of(store)


def test_the_rows_are_the_same_with_little_memory(slide: Path, store: Path, tmp_path: Path) -> None:
    """Tiles are then smaller, and the images of a shard are in another order in its file."""
    found = extract(slide, tmp_path / "out", target_ram_utilization=0.001, max_inflight_result_batches=1)
    assert ids_of(found).tolist() == ids_of(store).tolist()
    np.testing.assert_array_equal(read_h5sc(found).obsm[IMAGES][:], read_h5sc(store).obsm[IMAGES][:])


def test_workers_of_a_cluster_write_the_same_shards(slide: Path, store: Path, tmp_path: Path, dask_client: Any) -> None:
    found = extract(slide, tmp_path / "out", engine="dask", dask_scheduler=dask_client)
    assert shards_of(found) == shards_of(store)


def test_workers_of_a_cluster_write_groups_of_shards(
    slide: Path, tmp_path: Path, dask_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellstamp.zarr_store.layout.MOST_ROWS", 16)  # so many shards that two workers get groups
    expected = extract(slide, tmp_path / "serial", engine="serial")
    monkeypatch.setattr("cellstamp.pipeline.job.StampTask", KilledOnce)
    found = extract(slide, tmp_path / "dask", engine="dask", dask_scheduler=dask_client)
    assert len(shards_of(found)) > 64
    assert shards_of(found) == shards_of(expected)
    assert re.search(r"died .* while working on \d+ batches, from", (tmp_path / "dask/processing.log").read_text())


def test_cells_that_exceed_their_crops_are_marked(slide: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="exceed their crop"):
        found = read_h5sc(extract(slide, tmp_path / "zarr", image_size=14)).obs
    with pytest.warns(UserWarning, match="exceed their crop"):
        expected = read_h5sc(extract(slide, tmp_path / "h5sc", image_size=14, file_format="h5sc")).obs
    by_id = expected.set_index("scportrait_cell_id")["exceeds_crop"]
    assert by_id.any()
    assert not by_id.all()
    assert found["exceeds_crop"].tolist() == by_id[found["scportrait_cell_id"]].tolist()


def test_chosen_cells_and_a_preview(slide: Path, tmp_path: Path) -> None:
    chosen = extract(slide, tmp_path / "chosen", cells=[660, 333, 44])
    assert set(ids_of(chosen).tolist()) == {660, 333, 44}
    keys = {**CONFIG, "cache": str(tmp_path / "cache"), "file_format": "zarr"}
    step = HDF5CellExtraction(keys, tmp_path / "some", filehandler=slide)
    step(partial=True, n_cells=20, seed=3)
    assert len(set(ids_of(Path(str(step.output_path))).tolist())) == 20


# --- other readers ---------------------------------------------------------------------------------------------------


def test_zarr_and_anndata_read_the_store(store: Path) -> None:
    ours = read_h5sc(store)
    images = zarr.open_array(store / "obsm" / IMAGES, mode="r")
    assert images.chunks == (1, *images.shape[1:])
    assert images.shards == (ROWS, *images.shape[1:])
    assert images.attrs["channel_names"] == ours.var["channels"].tolist()
    np.testing.assert_array_equal(images[:], ours.obsm[IMAGES][:])
    theirs = anndata.io.read_zarr(store)
    np.testing.assert_array_equal(theirs.obsm[IMAGES], ours.obsm[IMAGES][:])
    assert theirs.obs.equals(ours.obs)


def test_anndata_reads_the_store_lazily(store: Path) -> None:
    lazy = anndata.experimental.read_lazy(store)
    np.testing.assert_array_equal(
        np.asarray(lazy.obsm[IMAGES][300:302].compute()), read_h5sc(store).obsm[IMAGES][300:302]
    )


# --- our readers -----------------------------------------------------------------------------------------------------

SELECTIONS = [
    5,
    (5, 2),
    slice(3, 700, 90),
    ([700, 3, 3], 1),
    (slice(None, None, -200), [4, 0]),
    (-1, slice(None), 3, slice(2, 5)),
]


@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
def test_images_are_indexed_as_numpy_indexes_arrays(store: Path, selection: Any) -> None:
    images = read_h5sc(store).obsm[IMAGES]
    in_memory = zarr.open_array(store / "obsm" / IMAGES, mode="r")[:]
    np.testing.assert_array_equal(images[selection], in_memory[selection])


def test_subsets_copies_and_pickles(store: Path, tmp_path: Path) -> None:
    data = read_h5sc(store)
    expected = data.obsm[IMAGES][[600, 2]]
    np.testing.assert_array_equal(data[[600, 2]].obsm[IMAGES], expected)
    for same in (data.copy(), copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
        np.testing.assert_array_equal(same.obsm[IMAGES][[600, 2]], expected)
    data[[600, 2]].copy().write_h5ad(tmp_path / "some.h5ad")
    np.testing.assert_array_equal(anndata.read_h5ad(tmp_path / "some.h5ad").obsm[IMAGES], expected)


def test_images_by_cell_id_and_channel(store: Path, h5sc: Path) -> None:
    for cells, channels in (([660, 44], "actin"), (None, ["tubulin", "seg_all_cytosol"])):
        found = cell_images(store, cells, channels)
        wanted = ids_of(store) if cells is None else cells
        np.testing.assert_array_equal(found, cell_images(h5sc, wanted, channels))
    assert select_cells(store, [660]).obs["scportrait_cell_id"].tolist() == [660]
    with pytest.raises(InputError, match=r"cells: 1 of 1 ids are not in .*single_cells\.zarr"):
        cell_images(store, 10**6)


def test_batches_for_training_from_both_formats(store: Path, h5sc: Path) -> None:
    planes = [*range(5)]
    expected = {int(cell): cell_images(h5sc, cell, planes)[0] for cell in ids_of(h5sc)[::50]}
    seen = 0
    for images, ids in iter_batches([store, h5sc], batch_size=64, shuffle=True):
        for image, cell in zip(images, ids.tolist(), strict=True):
            if int(cell) in expected:
                np.testing.assert_array_equal(image, expected[int(cell)].astype(np.float32))
                seen += 1
    assert seen == 2 * len(expected)


def test_pictures_and_commands(slide: Path, store: Path, tmp_path: Path) -> None:
    plot_cells(store, n=4, channels="dna")
    assert plot_removed(read_h5sc(store), slide).get_title() == "1,358 of 1,505 cells kept"
    for command, line in (("info", "1,358"), ("validate", "is valid")):
        told = run_command(command, store)
        assert told.exit_code == 0, told.output
        assert line in told.output
    project = tmp_path / "project"
    shutil.copytree(store, project / "extraction/data" / store.name)
    for name, path in (("file", store), ("project", project)):
        assert run_command("preview", path, "-o", tmp_path / f"{name}.png", "--n", 3).exit_code == 0
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
    about = describe_h5sc(store)
    assert about.file_bytes == sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
    assert about.stored_bytes < about.file_bytes
    assert about.channel_names[2:] == ("dna", "actin", "tubulin")


# --- damage ----------------------------------------------------------------------------------------------------------


def test_a_shard_that_is_cut_short(own: Path) -> None:
    path = shard_path(own, 2)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"c/2/0/0/0 is damaged: its index is incomplete\. Extract again"):
        next(iter_batches(own))
    assert any("c/2/0/0/0 is damaged" in error for error in errors_in(own))


def test_a_damaged_image_is_named(own: Path) -> None:
    path = shard_path(own, 1)
    index = read_index(path, ROWS)
    assert index is not None
    content = bytearray(path.read_bytes())
    start = int(index[0][7])
    content[start : start + 16] = bytes(16)
    path.write_bytes(content)
    cell = ids_of(own)[ROWS + 7]
    with pytest.raises(InputError, match=rf"is damaged: dna of cell {cell} cannot be decoded"):
        cell_images(own, cell, "dna")
    assert [error for error in errors_in(own) if f"cell {cell} (row {ROWS + 7})" in error]


def test_a_missing_shard(own: Path) -> None:
    """Zarr would read zeros."""
    shutil.rmtree(own / "obsm" / IMAGES / "c/3")
    told = r"c/3/0/0/0 is missing\. Extract again, or restore the file"
    for read in (cell_images, iter_batches, lambda path: read_h5sc(path).obsm[IMAGES][0]):
        with pytest.raises(InputError, match=told):
            read(own)
    assert any(re.search(told, error) for error in errors_in(own))


def test_folders_that_are_no_store(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a folder and not a zarr store of single-cell images: it has no zarr"):
        read_h5sc(tmp_path)
    zarr.open_group(tmp_path / "other.zarr", mode="w")
    with pytest.raises(InputError, match=r"other\.zarr is not an \.h5sc file: it lacks obsm/single_cell_images, obs"):
        read_h5sc(tmp_path / "other.zarr")


# --- interrupted runs, and results that exist -------------------------------------------------------------------------


@pytest.mark.once
def test_a_shard_that_was_written_twice_counts_once(tmp_path: Path) -> None:
    layout = ShardedLayout(
        cell_ids=np.arange(1, 4, dtype=np.uint64),
        centers=np.zeros((3, 2)),
        mask_names=("nucleus", "cytosol"),
        channel_names=("dna",),
        image_size=8,
        normalization_ranges=None,
        compression="lz4",
    )
    done = FinishedShard(0, range(3), 1, np.array([1, 2]), np.array([2]), 0.0, 0.0)
    with ZarrWriter(tmp_path, LocalDestination(tmp_path / "s.zarr"), layout, {}) as writer:
        nothing = np.full((2, layout.rows_per_shard), -1)
        write_shard(shard_path(writer.store, 0), [index_of(*nothing)])
        for _ in range(2):
            writer.write(done)
    with ZarrWriter(tmp_path, LocalDestination(tmp_path / "s.zarr"), layout, {}) as writer:
        assert writer.written.n_empty.tolist() == [1, 2]
        assert writer.written.on_edge.tolist() == [False, False, True]
        assert writer.written.is_written.all()


@pytest.mark.once
def test_a_run_that_failed_while_it_wrote_the_tables_resumes(slide: Path, store: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellstamp.pipeline.job.Job.description", lambda *_: {"uns": object()})  # nobody can write it
        with pytest.raises(Exception, match="object"):
            extract(slide, tmp_path / "out", flush_every=1)
    found = extract(slide, tmp_path / "out")
    assert shards_of(found) == shards_of(store)
    assert read_h5sc(found).obs.equals(read_h5sc(store).obs)
    assert not [*found.rglob("tables.zarr")]


@pytest.mark.once
def test_a_worker_that_does_not_have_the_folder_of_the_store(tmp_path: Path) -> None:
    """A worker on another machine must not write to a local folder."""
    task = ShardTask(StampTask(None, None), tmp_path / "elsewhere/single_cells.zarr", 256)  # type: ignore[arg-type]
    with pytest.raises(OutputError, match=r"single_cells\.zarr does not exist for a worker on .*all machines"):
        task(ShardBatch(0, ()))
    assert [*tmp_path.iterdir()] == []


@pytest.mark.once
def test_a_shard_is_retried_with_smaller_pieces() -> None:
    """A batch whose workers die repeatedly needs less memory; the shard has one writer all the same."""
    empty = Tile(Rect(0, 1, 0, 1), Rect(0, 1, 0, 1))
    piece = Batch(empty, *(np.arange(5),) * 4)
    shard = ShardBatch(3, (piece,))
    sizes = []
    while shard.halves():
        (shard,) = shard.halves()
        sizes.append([len(each) for each in shard.pieces])
        assert shard.rows.tolist() == [0, 1, 2, 3, 4]
    assert sizes == [[2, 3], [1, 1, 1, 2], [1, 1, 1, 1, 1]]


@pytest.mark.once
def test_a_finished_store_is_up_to_date(slide: Path, tmp_path: Path) -> None:
    first = extract(slide, tmp_path / "out")
    before = shards_of(first)
    assert extract(slide, tmp_path / "out") == first
    assert "Up to date" in (tmp_path / "out/processing.log").read_text()
    assert shards_of(first) == before


@pytest.mark.once
def test_both_formats_can_be_in_one_folder(slide: Path, tmp_path: Path) -> None:
    for file_format in ("h5sc", "zarr"):
        extract(slide, tmp_path / "out", file_format=file_format)
    assert {path.name for path in (tmp_path / "out/data").glob("single_cells.*")} == {
        "single_cells.h5sc",
        "single_cells.zarr",
    }


@pytest.mark.once
def test_each_result_of_a_folder_has_its_list_of_removed_cells(slide: Path, tmp_path: Path, h5sc: Path) -> None:
    """Both lists have one id: their lengths do not show which is whose."""
    missing = kept_and_removed(h5sc).removed
    inside = int(kept_and_removed(h5sc).kept[0])
    chosen = {"h5sc": [inside, int(missing[0])], "zarr": [inside, int(missing[1])]}
    found = {name: extract(slide, tmp_path / "out", file_format=name, cells=ids) for name, ids in chosen.items()}
    assert {name: kept_and_removed(path).removed.tolist() for name, path in found.items()} == {
        name: ids[1:] for name, ids in chosen.items()
    }
    names = {path.name for path in (tmp_path / "out/data").glob("*.csv")}
    assert names == {"removed_classes.csv", "removed_classes.zarr.csv"}


@pytest.mark.once
def test_the_list_of_removed_cells_of_earlier_versions(slide: Path, tmp_path: Path, own: Path, h5sc: Path) -> None:
    """They wrote one list for all formats."""
    removed = kept_and_removed(h5sc).removed
    with pytest.raises(InputError, match=r"removed_classes\.zarr\.csv is missing: the list of removed cells"):
        kept_and_removed(own)
    old = shutil.copy(h5sc.with_name("removed_classes.csv"), tmp_path)
    assert kept_and_removed(own).removed.tolist() == removed.tolist()
    kept = int(kept_and_removed(h5sc).kept[3])
    Path(old).write_text("".join(f"{cell}\n" for cell in [kept, *removed[1:].tolist()]))
    with pytest.raises(
        InputError,
        match=rf"removed_classes\.csv lists cell {kept}, which single_cells\.zarr has: the list is that of",
    ):
        kept_and_removed(own)


@pytest.mark.once
@pytest.mark.parametrize("other", [None, "single_cells.h5sc"])
def test_a_list_of_earlier_versions_is_removed_with_its_result(slide: Path, tmp_path: Path, other: str | None) -> None:
    data = extract(slide, tmp_path / "out").parent
    (data / "removed_classes.zarr.csv").rename(data / "removed_classes.csv")
    if other is not None:
        (data / other).write_bytes(b"another result, whose list it may be")
    extract(slide, tmp_path / "out")
    assert (data / "removed_classes.csv").exists()
    extract(slide, tmp_path / "out", overwrite=True, image_size=26)
    assert (data / "removed_classes.zarr.csv").exists()
    assert (data / "removed_classes.csv").exists() == (other is not None)


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:.*[zZ]arr v[23]")  # by anndata
def test_a_store_in_format_2_and_the_code_that_converts_it(h5sc: Path, tmp_path: Path) -> None:
    some = anndata.read_h5ad(h5sc)[:20].copy()
    anndata.io.write_elem(zarr.open_group(tmp_path / "old.zarr", mode="w", zarr_format=2), "/", some)
    for read in (read_h5sc, cell_images, errors_in):
        with pytest.raises(InputError, match=r"old\.zarr is a zarr store in format 2: .* in format 3") as error:
            read(tmp_path / "old.zarr")
    exec(str(error.value).partition("Convert it in Python: ")[2], {})
    found = read_h5sc(tmp_path / "old_3.zarr")
    np.testing.assert_array_equal(found.obsm[IMAGES][:], some.obsm[IMAGES])


@pytest.mark.once
@pytest.mark.parametrize("file_format", ["h5sc", "zarr"])
@pytest.mark.parametrize("name", [None, "mine"])
def test_a_table_of_features_instead_of_images(slide: Path, tmp_path: Path, file_format: str, name: str | None) -> None:
    images = extract(slide, tmp_path / "out", file_format=file_format, features=["shape"], cells=[40, 41])
    features = features_beside(images)
    if name is not None:
        images = images.with_name(f"{name}{images.suffix}")
        features = features.rename(features_beside(images))
    told = re.escape(
        f"{features} is a table of features, and has no single-cell images. Give the file or store that it"
    )
    # a table with its usual name is validated
    for read in (read_h5sc, cell_images, iter_batches, plot_cells, *([] if name is None else [errors_in])):
        with pytest.raises(InputError, match=rf"{told} belongs to: {re.escape(str(images))}$"):
            list(read(features))


@pytest.mark.once
def test_an_unknown_format(slide: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"file_format = 'hdf5': must be \"h5sc\" or \"zarr\""):
        extract(slide, tmp_path / "out", file_format="hdf5")
