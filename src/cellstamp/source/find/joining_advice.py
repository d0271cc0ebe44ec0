"""Advise on a table whose rows cannot be joined to a mask, in words and in code that runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.source.find.annotations import Table
from cellstamp.source.find.placement import placements, point_placements
from cellstamp.source.ome import metadata_of
from cellstamp.source.outlines import OutlineMask
from cellstamp.source.read.arrays import Mask
from cellstamp.source.read.centers import blocks_of
from cellstamp.source.store_root import open_root

_BY_POSITION = """
import spatialdata
from scipy.spatial import KDTree

sdata = spatialdata.read_zarr({store!r})
obs = sdata[{table!r}].obs
theirs = spatialdata.get_centroids(sdata[{region!r}], {system!r}).compute().loc[obs[{key!r}]]
ours = spatialdata.get_centroids(sdata[{mask!r}], {system!r}).compute()
nearest = KDTree(ours[["x", "y"]]).query(theirs[["x", "y"]])[1]
mutual = KDTree(theirs[["x", "y"]]).query(ours[["x", "y"]])[1][nearest] == range(len(nearest))
obs[{mask!r}] = ours.index.to_numpy()[nearest] * mutual
"""


def how_to_join(
    table: Table, masks: Sequence[Mask], origin: str, names: Sequence[Any], looked_for: Sequence[str]
) -> str:
    """Return a message for a table that names cells by text and has no column with their ids in the mask.

    Parameters
    ----------
    table
        The table.
    masks
        The masks.
    origin
        Configuration key that names the table.
    names
        The cells' names in the table.
    looked_for
        Names of columns that would have joined them, besides those named like a mask.
    """
    mask, named = masks[0], ", ".join([*(each.name for each in masks), *looked_for])
    problem = (
        f"{origin}: the table {table.name!r} names cells by text ({quoted(names)}), the mask '{mask.name}' by integers "
        f"({first_ids(mask)}). No column of the table joins them: none named {named} has a different integer for "
        "each cell. If another column has the ids, name it with the key ids, beside table and column"
    )
    code = _code_by_position(table, mask)
    if code is None:
        return f"{problem}; if not, add such a column to the table"
    return f"{problem}. If not, this joins rows and cells nearest to each other; then pass filehandler=sdata:\n{code}"


def _code_by_position(table: Table, mask: Mask) -> str | None:
    """Return code that joins rows to cells by position; None if the table's cells have no position in the store."""
    root: Any = open_root(mask.store)
    region = table.attributes.get("region")
    name = region if isinstance(region, str) else next(iter(region or ()), "")
    if f"shapes/{name}" not in root or isinstance(mask, OutlineMask):
        return None
    here = point_placements(root[f"shapes/{name}"].attrs.asdict())
    there = placements(metadata_of(root, f"labels/{mask.name}"))
    system = next((system for system in here if system in there), None)
    if system is None:
        return None
    key = table.attributes["instance_key"]
    return _BY_POSITION.format(store=mask.store, table=table.name, region=name, system=system, key=key, mask=mask.name)


def first_ids(mask: Mask) -> str:
    """Return the first ids of a mask, for a message: those in the first block with cells."""
    if isinstance(mask, OutlineMask):
        return listing_of(mask.ids)
    for block in blocks_of(mask):
        ids = np.unique(mask.read(block))
        ids = ids[ids > 0]
        if ids.size:
            return listing_of(ids)
    return "none"


def listing_of(ids: NDArray[Any]) -> str:
    """Return the first ids, for a message."""
    return ", ".join(map(str, ids[:3].tolist())) + (", ..." if ids.size > 3 else "")


def quoted(names: Sequence[Any]) -> str:
    """Return the first names in quotes, for a message."""
    return ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
