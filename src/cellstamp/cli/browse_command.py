"""Command that shows a gallery: ``browse``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cellstamp.cli.errors import debug_option
from cellstamp.cli.file_commands import RESULT
from cellstamp.cli.output import print_result

if TYPE_CHECKING:
    from cellstamp.location import Location


@click.command(short_help="Look through single-cell images in the browser.")
@click.argument("file_or_project", type=RESULT)
@click.option("--features", type=RESULT, help="Table of features.  [default: the one beside the images]")
@click.option(
    "--save",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder for files of ids.  [default: the project; of a file, the browser downloads them]",
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of the page.  [default: a free one]")
@click.option("--open/--no-open", "opens", default=True, show_default=True, help="Open the page in the browser.")
@debug_option
def browse(
    *, file_or_project: "Location", features: "Location | None", save: Path | None, port: int, opens: bool
) -> None:
    """Look through the cells of FILE_OR_PROJECT: a .h5sc file, a zarr store, or the latest result of a project.

    Shows the address of a page that only this computer can open. Ends when you close the page, or with Ctrl-C.
    """
    from cellstamp.gallery.browse import serve

    serve(file_or_project, features, save=save, port=port, opens=opens, report=print_result)
