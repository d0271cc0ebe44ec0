"""Choose channels, cells and labels of each file from the arguments of loaders."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellstamp.errors import ConfigError, InputError
from cellstamp.h5sc.chunks import StoredStamps
from cellstamp.h5sc.columns import chosen_by, column_of
from cellstamp.h5sc.feature_table import names_of_features, read_feature
from cellstamp.similar_names import did_you_mean

_EXAMPLES = 5
"""Number of cell ids in a message."""


def check_alike(files: Sequence[StoredStamps]) -> None:
    """Check that the images of all files have one size.

    Raises
    ------
    InputError
        If the sizes of two files differ.
    """
    first = files[0]
    for other in files[1:]:
        if other.image_size != first.image_size:
            message = (
                f"path: all files must have the same image size, but {first.path} has {first.image_size} pixels and "
                f"{other.path} has {other.image_size}"
            )
            raise InputError(message)


def choose_planes(files: Sequence[StoredStamps], channels: Any) -> list[NDArray[np.int64]]:
    """Return the numbers of the chosen planes of each file, in the order of the result."""
    if channels is None:
        _check_same_channels(files)
        return [np.arange(len(file.channel_names)) for file in files]
    wanted = [channels] if isinstance(channels, (str, int, np.integer)) else list(channels)
    if not wanted:
        message = "channels = []: must name at least one; None means all"
        raise ConfigError(message)
    return [np.array([_plane(file, channel) for channel in wanted]) for file in files]


def _check_same_channels(files: Sequence[StoredStamps]) -> None:
    first = files[0]
    for other in files[1:]:
        if other.channel_names != first.channel_names:
            message = (
                f"path: all files must have the same channels, but {first.path} has {', '.join(first.channel_names)} "
                f"and {other.path} has {', '.join(other.channel_names)}. Choose channels with channels=[...]"
            )
            raise InputError(message)


def _plane(file: StoredStamps, channel: Any) -> int:
    names = file.channel_names
    if isinstance(channel, str):
        if channel not in names:
            hint = did_you_mean(channel, names) or "."
            raise ConfigError(f"channels: {file.path} has no {channel!r}{hint} It has {', '.join(names)}")
        if names.count(channel) > 1:
            message = f"channels: {file.path} has {names.count(channel)} named {channel!r}: pass their numbers instead"
            raise ConfigError(message)
        return names.index(channel)
    if isinstance(channel, bool) or not isinstance(channel, (int, np.integer)) or not 0 <= channel < len(names):
        message = f"channels: {file.path} has no {channel!r}: must be a name, or a number from 0 to {len(names) - 1}"
        raise ConfigError(message)
    return int(channel)


# --- cells ------------------------------------------------------------------------------------------------------------


def choose_rows(files: Sequence[StoredStamps], cells: Any) -> list[NDArray[np.int64]]:
    """Return the rows of the chosen cells of each file: ids in their order, others in the order of the file."""
    if cells is None:
        return [np.arange(len(file)) for file in files]
    if isinstance(cells, str):
        return [np.flatnonzero(chosen_by(file.obs, cells, file.path)) for file in files]
    if _is_nested(cells) or (isinstance(cells, (list, tuple)) and any(isinstance(part, str) for part in cells)):
        _check_one_per_file(files, cells, "cells")
        return [choose_rows([file], part)[0] for file, part in zip(files, cells, strict=True)]
    values = np.asarray(cells)
    if values.dtype.kind == "b":
        return _masked(files, values)
    if values.ndim != 1 or (values.dtype.kind not in "iu" and values.size):
        message = (
            f"cells: is {values.dtype} of shape {values.shape}; must be cell ids (integers), a boolean for each cell, "
            "or the name of a boolean column of obs"
        )
        raise ConfigError(message)
    return _with_ids(files, values)


def _masked(files: Sequence[StoredStamps], mask: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    bounds = np.cumsum([0, *(len(file) for file in files)])
    if mask.shape != (bounds[-1],):
        message = (
            f"cells: the boolean mask has the shape {mask.shape}; it must have one value for each of the {bounds[-1]} "
            "cells"
        )
        raise ConfigError(message)
    return [np.flatnonzero(mask[start:end]) for start, end in pairwise(bounds)]


def _with_ids(files: Sequence[StoredStamps], ids: NDArray[Any]) -> list[NDArray[np.int64]]:
    known, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        message = f"cells: ids are repeated: {_examples(known[counts > 1])}. Pass each id once"
        raise ConfigError(message)
    found = [np.where(ids < 0, -1, pd.Index(file.cell_ids).get_indexer(ids.astype(np.uint64))) for file in files]
    absent = ids[np.all([rows < 0 for rows in found], axis=0)]
    if absent.size:
        message = f"cells: ids are missing in {_named(files)}: {_examples(absent)}"
        raise ConfigError(message)
    return [rows[rows >= 0].astype(np.int64) for rows in found]


# --- labels -----------------------------------------------------------------------------------------------------------


def choose_labels(files: Sequence[StoredStamps], rows: Sequence[NDArray[np.int64]], labels: Any) -> NDArray[Any] | None:
    """Return the labels of the chosen cells of all files in one array."""
    if labels is None:
        return None
    if isinstance(labels, str):
        return _joined([_of_column(file, of, labels) for file, of in zip(files, rows, strict=True)])
    if _is_nested(labels):
        _check_one_per_file(files, labels, "labels")
        parts = [_of_file(file, of, part) for file, of, part in zip(files, rows, labels, strict=True)]
        return _joined(parts)
    values = np.asarray(labels)
    n_cells = sum(len(file) for file in files)
    if values.shape == (len(files),):
        return np.asarray(np.repeat(values, [len(of) for of in rows]))
    if values.shape == (n_cells,):
        starts = np.cumsum([0, *(len(file) for file in files)])
        places = [start + of for start, of in zip(starts[:-1], rows, strict=True)]
        return np.asarray(values[np.concatenate(places)])
    message = (
        f"labels: has the shape {values.shape}; must have one label for each of the {len(files)} files, one for each "
        f"of their {n_cells} cells, or be a list with one array for each file, or the name of a column of obs"
    )
    raise ConfigError(message)


def _of_file(file: StoredStamps, rows: NDArray[np.int64], labels: Any) -> NDArray[Any]:
    values = np.asarray(labels)
    if values.ndim == 0:
        return np.repeat(values, len(rows))
    if values.shape != (len(file),):
        message = f"labels: {file.path} has {len(file)} cells, but its labels have the shape {values.shape}"
        raise ConfigError(message)
    return values[rows]


def _of_column(file: StoredStamps, rows: NDArray[np.int64], name: str) -> NDArray[Any]:
    column, called = _column(file, name)
    column = column.iloc[rows]
    absent = column.isna().to_numpy()
    if absent.any():
        ids = file.cell_ids[rows][absent]
        message = f"labels: {called} of {file.path} lacks values for {absent.sum()} cells: {_examples(ids)}"
        raise ConfigError(message)
    return np.asarray(column)


def _column(file: StoredStamps, name: str) -> tuple[pd.Series[Any], str]:
    """Return a column of obs, or a feature, and its name in messages."""
    features = [] if name in file.obs else names_of_features(file.path)
    if name in features:
        return pd.Series(read_feature(file.path, features.index(name))), f"feature {name!r}"
    if hint := did_you_mean(name, features):
        raise ConfigError(f"labels: {file.path} has no column of obs and no feature named {name!r}{hint}")
    if name not in file.obs and not features and "__" in name:
        raise ConfigError(
            f"labels: {file.path} has no column {name!r} in obs, and no table of features beside it. Extract with "
            "features: true"
        )
    return column_of(file.obs, name, "labels", file.path), f"obs[{name!r}]"


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    kinds = {"number" if part.dtype.kind in "biuf" else "text" for part in parts}
    if len(kinds) > 1:
        message = "labels: some files have numbers, others text; all must have the same kind"
        raise ConfigError(message)
    return np.concatenate(parts) if kinds == {"number"} else np.concatenate([part.astype(str) for part in parts])


# --- both -------------------------------------------------------------------------------------------------------------


def _is_nested(values: Any) -> bool:
    """Check whether an argument has one part for each file."""
    return isinstance(values, (list, tuple)) and any(part is None or np.ndim(part) for part in values)


def _check_one_per_file(files: Sequence[StoredStamps], parts: Sequence[Any], key: str) -> None:
    if len(parts) != len(files):
        message = f"{key}: has {len(parts)} parts for {len(files)} files; must have one for each file"
        raise ConfigError(message)


def _named(files: Sequence[StoredStamps]) -> str:
    others = f" or the {len(files) - 1} other files" if len(files) > 1 else ""
    return f"{files[0].path}{others}"


def _examples(ids: NDArray[Any]) -> str:
    shown = ", ".join(map(str, ids[:_EXAMPLES]))
    return shown if len(ids) <= _EXAMPLES else f"{shown}, ... ({len(ids)} in all)"
