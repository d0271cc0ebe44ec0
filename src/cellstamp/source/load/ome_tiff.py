"""Find the planes of an OME-TIFF file that is part of a set of files, and missing files.

Every file of such a set can name all the others (Xenium, Bio-Formats, Micro-Manager), and tifffile then reads the set,
with zeros for missing planes. Here each file contributes the planes that are in it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from cellstamp.errors import InputError
from cellstamp.source.load.stacks import Stack

SET_KINDS = ("ome", "mmstack", "ndtiff")
"""Kinds of series that tifffile puts together from several files."""


def ome_xml(file: tifffile.TiffFile) -> ElementTree.Element | None:
    """Parse the OME-XML of a file; None if it is missing or invalid."""
    try:
        return ElementTree.fromstring(file.ome_metadata) if file.ome_metadata else None
    except ElementTree.ParseError:
        return None


def open_tiff(path: Path, files: ExitStack) -> tuple[tifffile.TiffFile, frozenset[str]]:
    """Open a TIFF file with the part of its OME-XML that describes its planes.

    Returns the file and the identifiers of all files of its set; these are empty if the OME-XML names no files.

    tifffile then does not open the other files of the set, which it would do again for each file. It does so only for a
    file without planes; then the other files must exist.

    Raises
    ------
    InputError
        If a required file is missing or cannot be read: a companion, or the files with the planes.
    """
    file = files.enter_context(tifffile.TiffFile(path))
    own = ome_xml(file)
    if own is None or file.is_mmstack or file.is_ndtiff:
        return file, frozenset()
    root = _described_elsewhere(path, own)
    blocks = [(data, data.find("{*}UUID")) for data in root.iterfind("{*}Image/{*}Pixels/{*}TiffData")]
    named = [uuid for _, uuid in blocks if uuid is not None]
    if root is own and not named:
        return file, frozenset()
    members = frozenset(uuid.text or str(path.parent / uuid.get("FileName", "")) for uuid in named)
    mine = _mine(path, own.get("UUID"), named)
    if mine or len(named) < len(blocks):
        _keep_only(root, mine, len(file.pages))
    elif missing := [name for name in _file_names(named) if not (path.parent / name).is_file()]:
        raise InputError(
            f"{path}: its planes are in other files, and {_shown(missing)} cannot be found; put all files of the image "
            "into one folder, under these names"
        )
    xml = ElementTree.tostring(root, encoding="unicode")
    return files.enter_context(tifffile.TiffFile(path, omexml=xml)), members


def _mine(path: Path, own: str | None, named: Sequence[ElementTree.Element]) -> list[ElementTree.Element]:
    """Find the planes in this file: by its UUID, or by its name if the UUID is missing or unknown."""
    by_name = [uuid for uuid in named if _parts(uuid.get("FileName", ""))[-1:] == _parts(path.name)]
    by_uuid = [uuid for uuid in named if own is not None and uuid.text == own]
    if by_uuid:  # the name helps where a program gave all files one UUID
        both = [uuid for uuid in by_uuid if uuid in by_name]
        return both if both and len(_file_names(by_uuid)) > 1 else by_uuid
    if len(_file_names(by_name)) <= 1:
        return by_name
    place = _parts(str(path.resolve()))
    names = [name for name in _file_names(by_name) if place[-len(_parts(name)) :] == _parts(name)]
    if not names:
        raise InputError(
            f"{path}: its OME-XML names several files called {path.name!r} ({_shown(_file_names(by_name))}), and the "
            "file has no UUID that says which it is. Put it into a folder of that name"
        )
    return [uuid for uuid in by_name if uuid.get("FileName", "") == max(names, key=len)]


def _parts(name: str) -> tuple[str, ...]:
    """Split a path of any operating system into folders and file, in lower case."""
    return tuple(part for part in re.split(r"[\\/]", name.lower()) if part not in ("", "."))


def _described_elsewhere(path: Path, own: ElementTree.Element) -> ElementTree.Element:
    """Return the OME-XML of the companion file; the file's own if it names no companion."""
    pointer = own.find("{*}BinaryOnly")
    if pointer is None:
        return own
    companion = path.parent / pointer.get("MetadataFile", "")
    if not companion.is_file():
        raise InputError(
            f"{path}: its axes and channels are described in {pointer.get('MetadataFile')!r}, which is missing; put "
            "that file into the same folder"
        )
    try:
        return ElementTree.fromstring(_metadata_in(companion))
    except ElementTree.ParseError as error:
        raise InputError(f"{companion}: its OME-XML cannot be read: {error}") from error


def _keep_only(root: ElementTree.Element, mine: Sequence[ElementTree.Element], n_pages: int) -> None:
    """Reduce OME-XML to one file: remove planes in other files, and the file's name."""
    for pixels in root.iterfind("{*}Image/{*}Pixels"):
        for data in pixels.findall("{*}TiffData"):
            uuid = data.find("{*}UUID")
            if uuid is None:
                continue
            if uuid not in mine:
                pixels.remove(data)
                continue
            data.remove(uuid)
            if not {"IFD", "PlaneCount", "NumPlanes"} & set(data.attrib):
                data.set("PlaneCount", str(n_pages))


