"""Each kind of input a project can be loaded from -> its store."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from itertools import count
from pathlib import Path
from typing import Any

from cellstamp.errors import InputError
from cellstamp.source.load import store as stores
from cellstamp.source.load.array_axes import array_stack, mask_plane
from cellstamp.source.load.image_files import are_pictures, open_pictures
from cellstamp.source.load.mask_files import open_mask_file
from cellstamp.source.load.mask_values import as_ids
from cellstamp.source.load.omezarr import find_image, is_folder, open_labels
from cellstamp.source.load.pixels import Pixels, cropped, stack
from cellstamp.source.load.plane_choice import PlaneChoice, chosen
from cellstamp.source.load.tiff import TiffChoice, check_one_plane, open_tiffs
from cellstamp.source.read.centers import Run
from cellstamp.source.values import Centers


def from_array(
    store: Path,
    array: Any,
    *,
    channel_names: Sequence[str | int] | None = None,
    overwrite: bool = False,
    remap: Sequence[int] | None = None,
    axes: str | None = None,
    planes: PlaneChoice | None = None,
) -> None:
    """Load an image from a numpy, zarr, dask or xarray array; see `cellstamp.source.load.store.load_image`.

    Raises
    ------
    InputError
        When its axes are not (c, y, x) or (y, x), and `axes` and `planes` don't say what they are and what to take.
    """
    image = chosen(array_stack(array, axes), planes or PlaneChoice(), "image")
    stores.load_image(
        store, image, channel_names=channel_names, known_names=image.names, overwrite=overwrite, remap=remap
    )


def from_tiffs(
    store: Path,
    paths: Sequence[str | os.PathLike[str]],
    *,
    channel_names: Sequence[str | int] | None = None,
    crop: Sequence[Any] | None = None,
    overwrite: bool = False,
    remap: Sequence[int] | None = None,
    choice: TiffChoice | None = None,
) -> None:
    """Load an image from TIFF files, or from pictures, the channels of one after those of another.

    Raises
    ------
    InputError
        When there is no file, one cannot be read, they differ in size or dtype, or `crop` is not inside them.
    """
    listed = isinstance(paths, Sequence) and not isinstance(paths, str)
    if not (listed and paths and all(isinstance(path, (str, os.PathLike)) for path in paths)):
        raise InputError(f"file_paths = {paths!r}: must be a list of TIFF files, one or more")
    with nullcontext(_pictures(paths, choice)) if are_pictures(paths) else open_tiffs(paths, choice) as planes:
        image, known = stack(planes), _names(planes)
        if crop is not None:
            image = cropped(image, _window(crop, image.shape))
        stores.load_image(
            store, image, channel_names=channel_names, known_names=known, overwrite=overwrite, remap=remap
        )


def _pictures(paths: Sequence[str | os.PathLike[str]], choice: TiffChoice | None) -> list[Pixels]:
    if choice not in (None, TiffChoice()):
        raise InputError(
            f"{os.fspath(paths[0])}: z, t and series choose planes of TIFF files, and this is another kind of file. "
            "Load it as an array: load_input_from_array(array, axes='zyx', z=0)"
        )
    return open_pictures(paths)


def _names(planes: Sequence[Pixels]) -> list[str]:
    """Names of the channels of all files, each only once; numbers for what has none."""
    names: list[str] = []
    for plane in planes:
        n_channels = 1 if len(plane.shape) == 2 else plane.shape[0]
        for name in plane.names or [f"channel_{len(names) + index}" for index in range(n_channels)]:
            names.append(_unused(name, names))
    return names


def _unused(name: str, names: Sequence[str]) -> str:
    """A name, with a number when another channel has it (DAPI of each cycle)."""
    numbered = (f"{name}_{number}" for number in count(2))
    return name if name not in names else next(other for other in numbered if other not in names)


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
    planes: PlaneChoice | None = None,
) -> None:
    """Load an image from OME-Zarr, its full-resolution level; see `cellstamp.source.load.omezarr.find_image`.

    Raises
    ------
    InputError
        When there is no such image, or more than one.
    """
    image = chosen(stores.open_stack(find_image(path)), planes or PlaneChoice(), os.fspath(path))
    stores.load_image(
        store, image, channel_names=channel_names, known_names=image.names, overwrite=overwrite, remap=remap
    )


def load_segmentation(
    store: Path,
    masks: Mapping[str, Any],
    *,
    overwrite: bool = False,
    run: Run = map,
    choice: TiffChoice | None = None,
) -> dict[str, Centers]:
    """Load masks from arrays, files or OME-Zarr labels; see `cellstamp.source.load.store.load_masks`.

    Raises
    ------
    InputError
        When planes of a mask are to be joined: it is one plane.
    """
    choice = choice or TiffChoice()
    if isinstance(choice.planes.z, str | tuple):
        raise InputError(f"z = {choice.planes.z!r}: a mask is one plane, so z must be an index")
    with ExitStack() as files:
        opened = {kind: _opened(mask, kind, files, choice) for kind, mask in masks.items()}
        return stores.load_masks(store, opened, overwrite=overwrite, run=run)


def _opened(mask: Any, kind: str, files: ExitStack, choice: TiffChoice) -> Any:
    """A mask that is given by its path, opened by a reader for what the path holds; the chosen plane of an array."""
    name = f"{kind} mask"
    if not isinstance(mask, (str, os.PathLike)):
        plane = mask_plane(mask, name, choice.planes)
        return as_ids(plane, name) if isinstance(plane, Pixels) else plane
    if is_folder(mask):
        return as_ids(open_labels(mask, choice.planes), f"{name} {os.fspath(mask)}")
    path = Path(mask)
    file = open_mask_file(path, lambda tiff: _tiff_mask(tiff, files, choice))
    return as_ids(file.pixels, f"{name} {path}", file.code)


def _tiff_mask(path: Path, files: ExitStack, choice: TiffChoice) -> Pixels:
    """The plane of a TIFF file; `open_mask_file` explains what to do about colours."""
    pixels = files.enter_context(open_tiffs([path], choice))[0]
    if pixels.names[:3] != ("red", "green", "blue"):
        check_one_plane(path, pixels)
    return pixels
