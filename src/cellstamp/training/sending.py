"""Batches of a DataLoader: items that were read together, and the way from a worker to the process that trains.

torch sends tensors through shared memory that is new for every batch. The system has to clear each of its pages and to
show it to two processes, which takes twice as long as reading and decoding. So what a worker sends can be the bytes of
the file, a tenth as many, which the process that gets them decodes in memory that it uses again.
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
from cellstamp.training.memory import Recycler
from cellstamp.training.stamps import Fetched, decode

# Where a process decodes what its workers send: they name it, since they cannot send it.
_DESKS: weakref.WeakValueDictionary[str, Desk] = weakref.WeakValueDictionary()


class Desk:
    """Threads that decode, and memory for batches; picklable, of its own in each process.

    Parameters
    ----------
    n_threads
        How many.
    name
        The same in all processes.
    """

    def __init__(self, n_threads: int, name: str | None = None) -> None:
        self.threads, self.memory = Threads(n_threads), Recycler()
        self.name = name or uuid.uuid4().hex
        _DESKS[self.name] = self

    def __reduce__(self) -> tuple[type[Desk], tuple[int, str]]:
        """Take along neither threads nor memory."""
        return type(self), (self.threads.n_threads, self.name)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> torch.Tensor:
        """Memory for images."""
        return torch.from_numpy(self.memory.empty(shape, dtype))


class EncodedBatch:
    """Stamps that a worker has read and not decoded; where it is unpickled, it is a tensor of images.

    Parameters
    ----------
    fetched
        The stamps.
    shape, dtype
        Of the images.
    desk
        Whose counterpart decodes them.
    """

    def __init__(self, fetched: list[Fetched], shape: tuple[int, ...], dtype: np.dtype[Any], desk: Desk) -> None:
        self._fetched, self._shape, self._dtype, self._desk = fetched, shape, dtype, desk

    def __reduce__(self) -> tuple[Callable[..., torch.Tensor], tuple[Any, ...]]:
        """Become images."""
        return _unpack, (self._fetched, self._shape, self._dtype, *self._desk.__reduce__()[1])

    def into(self, images: torch.Tensor, threads: Threads) -> torch.Tensor:
        """Decode here."""
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
    """Items that were asked for together.

    Parameters
    ----------
    images
        Makes their images, when they are looked at.
    rest
        Their labels and ids, as far as they are wanted: tensors (n,), and what of each is in an item, in a sequence.
    parcel
        The images as they can be sent, in a worker.
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
        """Tensors of the labels and ids."""
        return [tensor for tensor, _ in self._rest]

    def items(self) -> list[Item]:
        """All of them."""
        return [Item(self, place) for place in range(len(self.rest[0]))]

    def parts(self, place: int) -> tuple[Any, ...]:
        """One of them: image, label, id."""
        return (self.images[place], *(each[place] for _, each in self._rest))


class Item(Sequence[Any]):
    """An item of a batch: if all of that is wanted, it is there already."""

    def __init__(self, batch: LoaderBatch, place: int) -> None:
        self.batch, self.place = batch, place

    def __len__(self) -> int:
        return 1 + len(self.batch.rest)

    def __getitem__(self, index: Any) -> Any:
        return self.batch.parts(self.place)[index]

    def __iter__(self) -> Iterator[Any]:
        # a sequence would be asked for one part after the other, and each time all are made
        return iter(self.batch.parts(self.place))

    def __reduce__(self) -> tuple[type[tuple[Any, ...]], tuple[Any, ...]]:
        """Take along the item alone."""
        return tuple, (tuple(self),)


def whole_batch(items: Sequence[Any]) -> LoaderBatch | None:
    """The batch whose items these are, if they are all of it, in their order."""
    batch = items[0].batch if isinstance(items[0], Item) else None
    if batch is None or len(items) != len(batch.rest[0]):
        return None
    return batch if all(item.batch is batch and item.place == k for k, item in enumerate(items)) else None


def _collate(items: Sequence[Any], *, collate_fn_map: object = None) -> Any:
    """Put items together as torch does: without copying, if they are one whole batch."""
    del collate_fn_map
    batch = whole_batch(items)
    return default_collate([tuple(item) for item in items]) if batch is None else [batch.images, *batch.rest]


# torch's way to tell its default_collate of a type: see its documentation
default_collate_fn_map.update({Item: _collate})
