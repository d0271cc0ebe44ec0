"""Reads `.h5sc` files."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np

from cellstamp.errors import InputError
from cellstamp.h5sc.layout import IMAGES, OURS, PER_CHANNEL
from cellstamp.h5sc.opening import open_h5sc
from cellstamp.h5sc.stored import StoredImages

_ATTRIBUTES = ("n_masks", "n_image_channels", "channel_names", "compression", "normalization", "normalization_range")


@dataclass(frozen=True)
class H5scInfo:
    """What an `.h5sc` file says about itself; sizes in bytes.

    Attributes
    ----------
    normalization_range
        Lower and upper quantile; words where channels have different ones; None for stamps that are not normalised.
    settings
        How the stamps were made, beside that; empty if the file does not say.
    stored_bytes, raw_bytes
        The stamps as they are stored, and uncompressed.
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


def read_h5sc(path: str | PathLike[str] | None, *, images: bool = True) -> anndata.AnnData:
    """Open an `.h5sc` file without reading its stamps.

    Parameters
    ----------
    path
        The file.
    images
        Whether the stamps are there at all; without them it is a table for a SpatialData object.

    Returns
    -------
    anndata.AnnData
        ``obs["scportrait_cell_id"]``, ``var["channels"]``, ``obsm["spatial"]`` (x, y in pixels) in memory, and
        ``obsm["single_cell_images"]``, an `h5py.Dataset` (n_cells, n_masks + n_channels, y, x) that reads from
        disk what is asked of it. The file stays open as long as that dataset is in use; it is closed at once without
        ``images``. Copies (``copy()``, `copy.deepcopy`, pickled ones) read from the same file; a copy of some cells
        (``data[:5].copy()``) and ``to_memory()`` hold their images in memory.

    Raises
    ------
    InputError
        If there is no such file, or it is no `.h5sc` file.
    """
    if path is None:
        message = "path = None: must be the path of an .h5sc file (an extraction that found no cells wrote none)"
        raise InputError(message)
    file = open_h5sc(Path(path))
    try:
        data = _read_all_but_stamps(file)
    except BaseException:
        file.close()
        raise
    if images:
        data.obsm[IMAGES] = StoredImages(file["obsm"][IMAGES].id)
    else:
        file.close()
    return data


def _read_all_but_stamps(file: h5py.File) -> anndata.AnnData:
    read = anndata.io.read_elem
    obsm = {name: read(file["obsm"][name]) for name in file["obsm"] if name != IMAGES}
    return anndata.AnnData(obs=read(file["obs"]), var=read(file["var"]), uns=read(file["uns"]), obsm=obsm)


def describe_h5sc(path: str | PathLike[str]) -> H5scInfo:
    """Read what an `.h5sc` file says about itself.

    Raises
    ------
    InputError
        If there is no such file, or it is no `.h5sc` file.
    """
    with open_h5sc(Path(path)) as file:
        images = file["obsm"][IMAGES]
        attributes: dict[str, Any] = dict(images.attrs)
        missing = [name for name in _ATTRIBUTES if name not in attributes]
        if missing:
            message = f"{path} is not an .h5sc file: obsm/{IMAGES} lacks the attributes {', '.join(missing)}"
            raise InputError(message)
        return H5scInfo(
            n_cells=images.shape[0],
            n_masks=int(attributes["n_masks"]),
            n_image_channels=int(attributes["n_image_channels"]),
            image_size=images.shape[2],
            channel_names=tuple(name.decode() for name in np.asarray(attributes["channel_names"]).astype("S").tolist()),
            compression=str(attributes["compression"]),
            normalization=bool(attributes["normalization"]),
            normalization_range=_range(attributes),
            dtype=str(images.dtype),
            settings=_settings(file),
            stored_bytes=images.id.get_storage_size(),
            raw_bytes=images.nbytes,
            file_bytes=Path(path).stat().st_size,
        )


def _range(attributes: dict[str, Any]) -> tuple[float, float] | str | None:
    if not attributes["normalization"]:
        return None
    lower, upper = attributes["normalization_range"]
    return PER_CHANNEL if lower == PER_CHANNEL else (float(lower), float(upper))


def _settings(file: h5py.File) -> dict[str, Any]:
    place = f"uns/{OURS}/settings"
    return dict(anndata.io.read_elem(file[place])) if place in file else {}
