"""Count how often chunks are decoded, by reading the batches from arrays that only count requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import ceil, prod
from typing import Any

import numpy as np

from cellstamp.cells.plan import Batch, ShardBatch
from cellstamp.pipeline.job import Job
from cellstamp.source.read.arrays import ArrayHandle
from cellstamp.source.read.tiles import TileReader


class _Counter:
    """Replacement for a zarr array: counts the chunks of every area read, and returns zeros."""

    def __init__(self, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str) -> None:
        self.shape, self.chunks, self.dtype = shape, chunks, np.dtype(dtype)
        self.decoded = 0

    @property
    def n_chunks(self) -> int:
        """Return the number of chunks of the array."""
        return prod(ceil(n / chunk) for n, chunk in zip(self.shape, self.chunks, strict=True))

    def __getitem__(self, selection: tuple[Any, ...]) -> np.ndarray:
        if selection[0] is Ellipsis:
            selection = (*(slice(None),) * (len(self.shape) - len(selection) + 1), *selection[1:])
        sides = [part.indices(n)[:2] for part, n in zip(selection, self.shape, strict=True)]
        self.decoded += prod(
            ceil(end / chunk) - start // chunk for (start, end), chunk in zip(sides, self.chunks, strict=True)
        )
        return np.broadcast_to(np.zeros((), self.dtype), tuple(end - start for start, end in sides))

    def get_basic_selection(self, selection: tuple[Any, ...], **_: Any) -> np.ndarray:
        """Count; an array given as ``out`` stays unchanged."""
        return self[selection]


@dataclass(frozen=True)
class _CountingHandle(ArrayHandle):
    """Handle that opens a counter instead of the array."""

    array: _Counter = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "array", _Counter(self.shape, self.chunks, self.dtype))

    @classmethod
    def like(cls, handle: ArrayHandle) -> _CountingHandle:
        """Return a handle of an array of the same shape."""
        return cls(**{name: getattr(handle, name) for name in ArrayHandle.__dataclass_fields__})


def decodes_per_chunk(job: Job, batches: Sequence[Batch | ShardBatch], n_workers: int) -> float:
    """Return the mean number of decodes for each chunk of image and masks, with equal shares of batches per worker.

    Raises
    ------
    SystemExit
        If nothing was counted: then pixels are no longer read through the handle's array.
    """
    image, *masks = (_CountingHandle.like(handle) for handle in (job.source.image, *job.source.masks))
    source = replace(job.source, image=image, masks=tuple(masks))
    bounds = [len(batches) * k // n_workers for k in range(n_workers + 1)]
    for start, end in pairwise(bounds):
        reader = TileReader(source, reach=job.config.image_size)
        for batch in batches[start:end]:
            for piece in batch.pieces if isinstance(batch, ShardBatch) else (batch,):
                reader.read(piece.tile.area, piece.tile.region)
    counters = [handle.array for handle in (image, *masks)]
    decoded = sum(counter.decoded for counter in counters)
    if not decoded:
        raise SystemExit("no decoded chunks were counted: adapt benchmarks/decodes.py to the way pixels are read")
    return decoded / sum(counter.n_chunks for counter in counters)
