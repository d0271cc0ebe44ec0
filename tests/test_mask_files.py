"""Files of masks as segmentation programs write them: what loads, and what an error says to do. Printed code is run."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import re
import shlex
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy
import numpy as np
import pytest
import scipy.io
import skimage
import tifffile
from PIL import Image

from cellstamp.errors import InputError
from cellstamp.pipeline.project import Project

LABELS = np.zeros((60, 80), np.uint16)
for _number in range(12):
    _y, _x = divmod(_number, 4)
    LABELS[20 * _y + 4 : 20 * _y + 14, 20 * _x + 4 : 20 * _x + 12] = _number + 1
FEW = LABELS.astype(np.uint8)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "project")
    made.load_input_from_array(np.ones((1, *LABELS.shape), np.uint16))
    return made


def loaded(project: Project) -> np.ndarray:
    return np.asarray(project.sdata["seg_all_cytosol"])


def run_code(code: str) -> np.ndarray:
    """The array that code in a message makes: an expression, or statements that set ``mask``."""
    names: dict[str, Any] = {"numpy": numpy, "skimage": skimage, "tifffile": tifffile, "h5py": h5py, "scipy": scipy}
    *statements, last = code.split("; ")
    for statement in statements:
        exec(statement, names)
    return np.asarray(eval(last.removeprefix("mask = "), names))


def png(path: Path, pixels: np.ndarray, mode: str | None = None) -> None:
    Image.fromarray(pixels, mode).save(path, "PNG")


def palette(path: Path, kind: str) -> None:
    """The ids are the indices; the colours say nothing, and one of them comes twice."""
    picture = Image.frombytes("P", LABELS.shape[::-1], FEW.tobytes())
    picture.putpalette([(37 * (index // 3 % 11)) % 256 for index in range(768)])
    picture.save(path, kind)


def seg_npy(path: Path, **other: Any) -> None:
    """As Cellpose writes it."""
    content = {
        "outlines": LABELS * 0,
        "masks": LABELS,
        "filename": "slide.tif",
        "flows": [np.zeros((3, 4), np.uint8), [np.float32(0.5)], []],
        "est_diam": np.float64(31.5),
        "chan_choose": [0, 0],
        "ismanual": np.zeros(12, bool),
        **other,
    }
    with path.open("wb") as file:
        np.save(file, content, allow_pickle=True)


def old_pickle(path: Path) -> None:
    """By an older numpy: the modules are called numpy.core, and the pickle's protocol is 3."""
    pickled = pickle.dumps(np.array({"masks": LABELS}, dtype=object), protocol=3)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": ()})
    path.write_bytes(header.getvalue() + pickled.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))


LOADED: dict[str, Callable[[Path], object]] = {
    "cellprofiler.tif": lambda path: tifffile.imwrite(path, LABELS, compression="deflate"),
    "big_endian.tif": lambda path: tifffile.imwrite(path, LABELS, byteorder=">"),
    "napari.tif": lambda path: tifffile.imwrite(path, LABELS.astype(np.int32)),
    "palette.tif": lambda path: tifffile.imwrite(
        path, FEW, photometric="palette", colormap=np.arange(768, dtype=np.uint16).reshape(3, 256)
    ),
    "extra_axes.tif": lambda path: tifffile.imwrite(path, LABELS[None, None], photometric="minisblack"),
    "a_cp_masks.png": lambda path: png(path, LABELS),
    "qupath.png": lambda path: palette(path, "PNG"),
    "eight_bits.png": lambda path: png(path, FEW),
    "imagej.bmp": lambda path: Image.fromarray(FEW).save(path),
    "palette.bmp": lambda path: palette(path, "BMP"),
    "mask.gif": lambda path: palette(path, "GIF"),
    "a_seg.npy": seg_npy,
    "old_seg.npy": old_pickle,
    "napari.npy": lambda path: np.save(path, LABELS.astype(np.int64)),
    "fortran.npy": lambda path: np.save(path, np.asfortranarray(LABELS)),
    "mesmer.npy": lambda path: np.save(path, LABELS[None, :, :, None].astype(">i4")),
    "labels.npz": lambda path: np.savez_compressed(path, labels=LABELS),
}


