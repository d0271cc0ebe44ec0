"""Encode the image of a cell as the content of files: PNG, TIFF, OME-TIFF or NumPy's format."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from cellstamp.export.intensities import Intensities
from cellstamp.pictures.mosaic import blended

Encoder = Callable[[NDArray[Any], int], list[bytes]]
"""Image of a cell as stored (n_planes, y, x), and the cell's id -> content of its files."""


@dataclass(frozen=True)
class PngEncoder:
    """Pictures with 8 bits: one for each plane, or one for each cell with the planes in colours.

    Attributes
    ----------
    scaled
        Converts stored values to float32 from 0 to 1.
    intensities
        Black and white of each plane.
    colours
        float32 (n_planes, 3), 0 to 1; None: gray.
    """

    scaled: Callable[[NDArray[Any]], NDArray[np.float32]]
    intensities: Intensities
    colours: NDArray[np.float32] | None

    def __call__(self, image: NDArray[Any], cell: int) -> list[bytes]:
        """Return the content of the files of a cell."""
        shown = self.intensities.shown(self.scaled(image))
        if self.colours is not None:
            return [_png(blended(shown, self.colours))]
        return [_png(np.rint(plane * 255).astype(np.uint8)) for plane in shown]


def _png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


@dataclass(frozen=True)
class TiffEncoder:
    """TIFF files of ImageJ, or OME-TIFF, with names of channels and the size of pixels.

    Attributes
    ----------
    channel_names
        Names of the planes.
    pixel_size
        Micrometres per pixel along y and x; None: unknown.
    is_ome
        Whether to write OME-TIFF.
    """

    channel_names: Sequence[str]
    pixel_size: tuple[float, float] | None
    is_ome: bool

    def __call__(self, image: NDArray[Any], cell: int) -> list[bytes]:
        """Return the content of the file of a cell; float16, which few programs read, becomes float32."""
        pixels = image.astype(np.float32) if image.dtype == np.float16 else image
        file, about = io.BytesIO(), self._ome(cell) if self.is_ome else self._imagej(cell)
        tifffile.imwrite(file, np.ascontiguousarray(pixels), photometric="minisblack", **about)
        return [file.getvalue()]

    def _ome(self, cell: int) -> dict[str, Any]:
        sides = zip("YX", self.pixel_size or (), strict=False)
        sizes = {key: value for axis, side in sides for key, value in _physical(axis, side)}
        channels = {"Channel": {"Name": list(self.channel_names)}}
        return {"ome": True, "metadata": {"axes": "CYX", "Name": f"cell {cell}", **channels, **sizes}}

    def _imagej(self, cell: int) -> dict[str, Any]:
        about: dict[str, Any] = {"axes": "CYX", "Labels": list(self.channel_names), "cell": cell, "mode": "grayscale"}
        if self.pixel_size is None:
            return {"imagej": True, "metadata": about}
        height, width = self.pixel_size
        return {"imagej": True, "metadata": {**about, "unit": "um"}, "resolution": (1 / width, 1 / height)}


def _physical(axis: str, side: float) -> list[tuple[str, Any]]:
    return [(f"PhysicalSize{axis}", side), (f"PhysicalSize{axis}Unit", "µm")]


def encode_npy(image: NDArray[Any], cell: int = 0) -> list[bytes]:
    """Return the content of a file of NumPy: values as stored."""
    file = io.BytesIO()
    np.save(file, image, allow_pickle=False)
    return [file.getvalue()]
