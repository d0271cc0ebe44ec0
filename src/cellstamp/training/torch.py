"""Dataset and batch sampler for torch's DataLoader."""

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
from cellstamp.training.several_files import FloatName, Paths, StampSet


class SingleCellDataset(Dataset[Any]):
    """Dataset of the images of one or several `.h5sc` files, for a `torch.utils.data.DataLoader`.

    Returns complete batches, read with few calls and decoded by threads. Picklable; works in any number of forked or
    spawned processes, each of which opens the files.

    Parameters
    ----------
    path_or_paths
        Path of a file, or a list of paths. All images must have one size. Files of scportrait work too.
    channels
        Names or numbers of channels and masks, in the order of the result. Numbers start at 0, masks first. None: all
        planes; all files must then have the same ones.
    cells
        Ids, in the order of the result; each id is searched in every file. Or a boolean for each cell of all files, the
        name of a boolean column of ``obs``, or a list with one of these for each file. None: all cells.
    transform
        Function that the reading process calls with each image, a tensor (n_channels, y, x). Its result replaces the
        image.
    return_id
        Whether to return cell ids.
    labels
        One label for each file; or one for each cell of all files, chosen or not; or a list with one array for each
        file; or the name of a column of ``obs``, or of a feature. None: no labels. Text becomes
        numbers, see ``classes``.
    dtype
        ``"float32"`` or ``"float16"``. Stored integers are divided by the largest value of their type, so that all
        values are from 0 to 1.
    n_threads
        Number of threads that read and decode. None: one in each worker of a DataLoader, or one for each core without
        workers.

    Attributes
    ----------
    channel_names
        Names of the planes, in their order.
    cell_ids
        int64 tensor (n_cells,): cell ids, in the order of the dataset.
    labels
        Tensor (n_cells,), or None without labels. Integers and booleans are int64, floats float32.
    classes
        Text labels in alphabetical order: label ``i`` is ``classes[i]``. Empty for other labels.

    Raises
    ------
    ConfigError
        If a channel, cell or column is unknown, the numbers of labels and cells differ, or an argument is invalid.
    InputError
        If a file is missing or not an `.h5sc` file, or its image size or channels differ from the first. When reading
        images: if a file was modified, or is damaged.

    Notes
    -----
    An item is ``(image, label, id)``, without label or id if not requested, or only the image without both. The image
    is a tensor (n_channels, y, x), the id an int, the label a tensor without axes. A batch has the same parts: a tensor
    (n, n_channels, y, x), and tensors (n,).
    """

    def __init__(
        self,
        path_or_paths: Paths,
        channels: Any = None,
        cells: Any = None,
        transform: Callable[[torch.Tensor], Any] | None = None,
        return_id: bool = True,  # noqa: FBT001, FBT002  # as in other datasets
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
        """Read several items at once; a DataLoader calls this for each batch."""
        numbers = self._places(indices)
        if self._is_image_alone or self._transform:
            images = list(map(self._transform, self._read(numbers))) if self._transform else list(self._read(numbers))
            parts = (each for _, each in self._labels_and_ids(numbers))
            return images if self._is_image_alone else list(zip(images, *parts, strict=True))
        return self._batch(numbers).items()

    @staticmethod
    def collate(items: list[Any]) -> Any:
        """Collate the items of a batch, for ``DataLoader(..., collate_fn=SingleCellDataset.collate)``.

        The batch is the same as without it. But workers send the bytes of the file instead of images, and threads of
        the training process decode them, which takes a fraction of the time. Makes no difference without workers, with
        a ``transform``, or without ids and labels.

        Parameters
        ----------
        items
            Items of the dataset for one batch.
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
        """Return the requested ones as tensors, and as sequences of the values in single items."""
        labels = [] if self.labels is None else [self.labels[torch.from_numpy(numbers)]]
        ids = [self._ids(numbers)] if self._return_id else []
        return [*((each, each) for each in labels), *((each, each.tolist()) for each in ids)]

    def _read(self, numbers: NDArray[np.int64]) -> torch.Tensor:
        images = self._empty(len(numbers))
        self._stamps.read(numbers, images.numpy(), self._threads())
        return images

    def _places(self, indices: Sequence[int]) -> NDArray[np.int64]:
        if any(isinstance(index, Sequence) for index in indices):
            message = "sampler: a SingleCellSampler yields batches; pass it to the DataLoader as batch_sampler"
            raise ConfigError(message)
        numbers = np.asarray(indices, np.int64)
        wrong = numbers[(numbers < -len(self)) | (numbers >= len(self))]
        if wrong.size:
            message = f"index {wrong[0]} is out of range: the dataset has {len(self)} cells"
            raise IndexError(message)
        return np.where(numbers < 0, numbers + len(self), numbers)

    def _ids(self, numbers: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(self._stamps.ids(numbers).astype(np.int64))

    def _empty(self, n_cells: int) -> torch.Tensor:
        """Return memory for images; in a worker it is shared with the training process, which saves a copy."""
        shape, dtype = (n_cells, *self._stamps.shape), self._stamps.dtype
        if get_worker_info() is None:
            return self._desk.empty(shape, dtype)
        return torch.from_numpy(np.empty(shape, dtype)).share_memory_()

    def _threads(self) -> Threads:
        # workers already share the cores
        return Threads(1) if self._n_threads is None and get_worker_info() is not None else self._desk.threads


class SingleCellSampler(Sampler[list[int]]):
    """Batches in random order that are fast to read, for ``DataLoader(dataset, batch_sampler=...)``.

    Shuffles blocks of neighbours in the file. Blocks start at another cell in each epoch, and each batch has many.

    Parameters
    ----------
    dataset
        A `SingleCellDataset`, or any object with a length.
    batch_size
        Number of cells in a batch; the last batch may have fewer.
    shuffle
        Whether to return cells in random order.
    seed
        Seed of the orders of all epochs.
    block_size
        Number of neighbours that shuffling keeps together, so that one call reads them. 1 shuffles all cells.
    drop_last
        Whether to omit a last batch with fewer cells.

    Attributes
    ----------
    epoch
        Number of the next epoch, increased with its first batch. Set it to resume a training.

    Raises
    ------
    ConfigError
        If a number is invalid.
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
        # increased with the first batch: with workers, torch makes two iterators and uses one
        epoch = check_number("epoch", self.epoch, least=0)
        self.epoch = epoch + 1
        for numbers in self._order.batches(epoch):
            yield numbers.tolist()


def _check_transform(transform: Any) -> Any:
    if transform is not None and not callable(transform):
        message = f"transform = {transform!r}: must be a function that takes an image, or None"
        raise ConfigError(message)
    return transform


def _encoded(labels: NDArray[Any] | None) -> tuple[tuple[str, ...], torch.Tensor | None]:
    """Convert text to numbers, and numbers to int64 or float32."""
    if labels is None:
        return (), None
    if labels.dtype.kind not in "biuf":
        classes, numbers = np.unique(labels, return_inverse=True)
        return tuple(classes.tolist()), torch.from_numpy(numbers.astype(np.int64))
    dtype = np.float32 if labels.dtype.kind == "f" else np.int64
    return (), torch.from_numpy(np.array(labels, dtype))
