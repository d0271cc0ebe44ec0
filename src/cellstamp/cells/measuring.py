"""Measure the features of a batch's cells, on the pixels that were read for their crops. This runs in the workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellstamp.cells.batch_reader import planes_of
from cellstamp.cells.crop_settings import WIDER
from cellstamp.cells.kernels.masks import new_mask_scratch
from cellstamp.cells.kernels.measure import find_cell_masks, kinds_of, measure_cells, n_measured, new_scratch
from cellstamp.cells.plan import Batch
from cellstamp.features.choice import FeatureChoice
from cellstamp.features.functions import find_function, in_order, measure_with
from cellstamp.features.texture import measure_texture
from cellstamp.source.read.arrays import PixelSource
from cellstamp.source.read.tiles import Block, TileReader
from cellstamp.source.values import Rect


class Measuring(NamedTuple):
    """What the kernels get and return, see `cellstamp.cells.kernels.measure.measure_cells`."""

    windows: NDArray[np.int64]
    groups: tuple[bool, bool]
    kinds: tuple[bool, bool]
    values: NDArray[np.float64]
    is_cut: NDArray[np.bool_]
    is_empty: NDArray[np.bool_]
    scratch: tuple[Any, ...]

    def of(self, cells: slice) -> tuple[Any, ...]:
        """Return the same for some of the cells, as a plain tuple for the kernels."""
        results = self.values[cells], self.is_cut[cells], self.is_empty[cells]
        return self.windows[cells], self.groups, self.kinds, *results, self.scratch


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
        self._scratch = self._new_scratch(image_size)

    @cached_property
    def _wide_scratch(self) -> _Scratch:
        return self._new_scratch(WIDER * self._size)

    def _new_scratch(self, size: int) -> _Scratch:
        """Allocate working memory for windows of at most ``size`` pixels a side."""
        n_masks, image = self._planes.size, self._source.image
        return _Scratch(new_mask_scratch(n_masks, size), new_scratch(n_masks, image.shape[0], size, image.dtype))

    def start(self, block: Block, batch: Batch) -> Measuring:
        """Return what measures the cells of a batch while they are cut; ``block`` has the pixels of their crops."""
        return self._room(self._crops(batch, 1), block, self._scratch)

    def finish(self, measured: Measuring, block: Block, batch: Batch) -> NDArray[np.float32]:
        """Return the features of a batch that kernels have measured while they cut it; see `measure`."""
        windows = self._windows(batch, 1)
        beyond = np.flatnonzero((windows != self._crops(batch, 1)).any(axis=1))
        if beyond.size:  # in crops, outlines are drawn beyond the image, too
            again = self._measure(block, _members(batch, beyond), windows[beyond], self._scratch)
            measured.values[beyond], measured.is_cut[beyond] = again.values, again.is_cut
        return self._completed(measured, block, batch, windows)

    def measure(self, block: Block, batch: Batch) -> tuple[NDArray[np.float32], Measuring]:
        """Measure the cells of a batch; ``block`` has the pixels of their crops.

        Returns
        -------
        features : numpy.ndarray
            float32 (n_cells, 1 + n_features): whether the cell was measured in part, and its features.
        measured : Measuring
            What the kernels returned.

        Raises
        ------
        InputError
            If a user's function fails, or returns something else than for the first cell.
        """
        windows = self._windows(batch, 1)
        measured = self._measure(block, batch, windows, self._scratch)
        return self._completed(measured, block, batch, windows), measured

    def _completed(
        self, measured: Measuring, block: Block, batch: Batch, windows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return what kernels have measured in windows, with functions, and with cells that these cut off."""
        values = self._with_functions(measured.values, block, batch, windows, self._scratch)
        in_part: NDArray[np.bool_] = np.any(measured.is_cut, axis=1)
        large = np.flatnonzero(in_part)
        if large.size:
            self._measure_widely(block, batch, large, values, in_part)
        return np.column_stack([in_part, values]).astype(np.float32)

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
        top, bottom, left, right = self._windows(_members(batch, large), WIDER).T
        rect = block.rect
        held = (top >= rect.top) & (bottom <= rect.bottom) & (left >= rect.left) & (right <= rect.right)
        for cells, is_held in ((large[held], True), (large[~held], False)):
            if cells.size:
                some = _members(batch, cells)
                pixels = block if is_held else self._read_around(some)
                windows = self._windows(some, WIDER)
                measured = self._measure(pixels, some, windows, self._wide_scratch)
                in_part[cells] = measured.is_cut.any(axis=1)
                values[cells] = self._with_functions(measured.values, pixels, some, windows, self._wide_scratch)

    def _read_around(self, batch: Batch) -> Block:
        """Read the wider windows of all cells of a batch, which are in one tile."""
        top, bottom, left, right = self._windows(batch, WIDER).T
        rect = Rect(int(top.min()), int(bottom.max()), int(left.min()), int(right.max()))
        # a new reader: the other one keeps the pixels of its tile for the next batch
        return self._told_apart(TileReader(self._source, reach=0).read(rect, rect), batch.ids)

    def _room(self, windows: NDArray[np.int64], block: Block, scratch: _Scratch) -> Measuring:
        """Return the arguments of the kernels, with room for their results."""
        n_cells = len(windows)
        values, is_cut = np.empty((n_cells, self._n_declared)), np.empty((n_cells, self._planes.size), np.bool_)
        is_empty = np.empty_like(is_cut)
        where = self._in_block(windows, block)
        return Measuring(where, *self._groups, values, is_cut, is_empty, scratch.of_features)

    def _measure(self, block: Block, batch: Batch, windows: NDArray[np.int64], scratch: _Scratch) -> Measuring:
        """Find and measure cells in windows."""
        measuring, ids = self._room(windows, block, scratch), batch.ids.astype(block.labels.dtype)
        everything = measuring.of(slice(None))
        measure_cells(block.labels, block.image, ids, self._outlines(block, batch), everything, scratch.of_masks)
        return measuring

    def _with_functions(
        self, declared: NDArray[np.float64], block: Block, batch: Batch, windows: NDArray[np.int64], scratch: _Scratch
    ) -> NDArray[np.float64]:
        """Return the features of kernels, and with them those of textures and functions, in windows."""
        if not (self._functions or self._choice.textures):
            return declared
        every = zip(batch.ids.tolist(), self._results(block, batch, windows, scratch), strict=True)
        own = [self._values_of(cell, results) for cell, results in every]
        return np.column_stack([declared, np.array(own, np.float64).reshape(len(batch), -1)])

    def _values_of(self, cell: int, results: tuple[list[float], list[Any]] | None) -> list[float]:
        """Return the textures of a cell, and the values of all functions; NaN if it has no pixels."""
        names = self._choice.names
        if results is None:
            return [np.nan] * (len(self._choice.features) - self._n_declared)
        textures, of_functions = results
        every = zip(self._functions, of_functions, names, strict=True)
        return [*textures, *(value for (path, _), own, known in every for value in in_order(path, own, known, cell))]

    def _results(
        self, block: Block, batch: Batch, windows: NDArray[np.int64], scratch: _Scratch
    ) -> Iterator[tuple[list[float], list[Any]] | None]:
        """Yield the textures of each cell, and the results of all functions; None for a cell without pixels."""
        masks, boxes, in_block = scratch.of_masks[0], scratch.of_features[0], self._in_block(windows, block)
        for number, cell in enumerate(batch.ids.tolist()):
            one, window = batch[number : number + 1], in_block[number : number + 1]
            ids = one.ids.astype(block.labels.dtype)
            find_cell_masks(block.labels, ids, window, self._outlines(block, one), boxes, scratch.of_masks)
            filled = boxes[boxes[:, 1] > 0]
            if not filled.size:
                yield None
                continue
            (top, left), (bottom, right) = filled[:, ::2].min(axis=0), filled[:, 1::2].max(axis=0)
            own = masks[:, top:bottom, left:right].astype(np.bool_)
            y, x = in_block[number, :2]
            image = block.image[:, y + top : y + bottom, x + left : x + right]
            textures = measure_texture(own, image) if self._choice.textures else []
            # copies: a function may change its arguments
            yield (
                textures,
                [measure_with(path, function, own.copy(), image.copy(), cell) for path, function in self._functions],
            )

    def _outlines(self, block: Block, batch: Batch) -> tuple[Any, ...]:
        return self._planes, np.array([block.rect.top, block.rect.left]), batch.outlines.outlines().arrays

    def _windows(self, batch: Batch, wider: int) -> NDArray[np.int64]:
        """Return the windows of cells inside the image, int64 (n, 4): top, bottom, left, right."""
        height, width = self._source.shape
        crops: NDArray[np.int64] = self._crops(batch, wider).clip(0, [height, height, width, width])
        return crops

    def _crops(self, batch: Batch, wider: int) -> NDArray[np.int64]:
        """Return the same windows with what lies beyond the image."""
        margin, side = (wider - 1) // 2 * self._size, wider * self._size
        top, left = batch.tops.astype(np.int64) - margin, batch.lefts.astype(np.int64) - margin
        return np.stack([top, top + side, left, left + side], axis=1)

    def _in_block(self, windows: NDArray[np.int64], block: Block) -> NDArray[np.int64]:
        """Return windows in a block, for the kernels."""
        height, width = self._source.shape
        top, bottom, left, right = windows.T
        own = (top - block.rect.top, left - block.rect.left, bottom - top, right - left)
        return np.stack([*own, top > 0, bottom < height, left > 0, right < width], axis=1)


class _Scratch(NamedTuple):
    """Working memory of the kernels that find masks, and of those that measure them."""

    of_masks: tuple[Any, ...]
    of_features: tuple[Any, ...]


def _members(batch: Batch, cells: NDArray[np.int64]) -> Batch:
    is_member = np.zeros(len(batch), np.bool_)
    is_member[cells] = True
    return batch[is_member]
