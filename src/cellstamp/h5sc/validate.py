"""Check a complete `.h5sc` file for errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import anndata
import h5py
import numpy as np
import zarr

from cellstamp.encoded_cells import n_chunks_of
from cellstamp.errors import InputError
from cellstamp.h5sc.cell_tables import is_written
from cellstamp.h5sc.layout import ANNOTATION, CELL_ID, FEATURES_NAMES, IMAGES, INSTANCE_ID, OURS, REGION
from cellstamp.h5sc.opening import OpenStore, open_h5sc
from cellstamp.h5sc.reader import ATTRIBUTES
from cellstamp.h5sc.stored_images import stored_images
from cellstamp.h5sc.table_check import wrong_embedding, wrong_features, wrong_measurements
from cellstamp.location import AnyPath, location_of
from cellstamp.zarr_store.shard_index import find_chunks

_BLOCK_BYTES = 2**26
"""Images checked together."""
_MOST_ERRORS = 20


def errors_in(path: AnyPath) -> list[str]:
    """Check a file: counts agree, all images are stored and readable, values are from 0 to 1, ids are unique.

    Features and an embedding beside the file are checked, too: they must have the same cells, and be made from the same
    input.

    Parameters
    ----------
    path
        Path of the file, or of a table of features, which is then checked alone.

    Returns
    -------
    list of str
        One sentence for each error; empty for a valid file. Only the first 20, if there are more.

    Raises
    ------
    InputError
        If the file is missing, or is not an `.h5sc` file.
    """
    location = location_of(path)
    if location.name in FEATURES_NAMES and is_written(location):
        return list(wrong_measurements(location))
    with open_h5sc(location) as file:
        tables = (partial(wrong_features, location), partial(wrong_embedding, location))
        checks = (_wrong_counts, _wrong_ids, _wrong_annotation, *tables)
        errors = [error for check in checks for error in _found(check, file)]
        for error in _wrong_images(stored_images(file), _names_of(file)):
            errors.append(error)
            if len(errors) >= _MOST_ERRORS:
                return [*errors, "... and possibly more"]
        return errors


def _found(check: Callable[[h5py.File], Iterator[str]], file: h5py.File) -> list[str]:
    """Return the errors that a check finds, or why it failed."""
    try:
        return list(check(file))
    except InputError as error:
        return [str(error)]
    except (KeyError, OSError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        return [f"{' '.join(str(error).split())}: the tables of this file are damaged, or another program wrote them"]


def _wrong_counts(file: h5py.File) -> Iterator[str]:
    images, obs, var = file[f"obsm/{IMAGES}"], anndata.io.read_elem(file["obs"]), anndata.io.read_elem(file["var"])
    n_cells, n_planes, *sides = images.shape
    yield from _missing_attributes(images)
    expected = {"n_cells": n_cells, "n_channels": n_planes, "image_size": sides[0]}
    about = anndata.io.read_elem(file[f"uns/{IMAGES}"]) if f"uns/{IMAGES}" in file else {}
    for name, value in expected.items():
        for where, found in ((f"its attribute {name}", images.attrs), (f"{name} in uns/{IMAGES}", about)):
            if name in found and found[name] != value:
                yield f"obsm/{IMAGES} has the shape {images.shape}, but {where} is {found[name]}"
    if len(obs) != n_cells:
        yield f"obs has {len(obs)} rows for {n_cells} cells"
    if len(var) != n_planes:
        yield f"var has {len(var)} rows for {n_planes} planes"
    if "spatial" in file["obsm"] and file["obsm/spatial"].shape != (n_cells, 2):
        yield f"obsm/spatial has the shape {file['obsm/spatial'].shape} for {n_cells} cells"
    yield from _missing_chunks(images) if isinstance(images, h5py.Dataset) else _missing_in_shards(file, images)
    if f"uns/{OURS}" in file:
        yield from _wrong_sums(anndata.io.read_elem(file[f"uns/{OURS}"]), n_cells)


def _missing_chunks(images: h5py.Dataset) -> Iterator[str]:
    n_cells, n_planes, *sides = images.shape
    if images.chunks is None or (images.chunks[0], *images.chunks[2:]) != (1, *sides):
        return
    n_stored, n_needed = images.id.get_num_chunks(), n_cells * n_chunks_of(n_planes, images.chunks[1])
    if n_stored != n_needed:
        of = f" in chunks of {images.chunks[1]}" if images.chunks[1] > 1 else ""
        yield f"{n_stored} chunks are stored, but {n_cells} cells with {n_planes} planes{of} need {n_needed}"


def _missing_in_shards(file: OpenStore, images: zarr.Array[Any]) -> Iterator[str]:
    found = find_chunks(location_of(file.filename), images)
    n_stored = images.shape[0] if found is None else int((found.sizes != 0).sum())
    if n_stored != images.shape[0]:
        yield f"{n_stored} chunks are stored, but {images.shape[0]} cells need {images.shape[0]}"


def _missing_attributes(images: h5py.Dataset) -> Iterator[str]:
    missing = [name for name in ("n_cells", "n_channels", "image_size", *ATTRIBUTES) if name not in images.attrs]
    if missing:
        yield (
            f"obsm/{IMAGES} lacks the attributes {', '.join(missing)}. anndata's write_h5ad does not write them: open "
            "such a file with anndata.read_h5ad. For an .h5sc file of some cells, name them in the key cells and "
            "extract again"
        )


def _wrong_sums(about: dict[str, Any], n_cells: int) -> Iterator[str]:
    names = ("cells_not_chosen", "cells_removed_at_border", "cells_not_drawn", "cells_written")
    parts = [name for name in names if name in about]  # the oldest files lack the first one
    total = sum(int(about[name]) for name in parts)
    if total != about["cells_in_mask"]:
        yield f"uns/{OURS}: {', '.join(parts)} add up to {total}, but cells_in_mask is {about['cells_in_mask']}"
    if about["cells_written"] != n_cells:
        yield f"uns/{OURS}: cells_written is {about['cells_written']}, but there are {n_cells} cells"


def _wrong_ids(file: h5py.File) -> Iterator[str]:
    ids = anndata.io.read_elem(file["obs"])[CELL_ID].to_numpy()
    known, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        yield f"obs/{CELL_ID}: {(counts > 1).sum()} ids are repeated, such as {known[counts > 1][0]}"
    if known.size and known[0] < 1:
        yield f"obs/{CELL_ID}: the id {known[0]} is invalid; ids must be at least 1"


def _wrong_annotation(file: h5py.File) -> Iterator[str]:
    """Find errors in the centres and the region of cells; the oldest files lack these columns."""
    obs, uns = anndata.io.read_elem(file["obs"]), anndata.io.read_elem(file["uns"])
    if not {"x", "y", REGION} <= set(obs):
        return
    spatial = file["obsm/spatial"][:] if "spatial" in file["obsm"] else None
    if spatial is None or not np.array_equal(obs[["x", "y"]].to_numpy(), spatial):
        yield "obs/x and obs/y differ from obsm/spatial"
    regions = sorted(map(str, obs[REGION].unique()))
    key = INSTANCE_ID if INSTANCE_ID in obs else CELL_ID
    expected = {"region": regions[0] if regions else None, "region_key": REGION, "instance_key": key}
    if len(regions) > 1:
        yield f"obs/{REGION}: must be one mask, is {', '.join(regions)}"
    elif dict(uns.get(ANNOTATION, {})) != expected:
        yield f"uns/{ANNOTATION}: must be {expected}, is {uns.get(ANNOTATION)}"


def _names_of(file: h5py.File) -> Callable[[int], str]:
    """Return a function that names the cell of a row, by its id if possible."""
    try:
        ids = anndata.io.read_elem(file["obs"])[CELL_ID].to_numpy()
    except (KeyError, OSError, RuntimeError, ValueError, TypeError, AttributeError):  # already reported by _found
        ids = np.empty(0, np.uint64)
    return lambda row: f"cell {ids[row]} (row {row})" if row < len(ids) else f"the cell of row {row}"


def _wrong_images(images: h5py.Dataset, name: Callable[[int], str]) -> Iterator[str]:
    at_once = max(1, _BLOCK_BYTES // max(1, images.dtype.itemsize * int(np.prod(images.shape[1:]))))
    for start in range(0, images.shape[0], at_once):
        rows = range(start, min(start + at_once, images.shape[0]))
        try:
            stamps = images[rows.start : rows.stop]
        except (OSError, InputError):
            yield from _unreadable(images, rows, name)
            continue
        if images.dtype.kind == "u":  # every integer stands for a value from 0 to 1
            continue
        in_range = ((stamps >= 0) & (stamps <= 1)).all(axis=(2, 3))
        for row, plane in zip(*np.nonzero(~in_range), strict=True):
            yield f"{name(start + row)}, plane {plane}: values outside 0 to 1"


def _unreadable(images: h5py.Dataset, rows: range, name: Callable[[int], str]) -> Iterator[str]:
    """Find the planes that cannot be read, chunk by chunk."""
    n_planes = images.shape[1]
    step = 1 if images.chunks is None else images.chunks[1]
    for row in rows:
        for first in range(0, n_planes, step):
            last = min(first + step, n_planes) - 1
            try:
                images[row, first]
            except (OSError, InputError) as error:
                planes = f"plane {first}" if first == last else f"planes {first} to {last}"
                yield f"{name(row)}, {planes}: cannot be read: {' '.join(str(error).split())}"
