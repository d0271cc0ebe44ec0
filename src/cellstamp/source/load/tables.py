"""Write tables that annotate a mask into a project's store, and rename the mask in them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellstamp.errors import InputError
from cellstamp.source import ome
from cellstamp.source.library_messages import quiet
from cellstamp.source.load.checks import check_free
from cellstamp.source.load.staging import Format, Staging, staged


def annotated(table: Path) -> set[str]:
    """Return the names of the elements that a table annotates."""
    region = ome.read_attributes(table).get("region")
    return {region} if isinstance(region, str) else set(region or ())


def retarget(
    staging: Staging,
    store: Path,
    element: str,
    renamed: Mapping[str, str],
    cell_id_column: str | None,
    *,
    keep_region: bool,
) -> None:
    """Write a table of another store into the staged one, so that it annotates masks by their new names.

    Parameters
    ----------
    staging
        The staged store.
    store, element
        The other store and its table, like ``"tables/measured"``.
    renamed
        Old name of a mask -> new name.
    cell_id_column
        Column with the id of each row's cell; None: the table's instance key.
    keep_region
        Whether the table keeps the mask's old name.

    Raises
    ------
    InputError
        If the column is missing, or does not have integers although a mask is labels.
    """
    with quiet():
        import spatialdata
        from spatialdata.models import TableModel

        # tables are read and written here without their masks
        warnings.filterwarnings("ignore", message="The table is annotating")
        name = Path(element).name
        table = spatialdata.read_zarr(store, selection=("tables",)).tables[name]
        target = table.uns.pop(TableModel.ATTRS_KEY)
        if cell_id_column is not None:
            of_labels = any((store / "labels" / mask).is_dir() for mask in renamed)
            target["instance_key"] = _checked_column(table.obs, cell_id_column, name, of_labels=of_labels)
        if not keep_region:
            _rename_regions(table, target, renamed)
        _write(staging, name, TableModel.parse(table, **target))


def add_table(store: Path, name: str, table: Any, *, overwrite: bool) -> None:
    """Write a table of cells into the store, so that it annotates their mask; the write is atomic.

    Parameters
    ----------
    store
        The project's store.
    name
        Name of the table in the store.
    table
        AnnData with SpatialData's attributes, which name the labels or shapes.
    overwrite
        Whether a table with this name may be replaced.

    Raises
    ------
    InputError
        If the table names no mask, the mask is not in the store, or the name is invalid.
    OutputError
        If the table exists and may not be replaced.
    """
    _check_name(store, name)
    check_free(store, [f"tables/{name}"], overwrite=overwrite)
    with quiet(), staged(store) as staging:
        from spatialdata.models import TableModel

        warnings.filterwarnings("ignore", message="The table is annotating")
        target = dict(table.uns.pop(TableModel.ATTRS_KEY, {}))
        region = target.get("region")
        if not region:
            raise InputError("the extraction does not name the mask of its cells. Extract again with cellstamp")
        if not any((store / kind / region).is_dir() for kind in ("labels", "shapes")):
            raise InputError(f"{store}: the labels or shapes {region!r} of the extraction's cells are missing")
        _write(staging, name, TableModel.parse(table, **target))


def _check_name(store: Path, name: str) -> None:
    """Check a name as SpatialData does: names are unique over all kinds of elements, ignoring case."""
    if not isinstance(name, str) or not re.fullmatch(r"(?!__)[A-Za-z0-9_-][A-Za-z0-9_.-]*", name):
        raise InputError(
            f"name = {name!r}: a table's name must have only letters, digits, '_', '-' and '.', and must not begin "
            "with '.' or '__'"
        )
    taken = [
        f"{path.parent.name}/{path.name}"
        for path in store.glob("*/*")
        if path.is_dir() and path.name.lower() == name.lower() and path != store / "tables" / name
    ]
    if taken:
        raise InputError(f"name = {name!r}: {taken[0]} in {store} has this name; choose another")


def _write(staging: Staging, name: str, table: Any) -> None:
    """Write a table into the staged store with spatialdata."""
    import spatialdata

    folder = staging.root / "tables.zarr"
    spatialdata.SpatialData(tables={name: table}).write(
        folder, overwrite=True, sdata_formats=_container(staging.format)
    )
    (folder / "tables" / name).rename(staging.place(f"tables/{name}"))


def _checked_column(obs: Any, column: str, name: str, *, of_labels: bool) -> str:
    if column not in obs:
        columns = ", ".join(obs.columns)
        raise InputError(f"table {name!r} has no column {column!r} (cell_id_identifier); it has {columns}")
    if of_labels and obs[column].dtype.kind not in "ui":
        raise InputError(
            f"table {name!r}, column {column!r} (cell_id_identifier): must have integer cell ids "
            f"(dtype {obs[column].dtype})"
        )
    return column


def _rename_regions(table: Any, target: dict[str, Any], renamed: Mapping[str, str]) -> None:
    key = target["region_key"]
    values = table.obs[key].astype(str).map(lambda region: renamed.get(region, region))
    table.obs[key] = values.astype("category")
    regions = target["region"]
    listed = [regions] if isinstance(regions, str) else list(regions)
    target["region"] = [renamed.get(region, region) for region in listed]


def _container(format_: Format) -> Any:
    """Return SpatialData's format object for a zarr format."""
    from spatialdata._io.format import SpatialDataContainerFormatV01, SpatialDataContainerFormatV02

    return {2: SpatialDataContainerFormatV01, 3: SpatialDataContainerFormatV02}[format_]()


def write_centers_table(staging: Staging, name: str, table: Any) -> None:
    """Write the part of a table that has centres: ``obs``, ``obsm["spatial"]`` and the attributes."""
    with quiet():
        from spatialdata.models import TableModel

        warnings.filterwarnings("ignore", message="The table is annotating")
        slim = table[:, :0].copy()
        for kept in (slim.obsm, slim.obsp, slim.uns):
            for key in set(kept) - {"spatial", TableModel.ATTRS_KEY}:
                del kept[key]
        _write(staging, name, slim)
