"""Whole extractions, on small real stores: which cells, which numbers, which files, and what is refused."""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

import restatement
from cellstamp import HDF5CellExtraction, read_h5sc
from cellstamp.cells.task import StampTask
from cellstamp.engines.memory import memory_limit
from cellstamp.errors import ConfigError, InputError, OutputError, WorkerError
from cellstamp.h5sc.layout import removed_name
from cellstamp.h5sc.writer import StampWriter
from cellstamp.source.find.elements import find_labels, find_source
from cellstamp.source.load.store import store_centers
from cellstamp.source.read.centers import compute_centers
from cellstamp.source.values import Centers
from comparing import contents
from formats import NAMES
from stamp_tasks import Failing, Killed
from stores import CYTOSOL, NUCLEUS, Sample, as_spatialdata, make_sample, rechunk, write_store

SIZE = 32
SAMPLE = make_sample()
RANGE = (0.001, 0.999)


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's store, for tests that only read it."""
    return write_store(tmp_path_factory.mktemp("shared") / "sample.zarr", SAMPLE)


@pytest.fixture
def make_step(tmp_path: Path, shared_store: Path) -> Callable[..., HDF5CellExtraction]:
    """``make_step(filehandler, key=value, ...)``: a step that runs in this process unless told otherwise."""

    def make(filehandler: Any = None, *, overwrite: bool = False, **config: Any) -> HDF5CellExtraction:
        keys = {"threads": 1, "image_size": SIZE, "cache": str(tmp_path / "cache"), **config}
        handler = str(shared_store) if filehandler is None else filehandler
        return HDF5CellExtraction(keys, tmp_path / "out", overwrite=overwrite, filehandler=handler)

    return make


MakeStep = Callable[..., HDF5CellExtraction]


def expected(sample: Sample, size: int = SIZE, quantiles: Any = RANGE) -> tuple[NDArray, NDArray, NDArray]:
    masks = [sample.masks[name] for name in (NUCLEUS, CYTOSOL) if name in sample.masks]
    return restatement.extract(masks, sample.image, size, quantiles)


def check(step: HDF5CellExtraction, sample: Sample, size: int = SIZE, quantiles: Any = RANGE) -> None:
    """The step's file holds the cells and the numbers that the restatement gives."""
    ids, removed, stamps = expected(sample, size, quantiles)
    assert step.output_path is not None
    data = read_h5sc(step.output_path)
    by_id = np.argsort(data.obs["scportrait_cell_id"].to_numpy())  # rows of stores follow the slide
    assert data.obs["scportrait_cell_id"].to_numpy()[by_id].tolist() == ids.tolist()
    assert restatement.same_bits(data.obsm["single_cell_images"][:][by_id], stamps)
    assert removed_ids(step) == removed.tolist()


def removed_ids(step: HDF5CellExtraction) -> list[int]:
    path = Path(str(step.output_path))
    text = path.with_name(removed_name(path.name)).read_text()
    assert text.endswith("\n") or not text
    return [int(line) for line in text.splitlines()]


def logged(step: HDF5CellExtraction, name: str = "processing.log") -> str:
    return (Path(step.directory) / name).read_text()


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def contents_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder)}


def chunks(path: str | Path) -> list[tuple[Any, bytes]]:
    """Every stored chunk of the stamps as it is in the file: place, filter mask, bytes."""
    with h5py.File(path) as file:
        images = file["obsm/single_cell_images"]
        places = [(cell, 0, 0, 0) for cell in range(len(images))]
        return [(place, *images.id.read_direct_chunk(place)) for place in places]


# --- the numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [None, NUCLEUS, CYTOSOL], ids=["two masks", "nucleus only", "cytosol only"])
@pytest.mark.parametrize("multiscale", [False, True], ids=["single-scale", "multi-scale"])
def test_values_are_those_of_the_plain_restatement(
    tmp_path: Path, make_step: MakeStep, mask: str | None, *, multiscale: bool
) -> None:
    sample = SAMPLE if mask is None else SAMPLE.only(mask)
    step = make_step(write_store(tmp_path / "s.zarr", sample, multiscale=multiscale))
    step()
    check(step, sample)
    with h5py.File(step.output_path) as file:
        assert file["var/channels"].asstr()[:].tolist() == [*sample.masks, "dna", "actin", "tubulin"]


def test_not_normalised(make_step: MakeStep) -> None:
    step = make_step(normalize_output="None")
    step()
    check(step, SAMPLE, quantiles=None)


