"""Segment, extract and draw the sample of cultured cells into a folder, through cellstamp's public names only."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellstamp.demo.images import CELL_CHANNELS, CELL_IMAGE_SIZE, CELL_SEGMENTATION, load_cells
from cellstamp.errors import ConfigError, OutputError
from cellstamp.source.names import CYTOSOL, NUCLEUS

MARKER = ".made-by-cellstamp-demo"
"""A file in the demo's folder. It allows the next demo to overwrite the project and the picture there."""


@dataclass(frozen=True)
class DemoResult:
    """Files that the demo has written.

    Attributes
    ----------
    project
        The project's folder.
    h5sc
        The single-cell images.
    picture
        A PNG of the image, its masks and some single-cell images.
    """

    project: Path
    h5sc: Path
    picture: Path


def run_demo(folder: Path, report: Callable[[str], object] = lambda line: None) -> DemoResult:
    """Segment and extract the sample of cultured cells, and draw some of the single-cell images.

    Makes the project ``<folder>/project`` and the picture ``<folder>/contact_sheet.png``. Both are overwritten in a
    folder that an earlier demo made.

    Parameters
    ----------
    folder
        Folder to write to: missing, empty, or made by an earlier demo.
    report
        Called with one line of text before each step.

    Returns
    -------
    DemoResult
        The paths of the results.

    Raises
    ------
    ConfigError
        scikit-image or matplotlib is not installed.
    OutputError
        The folder holds files that no demo made.
    """
    _check_extras()
    _claim(folder)
    from cellstamp import Project
    from cellstamp.demo.picture import draw_contact_sheet

    image = load_cells()
    channels, height, width = image.shape
    project = Project(str(folder / "project"), config_path=_config(folder), overwrite=True)
    report(f"Loading an image of cultured fly cells ({channels} channels, {width} x {height} pixels) ...")
    project.load_input_from_array(image, channel_names=list(CELL_CHANNELS))
    report("Segmenting nuclei and cells ...")
    project.segment()
    report("Extracting single-cell images ...")
    project.extract()
    picture = folder / "contact_sheet.png"
    report("Drawing the image, its masks and six of the cells ...")
    masks = [np.asarray(project.sdata[mask.removeprefix("labels/")]) for mask in (NUCLEUS, CYTOSOL)]
    draw_contact_sheet(project.h5sc, image, *masks, to=picture)
    return DemoResult(project=folder / "project", h5sc=Path(project.extraction_f.output_path), picture=picture)


def _config(folder: Path) -> dict[str, dict[str, object]]:
    everywhere = {"threads": 2, "cache": str(folder / "cache")}
    return {
        "ThresholdSegmentation": {**everywhere, **CELL_SEGMENTATION},
        "HDF5CellExtraction": {**everywhere, "image_size": CELL_IMAGE_SIZE, "border": "pad"},
    }


def _check_extras() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("skimage", "matplotlib") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"the demo needs {' and '.join(missing)}: install them with pip install 'cellstamp[demo]'")


def _claim(folder: Path) -> None:
    """Mark an empty folder, or an earlier demo's, as the demo's own."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if names and MARKER not in names:
        held = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise OutputError(
            f"{folder} is not empty and not from an earlier demo (it holds {held}): choose a new or empty folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text(
        "cellstamp demo made this folder, and overwrites project and contact_sheet.png in it.\n", encoding="utf-8"
    )
