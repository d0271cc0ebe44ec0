"""What an export makes: its options, their effect on files, and the settings that decide whether it can resume."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import ConfigError
from cellstamp.export.encoders import Encoder, PngEncoder, TiffEncoder, encode_npy
from cellstamp.export.file_names import SUFFIXES, FileNames, ShardNames, channel_parts
from cellstamp.export.intensities import Scale, intensities_of
from cellstamp.export.run import ChosenImages, FilesExport, ShardsExport
from cellstamp.export.shards import cells_in_shard
from cellstamp.h5sc.cell_metadata import CellMetadata, pixel_size_of
from cellstamp.h5sc.embedding_table import Crops
from cellstamp.similar_names import did_you_mean

MOST_CELLS_PER_SHARD = 10**9
Format = Literal["png", "tiff", "ome-tiff", "npy", "webdataset"]


@dataclass(frozen=True)
class Options:
    """Options of `cellstamp.export_cells` about files, checked.

    Attributes
    ----------
    color
        None: gray.
    """

    format: Format = "png"
    color: Any = None
    scale: Scale = "auto"
    cells_per_shard: int | None = None

    def __post_init__(self) -> None:
        known = get_args(Format)
        if self.format not in known:
            hint = did_you_mean(self.format, known) or "."
            raise ConfigError(f"format = {self.format!r}: must be one of {', '.join(map(repr, known))}{hint}")
        if self.format != "png":
            self._check_values_as_stored()
        self._check_cells_per_shard()

    def _check_values_as_stored(self) -> None:
        is_scaled = not (isinstance(self.scale, str) and self.scale == "auto")
        for name, is_given in (("color", self.color is not None), ("scale", is_scaled)):
            if is_given:
                raise ConfigError(f"{name}: is for format='png' only; {self.format} files have values as stored")

    def _check_cells_per_shard(self) -> None:
        number = self.cells_per_shard
        if number is None:
            return
        if self.format != "webdataset":
            raise ConfigError(f"cells_per_shard: is for format='webdataset' only, not {self.format!r}")
        if (
            isinstance(number, bool)
            or not isinstance(number, int | np.integer)
            or not 1 <= number <= MOST_CELLS_PER_SHARD
        ):
            raise ConfigError(f"cells_per_shard = {number!r}: must be an integer from 1 to {MOST_CELLS_PER_SHARD:,}")


@dataclass(frozen=True)
class ExportJob:
    """Cells to export, and how.

    Attributes
    ----------
    images
        Cells and planes.
    crops, metadata
        Tables of all cells of the file.
    options
        Options about files.
    colours
        float32 (n_planes, 3), 0 to 1: colours of the planes; None: gray.
    """

    images: ChosenImages
    crops: Crops
    metadata: CellMetadata
    options: Options
    colours: NDArray[np.float32] | None

    def settings(self) -> dict[str, str]:
        """Return what decides the content of the folder, as JSON values."""
        options, ids = self.options, np.ascontiguousarray(self.images.cell_ids)
        return {
            "format": options.format,
            "channels": ", ".join(self.images.names),
            "color": "None" if self.colours is None else _in_hex(self.colours),
            "scale": str(options.scale if isinstance(options.scale, str) else tuple(map(float, options.scale))),
            "cells_per_shard": str(self._cells_per_shard),
            "cells": f"{ids.size:,}, digest {hashlib.sha256(ids.data).hexdigest()[:16]}",
            "images": self.crops.origin()["images"],
            **self._metadata_in_files(),
        }

    def _metadata_in_files(self) -> dict[str, str]:
        if self._cells_per_shard is None:  # only the table has metadata, and is always written again
            return {}
        n_columns, digest = self.table.obs.shape[1] + len(self.table.feature_names), self.table.digest(self.images.rows)
        return {"metadata": f"{n_columns} columns, digest {digest[:16]}"}

    @cached_property
    def _cells_per_shard(self) -> int | None:
        if self.options.format != "webdataset":
            return None
        n_values = self.metadata.obs.shape[1] + len(self.metadata.feature_names)
        return int(self.options.cells_per_shard or 0) or cells_in_shard(self.images.image_bytes, n_values)

    @cached_property
    def table(self) -> CellMetadata:
        """Metadata with names for the table, which also has the names of the files."""
        return self.metadata.beside(self.names.columns)

    @cached_property
    def names(self) -> FileNames | ShardNames:
        """Names of the files."""
        if self._cells_per_shard is not None:
            return ShardNames(-(-self.images.rows.size // self._cells_per_shard))
        is_one_file = self.options.format != "png" or self.colours is not None
        parts = ("",) if is_one_file else channel_parts(self.images.names)
        return FileNames(self.images.cell_ids, SUFFIXES[self.options.format], parts)

    def export(self) -> FilesExport | ShardsExport:
        """Return what writes the files; for limits of intensities, reads some of the images."""
        if isinstance(self.names, FileNames):
            return FilesExport(self.images, self.names, self._encoder())
        return ShardsExport(self.images, int(self._cells_per_shard or 1))

    def _encoder(self) -> Encoder:
        images, kind = self.images, self.options.format
        if kind == "png":
            shown = intensities_of(images.look, images.rows, images.planes, self.options.scale)
            return PngEncoder(images.look.scaled, shown, self.colours)
        if kind == "npy":
            return encode_npy
        return TiffEncoder(images.names, pixel_size_of(self.crops), is_ome=kind == "ome-tiff")


def _in_hex(colours: NDArray[np.float32]) -> str:
    levels = np.rint(colours * 255).astype(int)
    return ", ".join("#{:02x}{:02x}{:02x}".format(*colour) for colour in levels.tolist())