def test_other_quantiles_and_another_size(make_step: MakeStep) -> None:
    step = make_step(normalization_range=[0.3, 0.9], image_size=10)
    with pytest.warns(UserWarning, match="69 of 69 cells exceed their crop of 10 x 10 pixels"):
        step()
    check(step, SAMPLE, size=10, quantiles=(0.3, 0.9))


LABEL_TYPES = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]


@pytest.mark.once
@pytest.mark.parametrize("dtype", LABEL_TYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_any_integer_type_of_labels(tmp_path: Path, make_step: MakeStep, dtype: Any) -> None:
    sample = SAMPLE.with_types(dtype, np.uint16)
    step = make_step(write_store(tmp_path / "s.zarr", sample))
    step()
    check(step, sample)


@pytest.mark.once
@pytest.mark.parametrize("dtype", [np.uint8, np.uint32], ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("quantiles", [RANGE, None], ids=["normalised", "raw"])
def test_other_types_of_image(tmp_path: Path, make_step: MakeStep, dtype: Any, quantiles: Any) -> None:
    """Without normalisation, channels are divided by the largest value of the image's own type."""
    sample = SAMPLE.with_types(np.uint32, dtype)
    step = make_step(write_store(tmp_path / "s.zarr", sample), normalize_output=quantiles is not None)
    step()
    check(step, sample, quantiles=quantiles)


@pytest.mark.once
@pytest.mark.parametrize("n_channels", [1, 12])
def test_any_number_of_channels(tmp_path: Path, make_step: MakeStep, n_channels: int) -> None:
    sample = make_sample((90, 100), n_channels=n_channels)
    step = make_step(write_store(tmp_path / "s.zarr", sample), threads=1)
    step()
    check(step, sample)


def test_ids_near_the_largest_with_gaps(tmp_path: Path, make_step: MakeStep) -> None:
    """Memory goes by the number of cells: a table of 2**63 entries could not be had."""
    n = int(SAMPLE.masks[NUCLEUS].max())
    ids = np.uint64(2**63 - 1) - np.arange(n, dtype=np.uint64)[::-1] ** np.uint64(9)
    ids[:5] = [1, 300, 70_000, 2**32, 2**53 + 1]
    sample = SAMPLE.with_ids(ids)
    step = make_step(write_store(tmp_path / "s.zarr", sample))
    step()
    check(step, sample)
    assert max(int(cell) for cell in expected(sample)[0]) > 2**62


def test_unrounded_centres_are_in_the_file(make_step: MakeStep) -> None:
    step = make_step()
    step()
    ids, xy = restatement.centers(SAMPLE.masks[NUCLEUS])
    with h5py.File(step.output_path) as file:
        kept = np.isin(ids, file["obs/scportrait_cell_id"][:])
        assert np.allclose(file["obsm/spatial"][:], xy[kept], rtol=0, atol=1e-9)


@pytest.mark.parametrize(("image_chunk", "label_chunk"), [((64, 64), (50, 200)), ((17, 300), (128, 16))])
def test_image_and_labels_chunked_differently(
    tmp_path: Path, make_step: MakeStep, image_chunk: tuple[int, int], label_chunk: tuple[int, int]
) -> None:
    store = write_store(tmp_path / "s.zarr", SAMPLE)
    rechunk(store, "images/input_image", image_chunk)
    rechunk(store, f"labels/{NUCLEUS}", label_chunk)
    rechunk(store, f"labels/{CYTOSOL}", (33, 44))
    step = make_step(store)
    step()
    check(step, SAMPLE)


def test_long_and_integer_channel_names(tmp_path: Path, make_step: MakeStep) -> None:
    for number, names in enumerate((["a name of more than fifteen characters", "b", "c"], [0, 1, 2])):
        sample = Sample(SAMPLE.image, SAMPLE.only(NUCLEUS).masks, list(names))
        step = make_step(write_store(tmp_path / f"{number}.zarr", sample), overwrite=True)
        step()
        with h5py.File(step.output_path) as file:
            assert file["var/channels"].asstr()[1:].tolist() == [str(name) for name in names]


# --- identical whatever the way --------------------------------------------------------------------------------------

WAYS: dict[str, dict[str, Any]] = {
    "batches of 1": {"max_batch_size": 1},
    "batches of 7": {"max_batch_size": 7},
    "2 workers": {"threads": 2, "max_batch_size": 7},
    "3 workers": {"threads": 3, "max_batch_size": 1},
    "2 workers, large batches": {"threads": 2},
    "serial": {"threads": 3, "engine": "serial"},
}


@pytest.fixture(scope="module")
def serial_result(tmp_path_factory: pytest.TempPathFactory, shared_store: Path) -> list[tuple[Any, bytes]]:
    folder = tmp_path_factory.mktemp("serial")
    keys = {"threads": 1, "image_size": SIZE, "cache": str(folder / "cache"), "max_batch_size": 1000}
    step = HDF5CellExtraction(keys, folder / "out", filehandler=str(shared_store))
    step()
    check(step, SAMPLE)
    return chunks(str(step.output_path))


@pytest.mark.once
@pytest.mark.parametrize("way", WAYS)
def test_stored_bytes_are_the_same_for_any_workers_and_batches(
    make_step: MakeStep, serial_result: list[tuple[Any, bytes]], way: str
) -> None:
    step = make_step(**WAYS[way])
    step()
    assert chunks(str(step.output_path)) == serial_result


@pytest.mark.parametrize(("chunk", "threads"), [(64, 2), (500, 1), (5000, 2)])
def test_stored_bytes_are_the_same_for_any_input_chunks(
    tmp_path: Path, make_step: MakeStep, serial_result: list[tuple[Any, bytes]], chunk: int, threads: int
) -> None:
    store = write_store(tmp_path / "s.zarr", SAMPLE)
    for element in ("images/input_image", f"labels/{NUCLEUS}", f"labels/{CYTOSOL}"):
        rechunk(store, element, (chunk, chunk))
    source = find_source(store)
    assert {source.image.chunks[1:], *(mask.chunks for mask in source.masks)} == {(chunk, chunk)}
    step = make_step(store, threads=threads, max_batch_size=7)
    step()
    assert chunks(str(step.output_path)) == serial_result


@pytest.mark.parametrize("compression", [True, "gzip", False])
def test_compression(make_step: MakeStep, compression: Any) -> None:
    step = make_step(compression=compression)
    step()
    check(step, SAMPLE)
    names = {True: "lzf", "gzip": "gzip", False: None}
    with h5py.File(step.output_path) as file:
        images = file["obsm/single_cell_images"]
        assert images.compression == names[compression]
        assert images.attrs["compression"] == str(names[compression])
        assert (images.id.get_storage_size() < images.nbytes / 2) == bool(compression)


# --- what it reads from ----------------------------------------------------------------------------------------------


def path_text(store: Path) -> Any:
    return str(store)


def path_object(store: Path) -> Any:
    return store


def handler(store: Path) -> Any:
    return SimpleNamespace(sdata_path=str(store))


def sdata_on_disk(store: Path) -> Any:
    from cellstamp.source.load.store import open_sdata

    return open_sdata(store)


def sdata_in_memory(store: Path) -> Any:
    del store
    return as_spatialdata(SAMPLE)


@pytest.mark.parametrize("make", [path_text, path_object, handler, sdata_on_disk, sdata_in_memory])
@pytest.mark.parametrize("threads", [1, 2])
def test_without_a_project(
    tmp_path: Path, shared_store: Path, make_step: MakeStep, make: Callable[[Path], Any], threads: int
) -> None:
    step = make_step(make(shared_store), threads=threads)
    step()
    check(step, SAMPLE)
    assert list((tmp_path / "cache").iterdir()) == []


def test_nothing_goes_into_the_cache_for_input_on_disk(tmp_path: Path, shared_store: Path) -> None:
    step = HDF5CellExtraction(
        {"threads": 1, "image_size": SIZE, "cache": str(tmp_path / "cache")}, tmp_path / "out", filehandler=shared_store
    )
    step.deep_debug = True  # the folder for temporary files is kept
    step()
    (kept,) = (tmp_path / "cache").iterdir()
    assert list(kept.iterdir()) == []
    kept.rmdir()


def test_centres_are_stored_for_the_next_time_and_used(tmp_path: Path, make_step: MakeStep) -> None:
    store = write_store(tmp_path / "s.zarr", SAMPLE)
    step = make_step(store, store_centers="always")
    step()
    assert (store / "points" / f"centers_{NUCLEUS}").is_dir()
    assert "computing them" in logged(step)
    (Path(step.directory) / "processing.log").unlink()
    step(overwrite=True)
    assert "computing them" not in logged(step)
    check(step, SAMPLE)


def test_a_store_that_cannot_be_written_is_read_all_the_same(tmp_path: Path, make_step: MakeStep) -> None:
    store = write_store(tmp_path / "s.zarr", SAMPLE)
    (store / "points").write_text("in the way of a folder: permissions would not stop everyone")
    step = make_step(store)
    step()
    assert "did not store the centres" in logged(step)
    check(step, SAMPLE)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda: None, r"filehandler is NoneType; it must be the path of a SpatialData zarr store"),
        (lambda: 5, r"filehandler is int; it must be"),
        (lambda: "nowhere.zarr", r"nowhere\.zarr does not exist in "),
    ],
)
def test_a_file_handler_that_is_none(tmp_path: Path, spoil: Callable[[], Any], message: str) -> None:
    keys = {"threads": 1, "image_size": SIZE, "cache": str(tmp_path / "cache")}
    with pytest.raises(InputError, match=message):
        HDF5CellExtraction(keys, tmp_path / "out", filehandler=spoil())()


