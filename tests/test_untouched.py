"""Stores that are only read: not a byte of an input store changes unless that is asked for."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellstamp import HDF5CellExtraction, Project, read_h5sc
from cellstamp.errors import OutputError
from cellstamp.source.load.store import open_sdata
from cellstamp.source.points import load_centers
from conftest import make_cells, write_store

NUCLEUS = "seg_all_nucleus"
STORE = "scportrait.sdata"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store in a folder that is nobody's project, without centres."""
    image, nucleus, cytosol = make_cells()
    return write_store(tmp_path / "theirs" / "input.zarr", image, {NUCLEUS: nucleus, "seg_all_cytosol": cytosol})


def state(folder: Path) -> dict[str, Any]:
    """Every file and link below a folder, with what tells whether it was touched."""
    found = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        link = str(path.readlink()) if path.is_symlink() else None
        found[str(path.relative_to(folder))] = (about.st_ino, about.st_mtime_ns, content, link)
    return found


def keys(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {"threads": 1, "image_size": 40, "cache": str(tmp_path / "cache"), "progress": False, **more}


def extract(filehandler: Any, tmp_path: Path, *, location: Path | None = None, **more: Any) -> str:
    """Extract, check that cells came out, and return the log."""
    step = HDF5CellExtraction(
        keys(tmp_path, **more), tmp_path / "out", location, overwrite=True, filehandler=str(filehandler)
    )
    step()
    assert read_h5sc(step.output_path).n_obs == 16
    return (tmp_path / "out" / "processing.log").read_text()


@pytest.mark.parametrize("wanted", [{}, {"store_centers": "auto"}, {"store_centers": "never"}])
def test_an_input_store_stays_as_it_is(store: Path, tmp_path: Path, wanted: dict[str, str]) -> None:
    before = state(store.parent)
    assert extract(store, tmp_path, **wanted).count("computing them") == 1
    assert extract(store, tmp_path, **wanted).count("computing them") == 2
    assert state(store.parent) == before


def test_a_step_of_a_project_leaves_the_store_of_another_folder_as_it_is(store: Path, tmp_path: Path) -> None:
    before = state(store.parent)
    told = extract(store, tmp_path, location=tmp_path / "project")
    assert "(an input store is only read, unless store_centers is 'always')" in told
    assert state(store.parent) == before


def test_centres_are_stored_in_an_input_store_when_that_is_asked_for(store: Path, tmp_path: Path) -> None:
    extract(store, tmp_path, store_centers="always")
    assert len(load_centers(store, NUCLEUS)) == 16
    assert extract(store, tmp_path).count("computing them") == 1


def test_never_is_for_projects_too(tmp_path: Path, project_store: Callable[..., Path]) -> None:
    own = project_store(tmp_path / "project" / STORE)
    before = state(own)
    project = Project(tmp_path / "project", keys(tmp_path, store_centers="never"))
    project.extract()
    assert project.h5sc.n_obs == 16
    assert state(own) == before


@pytest.mark.parametrize("relative", [False, True])
def test_the_store_of_a_project_has_its_centres(
    tmp_path: Path, project_store: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, *, relative: bool
) -> None:
    own = project_store(tmp_path / "project" / STORE)
    monkeypatch.chdir(tmp_path)
    Project("project" if relative else tmp_path / "project", keys(tmp_path)).extract()
    assert len(load_centers(own, NUCLEUS)) == 16


def linked_store(store: Path, own: Path) -> None:
    own.symlink_to(store, target_is_directory=True)


def linked_part(part: str) -> Callable[[Path, Path], None]:
    def make(store: Path, own: Path) -> None:
        own.mkdir(parents=True)
        (store / "points").mkdir(exist_ok=True)
        for path in store.iterdir():
            if path.name == part:
                (own / path.name).symlink_to(path)
            elif path.is_dir():
                shutil.copytree(path, own / path.name)
            else:
                (own / path.name).write_bytes(path.read_bytes())

    return make


def linked_labels(store: Path, own: Path) -> None:
    shutil.copytree(store, own)
    (own / "labels" / NUCLEUS).rename(own.parent / "moved")
    (own / "labels" / NUCLEUS).symlink_to(store / "labels" / NUCLEUS, target_is_directory=True)


LINKS = {
    "store": linked_store,
    "points": linked_part("points"),
    "labels": linked_part("labels"),
    "metadata": linked_part("zarr.json"),
    "one mask": linked_labels,
}


@pytest.mark.once
@pytest.mark.parametrize("wanted", ["auto", "always"])
@pytest.mark.parametrize("link", LINKS)
def test_centres_are_not_written_through_a_link(store: Path, tmp_path: Path, link: str, wanted: str) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    LINKS[link](store, folder / STORE)
    theirs, own = state(store.parent), state(folder / STORE)
    project = Project(folder, keys(tmp_path, store_centers=wanted))
    project.extract()
    assert project.h5sc.n_obs == 16
    assert state(store.parent) == theirs
    assert state(folder / STORE) == own
    assert (
        "is a symbolic link; cellstamp does not write through links"
        in (folder / "extraction/processing.log").read_text()
    )


@pytest.mark.once
@pytest.mark.parametrize("link", ["store", "labels", "metadata"])
def test_what_is_loaded_is_not_written_through_a_link(store: Path, tmp_path: Path, link: str) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    LINKS[link](store, folder / STORE)
    theirs = state(store.parent)
    project = Project(folder, keys(tmp_path), overwrite=True)
    image, nucleus, cytosol = make_cells()
    message = r"is a link to .*input\.zarr.*: nothing is written through a link, .*Replace the link with a copy, or"
    with pytest.raises(OutputError, match=message):
        project.load_segmentation(nucleus + np.uint32(100) * (nucleus > 0), cytosol + np.uint32(100) * (cytosol > 0))
    if link != "labels":
        with pytest.raises(OutputError, match=message):
            project.load_input_from_array(image)
    assert state(store.parent) == theirs


def test_segmentation_refuses_a_link_before_any_work(store: Path, tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / STORE).symlink_to(store, target_is_directory=True)
    theirs = state(store.parent)
    config = {"ThresholdSegmentation": {"threads": 1, "cache": str(tmp_path / "cache"), "progress": False}}
    project = Project(folder, config, overwrite=True)
    with pytest.raises(OutputError, match="nothing is written through a link"):
        project.segment()
    assert not (folder / "segmentation/processing.log").exists()  # which tells of the threshold first
    assert state(store.parent) == theirs


@pytest.mark.parametrize("as_object", [False, True])
def test_a_store_that_a_project_is_loaded_from_stays_as_it_is(store: Path, tmp_path: Path, *, as_object: bool) -> None:
    before = state(store.parent)
    project = Project(tmp_path / "project", keys(tmp_path))
    given = open_sdata(store) if as_object else store
    project.load_input_from_sdata(given, "input_image", NUCLEUS, "seg_all_cytosol")
    project.extract()
    assert project.h5sc.n_obs == 16
    assert state(store.parent) == before
