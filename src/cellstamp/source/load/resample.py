"""Resample labels to the pixel grid of an image, block by block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import InputError
from cellstamp.source.find.masks import listing
from cellstamp.source.find.placement import Matrix, between, same_field_scale
from cellstamp.source.library_messages import quiet
from cellstamp.source.load.pixels import full_resolution

_BLOCK = 2048
"""Approximate side in pixels of the labels read for one block of the result."""
_AXES = ("y", "x")


def rasterize_labels(
    sdata: Any, labels: str, image: str, *, coordinate_system: str | None = None, same_field: bool = False
) -> Any:
    """Return labels resampled to the pixel grid of an image, so that cells can be extracted from that image.

    Each pixel of the result has the id of the labels' pixel in which its centre lies, or 0 outside of the labels. Ids
    are never mixed or changed. Pixels are computed block by block when the result is used or written.

    Parameters
    ----------
    sdata
        The `spatialdata.SpatialData` object that holds both.
    labels, image
        Names of the labels (y, x) and of the image.
    coordinate_system
        The coordinate system that says where both lie. None: "global" if both are in it, else the only one they share.
    same_field
        Whether image and labels show the same field of view at two resolutions. The labels are then scaled to the size
        of the image, and their transformations are ignored.

    Returns
    -------
    xarray.DataArray
        Labels (y, x) of the image's height and width and of the labels' dtype, with the transformations of the image.

    Raises
    ------
    InputError
        If an element is missing or has other axes, or if no coordinate system says where both lie.
    """
    mask, target = _element(sdata, "labels", labels), _element(sdata, "images", image)
    pixels = full_resolution(mask)
    if tuple(pixels.dims) != _AXES:
        raise InputError(f"labels {labels!r} have the axes {', '.join(map(str, pixels.dims))}; must have y, x")
    height, width = (full_resolution(target).sizes[axis] for axis in _AXES)
    places = _places(target)
    if same_field:
        way: Matrix = same_field_scale(pixels.shape, (height, width))
    else:
        way = _way(places, _places(mask), coordinate_system, f"image {image!r} and labels {labels!r}")
    return _parsed(_Lookup(pixels.data, (height, width), way), places)


@dataclass(frozen=True)
class _Lookup:
    """An array of `shape` whose pixels are looked up in `source`; dask reads it block by block."""

    source: Any
    shape: tuple[int, int]
    way: Matrix
    ndim = 2

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self.source.dtype
        return dtype

    def __getitem__(self, region: tuple[slice, slice]) -> NDArray[Any]:
        places = [np.arange(part.start, part.stop) + 0.5 for part in region]
        rows, columns = np.floor(self._at(*places)).astype(np.int64)
        height, width = self.source.shape
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        found = np.zeros(rows.shape, self.dtype)
        if inside.any():
            rows, columns = rows[inside], columns[inside]
            top, left = rows.min(), columns.min()
            window = np.asarray(self.source[top : rows.max() + 1, left : columns.max() + 1])
            found[inside] = window[rows - top, columns - left]
        return found

    def _at(self, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the positions in the source of these rows and columns: (2, rows, columns)."""
        across, down = self.way[:2, 1, None, None] * x, self.way[:2, 0, None, None] * y[:, None]
        # Without this, rounding errors would choose the pixel for positions on the border between two.
        return np.asarray((down + across + self.way[:2, 2, None, None]).round(9))


def _parsed(lookup: _Lookup, places: dict[str, Matrix]) -> Any:
    with quiet():
        import dask.array
        from spatialdata.models import Labels2DModel
        from spatialdata.transformations import Affine

        side = max(64, int(_BLOCK / max(1.0, np.abs(lookup.way[:2, :2]).sum(axis=1).max())))
        array = dask.array.from_array(  # type: ignore[no-untyped-call]
            lookup, chunks=(side, side), name=False, meta=np.zeros((0, 0), lookup.dtype)
        )
        ways = {system: Affine(place, _AXES, _AXES) for system, place in places.items()}
        return Labels2DModel.parse(array, dims=_AXES, transformations=ways)


def _element(sdata: Any, kind: str, name: str) -> Any:
    there = getattr(sdata, kind)
    if name not in there:
        raise InputError(f"no {kind} named {name!r} in the SpatialData object; it has {listing(sorted(there))}")
    return there[name]


def _places(element: Any) -> dict[str, Matrix]:
    """Return the matrices from an element's pixels to each coordinate system, for (y, x, 1)."""
    with quiet():
        from spatialdata.transformations import get_transformation

        ways = get_transformation(element, get_all=True)
    return {str(name): np.asarray(way.to_affine_matrix(_AXES, _AXES), np.float64) for name, way in ways.items()}


def _way(here: dict[str, Matrix], there: dict[str, Matrix], system: str | None, which: str) -> Matrix:
    """Return the matrix from pixels of the image to pixels of the labels."""
    shared = sorted(set(here) & set(there))
    if system is None:
        system = "global" if "global" in shared or len(shared) != 1 else shared[0]
    if system not in shared:
        raise InputError(
            f"coordinate_system = {system!r}: {which} are not both in it; both are in {listing(shared)}. Name one of "
            "these, or give one to both with spatialdata.transformations.set_transformation"
        )
    try:
        return between(here[system], there[system])
    except np.linalg.LinAlgError as error:
        raise InputError(f"coordinate_system = {system!r}: labels have no extent in it") from error
