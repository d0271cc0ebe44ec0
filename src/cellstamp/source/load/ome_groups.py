"""Open groups of OME-Zarr metadata, in folders or behind URLs, without reading their pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import zarr

from cellstamp.errors import InputError
from cellstamp.location import below
from cellstamp.source import ome
from cellstamp.source.load.pixels import Pixels, as_pixels, without_axes
from cellstamp.source.load.stacks import Stack, letters, named_along
from cellstamp.warnings import warn


def open_group(group: Path | str, axes: Sequence[str]) -> tuple[Pixels, list[str]]:
    """Open the full-resolution array of an OME-Zarr group, with these axes only.

    Returns
    -------
    tuple
        The pixels, and the names of the channels; [] if the metadata has none.

    Raises
    ------
    InputError
        If the group is not OME-Zarr, or has other axes with more than one position.
    """
    pixels, found, names = _open_multiscale(group)
    kept = [axis for axis, name in enumerate(found) if name in axes]
    surplus = [size for axis, size in enumerate(pixels.shape) if axis not in kept]
    if any(size != 1 for size in surplus) or found[-2:] != ["y", "x"]:
        raise InputError(f"{group}: has the axes {', '.join(found)} {pixels.shape}; must have {', '.join(axes)}")
    return without_axes(pixels, kept), names


def open_stack(group: Path | str) -> Stack:
    """Open the full-resolution array of an OME-Zarr group with all its axes.

    Raises
    ------
    InputError
        If the group is not OME-Zarr.
    """
    pixels, found, names = _open_multiscale(group)
    axes = letters(found)
    return Stack(pixels, axes, named_along(axes, pixels.shape, "c", names))


def _open_multiscale(group: Path | str) -> tuple[Pixels, list[str], list[str]]:
    """Return pixels, axes, and names of channels."""
    metadata, multiscale = ome.multiscale_of(group)
    path = below(group, multiscale["datasets"][0]["path"])
    try:
        pixels = as_pixels(zarr.open_array(str(path), mode="r"))
    except (FileNotFoundError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a zarr array: {error}") from error
    found = ome.axes_of(multiscale)
    if len(found) != len(pixels.shape):
        raise InputError(
            f"{group}: the metadata has the axes {', '.join(found)}, but the array has the shape {pixels.shape}"
        )
    n_channels = dict(zip(found, pixels.shape, strict=True)).get("c", 1)
    return pixels, found, _channel_names(group, metadata, n_channels)


def _channel_names(group: Path | str, metadata: Mapping[str, Any], n_channels: int) -> list[str]:
    """Return the names of the channels, "" for a channel without one; [] if their number is wrong."""
    labels = [channel.get("label") for channel in ome.described_channels(metadata)]
    names = ["" if label is None else str(label) for label in labels]
    if not any(names) or len(names) == n_channels:
        return names
    warn(
        f"{group}: the metadata names {len(names)} channels ({', '.join(names)}), but there are {n_channels}. "
        "These names are ignored"
    )
    return []
