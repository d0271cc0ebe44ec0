"""The demonstration, run without network, and its parts."""

import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib.figure
import matplotlib.image
import numpy as np
import pytest

from cellstamp import read_h5sc
from cellstamp.demo import CELL_CHANNELS, CELL_IMAGE_SIZE, load_cells, load_image
from cellstamp.demo.picture import blend, cells_to_show, draw_outlines
from commands import run_command

OFFLINE = """
import sys

def refuse(event, arguments):
    on_this_machine = event == "socket.connect" and isinstance(arguments[1], (str, bytes))
    if event in ("socket.connect", "socket.getaddrinfo", "urllib.Request") and not on_this_machine:
        raise RuntimeError(f"the demo asked for the network: {event} {arguments}")

sys.addaudithook(refuse)
"""
MAIN = "\nfrom cellstamp.cli import main\nmain()"


FULL = Path("/dev/full")


def run(code: str, *arguments: object, stdout: Any = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code + MAIN, *map(str, arguments)]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder where the demo has run without network, and how it ended where its output has no room, if it may."""
    folder = tmp_path_factory.mktemp("demo") / "made by the demo"
    with (FULL if FULL.exists() else Path(os.devnull)).open("w") as full:
        return folder, run(OFFLINE, "demo", folder, stdout=full)


@pytest.fixture(scope="module")
def demo(first_run) -> tuple[Path, list[str]]:
    """The folder where the demo has run again, and the lines it printed."""
    folder, _ = first_run
    result = run(OFFLINE, "demo", folder)
    assert (result.returncode, result.stderr) == (0, "")
    return folder, result.stdout.splitlines()


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_a_full_standard_output_is_named_with_the_result(first_run):
    folder, ended = first_run
    told = "Error: standard output cannot be written (No space left on device). The command finished: "
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"{told}Picture of them:    {folder}/contact_sheet.png")


@pytest.fixture(scope="module")
def folder(demo) -> Path:
    return demo[0]


@pytest.fixture(scope="module")
def cells(folder):
    return read_h5sc(folder / "project" / "extraction" / "data" / "single_cells.h5sc")


def test_it_reports_each_step_before_it_and_each_result_after_it(demo):
    folder, lines = demo
    steps = ["Loading an image", "Segmenting nuclei", "Extracting single-cell", "Drawing the image"]
    places = [next(place for place, line in enumerate(lines) if line.startswith(step)) for step in steps]
    assert places == sorted(places)
    assert places[2] - places[1] > 1  # between them, the result of the segmentation
    assert lines[-3].endswith(f" {folder / 'project'}")
    assert lines[-2].endswith(str(folder / "project" / "extraction" / "data" / "single_cells.h5sc"))
    assert lines[-1].endswith(str(folder / "contact_sheet.png"))


def test_it_extracts_every_cell_of_the_image(cells):
    assert cells.n_obs == 144  # the number that README and documentation name
    assert list(cells.var["channels"]) == ["seg_all_nucleus", "seg_all_cytosol", *CELL_CHANNELS]
    images = cells.obsm["single_cell_images"][:]
    assert images.shape[1:] == (5, CELL_IMAGE_SIZE, CELL_IMAGE_SIZE)
    nuclei, whole, *channels = np.moveaxis(images, 1, 0)
    assert np.all(nuclei <= whole)  # each nucleus lies in its cell
    assert max(channel[whole == 0].max() for channel in channels) < 0.01  # pixels outside the cell are black
    assert nuclei[:, CELL_IMAGE_SIZE // 2, CELL_IMAGE_SIZE // 2].mean() > 0.95  # the nucleus is in the middle
    assert not cells.obs["exceeds_crop"].to_numpy()[_inside(cells)].any()  # the crop holds each cell


def _inside(cells) -> np.ndarray:
    """Which cells keep their crop within the image."""
    _, height, width = load_cells().shape
    x, y = np.asarray(cells.obsm["spatial"]).T
    half = CELL_IMAGE_SIZE // 2
    return (x > half) & (x < width - half) & (y > half) & (y < height - half)


def test_the_cells_found_look_like_cells(cells):
    nuclei, whole = np.asarray(cells.obsm["single_cell_images"][:], np.float32)[_inside(cells), :2].swapaxes(0, 1)
    nucleus_area, cell_area = ((mask > 0.5).sum(axis=(1, 2)) for mask in (nuclei, whole))
    assert 250 < np.median(nucleus_area) < 400  # 20 pixels across
    assert 700 < np.median(cell_area) < 1100  # 33 pixels across
    assert nucleus_area.min() > 80
    assert nucleus_area.max() < 800  # no clumps


def test_the_cells_shown_are_different_and_lie_inside_the_image(cells):
    rows = cells_to_show(cells, load_cells().shape[1:])
    assert len(set(rows.tolist())) == 6
    assert _inside(cells)[rows].all()


def test_the_picture_shows_the_image_its_masks_and_single_cells(folder):
    picture = matplotlib.image.imread(folder / "contact_sheet.png")[..., :3]
    height, width, _ = picture.shape
    assert width > 1000
    image, planes = np.split(picture, [int(0.57 * height)])

    def share(part: np.ndarray, colour: tuple[float, float, float]) -> float:
        return float(np.mean(np.all(np.abs(part - colour) < 0.15, axis=-1)))

    for part in (image, planes):
        assert share(part, (0.25, 0.76, 1.0)) > 0.01  # outlines of cells
        assert share(part, (1.0, 0.82, 0.25)) > 0.01  # and of nuclei
    assert 0.03 < share(planes, (1.0, 1.0, 1.0)) < 0.3  # masks
    assert 0.2 < share(planes, (0.0, 0.0, 0.0)) < 0.9  # black around the cells


def test_outlines_follow_each_label_also_where_two_touch():
    mask = np.zeros((6, 8), int)
    mask[1:5, 1:4], mask[1:5, 4:7] = 1, 2
    axes = matplotlib.figure.Figure().add_subplot()
    draw_outlines(axes, mask, "red", 1.0)
    paths = [path.vertices for contours in axes.collections for path in contours.get_paths()]
    boxes = [(*path.min(axis=0), *path.max(axis=0)) for path in paths]
    assert boxes == [(0.5, 0.5, 3.5, 4.5), (3.5, 0.5, 6.5, 4.5)]


def test_channels_are_blended_in_their_colours():
    image = np.zeros((3, 10, 10), np.uint8)
    for channel in range(3):
        image[channel, channel] = 200
    blended = blend(image)
    assert blended.shape == (10, 10, 3)
    assert [int(blended[row, 0].argmax()) for row in range(3)] == [2, 1, 0]  # blue, green, red
    assert blended[5].max() == 0


@pytest.mark.parametrize("there", ["project/precious.txt", "contact_sheet.png", "thesis.tex"])
def test_what_is_not_the_demos_stays(there, tmp_path):
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).write_text("years of work")
    result = run_command("demo", tmp_path)
    assert result.exit_code == 2, result.exception
    (line,) = result.stderr.splitlines()
    held = f"Error: {tmp_path} is not empty and not from an earlier demo (it holds {there.split('/')[0]}): choose"
    assert line.startswith(held)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / there]
    assert (tmp_path / there).read_text() == "years of work"


def test_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    assert run_command("demo", tmp_path / "file").exit_code == 2


@pytest.mark.parametrize("missing", ["skimage", "matplotlib"])
def test_what_it_needs_is_named_when_it_is_missing(missing, tmp_path):
    result = run(f"import sys; sys.modules[{missing!r}] = None", "demo", tmp_path / "demo")
    assert result.returncode == 2
    message = f"Error: the demo needs {missing}: install them with pip install 'cellstamp[demo]'\n"
    assert result.stderr == message
    assert not (tmp_path / "demo").exists()


def test_the_image_ships_with_scikit_image_and_has_two_stains():
    rgb, channels = load_image()
    assert (rgb.shape, rgb.dtype) == ((512, 512, 3), np.uint8)
    assert (channels.shape, channels.dtype) == ((2, 512, 512), np.uint16)
    assert channels.reshape(2, -1).max(axis=1).tolist() == [65535, 65535]
    hematoxylin, dab = channels.astype(float)
    blue = (rgb[..., 2].astype(int) - rgb[..., 0]) > 40
    brown = (rgb[..., 0].astype(int) - rgb[..., 2]) > 60
    assert hematoxylin[blue].mean() > 2 * hematoxylin[~blue].mean()
    assert dab[brown].mean() > 2 * dab[~brown].mean()


def test_the_cells_ship_with_cellstamp_and_with_their_licence():
    image = load_cells()
    assert (image.shape, image.dtype) == ((3, 440, 480), np.uint8)
    folder = files("cellstamp.demo")
    assert len(folder.joinpath("fly_cells.tif").read_bytes()) < 300_000
    licence = folder.joinpath("fly_cells.LICENSE.txt").read_text(encoding="utf-8")
    for part in ("ExampleFly", "BSD 3-Clause", "Broad Institute", "Redistribution and use in source and binary forms"):
        assert part in licence
