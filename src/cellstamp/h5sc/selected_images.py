"""Some of the stamps of an `.h5sc` file: those rows and planes that are asked for, and no others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellstamp.errors import ConfigError, InputError
from cellstamp.h5sc.columns import chosen_by
from cellstamp.h5sc.layout import CELL_ID, IMAGES
from cellstamp.h5sc.opening import open_h5sc

_EXAMPLES = 5


@dataclass(frozen=True)
class SelectedImages:
    """What stamps there are, and a way to read some of them.

    Attributes
    ----------
    where
        The file, for messages.
    cell_ids
        uint64 (n_cells,), in the order of the stamps.
    plane_names
        Masks, then channels.
    n_masks
        How many of the planes are masks.
    image_size
        Side of a stamp in pixels.
    is_normalized
        Whether values are stretched over 0 to 1 already.
    unit
        What 1 is stored as.
    read_obs
        Reads the table of the cells.
    read_plane
        Row and number of the plane -> (y, x), as stored.
    """

    where: str
    cell_ids: NDArray[np.uint64]
    plane_names: tuple[str, ...]
    n_masks: int
    image_size: int
    is_normalized: bool
    unit: float
    read_obs: Callable[[], pd.DataFrame]
    read_plane: Callable[[int, int], NDArray[Any]]

    @property
    def mask_names(self) -> tuple[str, ...]:
        """Names of the masks."""
        return self.plane_names[: self.n_masks]

    def rows_of(self, cells: Any, n: int) -> NDArray[np.int64]:
        """Rows of the cells with these ids, in this order; or of `n` cells, evenly taken from those chosen.

        Parameters
        ----------
        cells
            Ids; or None: all are chosen; or true or false for each cell, or the name of such a column of ``obs``.

        Raises
        ------
        ConfigError
            When `n` is no number of cells, or `cells` none of these, or none at all.
        InputError
            When the file has no cells, or not these.
        """
        if not self.cell_ids.size:
            raise InputError(f"{self.where} has no cells")
        if isinstance(cells, str):
            cells = chosen_by(self.read_obs(), cells, self.where)
        wanted = np.atleast_1d(np.asarray(np.ones(self.cell_ids.size, np.bool_) if cells is None else cells))
        return self._some_of(wanted, n) if wanted.dtype.kind == "b" else self._with_ids(wanted, cells)

    def _some_of(self, mask: NDArray[np.bool_], n: int) -> NDArray[np.int64]:
        _check_count(n)
        if mask.shape != self.cell_ids.shape or not mask.any():
            told = f"has the shape {mask.shape}" if mask.shape != self.cell_ids.shape else "is false for all of them"
            raise ConfigError(
                f"cells: a mask must be true or false for each of the {self.cell_ids.size:,} cells of {self.where}, "
                f"and true for some; it {told}"
            )
        rows = np.flatnonzero(mask)
        return np.asarray(rows[np.unique(np.linspace(0, rows.size - 1, min(n, rows.size)).round().astype(np.int64))])

    def _with_ids(self, wanted: NDArray[Any], cells: Any) -> NDArray[np.int64]:
        if wanted.dtype.kind not in "ui" or wanted.ndim != 1 or not wanted.size:
            raise ConfigError(
                f"cells = {_short(cells)}: must be ids of cells, whole numbers, like [{self._examples()}]; or true or "
                "false for each cell; or the name of a column of obs that is"
            )
        order = np.argsort(self.cell_ids, kind="stable")
        # of one type: where signed meets unsigned, numpy compares as floats, and large ids lose digits
        ids = wanted.astype(np.uint64)
        places = np.searchsorted(self.cell_ids, ids, sorter=order).clip(0, order.size - 1)
        rows: NDArray[np.int64] = order[places].astype(np.int64)
        missing = wanted[(self.cell_ids[rows] != ids) | (wanted < 0)]
        if missing.size:
            raise InputError(
                f"cells: {missing.size} of {wanted.size} ids are not in {self.where}: "
                f"{_list(missing)}. It has {self.cell_ids.size:,} cells, like {self._examples()}"
            )
        return rows

    def planes_of(self, channels: str | int | Sequence[str | int] | None) -> list[int]:
        """Numbers of the planes with these names or numbers, in this order; None: of all channels, without the masks.

        Raises
        ------
        ConfigError
            When there is no such plane, more than one of that name, or none is named.
        """
        if channels is None:
            return list(range(self.n_masks, len(self.plane_names)))
        names = [channels] if isinstance(channels, str | int | np.integer) else list(channels)
        if not names:
            raise ConfigError(f"channels = {channels!r}: name one at least; {self.where} has {self._planes()}")
        return [self._plane_of(name) for name in names]

    def _plane_of(self, name: Any) -> int:
        if not isinstance(name, str):
            return self._plane_numbered(name)
        if self.plane_names.count(name) > 1:
            raise ConfigError(f"channels: {self.where} has more than one named {name!r}: give its number instead")
        if name in self.plane_names:
            return self.plane_names.index(name)
        near = get_close_matches(name.lower(), [known.lower() for known in self.plane_names], n=1, cutoff=0.5)
        meant = [known for known in self.plane_names if near and known.lower() == near[0]]
        hint = f"; did you mean {meant[0]!r}?" if meant else "."
        raise ConfigError(f"channels: no channel named {name!r} in {self.where}{hint} It has {self._planes()}")

    def _plane_numbered(self, number: Any) -> int:
        is_number = isinstance(number, int | np.integer) and not isinstance(number, bool)
        if is_number and 0 <= number < len(self.plane_names):
            return int(number)
        raise ConfigError(
            f"channels: {self.where} has no {number!r}: must be a name, or a number from 0 to "
            f"{len(self.plane_names) - 1}, masks first; it has {self._planes()}"
        )

    def _planes(self) -> str:
        masks = f" and the masks {', '.join(self.mask_names)}" if self.n_masks else ""
        return f"the channels {', '.join(self.plane_names[self.n_masks :])}{masks}"

    def _examples(self) -> str:
        return _list(self.cell_ids)

    def stamp(self, row: int, planes: Sequence[int]) -> NDArray[np.float32]:
        """Read some planes of one cell: float32 (planes, y, x), values from 0 to 1.

        Raises
        ------
        InputError
            When they cannot be read, or hold what no stamp holds.
        """
        try:
            read = [self.read_plane(row, plane) for plane in planes]
        except OSError as error:
            raise InputError(
                f"{self.where}: the stamp of cell {self.cell_ids[row]} cannot be read: {error}; cellstamp validate "
                "tells what is damaged"
            ) from error
        stamp = np.asarray(read, np.float32).reshape(-1, self.image_size, self.image_size) / np.float32(self.unit)
        wrong = np.flatnonzero(~((stamp >= 0) & (stamp <= 1)).all(axis=(1, 2)))  # of no number, neither is so
        if wrong.size:
            raise InputError(
                f"{self.where}: the stamp of cell {self.cell_ids[row]} is damaged: "
                f"{self.plane_names[planes[wrong[0]]]} has values that are not from 0 to 1; cellstamp validate tells "
                "what else is"
            )
        return stamp


def _check_count(n: object) -> None:
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ConfigError(f"n = {n!r}: must be how many cells to show, an integer >= 1")


def _list(ids: NDArray[Any]) -> str:
    return ", ".join(map(str, ids[:_EXAMPLES].tolist())) + (", ..." if ids.size > _EXAMPLES else "")


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


@contextmanager
def selected_images(h5sc: Any) -> Iterator[SelectedImages]:
    """Look into a file given by its path, or one that is open: an `AnnData` as of `read_h5sc`, or a part of it.

    Raises
    ------
    InputError
        When it is none of these, or no `.h5sc` file.
    """
    if isinstance(h5sc, str | os.PathLike):
        with closing(open_h5sc(Path(h5sc))) as file:
            yield _of_file(file, os.fspath(h5sc))
        return
    if not isinstance(h5sc, anndata.AnnData):
        raise InputError(
            f"h5sc is {type(h5sc).__name__}: give the path of an .h5sc file, or what read_h5sc(path) or project.h5sc "
            "returns (an extraction that found no cells wrote none)"
        )
    yield _of_anndata(h5sc)


def _of_file(file: h5py.File, where: str) -> SelectedImages:
    read, images = anndata.io.read_elem, file["obsm"][IMAGES]
    if CELL_ID not in file["obs"]:
        raise InputError(f"{where} is not an .h5sc file: obs has no {CELL_ID}")
    about = read(file["uns"][IMAGES]) if IMAGES in file["uns"] else images.attrs
    ids = np.asarray(file["obs"][CELL_ID])
    return _made(where, ids, read(file["var"]), about, images, lambda: read(file["obs"]), lambda k, p: images[k, p])


def _of_anndata(data: anndata.AnnData) -> SelectedImages:
    if IMAGES not in data.obsm or CELL_ID not in data.obs or "channels" not in data.var:
        raise InputError(
            f"the AnnData is not one of an .h5sc file with its images: it needs obsm['{IMAGES}'], obs['{CELL_ID}'] and "
            "var['channels']; read_h5sc(path) returns one"
        )
    # Of a part of an open file, only the row that is looked at: its images as a whole are read when they are named.
    sample = data[:1].obsm[IMAGES] if data.is_view else data.obsm[IMAGES]
    file = getattr(sample, "file", None)
    where = "the part of an AnnData" if data.is_view else file.filename if file is not None else "the AnnData"

    def read_plane(row: int, plane: int) -> NDArray[Any]:
        return np.asarray(data[row : row + 1].obsm[IMAGES][0, plane] if data.is_view else sample[row, plane])

    ids, about = data.obs[CELL_ID].to_numpy(), data.uns.get(IMAGES, {})
    return _made(where, ids, data.var, about, sample, lambda: data.obs, read_plane)


def _made(
    where: str,
    ids: NDArray[Any],
    var: Any,
    about: Any,
    images: Any,
    read_obs: Callable[[], pd.DataFrame],
    read_plane: Callable[[int, int], NDArray[Any]],
) -> SelectedImages:
    kinds = [str(kind) for kind in var["channel_mapping"]] if "channel_mapping" in var else []
    return SelectedImages(
        where=where,
        cell_ids=ids.astype(np.uint64),
        plane_names=tuple(map(str, var["channels"])),
        n_masks=kinds.count("mask"),
        image_size=int(images.shape[-1]),
        is_normalized=bool(about.get("normalization", False)),
        unit=float(np.iinfo(images.dtype).max) if images.dtype.kind in "ui" else 1.0,
        read_obs=read_obs,
        read_plane=read_plane,
    )
