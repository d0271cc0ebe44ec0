"""Write shards in the workers: the caller gets the numbers of their cells only."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import OutputError
from cellstamp.location import Location
from cellstamp.zarr_store.remote_shards import put_shard
from cellstamp.zarr_store.shards import images_path, index_of, shard_path, write_shard


class Encode(Protocol):
    """A task that encodes the cells of a batch; see `cellstamp.cells.task.StampTask`."""

    def __call__(self, batch: Any, /) -> Any:
        """Read, cut and encode a batch; the payload is valid until the next call."""
        ...

    def signature(self) -> tuple[str, ...]:
        """Return samples that identify the image and the masks."""
        ...

    def warm_up(self) -> None:
        """Load compiled code."""
        ...


class Shard(Protocol):
    """Cells of a shard; see `cellstamp.cells.plan.ShardBatch`."""

    @property
    def number(self) -> int:
        """Number of the shard."""
        ...

    @property
    def pieces(self) -> Sequence[Any]:
        """Its cells, in batches."""
        ...


@dataclass(frozen=True)
class FinishedShard:
    """A shard that a worker has written.

    Attributes
    ----------
    number
        Number of the shard.
    rows
        Rows of its cells.
    stored_bytes
        Bytes of its file.
    n_empty
        int64 (n_masks,): for each mask, number of cells without a pixel of it in their crop.
    on_edge
        int64: rows of the cells whose cell mask touches the edge of the crop.
    read_s, cut_s
        Seconds for reading pixels, and for cutting, encoding and writing.
    features
        float32 (n_cells, 1 + n_features), in the order of the rows; see `cellstamp.encoded_cells.EncodedCells`.
    """

    number: int
    rows: range
    stored_bytes: int
    n_empty: NDArray[np.int64]
    on_edge: NDArray[np.int64]
    read_s: float
    cut_s: float
    features: NDArray[np.float32] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that the caller receives: features, and no images."""
        return 0 if self.features is None else self.features.nbytes

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.rows)


class ShardTask:
    """Callable that writes a shard; picklable.

    Parameters
    ----------
    encode
        Encodes the cells of a batch, one chunk for each.
    store
        Location of the zarr store.
    rows_per_shard
        Number of cells in a shard.
    """

    small_results = True
    """A cluster may run several shards as one task."""

    def __init__(self, encode: Encode, store: Location, rows_per_shard: int) -> None:
        self._encode, self._store, self._rows_per_shard = encode, store, rows_per_shard

    def __call__(self, shard: Shard) -> FinishedShard:
        """Read, cut, encode and write the cells of a shard.

        Raises
        ------
        OutputError
            If the shard cannot be written, or if this machine does not have the store.
        """
        if isinstance(self._store, Path) and not images_path(self._store).is_dir():
            raise OutputError(
                f"{self._store} does not exist for a worker on {socket.gethostname()}. With file_format zarr, workers "
                "write the result: extract to a folder that all machines share, or set file_format to h5sc"
            )
        done: list[Any] = []
        index = np.full((2, self._rows_per_shard), -1)
        stored_bytes = self._write(shard.number, self._parts(shard, done, index))
        first = shard.number * self._rows_per_shard
        return FinishedShard(
            shard.number,
            range(first, first + sum(each.rows.size for each in done)),
            stored_bytes,
            np.sum([each.n_empty for each in done], axis=0),
            np.concatenate([each.on_edge for each in done]),
            sum(each.read_s for each in done),
            sum(each.cut_s for each in done),
            _features_of(done),
        )

    def _write(self, number: int, parts: Iterator[bytes | memoryview]) -> int:
        path = shard_path(self._store, number)
        return write_shard(path, parts) if isinstance(path, Path) else put_shard(path, (bytes(part) for part in parts))

    def _parts(self, shard: Shard, done: list[Any], index: NDArray[np.int64]) -> Iterator[bytes | memoryview]:
        """Yield the content of the file."""
        at = 0
        for piece in shard.pieces:
            cells = self._encode(piece)
            yield cells.payload.data
            places, sizes = cells.rows - shard.number * self._rows_per_shard, cells.sizes[:, 0]
            ends = at + np.cumsum(sizes)
            index[:, places] = ends - sizes, sizes
            at = int(ends[-1])
            done.append(cells)
        yield index_of(*index)

    def signature(self) -> tuple[str, ...]:
        """Return samples that identify the image and the masks; see `StampTask`."""
        return self._encode.signature()

    def warm_up(self) -> None:
        """Load compiled code before shards are assigned to workers."""
        self._encode.warm_up()


def _features_of(done: Sequence[Any]) -> NDArray[np.float32] | None:
    """Return the features of all cells in the order of their rows; None: not measured."""
    if any(each.features is None for each in done):
        return None
    order = np.argsort(np.concatenate([each.rows for each in done]))
    features: NDArray[np.float32] = np.concatenate([each.features for each in done])[order]
    return features
