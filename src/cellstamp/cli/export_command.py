"""The command ``export``: write single-cell images as files for other programs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cellstamp.cli.errors import debug_option
from cellstamp.cli.exit_codes import UserError
from cellstamp.cli.file_commands import RESULT
from cellstamp.cli.output import closing_line_on_stdout

if TYPE_CHECKING:
    from cellstamp.location import Location


@click.command(short_help="Write single-cell images as PNG, TIFF, NumPy or tar files.")
@click.argument("file_or_project", type=RESULT)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["png", "tiff", "ome-tiff", "npy", "webdataset"]),
    default="png",
    show_default=True,
    help="Kind of files.",
)
@click.option("--cell", "ids", type=click.IntRange(min=1), multiple=True, metavar="ID", help="Export this cell only.")
@click.option("--cells", metavar="CHOICE", help="CSV file of ids, boolean column, or condition on features.")
@click.option("--channel", "channels", multiple=True, metavar="NAME", help="Export this channel or mask only.")
@click.option("--color", "colors", multiple=True, metavar="NAME", help="Colour of the next channel, or auto.")
@click.option(
    "--scale", default="auto", show_default=True, metavar="SCALE", help="Black and white: cell, all, or LOW,HIGH."
)
@click.option("--cells-per-shard", type=click.IntRange(min=1), help="Cells in a tar file.  [default: about 100 MB]")
@click.option("--overwrite", is_flag=True, help="Replace another export in FOLDER.")
@click.option("--progress/--no-progress", default=None, help="Show progress.  [default: in a terminal]")
@debug_option
def export(
    *,
    file_or_project: "Location",
    folder: Path,
    file_format: Any,
    ids: tuple[int, ...],
    cells: str | None,
    channels: tuple[str, ...],
    colors: tuple[str, ...],
    scale: str,
    cells_per_shard: int | None,
    overwrite: bool,
    progress: bool | None,
) -> None:
    """Write the single-cell images of FILE_OR_PROJECT to FOLDER, as files named by cell id, and a table of the cells.

    Repeat --cell, --channel and --color for several. An interrupted export resumes.
    """
    if ids and cells is not None:
        raise UserError("--cell and --cells both choose cells: give one of them")
    from cellstamp import export_cells

    with closing_line_on_stdout():
        export_cells(
            file_or_project,
            folder,
            list(ids) or cells,
            file_format,
            channels or None,
            "auto" if colors == ("auto",) else list(colors) or None,
            _scale(scale),
            cells_per_shard=cells_per_shard,
            overwrite=overwrite,
            progress="auto" if progress is None else progress,
        )


def _scale(text: str) -> Any:
    """Return two numbers that are separated by a comma as numbers, and other text unchanged."""
    try:
        return tuple(map(float, text.split(",")))
    except ValueError:
        return text
