"""A task that only answers, for workers of a cluster."""

from __future__ import annotations

from typing import Any

import numpy as np


class Answer:
    """Callable that returns `n_bytes` for any batch; with `small_results`, batches come in groups."""

    def __init__(self, n_bytes: int, *, small_results: bool) -> None:
        self._n_bytes, self.small_results = n_bytes, small_results
        self._bytes: Any = None

    def __call__(self, batch: Any) -> Any:
        if self._bytes is None:  # random: dask compresses messages
            self._bytes = np.random.default_rng(0).integers(0, 256, self._n_bytes, np.uint8)
        return self._bytes
