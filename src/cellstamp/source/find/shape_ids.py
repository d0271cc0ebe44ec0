"""Number cells that are given as shapes, and match the shapes of nuclei to those of cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.config_rules import LARGEST_ID
from cellstamp.errors import InputError
from cellstamp.source.find.masks import listing
from cellstamp.source.find.shape_keys import Match, ShapesElement, are_whole, columns_naming_cells, match_nuclei
from cellstamp.source.id_columns import SHAPE_COLUMNS
from cellstamp.source.names import CYTOSOL_SHAPES
from cellstamp.source.outlines import OutlineCollector, centers_of

_SHOWN = 3


@dataclass(frozen=True)
class NumberedCells:
    """Cells of a mask.

    Attributes
    ----------
    ids
        uint64 (n,), ascending.
    numbers
        int64 (n,): numbers of their outlines.
    centers
        float64 (n, 2).
    names
        Their ids in the element: integers or texts (n,).
    unpaired
        Ids in the element of the cells without a nucleus, which are left out.
    """

    ids: NDArray[np.uint64]
    numbers: NDArray[np.int64]
    centers: NDArray[np.float64]
    names: NDArray[Any]
    unpaired: NDArray[Any] = field(default_factory=lambda: np.empty(0, np.int64))


def number_cells(
    elements: Sequence[ShapesElement], collector: OutlineCollector, *, with_labels: bool
) -> tuple[list[NumberedCells], list[str]]:
    """Give each cell an id: its index if that is a positive integer for all, else 1, 2, ... in the element's order.

    Parameters
    ----------
    elements
        One or two; of two, the first has the nuclei.
    collector
        Their outlines; gets those of cells with several nuclei.
    with_labels
        Whether the ids must be ids of labels.

    Returns
    -------
    list, list
        The cells of each element, and sentences about cells that are left out.

    Raises
    ------
    InputError
        If an id is repeated, missing or invalid, if two elements have no ids in common, or if ids are not those of
        labels.
    """
    for element in elements:
        _check_index(element)
    first = elements[0]
    if len(elements) == 1:
        ids = _as_ids(first.index)
        if ids is None and with_labels:
            raise InputError(
                f"{first.where}: its index must have the ids of the labels, positive integers; it has "
                f"{_shown(first.index)}. Set it: sdata['{first.name}'].index = ..."
            )
        return [_cells(first, np.arange(first.index.size), ids)], []
    return _match(elements[0], elements[1], collector)


def _cells(element: ShapesElement, rows: NDArray[np.int64], ids: NDArray[np.uint64] | None) -> NumberedCells:
    """Return the cells of some outlines of an element, ascending by id; without ids, numbered in their order."""
    ids = np.arange(1, rows.size + 1).astype(np.uint64) if ids is None else ids
    order = np.argsort(ids, kind="stable")
    rows, found = rows[order], element.found
    return NumberedCells(ids[order], found.first + rows, found.centers[rows], element.index[rows])


def _match(
    nuclei: ShapesElement, cells: ShapesElement, collector: OutlineCollector
) -> tuple[list[NumberedCells], list[str]]:
    """Number the cells that have a nucleus; nuclei of one cell are drawn together."""
    match = match_nuclei(nuclei, cells)
    rows, names = match.rows, match.theirs.values
    of_nuclei, of_cells = np.flatnonzero(rows >= 0), np.unique(rows[rows >= 0])
    if not of_cells.size:
        raise InputError(f"{nuclei.where} and {cells.where} have no ids in common: {_why_none(nuclei, cells)}")
    known = _as_ids(names) if names.size == cells.index.size else None
    every_id = np.arange(1, cells.index.size + 1).astype(np.uint64) if known is None else known
    numbered = _cells(cells, of_cells, every_id[of_cells])
    remarks = _remarks(nuclei, cells, match, of_cells.size)
    paired = _merged(nuclei, of_nuclei, every_id[rows[of_nuclei]], numbered.names, collector)
    return [paired, replace(numbered, unpaired=np.delete(cells.index, of_cells))], remarks


def _why_none(nuclei: ShapesElement, cells: ShapesElement) -> str:
    """Return the ids of elements that have none in common, and a fix."""
    if (match_nuclei(cells, nuclei).rows >= 0).any():
        return f"they seem to be swapped: use '{cells.name}' as nucleus and '{nuclei.name}' as cytosol"
    columns = columns_naming_cells(nuclei, cells)
    if columns:
        return (
            f"the {columns[0].words} of '{nuclei.name}' has {_shown(columns[0].values)}, the index of '{cells.name}' "
            f"has {_shown(cells.index)}. Correct the column, or give both the same index"
        )
    return (
        f"their indexes have {_shown(nuclei.index)} and {_shown(cells.index)}. Give both the same ids, or the nuclei a "
        f"column with the ids of the cells: {listing(SHAPE_COLUMNS)}"
    )


def _merged(
    nuclei: ShapesElement,
    rows: NDArray[np.int64],
    ids: NDArray[np.uint64],
    names: NDArray[Any],
    collector: OutlineCollector,
) -> NumberedCells:
    """Return the nuclei by the id of their cell; several nuclei of one become one mask."""
    order = np.argsort(ids, kind="stable")
    rows, ids = rows[order], ids[order]
    unique, first, counts = np.unique(ids, return_index=True, return_counts=True)
    numbers, centers = nuclei.found.first + rows[first], nuclei.found.centers[rows[first]]
    several = np.flatnonzero(counts > 1)
    if several.size:
        members = np.flatnonzero(np.isin(ids, unique[several]))
        merged = collector.outlines().take(nuclei.found.first + rows[members]).grouped(counts[several])
        numbers[several] = len(collector) + np.arange(several.size)
        centers[several] = centers_of(merged.areas_and_centroids()[1])
        collector.add(merged)
    return NumberedCells(unique, numbers, centers, names)


def _remarks(nuclei: ShapesElement, cells: ShapesElement, match: Match, n_cells: int) -> list[str]:
    rows, ours, theirs = match.rows, match.ours, match.theirs
    n_lone, n_without = int((rows < 0).sum()), cells.index.size - n_cells
    n_several = int((np.unique(rows[rows >= 0], return_counts=True)[1] > 1).sum())
    lines = [f"'{nuclei.name}' matched to '{cells.name}' by its {ours.words} and their {theirs.words}: {n_cells} cells"]
    lines += [f"{unused} of '{nuclei.name}' has no id of a cell in '{cells.name}'" for unused in match.unused]
    if n_lone:
        lines.append(f"left out {n_lone} of {rows.size} nuclei without a cell in '{cells.name}'")
    if n_without:
        in_project = f"shapes/{cells.name}" == CYTOSOL_SHAPES
        or_load = ", or use load_segmentation(cytosol=...) into a new project" if in_project else ""
        lines.append(
            f"left out {n_without} of {cells.index.size} cells without a nucleus in '{nuclei.name}'; to extract them "
            f"too, set only cytosol_shapes: {cells.name}{or_load}"
        )
    if n_several:
        lines.append(f"{n_several} cells have several nuclei, which are drawn together")
    return lines


def _check_index(element: ShapesElement) -> None:
    problem = next(_problems(element), None)
    if problem is not None:
        raise InputError(f"{element.where}: its index has {problem}")


def _problems(element: ShapesElement) -> Iterator[str]:
    """Yield what makes the index invalid as ids, with code that corrects it."""
    import pandas as pd

    index, shapes = element.index, f"sdata['{element.name}']"
    numbering = f"Number them: {shapes}.reset_index(drop=True, inplace=True)"
    if element.columns.index.nlevels > 1:
        yield f"{element.columns.index.nlevels} levels; each shape needs one id. {numbering}"
    n_missing = int(pd.isna(index).sum())
    if n_missing:
        without = f"{shapes} = {shapes}[{shapes}.index.notna()]"
        yield f"{n_missing} missing ids of {index.size}; each shape needs one id. Leave them out: {without}"
    if index.dtype.kind == "f":
        yield f"{index[~are_whole(index)][0]}; ids must be integers or texts. {numbering}"
    repeated = pd.Index(index).duplicated()
    if repeated.any():
        yield (
            f"{index[repeated].tolist()[0]!r} more than once; each shape needs one id. Join parts of one cell: "
            f"`joined = {shapes}.dissolve(level=0); joined.attrs = {shapes}.attrs; {shapes} = joined`. Or keep the "
            f"first of each: `{shapes} = {shapes}[~{shapes}.index.duplicated()]`"
        )
    if index.dtype.kind == "O" and "\0" in "".join(map(str, index)):
        example = next(name for name in map(str, index) if "\0" in name)
        corrected = f"{shapes}.index = {shapes}.index.str.replace('\\0', '')"
        yield f"{example!r}; ids must not contain NUL, which no HDF5 file can hold. Remove it: {corrected}"


def _as_ids(index: NDArray[Any]) -> NDArray[np.uint64] | None:
    """Return the ids unchanged if all are positive integers; None: they must be numbered."""
    if index.dtype.kind not in "iu" or (index.size and not (index.min() >= 1 and index.max() <= LARGEST_ID)):
        return None
    return index.astype(np.uint64)


def _shown(values: NDArray[Any]) -> str:
    return listing([repr(value) for value in values[:_SHOWN].tolist()], "nothing") + (
        ", ..." if len(values) > _SHOWN else ""
    )
