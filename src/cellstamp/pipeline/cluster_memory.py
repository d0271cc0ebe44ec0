"""Check that batches fit into the memory of a cluster's workers, before any work."""

from __future__ import annotations

import math

from cellstamp.cells.plan import Batch, ShardBatch
from cellstamp.engines.base import Engine
from cellstamp.engines.cores import WORKER_BYTES
from cellstamp.engines.dask import DaskEngine
from cellstamp.errors import ConfigError
from cellstamp.pipeline.job import Job
from cellstamp.report import format_bytes


def plan_for(job: Job, engine: Engine, budget: int) -> list[Batch] | list[ShardBatch]:
    """Divide the cells into batches that fit into the memory of the engine's workers.

    Parameters
    ----------
    budget
        Bytes of memory for all processes on this machine.

    Raises
    ------
    ConfigError
        If batches don't fit into the memory of a worker.
    """
    smallest = engine.smallest_memory() if isinstance(engine, DaskEngine) else None
    if smallest is None:
        return job.batches(budget)
    batches = job.batches(smallest.n_bytes * job.config.threads)
    pieces = [piece for batch in batches for piece in batch.pieces]
    pixels, images = _bytes_of_pixels(job, pieces), _bytes_of_images(job, pieces)
    needed = WORKER_BYTES + pixels + images
    if needed > smallest.n_bytes:
        smaller = ", or lower max_batch_size" if needed - images < smallest.n_bytes else ""
        raise ConfigError(
            f"a batch needs about {format_bytes(needed)} in a worker, and {smallest.address} has "
            f"{format_bytes(smallest.n_bytes)} for each of its threads. Give workers more memory (--memory-limit) or "
            f"fewer threads (--nthreads){smaller}"
        )
    return batches


def _bytes_of_pixels(job: Job, batches: list[Batch]) -> int:
    """Return the bytes of the pixels of a tile, with the memory that reading one array takes."""
    source = job.source
    tile = max(math.prod(batch.tile.region.shape) for batch in batches) * source.bytes_per_pixel
    return tile + max(array.working_bytes for array in source.arrays)


def _bytes_of_images(job: Job, batches: list[Batch]) -> int:
    return max(map(len, batches)) * job.source.n_planes * job.recipe.plane_bytes
