"""Commands that need no input: ``compile`` and ``demo``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cellstamp.cli.errors import debug_option
from cellstamp.cli.output import closing_line_on_stdout


def _type_option(name: str, target: str, default: str, text: str) -> Callable[[Any], Any]:
    return click.option(
        name, target, multiple=True, default=[default], metavar="TYPE", show_default=True, help=f"{text}. Repeatable."
    )


@click.command(name="compile", short_help="Compile for later runs, for example in a container image.")
@_type_option("--image", "images", "uint16", "Data type of images")
@_type_option("--masks", "masks", "uint32", "Data type of masks")
@_type_option("--dtype", "dtypes", "float16", "Data type of single-cell images")
@debug_option
def compile_kernels(*, images: tuple[str, ...], masks: tuple[str, ...], dtypes: tuple[str, ...]) -> None:
    """Compile the code of extractions now, so that the first run starts at once.

    With several types, all combinations are compiled. Existing code is kept.
    """
    from cellstamp.pipeline.compile_kernels import compile_for_later

    compile_for_later(images, masks, dtypes, click.echo)


@click.command(short_help="Segment, extract and draw the cells of a real image.")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default="cellstamp-demo")
@debug_option
def demo(folder: Path) -> None:
    """Segment, extract and draw the cells of a real image into FOLDER (cellstamp-demo). Needs no network."""
    from cellstamp.demo import run_demo

    with closing_line_on_stdout() as show:
        result = run_demo(folder, show)
        show(f"Project:            {result.project}")
        show(f"Single-cell images: {result.h5sc}")
        show(f"Picture of them:    {result.picture}")
