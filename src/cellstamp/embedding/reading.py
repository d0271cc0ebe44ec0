"""Read all images of a file in batches, in the order in which they are stored."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cellstamp.engines.threads import Threads, one_ahead
from cellstamp.errors import InputError
from cellstamp.reused_memory import Recycler
from cellstamp.training.several_files import StampSet

Transform = Callable[[torch.Tensor], Any]


def read_batches(
    stamps: StampSet, places: NDArray[np.int64], batch_size: int, transform: Transform | None, threads: Threads
) -> Generator[tuple[torch.Tensor, NDArray[np.uint64]]]:
    """Yield images and ids of cells. Reads the next batch while the caller works on the current one.

    Parameters
    ----------
    stamps
        The images.
    places
        int64 (n,): the cells, in the order to read them.
    transform
        Called with each image.

    Yields
    ------
    images : torch.Tensor
        float32 (batch_size, n_channels, y, x), or what the transform makes of it.
    ids : numpy.ndarray
        uint64 (batch_size,).

    Raises
    ------
    InputError
        If the file was modified or is damaged, or the transform fails.
    """
    memory = Recycler()

    def read(some: NDArray[np.int64]) -> tuple[torch.Tensor, NDArray[np.uint64]]:
        images = memory.empty((len(some), *stamps.shape), stamps.dtype)
        stamps.read(some, images, threads)
        ids = stamps.ids(some)
        return _transformed(torch.from_numpy(images), ids, transform), ids

    parts = (places[start : start + batch_size] for start in range(0, len(places), batch_size))
    yield from one_ahead(read, parts)


def _transformed(images: torch.Tensor, ids: NDArray[np.uint64], transform: Transform | None) -> torch.Tensor:
    if transform is None:
        return images
    results: list[torch.Tensor] = []
    for image, cell in zip(images, ids.tolist(), strict=True):
        try:
            with torch.inference_mode():
                returned = transform(image)
                changed = None if returned is None else torch.as_tensor(returned)
        except Exception as error:
            message = f"transform: failed at cell {cell} with {type(error).__name__}: {' '.join(str(error).split())}"
            raise InputError(message) from error
        if changed is None:
            raise InputError(f"transform: returned None for cell {cell}; it must return the changed image")
        results.append(changed)
        if results[-1].shape != results[0].shape:
            shapes = f"{tuple(results[-1].shape)} for cell {cell} and {tuple(results[0].shape)} for cell {ids[0]}"
            raise InputError(f"transform: returned the shapes {shapes}: all images must have the same shape")
    return torch.stack(results)
