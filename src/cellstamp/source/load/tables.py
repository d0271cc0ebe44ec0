"""Tables that annotate a mask: they follow it to its new name, and come into the project's store."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellstamp.errors import InputError
from cellstamp.source import ome
from cellstamp.source.load.checks import check_free
from cellstamp.source.load.staging import Format, Staging, staged
from cellstamp.source.thirdparty import quiet


def annotated(table: Path) -> set[str]:
    """Return the names of the elements a table annotates."""
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
    """Write a table of another store into the staged one so that it annotates masks under their new names.

    Parameters
    ----------
    staging
        Where to.
    store, element
        The other store, and the table in it, like ``"tables/measured"``.
    renamed
        Old name of a mask -> new name.
    cell_id_column
        Column with the id of each row's cell; None: as the table says.
    keep_region
        Whether it goes on annotating the mask under its old name.

    Raises
    ------
    InputError
        When the table has no such column, or it does not hold whole numbers.
    """
    with quiet():
        import spatialdata
        from spatialdata.models import TableModel

        # Tables are read and written here without the masks they annotate.
        warnings.filterwarnings("ignore", message="The table is annotating")
        name = Path(element).name
        table = spatialdata.read_zarr(store, selection=("tables",)).tables[name]
        target = table.uns.pop(TableModel.ATTRS_KEY)
        if cell_id_column is not None:
            target["instance_key"] = _checked_column(table.obs, cell_id_column, name)
        if not keep_region:
            _rename_regions(table, target, renamed)
        _write(staging, name, TableModel.parse(table, **target))


def add_table(store: Path, name: str, table: Any, *, overwrite: bool) -> None:
    """Write a table of cells into the store, so that it annotates their mask; all of it or nothing.

    Parameters
    ----------
    store
        The project's store.
    name
        The table's name there.
    table
        An AnnData that says which labels it annotates.
    overwrite
        Whether a table of that name may be replaced.

    Raises
    ------
    InputError
        When the table does not say so, the labels are not in the store, or the name cannot be used.
    OutputError
        When there is such a table already, and it may not be replaced.
    """
    _check_name(store, name)
    check_free(store, [f"tables/{name}"], overwrite=overwrite)
    with quiet(), staged(store) as staging:
        from spatialdata.models import TableModel

        warnings.filterwarnings("ignore", message="The table is annotating")
        target = dict(table.uns.pop(TableModel.ATTRS_KEY, {}))
        region = target.get("region")
        if not region:
            raise InputError("the extraction does not say which mask its cells are of: extract again with cellstamp")
        if not (store / "labels" / region).is_dir():
            raise InputError(f"{store}: the extraction's cells are those of {region!r}, and there are no such labels")
        _write(staging, name, TableModel.parse(table, **target))


def _check_name(store: Path, name: str) -> None:
    """Refuse a name that SpatialData would not open again: names are unique over all kinds, whatever their case."""
    if not isinstance(name, str) or not re.fullmatch(r"(?!__)[A-Za-z0-9_-][A-Za-z0-9_.-]*", name):
        raise InputError(f"name = {name!r}: a table's name must be letters, digits, and '_', '-', '.' between them")
    taken = [
        f"{path.parent.name}/{path.name}"
        for path in store.glob("*/*")
        if path.is_dir() and path.name.lower() == name.lower() and path != store / "tables" / name
    ]
    if taken:
        raise InputError(f"name = {name!r}: {taken[0]} in {store} is called so; choose another name")


def _write(staging: Staging, name: str, table: Any) -> None:
    """Write a table into the staged store with spatialdata."""
    import spatialdata

    folder = staging.root / "tables.zarr"
    spatialdata.SpatialData(tables={name: table}).write(
        folder, overwrite=True, sdata_formats=_container(staging.format)
    )
    (folder / "tables" / name).rename(staging.place(f"tables/{name}"))


def _checked_column(obs: Any, column: str, name: str) -> str:
    if column not in obs:
        there = ", ".join(obs.columns)
        raise InputError(f"table {name!r} has no column {column!r} (cell_id_identifier); it has {there}")
    if obs[column].dtype.kind not in "ui":
        raise InputError(
            f"table {name!r}, column {column!r} (cell_id_identifier): must hold cell ids, whole numbers "
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
    """SpatialData's own name for a zarr format."""
    from spatialdata._io.format import SpatialDataContainerFormatV01, SpatialDataContainerFormatV02

    return {2: SpatialDataContainerFormatV01, 3: SpatialDataContainerFormatV02}[format_]()


def write_centers_table(staging: Staging, name: str, table: Any) -> None:
    """Write of a table in memory what tells cells' centres: ``obs``, ``obsm["spatial"]`` and what it annotates."""
    with quiet():
        from spatialdata.models import TableModel

        warnings.filterwarnings("ignore", message="The table is annotating")
        slim = table[:, :0].copy()
        for kept in (slim.obsm, slim.obsp, slim.uns):
            for key in set(kept) - {"spatial", TableModel.ATTRS_KEY}:
                del kept[key]
        _write(staging, name, slim)
