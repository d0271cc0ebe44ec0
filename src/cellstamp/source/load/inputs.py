"""Each kind of input a project can be loaded from -> its store."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cellstamp.errors import InputError
from cellstamp.source.load import store as stores
from cellstamp.source.load.array_axes import array_stack, mask_plane
from cellstamp.source.load.file_kinds import kind_of_file
from cellstamp.source.load.mask_files import open_mask_file
from cellstamp.source.load.mask_values import as_ids
from cellstamp.source.load.omezarr import find_image, is_folder, open_labels
from cellstamp.source.load.pixels import Pixels, cropped, stack
from cellstamp.source.load.plane_choice import PlaneChoice, chosen
from cellstamp.source.load.polygon_files import is_polygon_file, read_polygon_file
from cellstamp.source.load.polygons import PolygonOptions, Polygons, cells_of_frame, is_frame
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
    planes = planes or PlaneChoice()
    image = chosen(array_stack(array, axes, planes), planes, "image")
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
    _check_different(paths)
    with open_tiffs(paths, choice) as planes:
        image, known = stack(planes), _names(planes)
        if crop is not None:
            image = cropped(image, _window(crop, image.shape))
        stores.load_image(
            store, image, channel_names=channel_names, known_names=known, overwrite=overwrite, remap=remap
        )


def _check_different(paths: Sequence[str | os.PathLike[str]]) -> None:
    """Refuse a list that holds a file twice, under whatever name: its channels would be there twice."""
    known: dict[str, str] = {}
    for path in [os.fspath(each) for each in paths]:
        if (first := known.setdefault(os.path.realpath(path), path)) is not path:
            raise InputError(f"file_paths: {path} and {first} are the same file. Give each file once")


def _names(planes: Sequence[Pixels]) -> list[str]:
    """Names of the channels of all files; "" for what has none."""
    return [name for plane in planes for name in plane.names or [""] * (1 if len(plane.shape) == 2 else plane.shape[0])]


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
    polygons: PolygonOptions | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, Centers]:
    """Load masks from arrays, polygons, files or OME-Zarr labels; see `cellstamp.source.load.store.load_masks`.

    Raises
    ------
    InputError
        When a mask lacks the axis or the image that is chosen, or no mask is polygons and there are options for them.
    """
    choice, options = choice or TiffChoice(), polygons or PolygonOptions()
    with ExitStack() as files:
        opened = {kind: _opened(mask, kind, files, choice, options) for kind, mask in masks.items()}
        if masks and options.given and not any(isinstance(mask, Polygons) for mask in opened.values()):
            raise InputError("pixel_size, transform and ids are for polygons, but no mask is polygons. Leave them out")
        return stores.load_masks(store, opened, overwrite=overwrite, run=run, log=log)


def _opened(mask: Any, kind: str, files: ExitStack, choice: TiffChoice, options: PolygonOptions) -> Any:
    """A mask that is given by its path, opened by a reader for what the path holds; the chosen plane of an array."""
    name = f"{kind} mask"
    if is_frame(mask):
        return cells_of_frame(mask, name, options)
    if not isinstance(mask, (str, os.PathLike)):
        _check_one_image(name, choice)
        plane = mask_plane(mask, name, choice.planes)
        return as_ids(plane, name) if isinstance(plane, Pixels) else plane
    name = f"{name} {os.fspath(mask)}"
    if is_folder(mask):
        _check_one_image(name, choice)
        return as_ids(open_labels(mask, choice.planes), name)
    path = Path(mask)
    if is_polygon_file(path):
        return read_polygon_file(path, kind, options)
    file = open_mask_file(path, lambda tiff: _tiff_mask(tiff, files, choice))
    if kind_of_file(path) == "TIFF":
        return as_ids(file.pixels, name, file.code)
    _check_one_image(name, choice)
    return as_ids(mask_plane(file.pixels, name, choice.planes), name, file.code)


def _check_one_image(name: str, choice: TiffChoice) -> None:
    """Refuse an image number for files other than TIFF, which hold one image."""
    if choice.series not in (None, 0):
        raise InputError(
            f"{name}: series = {choice.series}, which chooses an image of a TIFF file; this mask holds one image. "
            "Leave series out"
        )


def _tiff_mask(path: Path, files: ExitStack, choice: TiffChoice) -> Pixels:
    """The plane of a TIFF file; `open_mask_file` explains what to do about colours."""
    pixels = files.enter_context(open_tiffs([path], choice))[0]
    if pixels.names[:3] != ("red", "green", "blue"):
        check_one_plane(path, pixels)
    return pixels
