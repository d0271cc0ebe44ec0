"""cellstamp: single-cell images from a segmented microscopy image."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cellstamp.config import ExtractionConfig
    from cellstamp.errors import CellstampError, ConfigError, InputError, OutputError, WorkerError
    from cellstamp.gallery.browse import browse
    from cellstamp.h5sc.cell_images import cell_images, select_cells
    from cellstamp.h5sc.reader import read_h5sc
    from cellstamp.pipeline.base import Logable, ProcessingStep
    from cellstamp.pipeline.embed import embed as embed
    from cellstamp.pipeline.export import export_cells
    from cellstamp.pipeline.extraction import HDF5CellExtraction
    from cellstamp.pipeline.extraction_plots import plot_cells, plot_removed
    from cellstamp.pipeline.project import Project
    from cellstamp.pipeline.run_report import write_report
    from cellstamp.pipeline.segmentation import ThresholdSegmentation
    from cellstamp.segmentation_config import SegmentationConfig
    from cellstamp.source.load.match_masks import MatchedMasks, match_masks
    from cellstamp.source.load.resample import rasterize_labels
    from cellstamp.training.batches import iter_batches
    from cellstamp.training.torch import SingleCellDataset as SingleCellDataset
    from cellstamp.training.torch import SingleCellSampler as SingleCellSampler

# Without what needs torch: everything here can be imported by all who have cellstamp.
__all__ = [
    "CellstampError",
    "ConfigError",
    "ExtractionConfig",
    "HDF5CellExtraction",
    "InputError",
    "Logable",
    "MatchedMasks",
    "OutputError",
    "ProcessingStep",
    "Project",
    "SegmentationConfig",
    "ThresholdSegmentation",
    "WorkerError",
    "browse",
    "cell_images",
    "export_cells",
    "iter_batches",
    "match_masks",
    "plot_cells",
    "plot_removed",
    "rasterize_labels",
    "read_h5sc",
    "select_cells",
    "write_report",
]

# Imported on first use: what they need takes seconds to import.
_HOMES = {
    "ExtractionConfig": "config",
    "CellstampError": "errors",
    "ConfigError": "errors",
    "InputError": "errors",
    "OutputError": "errors",
    "WorkerError": "errors",
    "browse": "gallery.browse",
    "cell_images": "h5sc.cell_images",
    "embed": "pipeline.embed",
    "export_cells": "pipeline.export",
    "read_h5sc": "h5sc.reader",
    "select_cells": "h5sc.cell_images",
    "Logable": "pipeline.base",
    "ProcessingStep": "pipeline.base",
    "HDF5CellExtraction": "pipeline.extraction",
    "Project": "pipeline.project",
    "SegmentationConfig": "segmentation_config",
    "ThresholdSegmentation": "pipeline.segmentation",
    "SingleCellDataset": "training.torch",
    "SingleCellSampler": "training.torch",
    "iter_batches": "training.batches",
    "plot_cells": "pipeline.extraction_plots",
    "plot_removed": "pipeline.extraction_plots",
    "MatchedMasks": "source.load.match_masks",
    "match_masks": "source.load.match_masks",
    "rasterize_labels": "source.load.resample",
    "write_report": "pipeline.run_report",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    try:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        message = f"{name} needs torch: pip install 'cellstamp[torch]'"
        raise ImportError(message) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_HOMES})
