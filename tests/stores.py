"""Small segmented images, written as real SpatialData stores, for the tests of whole extractions."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray

from kept_stores import written

NUCLEUS, CYTOSOL = "seg_all_nucleus", "seg_all_cytosol"
_GLOW = 28
"""Pixels from the middle of a cell beyond which it is darker than 1."""


@dataclass(frozen=True)
class Sample:
    """An image (c, y, x), its masks by name, and the names of its channels."""

    image: NDArray[Any]
    masks: Mapping[str, NDArray[Any]]
    channel_names: list[Any] = field(default_factory=lambda: ["dna", "actin", "tubulin"])

    def only(self, mask: str) -> Self:
        return replace(self, masks={mask: self.masks[mask]})

    def with_ids(self, ids: NDArray[Any]) -> Self:
        """The same cells under other ids: cell number i becomes ids[i - 1]."""
        names = np.concatenate([np.zeros(1, ids.dtype), ids])
        return replace(self, masks={name: names[mask] for name, mask in self.masks.items()})

    def with_types(self, labels: Any, image: Any) -> Self:
        """The same with other dtypes; the image is spread over the range of its new one."""
        share = self.image / np.iinfo(self.image.dtype).max
        pixels = (share * float(np.iinfo(image).max) * 0.99).astype(image)
        return replace(self, image=pixels, masks={name: mask.astype(labels) for name, mask in self.masks.items()})


def make_sample(shape: tuple[int, int] = (200, 230), *, pitch: int = 26, n_channels: int = 3, seed: int = 0) -> Sample:
    """Draw round cells about ``pitch`` pixels apart, ids row by row from 1; every fifth nucleus has a hole, every
    seventh is in two pieces, and those at the border are cut off.
    """
    drawn = _draw(shape, pitch, n_channels, seed)
    return Sample(drawn.image.copy(), {name: mask.copy() for name, mask in drawn.masks.items()}, [*drawn.channel_names])


@cache
def _draw(shape: tuple[int, int], pitch: int, n_channels: int, seed: int) -> Sample:
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    nucleus, cytosol = np.zeros(shape, np.uint32), np.zeros(shape, np.uint32)
    image = rng.integers(50, 200, (n_channels, *shape))
    places = [(y, x) for y in range(6, shape[0], pitch) for x in range(6, shape[1], pitch)]
    for number, (y, x) in enumerate(places, start=1):
        y, x = y + rng.uniform(-3, 3), x + rng.uniform(-3, 3)
        radius = rng.uniform(3, 6)
        around = tuple(slice(max(0, int(middle) - _GLOW), int(middle) + _GLOW) for middle in (y, x))
        in_nucleus, across = nucleus[around], np.abs(xx[around] - x)
        distance = np.hypot(yy[around] - y, across)
        cytosol[around][distance < radius + 4] = number
        in_nucleus[distance < radius] = number
        if number % 5 == 0:
            in_nucleus[distance < 1.5] = 0
        if number % 7 == 0:
            in_nucleus[(across < 1) & (in_nucleus == number)] = 0
        glow = rng.integers(2_000, 40_000, n_channels)
        image[:, *around] += (glow[:, None, None] * np.exp(-((distance / (radius + 2)) ** 2))).astype(np.int64)
    names = ["dna", "actin", "tubulin", *(f"channel {i}" for i in range(3, n_channels))][:n_channels]
    return Sample(np.minimum(image, 65535).astype(np.uint16), {NUCLEUS: nucleus, CYTOSOL: cytosol}, names)


def as_spatialdata(sample: Sample, *, chunks: int = 64, multiscale: bool = False) -> Any:
    """The sample as a SpatialData object in memory."""
    # Third parties warn in many ways, by version, when elements are made and written; none of it is about cellstamp.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import dask.array
        from spatialdata import SpatialData
        from spatialdata.models import Image2DModel, Labels2DModel

        scales: dict[str, Any] = {"scale_factors": [2]} if multiscale else {}
        pixels = dask.array.from_array(sample.image, chunks=(1, chunks, chunks))
        image = Image2DModel.parse(pixels, dims=("c", "y", "x"), c_coords=sample.channel_names, **scales)
        labels = {
            name: Labels2DModel.parse(dask.array.from_array(mask, chunks=(chunks, chunks)), dims=("y", "x"), **scales)
            for name, mask in sample.masks.items()
        }
        return SpatialData(images={"input_image": image}, labels=labels)


def write_store(path: Path, sample: Sample, *, chunks: int = 64, multiscale: bool = False) -> Path:
    """Write the sample with spatialdata."""

    def write(path: Path) -> None:
        sdata = as_spatialdata(sample, chunks=chunks, multiscale=multiscale)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sdata.write(path)

    return written(path, write, sample.image, dict(sample.masks), sample.channel_names, chunks, multiscale)


def rechunk(store: Path, element: str, chunk: tuple[int, int]) -> None:
    """Give the full-resolution array of an element other chunks; they may be larger than the array."""
    group = zarr.open_group(str(store / element), mode="r+")
    attributes: Any = group.attrs.asdict()
    path = attributes.get("ome", attributes)["multiscales"][0]["datasets"][0]["path"]
    old: Any = group[path]
    pixels, names = old[...], old.metadata.dimension_names if old.metadata.zarr_format == 3 else None
    new = group.create_array(
        path,
        shape=pixels.shape,
        dtype=pixels.dtype,
        chunks=(*[1] * (pixels.ndim - 2), *chunk),
        dimension_names=names,
        overwrite=True,
    )
    new[...] = pixels
