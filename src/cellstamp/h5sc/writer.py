"""Writes an `.h5sc` file: its frame first, then finished chunks in any order."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

import anndata
import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellstamp.h5sc.layout import CELL_ID, HDF5_BOUND, IMAGES, Layout
from cellstamp.h5sc.writeback import Writeback

_WRITEBACK_BYTES = 2**27
"""The disk is given something to do whenever so much has been written: seldom enough that writing is not held up."""


class StampWriter:
    """An `.h5sc` file being written. A context manager; the file is whole when it was left without an error.

    Parameters
    ----------
    path
        The file; it must not exist.
    layout
        What it will hold.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self._file = h5py.File(path, "x", libver=HDF5_BOUND)
        _write_frame(self._file, layout)
        images = self._file.create_dataset(
            f"obsm/{IMAGES}", layout.shape, np.float16, chunks=layout.chunks, compression=layout.compression
        )
        images.attrs.update(layout.attributes())
        self._id = images.id
        self._raw_bytes = 2 * layout.image_size**2
        self._unfiltered = 0 if layout.compression is None else 1
        self._writeback = Writeback(self._file.id.get_vfd_handle())
        self._fresh_bytes = 0

    def write(self, rows: NDArray[np.int64], sizes: NDArray[np.int64], payload: NDArray[np.uint8]) -> None:
        """Store the finished chunks of some cells.

        Parameters
        ----------
        rows
            (n,): where the cells stand in the file.
        sizes
            (n, n_planes): bytes of each chunk. A chunk of full size has not been through the filter, and is marked so.
        payload
            The chunks, one after the other.
        """
        write, raw, unfiltered = self._id.write_direct_chunk, self._raw_bytes, self._unfiltered
        view, at = payload.data, 0
        for row, planes in zip(rows.tolist(), sizes.tolist(), strict=True):
            for plane, size in enumerate(planes):
                write((row, plane, 0, 0), view[at : at + size], unfiltered if size == raw else 0)
                at += size
        self._fresh_bytes += payload.nbytes
        if self._fresh_bytes >= _WRITEBACK_BYTES:
            self._writeback.begin()
            self._fresh_bytes = 0

    def flush(self) -> None:
        """Bring everything written so far to the disk."""
        self._file.flush()
        os.fsync(self._file.id.get_vfd_handle())
        self._writeback.check()

    def __enter__(self) -> Self:
        """Begin writing."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Bring the file to the disk and close it."""
        try:
            if kind is None:
                self.flush()
        finally:
            self._writeback.stop()
            self._file.close()


def _write_frame(file: h5py.File, layout: Layout) -> None:
    """Write everything but the stamps, in the encodings that readers in use know (see `_text`)."""
    n_cells, n_planes = layout.shape[:2]
    file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    obs = pd.DataFrame({CELL_ID: layout.cell_ids}, index=_text(map(str, range(n_cells))))
    kinds = pd.Categorical(layout.kinds, categories=_text(sorted(set(layout.kinds))))
    var = pd.DataFrame({"channel_mapping": kinds}, index=_text(map(str, range(n_planes))))
    var.insert(0, "channels", pd.Series(layout.names, index=var.index, dtype=object))
    elements = {
        "obs": obs,
        "var": var,
        "obsm": {"spatial": layout.centers},
        "uns": {IMAGES: layout.description()},
        **{name: {} for name in ("layers", "obsp", "varm", "varp")},
    }
    for name, element in elements.items():
        anndata.io.write_elem(file, name, element)


def _text(words: object) -> pd.Index:
    """An index of plain Python strings: pandas 3 would choose a type that anndata stores in a newer encoding."""
    return pd.Index(list(words), dtype=object)  # type: ignore[call-overload]
