"""Write a SpatialData object in memory to a store that can be read without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr

from cellstamp.errors import InputError
from cellstamp.location import is_remote, path_of
from cellstamp.source import ome
from cellstamp.source.find.masks import listing
from cellstamp.source.find.placement import placements, point_placements, same
from cellstamp.source.load.pixels import as_pixels, full_resolution
from cellstamp.source.load.raster import write_raster
from cellstamp.source.load.staging import Staging, staged, zarr_format
from cellstamp.source.load.tables import write_centers_table
from cellstamp.source.names import SHAPES_FILE
from cellstamp.source.points import write_frame
from cellstamp.source.read.signatures import state_content
from cellstamp.system import link_folder

STORE_OF_OBJECT = "sdata.zarr"
"""Name of the temporary store for elements in memory."""
THE_OBJECT = "the SpatialData object"
"""Name of such a store in messages."""


@dataclass(frozen=True)
class Raster:
    """An image or labels of a SpatialData object.

    Attributes
    ----------
    name
        Kind and name, like ``"images/dapi"``.
    data
        Its full-resolution level, an `xarray.DataArray`.
    transformations
        Its transformations, as in OME metadata.
    on_disk
        Folder of the zarr array with exactly the pixels of `data`; None if `data` was computed or changed.
    """

    name: str
    data: Any
    transformations: list[dict[str, Any]]
    on_disk: Path | None

    @property
    def channels(self) -> list[str]:
        """Names of the channels of an image."""
        return [str(name) for name in self.data.coords["c"].to_numpy()] if "c" in self.data.dims else []

    @property
    def store(self) -> Path | None:
        """Store with this element, with the same channels and position; None if there is none."""
        if self.on_disk is None or self.on_disk.parts[-3:-1] != Path(self.name).parts:
            return None
        try:
            metadata, multiscale = ome.multiscale_of(self.on_disk.parent)
        except InputError:
            return None
        stored = ome.channel_labels(metadata) or [str(index) for index in range(len(self.channels))]
        described = {**multiscale, "datasets": [{}], "coordinateTransformations": self.transformations}
        alike = (
            self.on_disk.name == multiscale["datasets"][0]["path"]
            and (not self.channels or stored == self.channels)
            and same(placements(metadata), placements({"multiscales": [described]}))
        )
        return self.on_disk.parents[2] if alike else None


def as_store(
    sdata: Any, names: Sequence[str], folder: Path, centers: str | None = None, shapes: Sequence[str] = ()
) -> str:
    """Return a store that holds images and labels of a SpatialData object in their state in memory.

    Unchanged elements read from disk are not copied: when that is so of every element, the store is the one
    it was read from, else a new one in `folder` that links to it. All else is written there, block by block.

    Parameters
    ----------
    sdata
        The SpatialData object.
    names
        Names of the images and labels that will be read.
    folder
        Folder for a new store.
    centers
        Name of points or a table that will be read too.
    shapes
        Names of shapes that will be read too.

    Returns
    -------
    str
        Path of the store.

    Raises
    ------
    InputError
        If an element is missing or not 2-D.
    """
    rasters = [_raster(sdata, name) for name in names]
    stores = {raster.store for raster in rasters}
    if centers is None and not shapes and len(stores) == 1 and (store := stores.pop()) is not None:
        return str(store)
    target = Path(folder) / STORE_OF_OBJECT
    # A store has one zarr format: that of the linked elements.
    formats = [zarr_format(raster.on_disk.parent) for raster in rasters if raster.on_disk]
    with staged(target, new_format=next((form for form in formats if form), 3)) as staging:
        for raster in rasters:
            _put(staging, raster)
        if centers is not None:
            _put_centers(staging, sdata, centers)
        for name in shapes:
            _put_shapes(staging, name, sdata.shapes[name])
    return str(target)


def store_on_disk(given: Any, names: Sequence[str]) -> Path:
    """Return the folder of a store, given its path or a SpatialData object that was read from it.

    Parameters
    ----------
    given
        The path or the object.
    names
        Names of images and labels that will be read. Those of an object must equal those on disk.

    Raises
    ------
    InputError
        If it is neither, a URL, in memory only, or differs from the store on disk.
    """
    path = path_of(given)
    if path is not None and is_remote(path):
        raise InputError(f"sdata_path = {path!r}: is a URL; a project is loaded from folders, so copy the store first")
    if path is not None:
        return Path(path)
    if not (hasattr(given, "images") and hasattr(given, "labels")):
        kind = type(given).__name__
        raise InputError(f"sdata_path = {given!r}: must be the path of a store, or a SpatialData object (got {kind})")
    folder = getattr(given, "path", None)
    if folder is None:
        raise InputError(
            "sdata_path: this SpatialData object is in memory only; write it first (sdata.write), and give the path"
        )
    for name in names:
        if name in given.shapes and name not in given.images and name not in given.labels:
            _check_shapes_unchanged(given.shapes[name], name, Path(str(folder)))
    for raster in (_raster(given, name) for name in names if name not in given.shapes):
        if raster.store is None or raster.store != Path(str(folder)).absolute():
            raise InputError(
                f"sdata_path: {raster.name} of this SpatialData object differs from its store {folder}; write it "
                "first (sdata.write_element) and give the path, or load it with load_input_from_array and "
                "load_segmentation"
            )
    return Path(str(folder))


def _check_shapes_unchanged(shapes: Any, name: str, folder: Path) -> None:
    import geopandas as gpd

    there = folder / "shapes" / name
    stored = gpd.read_parquet(there / SHAPES_FILE) if (there / SHAPES_FILE).is_file() else None
    here, axes = {"coordinateTransformations": transformations_of(shapes, ome.SHAPES_AXES)}, ome.SHAPES_AXES
    unchanged = (
        stored is not None
        and stored.equals(shapes)
        and same(point_placements({**here, "axes": axes}), point_placements(ome.read_attributes(there)))
    )
    if not unchanged:
        raise InputError(
            f"sdata_path: shapes/{name} of this SpatialData object differs from its store {folder}; write it first "
            "(sdata.write_element) and give the path, or load it with load_segmentation"
        )


def _put(staging: Staging, raster: Raster) -> None:
    if raster.on_disk is None or zarr_format(raster.on_disk.parent) != staging.format:
        write_raster(
            staging,
            raster.name,
            as_pixels(raster.data.data),
            channel_names=raster.channels,
            transformations=raster.transformations,
        )
        state_content(staging.folder / raster.name / "s0")
        return
    kind, name = raster.name.split("/")
    attributes = ome.raster_attributes(
        kind,
        name,
        [raster.data.shape],
        format_=staging.format,
        channel_names=raster.channels,
        transformations=raster.transformations,
    )
    link_folder(staging.group(raster.name, attributes) / "s0", raster.on_disk)


def _put_centers(staging: Staging, sdata: Any, name: str) -> None:
    if name in sdata.points:
        points = sdata.points[name]
        table = points.compute()
        table.attrs = {}  # transformations, which parquet could not hold
        axes = [axis for axis in ("x", "y", "z") if axis in table]
        own = points.attrs.get("spatialdata_attrs", {})
        attributes = ome.points_attributes(format_=staging.format)
        attributes |= {"axes": axes, "coordinateTransformations": transformations_of(points, axes)}
        attributes["spatialdata_attrs"] |= {key: own[key] for key in ("instance_key",) if key in own}
        kept = [column for column in (*axes, own.get("instance_key")) if column in table]
        write_frame(staging, name, table[kept], attributes)
    elif name in sdata.tables:
        write_centers_table(staging, name, sdata.tables[name])
    else:
        raise InputError(
            f"centers: no points and no table named {name!r} in the SpatialData object; points there are: "
            f"{listing(list(sdata.points))}; tables: {listing(list(sdata.tables))}"
        )


def _put_shapes(staging: Staging, name: str, shapes: Any) -> None:
    import pyarrow as pa

    plain = shapes.copy(deep=False)
    plain.attrs = {}  # transformations, which parquet could not hold
    attributes = ome.shapes_attributes(transformations_of(shapes, ome.SHAPES_AXES), format_=staging.format)
    try:
        plain.to_parquet(staging.group(f"shapes/{name}", attributes) / SHAPES_FILE)
    except pa.ArrowException as error:
        raise InputError(
            f"shapes '{name}' of the SpatialData object cannot be written as GeoParquet: {error}. Give the index and "
            f"each column values of one type, such as sdata['{name}'].index.astype(str)"
        ) from error


def _raster(sdata: Any, name: str) -> Raster:
    kind = next((kind for kind in ("images", "labels") if name in getattr(sdata, kind)), None)
    if kind is None:
        known = ", ".join([*sdata.images, *sdata.labels]) or "none"
        raise InputError(f"SpatialData object: no image or labels named {name!r} (it has: {known})")
    element = getattr(sdata, kind)[name]
    data = full_resolution(element)
    if tuple(data.dims) != ome.AXES[kind]:
        dims, wanted = ", ".join(map(str, data.dims)), ", ".join(ome.AXES[kind])
        raise InputError(f"SpatialData object: {kind}/{name} has the axes {dims}; must have {wanted}")
    return Raster(f"{kind}/{name}", data, transformations_of(element, ome.AXES[kind]), _array_on_disk(data.data))


def transformations_of(element: Any, axes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the transformations of an element, as in OME metadata."""
    from spatialdata.transformations import get_transformation

    found: Mapping[str, Any] = get_transformation(element, get_all=True)
    return [
        way.to_ngff(tuple(axes), tuple(axes), unit="unit", output_coordinate_system_name=system).to_dict()
        for system, way in found.items()
    ]


def _array_on_disk(array: Any) -> Path | None:
    """Return the folder of the zarr array that a dask array reads, if it does nothing else."""
    layers = getattr(getattr(array, "dask", None), "layers", {})
    origins = [layer for layer in layers.values() if len(layer) == 1]
    # Depending on its version, dask keeps the array itself or wraps it.
    held = [getattr(value, "value", value) for layer in origins for value in dict(layer).values()]
    values = [value for value in held if isinstance(value, zarr.Array)]
    if len(layers) != 2 or len(values) != 1 or not str(array.name).startswith("from-zarr-"):
        return None
    source = values[0]
    root = getattr(source.store, "root", None)
    if root is None or source.shape != array.shape or source.dtype != array.dtype:
        return None
    return (Path(root) / source.path).absolute()
