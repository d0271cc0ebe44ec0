"""Opening a SpatialData store to read its metadata, on a disk or behind a URL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import zarr
import zarr.errors

from cellstamp.errors import InputError
from cellstamp.source.location import check_protocol, is_remote
from cellstamp.source.ome import is_ome_zarr


def open_root(store: str) -> zarr.Group:
    """Open a SpatialData store to read its metadata.

    Raises
    ------
    InputError
        If there is none. What goes wrong on the way to a remote one is told by `cellstamp.source.location.reachable`.
    """
    missing = (FileNotFoundError, zarr.errors.GroupNotFoundError, zarr.errors.ContainsArrayError)
    remote = is_remote(store)
    if remote:
        check_protocol(store)
    try:
        with undamaged(store, other=missing):
            # A server may be unable to list folders; what was consolidated tells what there is, and in one request.
            root = zarr.open_group(store=store, mode="r", use_consolidated=None if remote else False)
    except missing as error:
        message = (
            f"{store} is not a SpatialData zarr store; give the folder that holds 'images' and 'labels' (a project's "
            "is made by loading an image)"
        )
        raise InputError(message) from error
    # in this order: damaged metadata of the images is reported where they are looked for
    if is_ome_zarr(root.attrs.asdict()) and "images" not in root:
        message = (
            f"{store} is OME-Zarr, not a SpatialData store. Load it into a project first (load_input_from_omezarr, "
            "then load_segmentation)"
        )
        raise InputError(message)
    if remote and root.metadata.consolidated_metadata is None and not list(root.group_keys()):
        message = (
            f"{store} cannot be read: its server does not list what is in it, and it has no consolidated metadata "
            "(zarr.consolidate_metadata writes them)"
        )
        raise InputError(message)
    return root


@contextmanager
def undamaged(where: str, other: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Say where metadata is damaged: the errors of its readers do not. Those of ``other`` kinds mean something else."""
    try:
        yield
    except other:
        raise
    except (ValueError, TypeError) as error:
        message = f"the metadata in {where} is damaged ({error}); write it again with spatialdata"
        raise InputError(message) from error
