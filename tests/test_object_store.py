"""Zarr stores in an object store: written by workers, read as local ones, resumed, and never half-made."""

from __future__ import annotations

import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import anndata
import fsspec
import numpy as np
import pytest
import zarr

from cellstamp import HDF5CellExtraction, Project, cell_images, iter_batches, plot_cells, read_h5sc
from cellstamp.errors import ConfigError, InputError, OutputError
from cellstamp.h5sc.cell_columns import columns_of_features
from cellstamp.h5sc.feature_table import features_beside, read_features
from cellstamp.h5sc.kept_and_removed import kept_and_removed
from cellstamp.h5sc.reader import describe_h5sc
from cellstamp.h5sc.validate import errors_in
from cellstamp.location import location_of
from commands import run_command
from formats import cells_per_shard
from stamp_tasks import Interrupted, Refused
from stores import make_sample, write_store

pytest.importorskip("moto.server")

_DRAWN = make_sample((1100, 900))
# from the last to the first: cell 40, at which runs end, is in one of the last shards
SAMPLE = _DRAWN.with_ids(np.arange(int(_DRAWN.masks["seg_all_cytosol"].max()), 0, -1, dtype=np.uint32))
# each worker takes a second to import the file system
CONFIG = {"engine": "serial", "image_size": 24, "file_format": "zarr"}
TWO_WORKERS = {"engine": "processes", "threads": 2}
IMAGES = "single_cell_images"
RESULT = "data/single_cells.zarr"
ROWS = 256


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """An S3 server on the loopback interface."""
    code = (
        "import sys; from moto.server import ThreadedMotoServer\n"
        "server = ThreadedMotoServer('127.0.0.1', 0, verbose=False); server.start()\n"
        "print(server.get_host_and_port()[1], flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.kill()


@pytest.fixture(autouse=True)
def credentials(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)


@pytest.fixture
def files(credentials: None) -> Any:
    return fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)


@pytest.fixture
def bucket(files: Any, request: pytest.FixtureRequest) -> str:
    name = f"bucket-{abs(hash(request.node.name))}"
    files.mkdir(name)
    return f"s3://{name}/run"


@pytest.fixture(scope="module", autouse=True)
def several_shards() -> Iterator[None]:
    with cells_per_shard(ROWS):
        yield


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("slide") / "s.zarr", SAMPLE, chunks=1025)


