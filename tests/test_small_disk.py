"""A disk that is too small: told early where that is possible, clearly when it is not, and gone on with afterwards."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest

from cellstamp import HDF5CellExtraction
from cellstamp.errors import OutputError
from cellstamp.features.declared import Feature
from cellstamp.h5sc.feature_rows import FeatureRows
from cellstamp.h5sc.feature_table import FeatureWriter, bytes_of_features, read_features
from cellstamp.h5sc.layout import Layout
from cellstamp.h5sc.opening import bytes_of
from cellstamp.h5sc.validate import errors_in
from cellstamp.pipeline.disk_space import DiskSpace, FeatureSpace
from cellstamp.zarr_store.shards import write_shard
from cellstamp.zarr_store.writer import ZarrWriter
from comparing import assert_same
from formats import NAMES, WRITERS, only_h5sc, only_zarr
from stamp_files import layout_of
from stores import Sample, make_sample, write_store
from writing import new_writer

pytestmark = pytest.mark.once

SIZE = 32
FEATURES = {"h5sc": "features.h5ad", "zarr": "features.zarr"}

MakeStep = Callable[..., HDF5CellExtraction]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cells of noise, which hardly compress."""
    sample = make_sample((500, 560))
    noise = np.random.default_rng(0).integers(1, 60000, sample.image.shape).astype(np.uint16)
    return write_store(tmp_path_factory.mktemp("store") / "s.zarr", Sample(noise, sample.masks, sample.channel_names))


