"""Read the names of a TIFF file's channels; each kind of file stores them elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from cellstamp.source.load.stacks import named_along

_COLOURS = ("red", "green", "blue", "alpha")
# tifffile decodes YCbCr of these compressions to RGB.
_JPEG = (tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.OJPEG)
# Bio-Formats and ImageJ put the position of a plane before its label: "c:1/3 z:2/5 - ".
_POSITION = re.compile(r"^(?:[a-z]+:\d+/\d+\s*)+(?:-\s*)?")


def plane_names(series: tifffile.TiffPageSeries, ome_images: Sequence[ElementTree.Element]) -> NDArray[Any] | None:
    """Find the names of a series' planes.

    Parameters
    ----------
    series
        The series, of an open file.
    ome_images
        The images of the file's OME-XML; empty if it has none.

    Returns
    -------
    numpy.ndarray or None
        str objects, "" for unknown names, of a shape that broadcasts to that of the series. None if the file has no
        names.
    """
    if "S" in series.axes and (colours := _colours(series)):
        return _along(series, "S", colours)
    if series.kind == "ome":
        return _along(series, "C", _ome_names(series, ome_images))
    if series.kind == "imagej":
        return _imagej_names(series)
    find = _BY_KIND.get(series.kind)
    names = find(series) if find is not None else ()
    if not any(names) and len(ome_images) == 1:  # OME-XML that does not say which page is which
        names = _names_in(ome_images[0])
    return next((found for axis in "CIQ" if (found := _along(series, axis, names)) is not None), None)


def _along(series: tifffile.TiffPageSeries, axis: str, names: Sequence[str]) -> NDArray[Any] | None:
    return named_along(series.axes, series.shape, axis, names)


def _colours(series: tifffile.TiffPageSeries) -> tuple[str, ...]:
    """Return the names of a pixel's samples if they are colours: red, green, blue, and alpha if there are four."""
    page = series.keyframe
    photometric = getattr(page, "photometric", None)
    is_rgb = photometric == tifffile.PHOTOMETRIC.RGB
    is_decoded = photometric == tifffile.PHOTOMETRIC.YCBCR and page.compression in _JPEG
    n_samples = series.shape[series.axes.index("S")]
    return _COLOURS[:n_samples] if (is_rgb or is_decoded) and n_samples in (3, 4) else ()


def _ome_names(series: tifffile.TiffPageSeries, images: Sequence[ElementTree.Element]) -> tuple[str, ...]:
    image = ome_image(series, images)
    return () if image is None else _names_in(image)


def _names_in(image: ElementTree.Element) -> tuple[str, ...]:
    channels = image.iterfind("{*}Pixels/{*}Channel")
    return tuple((channel.get("Name") or channel.get("Fluor") or "").strip() for channel in channels)


def ome_image(series: tifffile.TiffPageSeries, images: Sequence[ElementTree.Element]) -> ElementTree.Element | None:
    """Return the OME-XML element of a series; None if it is ambiguous."""
    all_series = series.parent.series if series.parent is not None else []
    if len(all_series) == len(images) and series in all_series:
        return images[all_series.index(series)]
    named = [image for image in images if image.get("Name") and image.get("Name") == series.name]
    return named[0] if len(named) == 1 else None


def _imagej_names(series: tifffile.TiffPageSeries) -> NDArray[Any] | None:
    """Return ImageJ's label of each plane: its first line, without the plane's position."""
    metadata = series.parent.imagej_metadata if series.parent is not None else None
    labels = (metadata or {}).get("Labels") or []
    labels = [labels] if isinstance(labels, str) else list(labels)
    leading = [1 if axis in "YXS" else n for axis, n in zip(series.axes, series.shape, strict=True)]
    names = [_POSITION.sub("", str(label).split("\n")[0]).strip() for label in labels]
    if len(names) != np.prod(leading) or not any(names):
        return None
    return np.array(names, object).reshape(leading)


def _micromanager_names(series: tifffile.TiffPageSeries) -> Sequence[str]:
    metadata = (series.parent.micromanager_metadata if series.parent is not None else None) or {}
    return _texts(metadata.get("Summary", {}).get("ChNames", ()))


def _zeiss_names(series: tifffile.TiffPageSeries) -> Sequence[str]:
    metadata = (series.parent.lsm_metadata if series.parent is not None else None) or {}
    return _texts(metadata.get("ChannelColors", {}).get("ColorNames", ()))


def _tifffile_names(series: tifffile.TiffPageSeries) -> Sequence[str]:
    """Return the names passed to tifffile.imwrite: ``metadata={"Channel": {"Name": [...]}}``."""
    try:
        channel = json.loads(series.keyframe.shaped_description or "{}").get("Channel")
    except json.JSONDecodeError:  # older versions of tifffile described shapes without JSON
        return ()
    return _texts(channel.get("Name", ())) if isinstance(channel, Mapping) else ()


def _akoya_names(series: tifffile.TiffPageSeries) -> Sequence[str]:
    """Return the names in the XML of each page of a QPTIFF file."""
    return tuple(_described(page) for page in series.pages)


def _described(page: Any) -> str:
    try:
        root = ElementTree.fromstring(page.aspage().description)
    except (ElementTree.ParseError, AttributeError):
        return ""
    return (root.findtext("Biomarker") or root.findtext("Name") or "").strip()


def _written_on_pages(series: tifffile.TiffPageSeries) -> Sequence[str]:
    """Return the tag PageName of each page."""
    pages = [page.aspage() for page in series.pages if page is not None]
    return tuple(str(page.tags.valueof("PageName", default="")).strip() for page in pages)


def _texts(values: Any) -> Sequence[str]:
    return tuple(map(str, values)) if isinstance(values, Sequence) and not isinstance(values, str) else ()


_BY_KIND: Mapping[str, Callable[[tifffile.TiffPageSeries], Sequence[str]]] = {
    "generic": _written_on_pages,
    "lsm": _zeiss_names,
    "mmstack": _micromanager_names,
    "qpi": _akoya_names,
    "shaped": _tifffile_names,
    "uniform": _written_on_pages,
}
