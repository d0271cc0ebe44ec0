"""Open TIFF files as pixels that are read block by block."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from cellstamp.errors import InputError
from cellstamp.source.library_messages import quiet
from cellstamp.source.load.array_axes import file_stack
from cellstamp.source.load.channel_names import plane_names
from cellstamp.source.load.checks import check_alike
from cellstamp.source.load.image_files import is_picture, open_picture
from cellstamp.source.load.ome_sets import FileStacks, joined
from cellstamp.source.load.ome_tiff import check_complete, files_of, ome_xml, open_tiff, own_planes
from cellstamp.source.load.pixels import Pixels, Region, as_pixels, stack
from cellstamp.source.load.plane_choice import PlaneChoice, chosen
from cellstamp.source.load.stacks import Stack, letters, named_along, pages_as_stack
from cellstamp.source.load.tiff_series import images_of, own_name

# Errors of tifffile and imagecodecs for damaged or unknown files.
_DAMAGED = (tifffile.TiffFileError, OSError, IndexError, KeyError, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True)
class TiffChoice:
    """Selection to read from each TIFF file.

    Attributes
    ----------
    series
        Index of the image in a file with several.
    planes
        Planes along z and t.
    axes
        A letter for each axis of each file's image; None: the axes that the file names.
    from_shape
        Whether axes that the file does not name follow from the shape; see `cellstamp.source.load.array_axes`.
    """

    series: int | None = None
    planes: PlaneChoice = field(default_factory=PlaneChoice)
    axes: str | None = None
    from_shape: bool = False


@contextmanager
def open_tiffs(paths: Sequence[str | os.PathLike[str]], choice: TiffChoice | None = None) -> Iterator[list[Pixels]]:
    """Open TIFF files, and keep them open while the block runs: pixels are read from them on demand.

    Parameters
    ----------
    paths
        The files.
    choice
        Selection to read from each.

    Yields
    ------
    list of Pixels
        Pixels of each file: (y, x), or (c, y, x) for several channels or colours; all of one size and dtype. A file
        without planes contributes none if other files of its set are in `paths`.

    Raises
    ------
    InputError
        If a file is missing, is not a TIFF, has other data than planes, or needs a choice of planes, or if the files
        differ in size or dtype.
    """
    given, choice = [Path(path) for path in paths], choice or TiffChoice()
    with ExitStack() as files:
        found = joined([file for path in given if (file := _open(path, choice, files, given)) is not None])
        opened: list[Pixels] = []
        for file in found:
            opened.append(_chosen(_with_axes(file, choice), choice.planes, _n_channels(opened, choice)))
        check_alike({file.path: pixels for file, pixels in zip(found, opened, strict=True)})
        yield opened


def _n_channels(opened: Sequence[Pixels], choice: TiffChoice) -> int:
    n_planes = sum(1 if len(pixels.shape) == 2 else pixels.shape[0] for pixels in opened)
    return n_planes // (len(choice.planes.z) if isinstance(choice.planes.z, tuple) else 1)


def check_one_plane(path: str | os.PathLike[str], pixels: Pixels) -> None:
    """Check that the TIFF file of a mask has one plane.

    Raises
    ------
    InputError
        If it has several; the message shows how to load one.
    """
    if len(pixels.shape) == 2:
        return
    with tifffile.TiffFile(path) as file:
        paged = len(file.pages) >= pixels.shape[0]
    name = repr(os.fspath(path))
    first, second = (f"tifffile.imread({name}, key={k})" if paged else f"tifffile.imread({name})[{k}]" for k in (0, 1))
    raise InputError(
        f"{os.fspath(path)}: it holds {pixels.shape[0]} planes (y, x); a mask is one. Load each as an array: "
        f"load_segmentation(nucleus={first}, cytosol={second})"
    )


def _open(path: Path, choice: TiffChoice, files: ExitStack, given: Collection[Path]) -> FileStacks | None:
    if not path.is_file():
        raise InputError(f"{path}: there is no such file" + (", it is a folder" if path.is_dir() else ""))
    if is_picture(path):
        picture = open_picture(path, choice.planes, choice.series)
        # a .npy file names no axes
        axes = ("cyx" if picture.names else "qyx")[-len(picture.shape) :]
        named = named_along(axes, picture.shape, "c", picture.names)
        return FileStacks(path, str(path), (Stack(picture, axes, named),))
    try:
        with quiet():
            return _contributed(path, choice.series, files, given)
    except InputError:
        raise
    except _DAMAGED as error:
        hint = "" if isinstance(error, OSError) else f". {_instead(path)}"
        raise InputError(f"{path}: cannot be read as TIFF: {error}{hint}") from error


def _instead(path: Path) -> str:
    with path.open("rb") as file:
        is_xml = file.read(1000).lstrip(b"\xef\xbb\xbf \r\n").startswith((b"<?xml", b"<OME"))
    if is_xml:
        return "It holds metadata only: give the TIFF files that it describes"
    return "Convert it to OME-TIFF, or load it as an array (load_input_from_array)"


def _contributed(path: Path, number: int | None, files: ExitStack, given: Collection[Path]) -> FileStacks | None:
    """Return the image of a file, or all of its images as channels."""
    file, members = open_tiff(path, files)
    root = ome_xml(file)
    ome_images = [] if root is None else root.findall("{*}Image")
    check_complete(path, file)
    images = images_of(path, file, number, ome_images)
    opened = [own_planes(path, series, _stack(path, series, ome_images, files), given) for series in images]
    parts = tuple(part for part in opened if part is not None)
    names = tuple(map(own_name, images))
    return FileStacks(path, str(path), parts, names, members or files_of(images[0])) if parts else None


def _with_axes(file: FileStacks, choice: TiffChoice) -> FileStacks:
    """Return a file with the axes that the user names, or that shapes suggest."""
    if choice.axes is None and (choice.planes.given or not choice.from_shape):
        return file
    parts = _as_planes(file) if choice.axes is not None and len(file.parts) > 1 else file.parts
    return replace(file, parts=tuple(file_stack(part, choice.axes, file.where) for part in parts))


def _chosen(file: FileStacks, planes: PlaneChoice, first: int) -> Pixels:
    """Return the chosen planes of a file as channels; its images are channels, or planes if z or t is chosen."""
    stacks = _as_planes(file) if planes.given and len(file.parts) > 1 else file.parts
    parts = [chosen(part, planes, file.where, first=first) for part in stacks]
    if len(parts) == 1:
        return parts[0]
    names = tuple(name for part in parts for name in part.names) or file.names
    image = stack(parts)
    usable = all(names) and len(set(names)) == len(names) == image.shape[0]
    return replace(image, names=names if usable else ())


def _as_planes(file: FileStacks) -> tuple[Stack, ...]:
    """Return images of a file as one stack; unchanged if planes are missing (see `chosen`)."""
    if len({part.pixels.shape for part in file.parts}) > 1:
        raise InputError(f"{file.where}: its images lack different planes. Choose one of them with series")
    if not all(part.present is None or part.present.all() for part in file.parts):
        return file.parts
    return (pages_as_stack(file.parts, file.names),)


def _stack(
    path: Path, series: tifffile.TiffPageSeries, ome_images: Sequence[ElementTree.Element], files: ExitStack
) -> Stack:
    try:
        _check_written(series)
        pixels = _pixels(path, series, files)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return Stack(_named(path, pixels), letters(series.axes), plane_names(series, ome_images))


def _check_written(series: tifffile.TiffPageSeries) -> None:
    """Check that all pages have data: pages of an interrupted export would be read as zeros."""
    pages = [page for page in series.pages if page is not None and not page.parent.filehandle.closed]
    empty = sum(not any(page.databytecounts) for page in pages)
    if empty:
        raise InputError(f"{empty} of its {len(pages)} pages have no pixels; copy or export the file again")


def _named(path: Path, pixels: Pixels) -> Pixels:
    """Return the pixels with errors that name the file if they cannot be decoded."""

    def read(region: Region) -> NDArray[Any]:
        try:
            return pixels.read(region)
        except _DAMAGED as error:
            raise InputError(f"{path}: its pixels cannot be decoded: {error}. Copy or export the file again") from error

    return replace(pixels, read=read)


def _pixels(path: Path, series: tifffile.TiffPageSeries, files: ExitStack) -> Pixels:
    if series.dataoffset is not None and series.dtype is not None and not series.is_multifile:
        # Uncompressed, contiguous: tifffile would read a complete page, a memory map reads only the requested part.
        order = series.parent.byteorder if series.parent is not None else "="
        dtype = series.dtype.newbyteorder(order)
        if path.stat().st_size < series.dataoffset + series.nbytes:
            raise InputError("it ends before its last pixel; copy or export the file again")
        return as_pixels(np.memmap(path, dtype, "r", offset=series.dataoffset, shape=tuple(series.shape)))
    store = files.enter_context(series.aszarr(level=0))
    return as_pixels(zarr.open_array(store, mode="r"))
