"""Read the centres of cells from the points or the table that the configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from cellstamp.errors import InputError
from cellstamp.source.find.annotations import find_table
from cellstamp.source.find.elements import element_kind
from cellstamp.source.find.masks import listing
from cellstamp.source.find.placement import Matrix, between, differing, placements, point_placements
from cellstamp.source.find.table_joins import rows_in_mask
from cellstamp.source.library_messages import quiet
from cellstamp.source.ome import metadata_of
from cellstamp.source.points import as_coordinates, checked_centers, read_frame
from cellstamp.source.read.arrays import PixelArray
from cellstamp.source.store_root import open_root
from cellstamp.source.table_columns import read_column
from cellstamp.source.values import Centers

_HINT = "give another name, or remove the key centers: then they are computed from the labels"


def given_centers(labels: PixelArray, name: str) -> Centers:
    """Read the centres of the cells of a mask from points or from a table of its store.

    Parameters
    ----------
    labels
        The mask.
    name
        Name of points or of a table. Points have the columns x and y (by name, or exactly two columns in this order).
        Their transformations map them to the mask's pixels. The cell ids are the index, or the column that is their
        instance key. A table has x and y in ``obsm["spatial"]``, in pixels of the mask; rows that annotate the mask
        are used. If all rows annotate shapes, x and y are in coordinates of the shapes, and a column has the ids in
        the mask.

    Raises
    ------
    InputError
        If the element is missing, or invalid as centres of this mask.
    """
    root = open_root(labels.store)
    kinds = [kind for kind in ("points", "tables") if f"{kind}/{name}" in root]
    where = f"centers: {' and '.join(kinds)} '{name}' in {labels.store}"
    if len(kinds) == 2:
        raise InputError(f"{where}: both points and a table have this name; rename one of them")
    if not kinds:
        raise _missing(root, labels.store, name)
    read = {"points": _of_points, "tables": _of_table}[kinds[0]]
    return read(root, labels, name, where)


def _missing(root: zarr.Group, store: str, name: str) -> InputError:
    points, tables = (sorted(root[kind].keys()) if kind in root else [] for kind in ("points", "tables"))  # type: ignore[union-attr]
    other = element_kind(root, name)
    return InputError(
        f"centers: no points and no table named '{name}' in {store}; points there are: {listing(points)}; tables: "
        f"{listing(tables)}" + (f"; '{name}' is one of its {other}" if other else "")
    )


def _of_points(root: zarr.Group, labels: PixelArray, name: str, where: str) -> Centers:
    table = read_frame(labels.store, name)
    if table is None:
        raise InputError(f"{where}: the table (points.parquet) is missing, or the server does not list its files")
    attributes: Any = root[f"points/{name}"].attrs.asdict()
    key = (attributes.get("spatialdata_attrs") or {}).get("instance_key")
    if key is not None and key not in table:
        columns = listing([str(column) for column in table.columns])
        raise InputError(f"{where}: the column '{key}' (instance key) is missing; it has {columns}; {_HINT}")
    ids = (table.index if key is None else table[key]).to_numpy()
    rest = table if key is None else table.drop(columns=[key])
    if {"x", "y"} <= set(rest.columns):
        rest = rest[["x", "y"]]
    if rest.shape[1] != 2:
        columns = listing([str(column) for column in rest.columns])
        raise InputError(f"{where}: must have the columns x and y; it has {columns}; {_HINT}")
    xy = as_coordinates(rest, where, _HINT)
    xy = _transformed(xy, _to_pixels(root, labels, point_placements(attributes), where))
    return checked_centers(ids, xy, where, _HINT, id_column="the index" if key is None else f"the column '{key}'")


def _to_pixels(root: zarr.Group, labels: PixelArray, here: Mapping[str, Matrix], where: str) -> Matrix:
    """Return the matrix from coordinates of the points to pixels of the labels, for (y, x, 1)."""
    there = placements(metadata_of(root, f"labels/{labels.name}"))
    shared = sorted(set(here) & set(there))
    if not shared:
        raise InputError(
            f"{where}: no coordinate system in common with labels '{labels.name}' (centres: {listing(list(here))}; "
            f"labels: {listing(list(there))}). Set one with spatialdata.transformations.set_transformation"
        )
    try:
        way = between(here[shared[0]], there[shared[0]])
        back = {system: between(there[system], here[system]) for system in shared}  # compared in pixels of the labels
    except np.linalg.LinAlgError as error:
        raise InputError(
            f"{where}: centres or labels '{labels.name}' have no extent in one of {listing(shared)}"
        ) from error
    odd = differing(dict.fromkeys(shared, back[shared[0]]), back)
    if odd:
        raise InputError(
            f"{where}: their position on labels '{labels.name}' in '{shared[0]}' differs from that in {listing(odd)}. "
            "Correct the transformations with spatialdata.transformations.set_transformation"
        )
    return way


def _transformed(xy: NDArray[np.float64], way: Matrix) -> NDArray[np.float64]:
    if np.array_equal(way, np.eye(3)):
        return xy  # exactly the stored values
    return (xy[:, ::-1] @ way[:2, :2].T + way[:2, 2])[:, ::-1]


def _of_table(root: zarr.Group, labels: PixelArray, name: str, where: str) -> Centers:
    group: Any = root[f"tables/{name}"]
    keys = group.attrs.asdict()
    if not (keys.get("region_key") and keys.get("instance_key")):
        raise InputError(f"{where}: the table annotates no element (region_key or instance_key is missing); {_HINT}")
    with quiet():
        read = partial(read_column, group["obs"], where=where)
        regions, ids = read(keys["region_key"]), read(keys["instance_key"])
    of_mask, shapes = regions == labels.name, _shapes_of(root, regions)
    if not of_mask.any() and shapes is None:
        there = listing(sorted(map(str, set(regions.tolist()))))
        raise InputError(f"{where}: its rows annotate {there}, not the mask '{labels.name}'; {_HINT}")
    xy, column = _spatial(group, where), f"the column '{keys['instance_key']}'"
    if of_mask.any() and ids.dtype.kind in "iu":
        return checked_centers(ids[of_mask], xy[of_mask], where, _HINT, id_column=column)
    joined = rows_in_mask(find_table(name, labels.store, labels.store, where), (labels,), where)
    if shapes is not None:
        xy = _transformed(xy, _to_pixels(root, labels, point_placements(shapes), where))
    rows = joined.rows & (joined.ids > 0)
    return checked_centers(joined.ids[rows], xy[rows], where, _HINT)


def _shapes_of(root: zarr.Group, regions: NDArray[Any]) -> Mapping[str, Any] | None:
    """Return the attributes of the shapes that all rows of a table annotate; None if rows annotate something else."""
    names = set(regions.tolist())
    path = f"shapes/{next(iter(names), '')}"
    return root[path].attrs.asdict() if len(names) == 1 and path in root else None


def _spatial(table: Any, where: str) -> NDArray[np.float64]:
    obsm = table.get("obsm", {})
    found = obsm.get("spatial")
    if not isinstance(found, zarr.Array) or found.ndim != 2 or found.shape[1] < 2 or found.dtype.kind not in "uif":
        has = f"{found.shape} {found.dtype}" if isinstance(found, zarr.Array) else f"obsm has {listing(sorted(obsm))}"
        raise InputError(f"{where}: obsm['spatial'] must contain x and y, numbers (n, 2); {has}; {_HINT}")
    return np.asarray(found[...], np.float64)[:, :2]
