"""The demonstration, whole and without network, and its parts."""

import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from click.testing import CliRunner

from cellstamp import read_h5sc
from cellstamp.cli import commands
from cellstamp.demo import CHANNELS, CROP_SIZE, load_image

OFFLINE = """
import sys

def refuse(event, arguments):
    on_this_machine = event == "socket.connect" and isinstance(arguments[1], (str, bytes))
    if event in ("socket.connect", "socket.getaddrinfo", "urllib.Request") and not on_this_machine:
        raise RuntimeError(f"the demo asked for the network: {event} {arguments}")

sys.addaudithook(refuse)
"""
MAIN = "\nfrom cellstamp.cli import main\nmain()"


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code + MAIN, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the demo has run, twice, without network."""
    folder = tmp_path_factory.mktemp("demo") / "made by the demo"
    for _ in range(2):
        result = run(OFFLINE, "demo", folder)
        assert (result.returncode, result.stderr) == (0, "")
    found, closing, project, h5sc, picture = result.stdout.splitlines()
    assert " nuclei and cells found in " in found
    assert " cells kept, " in closing
    assert project.endswith(f" {folder / 'project'}")
    assert h5sc.endswith(str(folder / "project" / "extraction" / "data" / "single_cells.h5sc"))
    assert picture.endswith(str(folder / "contact_sheet.png"))
    return folder


def test_it_extracts_hundreds_of_cells(folder):
    cells = read_h5sc(folder / "project" / "extraction" / "data" / "single_cells.h5sc")
    assert cells.n_obs > 300
    assert list(cells.var["channels"]) == ["seg_all_nucleus", "seg_all_cytosol", *CHANNELS]
    images = cells.obsm["single_cell_images"][:]
    assert images.shape[1:] == (4, CROP_SIZE, CROP_SIZE)
    nuclei, whole, *channels = np.moveaxis(images, 1, 0)
    assert np.all(nuclei <= whole)  # each nucleus lies in its cell
    assert max(channel[whole == 0].max() for channel in channels) < 0.01  # nothing shows from outside it
    assert nuclei[:, CROP_SIZE // 2, CROP_SIZE // 2].mean() > 0.9  # and in the middle of its window


def test_the_picture_shows_image_masks_and_outlines(folder):
    picture = matplotlib.image.imread(folder / "contact_sheet.png")[..., :3]
    height, width, _ = picture.shape
    assert height > 800
    assert width > 1500
    left, right = picture[:, : width // 2], picture[:, width // 2 :]

    def share(part: np.ndarray, colour: tuple[float, float, float]) -> float:
        return float(np.mean(np.all(np.abs(part - colour) < 0.15, axis=-1)))

    assert share(left, (1.0, 0.44, 0.0)) > 0.01  # outlines on the slide
    assert share(right, (0.25, 0.76, 1.0)) > 0.003  # outlines of cells
    assert share(right, (1.0, 0.82, 0.25)) > 0.003  # and of nuclei
    assert 0.2 < share(right, (0.0, 0.0, 0.0)) < 0.7  # stamps: mostly black around the cell
    assert 0.2 < share(right, (1.0, 1.0, 1.0)) < 0.7  # masks, and paper


@pytest.mark.parametrize("there", ["project/precious.txt", "contact_sheet.png", "thesis.tex"])
def test_what_is_not_the_demos_stays(there, tmp_path):
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).write_text("years of work")
    result = CliRunner().invoke(commands, ["demo", str(tmp_path)])
    assert result.exit_code == 2, result.exception
    (line,) = result.stderr.splitlines()
    told = f"Error: {tmp_path} is not empty, and not from an earlier demo: it has {there.split('/')[0]}. Give the demo"
    assert line.startswith(told)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / there]
    assert (tmp_path / there).read_text() == "years of work"


def test_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    assert CliRunner().invoke(commands, ["demo", str(tmp_path / "file")]).exit_code == 2


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
