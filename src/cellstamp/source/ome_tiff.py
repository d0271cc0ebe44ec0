"""OME-TIFF images of several files: which planes are in this one, and which file is missing.

Every file of such a set can name all the others (Xenium, Bio-Formats, Micro-Manager), and tifffile then reads the set,
with zeros for what is missing. Here each file contributes the planes that are in it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from cellstamp.errors import InputError
from cellstamp.source.stacks import Stack

SET_KINDS = ("ome", "mmstack", "ndtiff")
"""Kinds of series that tifffile puts together from several files."""


def ome_xml(file: tifffile.TiffFile) -> ElementTree.Element | None:
    """Parse the OME-XML of a file; None when it has none that can be read."""
    try:
        return ElementTree.fromstring(file.ome_metadata) if file.ome_metadata else None
    except ElementTree.ParseError:
        return None


def open_tiff(path: Path, files: ExitStack) -> tifffile.TiffFile:
    """Open a TIFF file with the OME-XML that describes it, which may be in another file (companion.ome).

    Raises
    ------
    InputError
        When that other file is missing, or can't be read.
    """
    file = files.enter_context(tifffile.TiffFile(path))
    root = ome_xml(file)
    if root is None:
        return file
    try:
        kinds = {series.kind for series in file.series}
    except ValueError:  # of planes in a missing file, when the XML does not say how many there are
        return files.enter_context(tifffile.TiffFile(path, omexml=_without_missing(path, root)))
    pointer = root.find("{*}BinaryOnly")
    if pointer is None or kinds & set(SET_KINDS):
        return file
    companion = path.parent / pointer.get("MetadataFile", "")
    if not companion.is_file():
        raise InputError(
            f"{path}: its axes and channels are described in {pointer.get('MetadataFile')!r}, which is missing; put "
            "that file into the same folder"
        )
    return files.enter_context(tifffile.TiffFile(path, omexml=_metadata_in(companion)))


def _without_missing(path: Path, root: ElementTree.Element) -> str:
    """OME-XML that leaves out planes in files that can't be found."""
    for pixels in root.iterfind("{*}Image/{*}Pixels"):
        for data in pixels.findall("{*}TiffData"):
            uuid = data.find("{*}UUID")
            if uuid is not None and not (path.parent / uuid.get("FileName", "")).is_file():
                pixels.remove(data)
    return ElementTree.tostring(root, encoding="unicode")


def _metadata_in(companion: Path) -> str:
    try:
        if companion.suffix.lower() in (".tif", ".tiff", ".btf", ".tf2", ".tf8"):
            with tifffile.TiffFile(companion) as file:
                return file.ome_metadata or ""
        return companion.read_text(encoding="utf-8")
    except (OSError, ValueError, tifffile.TiffFileError) as error:
        raise InputError(f"{companion}: its OME-XML cannot be read: {error}") from error


def own_planes(path: Path, series: tifffile.TiffPageSeries, stack: Stack, given: Collection[Path]) -> Stack | None:
    """Restrict a series to the planes that this file contributes.

    Parameters
    ----------
    path
        The file.
    series
        One of its series.
    stack
        Its pixels.
    given
        All files that are loaded together. A file without planes (a master file) contributes those of its siblings
        that are not among them.

    Returns
    -------
    Stack or None
        None when there is nothing to contribute.

    Raises
    ------
    InputError
        When planes are needed that are in a missing file.
    """
    pages, leading = list(series.pages), series.shape[: len(series.shape) - len(series.keyframe.shape)]
    if series.kind not in SET_KINDS or len(pages) != np.prod(leading):
        return stack
    own = _whose(pages, [path]).reshape(leading)
    if own.any():
        return _restricted(stack, own)
    there = _whose(pages, _files_of(pages)).reshape(leading)
    if not there.all():
        raise InputError(f"{path}: its planes are in other files, and {_missing(path, series.parent)}")
    others = there & ~_whose(pages, given).reshape(leading)
    return _restricted(stack, others) if others.any() else None


def _whose(pages: Sequence[Any], paths: Collection[Path]) -> NDArray[np.bool_]:
    """Which pages are in one of these files."""
    wanted = {os.path.realpath(path) for path in paths}
    known: dict[str, bool] = {}
    for page in pages:
        if page is not None and page.parent.filehandle.path not in known:
            known[page.parent.filehandle.path] = os.path.realpath(page.parent.filehandle.path) in wanted
    return np.array([page is not None and known[page.parent.filehandle.path] for page in pages], bool)