def test_masks_by_name(tmp_path: Path, make_step: MakeStep) -> None:
    sample = Sample(SAMPLE.image, {"my_nucleus": SAMPLE.masks[NUCLEUS], "other": SAMPLE.masks[CYTOSOL]})
    store = write_store(tmp_path / "s.zarr", sample)
    with pytest.raises(InputError, match=r"no labels named seg_all_nucleus or seg_all_cytosol in .*my_nucleus, other"):
        make_step(store)()
    make_step(store, segmentation_mask="my_nucleus")()
    with pytest.warns(
        UserWarning, match="'other': the name contains neither 'nucleus' nor 'cytosol'. It is used as the cytosol mask"
    ):
        make_step(store, segmentation_mask="other", overwrite=True)()
    with pytest.raises(ConfigError, match=r"segmentation_mask = .*nucleus.*cytosol"):
        make_step(store, segmentation_mask=["my_nucleus", "other"], overwrite=True)()
    with pytest.raises(InputError, match=r"no labels named 'third'.*my_nucleus, other"):
        make_step(store, segmentation_mask="third", overwrite=True)()


def test_masks_of_another_size_are_refused(tmp_path: Path, make_step: MakeStep) -> None:
    sample = Sample(SAMPLE.image, {NUCLEUS: SAMPLE.masks[NUCLEUS][:-1]})
    with pytest.raises(
        InputError, match=r"200 x 230 pixels \(y, x\).*199 x 230.*the same pixels, or transformations that place them"
    ):
        make_step(write_store(tmp_path / "s.zarr", sample))()


