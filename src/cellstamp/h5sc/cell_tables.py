"""Write and read tables beside the single-cell images: an AnnData with a row for each cell, in a file or zarr store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import zarr
from numpy.typing import NDArray

from cellstamp.errors import CellstampError, InputError, writing
from cellstamp.h5sc.layout import CELL_ID, FILE_NAME, STORE_NAME
from cellstamp.h5sc.new_file import extended, new_file
from cellstamp.h5sc.opening import READING_ERRORS, ROOT, OpenStore, open_h5sc
from cellstamp.h5sc.reader import as_plain
from cellstamp.h5sc.remote_store import RemoteStore
from cellstamp.h5sc.tables import add_to_store, consolidate, write_to_file, write_to_store
from cellstamp.location import Location, reachable
from cellstamp.system import sync_file

Block = tuple[slice, NDArray[np.float32], Mapping[str, NDArray[Any]]]
"""Some rows: which, their values (n_rows, n_columns), and values of columns of ``obs``."""

_CHUNK_BYTES = 2**22
_ENCODING: dict[str, Any] = {"encoding-type": "array", "encoding-version": "0.2.0"}


@dataclass(frozen=True)
class TableKind:
    """A kind of table beside the images.

    Attributes
    ----------
    name
        Beginning of the file's name.
    remedy
        How to replace a damaged table, for messages.
    """

    name: str
    remedy: str

    def file_name(self, images: str) -> str:
        """Return the name of the table of a file or store of single-cell images with this name."""
        suffix = "zarr" if images.endswith(".zarr") else "h5ad"
        return f"{self.name}.{suffix}" if images in (FILE_NAME, STORE_NAME) else f"{images}.{self.name}.{suffix}"

    def beside(self, images: Location) -> Location:
        """Return the path of the table of a file or store of single-cell images."""
        return images.with_name(self.file_name(images.name))

    @contextmanager
    def opened(self, found: Location) -> Iterator[Any]:
        """Open a table.

        Raises
        ------
        InputError
            If it is damaged.
        """
        with self.readable(found), _opened(found) as file:
            yield file

    def read(self, found: Location) -> anndata.AnnData:
        """Read a table into memory.

        Raises
        ------
        InputError
            If it is damaged.
        """
        with self.readable(found):
            if not is_store(found):
                return anndata.io.read_h5ad(str(found))
            with OpenStore(found) as store:
                _check_complete(store["X"])
                data = anndata.io.read_zarr(store.as_group())
        data.uns = as_plain(dict(data.uns))
        return data

    @contextmanager
    def opened_for_long(self, found: Location) -> Iterator[Any]:
        """Open a table while other work is done, whose errors are raised unchanged. Read it in `readable`.

        Raises
        ------
        InputError
            If it is damaged.
        """
        with ExitStack() as stack:
            with self.readable(found):
                file = stack.enter_context(_opened(found))
            yield file

    @contextmanager
    def readable(self, found: Location) -> Iterator[None]:
        """Raise errors of reading as `InputError` about a damaged table."""
        try:
            yield
        except CellstampError:
            raise
        except READING_ERRORS as error:
            raise InputError(f"{found} is damaged: {' '.join(str(error).split())}. {self.remedy}") from error


@contextmanager
def _opened(found: Location) -> Iterator[Any]:
    with OpenStore(found) if is_store(found) else h5py.File(str(found), "r") as file:
        if "X" in file:
            _check_complete(file["X"])
        yield file


def _check_complete(values: Any) -> None:
    """Check that a store has all chunks of an array: zarr reads missing ones as zeros.

    Raises
    ------
    ValueError
        If chunks are missing.
    """
    if not isinstance(values, zarr.Array):
        return
    if isinstance(values.store, RemoteStore) and not values.store.lists_files:
        n_missing = values.store.count_missing(values)
    else:
        n_missing = values.nchunks - values.nchunks_initialized
    if n_missing:
        raise ValueError(f"{n_missing} of {values.nchunks} chunks of X are missing")


def check_cells(table: anndata.AnnData | NDArray[Any], found: Location, images: Location) -> None:
    """Check that a table has the cells of a file or store of single-cell images, in its order.

    Parameters
    ----------
    table
        The table, or the ids of its cells.
    found, images
        Locations of the table and of the images.

    Raises
    ------
    InputError
        If it has not.
    """
    ids = table.obs[CELL_ID].to_numpy() if isinstance(table, anndata.AnnData) else table
    with open_h5sc(images) as file:
        own = file[f"obs/{CELL_ID}"][...]
    if not np.array_equal(ids, own):
        raise InputError(
            f"{found} has other cells ({len(ids):,}) than {images} ({len(own):,}), or another order of cells: one of "
            "them was replaced. Extract again with overwrite=True"
        )


def is_store(table: Location) -> bool:
    """Return whether a table is a zarr store, by its name."""
    return table.suffix == ".zarr"


def is_written(table: Location) -> bool:
    """Return whether a complete table is at a location."""
    with reachable(str(table)):
        return (table / ROOT).exists() if is_store(table) else table.is_file()


class NewTable:
    """A table that begins with its cells, and ends with their values.

    Parameters
    ----------
    path
        A file, or a store if its name ends so. An earlier one is replaced.
    elements
        Elements of the `AnnData` without ``X``; see `cellstamp.h5sc.tables.write_to_file`.
    shape
        Numbers of rows and columns of ``X``.
    n_bytes
        Bytes that a file takes at most.

    Raises
    ------
    OutputError
        If it cannot be written.
    """

    def __init__(self, path: Path, elements: Mapping[str, Any], shape: tuple[int, int], n_bytes: int) -> None:
        self._path, self._shape, self._n_bytes = path, shape, n_bytes
        with writing(path):
            if is_store(path):
                write_to_store(path, elements)
                return
            path.unlink(missing_ok=True)  # an interrupted run left it
            with new_file(path, n_bytes) as file:
                write_to_file(file, elements)

    def finish(self, blocks: Iterable[Block], uns: Mapping[str, Any]) -> None:
        """Write the values, and bring everything to the disk.

        Parameters
        ----------
        blocks
            All rows of ``X``.
        uns
            Further elements of ``uns``.

        Raises
        ------
        OutputError
            If they cannot be written.
        """
        with writing(self._path):
            with self._opened() as file:
                if isinstance(file, zarr.Group):
                    add_to_store(self._path / "uns", uns)
                else:
                    for name, element in uns.items():
                        anndata.io.write_elem(file["uns"], name, element)
                values = _new_values(file, self._shape)
                for which, block, columns in blocks:
                    values[which] = block
                    for name, column in columns.items():
                        file[f"obs/{name}"][which] = column
            if is_store(self._path):
                consolidate(self._path)
            for part in self._path.rglob("*") if is_store(self._path) else [self._path]:
                if part.is_file():
                    sync_file(part)

    def _opened(self) -> Any:
        if is_store(self._path):
            return nullcontext(zarr.open_group(self._path, mode="r+"))
        return extended(self._path, self._n_bytes)


def _new_values(file: Any, shape: tuple[int, int]) -> Any:
    """Create ``X`` in a file or store."""
    if isinstance(file, h5py.File):
        values = file.create_dataset("X", shape, np.float32)
        values.attrs.update(_ENCODING)
        return values
    n_cells, n_columns = shape
    return file.create_array(
        "X",
        shape=shape,
        chunks=(min(n_cells, max(1, _CHUNK_BYTES // (4 * n_columns))), n_columns),
        dtype="float32",
        attributes=_ENCODING,
        config={"write_empty_chunks": True},  # so that a chunk of zeros is not a missing one
    )
