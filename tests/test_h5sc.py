"""The file format: what is where, in which encoding, and that readers in use open it."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from cellstamp import read_h5sc
from cellstamp.checksums import checksum
from cellstamp.encoded_cells import EncodedCells
from cellstamp.encoding import StampEncoder
from cellstamp.errors import InputError, OutputError
from cellstamp.h5sc.layout import Layout
from cellstamp.h5sc.reader import describe_h5sc
from encoding import encoded
from writing import new_writer

IMAGES = "obsm/single_cell_images"
LONG = "a channel name of far more than fifteen characters, µm²"
NOBODY = np.zeros(0, np.int64)
LAYOUT = Layout(
    cell_ids=np.array([3, 70, 2**63 - 1], np.uint64),
    centers=np.array([[10.25, 20.5], [30.0, 40.125], [50.0, 60.0]]),
    mask_names=("seg_all_nucleus", "seg_all_cytosol"),
    channel_names=("DNA", LONG, "2"),
    image_size=16,
    normalization_ranges=((0.001, 0.999),) * 3,
    compression="lzf",
)


def make_stamps(layout: Layout) -> NDArray[np.float16]:
    """Random stamps, mostly zero; the planes of one cell are noise that no filter shrinks."""
    rng = np.random.default_rng(1)
    stamps = rng.integers(0, 4, layout.shape).astype(np.float16) / 4
    stamps[:, :, :5], stamps[:, :, 11:] = 0, 0
    noise = rng.integers(0, 2**16, layout.shape[1:]).astype(np.uint16)
    stamps[1] = noise.view(np.float16)
    return stamps


def write_file(path: Path, layout: Layout = LAYOUT) -> NDArray[np.float16]:
    """Write a whole file, its cells in two batches that are not in the order of the file; return the stamps."""
    stamps = make_stamps(layout)
    boxes = np.tile([0, layout.image_size, 0, layout.image_size], (*layout.shape[:2], 1))
    encoder = StampEncoder(layout.compression, layout.planes_per_chunk)
    with new_writer(path, layout) as writer:
        for rows in (np.array([2, 0]), np.array([1, *range(3, len(stamps))])):
            payload, sizes = encoded(encoder, np.ascontiguousarray(stamps[rows]).view(np.uint16), boxes[rows])
            n_empty = np.zeros(len(layout.mask_names), np.int64)
            writer.write(EncodedCells(rows, sizes, payload, checksum(payload), n_empty, NOBODY))
            writer.flush()
    return stamps


@pytest.mark.parametrize("n_cells", [3, 20, 96, 100])
def test_a_closed_file_keeps_no_space_that_was_reserved_for_it(tmp_path: Path, n_cells: int) -> None:
    """HDF5 truncates a file at the end of some of these, and of others not."""
    ids = np.arange(1, n_cells + 1, dtype=np.uint64)
    write_file(tmp_path / "f.h5sc", replace(LAYOUT, cell_ids=ids, centers=np.zeros((n_cells, 2))))
    status = (tmp_path / "f.h5sc").stat()
    assert status.st_blocks * 512 < status.st_size + 2**20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "single_cells.h5sc"
    write_file(path)
    return path


def variants() -> dict[str, Layout]:
    return {
        "two masks": LAYOUT,
        "one mask": replace(LAYOUT, mask_names=("seg_all_cytosol",)),
        "raw": replace(LAYOUT, normalization_ranges=None),
        "gzip": replace(LAYOUT, compression="gzip"),
        "no compression": replace(LAYOUT, compression=None),
        "one channel": replace(LAYOUT, channel_names=("0",)),
    }


def tree(path: Path) -> dict[str, tuple[Any, ...]]:
    """Kind, dtype, number of axes and names of attributes of everything in a file."""
    found: dict[str, tuple[Any, ...]] = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        kind = (item.dtype.str, item.ndim) if isinstance(item, h5py.Dataset) else ("group",)
        coding = tuple(str(item.attrs.get(key)) for key in ("encoding-type", "encoding-version"))
        found[name] = (*kind, *coding, tuple(sorted(item.attrs)))

    with h5py.File(path) as file:
        file.visititems(visit)
        found["/"] = tuple(sorted(file.attrs.items()))
    return found


# --- what the file holds ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", variants().values(), ids=variants())
def test_stamps_come_back_through_hdf5s_own_filters(tmp_path: Path, layout: Layout) -> None:
    stamps = write_file(tmp_path / "f.h5sc", layout)
    with h5py.File(tmp_path / "f.h5sc") as file:
        images = file[IMAGES]
        assert images.dtype == np.float16
        assert images.shape == layout.shape
        assert images.chunks == (1, layout.shape[1], 16, 16)
        assert images.compression == layout.compression
        assert np.array_equal(images[:].view(np.uint16), stamps.view(np.uint16))


@pytest.mark.parametrize("compression", ["lzf", "gzip"])
def test_a_chunk_that_does_not_shrink_is_stored_raw_and_marked(tmp_path: Path, compression: Any) -> None:
    write_file(tmp_path / "f.h5sc", replace(LAYOUT, compression=compression))
    with h5py.File(tmp_path / "f.h5sc") as file:
        mask, noise = file[IMAGES].id.read_direct_chunk((1, 0, 0, 0))
        assert (mask, len(noise)) == (1, 5 * 2 * 16 * 16)
        mask, chunk = file[IMAGES].id.read_direct_chunk((0, 0, 0, 0))
        assert mask == 0
        assert len(chunk) < 5 * 2 * 16 * 16


def test_attributes_of_the_images(file: Path) -> None:
    with h5py.File(file) as h5:
        attributes = dict(h5[IMAGES].attrs)
    names = attributes.pop("channel_names")
    kinds = attributes.pop("channel_mapping")
    bounds = attributes.pop("normalization_range")
    assert attributes == {
        "encoding-type": "array",
        "encoding-version": "0.2.0",
        "n_cells": 3,
        "n_channels": 5,
        "n_masks": 2,
        "n_image_channels": 3,
        "image_size": 16,
        "normalization": True,
        "compression": "lzf",
    }
    assert all(attributes[key].dtype == np.int64 for key in attributes if key.startswith("n_") or key == "image_size")
    assert attributes["normalization"].dtype == np.bool_
    assert [name.decode() for name in names] == ["seg_all_nucleus", "seg_all_cytosol", "DNA", LONG, "2"]
    assert (names.dtype.kind, kinds.dtype) == ("S", np.dtype("S13"))
    assert kinds.tolist() == [b"mask", b"mask", b"image_channel", b"image_channel", b"image_channel"]
    assert bounds.tolist() == [0.001, 0.999]
    assert bounds.dtype == np.float64


def test_attributes_of_images_that_are_neither_normalised_nor_compressed(tmp_path: Path) -> None:
    write_file(tmp_path / "f.h5sc", replace(LAYOUT, normalization_ranges=None, compression=None))
    with h5py.File(tmp_path / "f.h5sc") as file:
        attributes, uns = file[IMAGES].attrs, file["uns/single_cell_images"]
        assert not attributes["normalization"]
        assert attributes["normalization_range"].tolist() == ["None", "None"]
        assert attributes["compression"] == "None"
        assert not uns["normalization"][()]
        assert uns["normalization_range_lower"].asstr()[()] == "None"
        assert uns["normalization_range_upper"].asstr()[()] == "None"
        assert uns["compression"].asstr()[()] == "None"


def test_uns_tells_the_same(file: Path) -> None:
    with h5py.File(file) as h5:
        uns = h5["uns/single_cell_images"]
        numbers = {key: uns[key][()] for key in uns if uns[key].attrs["encoding-type"] == "numeric-scalar"}
        assert numbers == {
            "n_cells": 3,
            "n_channels": 5,
            "n_masks": 2,
            "n_image_channels": 3,
            "image_size": 16,
            "normalization": True,
            "normalization_range_lower": 0.001,
            "normalization_range_upper": 0.999,
        }
        assert uns["compression"].asstr()[()] == "lzf"
        assert uns["channel_names"].asstr()[:].tolist() == ["seg_all_nucleus", "seg_all_cytosol", "DNA", LONG, "2"]
        assert uns["channel_mapping"].asstr()[:].tolist() == ["mask"] * 2 + ["image_channel"] * 3


def test_text_is_stored_in_the_encodings_that_readers_in_use_know(file: Path) -> None:
    """With pandas 3, anndata's own choice would be nullable-string-array, which they can't open."""
    with h5py.File(file) as h5:
        for name in (
            "obs/_index",
            "var/_index",
            "var/channels",
            "var/channel_mapping/categories",
            "obs/region/categories",
        ):
            assert h5[name].attrs["encoding-type"] == "string-array", name
            assert h5py.check_string_dtype(h5[name].dtype) is not None, name
        assert h5["var/channel_mapping"].attrs["encoding-type"] == "categorical"
        for name in ("region", "region_key", "instance_key"):
            assert h5[f"uns/spatialdata_attrs/{name}"].attrs["encoding-type"] == "string"
        assert h5["uns/single_cell_images/channel_names"].attrs["encoding-type"] == "string-array"
        assert h5["obs/_index"].asstr()[:].tolist() == ["0", "1", "2"]
        assert h5["obs/scportrait_cell_id"].dtype == np.uint64
        assert h5["obs/scportrait_cell_id"][:].tolist() == [3, 70, 2**63 - 1]
        assert h5["var/channels"].asstr()[:].tolist() == ["seg_all_nucleus", "seg_all_cytosol", "DNA", LONG, "2"]
        assert h5["obs/region"].attrs["encoding-type"] == "categorical"
        assert h5["obs/region/categories"].asstr()[:].tolist() == ["seg_all_nucleus"]
        assert h5["obs/region/codes"][:].tolist() == [0, 0, 0]
        assert (h5["obs/x"].dtype, h5["obs/y"].dtype) == (np.float64, np.float64)
        assert np.array_equal(np.stack([h5["obs/x"], h5["obs/y"]], axis=1), LAYOUT.centers)
        assert list(h5["var"].attrs["column-order"]) == ["channels", "channel_mapping"]
        assert h5["obsm/spatial"].dtype == np.float64
        assert np.array_equal(h5["obsm/spatial"], LAYOUT.centers)


@pytest.mark.parametrize("name", ["jump", "jump_raw", "codex_crop"])
def test_everything_in_a_file_of_scportraits_is_in_ours_with_the_same_type(tmp_path: Path, name: str) -> None:
    theirs = Path(__file__).parents[2] / "shared" / "reference" / name / "single_cells.h5sc"
    if not theirs.exists():
        pytest.skip("the reference files are not here")
    with h5py.File(theirs) as file:
        raw = file[IMAGES].attrs["compression"] == "gzip"
        masks = ("seg_all_nucleus", "seg_all_cytosol") if file[IMAGES].attrs["n_masks"] == 2 else ("seg_all_cytosol",)
    layout = replace(LAYOUT, mask_names=masks)
    if raw:
        layout = replace(layout, normalization_ranges=None, compression="gzip")
    write_file(tmp_path / "ours.h5sc", layout)
    expected, got = tree(theirs), tree(tmp_path / "ours.h5sc")
    assert {name: got.get(name) for name in expected} == expected
    ours = ("obsm/spatial", "obs/exceeds_crop", "obs/x", "obs/y", "obs/region", "uns/spatialdata_attrs")
    assert {name for name in set(got) - set(expected) if not name.startswith(ours)} == set()
    assert set(ours) <= set(got)


def test_the_file_format_is_bounded_at_v110(file: Path) -> None:
    assert file.read_bytes()[:9] == b"\x89HDF\r\n\x1a\n\x03"  # superblock version 3: that of HDF5 1.10


def test_the_chunk_index_is_small(tmp_path: Path) -> None:
    """The oldest format's index takes more than 60 bytes a chunk, that of HDF5 1.10 about 16."""
    n_cells = 2000
    ids = np.arange(1, n_cells + 1, dtype=np.uint64)
    layout = replace(LAYOUT, cell_ids=ids, centers=np.zeros((n_cells, 2)), image_size=2, compression="gzip")
    with new_writer(tmp_path / "f.h5sc", layout) as writer:
        sizes, payload = np.full((n_cells, 1), 8), np.zeros(8 * n_cells, np.uint8)
        writer.write(EncodedCells(np.arange(n_cells), sizes, payload, checksum(payload), np.zeros(2, np.int64), NOBODY))
    with h5py.File(tmp_path / "f.h5sc") as file:
        info = file[IMAGES].id
        n_chunks = info.get_num_chunks()
        assert n_chunks == n_cells
        rest = sum(item.id.get_storage_size() for item in _datasets(file))
    overhead = (tmp_path / "f.h5sc").stat().st_size - rest
    assert overhead < 32 * n_chunks + 100_000


