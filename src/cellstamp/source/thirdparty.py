"""What other libraries say while they work for us and that says nothing to our user, kept from them by its wording."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# (start of the message as a regular expression, what says it)
_KNOWN = (
    r"Call to deprecated class Scaler",  # ome_zarr: a default argument of its own functions
    r"Consolidated metadata is currently not part",  # zarr: SpatialData stores have it all the same
    r".*[Aa]utomatic(ally)? shard(ing)?",  # zarr 3: what "auto" shards may become
    r"The inplace keyword in DataFrame",  # pandas 4, about dask's own calls
    r"The default dtype for empty Series will be",  # pandas, about dask's own calls
)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the known warnings and log lines of other libraries from the user; everything else passes."""
    logger = logging.getLogger("ome_zarr.reader")
    logger.addFilter(_not_about_parents)
    try:
        with warnings.catch_warnings():
            for message in _KNOWN:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        logger.removeFilter(_not_about_parents)


def _not_about_parents(record: logging.LogRecord) -> bool:
    """Labels on their own are what SpatialData stores; ome_zarr looks for an image they belong to."""
    return not record.getMessage().startswith("no parent found")
