"""Check what a model returns for a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cellstamp.errors import InputError

_SHOWN = 5
_WANTED = "it must return a tensor (n, d): a row of numbers for each cell"
_REMEDIES = {
    1: "Add an axis, as in: lambda images: model(images)[:, None]",
    3: "For a transformer, take the class token, as in: lambda images: model(images)[:, 0]",
    4: "Average feature maps, as in: lambda images: model(images).mean((2, 3))",
}
"""How to make rows of a result, by its number of axes."""


def as_rows(returned: Any, ids: NDArray[np.uint64], n_columns: int | None) -> NDArray[np.float32]:
    """Return what a model returned for some cells as an array.

    Parameters
    ----------
    ids
        uint64 (n_cells,): ids of the cells.
    n_columns
        Number of columns of earlier batches; None: this is the first one.

    Returns
    -------
    numpy.ndarray
        float32 (n_cells, n_columns).

    Raises
    ------
    InputError
        If it is something else, or has values that are not finite.
    """
    shape = _shape_of(returned)
    if len(shape) != 2:
        remedy = _REMEDIES.get(len(shape), "")
        raise InputError(f"model: returned the shape {shape} for {len(ids)} cells; {_WANTED}. {remedy}".rstrip())
    if shape[0] != len(ids):
        raise InputError(f"model: returned {shape[0]} rows for {len(ids)} cells; {_WANTED}")
    if shape[1] == 0 or shape[1] != (n_columns or shape[1]):
        of = "" if n_columns is None else f", and {n_columns} for earlier cells"
        raise InputError(f"model: returned {shape[1]} numbers for each cell{of}; {_WANTED}, the same d for all cells")
    rows = _as_array(returned)
    _check_finite(rows, ids)
    return rows


def _shape_of(returned: Any) -> tuple[int, ...]:
    if isinstance(returned, torch.Tensor | np.ndarray):
        return tuple(returned.shape)
    if isinstance(returned, Mapping):
        names = [str(name) for name in returned]
        example = repr(names[0] if names else "name")
        message = f"model: returned a dict with {', '.join(names) or 'nothing'}; {_WANTED}. Choose one, as in: "
        raise InputError(f"{message}lambda images: model(images)[{example}]")
    if isinstance(returned, list | tuple):
        message = f"model: returned a {type(returned).__name__} of {len(returned)}; {_WANTED}. Choose one, as in: "
        raise InputError(f"{message}lambda images: model(images)[0]")
    raise InputError(f"model: returned {type(returned).__name__}; {_WANTED}")


def _as_array(returned: torch.Tensor | NDArray[Any]) -> NDArray[np.float32]:
    tensor = torch.as_tensor(returned)
    if tensor.is_complex():
        raise InputError(f"model: returned complex numbers ({tensor.dtype}); {_WANTED}, such as their absolute values")
    return np.ascontiguousarray(tensor.detach().to("cpu", torch.float32).numpy())


def _check_finite(rows: NDArray[np.float32], ids: NDArray[np.uint64]) -> None:
    is_wrong = ~np.isfinite(rows).all(axis=1)
    if is_wrong.any():
        shown = ", ".join(map(str, ids[is_wrong][:_SHOWN])) + (", ..." if is_wrong.sum() > _SHOWN else "")
        raise InputError(
            f"model: returned NaN or infinite values for {is_wrong.sum()} of {len(ids)} cells (ids {shown}). Look for "
            "divisions by zero, as for images without contrast; with precision='float16', try 'bfloat16' or 'float32'"
        )
