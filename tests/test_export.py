"""Exports: files read back with other libraries, the table, names of files, resuming, errors, and the command."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from cellstamp import Project, cell_images, export_cells, read_h5sc
from cellstamp.errors import ConfigError, InputError, OutputError
from cellstamp.export.file_names import FileNames, channel_parts
from cellstamp.export.shards import cells_in_shard
from cellstamp.pictures.mosaic import stretched
from commands import run_command
from conftest import make_cells
from listening import as_started_from_a_terminal
from stamp_files import layout_of, write_file

N_CELLS = 40
IDS = [*range(5, 5 + 3 * N_CELLS, 3)]
SETTINGS = "has an export with different settings or input"
SHARD = re.compile(r"cells-\d{6}\.tar")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    columns = {"kind": ["round", "flat"] * (N_CELLS // 2), "first": [n < 3 for n in range(N_CELLS)], "kept": False}
    write_file(tmp_path / "single_cells.h5sc", layout_of(N_CELLS), columns)
    return tmp_path / "single_cells.h5sc"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "crops"


def read_picture(path: Path) -> NDArray[Any]:
    with Image.open(path) as picture:
        return np.asarray(picture)


def exported(folder: Path) -> list[str]:
    """Visible files in a folder, with those in folders."""
    files = (each.relative_to(folder) for each in folder.rglob("*") if each.is_file())
    return sorted(each.as_posix() for each in files if not any(part.startswith(".") for part in each.parts))


def hidden(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir() if each.name.startswith("."))


def in_8_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.rint(values * np.float32(255)).astype(np.uint8)


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in exported(folder)}


# --- files ------------------------------------------------------------------------------------------------------------


def test_gray_pictures_of_each_channel(path: Path, folder: Path) -> None:
    table = export_cells(path, folder, scale=(0, 1))
    assert table == folder / "cells.csv"
    names = [f"{cell}_{channel}.png" for cell in IDS for channel in ("DAPI", "actin")]
    assert exported(folder) == sorted(["cells.csv", *names])
    assert hidden(folder) == [".cellstamp_export.json"]
    for cell in IDS[::9]:
        for channel in ("DAPI", "actin"):
            picture = read_picture(folder / f"{cell}_{channel}.png")
            assert picture.dtype == np.uint8
            np.testing.assert_array_equal(picture, in_8_bits(cell_images(path, cell, channel)[0, 0].astype(np.float32)))
    frame = pd.read_csv(table)
    assert frame.columns.tolist()[:3] == ["scportrait_cell_id", "file_DAPI", "file_actin"]
    assert frame["file_actin"].tolist() == [f"{cell}_actin.png" for cell in IDS]


def test_the_table_has_the_columns_of_obs(path: Path, folder: Path) -> None:
    frame, obs = pd.read_csv(export_cells(path, folder, [11, 5, 11], "npy")), read_h5sc(path).obs
    assert frame["scportrait_cell_id"].tolist() == [11, 5]
    assert frame["file"].tolist() == ["11.npy", "5.npy"]
    assert frame.columns.tolist() == ["scportrait_cell_id", "file", *obs.columns[1:]]
    wanted = obs.iloc[[2, 0]]
    for name in ("kind", "first", "x", "y", "region"):
        assert frame[name].tolist() == wanted[name].tolist()


@pytest.mark.parametrize("dtype", ["float16", "uint8", "uint16", "float32"])
def test_raw_values_are_those_of_the_file(tmp_path: Path, folder: Path, dtype: Any) -> None:
    path = tmp_path / "crops.h5sc"
    write_file(path, layout_of(12, dtype=dtype))
    stored = read_h5sc(path).obsm["single_cell_images"][:]
    assert stored.dtype == dtype
    for name in ("npy", "tiff", "ome-tiff"):
        export_cells(path, folder / name, None, name, ["actin", "nucleus"])
    for cell, image in zip(IDS[:12], stored[:, [3, 0]], strict=True):
        raw = np.load(folder / "npy" / f"{cell}.npy")
        assert raw.dtype == dtype
        np.testing.assert_array_equal(raw, image)
        for file in (f"tiff/{cell}.tif", f"ome-tiff/{cell}.ome.tif"):
            pixels = tifffile.imread(folder / file)
            assert pixels.dtype == ("float32" if dtype == "float16" else dtype)
            np.testing.assert_array_equal(pixels, image)


def test_many_cells_are_in_several_folders(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above 2,000 cells, images are read in the order of the file; files are still those of their cells."""
    monkeypatch.setattr("cellstamp.export.file_names.CELLS_PER_FOLDER", 1000)
    path, n = tmp_path / "single_cells.h5sc", 2300
    stamps = write_file(path, layout_of(n, size=8))
    frame = pd.read_csv(export_cells(path, folder, None, "npy", progress=False))
    assert [len(list(each.iterdir())) for each in sorted(folder.glob("0*"))] == [1000, 1000, 300]
    assert frame["file"].iloc[[0, 1000, 2299]].tolist() == ["000/5.npy", "001/3005.npy", "002/6902.npy"]
    for cell in range(0, n, 97):
        np.testing.assert_array_equal(np.load(folder / frame["file"][cell]), stamps[cell, 2:])


def test_composites_have_the_colours(path: Path, folder: Path) -> None:
    pytest.importorskip("matplotlib")
    export_cells(path, folder, [5, 8], color={"actin": "red", "DAPI": "#0000ff"}, scale=(0, 0.5))
    assert exported(folder) == ["5.png", "8.png", "cells.csv"]
    picture = read_picture(folder / "8.png")
    actin, dapi = np.minimum(cell_images(path, 8, ["actin", "DAPI"], dtype="float32")[0] * 2, 1)
    np.testing.assert_array_equal(picture, np.stack([in_8_bits(actin), 0 * in_8_bits(actin), in_8_bits(dapi)], axis=-1))


