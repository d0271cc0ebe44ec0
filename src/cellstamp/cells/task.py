"""The task of a worker: a batch of cells -> compressed single-cell images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cellstamp.cells.crop_settings import CropSettings
from cellstamp.cells.finished_batch import FinishedBatch
from cellstamp.cells.plan import Batch
from cellstamp.compiling.cache_folders import Types
from cellstamp.source.read.arrays import PixelSource

if TYPE_CHECKING:
    from cellstamp.cells.batch_measurer import BatchMeasurer
    from cellstamp.cells.cutter import StampCutter
    from cellstamp.config_rules import StampType
    from cellstamp.features.choice import FeatureChoice


class MeasuringTypes(NamedTuple):
    """Pixel types that the kernels of features are compiled for, as numpy names them; see `Types`."""

    labels: str
    image: str
    stamps: str
    kind: str = "features"

    def __str__(self) -> str:
        return f"features of {self.labels} masks and a {self.image} image"

    @property
    def of_crops(self) -> Types:
        """Types of the kernels that cut."""
        return Types(self.labels, self.image, self.stamps)


def measuring_types_of(source: PixelSource, dtype: StampType) -> MeasuringTypes:
    """Return the types that the kernels of features are compiled for, for single-cell images of ``dtype``."""
    return MeasuringTypes(*types_of(source, dtype))


def types_of(source: PixelSource, dtype: StampType) -> Types:
    """Return the types that the kernels are compiled for, for single-cell images of ``dtype``."""
    return Types(np.dtype(source.label_dtype).name, np.dtype(source.image.dtype).name, dtype)


class StampTask:
    """Callable that returns the single-cell images of a batch; picklable, with buffers made in each process.

    The payload of a result is valid until the next call.
    """

    _cuts = True

    def __init__(self, source: PixelSource, recipe: CropSettings, features: FeatureChoice | None = None) -> None:
        self._source = source
        self._recipe = recipe
        self._features = features

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments only."""
        return type(self), (self._source, self._recipe, self._features)

    def __call__(self, batch: Batch) -> FinishedBatch:
        """Read, cut and encode a batch."""
        return self._cutter.cut(batch)

    def signature(self) -> tuple[str, ...]:
        """Return samples that identify the image and the masks; copies on other hosts give the same."""
        return tuple(array.sample() for array in self._source.elements)

    def warm_up(self) -> None:
        """Load compiled code, or compile it, before batches are assigned to workers."""
        from cellstamp.cells.load_kernels import load_kernels

        load_kernels(types_of(self._source, self._recipe.dtype))
        if self._features is not None:
            from cellstamp.cells.load_measuring import load_measuring

            load_measuring(measuring_types_of(self._source, self._recipe.dtype), cutting=self._cuts)
        if self._source.loops:
            from cellstamp.source.read.loops import load_loops

            for loops in self._source.loops:
                load_loops(loops)

    @cached_property
    def _cutter(self) -> StampCutter:
        # this import loads compiled code, which only processes that cut cells should pay for
        from cellstamp.cells.cutter import StampCutter

        return StampCutter(self._source, self._recipe, self._features)


class MeasuringTask(StampTask):
    """Callable that returns the features of a batch, without single-cell images."""

    _cuts = False

    def __call__(self, batch: Batch) -> FinishedBatch:
        """Read and measure a batch."""
        return self._measurer.measure(batch)

    @cached_property
    def _measurer(self) -> BatchMeasurer:
        if self._features is None:
            raise ValueError("no features to measure")
        from cellstamp.cells.batch_measurer import BatchMeasurer

        return BatchMeasurer(self._source, self._recipe, self._features)


@dataclass(frozen=True)
class FunctionNames:
    """The names that functions of a user return.

    Attributes
    ----------
    names
        For each function, the names that it returns for the first cell.
    """

    names: tuple[tuple[str, ...], ...]


class NamesTask:
    """Callable that returns the names of features of a user's functions, from the first cell with pixels; picklable."""

    def __init__(self, source: PixelSource, recipe: CropSettings, features: FeatureChoice) -> None:
        self._arguments = source, recipe, features

    def __call__(self, batch: Batch) -> FunctionNames:
        """Measure cells until the names are known."""
        from cellstamp.cells.batch_measurer import BatchMeasurer

        return FunctionNames(BatchMeasurer(*self._arguments).names_of_functions(batch))
