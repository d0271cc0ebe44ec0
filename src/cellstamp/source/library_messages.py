"""Silence known, harmless messages of other libraries."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# beginnings of messages, as regular expressions
_KNOWN = (
    r"Call to deprecated class Scaler",  # ome_zarr: a default argument in ome_zarr
    r"Consolidated metadata is currently not part",  # zarr: SpatialData stores have consolidated metadata anyway
    r"Object at (points|shapes)\.parquet is not recognized",  # zarr: the table of such an element is not in zarr format
    r"SpatialData is not stored in the most current format",  # spatialdata: zarr format 2 is supported here
    r"zarr v3 autosharding will be the default",  # anndata, about tables
    r"The inplace keyword in DataFrame",  # pandas 4, about dask's own calls
    r"The 'mode\.chained_assignment' option is deprecated",  # pandas 4, about anndata's own calls
    r"The 'future\.infer_string' option is deprecated",  # pandas 4, about anndata's own calls
)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the known warnings and log lines of other libraries; all others pass."""
    filters = {"ome_zarr.reader": _not_about_parents, "tifffile": _not_about_missing_planes}
    for name, wanted in filters.items():
        logging.getLogger(name).addFilter(wanted)
    try:
        with warnings.catch_warnings():
            for message in _KNOWN:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for name, wanted in filters.items():
            logging.getLogger(name).removeFilter(wanted)


def _not_about_parents(record: logging.LogRecord) -> bool:
    """Return False for ome_zarr's search for the image of labels: SpatialData stores labels without one."""
    return not record.getMessage().startswith("no parent found")


def _not_about_missing_planes(record: logging.LogRecord) -> bool:
    """Return False for tifffile's messages about incomplete files: cellstamp checks files itself."""
    message = record.getMessage()
    known = ("zeroed", "OME series failed to read", "index out of range", "is missing files")
    return not any(text in message for text in known)