def test_default_colours_and_masks(path: Path, folder: Path) -> None:
    pytest.importorskip("matplotlib")
    export_cells(path, folder / "auto", 5, color="auto")
    export_cells(path, folder / "mask", 5, channels="cytosol", color="yellow")
    assert read_picture(folder / "auto" / "5.png").shape == (16, 16, 3)
    mask = cell_images(path, 5, "cytosol")[0, 0] > 0
    np.testing.assert_array_equal(read_picture(folder / "mask" / "5.png"), mask[..., None] * np.uint8([255, 255, 0]))


@pytest.mark.parametrize("dtype", ["float16", "uint16"])
def test_scales(tmp_path: Path, folder: Path, dtype: Any) -> None:
    path = tmp_path / "crops.h5sc"
    write_file(path, layout_of(12, dtype=dtype))
    planes = ["nucleus", "DAPI"]
    values = cell_images(path, channels=planes, dtype="float32") * np.float32(0.3)
    most = np.iinfo(dtype).max if dtype == "uint16" else 1
    with h5py.File(path, "a") as file:
        file["obsm/single_cell_images"][:, 2] = (values[:, 1] * most).astype(dtype)
    values = cell_images(path, channels="DAPI", dtype="float32")[:, 0]
    wanted = {"cell": np.stack(list(map(stretched, values))), "all": stretched(values), "auto": stretched(values)}
    for scale, images in wanted.items():
        export_cells(path, folder / scale, channels=planes, scale=scale)  # type: ignore[arg-type]
        for cell, image in zip(IDS[:12], images, strict=True):
            np.testing.assert_array_equal(read_picture(folder / scale / f"{cell}_DAPI.png"), in_8_bits(image))
        assert set(np.unique(read_picture(folder / scale / "5_nucleus.png"))) == {0, 255}


