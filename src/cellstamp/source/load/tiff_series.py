"""Choose the image in a TIFF file: find pages that are channels, and skip images not of the sample."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import tifffile

from cellstamp.errors import InputError
from cellstamp.source.load.channel_names import plane_names

_NUMBERED = re.compile(r"(?i)(image|series|scene|position)?[\s:_#]*\d*")
# Images that slide scanners add to a file, by their names in tifffile and Bio-Formats.
_EXTRAS = ("label", "macro", "map", "overview", "thumbnail")


def images_of(
    path: Path, file: tifffile.TiffFile, number: int | None, ome_images: Sequence[ElementTree.Element]
) -> list[tifffile.TiffPageSeries]:
    """Find the images to load from a file: one, or several of one shape and dtype that are channels.

    Parameters
    ----------
    path
        The file, for messages.
    file
        The opened file.
    number
        Index of the image that the user has chosen.
    ome_images
        The images of its OME-XML.

    Raises
    ------
    InputError
        If several images are not channels of one image, or if no image has this number.
    """
    if not file.series:
        raise InputError(f"{path}: there is no image in it")
    if number is not None:
        return [file.series[_checked(path, number, file)]]
    images = _without_extras(file.series)
    pages = list(_as_pages(images)) if len(images) > 1 else images
    problem = _difference(pages) or _repetition(pages, ome_images)
    if problem:
        raise InputError(f"{path}: {problem}. {_listed(file)}")
    return pages


def own_name(series: tifffile.TiffPageSeries) -> str:
    """Return the name of an image; "" if a program only numbered it."""
    return "" if _NUMBERED.fullmatch(series.name) else series.name


def _checked(path: Path, number: int, file: tifffile.TiffFile) -> int:
    try:
        index = operator.index(number)
    except TypeError as error:
        raise InputError(f"series = {number!r}: must be the index of an image in the file") from error
    if isinstance(number, bool) or not 0 <= index < len(file.series):
        raise InputError(f"{path}: there is no series {number!r}. {_listed(file)}")
    return index


def _without_extras(series: Sequence[tifffile.TiffPageSeries]) -> list[tifffile.TiffPageSeries]:
    """Leave out reduced copies and extra images of a scanner; the largest image is always kept."""
    largest = max(_area(each) for each in series)
    return [each for each in series if _area(each) == largest or not _is_extra(each)]


def _is_extra(series: tifffile.TiffPageSeries) -> bool:
    page = series.keyframe
    return page.is_reduced or page.is_subifd or series.name.lower().removesuffix(" image") in _EXTRAS


def _area(series: tifffile.TiffPageSeries) -> int:
    page = series.keyframe
    return int(page.imagewidth) * int(page.imagelength)


def _as_pages(series: Sequence[tifffile.TiffPageSeries]) -> Iterator[tifffile.TiffPageSeries]:
    """Return pages in the order of the file, which tifffile groups by storage; other series unchanged."""
    if any(each.kind != "generic" for each in series):
        yield from series
        return
    pages = sorted((page for each in series for page in each.pages if page is not None), key=lambda page: page.index)
    for page in pages:
        yield tifffile.TiffPageSeries([page], page.shape, page.dtype, page.axes, kind="uniform")


def _difference(images: Sequence[tifffile.TiffPageSeries]) -> str:
    """Return why shapes, dtypes or axes show that images are not channels of one image; "" if they may be."""
    if len({(*_squeezed(each), each.dtype) for each in images}) > 1:
        return f"it holds {len(images)} images that differ in shape or dtype"
    _, axes = _squeezed(images[0])
    if len(images) > 1 and any(axis not in "CIQYX" for axis in axes):
        what = "colour images" if axes in ("YXS", "SYX") else f"images of several planes (axes {axes})"
        return f"it holds {len(images)} {what}"
    return ""


def _squeezed(series: tifffile.TiffPageSeries) -> tuple[tuple[int, ...], str]:
    """Return shape and axes without axes of length 1 other than y and x."""
    kept = [(n, axis) for n, axis in zip(series.shape, series.axes, strict=True) if n != 1 or axis in "YX"]
    return tuple(n for n, _ in kept), "".join(axis for _, axis in kept)


def _repetition(images: Sequence[tifffile.TiffPageSeries], ome_images: Sequence[ElementTree.Element]) -> str:
    """Return why channel names show that images are not channels of one image: scenes repeat their names."""
    found = [plane_names(each, ome_images) for each in images]
    names = [name for each in found if each is not None for name in each.ravel() if name]
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(images) > 1 else []
    return f"it holds {len(images)} images with the same channels ({', '.join(repeated)})" if repeated else ""


def _listed(file: tifffile.TiffFile) -> str:
    lines = [f"  series={number}: {_described(each)}" for number, each in enumerate(file.series)]
    return "\n".join(["Choose one of them with series:", *lines])


def _described(series: tifffile.TiffPageSeries) -> str:
    sizes = ", ".join(f"{axis} = {n}" for axis, n in zip(series.axes.lower(), series.shape, strict=True))
    return f"{sizes}; {series.dtype}" + (f"; {series.name!r}" if series.name else "")