def test_stored_centres_of_labels_that_were_replaced_are_computed_again(tmp_path: Path, make_step: MakeStep) -> None:
    store = write_store(tmp_path / "s.zarr", SAMPLE)
    stored = partial(make_step, store, store_centers="always", overwrite=True)
    stored()()
    stored()()
    assert logged(stored()).count("computing them") == 1

    others = make_sample(seed=1)
    group: Any = zarr.open_group(str(store / "labels"), mode="r+")
    for name, mask in others.masks.items():
        array = next(iter(group[name].arrays()))[1]
        array[...] = mask
    step = stored()
    step()
    check(step, Sample(SAMPLE.image, others.masks))
    assert f"the stored centres of '{NUCLEUS}' are out of date: the labels have changed" in logged(step)
    stored()()
    assert logged(step).count("computing them") == 2


def test_stored_centres_that_do_not_say_what_they_are_of_are_taken_as_they_are(
    tmp_path: Path, make_step: MakeStep
) -> None:
    store = write_store(tmp_path / "s.zarr", SAMPLE)
    labels = find_labels(store, NUCLEUS)
    moved = compute_centers(labels)
    store_centers(store, NUCLEUS, Centers(moved.ids, np.round(moved.xy)))
    step = make_step(store)
    step()
    assert not (read_h5sc(step.output_path).obsm["spatial"] % 1).any()


# --- which cells -----------------------------------------------------------------------------------------------------


def test_the_border_is_more_than_half_a_window_away(tmp_path: Path, make_step: MakeStep) -> None:
    nucleus = np.zeros((100, 120), np.uint32)
    places = [(50, 16), (51, 17), (52, 103), (53, 104), (16, 50), (17, 51), (83, 52), (84, 53)]
    for cell, place in enumerate(places, start=1):
        nucleus[place] = cell
    sample = Sample(SAMPLE.image[:, :100, :120], {NUCLEUS: nucleus})
    step = make_step(write_store(tmp_path / "s.zarr", sample))
    step()
    check(step, sample)
    assert removed_ids(step) == [1, 4, 5, 8]


def test_partial_extracts_exactly_so_many_into_a_folder_of_its_own(make_step: MakeStep) -> None:
    step = make_step()
    step()
    full = Path(str(step.output_path)).read_bytes()
    ids, removed, stamps = expected(SAMPLE)
    for n, seed in ((10, 42), (10, 7), (len(ids), 42)):
        step(partial=True, n_cells=n, seed=seed)
        path = Path(step.directory) / f"partial_data_ncells_{n}_seed_{seed}" / "single_cells.h5sc"
        assert step.output_path == str(path)
        chosen = np.sort(np.random.default_rng(seed).choice(ids, n, replace=False))
        with h5py.File(path) as file:
            assert file["obs/scportrait_cell_id"][:].tolist() == chosen.tolist()
            assert restatement.same_bits(file["obsm/single_cell_images"][:], stamps[np.isin(ids, chosen)])
        assert removed_ids(step) == removed.tolist()
    # the full run is still there, and where the step says
    assert Path(step.extraction_file).read_bytes() == full


