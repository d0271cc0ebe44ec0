"""What people do with what `read_h5sc` returns: copies, parts, files, other libraries; and images for these."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pytest
from PIL import Image

from cellstamp import cell_images, read_h5sc, select_cells
from cellstamp.errors import ConfigError, InputError, OutputError
from stamp_files import layout_of, store_anew, write_file

IMAGES = "single_cell_images"
N_CELLS = 20


@pytest.fixture
def stored(tmp_path: Path) -> np.ndarray:
    """The images in ``a.h5sc``, of the cells 5, 8, 11, ...; masks nucleus and cytosol, channels DAPI and actin."""
    return write_file(tmp_path / "a.h5sc", layout_of(N_CELLS))


@pytest.fixture
def data(tmp_path: Path, stored: np.ndarray) -> anndata.AnnData:
    del stored
    return read_h5sc(tmp_path / "a.h5sc")


def images_of(data: anndata.AnnData) -> np.ndarray:
    return np.asarray(data.obsm[IMAGES][:])


@pytest.mark.parametrize(
    "made",
    [lambda data: data.copy(), copy.copy, copy.deepcopy, lambda data: pickle.loads(pickle.dumps(data))],
    ids=["copy()", "copy", "deepcopy", "pickle"],
)
def test_copies_read_from_the_same_file(
    data: anndata.AnnData, stored: np.ndarray, made: Callable[[anndata.AnnData], anndata.AnnData]
) -> None:
    twin = made(data)
    twin.obsm["features"] = np.zeros((N_CELLS, 2))
    twin.obs["size"] = 1
    assert isinstance(twin.obsm[IMAGES], h5py.Dataset)
    if made is not copy.copy:  # which shares everything
        assert "features" not in data.obsm
    del data
    assert np.array_equal(images_of(twin), stored)


@pytest.mark.parametrize(
    ("rows", "part"),
    [(slice(5), slice(5)), (slice(None, None, -1),) * 2, (slice(12, 3, -4),) * 2, ([5, 2, 9],) * 2, (slice(0, 0),) * 2],
    ids=["first", "backwards", "every fourth backwards", "unsorted", "none"],
)
def test_a_copy_of_some_cells_is_in_memory(data: anndata.AnnData, stored: np.ndarray, rows: Any, part: Any) -> None:
    some = data[rows].copy()
    assert isinstance(some.obsm[IMAGES], np.ndarray)
    assert some.obsm[IMAGES].dtype == np.float16
    assert np.array_equal(some.obsm[IMAGES], stored[part])
    assert some.obs["scportrait_cell_id"].tolist() == data.obs["scportrait_cell_id"].to_numpy()[part].tolist()


def test_parts_of_the_images_are_read_as_of_any_dataset(data: anndata.AnnData, stored: np.ndarray) -> None:
    images = data.obsm[IMAGES]
    assert np.array_equal(images[3, 1], stored[3, 1])
    assert np.array_equal(images[::-1, 2], stored[::-1, 2])
    assert np.array_equal(images[..., 4], stored[..., 4])
    assert np.array_equal(images[2:7, [0, 3]], stored[2:7, [0, 3]])
    assert np.array_equal(images.astype("float32")[:2], stored[:2].astype(np.float32))


CHOSEN = np.arange(N_CELLS) % 3 == 1


@pytest.mark.parametrize(
    "args",
    [
        [5, 2],
        [5, 2, 5, -1, -20],
        np.array([5, 2, 2], np.uint8),
        np.array([[7, 3], [3, -2]]),
        [],
        np.array([], np.int64),
        range(9, 3, -2),
        CHOSEN,
        CHOSEN.tolist(),
        np.zeros(N_CELLS, bool),
        np.ones((N_CELLS, 4), bool),
        slice(None, None, -1),
        slice(12, 3, -4),
        slice(3, 12, -1),
        slice(-1, None, -7),
        ([5, 2], 1),
        ([5, 2], slice(None), 3),
        ([5, 2], -1, slice(None, None, -2)),
        ([5, 2, 2], [3, 0, -1]),
        ([[5], [2]], [3, 0]),
        (slice(2, 9), [3, 0, 3]),
        (slice(9, 2, -1), [3, 0]),
        (4, [2, 1], slice(8, 2, -1), [1, 0]),
        (CHOSEN, slice(None, None, -1)),
        (Ellipsis, [3, 1, 1]),
        ([5, 2], Ellipsis, 7),
        (Ellipsis, slice(None, None, -1)),
        np.int64(-3),
        (slice(None), np.array([True, False, False, True])),
    ],
    ids=repr,
)
def test_a_selection_has_the_result_of_numpy(data: anndata.AnnData, stored: np.ndarray, args: Any) -> None:
    got = data.obsm[IMAGES][args]
    assert got.dtype == stored[args].dtype
    assert got.shape == stored[args].shape
    assert np.array_equal(got, stored[args])
    assert np.array_equal(data.obsm[IMAGES].astype("float32")[args], stored[args].astype(np.float32))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([5, 20], "index 20 is out of bounds for axis 0 with size 20"),
        ([-21], "index -21 is out of bounds for axis 0 with size 20"),
        ((slice(None), [4]), "index 4 is out of bounds for axis 1 with size 4"),
        (CHOSEN[:7], r"boolean mask has the shape \(7,\), the images have \(20,\)"),
        ([1.5], r"indexed by integers, slices, booleans and '...', not by \[1.5\]"),
        (([1], 0, 0, 0, 0), "too many indices: the images have 4 axes, 5 were indexed"),
        (([1], Ellipsis, Ellipsis), "only one '...' is allowed"),
    ],
)
def test_an_invalid_selection_is_an_error(data: anndata.AnnData, args: Any, words: str) -> None:
    with pytest.raises(IndexError, match=words):
        data.obsm[IMAGES][args]


def test_only_the_selected_images_are_read(tmp_path: Path, data: anndata.AnnData, stored: np.ndarray) -> None:
    """Other images may be damaged: they are not decoded."""
    places = h5py.File(tmp_path / "a.h5sc")[f"obsm/{IMAGES}"].id
    with (tmp_path / "a.h5sc").open("r+b") as file:
        for row, plane in [(3, 0), (4, 0)]:
            chunk = places.get_chunk_info_by_coord((row, plane, 0, 0))
            file.seek(chunk.byte_offset)
            file.write(b"\xff" * chunk.size)
    assert np.array_equal(data.obsm[IMAGES][[5, 2], :3], stored[[5, 2], :3])
    assert np.array_equal(data.obsm[IMAGES][[5, 2], [2, 0]], stored[[5, 2], [2, 0]])
    with pytest.raises(OSError, match=r"filter|Invalid data for LZF"):
        data.obsm[IMAGES][[5, 3]]


@pytest.mark.parametrize("storage", [{}, {"chunks": (1, 1, 4, 4), "compression": "lzf"}, {"chunks": (7, 2, 4, 4)}])
@pytest.mark.parametrize("compression", ["lzf", "gzip", None])
def test_many_images_are_those_that_hdf5_reads(tmp_path: Path, compression: Any, storage: dict[str, Any]) -> None:
    """Of many cells, our own decoder reads only the chosen channels."""
    path = tmp_path / "many.h5sc"
    write_file(path, layout_of(2100, size=4, compression=compression))
    if storage:
        store_anew(path, **storage)
    with h5py.File(path) as file:
        expected, ids = file[f"obsm/{IMAGES}"][:], file["obs/scportrait_cell_id"][:]
    rows = np.random.default_rng(0).permutation(2100)[:2050]
    assert np.array_equal(cell_images(path), expected[:, 2:])
    assert np.array_equal(cell_images(path, ids[rows], ["actin", "nucleus"]), expected[rows][:, [3, 0]])
    data = read_h5sc(path)
    assert np.array_equal(cell_images(data, channels=1), expected[:, [1]])
    some = rows[:20]
    assert np.array_equal(cell_images(data[some], ids[some], "DAPI"), expected[some][:, [2]])


MANY = [
    np.s_[:],
    np.s_[...],
    np.s_[:, 2],
    np.s_[5:2050, 1:3],
    np.s_[::1, ::2, 1:3],
    np.s_[:, -1, 2],
    np.s_[..., 3],
    np.s_[:2030, :, ::2, 0],
    np.s_[:, 1:1],
    np.s_[:, np.int64(1)],
    np.s_[::-1],
    np.s_[np.arange(2099, -1, -1), 1],
]


@pytest.mark.parametrize("args", MANY, ids=str)
def test_selections_of_many_images_are_those_of_numpy(many: tuple[anndata.AnnData, np.ndarray], args: Any) -> None:
    data, expected = many
    got = data.obsm[IMAGES][args]
    assert got.shape == expected[args].shape
    assert np.array_equal(got, expected[args])


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[anndata.AnnData, np.ndarray]:
    path = tmp_path_factory.mktemp("many") / "many.h5sc"
    return (lambda stamps: (read_h5sc(path), stamps))(write_file(path, layout_of(2100, size=4)))


def test_many_images_of_a_file_that_was_replaced_meanwhile_are_those_of_the_open_one(tmp_path: Path) -> None:
    write_file(tmp_path / "many.h5sc", layout_of(2100, size=4))
    data = read_h5sc(tmp_path / "many.h5sc")
    expected = data.obsm[IMAGES][:]
    write_file(tmp_path / "other.h5sc", layout_of(2100, size=4), seed=1)
    (tmp_path / "other.h5sc").replace(tmp_path / "many.h5sc")
    assert np.array_equal(cell_images(data), expected[:, 2:])


def test_damage_among_many_images_is_told(tmp_path: Path) -> None:
    path = tmp_path / "many.h5sc"
    stamps = write_file(path, layout_of(2100, size=4))
    with h5py.File(path, "r+") as file:
        file[f"obsm/{IMAGES}"][1000, 3] = stamps[1000, 3] + 1
    with pytest.raises(InputError, match="the image of cell 3005 is damaged: actin has values outside 0 to 1"):
        cell_images(path)
    with h5py.File(path, "r+") as file:
        file[f"obsm/{IMAGES}"].id.write_direct_chunk((1000, 0, 0, 0), b"\xff" * 40)
    with pytest.raises(InputError, match="DAPI of cell 3005 cannot be decoded"):
        cell_images(path)


def test_in_memory_nothing_is_needed_of_the_file(tmp_path: Path, data: anndata.AnnData, stored: np.ndarray) -> None:
    loaded = data.to_memory()
    del data
    (tmp_path / "a.h5sc").unlink()
    assert isinstance(loaded.obsm[IMAGES], np.ndarray)
    assert np.array_equal(loaded.obsm[IMAGES], stored)


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data")
@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_it_is_written_with_its_images(tmp_path: Path, data: anndata.AnnData, stored: np.ndarray, kind: str) -> None:
    path = tmp_path / f"b.{kind}"
    getattr(data.copy(), f"write_{kind}")(path)
    again = getattr(anndata, f"read_{kind}")(path)
    assert np.array_equal(again.obsm[IMAGES], stored)
    assert again.obsm[IMAGES].dtype == np.float16


@pytest.mark.parametrize("method", ["write_h5ad", "write"])
@pytest.mark.parametrize("kind", ["file", "copy", "some cells", "link"])
def test_it_is_not_written_to_its_own_file(
    tmp_path: Path, data: anndata.AnnData, stored: np.ndarray, method: str, kind: str
) -> None:
    path = Path(data.obsm[IMAGES].file.filename)
    before = path.read_bytes()
    given = {"copy": data.copy(), "some cells": data[:2]}.get(kind, data)
    target = path
    if kind == "link":
        target = tmp_path / "link.h5sc"
        target.symlink_to(path)
    with pytest.raises(
        OutputError, match=rf"{target.name}: this AnnData reads its images from .*\. Write it to another"
    ):
        getattr(given, method)(target)
    assert path.read_bytes() == before
    np.testing.assert_array_equal(data.obsm[IMAGES][...], stored)


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_files_are_concatenated(data: anndata.AnnData, stored: np.ndarray) -> None:
    both = anndata.concat([data, data[:5]], merge="same")
    assert np.array_equal(both.obsm[IMAGES], np.concatenate([stored, stored[:5]]))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_opens_the_file_for_itself(data: anndata.AnnData, stored: np.ndarray, method: str) -> None:
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert np.array_equal(pool.apply(images_of, [data]), stored)


def test_a_pickled_one_whose_file_is_gone_says_so(tmp_path: Path, data: anndata.AnnData) -> None:
    pickled = pickle.dumps(data)
    (tmp_path / "a.h5sc").unlink()
    with pytest.raises(InputError, match=r"there is no file .*a\.h5sc"):
        pickle.loads(pickled)


def test_a_pickled_one_whose_file_was_written_again_says_so(tmp_path: Path, data: anndata.AnnData) -> None:
    pickled = pickle.dumps(data)
    (tmp_path / "a.h5sc").unlink()
    write_file(tmp_path / "a.h5sc", layout_of(N_CELLS + 1))
    with pytest.raises(InputError, match=r"a\.h5sc was written again after .* Open it with read_h5sc\('") as raised:
        pickle.loads(pickled)
    code = str(raised.value).rpartition("Open it with ")[2]
    assert eval(code, {"read_h5sc": read_h5sc}).n_obs == N_CELLS + 1


# --- images for other libraries ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["path", "AnnData", "a part of it"])
def test_chosen_cells_as_images(tmp_path: Path, data: anndata.AnnData, stored: np.ndarray, given: str) -> None:
    h5sc = {"path": tmp_path / "a.h5sc", "AnnData": data, "a part of it": data[:10]}[given]
    assert np.array_equal(cell_images(h5sc, [14, 5], ["actin", "nucleus"]), stored[[3, 0]][:, [3, 0]])
    images = cell_images(h5sc, [14, 5], ["actin", "nucleus"], dtype="uint8")
    assert images.dtype == np.uint8
    wanted = stored[[3, 0]][:, [3, 0]].astype(np.float32)
    assert np.array_equal(images, np.rint(wanted * 255))
    assert np.array_equal(cell_images(h5sc, [14, 5], ["actin", "nucleus"], dtype="float32"), wanted)
    assert np.array_equal(cell_images(h5sc, 14, "actin", dtype="uint16")[0, 0], np.rint(wanted[0, 0] * 65535))


def test_all_cells_and_channels_unless_some_are_chosen(tmp_path: Path, stored: np.ndarray) -> None:
    images = cell_images(tmp_path / "a.h5sc")
    assert images.dtype == np.float16
    assert np.array_equal(images, stored[:, 2:])
    assert np.array_equal(cell_images(tmp_path / "a.h5sc", channels="DAPI"), stored[:, 2:3])
    assert np.array_equal(cell_images(tmp_path / "a.h5sc", dtype="float32"), stored[:, 2:].astype(np.float32))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_pillow_takes_them(tmp_path: Path, data: anndata.AnnData, dtype: Any) -> None:
    (image,) = cell_images(data, 17, "DAPI", dtype=dtype)[0]
    suffix = "tif" if dtype == "float32" else "png"
    Image.fromarray(image).save(tmp_path / f"17.{suffix}")
    with Image.open(tmp_path / f"17.{suffix}") as file:
        assert np.array_equal(np.asarray(file), image)


def test_matplotlib_takes_them(tmp_path: Path, data: anndata.AnnData) -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    axes.imshow(np.moveaxis(cell_images(data, 17, ["DAPI", "actin", "nucleus"], dtype="float32")[0], 0, -1))
    axes.figure.savefig(tmp_path / "17.png")
    assert (tmp_path / "17.png").stat().st_size > 0


def test_integers_as_they_are_stored_are_scaled_alike(tmp_path: Path) -> None:
    stored = write_file(tmp_path / "a.h5sc", layout_of(N_CELLS, dtype="uint16"))
    images = cell_images(tmp_path / "a.h5sc", dtype="uint16")
    assert np.array_equal(images, stored[:, 2:])
    assert np.array_equal(cell_images(tmp_path / "a.h5sc"), stored[:, 2:])
    assert np.array_equal(cell_images(tmp_path / "a.h5sc", dtype="uint8"), np.rint(stored[:, 2:] / 257))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (
            {"dtype": "float16"},
            ConfigError,
            r"dtype = 'float16': must be 'uint8', 'uint16', 'float32', or None",
        ),
        ({"cells": 6}, InputError, r"1 of 1 ids are not in .*a\.h5sc: 6"),
        ({"cells": "DAPI"}, ConfigError, r"cells = 'DAPI': this is a channel or mask; write channels='DAPI'"),
        ({"cells": "large"}, ConfigError, r"has no column 'large'"),
        ({"channels": "dapi"}, ConfigError, r"no channel named 'dapi' in .*; did you mean 'DAPI'\?"),
    ],
)
def test_what_cannot_be_is_an_error(
    tmp_path: Path, stored: np.ndarray, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    del stored
    with pytest.raises(error, match=words):
        cell_images(tmp_path / "a.h5sc", **options)


# --- cells by id ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["path", "AnnData", "a part of it"])
def test_cells_are_selected_by_id(tmp_path: Path, data: anndata.AnnData, stored: np.ndarray, given: str) -> None:
    h5sc = {"path": tmp_path / "a.h5sc", "AnnData": data, "a part of it": data[2:10]}[given]
    for ids, rows in ((14, [3]), ([26, 11], [7, 2]), (np.array([11, 11]), [2, 2])):
        part = select_cells(h5sc, ids)
        assert part.obs["scportrait_cell_id"].tolist() == np.atleast_1d(ids).tolist()
        assert np.array_equal(np.asarray(part.obsm[IMAGES]), stored[rows])


def test_cells_are_selected_by_a_column_or_booleans(data: anndata.AnnData) -> None:
    data.obs["is_large"] = CHOSEN
    for chosen in ("is_large", CHOSEN):
        assert select_cells(data, chosen).obs_names.tolist() == data.obs_names[CHOSEN].tolist()


def test_names_of_rows_count_the_rows_for_scportrait(data: anndata.AnnData) -> None:
    """scportrait's tools and plots look images up by these names, as row numbers."""
    assert data.obs_names.tolist() == list(map(str, range(N_CELLS)))
    assert data["8"].obs["scportrait_cell_id"].tolist() == [29]
    assert select_cells(data, 8).obs_names.tolist() == ["1"]


def test_an_unknown_id_is_an_error(data: anndata.AnnData) -> None:
    with pytest.raises(InputError, match=r"1 of 2 ids are not in .*a\.h5sc: 6. It has 20 cells, such as 5, 8"):
        select_cells(data, [5, 6])
    with pytest.raises(ConfigError, match=r"cells = \['5'\]: must be cell ids \(integers\)"):
        select_cells(data, ["5"])
