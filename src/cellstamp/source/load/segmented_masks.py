"""Write masks block by block to a project's store; keep image blocks between two passes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray

from cellstamp.source import ome
from cellstamp.source.find.placement import as_transformations, placements
from cellstamp.source.load.raster import CHUNK, create_array
from cellstamp.source.load.staging import Staging, staged
from cellstamp.source.load.store import write_centers
from cellstamp.source.names import CYTOSOL, NUCLEUS, SHAPES_MASKS
from cellstamp.source.read.arrays import ArrayHandle, PixelArray
from cellstamp.source.read.centers import Run
from cellstamp.source.values import Centers, Rect

MASK_SIDE = CHUNK
"""Side of a block of masks in pixels. No two blocks share a chunk."""

_SCRATCH_CHUNK = 500
"""Side of a chunk of temporary arrays: small, so that reading a block with a margin reads little more."""


class MaskPart(Protocol):
    """A block of both masks, uint32 (y, x), and its area."""

    @property
    def rect(self) -> Rect: ...  # noqa: D102
    @property
    def nucleus(self) -> NDArray[np.uint32]: ...  # noqa: D102
    @property
    def cytosol(self) -> NDArray[np.uint32]: ...  # noqa: D102


class Scratch:
    """A temporary uint64 array (y, x) on disk, written and read block by block.

    Attributes
    ----------
    handle : ArrayHandle
        Reads the array, in any process.
    """

    def __init__(self, folder: Path, name: str, shape: tuple[int, int]) -> None:
        chunks = (min(_SCRATCH_CHUNK, shape[0]), min(_SCRATCH_CHUNK, shape[1]))
        store = str(folder / f"{name}.zarr")
        self._array: Any = zarr.create_array(
            store=store, name=name, shape=shape, chunks=chunks, dtype=np.uint64, fill_value=0
        )
        self.handle = ArrayHandle(store, name, name, shape, chunks, "uint64")

    def write(self, rect: Rect, pixels: NDArray[np.uint64]) -> None:
        """Write a block."""
        self._array[rect.top : rect.bottom, rect.left : rect.right] = pixels


def write_masks(
    store: Path,
    image: PixelArray,
    parts: Iterable[MaskPart],
    *,
    run: Run,
) -> dict[str, Centers]:
    """Write both masks of an image, and the centres of their cells; they appear in the store when complete.

    Parameters
    ----------
    store
        The project's store. Existing masks, also those that are shapes, are replaced.
    image
        The segmented image; the masks get its size and transformations.
    parts
        Blocks that cover the image, in any order.
    run
        Applies a callable to every block of a mask; see `compute_centers`.

    Returns
    -------
    dict
        Element of a mask -> its cells.
    """
    with staged(store) as staging:
        nucleus, cytosol = (_new_mask(staging, element, image) for element in (NUCLEUS, CYTOSOL))
        for part in parts:
            area = np.s_[part.rect.top : part.rect.bottom, part.rect.left : part.rect.right]
            nucleus[area], cytosol[area] = part.nucleus, part.cytosol
        for element in SHAPES_MASKS:
            staging.remove(element)
        return write_centers(staging, [NUCLEUS, CYTOSOL], run=run)


def _new_mask(staging: Staging, element: str, image: PixelArray) -> Any:
    kind, name = element.split("/")
    shape = image.shape[1:]
    places = placements(ome.multiscale_of(Path(image.store) / "images" / image.name)[0])
    attributes = ome.raster_attributes(
        kind, name, [shape], format_=staging.format, transformations=as_transformations(places)
    )
    return create_array(
        staging.group(element, attributes) / "s0", shape, (CHUNK, CHUNK), np.dtype(np.uint32), staging.format
    )
