"""Read the size of an image's pixels in micrometres from metadata: OME-Zarr, OME-XML, ImageJ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from cellstamp.lengths import PixelSize, in_micrometres
from cellstamp.source import ome

if TYPE_CHECKING:
    import tifffile

KEY = "pixel_size"
"""Key of cellstamp's attributes of an image: micrometres per pixel along y and x."""


def stored_pixel_size(attributes: Mapping[str, Any]) -> PixelSize | None:
    """Return the size that the attributes of an image's group record: cellstamp's own, else OME-Zarr's.

    Returns
    -------
    PixelSize or None
        Of the full resolution level. None if there is none, for example because the axes have no unit of length.
    """
    ours = attributes.get(ome.OURS)
    if isinstance(ours, Mapping) and KEY in ours:
        return _valid(ours[KEY])
    try:
        return _of_axes(ome.part_of(attributes)["multiscales"][0])
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):  # incomplete metadata
        return None


def _of_axes(multiscale: Mapping[str, Any]) -> PixelSize | None:
    axes = multiscale["axes"]
    names = [axis["name"] for axis in axes]
    y_x = [names.index("y"), names.index("x")]
    units = [in_micrometres(str(axes[axis].get("unit", ""))) for axis in y_x]
    # a transformation with an output is one of SpatialData's, to a coordinate system
    steps = [
        *multiscale["datasets"][0].get("coordinateTransformations", []),
        *(step for step in multiscale.get("coordinateTransformations") or [] if "output" not in step),
    ]
    scales = [step["scale"] for step in steps if step["type"] == "scale"]
    if None in units or not scales:
        return None
    sides = [math.prod(scale[axis] for scale in scales) for axis in y_x]
    return _valid([side * unit for side, unit in zip(sides, units, strict=True) if unit is not None])


def ome_xml_size(pixels: ElementTree.Element) -> PixelSize | None:
    """Return the pixel size of an image, given the element ``Pixels`` of its OME-XML."""
    return _valid([_physical(pixels, axis) for axis in "YX"])


def _physical(pixels: ElementTree.Element, axis: str) -> float:
    unit = in_micrometres(pixels.get(f"PhysicalSize{axis}Unit", "um"))
    return math.nan if unit is None else float(pixels.get(f"PhysicalSize{axis}", "nan")) * unit


def imagej_size(file: tifffile.TiffFile) -> PixelSize | None:
    """Return the pixel size of a file of ImageJ: its resolution is in pixels per unit."""
    unit = in_micrometres(str((file.imagej_metadata or {}).get("unit", "")))
    tags = [file.pages.first.tags.get(name) for name in ("YResolution", "XResolution")]
    if unit is None or None in tags:
        return None
    pairs = [tag.value for tag in tags if tag is not None]
    return _valid([unit * per / pixels for pixels, per in pairs if pixels])


def _valid(sides: Any) -> PixelSize | None:
    """Return two positive finite numbers; None for anything else."""
    try:
        height, width = (float(side) for side in sides)
    except (TypeError, ValueError):
        return None
    return (height, width) if 0 < height < math.inf and 0 < width < math.inf else None
