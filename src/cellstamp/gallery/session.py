"""A gallery without its front end: cells, views, selections, and saving them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellstamp.errors import ConfigError, InputError
from cellstamp.gallery.columns import Column, Columns
from cellstamp.gallery.files import CellImages
from cellstamp.gallery.opening import Found
from cellstamp.gallery.planes import PlaneEncoder, Range, ranges_of
from cellstamp.gallery.saving import ExistsError, SavedIds, checked_name, save_ids
from cellstamp.gallery.selection import Selection, Tags, question_before
from cellstamp.gallery.slide import Overview, Surroundings, overview_of, surroundings_of
from cellstamp.gallery.table import JoinedFeatures, join_features
from cellstamp.gallery.values import Histogram, histogram_of, text_of
from cellstamp.gallery.views import View
from cellstamp.h5sc.cell_columns import Reader, columns_of_images, read_centers
from cellstamp.h5sc.layout import CELL_ID, INSTANCE_ID
from cellstamp.h5sc.tag_column import RESERVED, has_column, write_column

_VIEWS = 4
"""Views whose rows are kept: the current one, and those of other tabs."""
_AROUND = 6
"""Side of the surroundings of a cell / side of its crop."""


class GallerySession:
    """Everything a gallery does, for any front end.

    Parameters
    ----------
    found
        Images, features and store.
    folder
        Folder for files of ids. None: files are not written, the front end downloads them.
    when_selected
        Called after each change of the selection.

    Raises
    ------
    InputError
        If there are no images, or the features are those of other cells.
    """

    def __init__(
        self, found: Found, folder: Path | None = None, when_selected: Callable[[], None] = lambda: None
    ) -> None:
        self.images = CellImages(found.h5sc)
        self.folder, self.store = folder, found.store
        self.features = (
            None if found.features is None else join_features(found.features, self.images.cell_ids, self.images.where)
        )
        self._obs = columns_of_images(found.h5sc)
        self.columns = Columns(_all_columns(self._obs, self.features))
        self.selection = Selection(np.zeros(self.n_cells, np.bool_))
        self.tags = Tags(self.n_cells)
        self.when_selected = when_selected
        self._h5sc, self._given_features = found.h5sc, found.features
        self._views: OrderedDict[View, NDArray[np.int64]] = OrderedDict()

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self.images.n_cells

    @cached_property
    def centers(self) -> NDArray[np.float64] | None:
        """Centres of the cells, x and y in pixels of the image, or None."""
        return read_centers(self._h5sc)

    @cached_property
    def overview(self) -> Overview | None:
        """Picture of all centres."""
        return overview_of(self.centers)

    @cached_property
    def ranges(self) -> list[Range]:
        """Range of each plane."""
        return ranges_of(self.images)

    @cached_property
    def _encoder(self) -> PlaneEncoder:
        return PlaneEncoder(self.images, self.ranges)

    def prepare(self) -> None:
        """Read the tables and compile the decoder, which the first screen would wait for."""
        self.planes(np.zeros(1, np.int64), range(self.images.n_planes), self.images.image_size)
        _ = self.overview

    # --- cells ----------------------------------------------------------------------------------------------------

    def rows(self, view: View) -> NDArray[np.int64]:
        """Return the rows of a view, in order."""
        if view not in self._views:
            self._views[view] = view.rows(self.columns, self.n_cells)
            if len(self._views) > _VIEWS:
                self._views.popitem(last=False)
        self._views.move_to_end(view)
        return self._views[view]

    def planes(self, rows: NDArray[np.int64], planes: Sequence[int], crop: int, step: int = 1) -> NDArray[np.uint8]:
        """Read planes of cells: uint8 (n_cells, n_planes, side, side), see `Range`.

        Raises
        ------
        ConfigError
            If a plane or the size is invalid.
        """
        known = self.images.n_planes
        if not all(0 <= plane < known for plane in planes):
            raise ConfigError(f"planes = {list(planes)}: must be numbers from 0 to {known - 1}")
        if not 1 <= step <= crop <= self.images.image_size:
            raise ConfigError(
                f"crop = {crop}, step = {step}: must be at least 1; crop at most {self.images.image_size}, step at "
                "most crop"
            )
        return self._encoder.encode(rows, planes, crop, step)

    def histogram(self, column: str, view: View, n_bins: int) -> tuple[Histogram, tuple[str, ...]]:
        """Count the cells of a view by a column, without the filter on this column; and the labels of a category."""
        values = self.columns.values(column)
        rows = view.passing(self.columns, self.n_cells, but=column)
        return histogram_of(values, rows, n_bins), values.labels

    def row_of(self, cell: str) -> int:
        """Return the row of a cell by its id, as text.

        Raises
        ------
        InputError
            If there is none.
        """
        number = int(cell) if cell.strip().isdecimal() else -1
        found = np.flatnonzero(self.images.cell_ids == np.uint64(max(number, 0)) if number < 2**64 else [])
        if number < 0 or not found.size:
            examples = ", ".join(map(str, self.images.cell_ids[:3].tolist()))
            raise InputError(f"there is no cell {cell.strip()!r}; ids are numbers such as {examples}")
        return int(found[0])

    def describe(self, row: int) -> list[tuple[str, str]]:
        """Return the names and values of a cell: of ``obs``, tags, and features. Reads nothing of other cells."""
        found = {column.name: column.value(row) for column in self.columns if column.value is not None}
        measured = {} if self.features is None else self.features.values_of(row)
        return [(name, text_of(value)) for name, value in {**found, **measured}.items()]

    def surroundings(self, row: int) -> Surroundings | None:
        """Read the pixels of the slide around a cell; None: the store is missing or has none."""
        if self.centers is None:
            return None
        x, y = self.centers[row].tolist()
        if not np.isfinite([x, y]).all():
            return None
        return surroundings_of(self.store, x, y, _AROUND * self.images.image_size)

    # --- selections -----------------------------------------------------------------------------------------------

    def select(self, rows: NDArray[np.int64], mode: str) -> None:
        """Select or deselect cells, see `Selection.change`."""
        self.selection.change(rows, mode)
        self.when_selected()

    @property
    def selected_ids(self) -> NDArray[np.uint64]:
        """Ids of the selected cells, in the order of the file."""
        return self.images.cell_ids[self.selection.chosen]

    def tag(self, name: str, value: str | None, *, overwrite: bool = False) -> str:
        """Name the selected cells: make a column, which can be filtered and sorted; return its name.

        Raises
        ------
        ConfigError
            If the name is invalid, or is that of a column that was not made here.
        ExistsError
            If other cells would lose their labels in this column, and may not.
        """
        name = checked_name(name, "name")
        kept = name in self.columns and name not in self.tags
        if name in RESERVED or (kept and name not in self._saved):
            raise ConfigError(f"name = {name!r}: this column was measured or extracted; choose another name")
        chosen = self.selection.chosen
        before = self.tags[name] if name in self.tags else self._column_in_table(name) if kept else None
        question = None if before is None else question_before(name, value, chosen, before)
        if question is not None and not overwrite:
            raise ExistsError(question)
        self.tags.put(name, value, chosen, before)
        tags = self.tags
        self.columns.put(Column(name, "tag", partial(tags.__getitem__, name), lambda row: tags[name].iloc[row]))
        self._views = OrderedDict((view, rows) for view, rows in self._views.items() if not _uses(view, name))
        return name

    @cached_property
    def _saved(self) -> set[str]:
        """Columns of the table of features that others than cellstamp, such as a gallery, may have written."""
        return set() if self.features is None else set(self.features.table.obs) - set(self._obs) - set(RESERVED)

    def _column_in_table(self, name: str) -> pd.Series[Any] | None:
        if self.features is None or name not in self.features.table.obs:
            return None
        return self.features.of_gallery(pd.Series(self.features.table.obs[name].column()))

    # --- files ----------------------------------------------------------------------------------------------------

    def save_ids(self, name: str, *, overwrite: bool) -> SavedIds:
        """Write the ids of the selected cells to a CSV file in the folder, see `cellstamp.gallery.saving.save_ids`."""
        return save_ids(self.folder, name, self._ids, overwrite=overwrite)

    @property
    def _ids(self) -> pd.Series[Any]:
        """Ids of the selected cells by which an extraction chooses them: those of shapes, if they are text."""
        if INSTANCE_ID in self._obs:
            instances = pd.Series(self._obs[INSTANCE_ID].column())
            if not pd.api.types.is_numeric_dtype(instances.dtype):
                return instances[self.selection.chosen].rename(INSTANCE_ID)
        return pd.Series(self.selected_ids, name=CELL_ID)

    def save_column(self, name: str, *, overwrite: bool) -> str:
        """Write a tag into ``obs`` of the table of features, and return where.

        Raises
        ------
        ConfigError
            If there is no table, or no such tag.
        ExistsError
            If the table has a column of this name, and it may not be overwritten.
        OutputError
            If it cannot be written.
        """
        if self.features is None:
            raise ConfigError(
                "there is no table of features, so the column is kept only while the gallery is open. Save the ids, or "
                "extract with features: true"
            )
        if name not in self.tags:
            raise ConfigError(f"name = {name!r}: there is no tag with this name")
        path, column = self.features.table.path, self.features.of_table(self.tags[name])
        if path is None:
            return self._put_into_anndata(name, column, overwrite=overwrite)
        if not isinstance(path, Path):
            raise ConfigError(f"{path} is behind a URL and cannot be changed: save the ids")
        if has_column(path, name) and not overwrite:
            raise ExistsError(f"{path} has a column {name!r}")
        write_column(path, name, column, self.features.table.cell_ids)
        return f"obs[{name!r}] of {path}"

    def _put_into_anndata(self, name: str, column: pd.Series[Any], *, overwrite: bool) -> str:
        if name in self._given_features.obs and not overwrite:
            raise ExistsError(f"the AnnData has a column {name!r}")
        self._given_features.obs[name] = column.array
        return f"obs[{name!r}] of the AnnData"


def _all_columns(obs: dict[str, Reader], features: JoinedFeatures | None) -> Iterator[Column]:
    for name, read in obs.items():
        yield Column(name, "obs", read.column, read.value)
    if features is not None:
        yield from features.columns()


def _uses(view: View, column: str) -> bool:
    return view.sort == column or any(each.column == column for each in view.filters)
