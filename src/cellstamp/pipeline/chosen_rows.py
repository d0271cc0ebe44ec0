"""Find the rows of chosen cells in a finished file: by ids, a CSV file, a column of ``obs``, or a condition."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellstamp.config_rules import FeatureQuery
from cellstamp.errors import ConfigError, InputError
from cellstamp.h5sc.feature_table import has_features
from cellstamp.h5sc.layout import INSTANCE_ID
from cellstamp.h5sc.selected_images import SelectedImages
from cellstamp.pipeline.queried_cells import find_queried
from cellstamp.source.find.id_files import IdColumn, read_ids

_TABLES = (".csv", ".tsv", ".txt")


def chosen_rows(look: SelectedImages, cells: Any) -> NDArray[np.int64]:
    """Return the rows of chosen cells, each once: int64 (n,).

    Parameters
    ----------
    look
        The file.
    cells
        Ids, in the order of the result; a boolean for each cell; a boolean column of ``obs``; a condition on features
        and columns of ``obs``; a CSV file of ids, or a mapping with its ``path`` and the column ``ids``. None: all.

    Raises
    ------
    ConfigError
        If `cells` is invalid, or chooses no cell.
    InputError
        If the file has no cells, or lacks one of these.
    """
    if isinstance(cells, Mapping):
        if set(cells) != {"path", "ids"}:
            raise ConfigError(f"cells = {dict(cells)!r}: a mapping must have 'path', a CSV file, and 'ids', its column")
        return _rows_in(Path(cells["path"]), str(cells["ids"]), look)
    if isinstance(cells, os.PathLike) or (isinstance(cells, str) and cells.lower().endswith(_TABLES)):
        return _rows_in(Path(cells), None, look)
    if isinstance(cells, str) and cells not in look.plane_names and cells not in look.read_obs():
        return _queried(look, cells)
    rows = look.rows_of(cells)
    _, first = np.unique(rows, return_index=True)
    return rows[np.sort(first)]


def _queried(look: SelectedImages, query: str) -> NDArray[np.int64]:
    if look.path is None or not has_features(look.path):
        obs = ", ".join(map(str, look.read_obs().columns))
        raise ConfigError(
            f"cells = {query!r}: {look.where} has no such column, and no features for a condition. It must be cell "
            f"ids, a CSV file, or a boolean column; obs has {obs}"
        )
    return np.sort(look.rows_of(find_queried(FeatureQuery(look.path, query)).ids))  # type: ignore[arg-type]


def _rows_in(path: Path, column: str | None, look: SelectedImages) -> NDArray[np.int64]:
    """Return the rows of the cells in a CSV file, in the order of the images."""
    ids = read_ids(path, column=column, masks=look.mask_names, largest=int(np.iinfo(look.cell_ids.dtype).max))
    obs = look.read_obs()
    if ids.texts:
        return _with_texts(ids, path, obs, look.where)
    if not ids.numbers:
        raise ConfigError(f"cells = {str(path)!r}: the file has no ids")
    if ids.of_program and INSTANCE_ID in obs and pd.api.types.is_integer_dtype(obs[INSTANCE_ID]):
        return _matching(obs[INSTANCE_ID], ids.numbers, path, look.where)
    return np.sort(look.rows_of(np.array(sorted(ids.numbers), np.uint64)))


def _with_texts(ids: IdColumn, path: Path, obs: pd.DataFrame, where: str) -> NDArray[np.int64]:
    if INSTANCE_ID not in obs:
        example = next(iter(sorted(ids.texts)))
        raise ConfigError(
            f"cells = {str(path)!r}: the ids are text, like {example!r}, and {where} has only numbers as ids. Give "
            "values of scportrait_cell_id"
        )
    own = obs[INSTANCE_ID].astype(str)
    is_header = ids.first is not None and ids.first not in set(own)
    texts = ids.texts if ids.first is None or is_header else ids.texts | {ids.first}
    return _matching(own, texts, path, where)


def _matching(own: pd.Series[Any], wanted: frozenset[Any], path: Path, where: str) -> NDArray[np.int64]:
    # Python's integers, not numpy's: it compares signed with unsigned ones as floats
    known = own.tolist()
    unknown = sorted(wanted.difference(known))
    if unknown:
        raise InputError(
            f"cells = {str(path)!r}: {len(unknown)} of {len(wanted)} ids are not in {INSTANCE_ID} of {where}: "
            f"{', '.join(map(str, unknown[:5]))}{', ...' if len(unknown) > 5 else ''}. It has ids like {own.iloc[0]}"
        )
    return np.flatnonzero([each in wanted for each in known])
