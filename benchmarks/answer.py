"""A task that only answers, for workers of a cluster."""

from __future__ import annotations

from typing import Any

import numpy as np


class Answer:
    """Callable that returns `n_bytes` for any batch."""

    def __init__(self, n_bytes: int) -> None:
        self._n_bytes = n_bytes
        self._bytes: Any = None

    def __call__(self, batch: Any) -> Any:
        if self._bytes is None:  # random: dask compresses messages
            self._bytes = np.random.default_rng(0).integers(0, 256, self._n_bytes, np.uint8)
        return self._bytes
