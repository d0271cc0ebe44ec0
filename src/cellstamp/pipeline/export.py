"""Export single-cell images as files for other programs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import ConfigError, OutputError, reworded, writing
from cellstamp.export.file_names import Names
from cellstamp.export.folder import RECORD, ExportFolder
from cellstamp.export.intensities import Scale, check_scale
from cellstamp.export.job import ExportJob, Format, Options
from cellstamp.export.run import ChosenImages, export_to
from cellstamp.h5sc.cell_metadata import cell_metadata
from cellstamp.h5sc.embedding_table import Crops
from cellstamp.h5sc.selected_images import selected_images
from cellstamp.location import AnyPath, Location, check_valid, is_path, is_remote
from cellstamp.pipeline.chosen_rows import chosen_rows
from cellstamp.pipeline.extraction_plots import Colours, check_matplotlib, images_of, planes_to_show
from cellstamp.pipeline.lock import holding
from cellstamp.pipeline.resume_check import differences
from cellstamp.report import Progress, ProgressMode, conclude, format_cells, format_seconds

if TYPE_CHECKING:
    from cellstamp.pipeline.project import Project

_FOR_SUBSETS = ". For cells of an AnnData, give the path, and cells=adata.obs['scportrait_cell_id']"


def export_cells(
    file: AnyPath | Project,
    folder: AnyPath,
    cells: Any = None,
    format: Format = "png",
    channels: Any = None,
    color: Colours | None = None,
    scale: Scale = "auto",
    *,
    cells_per_shard: int | None = None,
    overwrite: bool = False,
    progress: ProgressMode = "auto",
) -> Path:
    """Write single-cell images as files named by cell id, and a table of the cells.

    The table ``cells.csv`` has the names of the files, the columns of ``obs``, and features if there are some. It is
    written when all files are complete. More than 10,000 cells are put into folders of 10,000 cells: ``000``,
    ``001``, ... An interrupted export resumes if you call this again with the same settings. The table is written
    again in each call, with the current metadata.

    Parameters
    ----------
    file
        Path of an ``.h5sc`` file of cellstamp or scportrait, path or URL of a zarr store, folder of a project, or a
        `Project`: its latest result.
    folder
        Folder to write. It must be missing, empty, or have an export with the same settings.
    cells
        Cell ids; a CSV file of ids, which can be a ``cells.csv``; a boolean for each cell; a boolean column of
        ``obs``; or a condition on features, such as ``"cell__area > 400"``. None: all cells.
    format
        ``"png"``: pictures with 8 bits, one for each channel, or one for each cell with `color`. Values as stored:
        ``"tiff"`` for ImageJ, ``"ome-tiff"``, ``"npy"``, and ``"webdataset"``, tar files with ``ID.npy`` and
        ``ID.json`` of each cell. TIFF files have float32 in place of float16.
    channels
        Names or numbers of channels and masks, in the order wanted. Numbers start at 0, masks first. None: the channels
        in the mapping `color`, the first three if `color` is ``"auto"``, otherwise all channels, without the masks.
    color
        For PNG: None for gray; a mapping from channels to colours; a sequence of one colour for each channel; one
        colour for a single channel; or ``"auto"``. Colours are those of matplotlib.
    scale
        For PNG, the values that are black and white. ``"cell"``: quantiles of each channel of each cell. ``"all"``:
        quantiles of each channel of up to 1,000 of the cells. ``(low, high)``: two numbers from 0 to 1. ``"auto"``: 0
        and 1 if the images are normalised, otherwise ``"all"``. Masks are always black and white.
    cells_per_shard
        Number of cells in a tar file. None: as many as 100 MB hold, at most 10,000.
    overwrite
        Whether to remove another export from the folder first. Other files in the folder stay.
    progress
        Whether to show a progress bar; ``"auto"``: in a terminal or notebook.

    Returns
    -------
    pathlib.Path
        The table.

    Raises
    ------
    ConfigError
        If an argument is invalid, a channel unknown, or matplotlib is missing for `color`.
    InputError
        If the file cannot be read, is damaged, or lacks one of the cells.
    OutputError
        If the folder has other files, or another export and `overwrite` is not set; or it cannot be written.

    Examples
    --------
    >>> export_cells("single_cells.h5sc", "crops", [25, 7])  # doctest: +SKIP
    >>> export_cells("single_cells.h5sc", "tiles", "picked.csv", "tiff")  # doctest: +SKIP
    """
    begin, options = time.perf_counter(), Options(format, color, scale, cells_per_shard)
    images, target = images_of(file, _FOR_SUBSETS), _folder_of(folder)
    with _job(images, cells, channels, options) as job, _writable(target):
        ours, settings = ExportFolder(target), job.settings()
        _check_settings(ours, settings, job.names, overwrite=overwrite)
        ours.begin(settings, job.names)
        with Progress(job.images.rows.size, progress, doing="exporting") as bar:
            n_written = export_to(ours, job.images, job.export(), job.table, bar)
        ours.finish()
        n_cells = job.images.rows.size
    seconds = time.perf_counter() - begin
    conclude(_closing_line(images, target, options, n_cells, n_written, seconds), mode=progress)
    return ours.table


@contextmanager
def _job(images: Location, cells: Any, channels: Any, options: Options) -> Iterator[ExportJob]:
    """Open a file, and check cells, channels and options."""
    with selected_images(images) as look:
        check_scale(options.scale, look.dtype)
        planes, color = planes_to_show(look, channels, options.color)
        chosen = ChosenImages(look, chosen_rows(look, cells), planes)
        chosen.check()
        colours, crops = _colours(color, chosen), Crops.of(images)
        with cell_metadata(crops) as metadata:
            yield ExportJob(chosen, crops, metadata, options, colours)


def _colours(color: Any, images: ChosenImages) -> NDArray[np.float32] | None:
    if color is None:
        return None
    check_matplotlib("color")
    from cellstamp.pictures.canvas import colours_of_channels

    return colours_of_channels(color, images.names)


# --- paths ------------------------------------------------------------------------------------------------------------


def _folder_of(folder: Any) -> Path:
    if not is_path(folder):
        raise ConfigError(f"folder = {folder!r}: must be the path of a folder to write, like 'crops'")
    if is_remote(folder):
        raise ConfigError(f"folder = {str(folder)!r}: must be on a disk, not a URL")
    path = Path(str(folder))
    check_valid(path, "folder")
    in_the_way = next((each for each in (path, *path.parents) if each.exists() and not each.is_dir()), None)
    if in_the_way is not None:
        raise OutputError(f"folder = {str(folder)!r}: {in_the_way} is a file. Give another folder")
    return path


# --- the folder -------------------------------------------------------------------------------------------------------


@contextmanager
def _writable(target: Path) -> Iterator[None]:
    """Make the folder, and let only one export at a time write to it."""
    with reworded(_as_export):
        with writing(target):
            target.mkdir(parents=True, exist_ok=True)
        with holding(target / ".cellstamp_export.lock", what=target):
            yield


def _as_export(message: str) -> str:
    """Name the call to repeat in messages about writing."""
    return message.replace("extract again", "call export_cells again to resume")


def _check_settings(folder: ExportFolder, settings: dict[str, str], names: Names, *, overwrite: bool) -> None:
    """Check that the folder is empty, or has an export of the same settings; otherwise clear it if that is allowed."""
    others, begun = folder.other_files(), folder.begun()
    if others and not folder.has_record:
        shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        raise OutputError(
            f"{folder.path}: this folder has files that are not of an export ({shown}). Give an empty or a new folder"
        )
    if overwrite:
        # without a record, only files of this export are known
        folder.clear(begun.names if begun else names, names)
    elif begun is None and others:
        raise OutputError(
            f"{folder.path}: {RECORD} is damaged, so the settings of the export in this folder are unknown. Set "
            "overwrite=True to export again, or give another folder"
        )
    elif begun is not None and begun.settings != settings:
        kind = "an export" if folder.table.exists() else "an unfinished export"
        raise OutputError(
            f"{folder.path}: has {kind} with different settings or input "
            f"({'; '.join(differences(begun.settings, settings))}). "
            "Give another folder, or set overwrite=True to replace it"
        )


def _closing_line(
    images: Location, target: Path, options: Options, n_cells: int, n_written: int, seconds: float
) -> str:
    if not n_written:
        return f"{target} is up to date ({format_cells(n_cells)} from {images})"
    earlier = f" ({n_cells - n_written:,} of them by an interrupted run)" if n_written < n_cells else ""
    rate = f"{n_written / max(seconds, 1e-9):,.0f} cells/s"
    counts = f"Exported {format_cells(n_cells)}{earlier} as {options.format} from {images}"
    return f"{counts} -> {target} in {format_seconds(seconds)} ({rate})"
