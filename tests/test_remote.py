"""Stores behind a URL, and stores that must not be written to: read as any other, and never changed."""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from cellstamp import HDF5CellExtraction
from cellstamp.errors import InputError
from cellstamp.location import is_writable
from cellstamp.source.load.store import store_centers
from cellstamp.source.points import load_centers
from comparing import contents
from stores import NUCLEUS, as_spatialdata, make_sample, write_store

SAMPLE = make_sample((120, 150))


class Server:
    """A folder on the loopback interface, and what was asked of it; ``fail`` makes it answer with an error."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        self.fail: Callable[[str], int | None] = lambda path: None
        server = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *args: Any) -> None:
                del args

            def send_head(self) -> Any:
                server.asked.append(f"{self.command} {self.path}")
                code = server.fail(self.path)
                if code is not None:
                    return self.send_error(code)
                return super().send_head()

        made = functools.partial(Handler, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), made)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("served") / "sample.zarr", SAMPLE, chunks=80).parent


@pytest.fixture
def served(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    yield server
    server.close()


@pytest.fixture
def extract(tmp_path: Path) -> Callable[..., HDF5CellExtraction]:
    def run(handler: Any, name: str = "out", **config: Any) -> HDF5CellExtraction:
        keys = {"threads": 1, "image_size": 20, "cache": str(tmp_path / "cache"), **config}
        step = HDF5CellExtraction(keys, tmp_path / name, filehandler=handler)
        step()
        return step

    return run


Extract = Callable[..., HDF5CellExtraction]


def listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Everything in a folder and itself, with what would change if it were written to."""
    paths = [folder, *folder.rglob("*")]
    return {
        str(path): (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        for path in paths
        for stat in [path.stat(follow_symlinks=False)]
    }


def assert_same_cells(step: HDF5CellExtraction, other: HDF5CellExtraction) -> None:
    """The files are the same but for the digests of where they are from: bytes of chunks are sampled on a disk only."""
    here, there = contents(str(step.output_path)), contents(str(other.output_path))
    differing = {key for key in {**here, **there} if here.get(key) != there.get(key)}
    assert differing <= {"uns/cellstamp/made_from", "uns/cellstamp/begun_from", "uns/cellstamp/fingerprint"}


def log(step: HDF5CellExtraction) -> str:
    return (Path(step.directory) / "processing.log").read_text()


def as_text(url: str) -> Any:
    return url


def as_upath(url: str) -> Any:
    return pytest.importorskip("upath").UPath(url)


def as_handler(url: str) -> Any:
    return SimpleNamespace(sdata_path=url)


@pytest.mark.parametrize(("given", "threads"), [(as_text, 1), (as_text, 2), (as_upath, 1), (as_handler, 1)])
def test_a_store_behind_http_gives_the_same_file(
    tmp_path: Path, folder: Path, served: Server, extract: Extract, threads: int, given: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    before = listing(folder)
    step = extract(given(f"{served.url}/sample.zarr"), threads=threads, max_batch_size=5)
    assert listing(folder) == before
    assert {path.name for path in tmp_path.iterdir()} == {"out", "cache"}  # no folder named "http:"
    assert "computing them" in log(step)
    assert "did not store the centres (a remote store is only read)" in log(step)
    assert int(pd.read_csv(tmp_path / "out/benchmarking.csv")["workers"].iloc[-1]) == threads
    assert {asked.split()[0] for asked in served.asked} <= {"GET", "HEAD"}
    copy = shutil.copytree(folder / "sample.zarr", tmp_path / "copy.zarr")
    assert_same_cells(step, extract(copy, "local"))


def test_stored_centres_are_read_over_http(tmp_path: Path, extract: Extract) -> None:
    store = write_store(tmp_path / "web" / "sample.zarr", SAMPLE)
    local = extract(store, store_centers="always")
    served = Server(tmp_path / "web")
    try:
        step = extract(f"{served.url}/sample.zarr", "remote")
        assert (
            load_centers(f"{served.url}/sample.zarr", NUCLEUS).ids.tolist() == load_centers(store, NUCLEUS).ids.tolist()
        )
    finally:
        served.close()
    assert "computing them" not in log(step)
    assert_same_cells(step, local)


def with_middles() -> Any:
    from spatialdata.models import PointsModel

    sdata = as_spatialdata(SAMPLE)
    frame = pd.DataFrame({"x": [40.0, 50.0, 60.0], "y": [40.0, 50.0, 60.0]}, index=[3, 12, 24])
    import dask.dataframe

    parts = dask.dataframe.from_pandas(frame, npartitions=3)
    sdata["middles"] = PointsModel.parse(parts, coordinates={"x": "x", "y": "y"})
    return sdata


@pytest.mark.filterwarnings("ignore")  # what the libraries say when elements are made, and of cells without pixels
def test_given_centres_in_several_files_are_read_over_http(tmp_path: Path, extract: Extract) -> None:
    with_middles().write(tmp_path / "web" / "sample.zarr")
    parts = list((tmp_path / "web" / "sample.zarr" / "points/middles/points.parquet").glob("*.parquet"))
    assert len(parts) == 3
    local = extract(tmp_path / "web" / "sample.zarr", centers="middles")
    served = Server(tmp_path / "web")
    try:
        step = extract(f"{served.url}/sample.zarr", "remote", centers="middles")
        served.fail = lambda path: 404 if path.rstrip("/").endswith("points.parquet") else None
        with pytest.raises(InputError, match=r"points 'middles' in http.*: .* the server does not list its files"):
            extract(f"{served.url}/sample.zarr", "unlisted", centers="middles")
    finally:
        served.close()
    assert "centres of 3 cells from 'middles'" in log(step)
    assert_same_cells(step, local)


@pytest.mark.parametrize("code", [403, 404])
def test_a_server_that_lists_nothing(served: Server, folder: Path, extract: Extract, code: int) -> None:
    """What is in the store is in its consolidated metadata."""
    served.fail = lambda path: code if path.endswith("/") else None
    step = extract(f"{served.url}/sample.zarr")
    assert "to extract" in log(step)
    assert not (folder / "sample.zarr/points").exists()


def test_a_server_that_lists_nothing_and_a_store_that_does_not_say(tmp_path: Path, extract: Extract) -> None:
    store = write_store(tmp_path / "web" / "sample.zarr", SAMPLE)
    content = json.loads((store / "zarr.json").read_text())
    del content["consolidated_metadata"]
    (store / "zarr.json").write_text(json.dumps(content))
    served = Server(tmp_path / "web")
    try:
        extract(f"{served.url}/sample.zarr")
        served.fail = lambda path: 404 if path.endswith("/") else None
        with pytest.raises(InputError, match=r"sample\.zarr cannot be read: its server does not list files"):
            extract(f"{served.url}/sample.zarr", "unlisted")
    finally:
        served.close()


@pytest.mark.parametrize("code", [403, 500])
def test_errors_of_a_server(served: Server, extract: Extract, code: int) -> None:
    served.fail = lambda path: code
    with pytest.raises(InputError, match=rf"{served.url}/sample\.zarr cannot be read: .*{code}.* Check the address"):
        extract(f"{served.url}/sample.zarr")


@pytest.mark.parametrize("threads", [1, 2])
def test_a_server_that_fails_in_the_middle(served: Server, extract: Extract, threads: int) -> None:
    served.fail = lambda path: 503 if "/images/input_image/" in path and "/c/0/1/" in path else None
    with pytest.raises(InputError, match=rf"'input_image' cannot be read: .* in {served.url}/sample\.zarr, rows .*503"):
        extract(f"{served.url}/sample.zarr", threads=threads)


def test_nothing_at_the_address(served: Server, extract: Extract) -> None:
    with pytest.raises(InputError, match=rf"{served.url}/other\.zarr is not a SpatialData zarr store"):
        extract(f"{served.url}/other.zarr")


def test_a_server_that_is_gone(folder: Path, extract: Extract) -> None:
    served = Server(folder)
    served.close()
    with pytest.raises(
        InputError, match=rf"{served.url}/sample\.zarr cannot be read: .*Check the address, and whether"
    ):
        extract(f"{served.url}/sample.zarr")


def test_an_unknown_kind_of_address(extract: Extract) -> None:
    with pytest.raises(InputError, match=r"gopher://a/b\.zarr cannot be read: .*Protocol not known: gopher"):
        extract("gopher://a/b.zarr")


def test_a_missing_package_is_named(extract: Extract) -> None:
    pytest.importorskip("fsspec")
    try:
        import gcsfs  # noqa: F401
    except ImportError:
        with pytest.raises(
            InputError, match=r"gs://a/b\.zarr cannot be opened: a required package is not installed: .*gcsfs"
        ):
            extract("gs://a/b.zarr")


def test_options_of_a_universal_path(extract: Extract) -> None:
    upath = pytest.importorskip("upath")
    with pytest.raises(InputError, match=r"s3://bucket/a\.zarr has the options anon, .*fsspec's configuration"):
        extract(upath.UPath("s3://bucket/a.zarr", anon=True))


def test_a_file_url_is_only_read(folder: Path, extract: Extract, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    before = listing(folder)
    step = extract(f"file://{folder}/sample.zarr", threads=2)
    assert "(a remote store is only read)" in log(step)
    assert listing(folder) == before
    assert {path.name for path in tmp_path.iterdir()} == {"out", "cache"}


def test_centres_are_not_stored_behind_a_url(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"http://127.0.0.1/a\.zarr is a URL: centres are stored in folders only"):
        store_centers("http://127.0.0.1/a.zarr", NUCLEUS, None)
    assert list(tmp_path.iterdir()) == []


# --- folders ----------------------------------------------------------------------------------------------------------


def test_the_store_of_an_object_is_only_read(folder: Path, extract: Extract) -> None:
    from cellstamp.source.load.store import open_sdata

    before = listing(folder)
    step = extract(open_sdata(folder / "sample.zarr"))
    assert listing(folder) == before
    assert re.search(r"did not store the centres \(a SpatialData object is only read; give the path", log(step))


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A read-only store; for root, who may ignore permissions, on a read-only file system."""
    place = tmp_path / "shelf"
    write_store(place / "sample.zarr", SAMPLE)
    if os.geteuid() != 0:
        subprocess.run(["chmod", "-R", "a-w", str(place)], check=True)
        yield place / "sample.zarr"
        subprocess.run(["chmod", "-R", "u+w", str(place)], check=True)
        return
    bind = subprocess.run(["mount", "--bind", str(place), str(place)], capture_output=True, check=False)
    if bind.returncode:
        pytest.skip("root that may not mount: nothing would stop it from writing")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
        yield place / "sample.zarr"
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_store_that_is_read_only(read_only: Path, extract: Extract, threads: int) -> None:
    with pytest.raises(OSError, match=r"[Rr]ead-only|[Pp]ermission"):
        (read_only / "new").touch()
    before = listing(read_only.parent)
    step = extract(read_only, threads=threads)
    assert "did not store the centres (the store cannot be written to)" in log(step)
    assert listing(read_only.parent) == before


def test_what_nobody_may_change_is_left_alone_by_root_too(tmp_path: Path, folder: Path, extract: Extract) -> None:
    store = tmp_path / "closed.zarr"
    shutil.copytree(folder / "sample.zarr", store)
    subprocess.run(["chmod", "-R", "a-w", str(store)], check=True)
    before = listing(store)
    try:
        extract(store)
        assert listing(store) == before
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(store)], check=True)


def test_what_makes_a_store_writable(tmp_path: Path, read_only: Path) -> None:
    assert is_writable(str(write_store(tmp_path / "s.zarr", SAMPLE)))
    assert not is_writable(str(read_only))
    assert not is_writable("http://127.0.0.1/s.zarr")
