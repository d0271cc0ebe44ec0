"""The tables of a file with single-cell images: everything but the images."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray
from zarr.storage import MemoryStore

from cellstamp.h5sc.layout import ANNOTATION, CELL_ID, EXCEEDS, IMAGES, INSTANCE_ID, REGION, Layout
from cellstamp.h5sc.opening import ROOT

_NAMES = 2**16
_ANNDATA = {"encoding-type": "anndata", "encoding-version": "0.1.0"}


def tables_of(layout: Layout) -> dict[str, Any]:
    """Return the elements of an `AnnData`, in encodings that older readers know (see `as_text`).

    Rows are named when they are written.
    """
    n_cells, n_planes = layout.shape[:2]
    x, y = layout.centers.T
    region = pd.Categorical.from_codes(np.zeros(n_cells, np.int8), categories=as_text([layout.annotated]))
    columns = {CELL_ID: layout.cell_ids, REGION: region, "x": x, "y": y, EXCEEDS: False}
    if layout.instances is not None:
        numbers = layout.instances.dtype.kind in "iu"
        columns[INSTANCE_ID] = layout.instances if numbers else as_text(map(str, layout.instances)).to_numpy()
    # without a copy, which would take as much memory as all columns
    obs = pd.DataFrame(columns, index=pd.RangeIndex(n_cells), copy=False)
    kinds = pd.Categorical(layout.kinds, categories=as_text(sorted(set(layout.kinds))))
    var = pd.DataFrame({"channel_mapping": kinds}, index=as_text(map(str, range(n_planes))))
    var.insert(0, "channels", pd.Series(layout.names, index=var.index, dtype=object))
    return {
        "obs": obs,
        "var": var,
        "obsm": {"spatial": layout.centers},
        "uns": {IMAGES: layout.description(), ANNOTATION: layout.annotation()},
        **{name: {} for name in ("layers", "obsp", "varm", "varp")},
    }


def marks(n_rows: int, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return a column that is true in these rows, such as those of cells that extend beyond their crops."""
    column = np.zeros(n_rows, np.bool_)
    column[rows] = True
    return column


def write_to_file(file: h5py.File, tables: Mapping[str, Any]) -> None:
    """Write tables to a new file, and number their rows."""
    for name, element in tables.items():
        if name == "obs":
            _write_rows(file, element)
        else:
            anndata.io.write_elem(file, name, element)
    file.attrs.update(_ANNDATA)


def _write_rows(file: h5py.File, obs: pd.DataFrame) -> None:
    """Write the table of rows by column, then their names by block: all at once takes 0.1 KiB for each cell."""
    anndata.io.write_elem(file, "obs", obs.iloc[:0].set_axis(as_text([])))
    group = file["obs"]
    for name, column in obs.items():
        is_categorical = isinstance(column.dtype, pd.CategoricalDtype)
        anndata.io.write_elem(group, str(name), column.array if is_categorical else column.to_numpy())
    index = group.attrs["_index"]
    attributes = dict(group[index].attrs)
    del group[index]
    names = group.create_dataset(index, (len(obs),), h5py.string_dtype())
    names.attrs.update(attributes)
    _number(names)


def write_to_store(path: Path, tables: Mapping[str, Any]) -> None:
    """Write tables to a new store, and number their rows; an existing store is replaced."""
    tables["obs"].index = pd.Index(list(map(str, range(len(tables["obs"])))), dtype=object)
    zarr.create_group(path, zarr_format=3, overwrite=True, attributes=_ANNDATA)
    add_to_store(path, tables)


def add_to_store(group: Path, elements: Mapping[str, Any]) -> None:
    """Write elements to a group of a store."""
    # zarr takes 1 ms for each of hundreds of accesses to files
    files: dict[str, Any] = {}
    made = zarr.create_group(MemoryStore(files), zarr_format=3)
    with quiet_writing():
        for name, element in elements.items():
            anndata.io.write_elem(made, name, element)
    for name, content in files.items():
        if name != ROOT:
            (group / name).parent.mkdir(parents=True, exist_ok=True)
            (group / name).write_bytes(content.to_bytes())


def consolidate(store: Path) -> None:
    """List the metadata of all elements in the root of a new store, for remote readers: zarr-python takes 50 ms."""
    root = store / ROOT
    files = sorted(path for path in store.rglob(ROOT) if path != root)
    place = {path: path.parent.relative_to(store).as_posix() for path in files}
    metadata = {place[path]: json.loads(path.read_text(encoding="utf-8")) for path in files}
    about = json.loads(root.read_text(encoding="utf-8"))
    about["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": metadata}
    root.write_text(json.dumps(about), encoding="utf-8")


@contextmanager
def quiet_writing() -> Iterator[None]:
    """Silence notices that change no value: of anndata 0.13 about shards, and of zarr about consolidated metadata."""
    with warnings.catch_warnings():
        for message in ("zarr v3 autosharding", "Consolidated metadata is currently not part"):
            warnings.filterwarnings("ignore", message=message)
        yield


def _number(names: h5py.Dataset) -> None:
    """Name the rows "0", "1", ..., block by block: all names together take 0.2 KiB of memory for each cell.

    Not by the ids: scportrait's tools and plots use these names as row numbers.
    """
    for start in range(0, len(names), _NAMES):
        numbers = range(start, min(start + _NAMES, len(names)))
        names[numbers.start : numbers.stop] = list(map(str, numbers))


def as_text(words: object) -> pd.Index:
    """Return an index of Python strings. anndata stores the default type of pandas 3 in a newer encoding."""
    return pd.Index(list(words), dtype=object)  # type: ignore[call-overload]
