"""A SpatialData object, as it is in memory -> a store that can be read without it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zarr

from cellstamp.errors import InputError
from cellstamp.source import ome
from cellstamp.source.pixels import as_pixels
from cellstamp.source.raster import write_raster
from cellstamp.source.staging import staged, zarr_format


def spool(sdata: Any, names: Sequence[str], folder: Path) -> str:
    """Return a store that holds images and labels of a SpatialData object as they are in memory.

    What was read from disk and not changed since is not copied: when that is so of every element, the store is the one
    it was read from, else a new one in `folder` that links to it. All else is written there, block by block.

    Parameters
    ----------
    sdata
        The SpatialData object.
    names
        Names of its images and labels that will be read.
    folder
        Where a store may be made.

    Returns
    -------
    str
        Path of the store.

    Raises
    ------
    InputError
        When there is no such element, or it is not 2-D.
    """
    elements = {_find(sdata, name): _full_resolution(sdata[name]) for name in names}
    homes = {element: _home(element, data) for element, data in elements.items()}
    stores = {home.parents[1] if home and home.parts[-2:] == Path(e).parts else None for e, home in homes.items()}
    if len(stores) == 1 and (store := stores.pop()) is not None:
        return str(store)
    target = Path(folder) / "spool.zarr"
    # A store is of one zarr format: what is linked to decides which.
    formats = {element: zarr_format(home) for element, home in homes.items() if home}
    with staged(target, new_format=next((form for form in formats.values() if form), 3)) as staging:
        for element, data in elements.items():
            home = homes[element]
            if home is not None and formats[element] == staging.format:
                staging.place(element).symlink_to(home, target_is_directory=True)
            else:
                write_raster(staging, element, as_pixels(data.data), channel_names=_channels(data))
    return str(target)


def _find(sdata: Any, name: str) -> str:
    kind = next((kind for kind in ("images", "labels") if name in getattr(sdata, kind)), None)
    if kind is None:
        known = ", ".join([*sdata.images, *sdata.labels]) or "none"
        raise InputError(f"SpatialData object: no image or labels named {name!r} (it has: {known})")
    return f"{kind}/{name}"


def _full_resolution(element: Any) -> Any:
    return element["scale0"].image if hasattr(element, "children") else element


def _channels(data: Any) -> list[str]:
    return [str(name) for name in data.coords["c"].to_numpy()] if "c" in data.dims else []


def _home(element: str, data: Any) -> Path | None:
    """The folder of the element this array is a plain reading of; None when it is more than that, or something else."""
    kind = element.split("/")[0]
    if tuple(data.dims) != ome.AXES[kind]:
        dims = ", ".join(map(str, data.dims))
        raise InputError(f"SpatialData object: {element} has the axes {dims}; must have {', '.join(ome.AXES[kind])}")
    path = _array_on_disk(data.data)
    if path is None:
        return None
    try:
        metadata, multiscale = ome.multiscale_of(path.parent)
    except InputError:
        return None
    labels = _channels(data)
    stored = ome.channel_labels(metadata) or [str(index) for index in range(len(labels))]
    same = path.name == multiscale["datasets"][0]["path"] and (kind == "labels" or stored == labels)
    return path.parent.absolute() if same else None


def _array_on_disk(array: Any) -> Path | None:
    """The folder of the zarr array that a dask array reads, and does nothing else with."""
    layers = getattr(getattr(array, "dask", None), "layers", {})
    origins = [layer for layer in layers.values() if len(layer) == 1]
    # dask keeps the array as it is, or wrapped, by version.
    held = [getattr(value, "value", value) for layer in origins for value in dict(layer).values()]
    values = [value for value in held if isinstance(value, zarr.Array)]
    if len(layers) != 2 or len(values) != 1 or not str(array.name).startswith("from-zarr-"):
        return None
    source = values[0]
    root = getattr(source.store, "root", None)
    if root is None or source.shape != array.shape or source.dtype != array.dtype:
        return None
    return Path(root) / source.path
