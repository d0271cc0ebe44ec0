"""Export cells: read images in the order of the file, write their files, then the table of cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellstamp.engines.threads import Threads, usable_cores
from cellstamp.errors import InputError
from cellstamp.export.encoders import Encoder
from cellstamp.export.file_names import TABLE, FileNames, shard_name
from cellstamp.export.folder import ExportFolder
from cellstamp.export.shards import write_shard
from cellstamp.h5sc.cell_metadata import CellMetadata
from cellstamp.h5sc.layout import CELL_ID
from cellstamp.h5sc.selected_images import SelectedImages
from cellstamp.report import Progress

_ROWS = 5000
"""Rows of the table that are written together."""
_BLOCK_BYTES = 2**24
"""Decoded bytes of images in memory while a tar file is written."""

Columns = Callable[[NDArray[np.int64]], dict[str, list[str]]]
"""Places of cells -> columns of the table with the names of their files."""


@dataclass(frozen=True)
class ChosenImages:
    """The images to export.

    Attributes
    ----------
    look
        Their file.
    rows
        int64 (n_cells,): rows of the cells, each once, in the order of the table.
    planes
        Numbers of the planes.
    """

    look: SelectedImages
    rows: NDArray[np.int64]
    planes: list[int]

    @property
    def cell_ids(self) -> NDArray[np.uint64]:
        """uint64 (n_cells,)."""
        return self.look.cell_ids[self.rows]

    @property
    def names(self) -> list[str]:
        """Names of the planes."""
        return [self.look.plane_names[plane] for plane in self.planes]

    @property
    def image_bytes(self) -> int:
        """Decoded bytes of the image of a cell."""
        return len(self.planes) * self.look.image_size**2 * self.look.dtype.itemsize

    def check(self) -> None:
        """Check that each cell has another id, since ids name files.

        Raises
        ------
        InputError
            If several cells have the same.
        """
        ids, counts = np.unique(self.cell_ids, return_counts=True)
        if counts.size and counts.max() > 1:
            raise InputError(
                f"{self.look.where}: several cells have the id {ids[counts.argmax()]}, and files are named by id. "
                "Choose cells with different ids"
            )


class FilesExport:
    """One file for each cell, or for each channel of a cell.

    Parameters
    ----------
    images
        The images.
    names
        Names of the files.
    encode
        Makes the content of the files of a cell.
    """

    def __init__(self, images: ChosenImages, names: FileNames, encode: Encoder) -> None:
        self._images, self._names, self._encode = images, names, encode

    def write(self, folder: ExportFolder, metadata: CellMetadata, bar: Progress) -> int:
        """Write the files that are missing, and return the number of cells that were written."""
        for number in range(self._names.n_folders):
            folder.make_folder(self._names.folder(number))
        missing, threads = folder.missing(self._names), Threads(usable_cores())
        images = self._images
        bar.advance(images.rows.size - missing.size)
        for places, some in images.look.in_pieces(images.rows[missing], images.planes):
            threads.each(partial(self._write_cell, folder), list(zip(missing[places].tolist(), some, strict=True)))
            bar.advance(len(places))
        return missing.size

    def _write_cell(self, folder: ExportFolder, cell: tuple[int, NDArray[Any]]) -> None:
        place, image = cell
        contents = self._encode(image, int(self._names.cell_ids[place]))
        for name, content in zip(self._names.of(place), contents, strict=True):
            folder.write(name, partial(_write_content, content))

    def columns(self, places: NDArray[np.int64]) -> dict[str, list[str]]:
        """Return the columns of the table with the names of the files."""
        by_cell = [self._names.of(place) for place in places.tolist()]
        by_file = zip(*by_cell, strict=True)
        return {name: list(files) for name, files in zip(self._names.columns, by_file, strict=True)}


def _write_content(content: bytes, file: IO[bytes]) -> None:
    file.write(content)


class ShardsExport:
    """Tar files with many cells each, in the order of the table.

    Parameters
    ----------
    images
        The images.
    n_cells
        Number of cells in each tar file; the last one has fewer.
    """

    def __init__(self, images: ChosenImages, n_cells: int) -> None:
        self._images, self._n_cells = images, n_cells

    def write(self, folder: ExportFolder, metadata: CellMetadata, bar: Progress) -> int:
        """Write the tar files that are missing, and return the number of cells that were written."""
        n_all = self._images.rows.size
        shards = np.split(np.arange(n_all), range(self._n_cells, n_all, self._n_cells))
        left = [number for number in range(len(shards)) if not folder.is_written(shard_name(number))]
        n_left = sum(shards[number].size for number in left)
        bar.advance(n_all - n_left)
        read = self._images.look.reader_of(self._images.rows, self._images.planes) if left else None
        for number in left:
            blocks = self._blocks(read, shards[number], metadata, bar)
            folder.write(shard_name(number), partial(write_shard, blocks=blocks, cell_id=CELL_ID))
        return n_left

    def _blocks(
        self, read: Any, places: NDArray[np.int64], metadata: CellMetadata, bar: Progress
    ) -> Iterator[tuple[NDArray[Any], pd.DataFrame]]:
        at_once = max(1, _BLOCK_BYTES // self._images.image_bytes)
        for start in range(0, places.size, at_once):
            some = places[start : start + at_once]
            yield read(some), metadata.of(self._images.rows[some])
            bar.advance(some.size)

    def columns(self, places: NDArray[np.int64]) -> dict[str, list[str]]:
        """Return the column of the table with the names of the tar files."""
        return {"file": [shard_name(number) for number in (places // self._n_cells).tolist()]}


def export_to(
    folder: ExportFolder,
    images: ChosenImages,
    export: FilesExport | ShardsExport,
    metadata: CellMetadata,
    bar: Progress,
) -> int:
    """Write the files of an export that are missing, then the table, and return the number of cells written now.

    Raises
    ------
    InputError
        If an image or the metadata cannot be read.
    OutputError
        If something cannot be written.
    """
    n_written = export.write(folder, metadata, bar)
    folder.write(TABLE, partial(_write_table, images=images, columns=export.columns, metadata=metadata))
    return n_written


def _write_table(file: IO[bytes], images: ChosenImages, columns: Columns, metadata: CellMetadata) -> None:
    for start in range(0, images.rows.size, _ROWS):
        places = np.arange(start, min(start + _ROWS, images.rows.size))
        frame = metadata.of(images.rows[places])
        for number, (name, files) in enumerate(columns(places).items(), start=1):
            frame.insert(number, name, files)
        frame.to_csv(file, index=False, header=start == 0, lineterminator="\n")