def test_normalised_images_are_not_stretched(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "crops.h5sc"
    write_file(path, layout_of(6, normalization_ranges=((0.1, 0.9), (0.1, 0.9))))
    export_cells(path, folder, channels="DAPI")
    np.testing.assert_array_equal(read_picture(folder / "5.png"), cell_images(path, 5, "DAPI", dtype="uint8")[0, 0])


# --- tar files --------------------------------------------------------------------------------------------------------


def samples_of(shard: Path) -> list[tuple[str, NDArray[Any], dict[str, Any]]]:
    """Key, image and metadata of each sample: neighbours in the tar file with one name up to the first dot."""
    with tarfile.open(shard) as tar:
        members = [(each.name.split(".", 1), tar.extractfile(each).read()) for each in tar]  # type: ignore[union-attr]
    pairs = list(zip(members[::2], members[1::2], strict=True))
    assert all((one[0], other[0]) == ([key, "npy"], [key, "json"]) for one, other in pairs for key in [one[0][0]])
    return [(one[0][0], np.load(io.BytesIO(one[1])), json.loads(other[1])) for one, other in pairs]


@pytest.mark.parametrize("n_cells", [N_CELLS, 2100])
def test_tar_files(tmp_path: Path, folder: Path, n_cells: int) -> None:
    path = tmp_path / "single_cells.h5sc"
    weight = [np.nan if n == 1 else n / 3 for n in range(n_cells)]
    stamps = write_file(path, layout_of(n_cells, size=8), {"weight": weight, "kind": pd.Categorical(["a"] * n_cells)})
    n = -(-n_cells // 3)
    frame = pd.read_csv(export_cells(path, folder, None, "webdataset", cells_per_shard=n, progress=False))
    shards = [f"cells-{number:06}.tar" for number in range(3)]
    assert exported(folder) == [*shards, "cells.csv"]
    samples = [(shard, *sample) for shard in shards for sample in samples_of(folder / shard)]
    assert len(samples) == n_cells
    for row, (shard, key, image, about) in enumerate(samples):
        assert (key, about["scportrait_cell_id"]) == (str(5 + 3 * row), 5 + 3 * row)
        assert frame["file"][row] == shard == shards[row // n]
        np.testing.assert_array_equal(image, stamps[row, 2:])
        assert (about["weight"], about["kind"], about["x"]) == (None if row == 1 else row / 3, "a", 0.0)


def test_equal_cells_make_equal_tar_files(path: Path, folder: Path) -> None:
    for number in range(2):
        export_cells(path, folder / str(number), [8, 5, 11], "webdataset")
    assert content(folder / "0") == content(folder / "1")
    assert [key for key, *_ in samples_of(folder / "0" / "cells-000000.tar")] == ["8", "5", "11"]


def test_tar_files_have_about_100_megabytes() -> None:
    assert cells_in_shard(5 * 128 * 128 * 2, 120) == 581
    assert cells_in_shard(100, 3) == 10_000
    assert cells_in_shard(10**9, 3) == 1


# --- choosing cells ---------------------------------------------------------------------------------------------------


def ids_in(table: Path) -> list[int]:
    return pd.read_csv(table)["scportrait_cell_id"].tolist()


def test_chosen_cells(path: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "picked.csv").write_text("scportrait_cell_id,score\n11,0.5\n5,0.1\n")
    (tmp_path / "two.txt").write_text("my_ids;other\n8;5\n")
    choices = {
        "csv": (str(tmp_path / "picked.csv"), [5, 11]),
        "path": (tmp_path / "picked.csv", [5, 11]),
        "column": ({"path": tmp_path / "two.txt", "ids": "my_ids"}, [8]),
        "boolean": ("first", IDS[:3]),
        "booleans": (np.arange(N_CELLS) == 7, [IDS[7]]),
    }
    for name, (cells, wanted) in choices.items():
        assert ids_in(export_cells(path, folder / name, cells, "npy")) == wanted
    assert ids_in(export_cells(path, folder / "again", folder / "csv" / "cells.csv", "npy")) == [5, 11]


def test_cells_with_text_as_ids(tmp_path: Path, folder: Path) -> None:
    """Files are named by number: text may have slashes, or differ in capitals only."""
    path, texts = tmp_path / "crops.h5sc", ["a/b-1", "A/b-1", "ccc-1"]
    write_file(path, layout_of(3, instances=np.array(texts, object)))
    (tmp_path / "picked.csv").write_text("cell_id\nccc-1\na/b-1\n")
    frame = pd.read_csv(export_cells(path, folder, tmp_path / "picked.csv", "npy"))
    assert frame[["file", "instance_id"]].to_numpy().tolist() == [["5.npy", "a/b-1"], ["11.npy", "ccc-1"]]
    (tmp_path / "bare.csv").write_text("ccc-1\nA/b-1\n")
    assert ids_in(export_cells(path, folder / "bare", tmp_path / "bare.csv", "npy")) == [8, 11]
    (tmp_path / "wrong.csv").write_text("cell_id\nccc-1\nddd-1\n")
    wrong = r"wrong\.csv': 1 of 2 ids are not in instance_id of .*crops\.h5sc: ddd-1\. It has ids like a/b-1"
    with pytest.raises(InputError, match=wrong):
        export_cells(path, folder, tmp_path / "wrong.csv", "npy")


def test_numbers_of_shapes_in_files_of_programs(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "crops.h5sc"
    write_file(path, layout_of(3, instances=np.array([8, 100, 5])))
    (tmp_path / "program.csv").write_text("cell_id\n5\n100\n")
    assert ids_in(export_cells(path, folder / "program", tmp_path / "program.csv", "npy")) == [8, 11]
    (tmp_path / "ours.csv").write_text("scportrait_cell_id\n5\n")
    assert ids_in(export_cells(path, folder / "ours", tmp_path / "ours.csv", "npy")) == [5]


def test_numbers_of_shapes_that_differ_in_the_last_bit(tmp_path: Path, folder: Path) -> None:
    path, numbers = tmp_path / "crops.h5sc", [2**53, 2**53 + 1, 2**63 - 1]
    write_file(path, layout_of(3, instances=np.array(numbers)))
    table = tmp_path / "program.csv"
    for number, wanted in zip(numbers, IDS[:3], strict=True):
        table.write_text(f"cell_id\n{number}\n")
        assert ids_in(export_cells(path, folder / str(number), table, "npy")) == [wanted]
    table.write_text(f"cell_id\n{2**63}\n")
    with pytest.raises(InputError, match=rf"1 of 1 ids are not in instance_id of .*: {2**63}\."):
        export_cells(path, folder / "none", table, "npy")


def test_the_largest_ids(tmp_path: Path, folder: Path) -> None:
    path, ids = tmp_path / "crops.h5sc", [3, 2**63 + 1, 2**64 - 1]
    stamps = write_file(path, layout_of(3, cell_ids=np.array(ids, np.uint64)))
    for name in ("npy", "webdataset"):
        assert ids_in(export_cells(path, folder / name, [2**63 + 1, 3, 2**64 - 1], name)) == [ids[1], ids[0], ids[2]]
    np.testing.assert_array_equal(np.load(folder / "npy" / f"{2**64 - 1}.npy"), stamps[2, 2:])
    again = export_cells(path, folder / "again", folder / "npy" / "cells.csv", "npy")
    assert ids_in(again) == ids
    path.with_name("ids.csv").write_text(f"scportrait_cell_id\n{2**64}\n")
    with pytest.raises(ConfigError, match=rf"line 2: '{2**64}' is not a cell id; ids are .* from 1 to 2\*\*64 - 1"):
        export_cells(path, folder / "wrong", path.with_name("ids.csv"))
    (sample, *_) = samples_of(folder / "webdataset" / "cells-000000.tar")
    assert (sample[0], sample[2]["scportrait_cell_id"]) == (str(2**63 + 1), 2**63 + 1)


def test_files_of_channels_have_different_names() -> None:
    parts = channel_parts(["a/b", "A:B", "café (1)", "c.d", "x" * 300])
    assert parts == ("_0_a_b", "_1_A_B", "_2_café_1_", "_3_c_d", "_4_" + "x" * 80)
    assert channel_parts(["a/b", "c.d", "0_a"]) == ("_a_b", "_c_d", "_0_a")
    assert channel_parts(["a/b"]) == ("",)
    assert FileNames(np.array([7], np.uint64), ".png", parts).of(0)[0] == "7_0_a_b.png"


def test_columns_that_have_names_of_ours(path: Path, folder: Path) -> None:
    path.unlink()
    write_file(path, layout_of(3), {"file": ["a", "b", "c"], "obs_file": [1, 2, 3], "area": 4.0})
    write_features_beside(path, np.arange(6).reshape(3, 2), ["area", "x"])
    frame = pd.read_csv(export_cells(path, folder / "npy", None, "npy"))
    assert frame["file"].tolist() == ["5.npy", "8.npy", "11.npy"]
    assert frame[["obs_obs_file", "obs_file", "obs_area", "area", "obs_x", "x"]].to_numpy().tolist() == [
        ["a", 1, 4.0, 0.0, 0.0, 1.0],
        ["b", 2, 4.0, 2.0, 0.0, 3.0],
        ["c", 3, 4.0, 4.0, 0.0, 5.0],
    ]
    header = export_cells(path, folder / "tar", None, "webdataset").read_text().splitlines()[0].split(",")
    assert header == frame.columns.tolist()
    (sample, *_) = samples_of(folder / "tar" / "cells-000000.tar")
    assert [*sample[2]] == [header[0], *header[2:]]
    assert (sample[2]["obs_obs_file"], sample[2]["obs_file"]) == ("a", 1)
    pictures = export_cells(path, folder / "png", channels="DAPI").read_text().splitlines()[0].split(",")
    assert pictures == header


def test_a_channel_twice(path: Path, folder: Path) -> None:
    frame = pd.read_csv(export_cells(path, folder, [5], channels=["DAPI", "DAPI"]))
    assert frame[["file_0_DAPI", "file_1_DAPI"]].to_numpy().tolist() == [["5_0_DAPI.png", "5_1_DAPI.png"]]


# --- projects and stores ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", ["h5sc", "zarr"])
def test_projects(tmp_path: Path, folder: Path, file_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setattr("cellstamp.zarr_store.layout.MOST_ROWS", 5)  # several shards
    image, nucleus, cytosol = make_cells(n=25)
    config = {"image_size": 32, "threads": 1, "border": "pad", "features": True, "image_pixel_size": [0.5, 0.25]}
    project = Project(tmp_path / "project", {"HDF5CellExtraction": config | {"file_format": file_format}})
    project.load_input_from_array(image, channel_names=["DAPI", "FITC", "actin"])
    project.load_segmentation(nucleus, cytosol)
    project.extract()
    stored, features = project.h5sc, project.features
    sources = [project, tmp_path / "project", Path(project.extraction_f.output_path)]
    if file_format == "zarr":
        url = f"memory://{tmp_path.name}/single_cells.zarr"
        files = fsspec.filesystem("memory")
        for each in Path(project.extraction_f.output_path).parent.glob("*.zarr"):
            files.put(str(each), f"/{tmp_path.name}/{each.name}", recursive=True)
        sources.append(url)
    for number, source in enumerate(sources):
        frame = pd.read_csv(export_cells(source, folder / str(number), None, "npy", progress=False))
        assert frame["scportrait_cell_id"].tolist() == stored.obs["scportrait_cell_id"].tolist()
        np.testing.assert_allclose(frame[features.var_names], features.X, rtol=1e-6)
        for row, file in enumerate(frame["file"]):
            np.testing.assert_array_equal(
                np.load(folder / str(number) / file), stored.obsm["single_cell_images"][row, 2:]
            )
    area = features[:, "cell__area"].X.ravel()
    large = export_cells(project, folder / "large", f"cell__area > {np.median(area)}", "tiff", ["actin", "DAPI"])
    assert ids_in(large) == stored.obs["scportrait_cell_id"][area > np.median(area)].tolist()
    backwards = stored.obs["scportrait_cell_id"].tolist()[::-3]
    chosen = pd.read_csv(export_cells(project, folder / "chosen", backwards, "npy"))
    np.testing.assert_allclose(chosen[features.var_names], features.X[::-3], rtol=1e-6)
    check_tiff(large.parent / pd.read_csv(large)["file"][0])
    export_cells(project, folder / "ome", backwards[:2], "ome-tiff", ["actin", "DAPI"])
    check_ome_tiff(folder / "ome" / f"{backwards[1]}.ome.tif", backwards[1])
    same = project.export_cells(folder / "same", backwards, "npy", progress=False)
    assert content(same.parent) == content(folder / "chosen")
    with pytest.raises(ConfigError, match=r"there is no feature 'cell__aera'; did you mean 'cell__area'"):
        export_cells(project, folder / "wrong", "cell__aera > 5")


def check_tiff(path: Path) -> None:
    with tifffile.TiffFile(path) as file:
        about = file.imagej_metadata
        assert about is not None
        assert (about["Labels"], about["unit"], about["channels"]) == (["actin", "DAPI"], "um", 2)
        assert file.series[0].axes == "CYX"
        tags = file.pages.first.tags
        assert [tags[name].value for name in ("XResolution", "YResolution")] == [(4, 1), (2, 1)]


def check_ome_tiff(path: Path, cell: int) -> None:
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        assert file.series[0].axes == "CYX"
        about = tifffile.xml2dict(str(file.ome_metadata))["OME"]["Image"]
    assert about["Name"] == f"cell {cell}"
    pixels = about["Pixels"]
    assert [each["Name"] for each in pixels["Channel"]] == ["actin", "DAPI"]
    assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeY"], pixels["PhysicalSizeXUnit"]) == (0.25, 0.5, "µm")


def write_features_beside(path: Path, values: NDArray[Any], names: list[str]) -> Path:
    obs = read_h5sc(path).obs.assign(measured_in_part=False)
    beside = path.with_name("features.h5ad")
    anndata.AnnData(values.astype(np.float32), obs, pd.DataFrame(index=names)).write_h5ad(beside)
    return beside


def test_errors_while_features_are_open_are_not_about_them(
    path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_features_beside(path, np.zeros((N_CELLS, 1)), ["cell__area"])
    export_cells(path, folder, None, "npy")
    with monkeypatch.context() as patch:
        patch.setattr("cellstamp.export.folder.ExportFolder._clear_folder", unwritable)
        with pytest.raises(OutputError, match=r"crops cannot be written: .*not permitted.* call export_cells again"):
            export_cells(path, folder, None, "npy", overwrite=True)
    assert "cells.csv" not in exported(folder)
    monkeypatch.setattr("cellstamp.export.job.ExportJob.settings", unwritable)
    with pytest.raises(PermissionError, match="not permitted"):  # not one of the errors that are expected
        export_cells(path, folder, None, "npy")


def unwritable(*_: Any, **__: Any) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_features_that_cannot_be_read(path: Path, folder: Path) -> None:
    beside = write_features_beside(path, np.zeros((N_CELLS, 1)), ["cell__area"])
    with h5py.File(beside, "a") as file:
        values = file["X"][...]
        del file["X"]
        file.create_dataset("X", data=values, chunks=values.shape, fletcher32=True)
        offset = file["X"].id.get_chunk_info(0).byte_offset
    with beside.open("r+b") as raw:
        raw.seek(offset)
        raw.write(b"x")
    with pytest.raises(InputError, match=r"features\.h5ad is damaged: .*Extract again"):
        export_cells(path, folder, None, "npy")


def test_features_of_other_cells_are_an_error(path: Path, folder: Path) -> None:
    obs = pd.DataFrame({"scportrait_cell_id": np.arange(N_CELLS, dtype=np.uint64), "measured_in_part": False})
    obs.index = obs.index.astype(str)
    table = anndata.AnnData(np.zeros((N_CELLS, 1), np.float32), obs, pd.DataFrame(index=["cell__area"]))
    table.write_h5ad(path.with_name("features.h5ad"))
    with pytest.raises(InputError, match=r"features\.h5ad has other cells .*Extract again"):
        export_cells(path, folder)
    path.with_name("features.h5ad").unlink()
    export_cells(path, folder)


# --- resuming ---------------------------------------------------------------------------------------------------------

CHILD = """
import os, signal, sys
path, folder, kind, number, suffix, left = *sys.argv[1:], int(sys.argv[4])

def end_at_a_file(event, about):
    global left
    if event == "os.rename" and str(about[1]).endswith(suffix):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), int(os.environ["SIGNAL"]))

sys.addaudithook(end_at_a_file)
from cellstamp import export_cells
options = {"cells_per_shard": 7} if kind == "webdataset" else {}
export_cells(path, folder, None, kind, **options)
"""


def run_child(path: Path, folder: Path, kind: str, number: int, ending: signal.Signals, suffix: str) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "SIGNAL": str(int(ending))}
    command = [sys.executable, "-c", CHILD, str(path), str(folder), kind, str(number), suffix]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, preexec_fn=as_started_from_a_terminal
    )
    assert done.returncode == -ending, done.stderr


@pytest.mark.leaves_files
@pytest.mark.parametrize(
    ("kind", "suffix", "number", "ending"),
    [
        ("npy", ".npy", 12, signal.SIGKILL),
        ("npy", ".npy", 12, signal.SIGINT),
        ("png", ".png", 15, signal.SIGKILL),
        ("ome-tiff", ".ome.tif", 12, signal.SIGKILL),
        ("webdataset", ".tar", 3, signal.SIGKILL),
        ("npy", "cells.csv", 1, signal.SIGKILL),
    ],
)
def test_an_interrupted_export_resumes(
    path: Path, folder: Path, kind: Any, suffix: str, number: int, ending: signal.Signals, capsys: Any
) -> None:
    options: dict[str, Any] = {"cells_per_shard": 7} if kind == "webdataset" else {}
    run_child(path, folder, kind, number, ending, suffix)
    before = {name: (folder / name).stat().st_mtime_ns for name in exported(folder)}
    assert "cells.csv" not in before
    n_before = {"cells.csv": 40, ".png": 14}.get(suffix, number - 1)
    assert len(before) in {n_before, n_before + (ending == signal.SIGINT)}
    export_cells(path, folder, None, kind, **options)
    after = {name: (folder / name).stat().st_mtime_ns for name in exported(folder)}
    assert {name: after[name] for name in before} == before
    assert hidden(folder) == [".cellstamp_export.json"]
    export_cells(path, folder.with_name("other"), None, kind, **options)
    same, other = content(folder), content(folder.with_name("other"))
    assert same.keys() == other.keys()
    if kind != "ome-tiff":  # which has a new UUID each time
        assert same == other
    if n_before < 40 and ending == signal.SIGKILL:
        done = {".png": 7, ".tar": 14}.get(suffix, n_before)
        assert f"Exported 40 cells ({done} of them by an interrupted run) as {kind}" in capsys.readouterr().out


@pytest.mark.leaves_files
def test_other_settings_do_not_resume(path: Path, folder: Path) -> None:
    run_child(path, folder, "npy", 12, signal.SIGKILL, ".npy")
    begun = exported(folder)
    other = (
        r"crops: has an unfinished export with different settings or input \({}\)\. Give another folder, or set over"
    )
    for options, how in [
        ({"format": "tiff"}, "format: npy -> tiff"),
        ({"format": "npy", "channels": ["DAPI"]}, "channels: DAPI, actin -> DAPI"),
        ({"format": "npy", "cells": [5]}, "cells: 40 -> 1"),
    ]:
        with pytest.raises(OutputError, match=other.format(how)):
            export_cells(path, folder, **options)  # type: ignore[arg-type]
    assert exported(folder) == begun
    path.unlink()
    write_file(path, layout_of(N_CELLS), seed=5)
    with pytest.raises(OutputError, match="images has changed"):
        export_cells(path, folder, None, "npy")
    export_cells(path, folder, [5], "tiff", overwrite=True)
    assert exported(folder) == ["5.tif", "cells.csv"]


@pytest.mark.parametrize("kind", ["npy", "webdataset"])
def test_changed_metadata(path: Path, folder: Path, kind: Any) -> None:
    """Tar files have the metadata, so changed values make another export. In others, cells.csv has the new values."""
    values = np.arange(N_CELLS * 2).reshape(-1, 2)
    write_features_beside(path, values, ["cell__area", "cell__mean"])
    export_cells(path, folder, [8, 5], kind)
    write_features_beside(path, values + (np.arange(N_CELLS)[:, np.newaxis] > 1), ["cell__area", "cell__mean"])
    export_cells(path, folder, [8, 5], kind)  # of other cells
    write_features_beside(path, values + 1, ["cell__area", "cell__mean"])
    if kind == "webdataset":
        (folder / "cells.csv").unlink()
        with pytest.raises(OutputError, match=r"an unfinished export .* \(metadata has changed\)"):
            export_cells(path, folder, [8, 5], kind)
    table = export_cells(path, folder, [8, 5], kind, overwrite=kind == "webdataset")
    assert pd.read_csv(table)["cell__area"].tolist() == [3, 1]
    if kind == "webdataset":
        assert [each[2]["cell__area"] for each in samples_of(folder / "cells-000000.tar")] == [3, 1]
    write_features_beside(path, values[:, :1], ["cell__area"])
    if kind == "webdataset":
        with pytest.raises(OutputError, match=r"metadata: (\d+) columns -> (\d+) columns"):
            export_cells(path, folder, [8, 5], kind)
    else:
        assert "cell__mean" not in pd.read_csv(export_cells(path, folder, [8, 5], kind))


def test_changed_columns_of_obs(path: Path, folder: Path) -> None:
    export_cells(path, folder, None, "webdataset", cells_per_shard=9)
    with h5py.File(path, "a") as file:
        file["obs/first"][3] = True
    with pytest.raises(OutputError, match="metadata has changed"):
        export_cells(path, folder, None, "webdataset", cells_per_shard=9)


def test_a_finished_export_is_up_to_date(path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_cells(path, folder, None, "npy")
    before = {name: (folder / name).stat().st_mtime_ns for name in exported(folder) if name != "cells.csv"}
    capsys.readouterr()
    export_cells(path, folder, None, "npy")
    assert f"{folder} is up to date (40 cells from {path})" in capsys.readouterr().out
    (folder / "5.npy").unlink()
    (folder / "8.npy").write_bytes(b"")  # a power failure can leave this
    export_cells(path, folder, None, "npy")
    assert "Exported 40 cells (38 of them by an interrupted run)" in capsys.readouterr().out
    assert np.load(folder / "8.npy").shape == (2, 16, 16)
    changed = {name for name, time in before.items() if (folder / name).stat().st_mtime_ns != time}
    assert changed == {"5.npy", "8.npy"}


def test_other_settings_never_overwrite(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellstamp.export.file_names.CELLS_PER_FOLDER", 30)
    export_cells(path, folder)
    before = content(folder)
    assert "001/122_actin.png" in before
    with pytest.raises(OutputError, match=rf"{SETTINGS} \(scale: auto -> cell\)"):
        export_cells(path, folder, scale="cell")
    assert content(folder) == before
    (folder / "notes.txt").write_text("mine")
    (folder / "001" / "mine.png").write_text("mine")
    export_cells(path, folder, [5, 8], "webdataset", overwrite=True)
    assert exported(folder) == ["001/mine.png", "cells-000000.tar", "cells.csv", "notes.txt"]


def test_overwriting_removes_only_files_of_the_earlier_export(
    path: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of users' files look like those of an export; a folder can be replaced by a link to another disk."""
    monkeypatch.setattr("cellstamp.export.file_names.CELLS_PER_FOLDER", 30)
    export_cells(path, folder)
    elsewhere = tmp_path / "elsewhere"
    (folder / "001").rename(elsewhere)
    (folder / "001").symlink_to(elsewhere)
    (folder / "2023").symlink_to(elsewhere)
    mine = ["12345.tif", "2024/7_DAPI.png", "2024_my_figure.png", "cells-000007.tar", "000/6_DAPI.png", "000/5.npy"]
    for name in mine:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    kept = content(elsewhere)
    export_cells(path, folder, [5, 8], "webdataset", overwrite=True)
    assert exported(folder) == sorted([*mine, "cells-000000.tar", "cells.csv"])
    assert content(elsewhere) == kept
    assert (folder / "001").is_symlink()
    for name in mine:
        (folder / name).unlink()
    (folder / "001").unlink()
    export_cells(path, folder, None, "npy", overwrite=True)
    export_cells(path, folder, [5], overwrite=True)
    assert {each.name for each in folder.iterdir() if each.is_dir()} == {"2023", "2024"}


def test_overwriting_never_takes_a_file_of_a_user_for_an_exported_one(path: Path, folder: Path) -> None:
    export_cells(path, folder, [5, 8], "npy")
    (folder / "8.tif").write_text("mine")
    before = content(folder)
    with pytest.raises(OutputError, match=r"crops: 8\.tif is not a file of the earlier export.* Move it"):
        export_cells(path, folder, [5, 8], "tiff", overwrite=True)
    assert content(folder) == before


@pytest.mark.leaves_files
def test_overwriting_removes_an_unfinished_export(path: Path, folder: Path) -> None:
    run_child(path, folder, "npy", 12, signal.SIGKILL, ".npy")
    (folder / "6.npy").write_text("mine")
    export_cells(path, folder, [5], "tiff", overwrite=True)
    assert exported(folder) == ["5.tif", "6.npy", "cells.csv"]


@pytest.mark.parametrize("record", ["", "{", "[]", '{"settings": {}}', '{"settings": {}, "files": {"ids": "5 x"}}'])
def test_a_damaged_record(path: Path, folder: Path, record: str) -> None:
    export_cells(path, folder, [5, 8], "npy")
    (folder / ".cellstamp_export.json").write_text(record)
    (folder / "8.npy").write_text("damaged too")
    (folder / "9.npy").write_text("mine")
    with pytest.raises(
        OutputError, match=r"crops: \.cellstamp_export\.json is damaged.* overwrite=True to export again"
    ):
        export_cells(path, folder, [5, 8], "npy")
    export_cells(path, folder, [5, 8], "npy", overwrite=True)
    assert exported(folder) == ["5.npy", "8.npy", "9.npy", "cells.csv"]
    assert np.load(folder / "8.npy").shape == (2, 16, 16)
    export_cells(path, folder, [5, 8], "npy")


def test_a_record_never_leads_out_of_the_folder(path: Path, folder: Path) -> None:
    export_cells(path, folder, [5], "npy")
    record = json.loads((folder / ".cellstamp_export.json").read_text())
    record["files"] |= {"channels": ["/../../mine"]}
    (folder / ".cellstamp_export.json").write_text(json.dumps(record))
    (folder / "5").mkdir()
    (folder.parent / "mine.npy").write_text("mine")
    export_cells(path, folder, [5], "npy", overwrite=True)
    assert (folder.parent / "mine.npy").read_text() == "mine"


def test_folders_with_other_files_are_left_alone(path: Path, folder: Path) -> None:
    folder.mkdir()
    (folder / "5.png").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"crops: this folder has files that are not of an export \(5\.png\)"):
            export_cells(path, folder, overwrite=overwrite)
    assert exported(folder) == ["5.png"]
    assert hidden(folder) == []


def test_one_export_at_a_time(path: Path, folder: Path) -> None:
    from cellstamp.pipeline.lock import holding

    folder.mkdir()
    with (
        holding(folder / ".cellstamp_export.lock", what=folder),
        pytest.raises(OutputError, match=r"another run is writing .*crops"),
    ):
        export_cells(path, folder)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "jpg"}, r"format = 'jpg': must be one of 'png', 'tiff', 'ome-tiff', 'npy', 'webdataset'"),
        ({"format": "tiff", "color": "auto"}, r"color: is for format='png' only; tiff files have values as stored"),
        ({"format": "npy", "scale": (0, 0.5)}, r"scale: is for format='png' only; npy files have"),
        ({"scale": "image"}, r"scale = 'image': must be 'auto', 'cell', 'all', or .* like \(0, 0\.5\)"),
        ({"scale": (0.5, 0.1)}, r"scale = \(0\.5, 0\.1\): must be"),
        ({"scale": (100, 4000)}, r"scale = \(100, 4000\): must be .* from 0 to 1"),
        ({"cells_per_shard": 5}, r"cells_per_shard: is for format='webdataset' only, not 'png'"),
        (
            {"format": "webdataset", "cells_per_shard": 0},
            r"cells_per_shard = 0: must be an integer from 1 to 1,000,000,000",
        ),
        ({"format": "webdataset", "cells_per_shard": 10**30}, r"cells_per_shard = 10+: must be an integer from 1 to"),
        ({"channels": ["DAPPI"]}, r"no channel named 'DAPPI' in .*; did you mean 'DAPI'\?"),
        ({"cells": "no_such"}, r"cells = 'no_such': .* has no such column, and no features for a condition"),
        ({"cells": "kind"}, r"obs\['kind'\] of .*; it must be a boolean for every cell"),
        ({"cells": "DAPI"}, r"this is a channel or mask; write channels='DAPI'"),
        ({"cells": "missing.csv"}, r"cells = 'missing\.csv': file not found"),
        ({"cells": {"path": "a.csv"}}, r"a mapping must have 'path', a CSV file, and 'ids', its column"),
        ({"cells": [5.5]}, r"cells = \[5\.5\]: must be cell ids"),
        ({"cells": []}, r"cells: no cells are selected"),
        ({"cells": np.array([], np.uint64)}, r"cells: no cells are selected"),
        ({"cells": "kept"}, r"cells: kept is False for all 40 cells of .*single_cells\.h5sc$"),
        ({"cells": [False] * N_CELLS}, r"cells: the boolean mask is False for all 40 cells of .*single_cells\.h5sc$"),
        ({"cells": [True]}, r"cells: the boolean mask has the shape \(1,\); it must have one value for each of the 40"),
    ],
)
def test_invalid_arguments(path: Path, folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        export_cells(path, folder, **options)
    assert not folder.exists()


def test_invalid_colours(path: Path, folder: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ConfigError, match=r"color of DAPI: 'blu' is not a colour; did you mean 'blue'\?"):
        export_cells(path, folder, color={"DAPI": "blu"})
    with pytest.raises(
        ConfigError, match=r"color = \['red'\]: must be a list with a colour for each of the 2 channels"
    ):
        export_cells(path, folder, color=["red"])
    assert not folder.exists()


def test_the_unit_of_integers_is_in_the_message(tmp_path: Path, folder: Path) -> None:
    write_file(tmp_path / "crops.h5sc", layout_of(3, dtype="uint16"))
    with pytest.raises(ConfigError, match=r"from 0 to 1, where 1 stands for 65535, like"):
        export_cells(tmp_path / "crops.h5sc", folder, scale=(100, 4000))


def test_unknown_cells_are_named(path: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cells: 2 of 3 ids are not in .*single_cells\.h5sc: 6, 7\. It has 40 cells"):
        export_cells(path, folder, [5, 6, 7])
    (tmp_path / "picked.csv").write_text("cell_id\n6\n")
    with pytest.raises(InputError, match=r"1 of 1 ids are not in .*: 6"):
        export_cells(path, folder, tmp_path / "picked.csv")
    (tmp_path / "picked.csv").write_text("cell_id\naaa-1\n")
    with pytest.raises(ConfigError, match=r"the ids are text, like 'aaa-1', and .* has only numbers as ids"):
        export_cells(path, folder, tmp_path / "picked.csv")
    (tmp_path / "picked.csv").write_text("")
    with pytest.raises(ConfigError, match="the file has no ids"):
        export_cells(path, folder, tmp_path / "picked.csv")
    assert not folder.exists()


def test_ids_that_repeat(tmp_path: Path, folder: Path) -> None:
    write_file(tmp_path / "crops.h5sc", layout_of(3, cell_ids=np.array([5, 9, 9], np.uint64)))
    with pytest.raises(InputError, match="several cells have the id 9, and files are named by id"):
        export_cells(tmp_path / "crops.h5sc", folder)


def test_wrong_paths(path: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"folder = '.*single_cells\.h5sc': .*single_cells\.h5sc is a file"):
        export_cells(path, path)
    with pytest.raises(OutputError, match=r"folder = '.*single_cells\.h5sc/crops': .*single_cells\.h5sc is a file"):
        export_cells(path, path / "crops")
    with pytest.raises(ConfigError, match=r"folder = 's3://bucket/crops': must be on a disk, not a URL"):
        export_cells(path, "s3://bucket/crops")
    with pytest.raises(ConfigError, match="folder = None: must be the path of a folder"):
        export_cells(path, None)  # type: ignore[arg-type]
    some = read_h5sc(path)[3:5]
    of_anndata = r"file: is AnnData; must be the path .* cells=adata\.obs\['scportrait_cell_id'\]$"
    with pytest.raises(ConfigError, match=of_anndata):
        export_cells(some, folder)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"file: is int; must be .* or a Project$"):
        export_cells(5, folder)  # type: ignore[arg-type]
    assert ids_in(export_cells(path, folder / "some", some.obs["scportrait_cell_id"], "npy")) == IDS[3:5]
    with pytest.raises(ConfigError, match="this folder has no extraction"):
        export_cells(tmp_path, folder)
    with pytest.raises(InputError, match="there is no file"):
        export_cells(tmp_path / "none.h5sc", folder)


@pytest.mark.parametrize("name", ["x\0y", "x" * 300])
def test_names_that_no_system_allows(path: Path, folder: Path, tmp_path: Path, name: str) -> None:
    problem = "is not a valid path: (.*embedded null|File name too long)"
    with pytest.raises(ConfigError, match=rf"folder = '.*: {problem}"):
        export_cells(path, tmp_path / name)
    with pytest.raises(ConfigError, match=rf"file = '.*: {problem}"):
        export_cells(tmp_path / name, folder)
    with pytest.raises(ConfigError, match=r"cells = .*\.csv': cannot be read as a CSV file: "):
        export_cells(path, folder, f"{name}.csv")
    assert not folder.exists()


def test_colours_need_matplotlib(path: Path, folder: Path) -> None:
    code = (
        "import sys, importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name, *more: None if name == 'matplotlib' else find(name, *more)\n"
        "from cellstamp import export_cells, ConfigError\n"
        "export_cells(sys.argv[1], sys.argv[2], [5], 'png')\n"
        "assert 'matplotlib' not in sys.modules\n"
        "export_cells(sys.argv[1], sys.argv[2], [5], 'png', color='auto')\n"
    )
    command = [sys.executable, "-c", code, str(path), str(folder)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert "ConfigError: color needs matplotlib: install it with pip install 'cellstamp[plot]'" in done.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", place]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.once
@pytest.mark.parametrize("kind", ["npy", "webdataset"])
def test_a_full_disk(path: Path, small_disk: Path, kind: Any) -> None:
    options: dict[str, Any] = {"cells_per_shard": 7} if kind == "webdataset" else {}
    full = r"cells-000\d+\.tar|\d+\.npy"
    with pytest.raises(
        OutputError, match=rf"({full}) cannot be written.*Free disk space .* call export_cells again to"
    ):
        export_cells(path, small_disk / "crops", None, kind, **options)
    begun = content(small_disk / "crops")
    assert begun
    subprocess.run(["mount", "-o", "remount,size=2m", small_disk], check=True)
    export_cells(path, small_disk / "crops", None, kind, **options)
    export_cells(path, path.with_name("other"), None, kind, **options)
    assert content(small_disk / "crops") == content(path.with_name("other"))


def test_damaged_images(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "crops.h5sc"
    write_file(path, layout_of(5))
    with h5py.File(path, "a") as file:
        file["obsm/single_cell_images"][3, 2, 4, 4] = 7
    with pytest.raises(InputError, match=r"the image of cell 14 is damaged: DAPI has values outside 0 to 1"):
        export_cells(path, folder, None, "npy")
    assert "14.npy" not in exported(folder)
    assert "cells.csv" not in exported(folder)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command(path: Path, folder: Path) -> None:
    pytest.importorskip("matplotlib")
    options = ["--channel", "actin", "--channel", "DAPI", "--color", "red", "--color", "lime"]
    done = run_command("export", path, folder, "--cell", 8, "--cell", 5, *options, "--scale", "0,0.5")
    assert done.exit_code == 0, done.stderr
    assert re.fullmatch(
        rf"Exported 2 cells as png from {re.escape(str(path))} -> {re.escape(str(folder))} in .* cells/s\)\n",
        done.stdout,
    )
    assert exported(folder) == ["5.png", "8.png", "cells.csv"]
    export_cells(path, folder.with_name("other"), [8, 5], color={"actin": "red", "DAPI": "lime"}, scale=(0, 0.5))
    assert content(folder) == content(folder.with_name("other"))
    again = run_command("export", path, folder, "--format", "npy")
    assert (again.exit_code, SETTINGS in again.stderr) == (2, True)
    assert "or set --overwrite to replace it" in again.stderr
    assert run_command("export", path, folder, "--format", "npy", "--cells", "first", "--overwrite").exit_code == 0
    assert exported(folder) == ["11.npy", "5.npy", "8.npy", "cells.csv"]
    tar = ["--format", "webdataset", "--cells-per-shard", 30, "--no-progress"]
    assert run_command("export", path, folder.with_name("tar"), *tar).exit_code == 0
    assert sum(bool(SHARD.fullmatch(name)) for name in exported(folder.with_name("tar"))) == 2


def test_errors_of_the_command(path: Path, folder: Path) -> None:
    large = run_command("export", path, folder, "--format", "webdataset", "--cells-per-shard", 10**30)
    assert (large.exit_code, "Error: --cells-per-shard = 10" in large.stderr) == (2, True)
    unknown = run_command("export", path, folder, "--channel", "DAPPI", "--color", "red")
    assert (unknown.exit_code, "Error: --channel: no channel named 'DAPPI'" in unknown.stderr) == (2, True)
    few = run_command("export", path, folder, "--color", "red")
    assert (few.exit_code, "Error: --color = ['red']: must be" in few.stderr) == (2, True)
    assert "here: --color NAME once for each channel" in few.stderr
    both = run_command("export", path, folder, "--cell", 5, "--cells", "first")
    assert (both.exit_code, "--cell and --cells both choose cells" in both.stderr) == (2, True)
    wrong = run_command("export", path, folder, "--scale", "0,x")
    assert (wrong.exit_code, "scale = '0,x': must be 'auto'" in wrong.stderr) == (2, True)
    assert not folder.exists()
    shutil.copy(path, folder)
    assert "is a file. Give another folder" in run_command("export", path, folder).stderr