@pytest.fixture(scope="module")
def local(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(extract(slide, tmp_path_factory.mktemp("local") / "out", None))


def extract(slide: Path, folder: Path, url: str | None, *, overwrite: bool = False, **config: Any) -> str:
    keys = {**CONFIG, "cache": str(folder.parent / "cache"), "output_url": url, **config}
    step = HDF5CellExtraction(keys, folder, filehandler=slide, overwrite=overwrite)
    step()
    return str(step.output_path)


@pytest.fixture(params=[{}])
def url(slide: Path, bucket: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A finished store."""
    return extract(slide, tmp_path / "out", bucket, **request.param)


def objects(files: Any, url: str) -> dict[str, bytes]:
    prefix = url.removeprefix("s3://") + "/"
    return {path.removeprefix(prefix): files.cat_file(path) for path in files.find(url)}


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def shards(stored: dict[str, bytes]) -> dict[str, bytes]:
    return {name: value for name, value in stored.items() if name.startswith(f"obsm/{IMAGES}/c/")}


@pytest.mark.parametrize("url", [TWO_WORKERS], indirect=True, ids=["two workers"])
def test_a_bucket_gets_what_a_folder_gets(url: str, bucket: str, local: Path, tmp_path: Path, files: Any) -> None:
    assert url == f"{bucket}/{RESULT}"
    found, expected = objects(files, url), content(local)
    assert {name for name in found if "output_url" not in name} == set(expected)
    assert shards(found) == shards(expected)
    assert len(shards(found)) > 4
    removed = (local.parent / "removed_classes.zarr.csv").read_bytes()
    assert files.cat_file(f"{bucket}/data/removed_classes.zarr.csv") == removed
    assert kept_and_removed(url).removed.tolist() == kept_and_removed(local).removed.tolist()
    kept = {path.name: path for path in (tmp_path / "out" / "data").iterdir()}
    assert kept["single_cells.url"].read_text(encoding="utf-8") == f"{url}\n"
    assert kept["removed_classes.url.csv"].read_bytes() == removed
    assert len(kept) == 2
    assert not list((tmp_path / "out").glob(".*"))


def test_all_readers_read_it(url: str, local: Path, tmp_path: Path) -> None:
    expected, found = read_h5sc(local), read_h5sc(url)
    images, ids = expected.obsm[IMAGES][:], expected.obs["scportrait_cell_id"].to_numpy()
    assert found.obs.equals(expected.obs)
    np.testing.assert_array_equal(found.obsm[IMAGES][:], images)
    np.testing.assert_array_equal(found.obsm[IMAGES][3, 1], images[3, 1])
    group = zarr.open_group(url, mode="r")
    np.testing.assert_array_equal(group[f"obsm/{IMAGES}"][:5], images[:5])
    np.testing.assert_array_equal(anndata.io.read_elem(group["obsm/spatial"]), expected.obsm["spatial"])
    np.testing.assert_array_equal(cell_images(url, ids[[5, 2]], ["actin"]), images[[5, 2]][:, [3]])
    batches = list(iter_batches(url, batch_size=100, channels=[0, 1, 2]))
    np.testing.assert_array_equal(np.concatenate([each for each, _ in batches]), images[:, :3].astype(np.float32))
    assert errors_in(url) == []
    about, ours = describe_h5sc(url), describe_h5sc(local)
    assert (about.n_cells, about.channel_names, about.raw_bytes) == (ours.n_cells, ours.channel_names, ours.raw_bytes)
    assert about.file_bytes > ours.stored_bytes
    assert plot_cells(url, n=4) is not None
    assert f"file           {url}" in run_command("info", url).output
    assert run_command("validate", url).output == f"{url} is valid\n"
    drawn = run_command("preview", url, "-o", tmp_path / "p.png")
    assert (drawn.exit_code, (tmp_path / "p.png").is_file()) == (0, True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks")
def test_a_dataset_is_read_in_forks(url: str) -> None:
    """As by a DataLoader with workers: file systems of the parent fail there."""
    code = (
        "import os, sys\n"
        "import numpy as np\n"
        "from cellstamp.training.several_files import StampSet\n"
        "stamps = StampSet(sys.argv[1], channels=None, cells=None, labels=None, dtype='float32')\n"
        "def n_read():\n"
        "    return sum(part.chunks.payload.size for _, part in stamps.fetch(np.arange(len(stamps))))\n"
        "expected = n_read()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    os._exit(0 if n_read() == expected > 0 else 3)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    # s3fs leaves the end of sessions to the garbage collector, which may name them
    shown = [line for line in done.stderr.splitlines() if not line.lower().startswith(("unclosed", "client_session"))]
    assert (done.returncode, shown) == (0, [])


def test_a_project_finds_it(slide: Path, bucket: str, tmp_path: Path) -> None:
    keys = {**CONFIG, "cache": str(tmp_path / "cache"), "output_url": bucket, "features": ["shape"]}
    project = Project(tmp_path / "project", {"HDF5CellExtraction": keys}, extraction_f=HDF5CellExtraction)
    project.load_input_from_sdata(slide, "input_image", "seg_all_nucleus", "seg_all_cytosol")
    project.extract(partial=True, n_cells=10)
    again = Project(tmp_path / "project")
    url = f"{bucket}/partial_data_ncells_10_seed_42/single_cells.zarr"
    assert len(again.h5sc) == 10
    assert (again.features.to_df()["cell__area"] > 0).all()
    assert errors_in(url) == []
    assert url in repr(again)
    assert again.get_project_status()["extraction"]
    assert run_command("preview", tmp_path / "project", "-o", tmp_path / "p.png").exit_code == 0
    with (tmp_path / "project" / "extraction" / "benchmarking.csv").open() as file:
        assert url in file.read()


def test_a_finished_store_is_up_to_date_and_kept(
    slide: Path, bucket: str, url: str, tmp_path: Path, files: Any
) -> None:
    before = objects(files, url)
    assert extract(slide, tmp_path / "out", bucket) == url
    assert "Up to date: " in (tmp_path / "out" / "processing.log").read_text()
    with pytest.raises(OutputError, match=r"already exists with different settings .*image_size: 24 -> 26.*overwrite"):
        extract(slide, tmp_path / "elsewhere", bucket, image_size=26)
    assert objects(files, url) == before
    assert extract(slide, tmp_path / "elsewhere", bucket) == url
    assert (tmp_path / "elsewhere" / "data" / "single_cells.url").read_text(encoding="utf-8") == f"{url}\n"
    extract(slide, tmp_path / "out", bucket, overwrite=True, image_size=26)
    assert read_h5sc(url).obsm[IMAGES].shape[2:] == (26, 26)
    assert errors_in(url) == []


@pytest.mark.parametrize(
    ("task", "error", "how"),
    [(Refused, InputError, TWO_WORKERS), (Interrupted, KeyboardInterrupt, {})],
    ids=["error in a worker", "Ctrl-C"],
)
def test_an_interrupted_run_resumes(
    slide: Path, bucket: str, local: Path, tmp_path: Path, files: Any, task: Any, error: Any, how: Any
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellstamp.pipeline.job.StampTask", task)
        with pytest.raises(error, match="on purpose"):
            extract(slide, tmp_path / "out", bucket, **how)
    url = f"{bucket}/{RESULT}"
    half = shards(objects(files, url))
    assert 0 < len(half) < 6
    with pytest.raises(InputError, match=r"has no zarr\.json"):
        read_h5sc(url)
    with pytest.raises(OutputError, match=r"unfinished results of a run in another folder.*overwrite=True"):
        extract(slide, tmp_path / "elsewhere", bucket)
    assert shards(objects(files, url)) == half
    modified = {name: files.info(f"{url}/{name}")["ETag"] for name in half}
    assert extract(slide, tmp_path / "out", bucket) == url
    found = objects(files, url)
    assert shards(found) == shards(content(local))
    assert {name: files.info(f"{url}/{name}")["ETag"] for name in half} == modified
    assert not [name for name in found if "unfinished" in name]
    assert "Resuming: " in (tmp_path / "out" / "processing.log").read_text()
    assert read_h5sc(url).obs.equals(read_h5sc(local).obs)


@pytest.mark.leaves_files
@pytest.mark.parametrize("done", ["some shards", "nothing"])
def test_a_store_that_an_interrupted_overwrite_removed_is_not_listed(
    slide: Path, bucket: str, tmp_path: Path, done: str
) -> None:
    keys = {**CONFIG, "cache": str(tmp_path / "cache"), "output_url": bucket}
    project = Project(tmp_path / "project", {"HDF5CellExtraction": keys}, extraction_f=HDF5CellExtraction)
    project.load_input_from_sdata(slide, "input_image", "seg_all_nucleus", "seg_all_cytosol")
    project.extract()
    url = f"{bucket}/{RESULT}"
    assert url in repr(project)
    project.extraction_f.config |= {"image_size": 26, **({"cells": [40]} if done == "nothing" else {})}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellstamp.pipeline.job.StampTask", Refused)
        with pytest.raises(InputError, match="on purpose"):
            project.extract(overwrite=True)
    assert "none yet" in repr(project.extraction_f)
    again = Project(tmp_path / "project")
    assert "results: none" in repr(again)
    assert ("unfinished: extraction/data" in repr(again)) == (done == "some shards")
    assert not again.get_project_status()["extraction"]
    for each in (project, again):
        with pytest.raises(InputError, match="there is no extraction yet"):
            _ = each.h5sc
    project.extract(overwrite=True)
    assert url in repr(again)
    assert again.h5sc.obsm[IMAGES].shape[2:] == (26, 26)


@pytest.mark.leaves_files
def test_a_store_that_cannot_be_removed_stays_listed(slide: Path, bucket: str, tmp_path: Path, url: str) -> None:
    """And so does a store behind another URL, which is not touched."""
    note = tmp_path / "out/data/single_cells.url"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(location_of(url)), "unlink", _refuse)
        with pytest.raises(OutputError, match=r"cannot be written: PermissionError: not yours"):
            extract(slide, tmp_path / "out", bucket, overwrite=True, image_size=26)
    assert note.read_text(encoding="utf-8") == f"{url}\n"
    note.write_text("s3://elsewhere/data/single_cells.zarr\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellstamp.pipeline.job.StampTask", Refused)
        with pytest.raises(InputError, match="on purpose"):
            extract(slide, tmp_path / "out", bucket, overwrite=True, image_size=26)
    assert note.read_text(encoding="utf-8") == "s3://elsewhere/data/single_cells.zarr\n"


def _refuse(*_: Any, **__: Any) -> None:
    raise PermissionError("not yours")


def test_a_run_that_ends_after_its_store_is_complete(slide: Path, bucket: str, tmp_path: Path) -> None:
    def refuse(*_: Any) -> None:
        raise InputError("broken on purpose")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellstamp.pipeline.run.publish", refuse)
        with pytest.raises(InputError, match="on purpose"):
            extract(slide, tmp_path / "out", bucket)
    assert not (tmp_path / "out" / "data").exists()
    assert errors_in(f"{bucket}/{RESULT}") == []
    extract(slide, tmp_path / "out", bucket)
    assert (tmp_path / "out" / "data" / "single_cells.url").is_file()
    assert not list((tmp_path / "out").glob(".*"))


def test_a_lost_shard_is_written_again(slide: Path, bucket: str, local: Path, tmp_path: Path, files: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellstamp.pipeline.job.StampTask", Refused)
        with pytest.raises(InputError, match="on purpose"):
            extract(slide, tmp_path / "out", bucket)
    url = f"{bucket}/{RESULT}"
    files.rm(f"{url}/{min(shards(objects(files, url)))}")
    extract(slide, tmp_path / "out", bucket)
    assert shards(objects(files, url)) == shards(content(local))


def test_workers_of_a_cluster_write_to_the_bucket(
    slide: Path, bucket: str, local: Path, tmp_path: Path, files: Any, dask_client: Any
) -> None:
    # the workers of a cluster have their own credentials
    variables = {key: os.environ[key] for key in os.environ if key.startswith("AWS_")}
    dask_client.run(lambda: os.environ.update(variables))
    url = extract(slide, tmp_path / "out", bucket, engine="dask", dask_scheduler=dask_client)
    assert shards(objects(files, url)) == shards(content(local))


def test_a_bucket_that_is_missing(slide: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"s3://no-such-bucket/run/data/single_cells.zarr cannot be written.*Check"):
        extract(slide, tmp_path / "out", "s3://no-such-bucket/run")
    with pytest.raises(InputError, match="there is no file s3://no-such-bucket/x"):
        read_h5sc("s3://no-such-bucket/x")


def test_files_of_hdf5_cannot_be_read_from_a_url(bucket: str, files: Any) -> None:
    files.pipe_file(f"{bucket}/x.h5sc", b"...")
    with pytest.raises(InputError, match=r"x\.h5sc is a file behind a URL, of which only zarr stores.*download it"):
        read_h5sc(f"{bucket}/x.h5sc")


class WebServer(http.server.ThreadingHTTPServer):
    """Sends the files of a folder or a part of them, lists no folders, and answers all other requests with an error.

    Parts of ``uns`` are sent when five of them were requested, and not before.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.requested: Counter[str] = Counter()
        self.several = threading.Event()
        self.broken = ""

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def url(self, store: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{store}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: WebServer

    def do_GET(self) -> None:
        path = self.server.folder / self.path.strip("/")
        if not path.is_file():
            return self.send_error(404)
        self.server.requested[self.path] += self.command == "GET"
        if "/uns/" in self.path:
            if sum("/uns/" in each for each in list(self.server.requested)) == 5:
                self.server.several.set()
            if not self.server.several.wait(60):
                return self.send_error(503)
        if self.server.broken and self.path.endswith(self.server.broken):
            return self.send_error(503)
        content, wanted = path.read_bytes(), self.headers.get("Range")
        if wanted is not None:
            first, last = wanted.removeprefix("bytes=").split("-")
            begin = int(first or len(content) - int(last))
            content = content[begin : int(last) + 1 if first and last else None]
        self.send_response(200 if wanted is None else 206)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *args: Any) -> None:
        del args


def test_a_web_server_without_folders(local: Path) -> None:
    with WebServer(local.parent) as server:
        found = read_h5sc(server.url(local.name))
        np.testing.assert_array_equal(found.obsm[IMAGES][[3, 1], 2], read_h5sc(local).obsm[IMAGES][[3, 1], 2])
        with pytest.raises(InputError, match="there is no file http://"):
            read_h5sc(server.url("other.zarr"))


def test_features_behind_a_web_server_without_folders(slide: Path, tmp_path: Path) -> None:
    local = Path(extract(slide, tmp_path / "out", None, features=["shape"]))
    with WebServer(local.parent) as server:
        url = location_of(server.url(local.name))
        assert read_features(url).to_df().equals(read_features(local).to_df())
        assert columns_of_features(features_beside(url)).features.keys() == {*read_features(local).var_names}
        assert errors_in(url) == []
        next((local.parent / "features.zarr/X").rglob("c/*/*")).unlink()
        with pytest.raises(InputError, match=r"features\.zarr is damaged: 1 of 1 chunks of X are missing"):
            read_features(url)


def test_an_error_of_the_server_in_the_middle_of_tables_names_the_store(local: Path) -> None:
    with WebServer(local.parent) as server:
        server.several.set()
        server.broken = "/obs/x/c/0"
        with pytest.raises(InputError, match=rf"{local.name} cannot be read: .*503.*Check the address"):
            read_h5sc(server.url(local.name))


def test_a_damaged_table_is_an_error_that_names_the_store(local: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(local, tmp_path / "damaged.zarr")
    (damaged / "obs/x/c/0").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"damaged\.zarr is damaged: its tables cannot be read: .*Extract again"):
        read_h5sc(damaged)


def test_small_tables_of_a_remote_store_are_requested_together_and_once(local: Path) -> None:
    with WebServer(local.parent) as server:
        assert read_h5sc(server.url(local.name), images=False).obs.equals(read_h5sc(local).obs)
    tables = {path: n for path, n in server.requested.items() if path.split("/")[2] in ("obs", "var", "uns")}
    assert len(tables) > 40
    assert set(tables.values()) == {1}


def test_a_server_that_cannot_be_reached(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(InputError, match=r"cannot be read: .*Check the address"):
        read_h5sc(f"{bucket}/{RESULT}")
    fsspec.filesystem("s3").clear_instance_cache()


@pytest.mark.parametrize("url", ["http://host/run", "bucket/run", "s3://", 3])
def test_a_url_that_cannot_be_written_to(slide: Path, tmp_path: Path, url: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"output_url = .*must be a URL that fsspec can write to, like s3://bucket/run"
    ):
        extract(slide, tmp_path / "out", url)


def test_a_url_is_for_zarr(slide: Path, bucket: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"output_url = '.*is for file_format = 'zarr'; set it, or this key to None"):
        extract(slide, tmp_path / "out", bucket, file_format="h5sc")
