"""Who does the work: the engine for a configuration, and workers for what is computed from a mask block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from cellstamp.config import ExtractionConfig
from cellstamp.engines.base import Engine, SerialEngine
from cellstamp.engines.processes import ProcessEngine
from cellstamp.source.centers import BlockSums, Sums
from cellstamp.source.values import Rect

_PARALLEL_PIXELS = 16 * 2**20
"""Masks of fewer pixels are summed up faster than workers start."""

_PRELOAD = ("cellstamp.cells.preload",)


def choose_engine(config: ExtractionConfig, *, log: Callable[[str], None], warn: Callable[[str], None]) -> Engine:
    """The engine that the configuration asks for; one worker needs no process of its own.

    Parameters
    ----------
    log, warn
        Told of workers that died.
    """
    if config.engine == "serial" or config.threads == 1:
        return SerialEngine()
    return ProcessEngine(config.threads, _PRELOAD, log=log, warn=warn)


class BlockRunner:
    """Sums up the blocks of a mask, in workers where that is worth starting them; see `compute_centers`.

    Parameters
    ----------
    n_workers
        How many, at most.
    """

    def __init__(self, n_workers: int) -> None:
        self._n_workers = n_workers

    def __call__(self, task: BlockSums, blocks: Sequence[Rect]) -> Iterator[Sums]:
        """Return the sums of every block, in any order."""
        n_pixels = sum(block.shape[0] * block.shape[1] for block in blocks)
        alone = self._n_workers == 1 or n_pixels < _PARALLEL_PIXELS
        engine: Engine = SerialEngine() if alone else ProcessEngine(self._n_workers, _PRELOAD)
        for outcome in engine.run(task, blocks, lambda: 4 * engine.n_workers):
            # they are kept to the end, but the engine uses their memory again
            yield replace(outcome.value, ids=outcome.value.ids.copy(), totals=outcome.value.totals.copy())
