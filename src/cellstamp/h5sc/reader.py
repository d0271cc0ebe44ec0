"""Read `.h5sc` files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import anndata
import h5py
import numpy as np

from cellstamp.errors import CellstampError, InputError
from cellstamp.h5sc.layout import IMAGES, OURS, PER_CHANNEL
from cellstamp.h5sc.opening import READING_ERRORS, OpenStore, bytes_of, open_h5sc
from cellstamp.h5sc.stored_images import stored_images
from cellstamp.location import AnyPath, is_path, location_of, reachable

ATTRIBUTES = ("n_masks", "n_image_channels", "channel_names", "compression", "normalization", "normalization_range")
"""Attributes of the images that describe their planes and values."""


@dataclass(frozen=True)
class H5scInfo:
    """Counts, sizes and settings of an `.h5sc` file.

    Attributes
    ----------
    normalization_range
        Lower and upper quantile; text for quantiles that differ between channels; None without normalisation.
    settings
        Other settings of the extraction; empty for files without them.
    stored_bytes, raw_bytes, file_bytes
        Bytes of the images as stored and uncompressed, and of the file.
    """

    n_cells: int
    n_masks: int
    n_image_channels: int
    image_size: int
    channel_names: tuple[str, ...]
    compression: str
    normalization: bool
    normalization_range: tuple[float, float] | str | None
    dtype: str
    settings: dict[str, Any]
    stored_bytes: int
    raw_bytes: int
    file_bytes: int


def read_h5sc(path: AnyPath | None, *, images: bool = True) -> anndata.AnnData:
    """Open an `.h5sc` file without reading its images.

    Row names (``obs_names``) are "0", "1", ..., not cell ids: scportrait's tools use them as row numbers. For cells by
    id, use `select_cells` and `cell_images`.

    Parameters
    ----------
    path
        Path of the file, or path or URL of the store.
    images
        Whether to include the images. Without them, the result is a table for a SpatialData object.

    Returns
    -------
    anndata.AnnData
        Has ``obs["scportrait_cell_id"]``, ``var["channels"]`` and ``obsm["spatial"]`` (x, y in pixels) in memory, and
        ``obsm["single_cell_images"]``, an `h5py.Dataset` (n_cells, n_masks + n_channels, y, x) that takes all
        selections of numpy, and reads them from disk. The file stays open while that dataset is in use. Copies
        (``copy()``, `copy.deepcopy`, pickles) read from the same file. ``data[:5].copy()`` and ``to_memory()`` hold
        their images in memory.

    Raises
    ------
    InputError
        If the file is missing, or is not an `.h5sc` file.
    """
    if path is None:
        message = "path = None: must be the path of an .h5sc file. An extraction without cells writes no file"
        raise InputError(message)
    if not is_path(path):
        raise InputError(f"path = {path!r}: must be the path of an .h5sc file, or the path or URL of a zarr store")
    file = open_h5sc(location_of(path))
    try:
        with reachable(str(path)):
            data = _read_tables(file)
    except BaseException as error:
        file.close()
        if not isinstance(error, READING_ERRORS) or isinstance(error, CellstampError):
            raise
        problem = " ".join(str(error).split())
        raise InputError(f"{path} is damaged: its tables cannot be read: {problem}. Extract again") from error
    if images:
        data.obsm[IMAGES] = stored_images(file)
    if not images or isinstance(file, OpenStore):
        file.close()
    return data


def _read_tables(file: h5py.File) -> anndata.AnnData:
    read = anndata.io.read_elem
    obsm = {name: read(file["obsm"][name]) for name in file["obsm"] if name != IMAGES}
    return anndata.AnnData(obs=read(file["obs"]), var=read(file["var"]), uns=as_plain(read(file["uns"])), obsm=obsm)


def as_plain(value: Any) -> Any:
    """Return values with text as Python's strings, as they are read from HDF5.

    Before NumPy 2.2, `copy.deepcopy` of NumPy's own strings crashes Python.
    """
    if isinstance(value, dict):
        return {name: as_plain(each) for name, each in value.items()}
    is_text = isinstance(value, np.ndarray) and value.dtype.kind == "T"
    return value.astype(object) if is_text else value


def describe_h5sc(path: AnyPath) -> H5scInfo:
    """Read the counts, sizes and settings of an `.h5sc` file.

    Raises
    ------
    InputError
        If the file is missing, or is not an `.h5sc` file.
    """
    with open_h5sc(location_of(path)) as file:
        images = file[f"obsm/{IMAGES}"]
        attributes: dict[str, Any] = dict(images.attrs)
        missing = [name for name in ATTRIBUTES if name not in attributes]
        if missing:
            message = f"{path} is not an .h5sc file: obsm/{IMAGES} lacks the attributes {', '.join(missing)}"
            raise InputError(message)
        return H5scInfo(
            n_cells=images.shape[0],
            n_masks=int(attributes["n_masks"]),
            n_image_channels=int(attributes["n_image_channels"]),
            image_size=images.shape[2],
            channel_names=tuple(map(_as_text, attributes["channel_names"])),
            compression=str(attributes["compression"]),
            normalization=bool(attributes["normalization"]),
            normalization_range=_range(attributes),
            dtype=str(images.dtype),
            settings=_settings(file),
            stored_bytes=_stored_bytes(images),
            raw_bytes=images.nbytes,
            file_bytes=bytes_of(location_of(path)),
        )


def _as_text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _stored_bytes(images: Any) -> int:
    return int(images.id.get_storage_size() if isinstance(images, h5py.Dataset) else images.nbytes_stored())


def _range(attributes: dict[str, Any]) -> tuple[float, float] | str | None:
    if not attributes["normalization"]:
        return None
    lower, upper = attributes["normalization_range"]
    return PER_CHANNEL if lower == PER_CHANNEL else (float(lower), float(upper))


def _settings(file: h5py.File) -> dict[str, Any]:
    place = f"uns/{OURS}/settings"
    return dict(as_plain(anndata.io.read_elem(file[place]))) if place in file else {}
