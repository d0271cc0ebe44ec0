"""What is refused, what a fault leaves behind, and what ends when its parent does.

All of this happens before or beside the writing of results, so it has one format.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from click.testing import CliRunner
from filelock import FileLock

import restatement
from cellstamp import HDF5CellExtraction, Project, read_h5sc
from cellstamp.cli import commands
from cellstamp.errors import ConfigError, InputError, OutputError
from cellstamp.pipeline.lock import holding
from cellstamp.source.load.store import store_centers
from cellstamp.source.points import load_centers
from cellstamp.source.values import Centers
from listening import as_started_from_a_terminal
from stamp_tasks import Killed
from stores import Sample, make_sample, write_store

pytestmark = pytest.mark.once

SAMPLE = make_sample()
CONFIG = {"threads": 1, "image_size": 32}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_store(tmp_path / "sample.zarr", SAMPLE)


def make_step(tmp_path: Path, store: Path, **config: Any) -> HDF5CellExtraction:
    keys = {**CONFIG, "cache": str(tmp_path / "cache"), **config}
    return HDF5CellExtraction(keys, tmp_path / "out", filehandler=store)


def make_project(tmp_path: Path, sample: Sample = SAMPLE, **config: Any) -> Project:
    section = {**CONFIG, "cache": str(tmp_path / "cache"), **config}
    project = Project(tmp_path / "project", {"HDF5CellExtraction": section})
    project.load_input_from_array(sample.image, channel_names=sample.channel_names)
    project.load_segmentation(*sample.masks.values())
    return project


# --- pixels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantiles", [(0.001, 0.999), None], ids=["normalised", "divided"])
@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_signed_images_without_negative_pixels(tmp_path: Path, dtype: Any, quantiles: Any) -> None:
    sample = SAMPLE.with_types(np.uint32, dtype)
    step = make_step(tmp_path, write_store(tmp_path / "s.zarr", sample), normalize_output=quantiles is not None)
    step()
    _, _, stamps = restatement.extract(list(sample.masks.values()), sample.image, 32, quantiles)
    assert restatement.same_bits(read_h5sc(step.output_path).obsm["single_cell_images"][:], stamps)


def test_negative_pixels_are_refused(tmp_path: Path) -> None:
    sample = SAMPLE.with_types(np.uint32, np.int16)
    sample.image[1, 100, 100] = -5
    step = make_step(tmp_path, write_store(tmp_path / "s.zarr", sample))
    with pytest.raises(
        InputError, match=r"image 'input_image' in .*s\.zarr, channel 'actin': values from -5 .*0 or larger"
    ):
        step()


def test_a_damaged_chunk_is_named_by_store_array_and_place(tmp_path: Path, store: Path) -> None:
    step = make_step(tmp_path, store)
    step()
    chunk = next(
        path for path in sorted((store / "images/input_image").rglob("*")) if path.name.isdigit() and path.is_file()
    )
    chunk.write_bytes(b"no compressed data")
    with pytest.raises(
        InputError, match=r"'input_image' cannot be read: images/input_image/\S+ in .*sample\.zarr, rows"
    ):
        step(overwrite=True)
    assert "failed: InputError: 'input_image' cannot be read" in (tmp_path / "out/processing.log").read_text()


# --- centres that are not those of the mask --------------------------------------------------------------------------


def _store_centers(store: Path, ids: Any, xy: Any) -> None:
    store_centers(str(store), "seg_all_nucleus", Centers(np.asarray(ids, np.uint64), np.asarray(xy, np.float64)))


@pytest.mark.parametrize(("x", "y"), [(-1, 50), (50, -0.5), (230, 50), (50, 200), (1e9, 1e9)])
def test_stored_centres_outside_of_the_mask_are_refused(tmp_path: Path, store: Path, x: float, y: float) -> None:
    _store_centers(store, [1, 7, 8], [(50, 60), (x, y), (70, 80)])
    told = r"'centers_seg_all_nucleus' in .*: the centres of 1 cells .* 200 x 230 pixels .* cell 7 at .*delete"
    with pytest.raises(InputError, match=told):
        make_step(tmp_path, store)()
    assert not (tmp_path / "out/data").exists()


def test_stored_centres_of_cells_that_the_mask_lacks_are_warned_of(tmp_path: Path, store: Path) -> None:
    make_step(tmp_path, store, store_centers="always")()
    centers = load_centers(str(store), "seg_all_nucleus")
    assert centers is not None
    _store_centers(store, [*centers.ids, 900, 901], [*centers.xy, (100, 100), (120, 90)])
    step = make_step(tmp_path, store)
    with pytest.warns(UserWarning, match="no pixel of") as caught:
        step(overwrite=True)
    told = [text for warning in caught if "too close to" not in (text := str(warning.message))]
    assert len(told) == 2
    assert told[0].startswith("2 of 45 cells have no pixel of 'seg_all_cytosol' in their crop")
    assert told[1].startswith("2 of 45 cells have no pixel of 'seg_all_nucleus' in their crop, though it says which")
    assert "delete the points 'centers_seg_all_nucleus'" in told[1]


# --- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_cells": 7}, "n_cells = 7 was given without partial=True"),
        ({"partial": "yes"}, "partial = 'yes': must be True or False"),
        *(({"seed": seed}, "seed = .*: must be an integer >= 0") for seed in ("a", 1.5, -1, None, True)),
        *(
            ({"output_folder_name": name}, "output_folder_name = .*: must be the name of a folder inside")
            for name in (5, ".unfinished_data", ".hidden", "a" * 300)
        ),
    ],
)
def test_arguments_that_cannot_be_meant(tmp_path: Path, store: Path, arguments: Any, message: str) -> None:
    step = make_step(tmp_path, store)
    with pytest.raises(ConfigError, match=message):
        step(**arguments)
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {"processing.log", "partial_processing.log"}


def test_a_file_in_the_way_of_the_folder_is_told_before_any_work(tmp_path: Path, store: Path) -> None:
    step = make_step(tmp_path, store)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/data").write_text("mine")
    with pytest.raises(OutputError, match="out/data is in the way: it is no folder"):
        step()
    assert (tmp_path / "out/data").read_text() == "mine"


# --- two runs, and what a killed run leaves --------------------------------------------------------------------------


def test_a_second_run_into_the_same_folder_stops_at_once(tmp_path: Path, store: Path) -> None:
    step = make_step(tmp_path, store)
    with FileLock(tmp_path / "out/.data.lock"), pytest.raises(OutputError, match=r"another run is writing .*out/data"):
        step()
    step()
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")) == []


def test_a_second_run_says_who_is_at_it(tmp_path: Path, store: Path) -> None:
    step = make_step(tmp_path, store)
    step.log("makes the folder")
    told = rf"another run is writing .*out/data: process {os.getpid()} on {socket.gethostname()}, since 20\d\d-"
    with holding(tmp_path / "out/.data.lock", what=tmp_path / "out/data"), pytest.raises(OutputError, match=told):
        step()


@pytest.mark.parametrize("name", ["data", ".unfinished_data"])
def test_links_are_not_followed(tmp_path: Path, store: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "1").mkdir(parents=True)
    (elsewhere / "1/mine").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(elsewhere)
    with pytest.raises(OutputError, match=rf"out/{name} is .*a link"):
        make_step(tmp_path, store)(overwrite=True)
    (tmp_path / "out" / name).unlink()
    assert [path.name for path in elsewhere.rglob("*")] == ["1", "mine"]


def test_what_a_killed_run_left_is_no_result_and_goes_with_the_next_run(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    left = tmp_path / "project/extraction/.unfinished_data"
    left.mkdir(parents=True)
    (left / "single_cells.h5sc").write_bytes(b"half of it")
    assert project.get_project_status()["extraction"] is False
    project.extract()
    assert project.get_project_status()["extraction"] is True
    assert not left.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent(tmp_path: Path, number: signal.Signals) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        "import os, sys\n"
        "from cellstamp.engines.processes import ProcessEngine\n"
        "outcomes = ProcessEngine(2).run(str, range(10**6), lambda: 2)\n"
        "for outcome in outcomes:\n"
        "    print(outcome.pid, flush=True)\n"
    )
    command = [sys.executable, script]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=as_started_from_a_terminal)
    assert parent.stdout is not None
    pids = set()
    while len(pids) < 2:
        pids.add(int(parent.stdout.readline()))
    family = psutil.Process(parent.pid).children(recursive=True)
    assert pids <= {process.pid for process in family}
    parent.send_signal(number)
    parent.stdout.read()
    parent.stdout.close()
    assert parent.wait(30) == -number
    _, alive = psutil.wait_procs(family, timeout=30)
    assert alive == []


# --- configurations and exit codes -----------------------------------------------------------------------------------


def test_a_configuration_with_faults_does_not_replace_the_projects_own(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    own = Path(project.directory) / "config.yml"
    before = own.read_text()
    bad = tmp_path / "bad.yml"
    bad.write_text(yaml.safe_dump({"HDF5CellExtraction": {"threads": "4"}}))
    with pytest.raises(ConfigError, match=r"threads = '4': must be"):
        Project(project.directory, bad)
    assert own.read_text() == before
    result = CliRunner().invoke(commands, ["extract", str(project.directory), "--config", str(bad)])
    assert result.exit_code == 2
    assert own.read_text() == before


@pytest.mark.leaves_files
@pytest.mark.filterwarnings("ignore:2 workers were killed")
def test_a_killed_worker_is_no_mistake_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path, threads=2)
    monkeypatch.setattr("cellstamp.pipeline.job.StampTask", Killed)
    result = CliRunner().invoke(commands, ["extract", str(project.directory)])
    assert result.exit_code == 1
    assert "workers died while working on" in result.output
