"""The encoded images of some cells, as workers return them and a file stores them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


def n_chunks_of(n_planes: int, planes_per_chunk: int) -> int:
    """Return the number of chunks of a cell."""
    return -(-n_planes // planes_per_chunk)


@dataclass(frozen=True)
class EncodedCells:
    """The encoded single-cell images of some cells.

    Attributes
    ----------
    rows
        int32 (n_cells,): rows of the cells in the file.
    sizes
        int64 (n_cells, n_chunks): bytes of each chunk. A chunk of full size is not compressed.
    payload
        uint8: the chunks, in C order of (cell, chunk).
    checksum
        CRC-32 of the payload. Workers compute it: the process that writes the file has less time.
    n_empty
        int64 (n_masks,): for each mask, number of cells without a pixel of it in their crop.
    on_edge
        int32: rows of the cells whose cell mask touches the edge of the crop, and may extend beyond it.
    features
        float32 (n_cells, 1 + n_features): whether each cell was measured in part, and its features. None: not measured.
    """

    rows: NDArray[np.int32]
    sizes: NDArray[np.int64]
    payload: NDArray[np.uint8]
    checksum: int
    n_empty: NDArray[np.int64]
    on_edge: NDArray[np.int32]
    features: NDArray[np.float32] | None = field(default=None, kw_only=True)
