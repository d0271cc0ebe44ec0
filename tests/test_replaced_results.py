"""A finished result that is replaced while a program reads it, and names that a new result cannot take."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest

from cellstamp import HDF5CellExtraction, cell_images, iter_batches, read_h5sc
from cellstamp.errors import InputError, OutputError
from cellstamp.system import replace_folder
from comparing import assert_same, contents
from formats import CELLS_PER_SHARD, NAMES, only_zarr
from stores import make_sample, write_store

pytestmark = pytest.mark.once

IMAGES = "single_cell_images"
REPLACED = r"was replaced or removed after it was opened: open it again"


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("slide") / "s.zarr", make_sample())


@pytest.fixture(scope="module")
def versions(slide: Path, file_format: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two results with the same cells and other values, equal in size without compression."""
    folder = tmp_path_factory.mktemp("versions")
    for number, normalize in enumerate((True, False)):
        extract(slide, folder / str(number), file_format, normalize_output=normalize)
    return folder / "0/data" / NAMES[file_format], folder / "1/data" / NAMES[file_format]


def extract(slide: Path, folder: Path, file_format: str, *, overwrite: bool = False, **config: Any) -> None:
    keys = {"threads": 1, "image_size": 32, "compression": False, "file_format": file_format, **config}
    keys["cache"] = str(folder.parent / "cache")
    HDF5CellExtraction(keys, folder, overwrite=overwrite, filehandler=slide)()


@pytest.fixture
def result(versions: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the first version."""
    source = versions[0]
    copy = shutil.copytree if source.is_dir() else shutil.copy
    return Path(copy(source, tmp_path / source.name))


@pytest.fixture
def replace(result: Path, versions: tuple[Path, Path]) -> Callable[[], None]:
    """Put the second version in the place of the first."""

    def replace() -> None:
        new = result.with_name("new")
        if result.is_dir():
            shutil.copytree(versions[1], new)
            replace_folder(new, result)
        else:
            shutil.copy(versions[1], new).replace(result)

    return replace


def test_an_open_result(result: Path, versions: tuple[Path, Path], replace: Callable[[], None]) -> None:
    """An open file stays what it is. Zarr opens the files of a store one by one, which would mix both stores."""
    data = read_h5sc(result)
    images, copied = data.obsm[IMAGES], data.copy()
    expected = images[:]
    replace()
    for read in (lambda: images[:], lambda: images[3, 2], lambda: copied.obsm[IMAGES][:], lambda: cell_images(data)):
        if result.is_dir():
            with pytest.raises(InputError, match=rf"{result.name} {REPLACED}"):
                read()
        else:
            read()
    if result.is_file():
        np.testing.assert_array_equal(images[:], expected)
        images.file.close()
    np.testing.assert_array_equal(cell_images(result), cell_images(versions[1]))


@only_zarr
def test_a_pickled_result(result: Path, replace: Callable[[], None]) -> None:
    """Of files, see `test_using_images.py`."""
    pickled = pickle.dumps(read_h5sc(result))
    assert pickle.loads(pickled).obsm[IMAGES][0].size
    replace()
    with pytest.raises(InputError, match=REPLACED):
        pickle.loads(pickled).obsm[IMAGES][:]


def test_batches_of_a_store_that_is_replaced_meanwhile(
    result: Path, versions: tuple[Path, Path], replace: Callable[[], None]
) -> None:
    expected = np.concatenate([images for images, _ in iter_batches(versions[0], 4)])
    batches = iter_batches(result, 4)
    found = [next(batches)[0]]
    replace()
    with pytest.raises(InputError, match="was modified after it was opened") if result.is_dir() else nullcontext():
        found.extend(images for images, _ in batches)
    found_images = np.concatenate(found)
    np.testing.assert_array_equal(found_images, expected[: len(found_images)])
    assert result.is_dir() or len(found_images) == len(expected)


@only_zarr
@pytest.mark.parametrize("way", ["read_h5sc", "cell_images"])
def test_a_store_is_read_from_one_version_or_not_at_all(
    result: Path, versions: tuple[Path, Path], replace: Callable[[], None], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """It is replaced after the first of its tables was read, or the second, and so on."""
    read_elem, n_left = anndata.io.read_elem, 0

    def read(element: Any) -> Any:
        nonlocal n_left
        n_left -= 1
        found = read_elem(element)
        if n_left == 0:
            replace()
        return found

    monkeypatch.setattr(anndata.io, "read_elem", read)
    images_of = {
        "read_h5sc": lambda path: _by_id(read_h5sc(path)),
        "cell_images": lambda path: dict(enumerate(cell_images(path, [20, 30, 40]))),
    }[way]
    expected, outcomes = images_of(versions[0]), []
    for number in range(1, 9):
        shutil.rmtree(result)
        shutil.copytree(versions[0], result)
        n_left = number
        found: dict[int, Any] = {}
        with suppress(InputError):
            found = images_of(result)
        assert all(np.array_equal(found[cell], expected[cell]) for cell in found)
        outcomes.append("read" if found else "refused")
        assert bool(found) == (n_left > 0)
    assert set(outcomes) == {"refused", "read"}


def _by_id(data: anndata.AnnData) -> dict[int, Any]:
    return dict(zip(data.obs["scportrait_cell_id"], data.obsm[IMAGES][:], strict=True))


# --- names -----------------------------------------------------------------------------------------------------------


def test_a_result_that_cannot_take_its_name_leaves_the_old_one(
    tmp_path: Path, slide: Path, file_format: str, versions: tuple[Path, Path]
) -> None:
    """The folder is on another disk: nothing can be renamed to there."""
    extract(slide, tmp_path / "out", file_format)
    data = tmp_path / "out/data"
    mounted = subprocess.run(["mount", "--bind", data, data], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    try:
        before = contents(data / NAMES[file_format])
        told = r"(?s)out/data cannot be written: .*cross-device link.*extract again.*cells are kept \(\d+ of \d+\)"
        with pytest.raises(OutputError, match=told):
            extract(slide, tmp_path / "out", file_format, overwrite=True, normalize_output=False)
        assert contents(data / NAMES[file_format]) == before
    finally:
        subprocess.run(["umount", data], check=True)
    extract(slide, tmp_path / "out", file_format, overwrite=True, normalize_output=False)
    assert "Resuming: " in (tmp_path / "out/processing.log").read_text()
    assert_same(data / NAMES[file_format], versions[1])


@only_zarr
@pytest.mark.parametrize("kind", ["file", "link", "broken link"])
def test_what_has_the_name_of_a_store_is_replaced(
    tmp_path: Path, slide: Path, versions: tuple[Path, Path], kind: str
) -> None:
    """A link is replaced, and not followed."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/mine").write_text("mine")
    target = tmp_path / "out/data/single_cells.zarr"
    target.parent.mkdir(parents=True)
    if kind == "file":
        target.write_text("a file")
    else:
        target.symlink_to(tmp_path / ("elsewhere" if kind == "link" else "nowhere"))
    for _ in range(2):
        extract(slide, tmp_path / "out", "zarr", overwrite=True)
        assert_same(target, versions[0])
        assert sorted(path.name for path in target.parent.iterdir()) == ["removed_classes.zarr.csv", target.name]
    assert (tmp_path / "elsewhere/mine").read_text() == "mine"


