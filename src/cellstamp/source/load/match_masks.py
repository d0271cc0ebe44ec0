"""Match the nuclei of one mask to the cells of another by overlap, so that both masks use the same ids."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import ConfigError, InputError
from cellstamp.source.load.checks import check_mask_type
from cellstamp.source.load.mask_overlaps import Ids, Overlaps, blocks_of_both, count_overlaps, starts_of_runs
from cellstamp.source.load.mask_values import as_ids
from cellstamp.source.load.pixels import Pixels, as_pixels, full_resolution
from cellstamp.warnings import warn

_MANY = 0.05
"""A larger fraction of dropped nuclei or cells is a warning."""


@dataclass(frozen=True, eq=False)
class MatchedMasks:
    """Two masks in which a nucleus and its cell have the same id.

    Attributes
    ----------
    nucleus
        The nucleus mask (y, x), in the dtype of the cytosol mask: a NumPy array, or a dask array if given one.
    cytosol
        The cytosol mask, of the same kind.
    nucleus_ids
        uint64 (n,): the id of each nucleus in the given mask, in the order of `cell_ids`.
    cell_ids
        uint64 (n,): the id of the cell of each nucleus, ascending. The matched masks use these ids.
    nuclei_outside
        uint64: ids of nuclei without enough pixels in a cell; dropped.
    extra_nuclei
        uint64: ids of nuclei in a cell that has more pixels of another nucleus; dropped.
    cells_without_nucleus
        uint64: ids of cells without a matching nucleus; dropped.
    """

    nucleus: Any = field(repr=False)
    cytosol: Any = field(repr=False)
    nucleus_ids: Ids
    cell_ids: Ids
    nuclei_outside: Ids
    extra_nuclei: Ids
    cells_without_nucleus: Ids

    def __len__(self) -> int:
        """Return the number of matched cells."""
        return self.cell_ids.size

    def __repr__(self) -> str:
        dropped = [
            f"{ids.size} {one if ids.size == 1 else many} {where}"
            for ids, one, many, where in (
                (self.nuclei_outside, "nucleus", "nuclei", "outside of cells"),
                (self.extra_nuclei, "nucleus", "nuclei", "in a cell with a larger one"),
                (self.cells_without_nucleus, "cell", "cells", "without a nucleus"),
            )
            if ids.size
        ]
        n_nuclei = len(self) + self.nuclei_outside.size + self.extra_nuclei.size
        n_cells = len(self) + self.cells_without_nucleus.size
        loss = f" (dropped {', '.join(dropped)})" if dropped else ""
        return f"Matched {len(self)} of {n_nuclei} nuclei to {len(self)} of {n_cells} cells{loss}"


def match_masks(nucleus: Any, cytosol: Any, *, min_overlap: float = 0.5) -> MatchedMasks:
    """Match nuclei to cells by overlap, and return both masks with the cells' ids.

    Use it if nuclei and cells were segmented separately, so that their ids differ. A nucleus belongs to the cell with
    most of its pixels. A cell keeps the nucleus with most pixels in it. Ties go to the smaller id. Nuclei and cells
    without a partner are dropped from the masks. Matched nuclei and cells keep all of their pixels.

    Parameters
    ----------
    nucleus, cytosol
        Masks (y, x) of equal shape: cell ids of any integer dtype, 0 for background. NumPy, zarr, dask or xarray
        arrays; they are read in blocks.
    min_overlap
        Smallest fraction of a nucleus' pixels in its cell, from 0 (one pixel) to 1 (all pixels).

    Returns
    -------
    MatchedMasks
        The masks as ``nucleus`` and ``cytosol``, and the ids of matched and dropped nuclei and cells.

    Raises
    ------
    InputError
        If a mask is not 2-D or does not hold integers, an id is negative, the shapes differ, or no nucleus matches.
    ConfigError
        If `min_overlap` is not a number from 0 to 1.

    Warns
    -----
    UserWarning
        If more than 5% of the nuclei or of the cells are dropped.

    Examples
    --------
    >>> matched = cellstamp.match_masks(nucleus=nuclei, cytosol=cells)
    >>> project.load_segmentation(nucleus=matched.nucleus, cytosol=matched.cytosol)
    """
    _check_fraction(min_overlap)
    masks = _checked(nucleus, "nucleus"), _checked(cytosol, "cytosol")
    _check_shapes(*masks)
    overlaps = count_overlaps(*masks)
    inside = _cells_of_nuclei(overlaps, min_overlap)
    pairs = _largest_of_each(inside, "cells")
    if not pairs.cells.size:
        raise InputError(_why_none(overlaps, min_overlap))
    dtype = masks[1].dtype
    order = np.argsort(pairs.nuclei)
    found = MatchedMasks(
        _renumbered(nucleus, masks[0], _Renumbering(pairs.nuclei[order], pairs.cells[order], dtype)),
        _renumbered(cytosol, masks[1], _Renumbering(pairs.cells, pairs.cells, dtype)),
        pairs.nuclei,
        pairs.cells,
        nuclei_outside=np.setdiff1d(overlaps.nuclei[overlaps.nuclei > 0], inside.nuclei),
        extra_nuclei=np.setdiff1d(inside.nuclei, pairs.nuclei),
        cells_without_nucleus=np.setdiff1d(overlaps.cells[overlaps.cells > 0], pairs.cells),
    )
    _warn_of_loss(found)
    return found


def _check_fraction(min_overlap: object) -> None:
    is_number = isinstance(min_overlap, (int, float, np.number)) and not isinstance(min_overlap, bool)
    if not is_number or not 0 <= min_overlap <= 1:  # type: ignore[operator]
        raise ConfigError(
            f"min_overlap = {min_overlap!r}: must be a number from 0 to 1, a fraction of a nucleus' pixels"
        )


def _checked(mask: Any, kind: str) -> Pixels:
    if isinstance(mask, (str, bytes)) or hasattr(mask, "__fspath__"):
        raise InputError(
            f"{kind} = {mask!r}: must be an array (y, x), not a path. Read the file first: "
            f"tifffile.imread({str(mask)!r})"
        )
    array = full_resolution(mask)
    check_mask_type(np.dtype(getattr(array, "dtype", np.uint8)), kind)
    pixels = as_pixels(array)
    check_mask_type(pixels.dtype, kind)
    if len(pixels.shape) != 2:
        raise InputError(f"{kind} mask of shape {pixels.shape}: must be 2-D (y, x). Choose a plane, like {kind}[0]")
    return as_ids(pixels, f"{kind} mask", kind)


def _check_shapes(nucleus: Pixels, cytosol: Pixels) -> None:
    if nucleus.shape != cytosol.shape:
        sizes = [f"{mask.shape[0]} x {mask.shape[1]}" for mask in (nucleus, cytosol)]
        raise InputError(
            f"nucleus mask of {sizes[0]} pixels (y, x), cytosol mask of {sizes[1]}: must have the same size. Resample "
            "one to the pixels of the other, or crop both to the same region"
        )


def _cells_of_nuclei(overlaps: Overlaps, min_overlap: float) -> Overlaps:
    """Return the cell with most of each nucleus' pixels, if it has at least the fraction `min_overlap` of them."""
    nuclei, number = np.unique(overlaps.nuclei, return_inverse=True)
    sizes = np.bincount(number, overlaps.n_pixels, nuclei.size)[number]
    both = (overlaps.nuclei > 0) & (overlaps.cells > 0)
    return _largest_of_each(overlaps[both & (overlaps.n_pixels / sizes >= min_overlap)], "nuclei")


