"""Load each kind of input into a project's store: arrays, files, OME-Zarr, masks."""

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
from cellstamp.source.load.ome_groups import open_stack
from cellstamp.source.load.omezarr import find_image, is_folder, open_labels
from cellstamp.source.load.pixels import Pixels, cropped, stack
from cellstamp.source.load.plane_choice import PlaneChoice, chosen
from cellstamp.source.load.polygon_files import is_polygon_file, read_polygon_file
from cellstamp.source.load.polygons import PolygonOptions, Polygons, cells_of_frame, is_frame
from cellstamp.source.load.tiff import TiffChoice, check_one_plane, open_tiffs
from cellstamp.source.load.tiff_pixel_size import tiff_pixel_size
from cellstamp.source.ome import read_attributes
from cellstamp.source.pixel_size import stored_pixel_size
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
) -> bool:
    """Load an image from a numpy, zarr, dask or xarray array; see `cellstamp.source.load.store.load_image`.

    Raises
    ------
    InputError
        If the axes are not (c, y, x) or (y, x), and `axes` and `planes` don't name them and choose planes.
    """
    planes = planes or PlaneChoice()
    image = chosen(array_stack(array, axes, planes), planes, "image")
    return stores.load_image(
        store, image, channel_names=channel_names, known_names=image.names, overwrite=overwrite, remap=remap
    )


def from_tiffs(
    store: Path,
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    channel_names: Sequence[str | int] | None = None,
    crop: Sequence[Any] | None = None,
    overwrite: bool = False,
    remap: Sequence[int] | None = None,
    choice: TiffChoice | None = None,
) -> bool:
    """Load an image from files: TIFF, PNG, BMP, JPEG or ``.npy``. Their channels are joined in the order of the files.

    Raises
    ------
    InputError
        If there is no file, a file cannot be read, files differ in size or dtype, or `crop` is outside the image.
    """
    listed = listed_paths(paths)
    _check_different(listed)
    with open_tiffs(listed, choice) as planes:
        image, known = stack(planes), _names(planes)
        pixel_size = tiff_pixel_size(listed, None if choice is None else choice.series, image.shape[-2:])
        if crop is not None:
            image = cropped(image, _window(crop, image.shape))
        return stores.load_image(
            store,
            image,
            channel_names=channel_names,
            known_names=known,
            overwrite=overwrite,
            remap=remap,
            pixel_size=pixel_size,
        )


def listed_paths(paths: Any) -> list[str]:
    """Return one path or several as a list of text.

    Raises
    ------
    InputError
        If there is no path, or something that is not a path.
    """
    listed = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    if not (isinstance(listed, Sequence) and listed and all(isinstance(path, (str, os.PathLike)) for path in listed)):
        raise InputError(f"file_paths = {paths!r}: must be the path of an image file, or a list of paths")
    return [os.fspath(path) for path in listed]


def _check_different(paths: Sequence[str]) -> None:
    """Refuse a file that is listed twice, also under two names: its channels would come twice."""
    known: dict[str, str] = {}
    for path in paths:
        real = os.path.realpath(path)
        if real in known:
            raise InputError(f"file_paths: {path} and {known[real]} are the same file. Give each file once")
        known[real] = path


def _names(planes: Sequence[Pixels]) -> list[str]:
    """Return the names of the channels of all files; "" for a channel without one."""
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
    """Return first pixel and end along one axis, from a pair or from a slice without a step.

    Raises
    ------
    TypeError, ValueError
        If it is neither, or not in whole pixels.
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
) -> bool:
    """Load the full-resolution level of an OME-Zarr image; see `cellstamp.source.load.omezarr.find_image`.

    Raises
    ------
    InputError
        If there is no image, or more than one.
    """
    group = find_image(path)
    image = chosen(open_stack(group), planes or PlaneChoice(), os.fspath(path))
    return stores.load_image(
        store,
        image,
        channel_names=channel_names,
        known_names=image.names,
        overwrite=overwrite,
        remap=remap,
        pixel_size=stored_pixel_size(read_attributes(group)),
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
        If a mask lacks the chosen plane or image, or no mask is polygons and there are options for them.
    """
    choice, options = choice or TiffChoice(), polygons or PolygonOptions()
    with ExitStack() as files:
        opened = {kind: _opened(mask, kind, files, choice, options) for kind, mask in masks.items()}
        if masks and options.given and not any(isinstance(mask, Polygons) for mask in opened.values()):
            raise InputError("pixel_size, transform and ids are for polygons, but no mask is polygons. Leave them out")
        return stores.load_masks(store, opened, overwrite=overwrite, run=run, log=log)


def _opened(mask: Any, kind: str, files: ExitStack, choice: TiffChoice, options: PolygonOptions) -> Any:
    """Open a mask: a path with the reader for its content, or the chosen plane of an array."""
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
    """Open the plane of a TIFF file; `open_mask_file` raises the error for colours."""
    pixels = files.enter_context(open_tiffs([path], choice))[0]
    if pixels.names[:3] != ("red", "green", "blue"):
        check_one_plane(path, pixels)
    return pixels
