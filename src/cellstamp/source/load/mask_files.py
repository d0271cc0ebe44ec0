"""Open mask files of segmentation programs. The content decides which reader is used."""

from __future__ import annotations

import shlex
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile

from cellstamp.errors import InputError
from cellstamp.source.load.file_kinds import first_bytes, kind_of_file
from cellstamp.source.load.pixels import Pixels, as_pixels
from cellstamp.source.load.seg_npy import read_seg_npy

# Pillow's classes of these formats: Image.open would accept other formats, and limit the image's size.
_PICTURES: dict[str, Callable[[Path], ImageFile]] = {"PNG": PngImageFile, "BMP": BmpImageFile, "GIF": GifImageFile}
_PICTURE_TYPES = {"L": np.uint8, "P": np.uint8, "I;16": np.uint16, "I;16B": np.uint16, "I": np.int32}
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError)
_OUTLINES = (
    "holds outlines of ImageJ (ROIs), not pixels. Convert them to a label image in ImageJ, and save it as a TIFF of 16 "
    "or 32 bits"
)
_READ = "TIFF, PNG, BMP, GIF, .npy, .npz and Cellpose's _seg.npy files are read"


@dataclass(frozen=True)
class MaskFile:
    """A mask in a file.

    Attributes
    ----------
    pixels
        (y, x), or with more axes; of any dtype.
    code
        Python that reads the file as an array, for messages.
    """

    pixels: Pixels
    code: str


def open_mask_file(path: Path, open_tiff: Callable[[Path], Pixels]) -> MaskFile:
    """Open the file of a mask.

    Parameters
    ----------
    path
        A TIFF file (read block by block), ``.npy`` (mapped into memory), or PNG, BMP, GIF, ``.npz`` or Cellpose's
        ``_seg.npy`` (decoded completely).
    open_tiff
        Opens a TIFF file.

    Raises
    ------
    InputError
        If the file is missing, damaged or of another kind, or if its pixels are boolean or colours.
    """
    kind = kind_of_file(path)
    if kind == "TIFF":
        return _open_tiff(path, open_tiff)
    readers = {"NumPy": _open_npy, "zip": _open_zip, **dict.fromkeys(_PICTURES, _open_picture)}
    if kind not in readers:
        raise InputError(f"{path}: {_why_not(path, kind)}")
    return readers[kind](path)


def _open_tiff(path: Path, open_tiff: Callable[[Path], Pixels]) -> MaskFile:
    code = f"tifffile.imread({str(path)!r})"
    dtype, shape = _first_series(path)
    if dtype is not None and dtype.kind == "b":
        raise InputError(_bits(path, code))
    pixels = open_tiff(path)
    if pixels.names[:3] == ("red", "green", "blue"):
        in_planes = shape[-1] != len(pixels.names)
        raise InputError(_colours(path, f"numpy.moveaxis({code}, 0, -1)" if in_planes else code))
    return MaskFile(pixels, code)


def _first_series(path: Path) -> tuple[np.dtype[Any] | None, tuple[int, ...]]:
    """Return dtype and shape of a TIFF file's first series; None and () if it is damaged, which `open_tiff` reports."""
    try:
        with tifffile.TiffFile(path) as file:
            return file.series[0].dtype, tuple(file.series[0].shape)
    except (tifffile.TiffFileError, OSError, IndexError):
        return None, ()


@dataclass(frozen=True)
class _Picture:
    """A picture, decoded when a pixel is first read."""

    path: Path
    kind: str

    @cached_property
    def pixels(self) -> NDArray[Any]:
        try:
            with _PICTURES[self.kind](self.path) as picture:
                return np.asarray(picture)
        except _DAMAGED as error:
            raise InputError(_damaged(self.path, self.kind, error)) from error