@pytest.mark.parametrize("name", LOADED)
def test_files_of_the_field_load_with_the_ids_they_hold(project: Project, tmp_path: Path, name: str) -> None:
    LOADED[name](tmp_path / name)
    project.load_segmentation(cytosol=tmp_path / name)
    np.testing.assert_array_equal(loaded(project), LABELS)


@pytest.mark.parametrize(
    ("written", "called"),
    [("eight_bits.png", "a.tif"), ("cellprofiler.tif", "a.png"), ("a_seg.npy", "a"), ("labels.npz", "a.npy")],
)
def test_the_content_decides_and_not_the_extension(project: Project, tmp_path: Path, written: str, called: str) -> None:
    LOADED[written](tmp_path / written)
    project.load_segmentation(cytosol=str((tmp_path / written).rename(tmp_path / called)))
    np.testing.assert_array_equal(loaded(project), LABELS)


def test_ids_of_16_bits_in_a_png_are_exact(project: Project, tmp_path: Path) -> None:
    ids = np.where(LABELS > 0, 65_536 - LABELS.astype(np.int32), 0).astype(np.uint16)
    png(tmp_path / "ids.png", ids)
    project.load_segmentation(cytosol=tmp_path / "ids.png")
    np.testing.assert_array_equal(loaded(project), ids)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_whole_numbers_in_floats_load_with_a_note(project: Project, tmp_path: Path, dtype: Any) -> None:
    """ImageJ, StarDist and TrackMate write them."""
    path = tmp_path / "LblImg.npy"
    np.save(path, LABELS.astype(dtype))
    with pytest.warns(UserWarning, match=r"cytosol mask .*LblImg\.npy holds integers as float\d\d: .* as uint32"):
        project.load_segmentation(cytosol=path)
    assert loaded(project).dtype == np.uint32
    np.testing.assert_array_equal(loaded(project), LABELS)


def test_a_float_tiff_of_imagej_and_a_float_array_load(project: Project, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "float.tif", LABELS.astype(np.float32), imagej=True)
    for mask in (tmp_path / "float.tif", LABELS.astype(np.float64)):
        with pytest.warns(UserWarning, match=r"cytosol mask.* holds integers as float"):
            project.load_segmentation(cytosol=mask, overwrite=True)
        np.testing.assert_array_equal(loaded(project), LABELS)


def fractions() -> np.ndarray:
    return np.where(LABELS > 0, 0.75, 0.25).astype(np.float32)