_KILLED_BETWEEN_RENAMES = f"""
import os, signal, sys
from cellstamp import HDF5CellExtraction, system
from cellstamp.zarr_store import layout
layout.MOST_ROWS = {CELLS_PER_SHARD}
move = system.move_folder

def move_and_end(source, target):
    move(source, target)
    os.kill(os.getpid(), signal.SIGKILL)

system.move_folder = move_and_end
keys = {{"threads": 1, "image_size": 32, "compression": False, "file_format": "zarr", "normalize_output": False}}
keys["cache"] = sys.argv[1] + "/cache"
HDF5CellExtraction(keys, sys.argv[1] + "/out", overwrite=True, filehandler=sys.argv[2])()
"""


@only_zarr
@pytest.mark.leaves_files
def test_a_run_that_is_killed_between_two_renames_is_completed_by_the_next(
    tmp_path: Path, slide: Path, versions: tuple[Path, Path]
) -> None:
    extract(slide, tmp_path / "out", "zarr")
    data = tmp_path / "out/data"
    code = [sys.executable, "-c", _KILLED_BETWEEN_RENAMES, tmp_path, slide]
    assert subprocess.run(code, capture_output=True, check=False).returncode == -9
    assert_same(data / ".single_cells.zarr.replaced", versions[0])
    assert not (data / "single_cells.zarr").exists()
    extract(slide, tmp_path / "out", "zarr", overwrite=True, normalize_output=False)
    log = (tmp_path / "out/processing.log").read_text()
    n_cells = read_h5sc(versions[0]).n_obs
    assert f"Resuming: {n_cells} of {n_cells} cells done" in log
    assert_same(data / "single_cells.zarr", versions[1])
    assert sorted(path.name for path in data.iterdir()) == ["removed_classes.zarr.csv", "single_cells.zarr"]
