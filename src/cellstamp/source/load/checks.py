"""Check an image and masks before they are written to a project's store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import InputError, OutputError
from cellstamp.source.find.placement import are_proportional
from cellstamp.source.load.pixels import Pixels
from cellstamp.source.values import Centers
from cellstamp.warnings import warn


def check_free(store: Path, elements: Sequence[str], *, overwrite: bool) -> None:
    """Refuse to replace elements of the store unless that is wanted.

    Raises
    ------
    OutputError
        If some of the elements exist; the message names them.
    """
    taken = [element for element in elements if (store / element).exists()]
    if taken and not overwrite:
        exist, them = ("exists", "it") if len(taken) == 1 else ("exist", "them")
        raise OutputError(f"{store}: {', '.join(taken)} already {exist}. Set overwrite=True to replace {them}.")


def check_names(store: Path, element: str, stored: Sequence[str] | None, names: Sequence[str]) -> None:
    """Refuse to replace an image from which only the names of the channels differ.

    Raises
    ------
    OutputError
        If the store has the same pixels under the names `stored`; None: it has other pixels, or no image.
    """
    if stored is not None:
        raise OutputError(
            f"{store}: {element} already exists with the same pixels, but its channels are named {', '.join(stored)}, "
            f"not {', '.join(names)}. Set overwrite=True to rename them, or load it with the old names."
        )


def channel_names_for(
    n_channels: int, names: Sequence[str | int] | None, known: Sequence[str] | None = None
) -> list[str]:
    """Return the names of an image's channels: given ones, else known ones, else ``channel_0``, ``channel_1``, ...

    Repeated known names are numbered (``DAPI``, ``DAPI_2``).

    Raises
    ------
    InputError
        If given names are not one for each channel, or a name is empty or repeated.
    """
    if names is None:
        return _distinct(known if known is not None and len(known) == n_channels else [""] * n_channels)
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise InputError(f"channel_names = {names!r}: must be a list of names, one for each channel")
    texts = [str(name) for name in names]
    if len(texts) != n_channels:
        given, needed = _counted(len(texts), "name"), _counted(n_channels, "channel")
        raise InputError(f"channel_names: {given} ({', '.join(texts)}) for {needed}")
    twice = sorted({text for text in texts if texts.count(text) > 1})
    if twice or not all(text.strip() for text in texts):
        problem = f"{', '.join(twice)} more than once" if twice else "an empty name"
        raise InputError(f"channel_names: {', '.join(texts)}: {problem}; each channel needs a unique name")
    return texts


def _distinct(names: Sequence[str]) -> list[str]:
    """Number repeated names (DAPI of each cycle), and channels without a name."""
    found: list[str] = []
    for index, name in enumerate(names):
        wanted = name or f"channel_{index}"
        numbered = (f"{wanted}_{number}" for number in count(2))
        found.append(wanted if wanted not in found else next(other for other in numbered if other not in found))
    return found


def _counted(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def check_remap(remap: Sequence[int], n_channels: int) -> list[int]:
    """Return a new order of channels as a list.

    Raises
    ------
    InputError
        If it does not name each channel once.
    """
    order = list(remap) if isinstance(remap, Iterable) else [remap]
    if sorted(order) != list(range(n_channels)):
        raise InputError(
            f"remap = {order}: must hold each of the channels 0 to {n_channels - 1} once, in the new order"
        )
    return order


def check_image(image: Pixels) -> None:
    """Refuse an image without pixels.

    Raises
    ------
    InputError
        If one of its sides is 0.
    """
    if 0 in image.shape:
        raise InputError(f"image of shape {image.shape} (c, y, x): it has no pixels")


def without_float16(image: Pixels) -> Pixels:
    """Return a float16 image as float32, with the same values, because extractions can't read float16.

    Warns
    -----
    UserWarning
        If it holds float16.
    """
    if image.dtype != np.float16:
        return image
    warn("image of dtype float16 is loaded as float32: the same values")
    dtype = np.dtype(np.float32)
    return replace(image, dtype=dtype, read=lambda region: image.read(region).astype(dtype))


def check_alike(files: Mapping[Path, Pixels]) -> None:
    """Refuse files that can't be the channels of one image.

    Raises
    ------
    InputError
        If they differ in size or dtype.
    """
    known = iter(files.items())
    first_path, first = next(known, (None, None))
    for path, pixels in known:
        if first is not None and (pixels.shape[-2:], pixels.dtype) != (first.shape[-2:], first.dtype):
            raise InputError(
                f"{path}: {pixels.shape[-2:]} pixels (y, x) of {pixels.dtype}, but {first_path} has "
                f"{first.shape[-2:]} of {first.dtype}: all channels must have the same size and dtype"
            )


def check_mask(mask: Pixels, name: str, image_shape: Sequence[int]) -> None:
    """Refuse a mask that is not one of this image.

    Parameters
    ----------
    mask
        The mask.
    name
        Name of the mask for messages.
    image_shape
        (c, y, x) of the image.

    Raises
    ------
    InputError
        If it is not 2-D, not of an integer type, or not of the image's size. Negative ids raise when they are read.
    """
    if len(mask.shape) != 2:
        raise InputError(f"{name} mask of shape {mask.shape}: must be 2-D (y, x)")
    check_mask_type(mask.dtype, name)
    if tuple(mask.shape) != tuple(image_shape[-2:]):
        raise InputError(
            f"{name} mask is {mask.shape[0]} x {mask.shape[1]} pixels (y, x), the image {image_shape[-2]} x "
            f"{image_shape[-1]}: they must have the same size. {_fix_of_size(mask.shape, image_shape[-2:])}"
        )


def _fix_of_size(mask: Sequence[int], image: Sequence[int]) -> str:
    """Return how to give a mask the size of the image; both sizes are (y, x)."""
    height, width = image
    if tuple(mask) == (width, height):
        return "It is transposed: give `mask.T`"
    is_cropped = 0 in mask or 0.9 < mask[0] / height < 1.1
    if is_cropped or not are_proportional(image, mask):
        return "Crop image and mask to the same region, or resample the mask without interpolation"
    resize = f"skimage.transform.resize(mask, ({height}, {width}), order=0, preserve_range=True, anti_aliasing=False)"
    return f"If both show the same field of view: give `{resize}.astype(mask.dtype)`"


def check_mask_type(dtype: np.dtype[Any], name: str) -> None:
    """Refuse a mask that is not of an integer type.

    Raises
    ------
    InputError
        If the type is wrong; names the type found.
    """
    if dtype.kind not in "ui":
        is_boolean = dtype.kind == "b"
        fix = ". Number its connected components and load the result: skimage.measure.label(mask)" if is_boolean else ""
        raise InputError(
            f"{name} mask of dtype {dtype}: must hold integers, 0 for background and a cell's id in it{fix}"
        )


def warn_of_no_cells(centers: Mapping[str, Centers]) -> None:
    """Warn about masks that are background only.

    Parameters
    ----------
    centers
        Element of a mask -> its cells.

    Warns
    -----
    UserWarning
        If a mask has no cell.
    """
    for element, cells in centers.items():
        if not len(cells):
            warn(f"{element.removeprefix('labels/')} holds no cell: all of the mask is 0, which is background")


def warn_of_shared_ids(centers: Mapping[str, Centers]) -> None:
    """Warn about masks in which one id seems to stand for many cells.

    Parameters
    ----------
    centers
        Element of a mask -> its cells.

    Warns
    -----
    UserWarning
        If there is evidence; the message says how to number the cells.
    """
    for element, cells in centers.items():
        if cells.shared is not None:
            warn(cells.shared.message(element.removeprefix("labels/")))


def check_same_cells(centers: Mapping[str, Centers]) -> None:
    """Compare the ids of two masks.

    Parameters
    ----------
    centers
        Element of a mask -> its cells.

    Raises
    ------
    InputError
        If each mask has cells that the other one lacks.

    Warns
    -----
    UserWarning
        If one mask has cells that the other one lacks.
    """
    if len(centers) < 2:
        return
    (first, a), (second, b) = ((element.removeprefix("labels/"), cells) for element, cells in centers.items())
    only_first, only_second = _missing(a, b), _missing(b, a)
    if only_first.size and only_second.size:
        raise InputError(
            f"{first} and {second} do not belong together: {_some(only_first)} only in {first}, {_some(only_second)} "
            f"only in {second}; a cell must have the same id in both masks. If the masks were made separately, "
            "cellstamp.match_masks gives each nucleus the id of its cell"
        )
    for ids, mask, other in ((only_first, first, second), (only_second, second, first)):
        if ids.size:
            warn(f"{other} lacks {_some(ids)} that {mask} has: its cells are a subset")


def _missing(cells: Centers, other: Centers) -> NDArray[np.uint64]:
    return np.setdiff1d(cells.ids, other.ids, assume_unique=True)


def _some(ids: NDArray[np.uint64]) -> str:
    shown = ", ".join(map(str, ids[:3].tolist()))
    return f"{_counted(ids.size, 'cell')} ({shown}{', ...' if ids.size > 3 else ''})"
