"""Write the arrays of an image or of labels to a store, block by block, with smaller copies for viewers."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from cellstamp.lengths import PixelSize
from cellstamp.source import ome
from cellstamp.source.load.pixels import Pixels, Region
from cellstamp.source.load.staging import Format, Staging
from cellstamp.source.pixel_size import KEY

CHUNK = 2000
"""Side of a block in pixels; a block holds one channel."""

FACTORS = (2, 4, 8)
"""Ratio of each resolution level to the one before it, as in scportrait."""

# Bytes that may be read at once: a few blocks of a usual image.
_BUDGET = 128 * 2**20
_SMALLEST_CHUNK = 500


def write_raster(
    staging: Staging,
    element: str,
    pixels: Pixels,
    *,
    channel_names: Sequence[str] = (),
    factors: Sequence[int] = (),
    transformations: Sequence[Mapping[str, Any]] | None = None,
    pixel_size: PixelSize | None = None,
) -> None:
    """Write pixels as an element of the temporary store.

    Pixels are read and written region by region, so memory does not depend on the size of the image, unless one block
    of the source is that large.

    Parameters
    ----------
    staging
        The temporary store.
    element
        Kind and name, like ``"images/input_image"``.
    pixels
        (c, y, x) or (y, x); the dtype is kept.
    channel_names
        Names of an image's channels.
    factors
        For each further resolution level, how much smaller it is than the one before.
    transformations
        See `cellstamp.source.ome.raster_attributes`.
    pixel_size
        Micrometres per pixel, if known.
    """
    kind, name = element.split("/")
    shapes = level_shapes(pixels.shape, factors)
    attributes = ome.raster_attributes(
        kind,
        name,
        shapes,
        format_=staging.format,
        channel_names=channel_names,
        transformations=transformations,
        ours=None if pixel_size is None else {KEY: list(pixel_size)},
    )
    group = staging.group(element, attributes)
    chunks = tuple(1 if axis == "c" else CHUNK for axis in ome.AXES[kind])
    array = create_array(group / "s0", pixels.shape, chunks, pixels.dtype, staging.format)
    for region in regions(pixels.shape, pixels.chunks, array.chunks, pixels.dtype.itemsize):
        array[region] = pixels.read(region)
    _add_levels(group, shapes, factors, staging.format)


def level_shapes(shape: Sequence[int], factors: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the shape of every resolution level; a level that would have no pixels is left out."""
    shapes = [tuple(shape)]
    for factor in factors:
        smaller = (*shapes[-1][:-2], shapes[-1][-2] // factor, shapes[-1][-1] // factor)
        if 0 in smaller:
            break
        shapes.append(smaller)
    return shapes


def regions(
    shape: Sequence[int], source: Sequence[int], target: Sequence[int], itemsize: int, budget: int = _BUDGET
) -> Iterator[Region]:
    """Divide an array into regions of complete target blocks and, if memory allows, complete source blocks.

    Parameters
    ----------
    shape
        Shape of the array, in pixels.
    source, target
        Shapes of the blocks to read and of those to write.
    itemsize
        Bytes of a pixel.
    budget
        Bytes of a region; it has at least one target block.
    """
    region = [min(n, t * math.ceil(s / t)) for n, s, t in zip(shape, source, target, strict=True)]
    for axis, size in enumerate(target):
        if math.prod(region) * itemsize > budget:
            region[axis] = min(size, shape[axis])
    room = max(1, budget // max(1, math.prod(region) * itemsize))
    region[-1] = min(shape[-1], region[-1] * room)
    starts = (range(0, n, step) for n, step in zip(shape, region, strict=True) if step)
    for corner in product(*starts) if all(region) else ():
        yield tuple(slice(at, min(at + step, n)) for at, step, n in zip(corner, region, shape, strict=True))


def copyable(group: Path, kind: str, format_: Format) -> bool:
    """Return whether an element's folder can be copied unchanged: format, axes and block size fit."""
    _, multiscale = ome.multiscale_of(group)
    array = zarr.open_array(str(group / multiscale["datasets"][0]["path"]), mode="r")
    if array.metadata.zarr_format != format_ or tuple(ome.axes_of(multiscale)) != ome.AXES[kind]:
        return False
    sides = zip(array.chunks[-2:], array.shape[-2:], strict=True)
    large_enough = all(chunk >= min(128, side) for chunk, side in sides)
    return large_enough and math.prod(array.chunks) * array.dtype.itemsize <= _BUDGET


def copy_raster(staging: Staging, source: Path, element: str, *, factors: Sequence[int] = ()) -> None:
    """Copy the folder of an element (see `copyable`) under a new name, without decoding pixels.

    An image without smaller copies gets them (`factors`).
    """
    kind, name = element.split("/")
    group = staging.place(element)
    shutil.copytree(source, group)
    path = group / ("zarr.json" if staging.format == 3 else ".zattrs")
    content = json.loads(path.read_text(encoding="utf-8"))
    attributes = content["attributes"] if staging.format == 3 else content
    multiscale = attributes.get("ome", attributes)["multiscales"][0]
    multiscale["name"] = f"/images/{name}" if kind == "images" else name
    if factors and len(multiscale["datasets"]) == 1:
        _append_levels(group, multiscale, factors, staging.format)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _append_levels(group: Path, multiscale: dict[str, Any], factors: Sequence[int], format_: Format) -> None:
    first = multiscale["datasets"][0]["path"]
    if first != "s0":
        (group / first).rename(group / "s0")
        multiscale["datasets"][0]["path"] = "s0"
    shapes = level_shapes(zarr.open_array(str(group / "s0"), mode="r").shape, factors)
    # the full-resolution level may have a scale (microns), and those of smaller levels include it
    base = next(
        (t["scale"] for t in multiscale["datasets"][0]["coordinateTransformations"] if t["type"] == "scale"), None
    )
    for level, shape in enumerate(shapes[1:], 1):
        scale = [
            whole / part * by for whole, part, by in zip(shapes[0], shape, base or [1.0] * len(shape), strict=True)
        ]
        multiscale["datasets"].append(
            {"path": f"s{level}", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        )
    _add_levels(group, shapes, factors, format_)


def create_array(path: Path, shape: Sequence[int], chunks: Sequence[int], dtype: np.dtype[Any], format_: Format) -> Any:
    """Create the array of a resolution level (y, x) or (c, y, x)."""
    # a chunk larger than the array would be padded
    fitting = tuple(max(1, min(chunk, size)) for chunk, size in zip(chunks, shape, strict=True))
    axes = ome.AXES["images" if len(shape) == 3 else "labels"]
    layout: dict[str, Any] = (
        {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if format_ == 2 else {"dimension_names": axes}
    )
    return zarr.create_array(
        str(path), shape=tuple(shape), chunks=fitting, dtype=dtype, fill_value=0, zarr_format=format_, **layout
    )


def _add_levels(group: Path, shapes: Sequence[Sequence[int]], factors: Sequence[int], format_: Format) -> None:
    """Write the further resolution levels, each from the one before: a pixel is the mean of a square."""
    for level, (shape, factor) in enumerate(zip(shapes[1:], factors, strict=False), 1):
        above = zarr.open_array(str(group / f"s{level - 1}"), mode="r")
        sides = [max(_SMALLEST_CHUNK, side // factor) for side in above.chunks[-2:]]
        array = create_array(group / f"s{level}", shape, (1, *sides), above.dtype, format_)
        for region in regions(shape, array.chunks, array.chunks, above.dtype.itemsize, budget=0):
            array[region] = _smaller(above, region, factor)


def _smaller(above: Any, region: Region, factor: int) -> np.ndarray[Any, np.dtype[Any]]:
    """Return the mean of each factor x factor pixels, rounded for integers."""
    channels, rows, columns = region
    block = above[channels, rows.start * factor : rows.stop * factor, columns.start * factor : columns.stop * factor]
    total = np.zeros((block.shape[0], rows.stop - rows.start, columns.stop - columns.start), np.float64)
    for dy, dx in product(range(factor), repeat=2):
        total += block[:, dy::factor, dx::factor]
    total /= factor**2
    return (np.rint(total) if block.dtype.kind in "ui" else total).astype(block.dtype)
