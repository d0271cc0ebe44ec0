"""Read and write the OME-Zarr metadata of images and labels, in the dialect of SpatialData."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellstamp.errors import InputError

if TYPE_CHECKING:
    import zarr

OURS = "cellstamp"
"""Key of cellstamp's attributes."""

LAYOUT = "bioformats2raw.layout"
"""Attribute of a group of images that bioformats2raw writes."""

SHAPES_AXES = ("x", "y")
AXES = {"images": ("c", "y", "x"), "labels": ("y", "x")}
# by zarr format: the name of SpatialData's dialect of OME-Zarr, and its version
_DIALECTS = {2: ("0.4-dev-spatialdata", "0.2"), 3: ("0.5-dev-spatialdata", "0.3")}
_LABEL_VERSIONS = {2: "0.4", 3: "0.5"}


def raster_attributes(
    kind: str,
    name: str,
    shapes: Sequence[Sequence[int]],
    *,
    format_: int,
    channel_names: Sequence[str] = (),
    transformations: Sequence[Mapping[str, Any]] | None = None,
    ours: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the attributes of the group of an image or of labels.

    Parameters
    ----------
    kind
        ``"images"`` or ``"labels"``.
    name
        Name of the element.
    shapes
        Shape of each resolution level, the full one first; their paths are ``s0``, ``s1``, ...
    format_
        Zarr format, 2 or 3.
    channel_names
        Names of an image's channels.
    transformations
        Transformations from pixels to coordinate systems, as SpatialData writes them; None: identity.
    ours
        cellstamp's own attributes.
    """
    axes = AXES[kind]
    dialect, version = _DIALECTS[format_]
    multiscale = {
        "name": f"/images/{name}" if kind == "images" else name,
        "axes": [_axis(axis) for axis in axes],
        "datasets": [
            {"path": f"s{level}", "coordinateTransformations": [_scale(shapes[0], shape)]}
            for level, shape in enumerate(shapes)
        ],
        "coordinateTransformations": list(transformations or [identity(axes)]),
    }
    if format_ == 2:
        multiscale["version"] = dialect
    ome: dict[str, Any] = {"multiscales": [multiscale]}
    if kind == "images":
        ome["omero"] = {"channels": [{"label": label} for label in channel_names]}
    else:
        ome["image-label"] = {"version": _LABEL_VERSIONS[format_]}
    wrapped = ome if format_ == 2 else {"ome": {"version": dialect, **ome}}
    return {**wrapped, "spatialdata_attrs": {"version": version}, **({OURS: dict(ours)} if ours else {})}


def points_attributes(
    *, format_: int, labels: str | None = None, shared_ids: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the attributes of the group of a table of points with the columns x and y.

    Parameters
    ----------
    format_
        Zarr format, 2 or 3.
    labels
        Signature of the labels, if the points are their centres.
    shared_ids
        Evidence that ids of the labels are not one cell each.
    """
    known = {"labels": labels, "shared_ids": shared_ids}
    ours = {OURS: {key: value for key, value in known.items() if value is not None}} if labels is not None else {}
    return {
        **ours,
        "encoding-type": "ngff:points",
        "axes": ["x", "y"],
        "coordinateTransformations": [identity(("x", "y"))],
        "spatialdata_attrs": {"version": {2: "0.1", 3: "0.2"}[format_]},
    }


def shapes_attributes(transformations: Sequence[Mapping[str, Any]], *, format_: int) -> dict[str, Any]:
    """Return the attributes of the group of shapes.

    Parameters
    ----------
    transformations
        Transformations from (x, y) to coordinate systems, as SpatialData writes them.
    format_
        Zarr format, 2 or 3.
    """
    return {
        "encoding-type": "ngff:shapes",
        "axes": list(SHAPES_AXES),
        "coordinateTransformations": list(transformations),
        "spatialdata_attrs": {"version": {2: "0.2", 3: "0.3"}[format_]},
    }


def identity(axes: Sequence[str]) -> dict[str, Any]:
    """Return the identity transformation from pixels to the coordinate system "global"."""
    named = [_axis(axis) if axis == "c" else {**_axis(axis), "unit": "unit"} for axis in axes]
    return {
        "type": "identity",
        "input": {"name": "".join(axes), "axes": named},
        "output": {"name": "global", "axes": named},
    }


def complete_transformations(multiscale: Mapping[str, Any], axes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the transformations from full-resolution pixels to each coordinate system.

    SpatialData keeps them with the element. Other programs put a scale, or an offset, at the full-resolution level; it
    comes first then.
    """
    systems = list(multiscale.get("coordinateTransformations") or [identity(axes)])
    own = list(multiscale["datasets"][0].get("coordinateTransformations", []))
    if all(each.get("type") == "scale" and set(each["scale"]) == {1.0} for each in own):
        return systems
    sides = identity(axes)
    ends = {side: sides[side] for side in ("input", "output")}
    steps = [{**ends, **each} for each in own]
    return [{**ends, **system, "type": "sequence", "transformations": [*steps, system]} for system in systems]


def _axis(name: str) -> dict[str, str]:
    return {"name": name, "type": "channel" if name == "c" else "space"}


def _scale(full: Sequence[int], shape: Sequence[int]) -> dict[str, Any]:
    return {"type": "scale", "scale": [whole / part if part else 1.0 for whole, part in zip(full, shape, strict=True)]}


def read_attributes(group: Path | str) -> dict[str, Any]:
    """Return the attributes of a zarr group of either format, in a folder or behind a URL (a `str`).

    Raises
    ------
    InputError
        If the group is missing, or its file is not valid JSON.
    """
    if isinstance(group, str):
        return _remote_attributes(group)
    path = next((path for path in (group / "zarr.json", group / ".zattrs") if path.is_file()), None)
    if path is None:
        raise InputError(f"{group}: not a zarr group")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from error
    attributes = content.get("attributes", {}) if path.name == "zarr.json" else content
    return dict(attributes)


def _remote_attributes(url: str) -> dict[str, Any]:
    import zarr
    import zarr.errors

    try:
        return zarr.open_group(store=url, mode="r").attrs.asdict()
    except (FileNotFoundError, zarr.errors.GroupNotFoundError, zarr.errors.ContainsArrayError) as error:
        raise InputError(f"{url}: not a zarr group") from error


def part_of(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the OME part of a group's attributes; before OME-Zarr 0.5, that is all of them."""
    found = attributes.get("ome", attributes)
    return found if isinstance(found, Mapping) else {}


def is_ome_zarr(attributes: Mapping[str, Any]) -> bool:
    """Return whether attributes are those of an OME-Zarr image, a collection of images, or a plate."""
    return bool({"multiscales", "plate", "well", LAYOUT} & {*part_of(attributes)})


def metadata_of(root: zarr.Group, element: str) -> Mapping[str, Any]:
    """Return the OME part of an element's attributes, given the opened store."""
    return part_of(root[element].attrs.asdict())


def multiscale_of(group: Path | str) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Return the OME part of a group's attributes and its first multiscale.

    Raises
    ------
    InputError
        If the group describes no image.
    """
    ome = part_of(read_attributes(group))
    try:
        multiscale = ome["multiscales"][0]
        _ = multiscale["datasets"][0]["path"]
    except (KeyError, IndexError, TypeError) as error:
        raise InputError(f"{group}: its metadata names no array of an image (OME 'multiscales')") from error
    return ome, multiscale


def channel_labels(ome: Mapping[str, Any]) -> list[str]:
    """Return the names of the channels, or [] when the metadata doesn't name every channel."""
    labels = [channel.get("label") for channel in described_channels(ome)]
    return [] if None in labels else [str(label) for label in labels]


def described_channels(ome: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the metadata of each channel, or [] if it is missing or invalid."""
    # SpatialData first wrote "channels_metadata", now OME-Zarr's "omero"; it reads both in this order
    for key in ("omero", "channels_metadata"):
        described = ome.get(key)
        channels = described.get("channels") if isinstance(described, Mapping) else None
        if isinstance(channels, list) and channels and all(isinstance(channel, Mapping) for channel in channels):
            return channels
    return []


def axes_of(multiscale: Mapping[str, Any]) -> list[str]:
    """Return the names of the axes."""
    # OME-Zarr 0.3 wrote axes as text, earlier versions did not write them
    axes = multiscale.get("axes", ["t", "c", "z", "y", "x"])
    return [axis["name"] if isinstance(axis, Mapping) else str(axis) for axis in axes]