WITH_CODE: dict[str, tuple[Callable[[Path], object], str, np.ndarray]] = {
    "bits.tif": (
        lambda path: tifffile.imwrite(path, LABELS > 0, photometric="minisblack"),
        r"bits\.tif: is a boolean mask, .* load the result: (.*)",
        LABELS,
    ),
    "bits.png": (lambda path: png(path, LABELS > 0), r"bits\.png: is a boolean mask, .* load the result: (.*)", LABELS),
    "bits.npy": (
        lambda path: np.save(path, LABELS > 0),
        r"bits\.npy: is a boolean mask, .* load the result: (.*)",
        LABELS,
    ),
    "colours.tif": (
        lambda path: tifffile.imwrite(path, np.stack([FEW, FEW, FEW * 7], -1), photometric="rgb"),
        r"colours\.tif: holds colours; .* black is background: (.*)",
        LABELS,
    ),
    "planes_of_colours.tif": (
        lambda path: tifffile.imwrite(path, np.stack([FEW, FEW, FEW]), photometric="rgb", planarconfig="separate"),
        r"planes_of_colours\.tif: holds colours; .* black is background: (.*)",
        LABELS,
    ),
    "colours.png": (
        lambda path: png(path, np.stack([FEW, FEW, FEW, FEW * 0 + 255], -1)),
        r"colours\.png: holds colours; .* black is background: (.*)",
        LABELS,
    ),
    "grey_alpha.png": (
        lambda path: png(path, np.stack([FEW, FEW * 0 + 255], -1), "LA"),
        r"grey_alpha\.png: holds colours; .* black is background: (.*)",
        LABELS,
    ),
    "mesmer.npy": (
        lambda path: np.save(path, np.stack([LABELS, LABELS], -1)[None]),
        r"mesmer\.npy of shape \(1, 60, 80, 2\): must be 2-D \(y, x\)\. .* load one of them: (.*)",
        LABELS,
    ),
    "several.npz": (
        lambda path: np.savez(path, labels=LABELS, points=np.zeros((3, 2))),
        r"several\.npz: holds 2 arrays \(labels, points\)\. Load the one you mean, like (.*)",
        LABELS,
    ),
    "ilastik.h5": (
        lambda path: h5_of(path, LABELS[..., None]),
        r"ilastik\.h5: is an HDF5 file\. Load its array, like ilastik's: (.*)",
        LABELS[..., None],
    ),
    "hovernet.mat": (
        lambda path: scipy.io.savemat(path, {"inst_map": LABELS}),
        r"hovernet\.mat: is a MATLAB file\. Load its array, like HoVer-Net's: (.*)",
        LABELS,
    ),
    "negative.tif": (
        lambda path: tifffile.imwrite(path, LABELS.astype(np.int32) - (LABELS == 0)),
        r"cytosol mask .*negative\.tif: the negative value -1; .* are background, load (.*)\. If 0 is a cell",
        LABELS,
    ),
    "signed.npy": (
        lambda path: np.save(path, (LABELS * 20).astype(np.uint8).view(np.int8)),
        r"cytosol mask .*signed\.npy: the negative value -\d+; .* If ids above 127 ran over, load (.*)",
        LABELS * 20,
    ),
    "shifted.npy": (
        lambda path: np.save(path, LABELS.astype(np.int32) - 1),
        r"cytosol mask .*shifted\.npy: the negative value -1; .* If 0 is a cell, load (.*)",
        LABELS,
    ),
    "probabilities.npy": (
        lambda path: np.save(path, fractions()),
        r"probabilities\.npy of dtype float32: 0\.25 in row 0, column 0; must hold integers.* above a threshold: (.*)",
        LABELS,
    ),
    "nan.npy": (
        lambda path: np.save(path, np.where(LABELS > 0, LABELS, np.nan)),
        r"nan\.npy of dtype float64: nan in row 0, column 0; .* If NaN is background, load (.*)",
        LABELS,
    ),
    "rounded.npy": (
        lambda path: np.save(path, LABELS.astype(np.float32) + np.float32(2**24) * (LABELS > 0)),
        r"rounded\.npy of dtype float32: id \d+; float32 may have merged ids above 16777216\. .* are right, load (.*)",
        (LABELS.astype(np.float32) + np.float32(2**24) * (LABELS > 0)).astype(np.uint64),
    ),
    "with_time_seg.npy": (
        lambda path: seg_npy(path, changed=Path("x")),
        r"holds a pickled pathlib\S*; only arrays, .* If you trust the file, load its array: (.*)",
        LABELS,
    ),
}


