"""Each kind of input a project can be loaded from -> its store."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cellstamp.errors import InputError
from cellstamp.source import store as stores
from cellstamp.source.centers import Run
from cellstamp.source.omezarr import find_image, is_folder, open_labels
from cellstamp.source.pixels import Pixels, cropped, stack
from cellstamp.source.tiff import open_tiffs
from cellstamp.source.values import Centers


def from_array(
    store: Path,
    array: Any,
    *,
    channel_names: Sequence[str | int] | None = None,
    overwrite: bool = False,
    remap: Sequence[int] | None = None,
) -> None:
    """Load an image from a numpy, zarr or dask array; see `cellstamp.source.store.load_image`."""
    stores.load_image(store, array, channel_names=channel_names, overwrite=overwrite, remap=remap)


def from_tiffs(
    store: Path,
    paths: Sequence[str | os.PathLike[str]],
    *,
    channel_names: Sequence[str | int] | None = None,
    crop: Sequence[Any] | None = None,
    overwrite: bool = False,
    remap: Sequence[int] | None = None,
) -> None:
    """Load an image from TIFF files, the channels of one after those of another.

    Raises
    ------
    InputError
        When there is no file, one cannot be read, they differ in size or dtype, or `crop` is not inside them.
    """
    listed = isinstance(paths, Sequence) and not isinstance(paths, str)
    if not (listed and paths and all(isinstance(path, (str, os.PathLike)) for path in paths)):
        raise InputError(f"file_paths = {paths!r}: must be a list of TIFF files, one or more")
    with open_tiffs(paths) as planes:
        _check_alike(paths, planes)
        image, known = stack(planes), _names(planes)
        if crop is not None:
            image = cropped(image, _window(crop, image.shape))
        stores.load_image(
            store, image, channel_names=channel_names, known_names=known, overwrite=overwrite, remap=remap
        )


def _names(planes: Sequence[Pixels]) -> list[str]:
    """Names of the channels of all files: the colours of one, numbers for what has none."""
    names: list[str] = []
    for plane in planes:
        n_channels = 1 if len(plane.shape) == 2 else plane.shape[0]
        names += plane.names or [f"channel_{len(names) + index}" for index in range(n_channels)]
    return names


def _check_alike(paths: Sequence[str | os.PathLike[str]], planes: Sequence[Pixels]) -> None:
    first = planes[0]
    for path, plane in zip(paths, planes, strict=True):
        if (plane.shape[-2:], plane.dtype) != (first.shape[-2:], first.dtype):
            raise InputError(
                f"{os.fspath(path)}: {plane.shape[-2:]} pixels (y, x) of {plane.dtype}, but {os.fspath(paths[0])} has "
                f"{first.shape[-2:]} of {first.dtype}: all channels must have the same size and dtype"
            )


def _window(crop: Sequence[Any], shape: Sequence[int]) -> list[slice]:
    try:
        y, x = [_bounds(part, size) for part, size in zip(crop, shape[-2:], strict=True)]
    except (TypeError, ValueError) as error:
        raise InputError(f"crop = {crop!r}: must be [(y_start, y_stop), (x_start, x_stop)] in whole pixels") from error
    if not all(0 <= start < stop <= size for (start, stop), size in zip((y, x), shape[-2:], strict=True)):
        raise InputError(
            f"crop = {crop!r}: must lie inside the image of {shape[-2]} x {shape[-1]} pixels (y, x), each start "
            "below its stop"
        )
    return [slice(start, stop) for start, stop in (y, x)]


def _bounds(part: Any, size: int) -> tuple[int, int]:
    """First pixel and end along one axis, of a pair or of a slice without a step.

    Raises
    ------
    TypeError, ValueError
        When it is neither, or not in whole pixels.
    """
    if isinstance(part, slice) and part.step not in (None, 1):
        raise ValueError("a crop has no step")
    start, stop = (part.start, part.stop) if isinstance(part, slice) else part
    return 0 if start is None else operator.index(start), size if stop is None else operator.index(stop)


def from_omezarr(
    store: Path,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    channel_names: Sequence[str | int] | None = None,
    remap: Sequence[int] | None = None,
) -> None:
    """Load an image from OME-Zarr, its full-resolution level; see `cellstamp.source.omezarr.find_image`.

    Raises
    ------
    InputError
        When there is no such image, or more than one.
    """
    image, known = stores.open_group(find_image(path), ("c", "y", "x"), any_order=True)
    stores.load_image(store, image, channel_names=channel_names, known_names=known, overwrite=overwrite, remap=remap)


def load_segmentation(
    store: Path, masks: Mapping[str, Any], *, overwrite: bool = False, run: Run = map
) -> dict[str, Centers]:
    """Load masks from arrays, OME-Zarr labels or TIFF files; see `cellstamp.source.store.load_masks`."""
    with ExitStack() as files:
        opened = {kind: _opened(mask, files) for kind, mask in masks.items()}
        return stores.load_masks(store, opened, overwrite=overwrite, run=run)


def _opened(mask: Any, files: ExitStack) -> Any:
    if is_folder(mask):
        return open_labels(mask)
    return files.enter_context(open_tiffs([mask]))[0] if isinstance(mask, (str, os.PathLike)) else mask
