"""TIFF files -> pixels that are read block by block."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile
import zarr

from cellstamp.errors import InputError
from cellstamp.source.pixels import Pixels, arranged, as_pixels, without_axes

# Axes that hold the channels of one image, by tifffile's letters: channel, image of a series, unknown, sample.
_CHANNEL_AXES = "CIQS"
_COLOURS = ("red", "green", "blue", "alpha")


@contextmanager
def open_tiffs(paths: Sequence[str | os.PathLike[str]]) -> Iterator[list[Pixels]]:
    """Open TIFF files, and keep them open while the block runs: pixels are read from them on demand.

    Yields
    ------
    list of Pixels
        Of each file the first series: (y, x), or (c, y, x) when it holds several channels, or colours.

    Raises
    ------
    InputError
        When a file is missing, is no TIFF, or holds something else than planes of numbers.
    """
    with ExitStack() as stack:
        yield [_open(Path(path), stack) for path in paths]


def _open(path: Path, stack: ExitStack) -> Pixels:
    try:
        file = stack.enter_context(tifffile.TiffFile(path))
        series = file.series[0]
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file") from error
    except (tifffile.TiffFileError, OSError, IndexError) as error:
        raise InputError(f"{path}: cannot be read as TIFF: {error}") from error
    kept = [axis for axis, size in enumerate(series.shape) if series.axes[axis] in "YX" or size > 1]
    axes = "".join(series.axes[axis] for axis in kept)
    pixels = without_axes(_pixels(path, series, stack), kept)
    if axes == "YXS":  # each pixel's colours beside each other
        pixels, axes = arranged(pixels, (2, 0, 1)), "SYX"
    if axes[-2:] != "YX" or axes[:-2] not in ("", *_CHANNEL_AXES):
        raise InputError(
            f"{path}: its axes are {series.axes} {series.shape}; must be one plane (YX), channels of one (CYX) or "
            "colours (YXS): save each channel as its own file"
        )
    return replace(pixels, names=_colours(series, pixels.shape[0])) if axes == "SYX" else pixels


def _colours(series: tifffile.TiffPageSeries, n_samples: int) -> tuple[str, ...]:
    """Names of the samples of a pixel, if they are colours: the eye's three, and how opaque they are."""
    photometric = getattr(series.keyframe, "photometric", None)
    is_colour = photometric in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR) and n_samples in (3, 4)
    return _COLOURS[:n_samples] if is_colour else ()


def _pixels(path: Path, series: tifffile.TiffPageSeries, stack: ExitStack) -> Pixels:
    if series.dataoffset is not None and series.dtype is not None:
        # Uncompressed and in one piece: tifffile would read a page at once, a memory map reads what is asked for.
        order = series.parent.byteorder if series.parent is not None else "="
        dtype = series.dtype.newbyteorder(order)
        return as_pixels(np.memmap(path, dtype, "r", offset=series.dataoffset, shape=tuple(series.shape)))
    store = stack.enter_context(series.aszarr(level=0))
    return as_pixels(zarr.open_array(store, mode="r"))
