"""Describe a project for its `repr`: image, masks, results, and the next step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cellstamp.h5sc.layout import FEATURES_FILE, FEATURES_NAMES, FEATURES_STORE, FILE_NAME, URL_NAME
from cellstamp.pipeline import folder
from cellstamp.report import format_cells
from cellstamp.source.load.store_summary import describe_image, describe_masks, readable

_SHOWN_RESULTS = 5
_KINDS = {FILE_NAME: ".h5sc file", FEATURES_FILE: "features", FEATURES_STORE: "features"}


def summarize(directory: Path, *, segmentation: Any, extraction: Any) -> str:
    """Return the content of a project folder, a line for each part. Damaged files are named and never raise.

    Parameters
    ----------
    directory
        The project folder.
    segmentation, extraction
        The steps of the project; None if it lacks one.
    """
    store = directory / folder.STORE
    image, masks = describe_image(store), describe_masks(store)
    results, measured = folder.results(directory), folder.measured(directory)
    every = [*results, *measured]
    lines = {
        "image": image or "none",
        "masks": ", ".join(masks) or "none",
        "results": ", ".join(_result(path) for path in every[:_SHOWN_RESULTS]) or "none",
        **_unfinished(directory, results),
        "next step": _next_step(image, masks, results, measured, segmentation, extraction),
    }
    more = len(every) - _SHOWN_RESULTS
    if more > 0:
        lines["results"] += f", and {more} more"
    return "\n".join([f"Project in {directory}", *(f"  {name}: {value}" for name, value in lines.items())])


def _result(path: Path) -> str:
    """Return the folder of a result, its format, and its number of cells or URL."""
    from cellstamp.h5sc.feature_table import n_rows
    from cellstamp.h5sc.reader import describe_h5sc

    def about() -> str:
        if path.name == URL_NAME:  # a `repr` makes no requests
            return str(folder.location_in(path))
        return format_cells(n_rows(path) if path.name in FEATURES_NAMES else describe_h5sc(path).n_cells)

    kind = _KINDS.get(path.name, "zarr store")
    return f"{path.parent.parent.name}/{path.parent.name} ({kind}, {readable(about)})"


def _unfinished(directory: Path, results: list[Path]) -> dict[str, str]:
    """Return a line about unfinished runs, if there are any, and how to resume the usual one."""
    names = folder.unfinished_results(directory)
    if not names:
        return {}
    usual = "data"
    overwrite = "overwrite=True" if any(path.parent.name == usual for path in results) else ""
    how = f"; project.extract({overwrite}) with the same settings resumes it" if names == [usual] else ""
    return {"unfinished": f"{', '.join(f'{folder.EXTRACTION}/{name}' for name in names)}{how}"}


def _next_step(
    image: str | None,
    masks: list[str],
    results: list[Path],
    measured: list[Path],
    segmentation: Any,
    extraction: Any,
) -> str:
    if image is None:
        return "load an image, like project.load_input_from_tif_files(['dapi.tif', 'actin.tif'])"
    if not masks:
        load = "project.load_segmentation(nucleus=..., cytosol=...)"
        return f"call {load}" if segmentation is None else f"call project.segment(), or {load}"
    if results:
        return "read the single-cell images with project.h5sc"
    if measured:
        return "read the features with project.features"
    if extraction is None:
        return f"add a section {folder.DEFAULT_EXTRACTION!r} to {folder.CONFIG}, then call project.extract()"
    return "call project.extract()"