def _files_of(pages: Sequence[Any]) -> set[Path]:
    return {Path(page.parent.filehandle.path) for page in pages if page is not None}


def _restricted(stack: Stack, there: NDArray[np.bool_]) -> Stack:
    """The smallest block of planes that holds all that are there; what is missing inside of it is marked."""
    marked = there.reshape(there.shape + (1,) * (len(stack.axes) - there.ndim))
    stack = Stack(stack.pixels, stack.axes, stack.names, marked)
    for axis in range(there.ndim):
        indices = np.flatnonzero(there.any(axis=tuple(k for k in range(there.ndim) if k != axis))).tolist()
        if len(indices) < there.shape[axis]:
            stack = stack.along(axis, indices)
    return stack


def check_complete(path: Path, file: tifffile.TiffFile) -> None:
    """Refuse a file with fewer planes than its OME-XML says are in it.

    Raises
    ------
    InputError
        Saying how many there are.
    """
    root = ome_xml(file)
    series = [each for each in file.series if each.kind == "ome"]
    if root is None or not series:
        _check_not_elsewhere(path, file, root)
        _check_size(path, file, root)
        return
    declared = sum(_declared(path, file, image) for image in root.iterfind("{*}Image"))
    found = sum(int(_whose(list(each.pages), [path]).sum()) for each in series)
    if found < declared:
        raise InputError(
            f"{path}: {found} planes can be read, but its OME-XML says that there are {declared}. Copy or export the "
            "file again; if its pages are the channels, load them with load_input_from_array(tifffile.imread(path, "
            f"key=range({len(file.pages)})))"
        )


def _check_not_elsewhere(path: Path, file: tifffile.TiffFile, root: ElementTree.Element | None) -> None:
    """Refuse a file whose planes are all in files that tifffile has not found."""
    names = [] if root is None else list(_file_names(root))
    elsewhere = bool(names) and path.name.lower() not in {name.lower() for name in names}
    if elsewhere and file.series and file.series[0].kind not in SET_KINDS:
        raise InputError(f"{path}: its planes are in other files, and {_missing(path, file)}")


def _check_size(path: Path, file: tifffile.TiffFile, root: ElementTree.Element | None) -> None:
    """Refuse pages that are no planes of the image that the OME-XML describes."""
    pixels = None if root is None else root.find("{*}Image/{*}Pixels")
    if pixels is None or not file.series or file.series[0].kind in SET_KINDS:
        return
    page = file.series[0].keyframe
    described, found = (pixels.get("SizeY"), pixels.get("SizeX")), (str(page.imagelength), str(page.imagewidth))
    if described != found:
        raise InputError(
            f"{path}: its OME-XML describes planes of {' x '.join(map(str, described))} pixels (y, x), but its pages "
            f"have {' x '.join(found)}. Export the file again with another program"
        )


def _declared(path: Path, file: tifffile.TiffFile, image: ElementTree.Element) -> int:
    """Planes of an image that are in this file, as its OME-XML has it."""
    pixels = image.find("{*}Pixels")
    if pixels is None:
        return 0
    samples = int(next((channel.get("SamplesPerPixel", 1) for channel in pixels.iterfind("{*}Channel")), 1))
    every = int(np.prod([int(pixels.get(f"Size{axis}", 1)) for axis in "CZT"])) // max(1, samples)
    counts = [_count(path, file, data, every) for data in pixels.iterfind("{*}TiffData")]
    return min(sum(counts), every)


def _count(path: Path, file: tifffile.TiffFile, data: ElementTree.Element, every: int) -> int:
    """Planes of this file that an element TiffData stands for."""
    uuid = data.find("{*}UUID")
    if uuid is not None and uuid.get("FileName", "").lower() != path.name.lower():
        return 0
    rest = every if uuid is None else len(file.pages)
    return int(data.get("PlaneCount", data.get("NumPlanes", 1 if "IFD" in data.attrib else rest)))


def _missing(path: Path, file: tifffile.TiffFile | None) -> str:
    root = ome_xml(file) if file is not None else None
    named = () if root is None else dict.fromkeys(_file_names(root))
    missing = [name for name in named if not (path.parent / name).is_file()]
    shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    return f"{shown or 'some of them'} cannot be found; put all files of the image into one folder, under these names"


def _file_names(root: ElementTree.Element) -> Iterator[str]:
    for uuid in root.iterfind("{*}Image/{*}Pixels/{*}TiffData/{*}UUID"):
        yield uuid.get("FileName", "")
