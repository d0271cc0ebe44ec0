"""Read and write centres of cells as points of a store."""

from __future__ import annotations

import io
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.config_rules import LARGEST_ID
from cellstamp.errors import InputError
from cellstamp.location import below, is_remote
from cellstamp.source import ome
from cellstamp.source.names import centers_of
from cellstamp.source.values import Centers, SharedIds

if TYPE_CHECKING:
    import pandas as pd

    from cellstamp.source.load.staging import Staging

# dask's name for an unnamed index; SpatialData writes it
_INDEX = "__null_dask_index__"
_COMPUTE = "delete the points: then centres are computed from the labels"


def write_points(staging: Staging, name: str, centers: Centers, labels: str | None = None) -> None:
    """Write centres as the points `name`: columns x and y (float64, pixels), index = cell id (uint64).

    ``labels`` is the signature of their labels.
    """
    import pandas as pd

    index = pd.Index(np.asarray(centers.ids, dtype=np.uint64), name=_INDEX)
    table = pd.DataFrame({"x": centers.xy[:, 0], "y": centers.xy[:, 1]}, index=index)
    shared_ids = None if centers.shared is None else asdict(centers.shared)
    attributes = ome.points_attributes(format_=staging.format, labels=labels, shared_ids=shared_ids)
    write_frame(staging, name, table, attributes)


def write_frame(staging: Staging, name: str, table: pd.DataFrame, attributes: dict[str, Any]) -> None:
    """Write the points `name` as a table with these columns and this index."""
    folder = staging.group(f"points/{name}", attributes) / "points.parquet"
    folder.mkdir()
    table.to_parquet(folder / "part.0.parquet")


def labels_of_points(store: Path, name: str) -> str | None:
    """Return the signature of the labels that the points `name` were computed from; None if it was not recorded."""
    signature: str | None = _cellstamp_attributes(store, name).get("labels")
    return signature


def shared_ids_of_points(store: Path, name: str) -> SharedIds | None:
    """Return the evidence, from when the points `name` were computed, that ids are not one cell each; or None."""
    try:
        return SharedIds(**_cellstamp_attributes(store, name)["shared_ids"])
    except (KeyError, TypeError):  # no evidence, or from another version of cellstamp
        return None


def _cellstamp_attributes(store: Path, name: str) -> dict[str, Any]:
    """Return cellstamp's attributes of points."""
    try:
        return dict(ome.read_attributes(store / "points" / name).get(ome.OURS) or {})
    except InputError:
        return {}


def load_centers(store: str | os.PathLike[str], labels_name: str) -> Centers | None:
    """Read the stored centres of the cells of labels; None if there are none.

    Raises
    ------
    InputError
        If the points are invalid as centres; see `read_points`.
    """
    return read_points(store, Path(centers_of(labels_name)).name)


def read_points(store: str | os.PathLike[str], name: str) -> Centers | None:
    """Read the points `name` as centres: columns by position (x, then y), index = cell id.

    Returns
    -------
    Centers or None
        By ascending id; None if the store has no such points.

    Raises
    ------
    InputError
        If the points are invalid as centres: other than two columns of finite numbers, ids other than integers
        from 1 to 2**63 - 1, or a repeated id.
    """
    table, where = read_frame(store, name), f"points {name!r} in {store}"
    if table is None:
        return None
    if table.shape[1] != 2:
        columns = ", ".join(map(str, table.columns))
        raise InputError(f"{where}: must have two columns, x and y; it has {table.shape[1]} ({columns}); {_COMPUTE}")
    return checked_centers(table.index.to_numpy(), as_coordinates(table, where, _COMPUTE), where, _COMPUTE)


def n_points(store: Path, name: str) -> int | None:
    """Return the number of the points `name`, read from metadata of their files; None if there are none."""
    import pyarrow.parquet

    path = store / "points" / name / "points.parquet"
    if not path.exists():
        return None
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    return sum(int(pyarrow.parquet.read_metadata(file).num_rows) for file in files)


def read_frame(store: str | os.PathLike[str], name: str) -> pd.DataFrame | None:
    """Read the table of the points `name`; None if it is missing, or if a server does not list its files.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    path = str(below(os.fspath(store), f"points/{name}/points.parquet"))
    try:
        return _read_remote(path) if is_remote(path) else _read_local(Path(path))
    except (OSError, ValueError) as error:
        raise InputError(f"points {name!r} in {store}: the table cannot be read: {error}") from error


def _read_local(path: Path) -> pd.DataFrame | None:
    """Read a table: a folder of files, or a single file."""
    import pandas as pd
    import pyarrow.parquet

    if not path.exists():
        return None
    parts = [*path.iterdir()] if path.is_dir() else [path]
    if len(parts) == 1 and parts[0].is_file() and parts[0].name[0] not in "._":
        # the usual case: pandas would first import what joins many files, which takes 0.1 s
        return pyarrow.parquet.ParquetFile(parts[0]).read().to_pandas()
    return pd.read_parquet(path)


def _read_remote(path: str) -> pd.DataFrame | None:
    """Read all files of a table: a folder of files, or a single file."""
    import fsspec
    import pandas as pd

    files, place = fsspec.core.url_to_fs(path)
    try:
        parts = sorted(part for part in files.find(place) if part.endswith(".parquet"))
    except FileNotFoundError:
        return None
    # by number: dask names them part.0.parquet, part.1.parquet, ..., part.10.parquet
    parts.sort(key=len)
    tables = [pd.read_parquet(io.BytesIO(files.cat_file(part))) for part in parts]
    return pd.concat(tables) if tables else None


def as_coordinates(columns: pd.DataFrame, where: str, hint: str) -> NDArray[np.float64]:
    """Return two columns, x and y, as a float64 array (n, 2).

    Raises
    ------
    InputError
        If they are not numbers.
    """
    if any(dtype.kind not in "uif" for dtype in columns.dtypes):
        raise InputError(f"{where}: x and y must be numbers, not {', '.join(map(str, columns.dtypes))}; {hint}")
    return np.asarray(columns.to_numpy(dtype=np.float64))


def checked_centers(
    ids: NDArray[Any], xy: NDArray[np.float64], where: str, hint: str, *, id_column: str = "the index"
) -> Centers:
    """Make centres of ids and positions, in any order.

    Parameters
    ----------
    ids
        Integers (n,), ids of the cells.
    xy
        float64 (n, 2), their centres in pixels.
    where, hint, id_column
        For messages: the element, the fix, and the column of ids.

    Raises
    ------
    InputError
        If ids are not integers from 1 to 2**63 - 1, an id is repeated, or a centre is not finite.
    """
    if ids.dtype.kind not in "ui":
        raise InputError(f"{where}: {id_column} must have integer cell ids; its dtype is {ids.dtype}; {hint}")
    wrong = (ids < 1) | (ids > LARGEST_ID)
    if wrong.any():
        raise InputError(f"{where}: cell id {ids[wrong][0]} is invalid; ids are from 1 to 2**63 - 1; {hint}")
    broken = ~np.isfinite(xy).all(axis=1)
    if broken.any():
        raise InputError(f"{where}: the centre of cell {ids[broken][0]} is not finite; {hint}")
    order = np.argsort(ids, kind="stable")
    ids, xy = ids[order].astype(np.uint64), xy[order]
    twice = ids[1:][ids[1:] == ids[:-1]]
    if twice.size:
        raise InputError(f"{where}: cell {twice[0]} has more than one centre; {hint}")
    return Centers(ids, xy)
