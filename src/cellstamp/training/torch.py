"""Stamps for torch: a dataset, and the order in which a DataLoader should ask for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler, default_collate, get_worker_info

from cellstamp.engines.threads import Threads, usable_cores
from cellstamp.errors import ConfigError
from cellstamp.training.order import BLOCK_SIZE, BatchOrder, check_number
from cellstamp.training.sending import Desk, EncodedBatch, LoaderBatch, whole_batch
from cellstamp.training.stamps import FloatName, Paths, StampSet


class SingleCellDataset(Dataset[Any]):
    """Images of one `.h5sc` file, or of several as one, for a `torch.utils.data.DataLoader`.

    A DataLoader gets whole batches from it: they are read with few calls, decoded by threads of their own, and need not
    be put together any more. It is picklable and may be used in any number of processes, forked or spawned: each opens
    the files for itself.

    Parameters
    ----------
    path_or_paths
        A file, or a list of files, which must have images of one size. Files that scportrait wrote will do.
    channels
        Names or numbers (from 0, masks first) of the planes wanted, in the order wanted; None for all. Files must have
        the same ones, named alike.
    cells
        Ids, in the order wanted; or true or false for each cell of all files; or the name of a boolean column of `obs`;
        or a list of one of these for each file. Ids are looked for in every file. None for all cells.
    transform
        Called with each image, a tensor (n_channels, y, x), in the process that reads it; what it returns is the image.
    return_id
        Whether ids of cells are given, too.
    labels
        One for each file; or one for each cell of all files, whether it is chosen by ``cells`` or not; or a list of one
        array for each file; or the name of a column of `obs`. None for none. Text becomes numbers, see ``classes``.
    dtype
        ``"float32"`` or ``"float16"``. What is stored as an integer is divided by the largest one of its type, so that
        all values are from 0 to 1.
    n_threads
        That read and decode; None for one in each worker of a DataLoader, and one for each core without workers.

    Attributes
    ----------
    channel_names
        Of the channels, in the order of the planes.
    cell_ids
        int64 tensor (n_cells,): ids of all cells, in the order of the dataset.
    labels
        Tensor (n_cells,): labels of all cells; None without. Integers, and true and false, are int64, floats float32.
    classes
        What labels that are text stand for: number ``i`` is ``classes[i]``, in alphabetical order. Otherwise empty.

    Raises
    ------
    ConfigError
        If there is no such channel, cell or column (the message names the nearest, or examples), if there are more or
        fewer labels than cells, or if a number is not what it must be.
    InputError
        If a file is not there, is no `.h5sc` file, has images of another size or other channels than the first; and
        when images are asked for, if it was changed meanwhile, or is damaged.

    Notes
    -----
    An item is ``(image, label, id)``, without what was not asked for; if it is the image alone, it is no tuple. The
    image is a tensor (n_channels, y, x), the id an int, the label a tensor without axes. A batch has the same parts: a
    tensor (n, n_channels, y, x), and tensors (n,).
    """

    def __init__(
        self,
        path_or_paths: Paths,
        channels: Any = None,
        cells: Any = None,
        transform: Callable[[torch.Tensor], Any] | None = None,
        return_id: bool = True,  # noqa: FBT001, FBT002  # as in datasets that users come from
        labels: Any = None,
        *,
        dtype: FloatName = "float32",
        n_threads: int | None = None,
    ) -> None:
        self._stamps = StampSet(path_or_paths, channels=channels, cells=cells, labels=labels, dtype=dtype)
        self._stamps.load()
        self._transform, self._return_id, self._n_threads = _check_transform(transform), return_id, n_threads
        self._desk = Desk(usable_cores() if n_threads is None else check_number("n_threads", n_threads, least=1))
        self.classes, self.labels = _encoded(self._stamps.labels)

    @property
    def channel_names(self) -> tuple[str, ...]:  # noqa: D102
        return self._stamps.channel_names

    @property
    def cell_ids(self) -> torch.Tensor:  # noqa: D102
        return self._ids(np.arange(len(self)))

    def __len__(self) -> int:
        return len(self._stamps)

    def __getitem__(self, index: int) -> Any:
        (item,) = self.__getitems__([index])
        return item if isinstance(item, torch.Tensor) or self._is_image_alone else tuple(item)

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Read several items at once: what a DataLoader asks for when it wants a batch."""
        numbers = self._places(indices)
        if self._is_image_alone or self._transform:
            images = list(map(self._transform, self._read(numbers))) if self._transform else list(self._read(numbers))
            parts = (each for _, each in self._labels_and_ids(numbers))
            return images if self._is_image_alone else list(zip(images, *parts, strict=True))
        return self._batch(numbers).items()

    @staticmethod
    def collate(items: list[Any]) -> Any:
        """Put the items of a batch together, for ``DataLoader(..., collate_fn=SingleCellDataset.collate)``.

        The batch is the one that there is without it. But where workers read, they send the bytes of the file instead
        of images, and the process that trains decodes them by its own threads, which takes a fraction of the time. It
        makes no difference without workers, with a ``transform``, or where there are neither ids nor labels.

        Parameters
        ----------
        items
            What the dataset has given out for one batch.
        """
        batch = whole_batch(items)
        if batch is None or batch.parcel is None:
            return default_collate(items)
        return [batch.parcel, *batch.rest]

    @property
    def _is_image_alone(self) -> bool:
        return self.labels is None and not self._return_id

    def _batch(self, numbers: NDArray[np.int64]) -> LoaderBatch:
        rest = self._labels_and_ids(numbers)
        if get_worker_info() is None:
            images = self._read(numbers)
            return LoaderBatch(lambda: images, rest)
        parcel = EncodedBatch(
            self._stamps.fetch(numbers), (len(numbers), *self._stamps.shape), self._stamps.dtype, self._desk
        )
        return LoaderBatch(lambda: parcel.into(self._empty(len(numbers)), self._threads()), rest, parcel)

    def _labels_and_ids(self, numbers: NDArray[np.int64]) -> list[tuple[torch.Tensor, Any]]:
        """What of them is wanted, as tensors, and as they are in single items."""
        labels = [] if self.labels is None else [self.labels[torch.from_numpy(numbers)]]
        ids = [self._ids(numbers)] if self._return_id else []
        return [*((each, each) for each in labels), *((each, each.tolist()) for each in ids)]

    def _read(self, numbers: NDArray[np.int64]) -> torch.Tensor:
        images = self._empty(len(numbers))
        self._stamps.read(numbers, images.numpy(), self._threads())
        return images

    def _places(self, indices: Sequence[int]) -> NDArray[np.int64]:
        if any(isinstance(index, Sequence) for index in indices):
            message = "sampler: a SingleCellSampler draws whole batches; give it to the DataLoader as batch_sampler"
            raise ConfigError(message)
        numbers = np.asarray(indices, np.int64)
        wrong = numbers[(numbers < -len(self)) | (numbers >= len(self))]
        if wrong.size:
            message = f"there is no item {wrong[0]}: the dataset has {len(self)} cells"
            raise IndexError(message)
        return np.where(numbers < 0, numbers + len(self), numbers)

    def _ids(self, numbers: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(self._stamps.ids(numbers).astype(np.int64))

    def _empty(self, n_cells: int) -> torch.Tensor:
        """Memory for images; in a worker it is shared with the process that waits for them, which spares a copy."""
        shape, dtype = (n_cells, *self._stamps.shape), self._stamps.dtype
        if get_worker_info() is None:
            return self._desk.empty(shape, dtype)
        return torch.from_numpy(np.empty(shape, dtype)).share_memory_()

    def _threads(self) -> Threads:
        # workers share the cores among themselves already
        return Threads(1) if self._n_threads is None and get_worker_info() is not None else self._desk.threads


class SingleCellSampler(Sampler[list[int]]):
    """Batches of a dataset, for ``DataLoader(dataset, batch_sampler=...)``: in random order, and yet quickly read.

    Blocks of cells that are neighbours in the file are shuffled, and cut differently in each epoch; each batch is
    of many blocks.

    Parameters
    ----------
    dataset
        A `SingleCellDataset`, or anything that has a length.
    batch_size
        Cells in a batch; the last one may have fewer.
    shuffle
        Whether they come in random order.
    seed
        Of that order: the same seed, the same orders of one epoch after the other.
    block_size
        So many neighbours stay together, and one call reads them all. 1 mixes all.
    drop_last
        Whether a last batch that has fewer cells is left out.

    Attributes
    ----------
    epoch
        Number of the next epoch's order; counted up when its first batch is drawn. It may be set, to go on from there.

    Raises
    ------
    ConfigError
        If a number is not what it must be.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 256,
        *,
        shuffle: bool = True,
        seed: int = 0,
        block_size: int = BLOCK_SIZE,
        drop_last: bool = False,
    ) -> None:
        self._order = BatchOrder(len(dataset), batch_size, shuffle, seed, block_size, drop_last)
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[list[int]]:
        # counted when the first batch is drawn: with workers, torch makes two iterators and draws from one
        epoch = check_number("epoch", self.epoch, least=0)
        self.epoch = epoch + 1
        for numbers in self._order.batches(epoch):
            yield numbers.tolist()


def _check_transform(transform: Any) -> Any:
    if transform is not None and not callable(transform):
        message = f"transform = {transform!r}: must be a function of an image, or None"
        raise ConfigError(message)
    return transform


def _encoded(labels: NDArray[Any] | None) -> tuple[tuple[str, ...], torch.Tensor | None]:
    """Text as numbers, numbers as the types that torch works with."""
    if labels is None:
        return (), None
    if labels.dtype.kind not in "biuf":
        classes, numbers = np.unique(labels, return_inverse=True)
        return tuple(classes.tolist()), torch.from_numpy(numbers.astype(np.int64))
    dtype = np.float32 if labels.dtype.kind == "f" else np.int64
    return (), torch.from_numpy(np.array(labels, dtype))