def h5_of(path: Path, array: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file["exported_data"] = array


@pytest.mark.parametrize("name", WITH_CODE)
@pytest.mark.filterwarnings("ignore:cytosol mask .* integers", "ignore:'mode' parameter")
def test_what_an_error_says_to_load_can_be_loaded(project: Project, tmp_path: Path, name: str) -> None:
    write, message, expected = WITH_CODE[name]
    write(tmp_path / name)
    with pytest.raises(InputError, match=message) as raised:
        project.load_segmentation(cytosol=tmp_path / name)
    mask = run_code(re.search(message, str(raised.value))[1])
    np.testing.assert_array_equal(mask, expected)
    project.load_segmentation(cytosol=mask)
    np.testing.assert_array_equal(loaded(project), np.squeeze(expected))


def rois(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("0001-0002.roi", b"Iout")


def text_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


def cut_short(path: Path, whole: Callable[[Path], object]) -> None:
    whole(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty.tif": (lambda path: path.touch(), r"empty\.tif: is empty \(0 bytes\)"),
    "folder": (lambda path: path.mkdir(), r"folder: not a zarr group"),
    "missing.tif": (lambda path: None, r"missing\.tif: there is no such file"),
    "mask.jpg": (lambda path: Image.fromarray(FEW).save(path), r"mask\.jpg: is a JPEG file, whose compression changes"),
    "mask.jp2": (lambda path: path.write_bytes(b"\0\0\0\x0cjP  \r\n\x87\n"), r"mask\.jp2: is a JPEG 2000 file, whose"),
    "frames.gif": (
        lambda path: Image.fromarray(FEW).save(path, save_all=True, append_images=[Image.fromarray(FEW + 1)]),
        r"frames\.gif: holds 2 pictures, a mask is one; save the one you mean",
    ),
    "RoiSet.zip": (rois, r"RoiSet\.zip: holds outlines of ImageJ \(ROIs\), not pixels\. Convert them to a label image"),
    "cell.roi": (lambda path: path.write_bytes(b"Iout\0\xe4"), r"cell\.roi: holds outlines of ImageJ"),
    "text.zip": (text_zip, r"text\.zip: is a zip file that holds readme\.txt\. Unpack it"),
    "qupath.geojson": (
        lambda path: path.write_text(json.dumps({"type": "Feature"})),
        r"qupath\.geojson: has no polygon that can be a cell",
    ),
    "notes.csv": (
        lambda path: path.write_text("x,y\n"),
        r"notes\.csv: is not a mask file: it begins with b'x,y\\n'; TIFF",
    ),
    "slide.czi": (lambda path: path.write_bytes(b"ZISRAWFILE"), r"slide\.czi: is a microscope's CZI file\. Export"),
    "short.png": (lambda path: cut_short(path, LOADED["eight_bits.png"]), r"short\.png: cannot be read as a PNG file"),
    "short.npy": (lambda path: cut_short(path, LOADED["napari.npy"]), r"short\.npy: cannot be read as a \.npy file"),
    "short_seg.npy": (lambda path: cut_short(path, seg_npy), r"short_seg\.npy: cannot be read as a pickled \.npy file"),
    "short.npz": (lambda path: cut_short(path, LOADED["labels.npz"]), r"short\.npz: cannot be read as a zip file"),
    "list.npy": (
        lambda path: np.save(path, np.array([None, 1], object), allow_pickle=True),
        r"list\.npy: holds no array named 'masks' \(it holds: ndarray\)",
    ),
    "other_seg.npy": (
        lambda path: np.save(path, {"flows": 1}, allow_pickle=True),
        r"other_seg\.npy: holds no array named 'masks' \(it holds: flows\)",
    ),
    "text.npy": (lambda path: np.save(path, np.array(["a"])), r"text\.npy: array of dtype <U1: must hold integers"),
    "records.npy": (lambda path: np.save(path, np.zeros(3, "i4,i4")), r"records\.npy: array of dtype \[.*must hold"),
    "small.png": (lambda path: png(path, FEW[:50]), r"cytosol mask is 50 x 80 pixels \(y, x\), the image 60 x 80"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_files_are_refused_by_name_and_nothing_is_loaded(project: Project, tmp_path: Path, name: str) -> None:
    write, message = REFUSED[name]
    write(tmp_path / name)
    with pytest.raises(InputError, match=message):
        project.load_segmentation(cytosol=tmp_path / name)
    assert not project.cyto_seg_status


def test_the_advice_for_a_compressed_file_makes_one_that_loads(project: Project, tmp_path: Path) -> None:
    whole, path = tmp_path / "a mask.tif", tmp_path / "a mask.tif.gz"
    tifffile.imwrite(whole, LABELS)
    path.write_bytes(gzip.compress(whole.read_bytes()))
    whole.unlink()
    with pytest.raises(InputError, match=r"is compressed with gzip\. Decompress it first: python -m gzip -d") as raised:
        project.load_segmentation(cytosol=path)
    _, *arguments = shlex.split(str(raised.value).partition("first: ")[2])
    subprocess.run([sys.executable, *arguments], check=True, timeout=60)
    project.load_segmentation(cytosol=whole)
    np.testing.assert_array_equal(loaded(project), LABELS)


class _Touching:
    """Pickled, it is a call: whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def test_no_code_of_a_pickle_is_run(project: Project, tmp_path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        np.save(tmp_path / "bad_seg.npy", {"masks": LABELS, "x": _Touching(tmp_path / "made")}, allow_pickle=True)
    with pytest.raises(InputError, match=r"bad_seg\.npy: holds a pickled _?io\.open; only arrays, numbers, text"):
        project.load_segmentation(cytosol=tmp_path / "bad_seg.npy")
    assert not (tmp_path / "made").exists()


def test_a_picture_of_more_pixels_than_pillow_likes_loads(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow suspects an attack above 179 million pixels; masks of slides are larger."""
    LOADED["eight_bits.png"](tmp_path / "slide.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Image.DecompressionBombError, match="exceeds limit"):
        Image.open(tmp_path / "slide.png")
    project.load_segmentation(cytosol=tmp_path / "slide.png")
    np.testing.assert_array_equal(loaded(project), LABELS)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_a_plane_of_a_stack_in_a_file_of_numpy(project: Project, tmp_path: Path, name: str) -> None:
    stack = np.stack([LABELS, LABELS * 2])
    np.save(tmp_path / name, stack) if name.endswith("npy") else np.savez(tmp_path / name, stack)
    project.load_segmentation(cytosol=tmp_path / name, z=1)
    np.testing.assert_array_equal(loaded(project), stack[1])
    with pytest.raises(InputError, match=rf"cytosol mask .*{name}: z = 2, but its axes are z = 2, .*: 0 to 1"):
        project.load_segmentation(cytosol=tmp_path / name, z=2, overwrite=True)


@pytest.mark.parametrize("name", ["a.npy", "a.png"])
def test_what_a_file_does_not_have(project: Project, tmp_path: Path, name: str) -> None:
    np.save(tmp_path / name, LABELS) if name.endswith("npy") else png(tmp_path / name, LABELS)
    for choice in ({"z": 7}, {"t": 7}):
        with pytest.raises(InputError, match=rf"{name}: [zt] = 7, but its axes are y = 60, x = 80: it has one plane"):
            project.load_segmentation(cytosol=tmp_path / name, **choice)
    with pytest.raises(InputError, match=rf"{name}: series = 7, .* holds one image. Leave series out"):
        project.load_segmentation(cytosol=tmp_path / name, series=7)
    project.load_segmentation(cytosol=tmp_path / name, series=0, z=0, t=0)
    np.testing.assert_array_equal(loaded(project), LABELS)


@pytest.mark.filterwarnings("ignore:cytosol mask holds integers as float64")
@pytest.mark.parametrize("background", [np.inf, -np.inf, np.nan, -5.0])
def test_the_advice_for_a_background_that_is_no_id_loads(project: Project, background: float) -> None:
    mask = np.where(LABELS > 0, LABELS, background)
    mask[0, 0] = 0
    with pytest.raises(InputError, match=r"cytosol mask.* background, load (.*?)\)(\.|$)") as caught:
        project.load_segmentation(cytosol=mask)
    assert "+ 1" not in str(caught.value)
    code = re.search(r"load (numpy.*\))", str(caught.value))[1]
    project.load_segmentation(cytosol=eval(code, {"numpy": np, "mask": mask}))
    np.testing.assert_array_equal(loaded(project), LABELS)


@pytest.mark.parametrize("mode", ["RGBA", "RGB", "1"])
def test_a_picture_that_was_cut_short_is_damaged(project: Project, tmp_path: Path, mode: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 4)).astype(np.uint8)).convert(mode)
    noise.save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"a\.png: cannot be read as a PNG file"):
        project.load_segmentation(cytosol=tmp_path / "a.png")
