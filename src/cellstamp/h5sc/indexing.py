"""Index images on disk as numpy indexes arrays in memory: unsorted, repeated, negative and boolean selections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Read = Callable[[Any], NDArray[Any]]
"""Reads integers and slices with positive steps."""
_MOST_TOGETHER = 64
"""Cells read together; limits the memory beside the result."""
_Part = int | slice | NDArray[np.int64]
"""Selection along one axis."""


def read_as_numpy(read: Read, shape: Sequence[int], dtype: np.dtype[Any], args: Any) -> NDArray[Any]:
    """Read a selection with the same result as numpy. Only the selected images are read, each of them once.

    Parameters
    ----------
    read
        Reads integers and slices with positive steps.
    shape, dtype
        Shape (n_cells, n_planes, y, x) and pixel type of the images on disk.
    args
        Argument of ``images[args]``: integers, slices, lists, integer and boolean arrays, and an Ellipsis.

    Returns
    -------
    numpy.ndarray
        The selected images.

    Raises
    ------
    IndexError
        If an index is out of bounds, there are more indices than axes, or a mask has another shape than its axes.
    """
    if all(map(is_basic, listed(args))):
        return read(args)
    parts = parts_of(listed(args), shape)
    rows, *others = parts
    if isinstance(rows, np.ndarray) and rows.ndim == 1 and not any(isinstance(part, np.ndarray) for part in others):
        return _read_rows(read, shape, dtype, rows, others)
    axes = [_wanted(part, size) for part, size in zip(parts, shape, strict=True)]
    block = _read_block(read, dtype, [wanted for wanted, _ in axes])
    return np.asarray(block[tuple(places for _, places in axes)])


def listed(args: Any) -> tuple[Any, ...]:
    """Return the parts of an index, which commas separate."""
    return args if isinstance(args, tuple) else (args,)


def is_basic(part: Any) -> bool:
    """Check whether h5py reads this part of an index as numpy does."""
    if isinstance(part, slice):
        return part.step is None or part.step > 0
    # h5py rejects names and other objects
    return not isinstance(part, list | range | np.ndarray)


def parts_of(args: Sequence[Any], shape: Sequence[int]) -> list[_Part]:
    """Return one selection for each axis; errors as for `read_as_numpy`."""
    given = [_as_index(each) for each in args]
    n_used = sum(each.ndim if _is_mask(each) else 1 for each in given if each is not Ellipsis)
    if sum(each is Ellipsis for each in given) > 1:
        message = "an index has several '...': only one '...' is allowed"
        raise IndexError(message)
    if n_used > len(shape):
        message = f"too many indices: the images have {len(shape)} axes, {n_used} were indexed"
        raise IndexError(message)
    filling = [slice(None)] * (len(shape) - n_used)
    at = next((number for number, each in enumerate(given) if each is Ellipsis), len(given))
    parts: list[_Part] = []
    for each in [*given[:at], *filling, *given[at + 1 :]]:
        parts += _checked(each, len(parts), shape)
    return parts


def _as_index(part: Any) -> Any:
    if part is Ellipsis or isinstance(part, slice):
        return part
    index = np.asarray(part)
    if isinstance(part, list) and not index.size:
        index = index.astype(np.int64)
    if index.dtype.kind not in "iub" or (index.dtype.kind == "b" and not index.ndim):
        message = f"images are indexed by integers, slices, booleans and '...', not by {part!r}"
        raise IndexError(message)
    return index


def _is_mask(part: Any) -> bool:
    return isinstance(part, np.ndarray) and part.dtype.kind == "b"


def _checked(part: Any, axis: int, shape: Sequence[int]) -> list[_Part]:
    """Replace masks by the indices that they select, and negative indices by those from the start."""
    if isinstance(part, slice):
        return [part]
    if _is_mask(part):
        if part.shape != tuple(shape[axis : axis + part.ndim]):
            message = (
                f"the boolean mask has the shape {part.shape}, the images have {tuple(shape[axis : axis + part.ndim])}"
            )
            raise IndexError(message)
        return list(part.nonzero())
    wrong = part[(part < -shape[axis]) | (part >= shape[axis])]
    if wrong.size:
        message = f"index {wrong.flat[0]} is out of bounds for axis {axis} with size {shape[axis]}"
        raise IndexError(message)
    index = part.astype(np.int64)
    index = np.where(index < 0, index + shape[axis], index)
    return [index if index.ndim else int(index)]


def _read_rows(
    read: Read, shape: Sequence[int], dtype: np.dtype[Any], rows: NDArray[np.int64], others: Sequence[Any]
) -> NDArray[Any]:
    """Read cells directly to their places in the result: no second copy of all of them is in memory."""
    order = np.argsort(rows, kind="stable")
    in_file = rows[order]
    out = np.empty(0, dtype)
    for _, run in _runs(np.unique(rows)) if rows.size else [(slice(0), slice(0))]:
        block = read_as_numpy(read, shape, dtype, (run, *others))
        out = out if out.size else np.empty((rows.size, *block.shape[1:]), dtype)
        begin, end = np.searchsorted(in_file, (run.start or 0, run.stop))
        out[order[begin:end]] = block[in_file[begin:end] - (run.start or 0)]
    return out


def _wanted(part: _Part, size: int) -> tuple[NDArray[np.int64], Any]:
    """Return the sorted indices to read, and how numpy gets the selection from them."""
    if isinstance(part, slice):
        indices = np.arange(size)[part]
        is_forward = part.step is None or part.step > 0
        return (indices, slice(None)) if is_forward else (indices[::-1], slice(None, None, -1))
    if isinstance(part, int):
        return np.array([part]), 0
    indices, places = np.unique(part, return_inverse=True)
    return indices, places.reshape(part.shape)


def _read_block(read: Read, dtype: np.dtype[Any], wanted: Sequence[NDArray[np.int64]]) -> NDArray[Any]:
    """Read all combinations of sorted indices."""
    rows, planes, y, x = wanted
    block = np.empty([indices.size for indices in wanted], dtype)
    for row_places, run in _runs(rows):
        for plane_places, plane_run in _runs(planes):
            block[row_places, plane_places] = read((run, plane_run))[..., y[:, None], x]
    return block


def _runs(indices: NDArray[np.int64]) -> Iterator[tuple[slice, slice]]:
    """Divide sorted indices into ranges without gaps: their places among the indices, and the range."""
    ends = [*(np.flatnonzero(np.diff(indices) != 1) + 1).tolist(), indices.size]
    for begin, end in pairwise([0, *ends]):
        for start in range(begin, end, _MOST_TOGETHER):
            stop = min(start + _MOST_TOGETHER, end)
            yield slice(start, stop), slice(int(indices[start]), int(indices[stop - 1]) + 1)
