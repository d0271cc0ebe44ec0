"""Choose how pixels become values from 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cellstamp.config import ExtractionConfig
from cellstamp.config_rules import DEFAULT_RANGE
from cellstamp.errors import ConfigError
from cellstamp.similar_names import did_you_mean
from cellstamp.source.read.arrays import PixelSource
from cellstamp.source.read.intensities import Run, channel_quantiles

Pairs = tuple[tuple[float, float], ...]

_NOT_COMPARABLE = (
    "Intensities are scaled per cell and channel: they are not comparable between cells. To compare cells, set "
    "normalization_scope to 'image', or normalize_output to False"
)


@dataclass(frozen=True)
class Scaling:
    """Values that become 0 and 1.

    Attributes
    ----------
    quantiles
        Lower and upper quantile of each channel; None without normalisation.
    limits
        Pair for each channel that becomes 0 and 1: quantiles of each cell, or values.
    per_cell
        Whether ``limits`` are quantiles.
    brightest
        Maximum valid value of a pixel of each channel.
    """

    quantiles: Pairs | None
    limits: Pairs
    per_cell: bool
    brightest: tuple[float, ...]

    @property
    def meaning(self) -> str:
        """Return in words how intensities are scaled, and whether they compare between cells."""
        if self.per_cell:
            return "scaled per cell and channel: not comparable between cells"
        if self.quantiles is not None:
            return "scaled per channel of the image: comparable between cells of this image"
        largest = dict.fromkeys(self.brightest)
        how = " or ".join(
            "as in the image" if value in (1, math.inf) else f"divided by {value:.0f}" for value in largest
        )
        return f"{how}: comparable between cells and images"


def check_ranges(config: ExtractionConfig, source: PixelSource) -> None:
    """Check that the channels of ``normalization_range`` exist.

    Raises
    ------
    ConfigError
        If some do not; the message names them.
    """
    ranges = config.normalization_range
    unknown = [name for name in ranges if name not in source.channel_names] if isinstance(ranges, dict) else []
    if unknown:
        message = (
            f"normalization_range: no channel named {', '.join(map(repr, unknown))}; the channels are "
            f"{', '.join(source.channel_names)}{did_you_mean(unknown[0], source.channel_names)}"
        )
        raise ConfigError(message)


def find_scaling(config: ExtractionConfig, source: PixelSource, run: Run, *, log: Callable[[object], None]) -> Scaling:
    """Return the scaling of each channel of an image; without single-cell images, pixels stay unchanged.

    Parameters
    ----------
    run
        Applies a callable to every block of the image, for quantiles of the image.
    log
        Called with each line for the log.
    """
    any_value = (math.inf,) * source.image.shape[0]
    if not (config.images and config.normalize_output):
        # each channel has the type of its element; the stack may have a wider one
        largest = tuple(map(_largest, source.image.dtypes)) if config.images else any_value
        return Scaling(None, tuple((0.0, value) for value in largest), per_cell=False, brightest=largest)
    quantiles = _quantiles(config, source)
    if config.normalization_scope == "cell":
        log(_NOT_COMPARABLE)
        return Scaling(quantiles, quantiles, per_cell=True, brightest=any_value)
    limits = tuple(channel_quantiles(source, quantiles, run))
    log({f"0 and 1 of channel {name}": f"{low:g}, {high:g}" for name, (low, high) in _named(source, limits)})
    return Scaling(quantiles, limits, per_cell=False, brightest=any_value)


def _largest(dtype: str) -> float:
    return 1.0 if np.dtype(dtype).kind == "f" else float(np.iinfo(dtype).max)


def _quantiles(config: ExtractionConfig, source: PixelSource) -> Pairs:
    ranges = config.normalization_range
    if isinstance(ranges, dict):
        return tuple(ranges.get(name, DEFAULT_RANGE) for name in source.channel_names)
    return (ranges,) * source.image.shape[0]


def _named(source: PixelSource, limits: Pairs) -> zip[tuple[str, tuple[float, float]]]:
    return zip(source.channel_names, limits, strict=True)
