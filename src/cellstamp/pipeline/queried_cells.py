"""Choose cells by a condition on the features of an earlier extraction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellstamp.config_rules import CellChoice, FeatureQuery
from cellstamp.errors import ConfigError, InputError
from cellstamp.h5sc.feature_table import features_beside, has_features, inputs_of, read_columns
from cellstamp.h5sc.layout import CELL_ID
from cellstamp.location import Location
from cellstamp.pipeline.resume_check import signatures
from cellstamp.similar_names import did_you_mean
from cellstamp.source.find.selection import ChosenCells, find_cells
from cellstamp.source.read.arrays import PixelSource

_SHOWN = 10
"""Names in a message."""


def find_chosen(cells: CellChoice, source: PixelSource, handler: Any) -> ChosenCells | None:
    """Return the cells that a configuration chooses, see `find_cells` and `find_queried`; None: all."""
    if not isinstance(cells, FeatureQuery):
        return find_cells(cells, source, handler)
    table = _table_at(cells)
    _check_measured_on(table, cells, source)
    return _find_in(table, cells)


def _check_measured_on(table: Location, choice: FeatureQuery, source: PixelSource) -> None:
    """Check that features were measured on the mask of this run: another one has other cells with these ids.

    Raises
    ------
    InputError
        If they were not, or are damaged.
    """
    inputs, (mask, found) = inputs_of(table), next(iter(signatures([source.main_mask]).items()))
    if inputs and inputs.get(mask) != found:
        problem = "has changed since, or is of another slide" if mask in inputs else "is another mask"
        raise InputError(
            f"cells: the features in {choice.path} were measured on other cells: {mask!r} of this run {problem}. "
            "Extract features of this mask, and give their path"
        )


def find_queried(choice: FeatureQuery) -> ChosenCells:
    """Return the cells whose features fulfil a condition.

    Parameters
    ----------
    choice
        Path of a table of features, or of a file or store of single-cell images with features; and a condition for
        `pandas.DataFrame.query`, on features and on columns of ``obs``.

    Raises
    ------
    ConfigError
        If the condition is invalid, or no cell fulfils it.
    InputError
        If there are no features at the path, or they are damaged.
    """
    return _find_in(_table_at(choice), choice)


def _find_in(found: Location, choice: FeatureQuery) -> ChosenCells:
    table, names = read_columns(found, choice.query)
    if CELL_ID not in table:
        raise InputError(f"cells: {choice.path} is not a table of features: its obs lacks {CELL_ID}")
    origin = f"cells = features {str(choice.path)!r}, query {choice.query!r}"
    fulfils = _evaluate(table, choice.query, [*table.columns, *names], origin)
    if not fulfils.any():
        raise ConfigError(f"{origin}: none of {len(table)} cells fulfils it")
    return ChosenCells(np.sort(table[CELL_ID].to_numpy(np.uint64)[fulfils]), origin)


def _table_at(choice: FeatureQuery) -> Location:
    path = choice.path
    found = features_beside(path) if has_features(path) else path
    is_folder = found.is_dir() and found.suffix != ".zarr"
    if is_folder or not found.exists():
        problem = f"{path} is a folder" if is_folder else f"there are no features at {path}"
        raise InputError(
            f"cells: {problem}. Give the path of a features.h5ad or features.zarr, or of the single-cell images "
            "beside it"
        )
    return found


def _evaluate(table: pd.DataFrame, query: str, known: Sequence[str], origin: str) -> NDArray[np.bool_]:
    try:
        # no variables of this program
        fulfils = table.eval(query, engine="python", local_dict={}, global_dict={})
    except NameError as error:
        name = str(getattr(error, "name", None) or str(error).split("'")[1])
        names = list(dict.fromkeys(known))
        more = f", ... ({len(names)} in all)" if len(names) > _SHOWN else ""
        hint = did_you_mean(name, known) or f"; there are {', '.join(names[:_SHOWN])}{more}"
        raise ConfigError(f"{origin}: there is no feature {name!r}{hint}") from error
    except (SyntaxError, ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
        raise ConfigError(f"{origin}: {error}. Write a condition, like cell__area > 400") from error
    values = np.asarray(fulfils)
    if values.dtype != np.bool_ or values.shape != (len(table),):
        raise ConfigError(f"{origin}: must be true or false for each cell, like cell__area > 400")
    return values