def _largest_of_each(pairs: Overlaps, kind: str) -> Overlaps:
    """Return the pair with most pixels of each nucleus or cell, ascending by its id; ties go to the smaller ids."""
    ids = getattr(pairs, kind)
    order = np.lexsort((pairs.cells, pairs.nuclei, -pairs.n_pixels, ids))
    return pairs[order[starts_of_runs(ids[order])]]


def _why_none(overlaps: Overlaps, min_overlap: float) -> str:
    n_nuclei, n_cells = (np.count_nonzero(np.unique(ids)) for ids in (overlaps.nuclei, overlaps.cells))
    for kind, n in (("nucleus", n_nuclei), ("cytosol", n_cells)):
        if not n:
            return f"{kind} mask: all pixels are 0, which is background. Check which array you passed as {kind}"
    wanted = f"at least {min_overlap:.0%} of its pixels" if min_overlap else "a pixel"
    return (
        f"none of the {n_nuclei} nuclei has {wanted} in one of the {n_cells} cells. Check that both masks show the "
        "same region in the same orientation, or set a smaller min_overlap"
    )


def _warn_of_loss(found: MatchedMasks) -> None:
    n_nuclei = found.nuclei_outside.size + found.extra_nuclei.size
    if max(n_nuclei, found.cells_without_nucleus.size) * (1 - _MANY) > _MANY * len(found):
        warn(f"match_masks: {found!r}. Check the masks, or change min_overlap")


@dataclass(frozen=True)
class _Renumbering:
    """Picklable callable that gives the ids of a block new numbers; other ids become 0.

    Attributes
    ----------
    old, new
        uint64 (n,): ids, ascending, and their new numbers.
    dtype
        Type of the result.
    """

    old: Ids
    new: Ids
    dtype: np.dtype[Any]

    def __call__(self, block: NDArray[Any]) -> NDArray[Any]:
        values = block.ravel()
        starts = starts_of_runs(values)
        ids = values[starts].astype(np.uint64)
        places = np.minimum(np.searchsorted(self.old, ids), self.old.size - 1)
        new = np.where(self.old[places] == ids, self.new[places], 0).astype(self.dtype)
        return np.repeat(new, np.diff(starts, append=values.size)).reshape(block.shape)


def _renumbered(mask: Any, pixels: Pixels, renumbering: _Renumbering) -> Any:
    """Return a mask with other ids: a dask array of a dask array, else a NumPy array."""
    array = full_resolution(mask)
    array = array.data if hasattr(array, "dims") else array
    if hasattr(array, "map_blocks"):
        return array.map_blocks(renumbering, dtype=renumbering.dtype, meta=np.zeros((0, 0), renumbering.dtype))
    result = np.zeros(pixels.shape, renumbering.dtype)
    for block in blocks_of_both(pixels, pixels):
        result[block] = renumbering(pixels.read(block))
    return result
