"""Open a SpatialData store to read its metadata, on a disk or behind a URL."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import zarr
import zarr.errors

from cellstamp.errors import InputError
from cellstamp.location import check_protocol, is_remote
from cellstamp.source.ome import is_ome_zarr


def open_root(store: str) -> zarr.Group:
    """Open a SpatialData store to read its metadata.

    Raises
    ------
    InputError
        If it is missing, damaged, or not a SpatialData store. `cellstamp.location.reachable` reports the errors
        of remote stores.
    """
    missing = (FileNotFoundError, zarr.errors.GroupNotFoundError, zarr.errors.ContainsArrayError)
    remote = is_remote(store)
    if remote:
        check_protocol(store)
    try:
        with undamaged(store, other=missing):
            # some servers cannot list folders; consolidated metadata lists the elements, in one request
            root = zarr.open_group(store=store, mode="r", use_consolidated=None if remote else False)
    except missing as error:
        if not remote and not Path(store).exists():
            raise InputError(f"{_nothing_at(store)}. Check the path; in a project, load an image first") from error
        message = (
            f"{store} is not a SpatialData zarr store. Give the folder that contains 'images' and 'labels'. In a "
            "project, load an image first"
        )
        raise InputError(message) from error
    # tested after opening: damaged metadata of the images is reported where they are looked for
    if is_ome_zarr(root.attrs.asdict()) and "images" not in root:
        message = (
            f"{store} is OME-Zarr, not a SpatialData store. Load it into a project first (load_input_from_omezarr, "
            "then load_segmentation)"
        )
        raise InputError(message)
    if remote and root.metadata.consolidated_metadata is None and not list(root.group_keys()):
        message = (
            f"{store} cannot be read: its server does not list files, and the store has no consolidated metadata. "
            "Write them with zarr.consolidate_metadata"
        )
        raise InputError(message)
    return root


def _nothing_at(store: str) -> str:
    """Return that a path does not exist, with the folder to which it is relative."""
    return f"{store} does not exist{'' if Path(store).is_absolute() else f' in {Path.cwd()}'}"


@contextmanager
def undamaged(where: str, other: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Add the location to errors about damaged metadata; errors of the ``other`` types pass unchanged."""
    try:
        yield
    except other:
        raise
    except (ValueError, TypeError) as error:
        if isinstance(error, TypeError) and sys.flags.optimize:
            message = (
                f"{where} cannot be read: zarr cannot read metadata under python -O; start Python without -O, and "
                "unset PYTHONOPTIMIZE"
            )
            raise InputError(message) from error
        message = f"the metadata in {where} is damaged ({error}). Write it again with spatialdata"
        raise InputError(message) from error
