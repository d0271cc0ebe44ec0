"""Find images and labels in OME-Zarr folders, zip files and URLs.

Layouts: one image (0.1 to 0.5), bioformats2raw's group of images, a plate of wells and fields, a group of labels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import zarr
import zarr.errors

from cellstamp.errors import InputError
from cellstamp.location import below, check_protocol, in_zip, is_remote, reachable
from cellstamp.source import ome
from cellstamp.source.find.masks import listing
from cellstamp.source.load.array_axes import mask_plane
from cellstamp.source.load.ome_groups import open_stack
from cellstamp.source.load.pixels import Pixels, as_pixels
from cellstamp.source.load.plane_choice import PlaneChoice, chosen

_LISTED = 24
"""Number of images or labels that an error lists."""


def find_image(path: str | os.PathLike[str]) -> Path | str:
    """Return the folder or URL of the image at a path: the path itself, or the only image below it.

    Raises
    ------
    InputError
        If there is no image, or more than one; the message lists them.
    """
    where = _location(path)
    with reachable(where):
        found = _images_in(where)
        if len(found) == 1:
            return _as_path(_below(where, found[0]))
        if not found:
            raise InputError(f"{where}: its metadata names no array of an image (OME 'multiscales')")
        raise InputError(_choice(where, found, "images", _names_of_series(where)))


def open_labels(path: str | os.PathLike[str], planes: PlaneChoice) -> Pixels:
    """Open the labels at a path: labels, a group with one label image, or a zarr array.

    Parameters
    ----------
    path
        Folder, URL or zip file.
    planes
        The plane to read from labels with an axis z or t.

    Raises
    ------
    InputError
        If there are no labels or several, or if the path is an image with labels; the message lists them.
    """
    where = _location(path)
    with reachable(where):
        array = _array(where)
        if array is not None:
            plane = mask_plane(array, f"labels in {where}", planes)
            return plane if isinstance(plane, Pixels) else as_pixels(plane)
        attributes = ome.part_of(_attributes(where))
        images = [] if "labels" in attributes else _images_in(where)
        found = [label for image in images or [""] for label in _labels_in(where, image)]
        if "multiscales" in attributes and not found:
            found = [""]
        elif not found:
            raise InputError(f"{where}: there are no labels here (OME 'multiscales' or 'labels')")
        elif len(found) > 1 or "labels" not in attributes:
            raise InputError(_choice(where, found, "labels", {}))
        labels = _below(where, found[0])
        return chosen(open_stack(_as_path(labels)), planes, labels)


def is_folder(path: object) -> bool:
    """Return whether a path is a folder, a URL, or a zip file with zarr in it."""
    if not isinstance(path, (str, os.PathLike)):
        return False
    return is_remote(os.fspath(path)) or Path(path).is_dir() or in_zip(path) is not None


def _location(path: str | os.PathLike[str]) -> str:
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"ome_zarr_path = {path!r}: must be the path of a folder (got {type(path).__name__})")
    text = os.fspath(path)
    if is_remote(text):
        with reachable(text):
            check_protocol(text)
        return text.rstrip("/")
    if Path(text).is_dir():
        return str(Path(text))
    if (url := in_zip(text)) is not None:
        return url
    raise InputError(f"{text}: there is no such folder")


def _images_in(where: str) -> list[str]:
    """Return the paths of images, relative to a group; "" is the group itself."""
    attributes = ome.part_of(_attributes(where))
    if "multiscales" in attributes:
        return [""]
    if "plate" in attributes:
        wells = [str(well["path"]) for well in attributes["plate"].get("wells", [])]
        return [f"{well}/{field}" for well in wells for field in _images_in(_below(where, well))]
    if "well" in attributes:
        return [str(image["path"]) for image in attributes["well"].get("images", [])]
    if ome.LAYOUT in attributes:
        return _series(where)
    return [name for name in _groups_in(where) if "multiscales" in ome.part_of(_attributes(_below(where, name)))]


def _series(where: str) -> list[str]:
    """Return the images of bioformats2raw's layout: those in its list, or the groups 0, 1, 2, ..."""
    listed = ome.part_of(_attributes(_below(where, "OME"), missing={})).get("series")
    if listed:
        return [str(path) for path in listed]
    found: list[str] = []
    while "multiscales" in ome.part_of(_attributes(_below(where, str(len(found))), missing={})):
        found.append(str(len(found)))
    return found


def _names_of_series(where: str) -> dict[str, str]:
    """Return the names of images in bioformats2raw's layout, by path; empty without metadata."""
    path = Path(where) / "OME" / "METADATA.ome.xml"
    if is_remote(where) or not path.is_file():
        return {}
    import tifffile

    images = tifffile.xml2dict(path.read_text(encoding="utf-8")).get("OME", {}).get("Image", [])
    names = [str(image.get("Name", "")) for image in (images if isinstance(images, list) else [images])]
    return dict(zip(_series(where), names, strict=False))


def _labels_in(where: str, image: str) -> list[str]:
    """Return the paths of an image's labels, or of a group's labels, relative to the group `where`."""
    attributes = ome.part_of(_attributes(_below(where, image)))
    group = image if "labels" in attributes else f"{image}/labels".lstrip("/")
    listed = ome.part_of(_attributes(_below(where, group), missing={})).get("labels") or _groups_in(
        _below(where, group)
    )
    return [f"{group}/{name}".lstrip("/") for name in sorted(map(str, listed))]


def _choice(where: str, paths: Sequence[str], what: str, names: Mapping[str, str]) -> str:
    shown = paths[:_LISTED]
    described = [
        f"{path} ({', '.join(filter(None, [names.get(path), _sizes(_below(where, path))]))})" for path in shown
    ]
    more = f" and {len(paths) - _LISTED} more" if len(paths) > _LISTED else ""
    one = _below(where, paths[0])
    if len(paths) == 1:
        return f"{where}: holds one label image: {described[0]}. Give its path: {one}"
    return f"{where}: holds {len(paths)} {what}: {listing(described)}{more}. Give the path of one, like {one}"


def _sizes(where: str) -> str:
    """Return the axes of an image and their lengths."""
    try:
        _, multiscale = ome.multiscale_of(_as_path(where))
        shape = zarr.open_array(_below(where, multiscale["datasets"][0]["path"]), mode="r").shape
        return ", ".join(f"{axis} {size}" for axis, size in zip(ome.axes_of(multiscale), shape, strict=True))
    except (InputError, OSError, ValueError):
        return "cannot be read"


def _array(where: str) -> Any:
    """Return the zarr array at a place; None if there is a group or nothing."""
    try:
        return zarr.open_array(where, mode="r")
    except (OSError, ValueError, KeyError):
        return None


def _groups_in(where: str) -> list[str]:
    if is_remote(where) or not Path(where).is_dir():
        return []  # a server may be unable to list folders
    found = (path for path in Path(where).iterdir() if (path / "zarr.json").is_file() or (path / ".zattrs").is_file())
    return sorted(path.name for path in found)


def _attributes(where: str, missing: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the attributes of a group; if there is no group, return `missing`, or raise if that is None."""
    try:
        return ome.read_attributes(_as_path(where))
    except InputError:
        if missing is None:
            raise
        return missing


def _below(where: str, path: str) -> str:
    return str(below(where, path))


def _as_path(where: str) -> Path | str:
    return where if is_remote(where) else Path(where)