def _datasets(file: h5py.File) -> list[h5py.Dataset]:
    found: list[h5py.Dataset] = []
    file.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
    return found


# --- writing ---------------------------------------------------------------------------------------------------------


def test_a_file_that_is_there_is_not_written_over(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(OutputError, match=r"cannot be written: .*exists"):
        new_writer(file, LAYOUT)
    assert file.read_bytes() == before


def test_the_file_is_closed_when_writing_fails(tmp_path: Path) -> None:
    writer = new_writer(tmp_path / "f.h5sc", LAYOUT)
    with pytest.raises(RuntimeError, match="broken"), writer:
        raise RuntimeError("broken")
    assert not _is_open(tmp_path / "f.h5sc")
    del writer


def test_cells_that_were_not_written_are_zero(tmp_path: Path) -> None:
    with new_writer(tmp_path / "f.h5sc", LAYOUT):
        pass
    with h5py.File(tmp_path / "f.h5sc") as file:
        assert not file[IMAGES][:].any()


# --- reading ---------------------------------------------------------------------------------------------------------


def test_anndata_opens_it(file: Path) -> None:
    data = anndata.read_h5ad(file)
    assert data.shape == (3, 5)
    assert data.obs_names.tolist() == ["0", "1", "2"]
    assert data.obs["scportrait_cell_id"].tolist() == [3, 70, 2**63 - 1]
    assert data.var["channels"].tolist() == ["seg_all_nucleus", "seg_all_cytosol", "DNA", LONG, "2"]
    assert isinstance(data.var["channel_mapping"].dtype, pd.CategoricalDtype)
    assert data.obsm["single_cell_images"].dtype == np.float16
    assert data.obsm["spatial"].tolist() == LAYOUT.centers.tolist()
    assert data.uns["single_cell_images"]["image_size"] == 16


@pytest.mark.parametrize("path", [5, ["a.h5sc"]])
def test_what_is_no_path(path: Any) -> None:
    with pytest.raises(InputError, match=r"path = .*: must be the path of an \.h5sc file, or the path or URL"):
        read_h5sc(path)


def test_read_h5sc_leaves_the_images_on_disk(file: Path) -> None:
    data = read_h5sc(file)
    images = data.obsm["single_cell_images"]
    assert isinstance(images, h5py.Dataset)
    assert data.obs["scportrait_cell_id"].tolist() == [3, 70, 2**63 - 1]
    assert data.var["channels"].tolist()[3] == LONG
    assert data.obsm["spatial"].tolist() == LAYOUT.centers.tolist()
    assert data.uns["single_cell_images"]["channel_names"].tolist()[-1] == "2"
    assert np.array_equal(images[1:, 2:4, 5], make_stamps(LAYOUT)[1:, 2:4, 5])
    images.file.close()


def test_read_h5sc_without_images_is_a_table_and_leaves_nothing_open(file: Path) -> None:
    whole, table = read_h5sc(file), read_h5sc(file, images=False)
    whole.obsm["single_cell_images"].file.close()
    assert not _is_open(file)
    assert list(table.obsm) == ["spatial"]
    assert table.shape == whole.shape
    assert table.obs.equals(whole.obs)
    assert table.obs.columns.tolist() == ["scportrait_cell_id", "region", "x", "y", "exceeds_crop"]
    assert table.obs[["x", "y"]].to_numpy().tolist() == LAYOUT.centers.tolist()
    assert table.uns["spatialdata_attrs"] == {
        "region": "seg_all_nucleus",
        "region_key": "region",
        "instance_key": "scportrait_cell_id",
    }


def test_without_images_nothing_of_them_is_read(file: Path) -> None:
    """Every chunk of this copy is damaged."""
    with h5py.File(file, "r+") as h5:
        for row in range(len(h5[IMAGES])):
            h5[IMAGES].id.write_direct_chunk((row, 0, 0, 0), b"\xff" * 40)
    assert read_h5sc(file, images=False).n_obs == 3


def test_a_file_that_cannot_be_read_is_closed(file: Path) -> None:
    with h5py.File(file, "r+") as h5:
        del h5["obs/x"]
    with pytest.raises(InputError, match=r"\.h5sc is damaged: its tables cannot be read: .*'x'.*Extract again"):
        read_h5sc(file)
    assert not _is_open(file)


def test_reading_lazily_costs_no_memory(tmp_path: Path) -> None:
    """The images of this file take 200 MB in memory; it is opened where so much can't be had."""
    n_cells = 1000
    ids = np.arange(1, n_cells + 1, dtype=np.uint64)
    layout = replace(LAYOUT, cell_ids=ids, centers=np.zeros((n_cells, 2)), image_size=142)
    with new_writer(tmp_path / "f.h5sc", layout):
        pass
    code = (
        "import resource, sys\n"
        "from cellstamp import read_h5sc\n"
        "import anndata, h5py\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 150 * 2**20,) * 2)\n"
        "data = read_h5sc(sys.argv[1])\n"
        "print(data.obsm['single_cell_images'].nbytes > 190 * 2**20, data.obsm['single_cell_images'][999, 4].sum())\n"
        "try:\n"
        "    data.obsm['single_cell_images'][:]\n"
        "except MemoryError:\n"
        "    print('no room')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "f.h5sc")], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n") == ["True 0.0", "no room", ""]


def test_the_file_is_closed_when_nobody_uses_it_any_more(file: Path) -> None:
    data = read_h5sc(file)
    assert _is_open(file)
    images = data.obsm["single_cell_images"]
    del data
    gc.collect()
    assert images[0, 0].shape == (16, 16)  # still in use
    del images
    gc.collect()
    assert not _is_open(file)


def test_it_can_be_closed_at_once(file: Path) -> None:
    data = read_h5sc(file)
    data.obsm["single_cell_images"].file.close()
    assert not _is_open(file)


def _is_open(path: Path) -> bool:
    return path in {fd.readlink() for fd in Path("/proc/self/fd").iterdir() if fd.exists()}


@pytest.mark.filterwarnings("ignore:The 'mode.chained_assignment' option:DeprecationWarning")  # anndata's own doing
def test_a_subset_can_be_taken(file: Path) -> None:
    data = read_h5sc(file)
    part = data[[0, 2]]
    assert part.obs["scportrait_cell_id"].tolist() == [3, 2**63 - 1]
    assert np.array_equal(np.asarray(part.obsm["single_cell_images"]), make_stamps(LAYOUT)[[0, 2]])
    data.obsm["single_cell_images"].file.close()


def test_description(file: Path) -> None:
    info = describe_h5sc(file)
    assert (info.n_cells, info.n_masks, info.n_image_channels, info.image_size) == (3, 2, 3, 16)
    assert info.channel_names == ("seg_all_nucleus", "seg_all_cytosol", "DNA", LONG, "2")
    assert (info.compression, info.normalization, info.normalization_range) == ("lzf", True, (0.001, 0.999))
    assert info.raw_bytes == 3 * 5 * 16 * 16 * 2
    assert 0 < info.stored_bytes < info.raw_bytes
    assert info.file_bytes == file.stat().st_size
    assert not _is_open(file)


def test_description_of_images_that_are_neither_normalised_nor_compressed(tmp_path: Path) -> None:
    write_file(tmp_path / "f.h5sc", replace(LAYOUT, normalization_ranges=None, compression=None))
    info = describe_h5sc(tmp_path / "f.h5sc")
    assert (info.compression, info.normalization, info.normalization_range) == ("None", False, None)
    assert info.stored_bytes == info.raw_bytes


@pytest.mark.parametrize("name", ["jump", "jump_raw", "codex_crop"])
def test_files_of_scportraits_are_read(name: str) -> None:
    path = Path(__file__).parents[2] / "shared" / "reference" / name / "single_cells.h5sc"
    if not path.exists():
        pytest.skip("the reference files are not here")
    info, data = describe_h5sc(path), read_h5sc(path)
    assert data.shape == (info.n_cells, info.n_masks + info.n_image_channels)
    assert data.var["channels"].tolist() == list(info.channel_names)
    data.obsm["single_cell_images"].file.close()


# --- files that are none ---------------------------------------------------------------------------------------------


def nothing(path: Path) -> None:
    pass


def folder(path: Path) -> None:
    path.mkdir()


def text(path: Path) -> None:
    path.write_text("not HDF5 at all")


def foreign(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["something/else"] = [1, 2, 3]


def other_anndata(path: Path) -> None:
    with h5py.File(path, "w") as file:
        anndata.io.write_elem(file, "obs", {})
        anndata.io.write_elem(file, "obsm", {"spatial": np.zeros((2, 2))})


def truncated(path: Path) -> None:
    write_file(path)
    path.write_bytes(path.read_bytes()[:-100])


def without_attributes(path: Path) -> None:
    write_file(path)
    with h5py.File(path, "r+") as file:
        images = file[IMAGES]
        for name in list(images.attrs):
            del images.attrs[name]


def without_table(path: Path) -> None:
    write_file(path)
    with h5py.File(path, "r+") as file:
        del file["obs"]


def images_are_a_group(path: Path) -> None:
    write_file(path)
    with h5py.File(path, "r+") as file:
        del file[IMAGES]
        file.create_group(IMAGES)


FAULTS = {
    nothing: "there is no file",
    folder: "is a folder and not a zarr store of single-cell images: it has no zarr",
    text: "is not an HDF5 file, or it is damaged",
    truncated: "is not an HDF5 file, or it is damaged",
    foreign: r"is not an \.h5sc file: it lacks obsm/single_cell_images, obs, var, uns",
    other_anndata: r"is not an \.h5sc file: it lacks obsm/single_cell_images",
    images_are_a_group: r"is not an \.h5sc file: obsm/single_cell_images must be an array with four axes",
    without_table: r"is not an \.h5sc file: it lacks obs",
}


@pytest.mark.parametrize("make", FAULTS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("read", [read_h5sc, describe_h5sc])
def test_a_file_that_cannot_be_used_is_named_with_the_reason(
    tmp_path: Path, read: Callable[[Path], Any], make: Callable[[Path], None]
) -> None:
    path = tmp_path / "it.h5sc"
    make(path)
    with pytest.raises(InputError, match=rf"it\.h5sc {FAULTS[make]}|{FAULTS[make]} .*it\.h5sc"):
        read(path)
    assert not _is_open(path)


def test_a_file_without_its_description_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "it.h5sc"
    without_attributes(path)
    with pytest.raises(InputError, match=r"it\.h5sc is not an \.h5sc file: .* lacks the attributes n_masks, "):
        describe_h5sc(path)
    assert not _is_open(path)
