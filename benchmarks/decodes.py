"""How often chunks are decoded: the batches are walked with an array that only counts what is asked of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import ceil, prod
from typing import Any

import numpy as np

from cellstamp.cells.plan import Batch
from cellstamp.pipeline.run import Job
from cellstamp.source.reader import ArrayHandle, TileReader
from cellstamp.source.values import Rect


@dataclass(frozen=True)
class _Counting(ArrayHandle):
    """Stands in for an array: counts the chunks of every area read, and returns zeros.

    Attributes
    ----------
    decoded
        Chunks decoded by each read.
    """

    decoded: list[int] = field(default_factory=list)

    def read(self, rect: Rect) -> np.ndarray:
        """Count; see `ArrayHandle.read`."""
        bounds = ((rect.top, rect.bottom), (rect.left, rect.right))
        spans = zip(bounds, self.chunks[-2:], strict=True)
        planes = prod(ceil(n / chunk) for n, chunk in zip(self.shape[:-2], self.chunks[:-2], strict=True))
        self.decoded.append(planes * prod(ceil(end / chunk) - start // chunk for (start, end), chunk in spans))
        return np.broadcast_to(np.zeros((), self.dtype), (*self.shape[:-2], *rect.shape))

    @property
    def n_chunks(self) -> int:
        """Chunks there are."""
        return prod(ceil(n / chunk) for n, chunk in zip(self.shape, self.chunks, strict=True))


def _counting(handle: ArrayHandle) -> _Counting:
    values: dict[str, Any] = {name: getattr(handle, name) for name in ArrayHandle.__dataclass_fields__}
    return _Counting(**values)


def decodes_per_chunk(job: Job, batches: Sequence[Batch], n_workers: int) -> float:
    """How often a chunk of image and masks is decoded on average, when workers walk equal stretches of the batches."""
    image, masks = _counting(job.source.image), tuple(map(_counting, job.source.masks))
    source = replace(job.source, image=image, masks=masks)
    bounds = [len(batches) * k // n_workers for k in range(n_workers + 1)]
    for start, end in pairwise(bounds):
        reader = TileReader(source, reach=job.config.image_size)
        for batch in batches[start:end]:
            reader.read(batch.tile.area, batch.tile.region)
    arrays = (image, *masks)
    return sum(sum(array.decoded) for array in arrays) / sum(array.n_chunks for array in arrays)
