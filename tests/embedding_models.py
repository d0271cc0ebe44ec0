"""Models and transforms that tests of embeddings import, also in other processes and by name."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

torch.manual_seed(0)


class Tiny(torch.nn.Module):
    """A small network with what differs between training and evaluation."""

    def __init__(self, n_channels: int = 4, n_columns: int = 6) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(n_channels, 8, 3, stride=2),
            torch.nn.BatchNorm2d(8),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Dropout(0.5),
            torch.nn.Linear(8, n_columns),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers[:2](images)

    def before_last(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers[:-1](images)


network = Tiny()


def make_network() -> Tiny:
    torch.manual_seed(1)
    return Tiny()


def means(images: torch.Tensor) -> torch.Tensor:
    """The mean of each plane."""
    return images.mean((2, 3))


def means_in_numpy(images: torch.Tensor) -> Any:
    return np.asarray(images).mean((2, 3), dtype=np.float64)


def doubled(image: torch.Tensor) -> torch.Tensor:
    return 2 * image


CALLS: list[int] = []
"""The number of cells in each call of the functions below, in this process."""


def means_until_a_signal(images: torch.Tensor) -> torch.Tensor:
    """Means of planes; a signal ends the process before the call that the environment names."""
    if len(CALLS) == int(os.environ.get("SIGNAL_AT_CALL", "-1")):
        os.kill(os.getpid(), int(os.environ["SIGNAL"]))
    CALLS.append(len(images))
    return means(images)


def means_of_at_most_five(images: torch.Tensor) -> torch.Tensor:
    """Means of planes; memory is short for more than five cells, and the images are used up by then."""
    CALLS.append(len(images))
    result = means(images)
    if len(images) > 5:
        images.zero_()
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
    return result


def much_memory(images: torch.Tensor) -> torch.Tensor:
    """Means of planes; asks for more memory than any machine has."""
    CALLS.append(len(images))
    torch.empty(2**60 if len(images) > 5 else 1, dtype=torch.uint8)
    return means(images)


def no_memory(images: torch.Tensor) -> torch.Tensor:
    return torch.empty(2**60, dtype=torch.uint8)
