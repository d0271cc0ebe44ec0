"""Write a page about a run: find the result, read it, and hand its values to the page."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cellstamp.config import ExtractionConfig
from cellstamp.errors import ConfigError, InputError
from cellstamp.h5sc.layout import FEATURES_NAMES, RESULT_NAMES, URL_NAME
from cellstamp.h5sc.result_tables import ResultTables, read_result
from cellstamp.location import AnyPath, Location, is_path, location_of
from cellstamp.pipeline.extraction_plots import PathLike, check_matplotlib, no_result_in
from cellstamp.pipeline.folder import STORE, is_project, latest_entry, location_in, project_of, results
from cellstamp.run_report.content import RunReport
from cellstamp.run_report.page import check_target, write_page

if TYPE_CHECKING:
    from cellstamp.pipeline.extraction import HDF5CellExtraction
    from cellstamp.pipeline.project import Project

PAGE = "report.html"


@dataclass(frozen=True)
class ReportedResult:
    """A result, and where it lies.

    Attributes
    ----------
    location
        The file, store or table of features; may be a URL.
    entry
        The entry of the result in its folder: itself, or the file with its URL. None: a URL outside of a project.
    store
        SpatialData store with the masks. None: unknown.
    """

    location: Location
    entry: Path | None
    store: str | None

    @property
    def project(self) -> Path | None:
        """Return the folder of the project; None outside of a project."""
        if self.entry is None:
            return None
        above = project_of(self.entry)
        return above if is_project(above) else None


def write_report(result: AnyPath | Project, path: PathLike | None = None, store: PathLike | None = None) -> Path:
    """Write an HTML page about a run: counts, removed cells, distributions, single-cell images, settings and timings.

    The page is one file. It needs no network, and can be sent by mail. It describes the result at this moment.

    Parameters
    ----------
    result
        A `Project` or its folder: its latest result. Or the path of an ``.h5sc`` file, of a table of features of a run
        without single-cell images, or path or URL of a zarr store.
    path
        Page to write, a name with ``.html``. None: ``report.html`` in the folder of the result, or ``NAME.report.html``
        if the result has another name than cellstamp gives it.
    store
        Path of the SpatialData store with the masks, for the picture of removed cells. None: that of the project.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    ConfigError
        If an argument is invalid, or matplotlib is not installed.
    InputError
        If there is no result, or it is damaged.
    OutputError
        If another file is at the path, or the page cannot be written.
    """
    check_matplotlib("a report")
    found = _find(result, store)
    page = _default_page(found) if path is None else Path(path)
    check_target(page)
    tables = read_result(found.location)
    write_page(_content(found, tables), page)
    return page


def check_page_of_run(step: HDF5CellExtraction, name: str | None, sample: tuple[int, int] | None) -> None:
    """Check that a page can be written about a run that has not started; see `HDF5CellExtraction.folder_of_run`.

    Raises
    ------
    ConfigError
        If matplotlib is not installed, or the configuration is invalid.
    OutputError
        If another file is at the path of the page.
    """
    check_matplotlib("a report")
    with warnings.catch_warnings(action="ignore"):  # the run itself warns
        config = ExtractionConfig.parse(step.config)
    check_target(step.folder_of_run(config, name, sample) / PAGE)


def _content(found: ReportedResult, tables: ResultTables) -> RunReport:
    from cellstamp.pipeline.report_cells import distributions
    from cellstamp.pipeline.report_sections import about_cells, about_images, about_removed, about_run

    name = found.location.name if found.project is None else found.project.name
    sections = [
        about_cells(tables),
        *about_images(found.location, tables),
        *about_removed(found.location, found.store, tables),
        *distributions(found.location, tables),
        *about_run(found, tables),
    ]
    written = time.strftime("%Y-%m-%d %H:%M")
    return RunReport(f"Single-cell images of {name}", f"{found.location}, described on {written}", sections)


def _find(result: AnyPath | Project, store: PathLike | None) -> ReportedResult:
    location = _location_of(result)
    if isinstance(location, Path) and location.is_dir() and is_project(location):
        location = _latest_entry(location)
    entry = location if isinstance(location, Path) else None
    place = project_of(entry) / STORE if entry is not None else None
    known = str(place) if store is None and place is not None and place.is_dir() else store
    at = location_in(location) if isinstance(location, Path) else location
    return ReportedResult(at, entry, None if known is None else str(known))


def _location_of(result: AnyPath | Project) -> Location:
    """Return the folder of a project, its latest result if this object has made one, or a location."""
    if is_path(result):
        return location_of(result)
    directory = getattr(result, "directory", None)
    if directory is None:
        raise InputError(f"result is {type(result).__name__}: must be a Project, its folder, or the path of a result")
    latest = getattr(getattr(result, "extraction_f", None), "output_path", None)
    return Path(directory) if latest is None else _entry_of(location_of(latest), Path(directory))


def _entry_of(location: Location, project: Path) -> Location:
    """Return the entry of a result in a project's folder, which for a URL is the file with it."""
    if isinstance(location, Path):
        return location
    entries = (path for path in results(project) if path.name == URL_NAME and str(location_in(path)) == str(location))
    return next(entries, location)


def _latest_entry(project: Path) -> Path:
    latest = latest_entry(project)
    if latest is None:
        raise no_result_in(project)
    return latest


def _default_page(found: ReportedResult) -> Path:
    if found.entry is None:
        raise ConfigError(f"path = None: {found.location} is a URL; give the path of the page, such as {PAGE}")
    named_by_us = found.entry.name in (*RESULT_NAMES, *FEATURES_NAMES)
    return found.entry.with_name(PAGE if named_by_us else f"{found.entry.name}.{PAGE}")
