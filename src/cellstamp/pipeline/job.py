"""Describe an extraction completely, before any pixel of the image is read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp import __version__
from cellstamp.cells.crop_settings import CropSettings
from cellstamp.cells.plan import Batch, ShardBatch, cells_per_batch, in_shards, plan_batches, slide_order, tile_shape
from cellstamp.cells.task import MeasuringTask, StampTask
from cellstamp.compression import OF_ZARR, Codec
from cellstamp.config import ExtractionConfig
from cellstamp.config_rules import CellChoice, FeatureQuery, FileColumn, TableColumn
from cellstamp.features.choice import FeatureChoice
from cellstamp.features.functions import source_digest
from cellstamp.h5sc.feature_table import features_name
from cellstamp.h5sc.layout import FILE_NAME, STORE_NAME, URL_NAME, Layout
from cellstamp.location import Location, location_of
from cellstamp.pipeline.cell_selection import Selection
from cellstamp.pipeline.scaling import Pairs, Scaling
from cellstamp.source.outlines import NO_CELLS, ChosenOutlines, OutlineMask
from cellstamp.source.read.arrays import PixelSource
from cellstamp.source.values import Centers
from cellstamp.zarr_store.layout import ShardedLayout

_OF_IMAGES = (
    "normalize_output",
    "normalization_range",
    "normalization_scope",
    "normalization_limits",
    "apply_masks",
    "dtype",
    "compression",
)
"""Settings that change single-cell images only: features are measured on the pixels of the image."""


@dataclass(frozen=True)
class Job:
    """Complete description of an extraction.

    Attributes
    ----------
    selection
        Cells to extract.
    scaling
        How pixels become values from 0 to 1.
    folder
        Folder of the results.
    measured
        Whether ``image_size`` was ``"auto"``; ``config`` has the measured size.
    features
        Features to measure; None: none.
    """

    config: ExtractionConfig
    source: PixelSource
    selection: Selection
    scaling: Scaling
    folder: Path
    measured: bool = False
    features: FeatureChoice | None = None

    @property
    def cells(self) -> Centers:
        """Return the cells to extract, in the order of the file."""
        return self.selection.cells

    @property
    def recipe(self) -> CropSettings:
        """Return the settings for cutting single-cell images."""
        config, scaling = self.config, self.scaling
        return CropSettings(
            image_size=config.image_size,
            limits=scaling.limits,
            per_cell=scaling.per_cell,
            brightest=scaling.brightest,
            apply_masks=config.apply_masks,
            dtype=config.dtype,
            compression=self._codec,
        )

    def batches(self, budget: int) -> list[Batch] | list[ShardBatch]:
        """Divide the cells into batches that share chunks and fit into ``budget`` bytes of memory."""
        config, source = self.config, self.source
        chunks = [(array.chunks[-2], array.chunks[-1]) for array in source.arrays]
        limit = max(budget // (4 * config.threads), 1)
        layout = self.layout()
        rows_per_shard = layout.rows_per_shard if isinstance(layout, ShardedLayout) else None
        batches = plan_batches(
            self.cells,
            config.image_size,
            source.shape,
            tile=tile_shape(source.shape, chunks, bytes_per_pixel=source.bytes_per_pixel, limit=limit),
            chunk=(max(rows for rows, _ in chunks), max(columns for _, columns in chunks)),
            max_batch_size=cells_per_batch(config.max_batch_size, source.n_planes * self.recipe.plane_bytes),
            margin=config.image_size // 2 if config.border == "pad" else 0,
            outlines=self._outlines(),
            rows_per_shard=rows_per_shard,
        )
        return batches if rows_per_shard is None else in_shards(batches, rows_per_shard)

    def _outlines(self) -> ChosenOutlines:
        """Return the outlines of the cells to extract."""
        masks = self.source.outlines
        if not masks:
            return NO_CELLS
        return ChosenOutlines(masks[0].every, np.stack([mask.numbers_of(self.cells.ids) for mask in masks]))

    def settings(self) -> dict[str, Any]:
        """Return the settings of the result, for the file."""
        config, scaling = self.config, self.scaling
        is_image = config.normalize_output and config.normalization_scope == "image"
        settings = {
            "image_size": config.image_size,
            "normalize_output": config.normalize_output,
            "normalization_range": _in_short(scaling.quantiles),
            "normalization_scope": config.normalization_scope if config.normalize_output else "None",
            "normalization_limits": _in_short(scaling.limits if is_image else None),
            "apply_masks": config.apply_masks,
            "border": config.border,
            "dtype": config.dtype,
            "compression": str(self._codec),
            **({"file_format": "zarr"} if config.file_format == "zarr" else {}),
            **({"output_url": config.output_url} if config.output_url is not None else {}),
            **({} if config.images else {"images": False}),
            **self._pixel_sizes(),
            **self._measured(),
        }
        return {key: value for key, value in settings.items() if config.images or key not in _OF_IMAGES}

    def _measured(self) -> dict[str, Any]:
        """Return the features, and a digest of the source code of each function."""
        if self.features is None:
            return {}
        functions = self.features.functions
        digests = {f"features by {path}": f"a function, digest {source_digest(path)}" for path in functions}
        return {"features": ", ".join([*self.features.groups, *functions]), **digests}

    def _pixel_sizes(self) -> dict[str, Any]:
        """Return the micrometres per pixel of image and crops, if they are known: (y, x)."""
        image, crops = self.source.pixel_size, self.source.crop_pixel_size
        if image is None or crops is None:
            return {}
        return {"image_pixel_size": list(image), "crop_pixel_size": list(crops)}

    def _origin(self) -> dict[str, Any]:
        """Return the names of the input, and what the values mean, for the file."""
        config, source = self.config, self.source
        return {
            **_names_of(config.image_names),
            "masks": list(source.mask_names),
            "coordinate_system": str(config.coordinate_system),
            "channels": list(source.channel_names),
            "cells": _told_cells(config.cells),
            "centers": str(config.centers),
            "image_size_measured": self.measured,
            "intensities": self.scaling.meaning,
        }

    def description(
        self, made_from: dict[str, Any], begun_from: dict[str, Any], n_empty: NDArray[np.int64], n_exceeding: int
    ) -> dict[str, Any]:
        """Return the file's description of itself (``uns/cellstamp``).

        Parameters
        ----------
        made_from, begun_from
            See `cellstamp.pipeline.resume_check`; from before the images were read, so that later changes are noticed.
        n_empty, n_exceeding
            For each mask, the number of cells without a pixel; the number of cells that exceed their crop.
        """
        text = json.dumps(made_from)
        return {
            "version": __version__,
            "made_from": text,
            "begun_from": json.dumps(begun_from),
            "fingerprint": hashlib.sha256(text.encode()).hexdigest(),
            **self.selection.counts(),
            "cells_empty_in_main_mask": int(n_empty[0]),
            "cells_empty_in_cell_mask": int(n_empty[-1]),
            "cells_exceeding_crop": n_exceeding,
            "settings": {**self.settings(), **self._origin()},
        }

    def task(self, planes_per_chunk: int | None = None) -> StampTask:
        """Return the task for a batch, for workers.

        Parameters
        ----------
        planes_per_chunk
            Number of planes in the chunks of the file. None: that of a new file.
        """
        number = planes_per_chunk or self.layout().planes_per_chunk
        task = StampTask if self.config.images else MeasuringTask
        return task(self.source, replace(self.recipe, planes_per_chunk=number), self.features)

    @property
    def file_name(self) -> str:
        """Return the name of the file or store; for a store behind a URL, of the file with its URL."""
        return result_name(self.config) if self.config.output_url is None else URL_NAME

    @property
    def result(self) -> Location:
        """Return the location of the finished file or store."""
        return result_in(self.folder, self.config)

    @property
    def _codec(self) -> Codec | None:
        """Return the codec of the single-cell images."""
        named = self.config.compression
        return named if named is None or self.config.file_format == "h5sc" else OF_ZARR[named]

    def layout(self) -> Layout:
        """Return the layout of the file or store."""
        kind = ShardedLayout if self.config.file_format == "zarr" and self.config.images else Layout
        return kind(
            cell_ids=self.cells.ids,
            centers=self.source.on_image(self.cells.xy),
            mask_names=self.source.mask_names,
            channel_names=self.source.channel_names,
            image_size=self.config.image_size,
            normalization_ranges=self.scaling.quantiles,
            dtype=self.config.dtype,
            compression=self._codec,
            **self._annotated(),
        )

    def _annotated(self) -> dict[str, Any]:
        """Return the shapes that the cells annotate, and their ids there, if the cells are given as shapes."""
        mask = self.source.main_mask
        if not isinstance(mask, OutlineMask):
            return {}
        names = mask.names[np.searchsorted(mask.ids, self.cells.ids)]
        return {"region": self.source.masks[-1].name, "instances": names}


def in_slide_order(cells: Centers, source: PixelSource, image_size: int) -> Centers:
    """Return cells in an order that follows the slide; it depends on nothing but the input and the size of crops."""
    chunks = [(array.chunks[-2], array.chunks[-1]) for array in source.arrays]
    tile = tile_shape(source.shape, chunks, bytes_per_pixel=0, limit=1)
    return cells[slide_order(cells, image_size, source.shape, tile)]


def result_in(folder: Path, config: ExtractionConfig) -> Location:
    """Return the location of the finished file or store for a folder of results."""
    name = result_name(config)
    if config.output_url is None:
        return folder / name
    return location_of(config.output_url) / folder.name / name


def result_name(config: ExtractionConfig) -> str:
    """Return the name of the file or store that an extraction writes: single-cell images, or features only."""
    name = file_name_of(config.file_format)
    return name if config.images else features_name(name)


def file_name_of(file_format: object) -> str:
    """Return the name of the file or store that an extraction writes in this format."""
    return STORE_NAME if file_format == "zarr" else FILE_NAME


def _names_of(images: tuple[str, ...]) -> dict[str, Any]:
    """Return the name of the image with the grid, and the names of all if there are several."""
    return {"image": images[0]} | ({"images": list(images)} if len(images) > 1 else {})


def _told_cells(cells: CellChoice) -> str:
    """Return how cells were selected; their ids are in ``obs``."""
    if isinstance(cells, tuple):
        return f"{len(cells)} ids"
    if isinstance(cells, TableColumn):
        return f"table {cells.table}, column {cells.column}"
    if isinstance(cells, FeatureQuery):
        return f"features {cells.path}, query {cells.query}"
    return str(cells.path if isinstance(cells, FileColumn) else cells)


def _in_short(pairs: Pairs | None) -> Any:
    """Return a list of pairs, one for each channel; a single pair if all are equal."""
    if pairs is None:
        return "None"
    return list(pairs[0]) if len(set(pairs)) == 1 else [list(pair) for pair in pairs]