def _file_names(uuids: Sequence[ElementTree.Element]) -> list[str]:
    return list(dict.fromkeys(uuid.get("FileName", "") for uuid in uuids))


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _metadata_in(companion: Path) -> str:
    try:
        if companion.suffix.lower() in (".tif", ".tiff", ".btf", ".tf2", ".tf8"):
            with tifffile.TiffFile(companion) as file:
                return file.ome_metadata or ""
        return companion.read_text(encoding="utf-8")
    except (OSError, ValueError, tifffile.TiffFileError) as error:
        raise InputError(f"{companion}: its OME-XML cannot be read: {error}") from error


def own_planes(path: Path, series: tifffile.TiffPageSeries, stack: Stack, given: Collection[Path]) -> Stack | None:
    """Mark the planes of a series that this file contributes.

    Parameters
    ----------
    path
        The file.
    series
        One of its series.
    stack
        Its pixels.
    given
        All files that are loaded together. A file without planes (a master file) contributes the planes of files of its
        set that are not given.

    Returns
    -------
    Stack or None
        None if it contributes no planes.

    Raises
    ------
    InputError
        If required planes are in a missing file.
    """
    pages, leading = list(series.pages), series.shape[: len(series.shape) - len(series.keyframe.shape)]
    if series.kind not in SET_KINDS or len(pages) != np.prod(leading):
        return stack
    own = _whose(pages, [path]).reshape(leading)
    if own.any():
        return _marked(stack, own)
    there = _whose(pages, _files_of(pages)).reshape(leading)
    if not there.all():
        raise InputError(f"{path}: its planes are in other files, which lack {np.count_nonzero(~there)} of them")
    others = there & ~_whose(pages, given).reshape(leading)
    return _marked(stack, others) if others.any() else None


def _whose(pages: Sequence[Any], paths: Collection[Path]) -> NDArray[np.bool_]:
    """Return whether each page is in one of these files."""
    wanted = {os.path.realpath(path) for path in paths}
    known: dict[str, bool] = {}
    for page in pages:
        if page is not None and page.parent.filehandle.path not in known:
            known[page.parent.filehandle.path] = os.path.realpath(page.parent.filehandle.path) in wanted
    return np.array([page is not None and known[page.parent.filehandle.path] for page in pages], bool)


def files_of(series: tifffile.TiffPageSeries) -> frozenset[str]:
    """Return the files of a Micro-Manager series, as tifffile found them; empty for other series."""
    if series.kind not in ("mmstack", "ndtiff"):
        return frozenset()
    return frozenset(map(os.path.realpath, _files_of(list(series.pages))))


def _files_of(pages: Sequence[Any]) -> set[Path]:
    return {Path(page.parent.filehandle.path) for page in pages if page is not None}


def _marked(stack: Stack, there: NDArray[np.bool_]) -> Stack:
    return replace(stack, present=there.reshape(there.shape + (1,) * (len(stack.axes) - there.ndim)))


def restricted(stack: Stack, *, whole: str = "") -> Stack:
    """Return the smallest block that holds all existing planes; missing planes inside it are marked.

    Parameters
    ----------
    stack
        The image, its planes marked by `own_planes`.
    whole
        Axes that keep their length.
    """
    there = stack.present
    if there is None:
        return stack
    for axis, size in enumerate(there.shape):
        indices = np.flatnonzero(there.any(axis=tuple(k for k in range(there.ndim) if k != axis))).tolist()
        if len(indices) < size and stack.axes[axis] not in whole:
            stack = stack.along(axis, indices)
    return stack


def check_complete(path: Path, file: tifffile.TiffFile) -> None:
    """Check that a file has all planes that its OME-XML declares.

    Raises
    ------
    InputError
        If planes are missing, or the file has other pages.
    """
    root = ome_xml(file)
    series = [each for each in file.series if each.kind == "ome"]
    if root is None or not series:
        _check_size(path, file, root)
        return
    declared = sum(_declared(image) for image in root.iterfind("{*}Image"))
    found = sum(int(_whose(list(each.pages), [path]).sum()) for each in series)
    if found < declared:
        readable = "1 plane" if found == 1 else f"{found} planes"
        raise InputError(
            f"{path}: {readable} can be read, but its OME-XML says that there are {declared}. Copy or export the "
            "file again; if its pages are the channels, load them with load_input_from_array(tifffile.imread(path, "
            f"key=range({len(file.pages)})))"
        )


def _check_size(path: Path, file: tifffile.TiffFile, root: ElementTree.Element | None) -> None:
    """Check that the pages have the size that the OME-XML declares."""
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


def _declared(image: ElementTree.Element) -> int:
    """Return the number of planes that the OME-XML declares in this file; 0 for a master file."""
    pixels = image.find("{*}Pixels")
    if pixels is None:
        return 0
    samples = int(next((channel.get("SamplesPerPixel", 1) for channel in pixels.iterfind("{*}Channel")), 1))
    every = int(np.prod([int(pixels.get(f"Size{axis}", 1)) for axis in "CZT"])) // max(1, samples)
    blocks = [data for data in pixels.iterfind("{*}TiffData") if data.find("{*}UUID") is None]
    return min(sum(_count(data, every) for data in blocks), every)


def _count(data: ElementTree.Element, every: int) -> int:
    """Return the number of planes of a TiffData element."""
    return int(data.get("PlaneCount", data.get("NumPlanes", 1 if "IFD" in data.attrib else every)))
