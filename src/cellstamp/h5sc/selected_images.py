"""Select cells and channels of an `.h5sc` file, and read only those images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellstamp.errors import ConfigError, InputError
from cellstamp.h5sc.chunks import look_into
from cellstamp.h5sc.columns import chosen_by
from cellstamp.h5sc.layout import CELL_ID, IMAGES, OURS
from cellstamp.h5sc.many_images import MANY, path_of
from cellstamp.h5sc.opening import open_h5sc
from cellstamp.location import Location, is_path, location_of
from cellstamp.similar_names import did_you_mean

_EXAMPLES = 5
"""Number of ids in a message."""
_ONE = 0x3C00
"""Bits of 1 as float16; those of lower numbers without a sign are lower."""
_VALIDATE = "cellstamp validate lists all damage"


@dataclass(frozen=True)
class SelectedImages:
    """The cells and planes of a file or an `AnnData`, and a way to read some of their images.

    Attributes
    ----------
    where
        The file, for messages.
    cell_ids
        uint64 (n_cells,), in the order of the file.
    plane_names
        Masks, then channels.
    n_masks
        Number of masks among the planes.
    image_size
        Side of a single-cell image in pixels.
    dtype
        Stored pixel type.
    is_normalized
        Whether the file says that its channels are normalised.
    read_obs
        Reads the table of cells.
    read_plane
        Row and number of the plane -> stored image (y, x).
    pixel_size
        Width of a pixel of the images in micrometres. None: not in the file.
    is_scaled_by_cell
        Whether the file says that each cell was normalised by itself.
    path
        The file, if all its cells are in the order of the file. None: subset of an `AnnData`, or images in memory.
    """

    where: str
    cell_ids: NDArray[np.uint64]
    plane_names: tuple[str, ...]
    n_masks: int
    image_size: int
    dtype: np.dtype[Any]
    is_normalized: bool
    read_obs: Callable[[], pd.DataFrame]
    read_plane: Callable[[int, int], NDArray[Any]]
    pixel_size: float | None = None
    is_scaled_by_cell: bool = False
    path: Location | None = None

    @property
    def mask_names(self) -> tuple[str, ...]:
        """Names of the masks."""
        return self.plane_names[: self.n_masks]

    def rows_of(self, cells: Any, n: int | None = None) -> NDArray[np.int64]:
        """Return the rows of cells: int64 (n_rows,).

        Parameters
        ----------
        cells
            Ids, in the order of the result. Or a boolean for each cell, or the name of a boolean column of ``obs``.
            None: all cells.
        n
            Largest number of cells chosen by None or booleans; they are evenly spaced. None: no limit.

        Raises
        ------
        ConfigError
            If `n` or `cells` is invalid, or no cell is chosen.
        InputError
            If the file has no cells, or lacks one of these.
        """
        if not self.cell_ids.size:
            raise InputError(f"{self.where} has no cells")
        if isinstance(cells, str):
            return self._some_of(self._chosen_by(cells), n, cells)
        wanted = np.atleast_1d(_as_array(np.ones(self.cell_ids.size, np.bool_) if cells is None else cells))
        if not wanted.size:
            raise ConfigError(f"cells: no cells are selected. Give cell ids, such as [{self._examples()}]")
        return self._some_of(wanted, n) if wanted.dtype.kind == "b" else self._with_ids(wanted, cells)

    def _chosen_by(self, column: str) -> NDArray[np.bool_]:
        obs = self.read_obs()
        if column in self.plane_names and column not in obs:
            raise ConfigError(f"cells = {column!r}: this is a channel or mask; write channels={column!r}")
        return chosen_by(obs, column, self.where)

    def _some_of(self, mask: NDArray[np.bool_], n: int | None, name: str = "the boolean mask") -> NDArray[np.int64]:
        _check_count(n)
        of_all = f"{self.cell_ids.size:,} cells of {self.where}"
        if mask.shape != self.cell_ids.shape:
            raise ConfigError(
                f"cells: {name} has the shape {mask.shape}; it must have one value for each of the {of_all}"
            )
        if not mask.any():
            raise ConfigError(f"cells: {name} is False for all {of_all}")
        rows = np.flatnonzero(mask)
        if n is None:
            return rows
        return np.asarray(rows[np.unique(np.linspace(0, rows.size - 1, min(n, rows.size)).round().astype(np.int64))])

    def _with_ids(self, wanted: NDArray[Any], cells: Any) -> NDArray[np.int64]:
        if wanted.dtype.kind not in "ui" or wanted.ndim != 1:
            raise ConfigError(
                f"cells = {_short(cells)}: must be cell ids (integers), such as [{self._examples()}], a boolean for "
                "each cell, or the name of a boolean column of obs"
            )
        order = np.argsort(self.cell_ids, kind="stable")
        # numpy compares signed with unsigned integers as floats, which changes large ids
        ids = wanted.astype(np.uint64)
        places = np.searchsorted(self.cell_ids, ids, sorter=order).clip(0, order.size - 1)
        rows: NDArray[np.int64] = order[places].astype(np.int64)
        missing = wanted[(self.cell_ids[rows] != ids) | (wanted < 0)]
        if missing.size:
            raise InputError(
                f"cells: {missing.size} of {wanted.size} ids are not in {self.where}: "
                f"{_list(missing)}. It has {self.cell_ids.size:,} cells, such as {self._examples()}"
            )
        return rows

    def planes_of(self, channels: str | int | Sequence[str | int] | None) -> list[int]:
        """Return the numbers of planes by name or number, in this order. None: all channels, without the masks.

        Raises
        ------
        ConfigError
            If a name or number is unknown, a name is ambiguous, or the list is empty.
        """
        if channels is None:
            return list(range(self.n_masks, len(self.plane_names)))
        names = [channels] if isinstance(channels, str | int | np.integer) else list(channels)
        if not names:
            raise ConfigError(f"channels = {channels!r}: must name at least one; {self.where} has {self._planes()}")
        return [self._plane_of(name) for name in names]

    def _plane_of(self, name: Any) -> int:
        if not isinstance(name, str):
            return self._plane_numbered(name)
        if self.plane_names.count(name) > 1:
            raise ConfigError(f"channels: {self.where} has several named {name!r}: pass the number instead")
        if name in self.plane_names:
            return self.plane_names.index(name)
        hint = did_you_mean(name, self.plane_names) or "."
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

    def scaled_image(self, row: int, planes: Sequence[int]) -> NDArray[np.float32]:
        """Read some planes of one cell: float32 (n_planes, y, x) from 0 to 1; errors as for `stored`."""
        return self.scaled(self.stored(row, planes))

    def stored(self, row: int, planes: Sequence[int]) -> NDArray[Any]:
        """Read some planes of one cell: (n_planes, y, x), as stored.

        Raises
        ------
        InputError
            If they cannot be read, or have values outside 0 to 1.
        """
        try:
            read = [self.read_plane(row, plane) for plane in planes]
        except OSError as error:
            raise InputError(
                f"{self.where}: the image of cell {self.cell_ids[row]} cannot be read: {error}; {_VALIDATE}"
            ) from error
        image = np.asarray(read, self.dtype).reshape(-1, self.image_size, self.image_size)
        self._check_values(image[np.newaxis], [row], planes)
        return image

    def in_pieces(
        self, rows: NDArray[np.int64], planes: Sequence[int]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Read some planes of cells, in any order; errors as for `stored`.

        Yields
        ------
        places, images
            int64 (n,): places of the cells in ``rows``; and their images (n, n_planes, y, x), as stored.
        """
        if self.path is None or (len(rows) < MANY and self.path.is_file()):
            yield from ((np.array([k]), self.stored(row, planes)[np.newaxis]) for k, row in enumerate(rows.tolist()))
            return
        from cellstamp.h5sc.stamp_file import StampFile  # imports numba

        for places, images in StampFile(look_into(self.path), rows, np.array(planes)).in_pieces():
            self._check_values(images, rows[places].tolist(), planes)
            yield places, images

    def reader_of(self, rows: NDArray[np.int64], planes: Sequence[int]) -> Callable[[NDArray[np.int64]], NDArray[Any]]:
        """Return a function that reads some planes of cells, by their places in ``rows``, in the order of the places.

        It returns images (n, n_planes, y, x), as stored; errors as for `stored`.
        """
        if self.path is None or (len(rows) < MANY and self.path.is_file()):
            return lambda places: np.array([self.stored(row, planes) for row in rows[places].tolist()], self.dtype)
        from cellstamp.h5sc.stamp_file import StampFile  # imports numba

        file = StampFile(look_into(self.path), rows, np.array(planes))

        def read(places: NDArray[np.int64]) -> NDArray[Any]:
            images = np.empty((len(places), len(planes), self.image_size, self.image_size), self.dtype)
            for piece in file.pieces(places, np.arange(len(places))):
                piece.fetch().decode(images, piece.places)
            self._check_values(images, rows[places].tolist(), planes)
            return images

        return read

    def _check_values(self, images: NDArray[Any], rows: Sequence[int], planes: Sequence[int]) -> None:
        if self.dtype.kind == "u":  # every integer stands for a value from 0 to 1
            return
        if self.dtype == np.float16 and images.size and images.view(np.uint16).max() <= _ONE:
            return  # a tenth of the time of comparing float16
        # NaN fails both comparisons
        wrong = np.argwhere(~((images >= 0) & (images <= self._unit)).all(axis=(2, 3)))
        if wrong.size:
            cell, plane = wrong[0]
            raise InputError(
                f"{self.where}: the image of cell {self.cell_ids[rows[cell]]} is damaged: "
                f"{self.plane_names[planes[plane]]} has values outside 0 to 1; {_VALIDATE}"
            )

    def scaled(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Convert stored values to float32 from 0 to 1."""
        return np.asarray(stored, np.float32) / np.float32(self._unit)

    @property
    def _unit(self) -> int:
        """The stored value of 1."""
        return int(np.iinfo(self.dtype).max) if self.dtype.kind in "ui" else 1


def _as_array(cells: Any) -> NDArray[Any]:
    """Return an array. NumPy makes floats of a list with an integer from 2**63, which changes large ids."""
    array = np.asarray(cells)
    if (
        array.dtype.kind == "f"
        and isinstance(cells, Sequence)
        and all(type(cell) is int and cell >= 0 for cell in cells)
    ):
        return np.array(cells, np.uint64)
    return array


def _check_count(n: object) -> None:
    if n is not None and (isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1):
        raise ConfigError(f"n = {n!r}: must be the number of cells to show, an integer >= 1")


def _list(ids: NDArray[Any]) -> str:
    return ", ".join(map(str, ids[:_EXAMPLES].tolist())) + (", ..." if ids.size > _EXAMPLES else "")


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


@contextmanager
def selected_images(h5sc: Any) -> Iterator[SelectedImages]:
    """Open a file by its path, or use an `AnnData` from `read_h5sc`, or a subset of it.

    Raises
    ------
    InputError
        If it is none of these, or is not an `.h5sc` file.
    """
    if is_path(h5sc):
        with closing(open_h5sc(location_of(h5sc))) as file:
            yield _of_file(file, str(h5sc))
        return
    if not isinstance(h5sc, anndata.AnnData):
        raise InputError(
            f"h5sc is {type(h5sc).__name__}: must be the path of an .h5sc file, or the AnnData from read_h5sc(path) or "
            "project.h5sc. An extraction without cells writes no file"
        )
    yield _of_anndata(h5sc)


def _of_file(file: Any, where: str) -> SelectedImages:
    read, images = anndata.io.read_elem, file[f"obsm/{IMAGES}"]
    if f"obs/{CELL_ID}" not in file:
        raise InputError(f"{where} is not an .h5sc file: obs has no {CELL_ID}")
    about = read(file[f"uns/{IMAGES}"]) if f"uns/{IMAGES}" in file else images.attrs
    ids = np.asarray(file[f"obs/{CELL_ID}"])
    look = _made(where, ids, read(file["var"]), about, images, lambda: read(file["obs"]), lambda k, p: images[k, p])
    return replace(look, path=path_of(file), **_scales(read(file[f"uns/{OURS}"]) if f"uns/{OURS}" in file else {}))


def _of_anndata(data: anndata.AnnData) -> SelectedImages:
    if IMAGES not in data.obsm or CELL_ID not in data.obs or "channels" not in data.var:
        raise InputError(
            f"the AnnData is not from an .h5sc file with its images: it must have obsm['{IMAGES}'], obs['{CELL_ID}'] "
            "and var['channels']. Read the file with read_h5sc(path)"
        )
    # obsm of a view reads all its images: take views of single rows instead
    sample = data[:1].obsm[IMAGES] if data.is_view else data.obsm[IMAGES]
    file = getattr(sample, "file", None)
    where = "a subset of an AnnData" if data.is_view else file.filename if file is not None else "the AnnData"

    def read_plane(row: int, plane: int) -> NDArray[Any]:
        return np.asarray(data[row : row + 1].obsm[IMAGES][0, plane] if data.is_view else sample[row, plane])

    ids, about = data.obs[CELL_ID].to_numpy(), data.uns.get(IMAGES, {})
    look = _made(where, ids, data.var, about, sample, lambda: data.obs, read_plane)
    path = None if data.is_view or file is None else path_of(file)
    return replace(look, path=path, **_scales(data.uns.get(OURS, {})))


def _scales(ours: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scales of pixels and intensities, from ``uns/cellstamp``."""
    settings = ours.get("settings", {})
    by_cell = bool(settings.get("normalize_output", False)) and settings.get("normalization_scope") == "cell"
    size = float(settings["crop_pixel_size"][1]) if "crop_pixel_size" in settings else None
    return {"pixel_size": size, "is_scaled_by_cell": by_cell}


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
        dtype=np.dtype(images.dtype),
        is_normalized=bool(about.get("normalization", False)),
        read_obs=read_obs,
        read_plane=read_plane,
    )
