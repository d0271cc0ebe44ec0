"""Measure the features of a batch's cells, on the pixels that were read for their crops. This runs in the workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellstamp.cells.batch_reader import planes_of
from cellstamp.cells.kernels.measure import find_cell_masks, kinds_of, measure_cells, n_measured, new_scratch
from cellstamp.cells.plan import Batch
from cellstamp.features.choice import FeatureChoice
from cellstamp.features.functions import find_function, in_order, measure_with
from cellstamp.features.texture import measure_texture
from cellstamp.source.read.arrays import PixelSource
from cellstamp.source.read.tiles import Block, TileReader
from cellstamp.source.values import Rect

_WIDER = 3
"""Side of the window in which a cell that touches the edge of its crop is measured, in crops."""


class Measured(NamedTuple):
    """Measurements of some cells.

    Attributes
    ----------
    features
        float32 (n_cells, 1 + n_features): whether the cell was measured in part, and its features.
    is_cut
        bool (n_cells,): whether a mask touches an edge of the crop beyond which the image continues.
    is_empty
        bool (n_cells, n_masks): whether each mask has no pixel in the crop.
    """

    features: NDArray[np.float32]
    is_cut: NDArray[np.bool_]
    is_empty: NDArray[np.bool_]


class CellMeasurer:
    """Measures one batch after the other in the same memory.

    Parameters
    ----------
    source
        Image and masks.
    image_size
        Side of a crop in pixels.
    choice
        The features.
    told_apart
        `BatchReader.told_apart`, for pixels that are read here.
    """

    def __init__(
        self,
        source: PixelSource,
        image_size: int,
        choice: FeatureChoice,
        told_apart: Callable[[Block, NDArray[np.uint64]], Block],
    ) -> None:
        self._source, self._planes, self._size, self._choice = source, planes_of(source), image_size, choice
        self._told_apart = told_apart
        self._groups = (choice.shapes, choice.intensities), kinds_of(source.image.dtype)
        n_masks, n_channels = len(source.masks), source.image.shape[0]
        self._n_declared = n_measured(n_masks, n_channels, shapes=choice.shapes, intensities=choice.intensities)
        self._functions = [(path, find_function(path)) for path in choice.functions]
        self._scratch = new_scratch(n_masks, image_size, source.image.dtype)

    @cached_property
    def _wide_scratch(self) -> tuple[Any, ...]:
        return new_scratch(len(self._source.masks), _WIDER * self._size, self._source.image.dtype)

    def measure(self, block: Block, batch: Batch, boxes: NDArray[np.int64] | None = None) -> Measured:
        """Measure all cells of a batch.

        Parameters
        ----------
        block
            The pixels of their crops.
        boxes
            int64 (n_cells, >= n_masks, 4): a box in the crop with all pixels of each mask, see
            `cellstamp.cells.kernels.measure.measure_cells`. None: the complete crop.

        Raises
        ------
        InputError
            If a user's function fails, or returns something else than for the first cell.
        """
        windows = self._windows(batch, 1)
        search = _everywhere(windows, self._planes.size) if boxes is None else self._search(windows, batch, boxes)
        values, is_cut, is_empty = self._measure(block, batch, windows, search, self._scratch)
        in_part, large = is_cut.copy(), np.flatnonzero(is_cut)
        if large.size:
            self._measure_widely(block, batch, large, values, in_part)
        return Measured(np.column_stack([in_part, values]).astype(np.float32), is_cut, is_empty)

    def names_of_functions(self, block: Block, batch: Batch) -> tuple[tuple[str, ...], ...]:
        """Return the names that each function returns for the first cell with pixels; empty if no cell has any."""
        windows = self._windows(batch, 1)
        for results in self._results(block, batch, windows, self._scratch):
            if results is not None:
                return tuple(tuple(each) for each in results[1])
        return tuple(() for _ in self._functions)

    def _measure_widely(
        self,
        block: Block,
        batch: Batch,
        large: NDArray[np.int64],
        values: NDArray[np.float64],
        in_part: NDArray[np.bool_],
    ) -> None:
        """Measure cells that touch the edge of their crop again, in wider windows, which are read if necessary."""
        top, bottom, left, right = self._windows(_members(batch, large), _WIDER).T
        rect = block.rect
        held = (top >= rect.top) & (bottom <= rect.bottom) & (left >= rect.left) & (right <= rect.right)
        for cells, is_held in ((large[held], True), (large[~held], False)):
            if cells.size:
                some = _members(batch, cells)
                pixels = block if is_held else self._read_around(some)
                windows = self._windows(some, _WIDER)
                search = _everywhere(windows, self._planes.size)
                values[cells], in_part[cells], _ = self._measure(pixels, some, windows, search, self._wide_scratch)

    def _read_around(self, batch: Batch) -> Block:
        """Read the wider windows of all cells of a batch, which are in one tile."""
        top, bottom, left, right = self._windows(batch, _WIDER).T
        rect = Rect(int(top.min()), int(bottom.max()), int(left.min()), int(right.max()))
        # a new reader: the other one keeps the pixels of its tile for the next batch
        return self._told_apart(TileReader(self._source, reach=0).read(rect, rect), batch.ids)

    def _measure(
        self,
        block: Block,
        batch: Batch,
        windows: NDArray[np.int64],
        search: NDArray[np.int64],
        scratch: tuple[Any, ...],
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Measure cells in windows, of which a part is searched; return values, and which are cut and empty."""
        declared, is_cut = np.empty((len(batch), self._n_declared)), np.empty(len(batch), np.bool_)
        is_empty = np.empty((len(batch), self._planes.size), np.bool_)
        where = self._in_block(windows, block), search, self._outlines(block, batch)
        ids = batch.ids.astype(block.labels.dtype)
        measure_cells(block.labels, block.image, ids, *where, *self._groups, declared, is_cut, is_empty, scratch)
        if not (self._functions or self._choice.textures):
            return declared, is_cut, is_empty
        every = zip(batch.ids.tolist(), self._results(block, batch, windows, scratch), strict=True)
        own = [self._values_of(cell, results) for cell, results in every]
        return np.column_stack([declared, np.array(own, np.float64).reshape(len(batch), -1)]), is_cut, is_empty

    def _values_of(self, cell: int, results: tuple[list[float], list[Any]] | None) -> list[float]:
        """Return the textures of a cell, and the values of all functions; NaN if it has no pixels."""
        names = self._choice.names
        if results is None:
            return [np.nan] * (len(self._choice.features) - self._n_declared)
        textures, of_functions = results
        every = zip(self._functions, of_functions, names, strict=True)
        return [*textures, *(value for (path, _), own, known in every for value in in_order(path, own, known, cell))]

    def _results(
        self, block: Block, batch: Batch, windows: NDArray[np.int64], scratch: tuple[Any, ...]
    ) -> Iterator[tuple[list[float], list[Any]] | None]:
        """Yield the textures of each cell, and the results of all functions; None for a cell without pixels."""
        masks, boxes, in_block = scratch[0], scratch[3], self._in_block(windows, block)
        search = _everywhere(windows, self._planes.size)
        for number, cell in enumerate(batch.ids.tolist()):
            one, window = batch[number : number + 1], in_block[number : number + 1]
            ids = one.ids.astype(block.labels.dtype)
            find_cell_masks(block.labels, ids, window, search[number:], self._outlines(block, one), scratch)
            filled = boxes[boxes[:, 1] > 0]
            if not filled.size:
                yield None
                continue
            (top, left), (bottom, right) = filled[:, ::2].min(axis=0), filled[:, 1::2].max(axis=0)
            own = masks[:, top:bottom, left:right].astype(np.bool_)
            y, x = window[0, :2]
            image = block.image[:, y + top : y + bottom, x + left : x + right]
            textures = measure_texture(own, image) if self._choice.textures else []
            # copies: a function may change its arguments
            yield (
                textures,
                [measure_with(path, function, own.copy(), image.copy(), cell) for path, function in self._functions],
            )

    def _outlines(self, block: Block, batch: Batch) -> tuple[Any, ...]:
        corner = np.array([block.rect.top, block.rect.left])
        return self._planes, corner, batch.outlines.outlines().arrays

    def _windows(self, batch: Batch, wider: int) -> NDArray[np.int64]:
        """Return the windows of cells inside the image, int64 (n, 4): top, bottom, left, right."""
        margin, side = (wider - 1) // 2 * self._size, wider * self._size
        height, width = self._source.shape
        top, left = batch.tops.astype(np.int64) - margin, batch.lefts.astype(np.int64) - margin
        edges = np.maximum(top, 0), np.minimum(top + side, height), np.maximum(left, 0), np.minimum(left + side, width)
        return np.stack(edges, axis=1)

    def _search(self, windows: NDArray[np.int64], batch: Batch, boxes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return boxes in crops as boxes in windows, which begin later at the border of the image."""
        top, left = windows[:, 0] - batch.tops, windows[:, 2] - batch.lefts
        moved: NDArray[np.int64] = boxes[:, : self._planes.size] - np.stack([top, top, left, left], axis=1)[:, None]
        return moved

    def _in_block(self, windows: NDArray[np.int64], block: Block) -> NDArray[np.int64]:
        """Return windows in a block, for the kernels."""
        height, width = self._source.shape
        top, bottom, left, right = windows.T
        own = (top - block.rect.top, left - block.rect.left, bottom - top, right - left)
        return np.stack([*own, top > 0, bottom < height, left > 0, right < width], axis=1)


def _everywhere(windows: NDArray[np.int64], n_masks: int) -> NDArray[np.int64]:
    """Return the boxes of complete windows, for each mask."""
    top, bottom, left, right = windows.T
    nothing = np.zeros_like(top)
    box = np.stack([nothing, bottom - top, nothing, right - left], axis=1)
    return np.repeat(box[:, None], n_masks, axis=1)


def _members(batch: Batch, cells: NDArray[np.int64]) -> Batch:
    is_member = np.zeros(len(batch), np.bool_)
    is_member[cells] = True
    return batch[is_member]
