"""Send batches from the workers of a DataLoader to the training process.

torch sends tensors through new shared memory for every batch. The system must clear its pages and map them into two
processes, which takes twice as long as reading and decoding. So workers can send the bytes of the file instead, a tenth
of the size, and the training process decodes them into memory that it reuses.
"""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate
from torch.utils.data._utils.collate import default_collate_fn_map

from cellstamp.engines.threads import Threads
from cellstamp.reused_memory import Recycler
from cellstamp.training.several_files import Fetched, decode

# Desks by name: workers send the name of the desk that decodes in the training process.
_DESKS: weakref.WeakValueDictionary[str, Desk] = weakref.WeakValueDictionary()


class Desk:
    """Threads that decode, and memory for batches. Picklable; each process has its threads and memory.

    Parameters
    ----------
    n_threads
        Number of threads.
    name
        Name that is the same in all processes.
    """

    def __init__(self, n_threads: int, name: str | None = None) -> None:
        self.threads, self.memory = Threads(n_threads), Recycler()
        self.name = name or uuid.uuid4().hex
        _DESKS[self.name] = self

    def __reduce__(self) -> tuple[type[Desk], tuple[int, str]]:
        """Pickle without threads and memory."""
        return type(self), (self.threads.n_threads, self.name)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> torch.Tensor:
        """Return memory for images."""
        return torch.from_numpy(self.memory.empty(shape, dtype))


class EncodedBatch:
    """Images that a worker has read but not decoded. Unpickling returns a tensor of images.

    Parameters
    ----------
    fetched
        The encoded images.
    shape, dtype
        Shape and pixel type of the images.
    desk
        Its counterpart in the training process decodes the images.
    """

    def __init__(self, fetched: list[Fetched], shape: tuple[int, ...], dtype: np.dtype[Any], desk: Desk) -> None:
        self._fetched, self._shape, self._dtype, self._desk = fetched, shape, dtype, desk

    def __reduce__(self) -> tuple[Callable[..., torch.Tensor], tuple[Any, ...]]:
        """Unpickle as a tensor of images."""
        return _unpack, (self._fetched, self._shape, self._dtype, *self._desk.__reduce__()[1])

    def into(self, images: torch.Tensor, threads: Threads) -> torch.Tensor:
        """Decode in this process."""
        decode(self._fetched, images.numpy(), threads)
        return images


def _unpack(
    fetched: list[Fetched], shape: tuple[int, ...], dtype: np.dtype[Any], n_threads: int, name: str
) -> torch.Tensor:
    desk = _DESKS.get(name) or Desk(n_threads, name)
    images = desk.empty(shape, dtype)
    decode(fetched, images.numpy(), desk.threads)
    return images


class LoaderBatch:
    """Items that were requested together.

    Parameters
    ----------
    images
        Returns their images, when first used.
    rest
        Their requested labels and ids: tensors (n,), and sequences of the values in single items.
    parcel
        The encoded images, in a worker.
    """

    def __init__(
        self,
        images: Callable[[], torch.Tensor],
        rest: list[tuple[torch.Tensor, Any]],
        parcel: EncodedBatch | None = None,
    ) -> None:
        self._make_images, self._rest, self.parcel = images, rest, parcel

    @cached_property
    def images(self) -> torch.Tensor:
        """(n, n_channels, y, x)."""
        return self._make_images()

    @property
    def rest(self) -> list[torch.Tensor]:
        """Tensors of labels and ids."""
        return [tensor for tensor, _ in self._rest]

    def items(self) -> list[Item]:
        """Return all items."""
        return [Item(self, place) for place in range(len(self.rest[0]))]

    def parts(self, place: int) -> tuple[Any, ...]:
        """Return one item: image, label, id."""
        return (self.images[place], *(each[place] for _, each in self._rest))


class Item(Sequence[Any]):
    """An item of a batch, which `whole_batch` returns without copying."""

    def __init__(self, batch: LoaderBatch, place: int) -> None:
        self.batch, self.place = batch, place

    def __len__(self) -> int:
        return 1 + len(self.batch.rest)

    def __getitem__(self, index: Any) -> Any:
        return self.batch.parts(self.place)[index]

    def __iter__(self) -> Iterator[Any]:
        # a Sequence would make all parts again for each part
        return iter(self.batch.parts(self.place))

    def __reduce__(self) -> tuple[type[tuple[Any, ...]], tuple[Any, ...]]:
        """Pickle only this item."""
        return tuple, (tuple(self),)


def whole_batch(items: Sequence[Any]) -> LoaderBatch | None:
    """Return the batch if these are all its items, in their order."""
    batch = items[0].batch if isinstance(items[0], Item) else None
    if batch is None or len(items) != len(batch.rest[0]):
        return None
    return batch if all(item.batch is batch and item.place == k for k, item in enumerate(items)) else None


def _collate(items: Sequence[Any], *, collate_fn_map: object = None) -> Any:
    """Collate items as torch does, without copying a complete batch."""
    del collate_fn_map
    batch = whole_batch(items)
    return default_collate([tuple(item) for item in items]) if batch is None else [batch.images, *batch.rest]


# documented by torch: register a type with default_collate
default_collate_fn_map.update({Item: _collate})
