"""Place images and labels on the pixel grid of the crops: unchanged, sampled, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import zarr

from cellstamp.errors import InputError
from cellstamp.source.find.coordinate_systems import choose_system
from cellstamp.source.find.grid_advice import Misfit, advice_on, size_difference
from cellstamp.source.find.pixel_sizes import CropGrid, sampling_in_words
from cellstamp.source.find.placement import (
    Matrix,
    are_proportional,
    as_way,
    between,
    differences,
    differing,
    extent,
    extents_agree,
    in_words,
    only_scales,
    placements,
    sizes_in,
)
from cellstamp.source.ome import metadata_of
from cellstamp.source.read.arrays import ArrayHandle, PixelArray
from cellstamp.source.read.interpolation import Interpolation
from cellstamp.source.read.sampled import SampledArray


@dataclass(frozen=True)
class Grid:
    """The pixel grid of the crops: that of an image.

    Attributes
    ----------
    name, store
        The image and its store, for messages.
    shape
        Height and width in pixels.
    placements
        Matrices from the grid to each coordinate system, for (y, x, 1).
    """

    name: str
    store: str
    shape: tuple[int, int]
    placements: Mapping[str, Matrix]


@dataclass(frozen=True)
class Placed:
    """An image or labels on the grid.

    Attributes
    ----------
    array
        Its pixels on the grid.
    position
        A sentence about its position.
    """

    array: PixelArray
    position: str


def grid_of(root: zarr.Group, image: ArrayHandle) -> Grid:
    """Return the grid of an image."""
    shape = (image.shape[-2], image.shape[-1])
    return Grid(image.name, image.store, shape, placements(metadata_of(root, f"images/{image.name}")))


def place(
    root: zarr.Group,
    grid: Grid,
    array: ArrayHandle,
    system: str | None = None,
    how: Interpolation = "nearest",
    crops: CropGrid | None = None,
) -> Placed:
    """Place an image or labels on the grid. Only a transformation that somebody declared is followed.

    Parameters
    ----------
    root
        The opened store.
    grid
        Pixel grid of the image.
    array
        The image or the labels.
    system
        Coordinate system that places both; None: see `choose_system`.
    how
        How an element with another grid is sampled.
    crops
        The grid on which it is read, for the description; None: that of the image.

    Raises
    ------
    InputError
        If the position is unclear, or if both do not overlap.
    """
    misfit = _misfit(root, grid, array)
    called = f"{misfit.kind} '{array.name}'"
    if _match(misfit):
        return Placed(array, f"{called}: identity, the pixels of image '{grid.name}'")
    if not set(misfit.here) & set(misfit.there):
        raise _mismatch(misfit, grid)
    where = f"image '{grid.name}' and {called} in {grid.store}"
    chosen = choose_system(misfit.here, misfit.there, system, where, misfit.kind)
    here, there = misfit.here[chosen], misfit.there[chosen]
    if misfit.same_size and not differing({chosen: here}, {chosen: there}):
        return Placed(array, f"{called}: identity in '{chosen}', the pixels of image '{grid.name}'")
    if _is_doubtful(misfit, here, there):
        raise _mismatch(misfit, grid, chosen)
    position = (
        f"{called} on image '{grid.name}' in '{chosen}': {in_words(between(there, here), misfit.kind)}; "
        f"{sampling_in_words(crops, how)}. {sizes_in(chosen, here, there, misfit.kind)}"
    )
    return Placed(SampledArray(array, grid.shape, as_way(between(here, there)), how), position)


def check_same_grid(root: zarr.Group, image: ArrayHandle, labels: ArrayHandle) -> None:
    """Check that labels and an image have the same pixel grid.

    Raises
    ------
    InputError
        If they do not; the message has the differences and the next steps.
    """
    grid = grid_of(root, image)
    misfit = _misfit(root, grid, labels)
    if not _match(misfit):
        raise _mismatch(misfit, grid, needed="Both must have the same pixel grid")


def _misfit(root: zarr.Group, grid: Grid, array: ArrayHandle) -> Misfit:
    kind = "labels" if len(array.shape) == 2 else "images"
    there = placements(metadata_of(root, f"{kind}/{array.name}"))
    return Misfit(root, grid.name, grid.shape, grid.placements, array, there)


def _is_doubtful(misfit: Misfit, here: Matrix, there: Matrix) -> bool:
    """Return whether a transformation is missing most likely, or both do not overlap.

    A missing transformation reads as identity. So it is missing if both have one origin and one scale, but other sizes;
    or if one is at identity, and both have one origin and proportional sizes, but cover different areas.
    """
    area, other = extent(here, misfit.shape), extent(there, misfit.sides)
    if (np.minimum(area[:, 1], other[:, 1]) <= np.maximum(area[:, 0], other[:, 0])).any():
        return True
    way = between(here, there)
    if not only_scales(way) or extents_agree(area, other, here, there):
        return False
    # labels can be resampled beforehand, so they may be doubted more
    is_default = _is_identity(there) or (misfit.is_labels and _is_identity(here))
    return _is_identity(way) or (is_default and are_proportional(misfit.shape, misfit.sides))


def _is_identity(matrix: Matrix) -> bool:
    return np.allclose(matrix, np.eye(3), atol=1e-6)


def _match(misfit: Misfit) -> bool:
    """Return whether both have the same pixels. An element without any transformation, as in plain OME-Zarr, may."""
    shared = set(misfit.here) & set(misfit.there)
    is_placed_apart = bool(misfit.here and misfit.there and not shared)
    return not _found(misfit) and not is_placed_apart


def _found(misfit: Misfit) -> list[str]:
    return [*size_difference(misfit), *differences(misfit.here, misfit.there, misfit.kind)]


def _mismatch(
    misfit: Misfit,
    grid: Grid,
    system: str | None = None,
    needed: str = "Both must have the same pixels, or transformations that place them",
) -> InputError:
    found = "; ".join(_found(misfit))
    return InputError(
        f"image '{grid.name}' and {misfit.kind} '{misfit.array.name}' in {grid.store} do not match"
        f"{found and f': {found}'}. {needed}. {advice_on(misfit, system)}"
    )
