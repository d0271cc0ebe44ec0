"""Positions read from HDF5's index are those that HDF5 gives, also after other programs have changed a file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellstamp import iter_batches
from cellstamp.h5sc.chunk_table import read_chunk_table
from cellstamp.system import RawFile
from examples import examples
from stamp_files import IMAGES, layout_of, write_file

N_CELLS = 40


def table_of(path: Path, name: str = IMAGES) -> list[tuple[int, int, bool]] | None:
    """Position, size and mark of each chunk from the table."""
    with h5py.File(path) as file, RawFile(path) as raw:
        table = read_chunk_table(file, file[name], raw)
    return None if table is None else list(zip(*(each.tolist() for each in table), strict=True))


def listed(path: Path, name: str = IMAGES) -> list[tuple[int, int, bool]]:
    """The same as HDF5 lists them."""
    with h5py.File(path) as file:
        images = file[name]
        steps = [range(0, side, chunk) for side, chunk in zip(images.shape, images.chunks, strict=True)]
        found = dict.fromkeys(np.ndindex(*map(len, steps)), (0, 0, False))

        def note(chunk: Any) -> None:
            place = tuple(np.floor_divide(chunk.chunk_offset, images.chunks).tolist())
            is_raw = bool(chunk.filter_mask) or images.compression is None
            found[place] = (chunk.byte_offset, chunk.size, is_raw)

        images.id.chunk_iter(note)
    return list(found.values())


def stored(table: list[tuple[int, int, bool]] | None) -> list[tuple[int, int, bool]]:
    """Entries of stored chunks; others have no meaning but their size of 0."""
    assert table is not None
    return [entry if entry[1] else (0, 0, False) for entry in table]


@pytest.mark.parametrize("compression", ["lzf", "gzip", None])
@pytest.mark.parametrize("n_cells", [3, N_CELLS, 1024, 1025, 2500])
def test_positions_of_our_files(tmp_path: Path, n_cells: int, compression: Any) -> None:
    """HDF5 divides the index into pages of 1,024 chunks."""
    write_file(tmp_path / "a.h5sc", layout_of(n_cells, size=4, compression=compression))
    assert stored(table_of(tmp_path / "a.h5sc")) == listed(tmp_path / "a.h5sc")


@examples(30)
@given(st.integers(2, 4000), st.integers(1, 5), st.sampled_from(["lzf", "gzip", None]), st.integers(0, 2**32))
def test_positions_of_files_with_missing_chunks(
    tmp_path_factory: pytest.TempPathFactory, n_cells: int, per_chunk: int, compression: Any, seed: int
) -> None:
    path, rng = tmp_path_factory.mktemp("table") / "a.h5", np.random.default_rng(seed)
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        images = file.create_dataset(
            "x", (n_cells, 5, 4, 4), "f2", chunks=(1, per_chunk, 4, 4), compression=compression
        )
        for k in range(5):  # moves the description of the dataset into a second block
            images.attrs[f"attribute {k}"] = "x" * 500
        for row in [0, *np.flatnonzero(rng.random(n_cells) < 0.02).tolist()]:
            images[row] = rng.random((5, 4, 4)) if row % 2 else 0.5
    assert stored(table_of(path, "x")) == listed(path, "x")


# --- files that other programs have changed ---------------------------------------------------------------------------


def _rewritten_chunks(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file[IMAGES][3] = file[IMAGES][5]
        file[IMAGES][7:9] = 0.25


def _swapped_planes(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file[IMAGES][:] = file[IMAGES][:][:, ::-1]


def _new_dataset(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        old = file[IMAGES]
        values, how = old[:][::-1], {"chunks": old.chunks, "compression": old.compression}
        del file[IMAGES]
        file.create_dataset(IMAGES, data=values, **how).attrs.update({"encoding-type": "array"})


def _copied_into_another_file(path: Path) -> None:
    """As h5repack does: the compressed chunks move to other places."""
    with h5py.File(path) as source, h5py.File(path.with_suffix(".new"), "w", libver=("v110", "v110")) as target:
        target["before"] = np.arange(3000)
        for name in source:
            source.copy(name, target)
    shutil.move(path.with_suffix(".new"), path)


def _written_by_anndata(path: Path) -> None:
    data = anndata.read_h5ad(path)
    data.write_h5ad(path.with_suffix(".new"), compression="gzip")
    shutil.move(path.with_suffix(".new"), path)


def _other_tables(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        obs = anndata.io.read_elem(file["obs"])
        del file["obs"]
        obs["number"] = np.arange(len(obs))
        anndata.io.write_elem(file, "obs", obs)


CHANGES = [
    _rewritten_chunks,
    _swapped_planes,
    _new_dataset,
    _copied_into_another_file,
    _written_by_anndata,
    _other_tables,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
@pytest.mark.parametrize("compression", ["lzf", None])
def test_images_of_a_file_that_was_changed_are_those_that_hdf5_reads(
    tmp_path: Path, compression: Any, change: Callable[[Path], None]
) -> None:
    path = tmp_path / "a.h5sc"
    write_file(path, layout_of(N_CELLS, compression=compression))
    change(path)
    with h5py.File(path) as file:
        expected = file[IMAGES][:]
    images = np.concatenate([images for images, _ in iter_batches(path, 7, dtype="float16")])
    assert np.array_equal(images, expected)
    some = np.concatenate([images for images, _ in iter_batches(path, 7, channels=["actin"], dtype="float16")])
    assert np.array_equal(some, expected[:, [3]])


def test_a_file_that_is_being_written_in_this_process_is_left_to_hdf5(tmp_path: Path) -> None:
    """Its index may be in memory only."""
    path = tmp_path / "a.h5sc"
    write_file(path, layout_of(N_CELLS))
    with h5py.File(path, "r+") as writing:
        writing[IMAGES][3] = 0.5
        assert table_of(path) is None
        images = next(iter_batches(path, N_CELLS, dtype="float16"))[0]
        assert (images[3] == 0.5).all()


@pytest.mark.parametrize("libver", ["earliest", "v108", "latest"])
def test_other_forms_of_the_index(tmp_path: Path, libver: str) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=libver) as file:
        file.create_dataset("x", data=np.ones((9, 2, 4, 4)), chunks=(1, 2, 4, 4), compression="lzf")
        file.create_dataset("growing", data=np.ones((9, 2)), chunks=(1, 2), maxshape=(None, 2))
        file.create_dataset("single", data=np.ones((1, 2)), chunks=(1, 2))
    for name in ("x", "growing", "single"):
        table = table_of(path, name)
        assert table is None or stored(table) == listed(path, name)


def damaged(path: Path, pattern: bytes, at: int) -> Path:
    """A copy with another byte behind a signature."""
    content = bytearray(path.read_bytes())
    content[content.index(pattern) + at] ^= 0xFF
    copy = path.with_name("damaged.h5sc")
    copy.write_bytes(content)
    return copy


@pytest.mark.parametrize("signature", [b"FAHD", b"FADB"])
@pytest.mark.parametrize("at", [4, 5, 6, 8, 16])
def test_an_index_that_cannot_be_read_is_left_to_hdf5(tmp_path: Path, signature: bytes, at: int) -> None:
    """HDF5 notices the damage by its checksum."""
    write_file(tmp_path / "a.h5sc", layout_of(N_CELLS))
    assert table_of(damaged(tmp_path / "a.h5sc", signature, at)) is None