def test_the_seed_of_a_partial_run_is_42_unless_given(make_step: MakeStep) -> None:
    step = make_step()
    step(partial=True, n_cells=5)
    assert Path(str(step.output_path)).parent.name == "partial_data_ncells_5_seed_42"


def test_a_folder_name_for_the_results(make_step: MakeStep) -> None:
    step = make_step()
    step(output_folder_name="mine")
    assert step.output_path == str(Path(step.directory) / "mine" / "single_cells.h5sc")
    step(partial=True, n_cells=3, output_folder_name="mine")
    assert Path(str(step.output_path)).parent.name == "partial_mine_ncells_3_seed_42"
    assert not Path(step.extraction_file).exists()


@pytest.mark.parametrize("name", ["", "a/b", "/abs", "..", "."])
def test_a_folder_name_that_leads_elsewhere_is_refused(make_step: MakeStep, name: str) -> None:
    with pytest.raises(ConfigError, match=r"output_folder_name = .*must be the name of a folder inside"):
        make_step()(output_folder_name=name)


@pytest.mark.parametrize("n_cells", [None, 0, -3, 2.5, True, "5"])
def test_a_partial_run_without_a_usable_number_of_cells(make_step: MakeStep, n_cells: Any) -> None:
    step = make_step()
    n = len(expected(SAMPLE)[0])
    message = rf"needs n_cells, an integer from 1 to {n} .*got {re.escape(repr(n_cells))}"
    with pytest.raises(ConfigError, match=message):
        step(partial=True, n_cells=n_cells)
    step()
    with pytest.raises(ConfigError, match=message):  # and not that the full run is in the way
        step(partial=True, n_cells=n_cells)


def test_a_partial_run_of_more_cells_than_there_are(make_step: MakeStep) -> None:
    n = len(expected(SAMPLE)[0])
    with pytest.raises(ConfigError, match=rf"n_cells = {n + 1} is more than the {n} cells that can be extracted"):
        make_step()(partial=True, n_cells=n + 1)


@pytest.mark.parametrize("partial", [False, True])
def test_nothing_left_to_extract_is_a_warning_and_no_file(
    tmp_path: Path, make_step: MakeStep, *, partial: bool
) -> None:
    image = SAMPLE.image[:, :40, :40]
    sample = Sample(image, {name: mask[:40, :40] for name, mask in SAMPLE.masks.items()})
    step = make_step(write_store(tmp_path / "s.zarr", sample), image_size=40)
    with pytest.warns(UserWarning, match=r"no cell can be extracted: none of the \d+ cells of 'seg_all_nucleus' is mo"):
        step(partial=partial, n_cells=5 if partial else None)
    log = "partial_processing.log" if partial else "processing.log"
    assert "no cell can be extracted" in logged(step, log)
    assert files(tmp_path / "out") == {log}
    assert step.output_path is None


def test_a_mask_without_cells(tmp_path: Path, make_step: MakeStep) -> None:
    sample = Sample(SAMPLE.image, {NUCLEUS: np.zeros_like(SAMPLE.masks[NUCLEUS])})
    message = (
        r"no cell can be extracted: the mask 'seg_all_nucleus' in .* is empty \(no cells at all\)\. "
        "No file was written$"
    )
    with pytest.warns(UserWarning, match=message):
        make_step(write_store(tmp_path / "s.zarr", sample))()


def test_a_cell_without_pixels_in_the_cell_mask_is_extracted_and_counted(tmp_path: Path, make_step: MakeStep) -> None:
    ids, _, _ = expected(SAMPLE)
    cytosol = SAMPLE.masks[CYTOSOL].copy()
    cytosol[np.isin(cytosol, ids[3:6])] = 0
    sample = Sample(SAMPLE.image, {NUCLEUS: SAMPLE.masks[NUCLEUS], CYTOSOL: cytosol})
    step = make_step(write_store(tmp_path / "s.zarr", sample), threads=2, max_batch_size=4)
    with pytest.warns(UserWarning, match="no pixel of 'seg_all_cytosol'") as caught:
        step()
    told = [str(w.message) for w in caught if "too close to the image border" not in str(w.message)]
    assert [line.startswith(f"3 of {len(ids)} cells") for line in told] == [True]
    check(step, sample)
    with h5py.File(step.output_path) as file:
        images = file["obsm/single_cell_images"]
        assert images[3:6, 0].any(axis=(1, 2)).all()
        assert not images[3:6, 1:].any()
    assert "3 of" in logged(step)