@pytest.fixture
def disk(tmp_path: Path, undisturbed: Path) -> Iterator[Path]:
    """A real file system with room for two thirds of a result; its size can be changed by `resize`."""
    place = tmp_path / "disk"
    place.mkdir()
    size = bytes_of(undisturbed) * 2 // 3
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def resize(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


@pytest.fixture
def make_step(store: Path, disk: Path, file_format: str) -> MakeStep:
    def make(**config: Any) -> HDF5CellExtraction:
        return HDF5CellExtraction({**keys, **config}, disk / "out", filehandler=store)

    keys = {
        "threads": 1,
        "image_size": SIZE,
        "cache": str(disk.parent / "cache"),
        "max_batch_size": 10,
        "flush_every": 2,
        "file_format": file_format,
    }
    return make


@pytest.fixture(scope="module")
def undisturbed(store: Path, file_format: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    keys = {"threads": 1, "image_size": SIZE, "cache": str(folder / "cache"), "file_format": file_format}
    HDF5CellExtraction(keys, folder, filehandler=store)()
    return folder / "data" / NAMES[file_format]


def assert_goes_on(make_step: MakeStep, disk: Path, undisturbed: Path, threads: int) -> None:
    """Once there is room, the run goes on, and makes what an undisturbed one makes."""
    resize(disk, "20m")
    make_step(threads=threads)()
    assert "Resuming: " in (disk / "out/processing.log").read_text()
    assert_same(disk / "out/data" / undisturbed.name, undisturbed)
    assert errors_in(disk / "out/data" / undisturbed.name) == []


@pytest.mark.leaves_files
@pytest.mark.parametrize("threads", [1, 2])
def test_what_can_not_fit_is_stopped_early_and_gone_on_with(
    make_step: MakeStep, disk: Path, undisturbed: Path, threads: int
) -> None:
    with pytest.raises(OutputError, match=r"images of the remaining \d+ cells need about .*B, and only "):
        make_step(threads=threads)()
    assert_goes_on(make_step, disk, undisturbed, threads)


@pytest.mark.leaves_files
@pytest.mark.parametrize("threads", [1, 2])
def test_a_disk_that_is_full_all_of_a_sudden(
    make_step: MakeStep, disk: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """As if someone else had filled it between two looks."""
    monkeypatch.setattr("cellstamp.pipeline.disk_space._TOLERANCE", 0.0)
    with pytest.raises(OutputError, match=r"cannot be written.*(No space left|errno = 28).*extract again"):
        make_step(threads=threads)()
    assert_goes_on(make_step, disk, undisturbed, threads)


@only_h5sc
@pytest.mark.leaves_files
def test_the_command_line_ends_with_an_error_and_not_with_a_crash(store: Path, disk: Path) -> None:
    """HDF5 crashes at the end of a process that has a file open which it cannot write."""
    code = (
        "import sys\n"
        "from cellstamp import HDF5CellExtraction\n"
        "from cellstamp.pipeline import disk_space\n"
        "disk_space._TOLERANCE = 0.0\n"
        "config = {'threads': 1, 'image_size': 32, 'max_batch_size': 10, 'flush_every': 2, 'cache': sys.argv[2]}\n"
        "HDF5CellExtraction(config, sys.argv[2] + '/out', filehandler=sys.argv[1])()\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, store, disk], capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stderr
    message, note = ended.stderr.splitlines()[-2:]
    assert "OutputError" in message
    assert note.startswith("Finished cells are kept (")


@only_zarr
@pytest.mark.parametrize("n_bytes", [100, 2**20], ids=["in the buffer", "larger"])
def test_a_shard_for_which_there_is_no_room(disk: Path, n_bytes: int) -> None:
    """Closing a file writes what is left of it, and fails, too."""
    shard = disk / "c/0/0/0/0"
    shard.parent.mkdir(parents=True)
    (disk / "full").write_bytes(bytes(shutil.disk_usage(disk).free))
    with pytest.raises(OutputError, match=r"c/0/0/0/0 cannot be written: .*No space left.*extract again"):
        write_shard(shard, [bytes(n_bytes)] * 2)
    assert [*shard.parent.iterdir()] == []


@only_zarr
@pytest.mark.leaves_files
@pytest.mark.parametrize("moment", ["before the journal", "before the tables"])
def test_a_disk_that_is_full_when_shards_are_written(
    make_step: MakeStep, disk: Path, undisturbed: Path, moment: str
) -> None:
    """The tables of a store are written last. `.h5sc` files reserve space."""

    def fill() -> None:
        (disk / "full").write_bytes(bytes(shutil.disk_usage(disk).free))

    class Writer(ZarrWriter):
        n_flushed = 0

        def flush(self) -> None:
            self.n_flushed += 1
            if moment == "before the journal" and self.n_flushed == 3:
                fill()
            super().flush()

        def describe(self, *args: Any) -> None:
            if moment == "before the tables":
                fill()
            super().describe(*args)

    resize(disk, "20m")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WRITERS["zarr"][0], Writer)
        with pytest.raises(OutputError, match=r"(No space left on device|only 0 bytes are free).* extract again"):
            make_step()()
    assert not (disk / "out/data").exists() or not any((disk / "out/data").iterdir())
    (disk / "full").unlink()
    assert_goes_on(make_step, disk, undisturbed, 1)


@only_h5sc
@pytest.mark.parametrize("free", [0, 2**12, 2**15, 2**18])
def test_a_new_file_for_which_there_is_no_room(disk: Path, free: int) -> None:
    """HDF5 could neither write nor close it: the process would crash when it exits."""
    (disk / "full").write_bytes(bytes(shutil.disk_usage(disk).free - free))
    with pytest.raises(OutputError, match=r"f\.h5sc cannot be written: .*No space left"):
        new_writer(disk / "f.h5sc", layout_of(2000))


def write_features(path: Path, layout: Layout, rows: FeatureRows) -> None:
    n_features = rows.n_values - 1
    features = [Feature(f"cell__feature-{k}__channel", "shape", "cell", "channel", "unit") for k in range(n_features)]
    FeatureWriter(path, layout, features).finish({"version": "1"}, np.array([], np.int64), rows)


@pytest.mark.parametrize("free", [0, 2**12, 2**15, 2**18, 2**20])
def test_a_table_of_features_for_which_there_is_no_room(
    disk: Path, tmp_path: Path, file_format: str, free: int
) -> None:
    resize(disk, "3m")
    values = np.random.default_rng(0).random((8000, 41), np.float32)
    (disk / "full").write_bytes(bytes(shutil.disk_usage(disk).free - free))
    path = disk / FEATURES[file_format]
    with FeatureRows(tmp_path / "rows", *values.shape) as rows:
        rows.put(range(8000), values)
        with pytest.raises(OutputError, match=rf"{path.name} cannot be written: .*No space left"):
            write_features(path, layout_of(8000), rows)


@only_h5sc
@pytest.mark.parametrize("instances", [None, np.array(["é" * 40 + str(k) for k in range(3000)])], ids=["ids", "texts"])
def test_a_table_of_features_has_reserved_its_space(disk: Path, tmp_path: Path, instances: Any) -> None:
    """Another program fills the disk as soon as the file exists."""
    resize(disk, "20m")
    values, layout = np.ones((3000, 201), np.float32), layout_of(3000, instances=instances)

    class Rows(FeatureRows):
        def blocks(self) -> Any:
            (disk / "full").write_bytes(bytes(shutil.disk_usage(disk).free))
            yield from super().blocks()

    with Rows(tmp_path / "rows", *values.shape) as rows:
        rows.put(range(3000), values)
        write_features(disk / "features.h5ad", layout, rows)
    found = anndata.read_h5ad(disk / "features.h5ad")
    assert (found.X == 1).all()
    size = (disk / "features.h5ad").stat().st_size
    assert size < bytes_of_features(layout, 200) < 1.5 * size


@pytest.mark.leaves_files
@pytest.mark.parametrize("moment", ["__init__", "finish"])
def test_a_disk_that_is_full_when_features_are_written(
    make_step: MakeStep, disk: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The table begins before cells are measured, and ends after it."""
    as_before = getattr(FeatureWriter, moment)

    def fill(*args: Any) -> None:
        (disk / "full").write_bytes(bytes(shutil.disk_usage(disk).free))
        as_before(*args)

    resize(disk, "20m")
    with monkeypatch.context() as patch:
        patch.setattr(FeatureWriter, moment, fill)
        with pytest.raises(OutputError, match=r"features\.\w+ cannot be written: .*No space left.* extract again"):
            make_step(features=True)()
    (disk / "full").unlink()
    step = make_step(features=True)
    step()
    assert ("Resuming: " in (disk / "out/processing.log").read_text()) == (moment == "finish")
    assert errors_in(Path(str(step.output_path))) == []
    assert len(read_features(Path(str(step.output_path)))) > 0


@pytest.mark.leaves_files
def test_the_space_for_features_is_counted(make_step: MakeStep, disk: Path, undisturbed: Path) -> None:
    resize(disk, str(bytes_of(undisturbed) + 2**18))
    with pytest.raises(OutputError, match=r"the images and features of the remaining \d+ cells need about .*B, and"):
        make_step(features=True)()
    resize(disk, "20m")
    make_step(features=True)()


def test_the_space_for_features_of_images_in_an_object_store(disk: Path) -> None:
    resize(disk, "1m")
    for n_features, is_enough in ((1000, False), (10, True)):
        room = DiskSpace(disk, 110, FeatureSpace.of(layout_of(110), n_features), images=False)
        room.wrote(10, 10**9)
        if is_enough:
            room.check()
        else:
            with pytest.raises(OutputError, match=r": the features of the remaining 100 cells need about 2.* MB, and"):
                room.check()


def test_what_can_never_fit_is_told_before_any_work(make_step: MakeStep, disk: Path) -> None:
    (disk / "full").write_bytes(bytes(shutil.disk_usage(disk).free - 2**16))
    with pytest.raises(OutputError, match=r"images of \d+ cells need at least .*B, and only .*B are free there"):
        make_step(compression=False)()
    assert not (disk / "out/.unfinished_data").exists()


def test_a_folder_that_cannot_be_written(make_step: MakeStep, disk: Path) -> None:
    step = make_step()
    step.log("it can be, so far")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    try:
        with pytest.raises(OutputError, match=r"(?i)cannot be written: Read-only file system"):
            step()
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
