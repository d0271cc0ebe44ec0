"""Check the tables beside a file of single-cell images: features and an embedding."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import anndata
import numpy as np

from cellstamp.errors import InputError
from cellstamp.h5sc.cell_tables import TableKind, is_written
from cellstamp.h5sc.embedding_table import EMBEDDING
from cellstamp.h5sc.feature_table import FEATURES
from cellstamp.h5sc.layout import CELL_ID, MEASURED_IN_PART, OURS
from cellstamp.location import Location


def wrong_features(path: Location, file: Any) -> Iterator[str]:
    """Find differences between the features and the images of a file.

    Parameters
    ----------
    path
        Path of the file.
    file
        The opened file, see `cellstamp.h5sc.opening.open_h5sc`.
    """
    features = yield from _wrong_table(FEATURES, path, file, "Extract again")
    if features is None:
        return
    if MEASURED_IN_PART not in features.obs:
        yield f"{_name(FEATURES, path)}: obs/{MEASURED_IN_PART} is missing"
    if np.isinf(features.X).any():
        yield f"{_name(FEATURES, path)}: values must be finite or NaN"


def wrong_measurements(table: Location) -> Iterator[str]:
    """Find errors in features that were measured without single-cell images."""
    try:
        features = FEATURES.read(table)
    except InputError as error:
        yield str(error)
        return
    n_repeated = int(features.obs[CELL_ID].duplicated().sum())
    if n_repeated:
        yield f"obs/{CELL_ID}: {n_repeated} ids are repeated"
    yield from _repeated_names(features, table.name)
    if np.isinf(features.X).any():
        yield "values must be finite or NaN"


def wrong_embedding(path: Location, file: Any) -> Iterator[str]:
    """Find differences between an embedding and the images of a file; see `wrong_features`."""
    embedding = yield from _wrong_table(EMBEDDING, path, file, "Embed again with overwrite=True")
    if embedding is not None and not np.isfinite(embedding.X).all():
        yield f"{_name(EMBEDDING, path)}: values must be finite"


def _name(kind: TableKind, path: Location) -> str:
    return kind.file_name(path.name)


def _wrong_table(kind: TableKind, path: Location, file: Any, remedy: str) -> Generator[str, None, Any]:
    """Find errors in a table; return the table if its rows are those of the images."""
    own = anndata.io.read_elem(file[f"uns/{OURS}"]) if f"uns/{OURS}" in file else {}
    found = kind.beside(path)
    if not is_written(found):  # none was made, or the file was moved
        return None
    try:
        table = kind.read(found)
    except InputError as error:
        yield str(error)
        return None
    obs = anndata.io.read_elem(file["obs"])
    if len(table) != len(obs):
        yield f"{found.name} has {len(table)} rows for {len(obs)} cells"
        return None
    if str(table.uns.get(OURS, {}).get("fingerprint")) != str(own.get("fingerprint")):
        yield f"{found.name} was made with other settings or input than this file. {remedy}"
    for column in obs:
        if column not in table.obs or table.obs[column].tolist() != obs[column].tolist():
            yield f"obs/{column} differs between {found.name} and this file"
    yield from _repeated_names(table, found.name)
    return table


def _repeated_names(table: anndata.AnnData, name: str) -> Iterator[str]:
    repeated = table.var_names[table.var_names.duplicated()]
    if len(repeated):
        yield f"{name}: {len(repeated)} names of features are repeated, such as {repeated[0]}"
