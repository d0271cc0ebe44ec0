"""Describe a run for its page: cells, files, removed cells, settings, timings and versions."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from cellstamp import __version__
from cellstamp.errors import CellstampError
from cellstamp.h5sc.embedding_table import EMBEDDING
from cellstamp.h5sc.feature_table import features_beside
from cellstamp.h5sc.layout import removed_name
from cellstamp.h5sc.opening import bytes_of, is_finished
from cellstamp.h5sc.reader import H5scInfo, describe_h5sc
from cellstamp.h5sc.result_tables import ResultTables
from cellstamp.location import Location
from cellstamp.pipeline.extraction_plots import cell_positions
from cellstamp.report import format_bytes, format_seconds, read_benchmark
from cellstamp.run_report.content import Note, Part, Picture, Section, Table

if TYPE_CHECKING:
    from cellstamp.pipeline.run_report import ReportedResult

_LEFT_OUT = {
    "cells_removed_at_border": "removed at the image border",
    "cells_not_chosen": "not selected by the key cells",
    "cells_not_drawn": "not in the random sample",
}
_WITHIN = {
    "cells_empty_in_cell_mask": "empty: no pixel of the cell mask in the crop",
    "cells_exceeding_crop": "exceeding: larger than the crop",
}
_TIMES = {
    "setup_s": "setup",
    "reading_s": "centres and plan",
    "extracting_s": "extraction",
    "total_s": "total",
}
_PACKAGES = ("anndata", "h5py", "numba", "numpy", "spatialdata", "zarr")


def about_cells(tables: ResultTables) -> Section:
    """Return the numbers of cells, which add up to those in the mask."""
    verb, n_cells = ("extracted" if tables.has_images else "measured"), tables.cell_ids.size
    if "cells_in_mask" not in tables.about:
        note = Note("The file does not say how many cells were in the mask.")
        exceeding = [] if tables.n_exceeding is None else [(_WITHIN["cells_exceeding_crop"], f"{tables.n_exceeding:,}")]
        return Section("Cells", [Table([(verb, f"{n_cells:,}"), *exceeding]), note])
    counts = {name: int(tables.about.get(name, 0)) for name in ("cells_in_mask", *_LEFT_OUT, *_WITHIN)}
    rows = [(verb, f"{n_cells:,}"), *((text, f"{counts[name]:,}") for name, text in _LEFT_OUT.items())]
    parts: list[Part] = [Table(rows, ("in the mask", f"{counts['cells_in_mask']:,}"))]
    total = n_cells + sum(counts[name] for name in _LEFT_OUT)
    if total != counts["cells_in_mask"]:
        parts.append(Note(f"These numbers add up to {total:,}: the result is damaged.", is_warning=True))
    within = [(text, f"{counts[name]:,}") for name, text in _WITHIN.items()]
    return Section("Cells", [*parts, Note(f"Of the {n_cells:,} cells {verb}:"), Table(within)])


def about_images(path: Location, tables: ResultTables) -> Iterator[Section]:
    """Yield the planes, pixels and compression of the images; nothing without images."""
    if not tables.has_images:
        return
    about = describe_h5sc(path)
    names = about.channel_names
    rows = [
        ("size", f"{about.image_size} x {about.image_size} pixels, {about.dtype}"),
        ("masks", ", ".join(names[: about.n_masks]) or "none"),
        ("channels", ", ".join(names[about.n_masks :])),
        ("normalised", "yes" if about.normalization else "no"),
        ("compression", _compression(about)),
    ]
    yield Section("Single-cell images", [Table(rows)])


def _compression(about: H5scInfo) -> str:
    stored, raw = format_bytes(about.stored_bytes), format_bytes(about.raw_bytes)
    return f"{about.compression.lower()}, {stored} for {raw} of images"


def about_removed(path: Location, store: str | None, tables: ResultTables) -> Iterator[Section]:
    """Yield a picture of kept and removed cells, or the reason why there is none."""
    if "cells_in_mask" not in tables.about:
        return
    title = "Kept and removed cells"
    if store is None:
        note = "No picture: the result is not in the folder of a project. Give write_report the store with the masks."
        yield Section(title, [Note(note)])
        return
    try:
        yield Section(title, [_picture(path, store)])
    except CellstampError as error:
        yield Section(title, [Note(f"No picture: {error}", is_warning=True)])


def _picture(path: Location, store: str) -> Picture:
    from cellstamp.pictures.png import removed_png

    cells = cell_positions(path, store)
    text = f"Positions on the slide: {len(cells.kept):,} cells kept, {len(cells.removed):,} removed at the border"
    return Picture(removed_png(cells, is_dark=False), removed_png(cells, is_dark=True), text)


def about_run(found: ReportedResult, tables: ResultTables) -> Iterator[Section]:
    """Yield settings, timings, files and versions."""
    if tables.settings:
        rows = [(name, _as_text(value)) for name, value in sorted(tables.settings.items())]
        yield Section("Settings", [Table(rows)])
    times = _times(found, tables)
    if times is not None:
        yield Section("Timings", [times])
    yield Section("Files", [Table(list(_sizes(found)))])
    yield Section("Versions", [Table(list(_versions(tables)))])


def _as_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_as_text(each)}" for name, each in value.items())
    return ", ".join(map(_as_text, value)) if isinstance(value, np.ndarray | list | tuple) else str(value)


def _times(found: ReportedResult, tables: ResultTables) -> Table | None:
    """Return the timings of the run that made a result; None if another run is the latest in the table."""
    folder = None if found.entry is None else found.entry.parent.parent
    row = None if folder is None else read_benchmark(found.location, folder)
    if row is None or row.get("cells_kept") != str(tables.cell_ids.size):
        return None
    rows = [(text, format_seconds(float(row[name]))) for name, text in _TIMES.items()]
    more = [
        ("cells per second", f"{float(row['cells_per_s']):,.0f}"),
        ("workers", row["workers"]),
        ("peak memory", format_bytes(int(row["peak_rss_bytes"]))),
        ("image", f"{int(row['image_height']):,} x {int(row['image_width']):,} pixels"),
    ]
    return Table([*rows, *more])


def _sizes(found: ReportedResult) -> Iterator[tuple[str, str]]:
    """Yield the files of a result with their sizes."""
    path = found.location
    files = [path, features_beside(path), EMBEDDING.beside(path), path.with_name(removed_name(path.name))]
    for file in dict.fromkeys(files):
        if is_finished(file) or (file.name == removed_name(path.name) and file.is_file()):
            yield file.name, format_bytes(bytes_of(file))


def _versions(tables: ResultTables) -> Iterator[tuple[str, str]]:
    if "version" in tables.about:
        yield "cellstamp, extraction", str(tables.about["version"])
    yield "cellstamp, this page", __version__
    yield "Python, this page", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield "packages, this page", ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