def _open_picture(path: Path) -> MaskFile:
    kind, code = kind_of_file(path), f"skimage.io.imread({str(path)!r})"
    try:
        with _PICTURES[kind](path) as picture:
            mode, (width, height), n_frames = picture.mode, picture.size, getattr(picture, "n_frames", 1)
            if mode not in _PICTURE_TYPES:
                picture.load()  # a damaged file raises here: converting it would not help
    except _DAMAGED as error:
        raise InputError(_damaged(path, kind, error)) from error
    if mode == "1":
        raise InputError(_bits(path, code))
    if mode not in _PICTURE_TYPES:
        raise InputError(_colours(path, code))
    if n_frames > 1:
        raise InputError(f"{path}: holds {n_frames} pictures, a mask is one; save the one you mean as TIFF or PNG")
    shape, decoded = (height, width), _Picture(path, kind)
    return MaskFile(Pixels(shape, np.dtype(_PICTURE_TYPES[mode]), shape, lambda part: decoded.pixels[part]), code)


def _open_npy(path: Path) -> MaskFile:
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        if "Python objects" not in str(error) and "allow_pickle" not in str(error):
            raise InputError(_damaged(path, ".npy", error)) from error
        return _of_array(path, read_seg_npy(path), f"numpy.load({str(path)!r}, allow_pickle=True).item()['masks']")
    return _of_array(path, array, f"numpy.load({str(path)!r})")


def _open_zip(path: Path) -> MaskFile:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
        arrays = np.load(path) if members and all(name.endswith(".npy") for name in members) else None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(_damaged(path, "zip", error)) from error
    if arrays is None:
        raise InputError(f"{path}: {_why_not_npz(members)}")
    with arrays:
        return _only_array(path, arrays)


def _only_array(path: Path, arrays: Any) -> MaskFile:
    names = list(arrays)
    code = f"numpy.load({str(path)!r})[{names[0]!r}]"
    if len(names) > 1:
        raise InputError(f"{path}: holds {len(names)} arrays ({', '.join(names)}). Load the one you mean, like {code}")
    try:
        return _of_array(path, arrays[names[0]], code)
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(_damaged(path, ".npz", error)) from error


def _of_array(path: Path, array: NDArray[Any], code: str) -> MaskFile:
    if array.dtype.kind == "b":
        raise InputError(_bits(path, code))
    try:
        return MaskFile(as_pixels(array), code)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _bits(path: Path, code: str) -> str:
    return (
        f"{path}: is a boolean mask, which does not tell cells apart. Number its connected components and load the "
        f"result: skimage.measure.label({code})"
    )


def _colours(path: Path, code: str) -> str:
    return (
        f"{path}: holds colours; a mask has one number per pixel, the cell's id, and 0 for background. Save it without "
        f"colours. If each colour is one cell and black is background: rgb = {code}[..., :3]; mask = numpy.unique("
        "rgb.reshape(-1, rgb.shape[-1]), axis=0, return_inverse=True)[1].reshape(rgb.shape[:2])"
    )


def _damaged(path: Path, kind: str, error: Exception) -> str:
    return f"{path}: cannot be read as a {kind} file: {error}; write or copy the file again"


def _why_not(path: Path, kind: str) -> str:
    """Return why a file of this kind is not a mask, and the fix."""
    shown = str(path)
    lossy = f"is a {kind} file, whose compression changes ids. Export the mask as TIFF or PNG"
    proprietary = f"is a microscope's {kind} file. Export the mask as TIFF"
    reasons = {
        "JPEG": lossy,
        "JPEG 2000": lossy,
        "HDF5": f"is an HDF5 file. Load its array, like ilastik's: h5py.File({shown!r})['exported_data'][...]",
        "MATLAB": f"is a MATLAB file. Load its array, like HoVer-Net's: scipy.io.loadmat({shown!r})['inst_map']",
        "gzip": f"is compressed with gzip. Decompress it first: python -m gzip -d {shlex.quote(shown)}",
        "ImageJ outline": _OUTLINES,
        "CZI": proprietary,
        "ND2": proprietary,
    }
    return reasons.get(kind, f"is not a mask file: it begins with {first_bytes(path, 12)!r}; {_READ}")


def _why_not_npz(members: list[str]) -> str:
    """Return why a zip file is not a mask, and the fix."""
    if any(name.lower().endswith(".roi") for name in members):
        return _OUTLINES
    listed = f"{', '.join(members[:3])}{', ...' if len(members) > 3 else ''}"
    return f"is a zip file that holds {listed or 'nothing'}. Unpack it and give the mask's file; {_READ}"
