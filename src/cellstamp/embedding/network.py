"""Run a model on batches of images: device, precision, and smaller batches when memory is short."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cellstamp.embedding.returned import as_rows
from cellstamp.errors import CellstampError, ConfigError, InputError, WorkerError
from cellstamp.warnings import warn

PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

_MEMORY_ERRORS = (torch.OutOfMemoryError, MemoryError)
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
"""Parts of other errors' messages, of the allocator for CPUs and of libraries for GPUs."""


class Network:
    """A model on its device, see `evaluating`.

    Parameters
    ----------
    model
        Function from images, a tensor (n, n_channels, y, x), to a tensor (n, d).
    device
        Where images are put.
    precision
        Key of `PRECISIONS`.
    batch_size
        Largest number of images in a call.
    n_columns
        Number of values for each cell of an interrupted run; None: unknown.

    Attributes
    ----------
    batch_size
        The same, halved each time memory was short.
    """

    def __init__(
        self,
        model: Callable[[torch.Tensor], Any],
        device: torch.device,
        precision: str,
        batch_size: int,
        n_columns: int | None,
    ) -> None:
        self._model, self._device, self._dtype = model, device, PRECISIONS[precision]
        self.batch_size, self._n_columns = batch_size, n_columns

    def embed(self, images: torch.Tensor, ids: NDArray[np.uint64]) -> NDArray[np.float32] | None:
        """Return the values of some cells.

        Parameters
        ----------
        images
            float32 (n, n_channels, y, x). The model may change them.
        ids
            uint64 (n,): ids of the cells, for messages.

        Returns
        -------
        numpy.ndarray or None
            float32 (n, d). None: memory was short, and later batches must have at most ``batch_size`` images.

        Raises
        ------
        InputError
            If the model fails, or returns something else.
        WorkerError
            If the memory is too small for one cell.
        """
        rows = self._attempt(images, ids)
        if rows is None:
            self._take_fewer(len(ids))
        else:
            self._n_columns = rows.shape[1]
        return rows

    def _attempt(self, images: torch.Tensor, ids: NDArray[np.uint64]) -> NDArray[np.float32] | None:
        """Return the values of a batch; None: out of memory. Tensors of the model are freed when this returns."""
        try:
            with torch.inference_mode(), self._autocast():
                return as_rows(self._model(images.to(self._device)), ids, self._n_columns)
        except CellstampError:
            raise
        except Exception as error:
            if _is_out_of_memory(error):
                return None
            about = f"a tensor {tuple(images.shape)} of {str(images.dtype).removeprefix('torch.')} on {self._device}"
            message = f"model: failed with {type(error).__name__}: {' '.join(str(error).split())}. It got {about}"
            raise InputError(message) from error

    def _autocast(self) -> Any:
        return torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32)

    def _take_fewer(self, n_cells: int) -> None:
        """Halve the batch size, and free unused memory."""
        if n_cells == 1:
            other = "" if self._device.type == "cpu" else "another device, such as device='cpu', or "
            raise WorkerError(f"model: out of memory on {self._device} with one cell. Use {other}precision='bfloat16'")
        self.batch_size = n_cells // 2
        warn(f"out of memory on {self._device} with {n_cells} cells: continuing with batches of {self.batch_size}")
        # the CPU has no cache of memory
        getattr(getattr(torch, self._device.type, None), "empty_cache", gc.collect)()


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error)
    return isinstance(error, _MEMORY_ERRORS) or (
        isinstance(error, RuntimeError) and any(word in text for word in _MEMORY_WORDS)
    )


def networks_of(model: Any) -> list[torch.nn.Module]:
    """Return the network that a model is, or whose method it is."""
    if isinstance(model, torch.nn.Module):
        return [model]
    if isinstance(model, partial):
        parts = (model.func, *model.args, *model.keywords.values())
        return [network for part in parts for network in networks_of(part)]
    return networks_of(model.__self__) if isinstance(getattr(model, "__self__", None), torch.nn.Module) else []


def choose_device(device: Any, networks: list[torch.nn.Module]) -> torch.device:
    """Return the device to use.

    Parameters
    ----------
    device
        Its name, or ``"auto"``: that of the network, or a GPU if the network is on the CPU. Functions get images on the
        CPU.

    Raises
    ------
    ConfigError
        If it does not exist here.
    """
    if device == "auto":
        return _usual_device(networks)
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen).cpu()
    except (RuntimeError, AssertionError, TypeError, NotImplementedError, ValueError) as error:
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise ConfigError(f"device = {device!r}: cannot be used: {reason}. Use 'auto' or 'cpu'") from error
    return chosen


def _usual_device(networks: list[torch.nn.Module]) -> torch.device:
    found = next((place for network in networks for place in _places(network) if place.type != "cpu"), None)
    if found is not None or not networks:
        return found or torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _places(network: torch.nn.Module) -> set[torch.device]:
    return {each.device for each in (*network.parameters(), *network.buffers())}


@contextmanager
def evaluating(networks: list[torch.nn.Module], device: torch.device) -> Iterator[None]:
    """Put networks on a device and into evaluation mode while the block runs; then both are as before."""
    modes = {module: module.training for network in networks for module in network.modules()}
    # a network on several devices stays there
    moved = [(network, places.pop()) for network in networks if len(places := _places(network)) == 1]
    try:
        for network, _ in moved:
            network.to(device)
        for network in networks:
            network.eval()
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for network, place in moved:
            network.to(place)
