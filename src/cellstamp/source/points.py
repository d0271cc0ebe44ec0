"""The centres of the cells <-> a table of points in a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cellstamp.errors import InputError
from cellstamp.source import ome
from cellstamp.source.staging import Staging

if TYPE_CHECKING:
    import pandas as pd

    from cellstamp.source.centers import Centers

# The name dask gives the index of a table without one, and takes off again: what SpatialData writes.
_INDEX = "__null_dask_index__"
_LARGEST_ID = 2**63 - 1


def write_points(staging: Staging, name: str, centers: Centers) -> None:
    """Write centres as the points `name`: columns x and y (float64, pixels), index = cell id (uint64)."""
    import pandas as pd

    folder = staging.group(f"points/{name}", ome.points_attributes(format_=staging.format)) / "points.parquet"
    folder.mkdir()
    index = pd.Index(np.asarray(centers.ids, dtype=np.uint64), name=_INDEX)
    table = pd.DataFrame({"x": centers.xy[:, 0], "y": centers.xy[:, 1]}, index=index)
    table.to_parquet(folder / "part.0.parquet")


def read_points(store: Path, name: str) -> Centers | None:
    """Read the points `name` as centres: columns by position (x, then y), index = cell id.

    Returns
    -------
    Centers or None
        By ascending id; None when the store has no such points.

    Raises
    ------
    InputError
        When the table cannot be one of centres: not two columns of finite numbers, ids that are no whole numbers
        from 1 to 2**63 - 1, or an id twice.
    """
    path = store / "points" / name / "points.parquet"
    if not path.exists():
        return None
    import pandas as pd

    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(f"points {name!r} in {store}: the table cannot be read: {error}") from error
    return _as_centers(table, f"points {name!r} in {store}")


def _as_centers(table: pd.DataFrame, where: str) -> Centers:
    from cellstamp.source.centers import Centers

    hint = "delete the points, and they are computed again from the labels"
    if table.shape[1] != 2:
        columns = ", ".join(map(str, table.columns))
        raise InputError(f"{where}: must have two columns, x and y, has {table.shape[1]} ({columns}); {hint}")
    if any(dtype.kind not in "uif" for dtype in table.dtypes):
        raise InputError(f"{where}: x and y must be numbers, are {', '.join(map(str, table.dtypes))}; {hint}")
    ids, xy = table.index.to_numpy(), table.to_numpy(dtype=np.float64)
    if ids.dtype.kind not in "ui":
        raise InputError(f"{where}: the index must hold the cell ids, whole numbers; it is {table.index.dtype}; {hint}")
    wrong = (ids < 1) | (ids > _LARGEST_ID)
    if wrong.any():
        raise InputError(f"{where}: cell id {ids[wrong][0]}: must be from 1 to 2**63 - 1; {hint}")
    broken = ~np.isfinite(xy).all(axis=1)
    if broken.any():
        raise InputError(f"{where}: the centre of cell {ids[broken][0]} is not finite; {hint}")
    order = np.argsort(ids, kind="stable")
    ids, xy = ids[order].astype(np.uint64), xy[order]
    twice = ids[1:][ids[1:] == ids[:-1]]
    if twice.size:
        raise InputError(f"{where}: cell {twice[0]} has more than one centre; {hint}")
    return Centers(ids, xy)
