"""Find the pixel size of an image, and the pixel grid of crops with another one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import zarr

from cellstamp.errors import ConfigError
from cellstamp.lengths import PixelSize, is_same, scaled, size_in_words
from cellstamp.source.find.placement import as_way
from cellstamp.source.pixel_size import stored_pixel_size
from cellstamp.source.read.arrays import ArrayHandle, PixelArray
from cellstamp.source.read.interpolation import Interpolation
from cellstamp.source.read.sampled import SampledArray
from cellstamp.source.values import Scale

_ROUNDING = 1e-9


@dataclass(frozen=True)
class CropGrid:
    """A pixel grid of crops that has the image's upper left corner and pixels of another size.

    Attributes
    ----------
    shape
        Height and width: the pixels whose centre is on the image.
    scale
        Sides of a pixel in pixels of the image.
    """

    shape: tuple[int, int]
    scale: Scale

    def place(self, array: PixelArray, how: Interpolation) -> SampledArray:
        """Return an element on this grid, given it on the grid of the image."""
        origin, way = (array.origin, array.way) if isinstance(array, SampledArray) else (array, None)
        if not isinstance(origin, ArrayHandle):
            raise TypeError(f"'{array.name}' is several elements")
        to_element = np.eye(3) if way is None else np.array([*way, (0, 0, 1)])
        return SampledArray(origin, self.shape, as_way(to_element @ np.diag([*self.scale, 1.0])), how)


@dataclass(frozen=True)
class PixelSizes:
    """The keys of a configuration about sizes of pixels.

    Attributes
    ----------
    given
        Micrometres per pixel of the image; None: those in its metadata.
    of_crops
        Micrometres per pixel of the crops; None: those of the image.
    """

    given: PixelSize | None = None
    of_crops: float | None = None

    def of_image(self, root: zarr.Group, image: PixelArray) -> tuple[PixelSize | None, tuple[str, ...]]:
        """Return the micrometres per pixel of an image, if known, and a sentence about their origin."""
        stored = stored_pixel_size(root[f"images/{image.name}"].attrs.asdict())
        size = self.given or stored
        if size is None:
            return None, ()
        said = f"image '{image.name}': {size_in_words(size)} per pixel, from "
        if self.given is None:
            return size, (f"{said}its metadata",)
        other = "" if stored is None or is_same(size, stored) else f", not {size_in_words(stored)} as in its metadata"
        return size, (f"{said}image_pixel_size{other}",)


def crop_grid(image: ArrayHandle, pixel_size: PixelSize | None, wanted: float | None) -> CropGrid | None:
    """Return the grid of crops with this size of pixels in micrometres; None if it is that of the image.

    Raises
    ------
    ConfigError
        If the pixel size of the image is unknown, or a pixel of the crops is larger than the image.
    """
    if wanted is None:
        return None
    if pixel_size is None:
        raise ConfigError(f"crop_pixel_size = {wanted:g}: {unknown_pixel_size(image)}")
    scale = _side(wanted / pixel_size[0]), _side(wanted / pixel_size[1])
    if scale == (1.0, 1.0):
        return None
    height, width = (math.ceil(n / side - 0.5 - _ROUNDING) for n, side in zip(image.shape[-2:], scale, strict=True))
    if not height or not width:
        raise ConfigError(
            f"crop_pixel_size = {wanted:g}: a pixel of the crops is larger than image '{image.name}' in {image.store}, "
            f"whose pixels are {size_in_words(pixel_size)}. Both keys are in micrometres per pixel"
        )
    return CropGrid((height, width), scale)


def on_crops(crops: CropGrid | None, array: PixelArray, how: Interpolation) -> PixelArray:
    """Return an element on the grid of the crops, given it on the grid of the image; see `CropGrid.place`."""
    return array if crops is None else crops.place(array, how)


def sampling_in_words(crops: CropGrid | None, how: Interpolation) -> str:
    """Describe how an element with other pixels than the image is sampled, which is `how` on the image's pixels."""
    if crops is None:
        return f"sampled at the centres of the image's pixels ({how})"
    if how == "nearest":
        return "sampled at the centres of the crops' pixels (nearest)"
    return "averaged over the crops' pixels where these are larger than its own, otherwise interpolated (bilinear)"


def positions_of(crops: CropGrid | None, pixel_size: PixelSize | None) -> tuple[str, ...]:
    """Return a sentence about the grid of the crops, if it is not that of the image."""
    if crops is None or pixel_size is None:
        return ()
    (height, width), (down, right) = crops.shape, crops.scale
    size = size_in_words(scaled(pixel_size, crops.scale))
    return (
        f"crops: {size} per pixel, a pixel is {down:.6g} x {right:.6g} pixels of the image (y, x), which becomes "
        f"{height} x {width} pixels; images are averaged or interpolated, labels are sampled at the centres",
    )


def unknown_pixel_size(image: PixelArray) -> str:
    """Return that the size of an image's pixels is unknown, and the fix."""
    return (
        f"the pixel size of image '{image.name}' in {image.store} is unknown, since its metadata has none. Set "
        "image_pixel_size to micrometres per pixel"
    )


def _side(value: float) -> float:
    """Return a ratio of two sizes without its rounding error, if it or its inverse is an integer."""
    for near in (float(round(value)), 1 / max(1, round(1 / value))):
        if math.isclose(value, near, rel_tol=1e-9):
            return near
    return value