# --- refused before any work -----------------------------------------------------------------------------------------

FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"image_size": 31}, r"image_size = 31: must be an even integer >= 2"),
    ({"threads": "4"}, r"threads = '4': must be an integer >= 1 \(got a str\)"),
    ({"normalization_range": [0.9, 0.1]}, r"normalization_range = \[0\.9, 0\.1\]: must be two numbers with 0 <= lower"),
    ({"imagesize": 4}, r"imagesize = 4: unknown key; did you mean 'image_size'\?"),
    ({"compression": "zip"}, r"compression = 'zip': must be True or \"lzf\", \"gzip\", or False"),
    ({"flush_every": 0}, r"flush_every = 0: must be an integer >= 1"),
    ({"engine": "cluster"}, r"engine = 'cluster': must be \"serial\", \"processes\", \"dask\""),
]


@pytest.mark.once
@pytest.mark.parametrize(("fault", "message"), FAULTS, ids=[next(iter(fault)) for fault, _ in FAULTS])
def test_a_fault_of_the_configuration_is_told_before_any_work(
    tmp_path: Path, make_step: MakeStep, fault: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_step("not even looked at", **fault)()
    assert files(tmp_path) <= {"out/processing.log"}


def test_all_faults_are_told_at_once(make_step: MakeStep) -> None:
    faults = {key: value for fault, _ in FAULTS for key, value in fault.items()}
    with pytest.raises(ConfigError, match=f"{len(faults)} errors") as caught:
        make_step(**faults)()
    for _, message in FAULTS:
        assert re.search(message, str(caught.value)), message


def test_crops_larger_than_the_image(tmp_path: Path, make_step: MakeStep) -> None:
    with pytest.raises(ConfigError, match=r"image_size = 202: .*larger than the image, which is 200 x 230 pixels"):
        make_step(image_size=202)()
    assert files(tmp_path) <= {"out/processing.log"}


@pytest.mark.parametrize("size", [230, 232])
def test_padded_crops_larger_than_the_image_are_a_warning(make_step: MakeStep, size: int) -> None:
    """Such a crop is mostly padding, which takes time and space: the user meant another unit or size."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        make_step(image_size=size, border="pad", cells=[1])()
    found = [str(warning.message) for warning in told if "larger than the image" in str(warning.message)]
    expected = (
        rf"image_size = {size} is larger than the image, which is 200 x 230 pixels \(y, x\): 'input_image' in .*\. "
        "Single-cell images are then mostly padding. Choose a smaller image_size"
    )
    assert len(found) == (size > 230)
    assert all(re.fullmatch(expected, message) for message in found)


# --- results of earlier runs -----------------------------------------------------------------------------------------


def test_a_finished_result_of_other_settings_is_in_the_way(
    tmp_path: Path, make_step: MakeStep, file_format: str
) -> None:
    step = make_step(file_format=file_format)
    step()
    before = contents_of(tmp_path / "out/data")
    step.config["image_size"] += 2
    wanted = r"data already exists with different settings or input \(image_size: .*\)\. Set overwrite=True"
    with pytest.raises(OutputError, match=wanted):
        step()
    assert contents_of(tmp_path / "out/data") == before


@pytest.mark.once
@pytest.mark.parametrize(
    ("file_format", "how"),
    [("h5sc", "constructor"), ("h5sc", "call"), ("h5sc", "overwrite_run_path"), ("zarr", "constructor")],
    indirect=["file_format"],
)
def test_overwriting_replaces_the_runs_files_and_no_others(
    tmp_path: Path, make_step: MakeStep, how: str, file_format: str
) -> None:
    step = make_step(file_format=file_format)
    step()
    step(partial=True, n_cells=3)
    for name in ("data/notes.txt", "data/results/plot.png", "other/own.h5sc", "notes.txt"):
        (tmp_path / "out" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_text(name)
    before = {path for path in files(tmp_path / "out") if "/obsm/" not in path}  # shards
    name = NAMES[file_format]
    old = (tmp_path / "out/data" / name).stat().st_ino
    partial = contents(tmp_path / "out/partial_data_ncells_3_seed_42" / name)

    again = make_step(image_size=22, overwrite=how == "constructor", file_format=file_format)
    if how == "overwrite_run_path":
        again.overwrite_run_path = True
    again(overwrite=True if how == "call" else None)
    check(again, SAMPLE, size=22)
    assert {path for path in files(tmp_path / "out") if "/obsm/" not in path} == before
    assert (tmp_path / "out/data" / name).stat().st_ino != old
    assert (tmp_path / "out" / "notes.txt").read_text() == "notes.txt"
    assert (tmp_path / "out" / "data" / "results" / "plot.png").read_text() == "data/results/plot.png"
    assert contents(tmp_path / "out/partial_data_ncells_3_seed_42" / name) == partial


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:2 workers were killed")
@pytest.mark.parametrize(
    ("task", "threads", "message"),
    [
        (Failing, 1, r"a batch failed \(\d+ cells( of shard \d)?, ids \d+ to \d+\): KeyError: .*broken on purpose"),
        (Killed, 2, r"workers died while working on (cell 40|5 cells of shard \d+, .*) .*SIGKILL.* .*lower threads"),
    ],
    ids=["task fails", "worker killed"],
)
@pytest.mark.parametrize(
    ("file_format", "first"),
    [("h5sc", True), ("h5sc", False), ("zarr", False)],
    indirect=["file_format"],
    ids=["first run", "second run", "second run, zarr"],
)
def test_a_run_that_fails_leaves_the_old_result_and_nothing_of_its_own(
    tmp_path: Path,
    make_step: MakeStep,
    monkeypatch: pytest.MonkeyPatch,
    task: type[StampTask],
    threads: int,
    message: str,
    file_format: str,
    *,
    first: bool,
) -> None:
    if first:
        make_step().log("no result yet")
    else:
        make_step(file_format=file_format)()
    there = files(tmp_path / "out")
    before = contents_of(tmp_path / "out/data")
    monkeypatch.setattr("cellstamp.pipeline.job.StampTask", task)
    with pytest.raises(WorkerError, match=message):
        make_step(threads=threads, overwrite=True, max_batch_size=5, file_format=file_format)()
    assert contents_of(tmp_path / "out/data") == before
    assert {path for path in files(tmp_path / "out") if not path.startswith(".unfinished_data")} == there
    assert list((tmp_path / "cache").iterdir()) == []
    monkeypatch.undo()
    step = make_step(overwrite=True, threads=threads, file_format=file_format)
    step()  # what was finished is gone on with
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"data", "processing.log", "benchmarking.csv"}
    check(step, SAMPLE)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_damaged_chunk_is_an_error_naming_array_and_place(tmp_path: Path, make_step: MakeStep, threads: int) -> None:
    store = write_store(tmp_path / "s.zarr", SAMPLE)
    chunks = [path for path in (store / "images/input_image").rglob("*") if path.is_file() and path.suffix != ".json"]
    assert len(chunks) == 3 * 4 * 4
    for chunk in chunks:
        chunk.write_bytes(b"\xff" * 10)
    with pytest.raises(
        InputError, match=r"'input_image' cannot be read: images/input_image/\S+ in .*s\.zarr, rows \d+ to"
    ):
        make_step(store, threads=threads)()
    assert files(tmp_path / "out") == {"processing.log"}


def test_what_an_interrupted_run_left_does_not_matter(tmp_path: Path, make_step: MakeStep) -> None:
    left = tmp_path / "out" / ".unfinished_data"
    left.mkdir(parents=True)
    (left / "single_cells.h5sc").write_text("half of a file")
    step = make_step()
    step()
    check(step, SAMPLE)
    assert not left.exists()


# --- what a run tells ------------------------------------------------------------------------------------------------


def test_the_log_of_a_run(make_step: MakeStep) -> None:
    step = make_step(threads=2, max_batch_size=5)
    step()
    log = logged(step)
    ids, removed, _ = expected(SAMPLE)
    assert "image: input_image, (3, 200, 230) (c, y, x), uint16" in log
    assert f"masks: {NUCLEUS}, {CYTOSOL}" in log
    assert f"removed at the border: {removed.size}" in log
    assert f"to extract: {len(ids)}" in log
    assert re.search(r"in-flight limit \d+ batches: budget .* MiB, this process .* MiB, 2 workers .* MiB, largest", log)
    counts = (
        rf"Extracted {len(ids)} of {ids.size + removed.size} cells \({removed.size} too close to the image border\)"
    )
    assert re.search(counts + r" -> .*single_cells\.h5sc \(", log)


def test_the_serial_engine_calibrates_too_whatever_threads_says(make_step: MakeStep) -> None:
    step = make_step(threads=4, engine="serial", max_batch_size=5)
    step()
    assert "in-flight limit" in logged(step)


def test_a_partial_run_has_a_log_of_its_own(make_step: MakeStep) -> None:
    step = make_step()
    step(partial=True, n_cells=3)
    assert "Extracted 3 of " in logged(step, "partial_processing.log")
    assert not (Path(step.directory) / "processing.log").exists()
    step()
    assert "Extracted " in logged(step)
    assert logged(step, "partial_processing.log").count("Extracted ") == 1


def test_the_log_is_appended_to(make_step: MakeStep) -> None:
    make_step()()
    make_step(overwrite=True)()
    assert logged(make_step()).count("Extracted ") == 2


def test_a_row_for_each_run_in_the_table_of_runs(make_step: MakeStep) -> None:
    step = make_step(max_batch_size=7)
    step()
    step(partial=True, n_cells=3)
    with (Path(step.directory) / "benchmarking.csv").open() as file:
        full, partial = csv.DictReader(file)
    ids, removed, _ = expected(SAMPLE)
    told = {key: full[key] for key in ("file", "image_height", "image_width", "masks", "crop_size", "workers")}
    assert told == {
        "file": "data/single_cells.h5sc",
        "image_height": "200",
        "image_width": "230",
        "masks": "2",
        "crop_size": str(SIZE),
        "workers": "1",
    }
    assert (full["cells_kept"], full["cells_removed"]) == (str(len(ids)), str(removed.size))
    assert 1 <= int(full["batch_size"]) <= 7
    assert float(full["total_s"]) >= float(full["extracting_s"]) > 0
    assert int(full["peak_rss_bytes"]) > 2**20
    assert partial["cells_kept"] == "3"
    assert partial["file"] == "partial_data_ncells_3_seed_42/single_cells.h5sc"


@pytest.mark.once
def test_one_line_where_there_is_no_terminal(make_step: MakeStep, capfd: pytest.CaptureFixture[str]) -> None:
    make_step(threads=2)()
    out, err = capfd.readouterr()
    assert (out.startswith("Extracted "), out.count("\n"), err) == (True, 1, "")


@pytest.mark.once
def test_silent_without_progress(make_step: MakeStep, capfd: pytest.CaptureFixture[str]) -> None:
    make_step(threads=2, progress=False)()
    assert capfd.readouterr() == ("", "")


@pytest.mark.once
def test_a_bar_and_a_closing_line_when_asked_for(make_step: MakeStep, capfd: pytest.CaptureFixture[str]) -> None:
    step = make_step(progress=True)
    step()
    out, err = capfd.readouterr()
    n = len(expected(SAMPLE)[0])
    assert out.startswith(f"Extracted {n} of ")
    assert str(step.output_path) in out
    assert f"{n}/{n}" in err


def test_overrides_of_flushing_and_of_the_limit(make_step: MakeStep) -> None:
    step = make_step(threads=2, max_batch_size=10, flush_every=1, max_inflight_result_batches=1)
    step()
    check(step, SAMPLE)
    assert "in-flight limit" not in logged(step)  # nothing to calibrate


@pytest.mark.once
@pytest.mark.parametrize(("config", "n_flushes"), [({"flush_every": 2}, 5), ({"max_inflight_result_batches": 3}, 3)])
def test_written_data_reaches_the_disk_every_so_many_batches(
    make_step: MakeStep, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], n_flushes: int
) -> None:
    """``flush_every`` as given; else as often as so many batches have been written as may be in flight."""
    flushed = []

    class Counting(StampWriter):
        def flush(self) -> None:
            flushed.append(self)
            super().flush()

    monkeypatch.setattr("cellstamp.h5sc.unfinished.StampWriter", Counting)
    make_step(max_batch_size=4, **config)()
    n_batches = -(-len(expected(SAMPLE)[0]) // 4)
    assert n_batches == 11
    assert len(flushed) == n_flushes + 1  # once more at the end


def test_a_budget_that_is_too_small_is_warned_of_and_the_run_goes_on(make_step: MakeStep) -> None:
    step = make_step(target_ram_utilization=50 * 2**20 / memory_limit())
    with pytest.warns(UserWarning, match=r"memory budget of .* is too small for one batch .*[Ll]ower threads"):
        step()
    check(step, SAMPLE)
    assert "is too small for one batch" in logged(step)


def test_the_result_is_read_back_lazily(make_step: MakeStep) -> None:
    step = make_step()
    step()
    data = read_h5sc(str(step.output_path))
    images = data.obsm["single_cell_images"]
    assert isinstance(images, h5py.Dataset)
    assert restatement.same_bits(images[2:4], expected(SAMPLE)[2][2:4])
    images.file.close()
