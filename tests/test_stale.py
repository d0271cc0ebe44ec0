"""What was computed or begun from an array is not used once the array has changed, wherever in it the change is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr

from cellstamp import HDF5CellExtraction
from cellstamp.errors import InputError, OutputError
from cellstamp.h5sc.reader import read_h5sc
from cellstamp.source.find.cell_centers import find_centers
from cellstamp.source.find.elements import find_labels
from cellstamp.source.load.store import open_sdata, store_centers
from cellstamp.source.points import load_centers
from cellstamp.source.read.arrays import ArrayHandle
from cellstamp.source.read.centers import compute_centers
from cellstamp.source.values import Centers
from conftest import write_store
from outlined import placed, polygons_of, write_outlined
from stamp_tasks import Refused
from stores import NUCLEUS, Sample

CHUNK = 10
SIDE = 200
IDS = np.arange(5, 5 + (SIDE // CHUNK) ** 2, dtype=np.uint32)[::-1].reshape(SIDE // CHUNK, -1)
"""One cell in the middle of each chunk: 400 chunks, more than are sampled. `Refused` stops at cell 40, late in them."""

MakeStep = Callable[..., HDF5CellExtraction]
CONFIG = {"threads": 1, "image_size": 16, "max_batch_size": 20, "flush_every": 1}


def cells_mask() -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), np.uint32)
    for dy in range(4, 7):
        mask[dy::CHUNK, 5::CHUNK] = mask[dy::CHUNK, 6::CHUNK] = IDS
    return mask


IMAGE = np.random.default_rng(0).integers(1, 2000, (2, SIDE, SIDE)).astype(np.uint16)


@pytest.fixture(params=[2, 3], ids=["zarr 2", "zarr 3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "s.zarr"
    return write_store(path, IMAGE, {NUCLEUS: cells_mask()}, chunks=CHUNK, zarr_format=request.param)


@pytest.fixture
def make_step(tmp_path: Path) -> MakeStep:
    def make(handler: Any, *, overwrite: bool = True) -> HDF5CellExtraction:
        keys = {**CONFIG, "cache": str(tmp_path / "cache"), "store_centers": "always"}
        return HDF5CellExtraction(keys, tmp_path / "out", overwrite=overwrite, filehandler=handler)

    return make


def log_of(step: HDF5CellExtraction) -> str:
    return (Path(step.directory) / "processing.log").read_text()


def ids_in(step: HDF5CellExtraction) -> set[int]:
    return set(read_h5sc(step.output_path).obs["scportrait_cell_id"])


def array_of(store: Path, element: str = f"labels/{NUCLEUS}") -> Any:
    return next(iter(zarr.open_group(str(store / element), mode="r+").arrays()))[1]


def exchange(store: Path, row: int, column: int, cell: int) -> None:
    """Give the cell of one chunk another id."""
    area = np.s_[row * CHUNK : (row + 1) * CHUNK, column * CHUNK : (column + 1) * CHUNK]
    array = array_of(store)
    array[area] = np.where(array[area] > 0, cell, 0).astype(np.uint32)


def found(store: Path, log: list[object]) -> Centers:
    """The centres that an extraction uses, and stores."""
    return find_centers(find_labels(store, NUCLEUS), None, compute=compute_centers, write=store_centers, log=log.append)


def n_computed(log: list[object]) -> int:
    return str(log).count("computing them")


def test_a_change_of_any_chunk_makes_centres_stale(store: Path) -> None:
    log: list[object] = []
    found(store, log)
    for row, column in [(3, 4), (7, 11), (12, 2)]:
        gone, new = int(IDS[row, column]), 1000 + int(IDS[row, column])
        exchange(store, row, column, new)
        assert {gone, new} & {*found(store, log).ids.tolist()} == {new}
        centers = load_centers(store, NUCLEUS)
        assert centers is not None
        assert new in centers.ids
    found(store, log)
    assert n_computed(log) == 4


def test_an_extraction_cuts_the_cells_of_a_changed_mask(store: Path, make_step: MakeStep) -> None:
    make_step(store)()
    exchange(store, 7, 11, 1000)
    step = make_step(store)
    step()
    assert {int(IDS[7, 11]), 1000} & ids_in(step) == {1000}
    make_step(store)()
    assert log_of(step).count("computing them") == 2


def test_a_change_while_centres_are_computed_makes_them_stale(store: Path) -> None:
    logged: list[object] = []

    def compute(labels: ArrayHandle) -> Centers:
        centers = compute_centers(labels)
        exchange(store, 3, 4, 1000)
        return centers

    find_centers(find_labels(store, NUCLEUS), None, compute=compute, write=store_centers, log=logged.append)
    assert 1000 in found(store, logged).ids


def chunk_files(handle: ArrayHandle) -> list[Path]:
    folder = Path(handle.store) / handle.path
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name[0] not in "z.")


def test_a_change_that_keeps_size_and_sampled_bytes_changes_the_signature(store: Path) -> None:
    signatures = []
    for number in range(3):
        handle = find_labels(store, NUCLEUS)
        signatures.append(handle.signature())
        os.utime(chunk_files(handle)[number], ns=(0, number + 1))
    assert len(set(signatures)) == 3


def test_what_is_no_chunk_does_not_change_the_signature(store: Path) -> None:
    handle = find_labels(store, NUCLEUS)
    before, folder = handle.signature(), Path(handle.store) / handle.path
    (folder / ".DS_Store").write_text("x")
    for path in folder.glob("*z*"):
        os.utime(path, ns=(0, 1))
    assert find_labels(store, NUCLEUS).signature() == before


def test_shards_are_looked_at_too(tmp_path: Path) -> None:
    sharded = zarr.create_array(
        str(tmp_path / "a.zarr"), name="labels", shape=(SIDE, SIDE), chunks=(5, 5), shards=(10, 10), dtype=np.uint32
    )
    sharded[...] = cells_mask()
    handle = ArrayHandle(str(tmp_path / "a.zarr"), "labels", "labels", (SIDE, SIDE), (5, 5), "uint32")
    before = handle.signature()
    sharded[75, 75] = 7
    assert handle.signature() != before


def test_a_copy_that_keeps_times_is_the_same(store: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(store, tmp_path / "copy.zarr")
    assert find_labels(copied, NUCLEUS).signature() == find_labels(store, NUCLEUS).signature()
    later = shutil.copytree(store, tmp_path / "later.zarr", copy_function=shutil.copyfile)
    one, other = find_labels(later, NUCLEUS), find_labels(store, NUCLEUS)
    assert one.signature() != other.signature()
    assert one.sample() == other.sample()


@pytest.mark.parametrize("old", ["digest of samples", "", 5])
def test_centres_with_a_signature_of_another_version_are_computed_again(store: Path, old: Any) -> None:
    log: list[object] = []
    found(store, log)
    points = store / f"points/centers_{NUCLEUS}"
    path = next(path for path in (points / "zarr.json", points / ".zattrs") if path.exists())
    content = json.loads(path.read_text())
    stated = content.get("attributes", content)
    stated["cellstamp"] = {"labels": find_labels(store, NUCLEUS).sample() if old == "digest of samples" else old}
    path.write_text(json.dumps(content))
    for _ in range(2):
        found(store, log)
        assert n_computed(log) == 2


# --- an interrupted run -----------------------------------------------------------------------------------------------


def interrupt(step: HDF5CellExtraction) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellstamp.pipeline.job.StampTask", Refused)
        with pytest.raises(InputError, match="on purpose"):
            step()


def brighten(store: Path) -> None:
    array_of(store, "images/input_image")[1, 33, 47] += 1


@pytest.mark.parametrize("change", [brighten, lambda store: exchange(store, 3, 4, 1065)], ids=["image", "mask"])
def test_a_run_does_not_resume_after_a_change_of_any_chunk(
    store: Path, make_step: MakeStep, change: Callable[[Path], None]
) -> None:
    interrupt(make_step(store, overwrite=False))
    change(store)
    step = make_step(store, overwrite=False)
    with pytest.raises(OutputError, match=r"(?s)digest \w+ -> .* digest \w+.*overwrite=True"):
        step()
    assert "continuing" not in log_of(step)
    make_step(store, overwrite=True)()
    assert "continuing" not in log_of(step)


def test_a_run_on_an_object_in_memory_resumes_unless_its_pixels_changed(store: Path, make_step: MakeStep) -> None:
    import dask.array

    sdata = open_sdata(store)
    mask = sdata.labels[NUCLEUS]
    mask.data = dask.array.from_array(mask.data.compute(), chunks=(CHUNK, CHUNK))
    interrupt(make_step(sdata, overwrite=False))
    pixels = mask.data.compute()
    changed = pixels.copy()
    changed[34:37, 45:47] = 1  # in one chunk of 400
    mask.data = dask.array.from_array(changed, chunks=(CHUNK, CHUNK))
    with pytest.raises(OutputError, match=r"(?s)digest \w+ -> .* digest \w+"):
        make_step(sdata, overwrite=False)()
    mask.data = dask.array.from_array(pixels, chunks=(CHUNK, CHUNK))
    step = make_step(sdata, overwrite=False)
    step()
    assert "Resuming: " in log_of(step)


def test_what_a_server_says_of_its_files_is_looked_at(store: Path) -> None:
    files = fsspec.filesystem("memory")
    files.put(str(store), "/stale.zarr", recursive=True)
    try:
        handle = find_labels("memory://stale.zarr", NUCLEUS)
        before = handle.signature()
        assert handle.signature() == before
        chunk = f"/stale.zarr/{chunk_files(find_labels(store, NUCLEUS))[133].relative_to(store)}"
        files.pipe_file(chunk, files.cat_file(chunk)[::-1])
        assert handle.signature() != before
    finally:
        files.rm("/stale.zarr", recursive=True)


def test_a_server_that_lists_nothing_leaves_the_metadata(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = fsspec.filesystem("memory")
    files.put(str(store), "/stale.zarr", recursive=True)

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("no listing")

    try:
        handle = find_labels("memory://stale.zarr", NUCLEUS)
        listed = handle.signature()
        monkeypatch.setattr(type(files), "find", refuse)
        assert handle.signature() not in {listed, ""}
    finally:
        monkeypatch.undo()
        files.rm("/stale.zarr", recursive=True)


# --- shapes whose position changed ------------------------------------------------------------------------------------


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """Nuclei and cells as shapes in two coordinate systems, of which ``fov`` is off by a scale."""
    from spatialdata.transformations import Identity, Scale

    sample = Sample(IMAGE, {NUCLEUS: cells_mask()}, ["dna", "actin"])
    nuclei = polygons_of(cells_mask())
    cells = placed(nuclei, {"global": Identity(), "fov": Scale([0.01, 0.01], axes=("x", "y"))})
    return write_outlined(tmp_path / "shapes.zarr", sample, {"nuclei": nuclei, "cells": cells})


@pytest.fixture
def make_shapes_step(tmp_path: Path) -> MakeStep:
    def make(store: Path, **keys: Any) -> HDF5CellExtraction:
        keys = {**CONFIG, "cytosol_shapes": "cells", "cache": str(tmp_path / "cache"), **keys}
        return HDF5CellExtraction(keys, tmp_path / "out", filehandler=store)

    return make


def move_cells(store: Path) -> None:
    """Move the cells by 2 pixels; their file and the nuclei stay."""
    from spatialdata.transformations import Translation, set_transformation

    sdata = open_sdata(store)
    set_transformation(sdata.shapes["cells"], Translation([2, 0], axes=("x", "y")), "global")
    sdata.write_transformations("cells")


@pytest.mark.parametrize("nuclei", [{"nucleus_shapes": "nuclei"}, {"nucleus_labels": NUCLEUS}], ids=str)
def test_a_file_is_not_up_to_date_after_the_second_shapes_moved(
    slide: Path, make_shapes_step: MakeStep, nuclei: dict[str, str]
) -> None:
    make_shapes_step(slide, **nuclei)()
    step = make_shapes_step(slide, **nuclei)
    step()
    assert "Up to date" in log_of(step)
    move_cells(slide)
    with pytest.raises(OutputError, match=r"different settings or input \(cells has changed\)"):
        make_shapes_step(slide, **nuclei)()


def test_a_file_is_not_up_to_date_in_another_coordinate_system(slide: Path, make_shapes_step: MakeStep) -> None:
    from spatialdata.transformations import Identity, set_transformation

    sdata = open_sdata(slide)
    for element in (sdata.images["input_image"], sdata.shapes["nuclei"]):
        set_transformation(element, {"global": Identity(), "fov": Identity()}, set_all=True)
    sdata.write_transformations()
    make_shapes_step(slide, nucleus_shapes="nuclei", coordinate_system="global")()
    with pytest.raises(OutputError, match=r"different settings or input \(cells has changed\)"):
        make_shapes_step(slide, nucleus_shapes="nuclei", coordinate_system="fov")()


@pytest.mark.leaves_files
def test_a_run_does_not_resume_after_the_second_shapes_moved(slide: Path, make_shapes_step: MakeStep) -> None:
    interrupt(make_shapes_step(slide, nucleus_shapes="nuclei"))
    move_cells(slide)
    with pytest.raises(OutputError, match=r"(?s)cells.*digest \w+ -> .* digest \w+.*overwrite=True"):
        make_shapes_step(slide, nucleus_shapes="nuclei")()
