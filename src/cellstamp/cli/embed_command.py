"""The command ``embed``: run a network on single-cell images."""

import inspect
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cellstamp.cli.errors import debug_option
from cellstamp.cli.exit_codes import UserError
from cellstamp.cli.file_commands import RESULT
from cellstamp.cli.output import closing_line_on_stdout

if TYPE_CHECKING:
    from cellstamp.location import Location


@click.command(short_help="Run a network on single-cell images.")
@click.argument("file_or_project", type=RESULT)
@click.option(
    "--model",
    required=True,
    metavar="MODULE:NAME",
    help="Network; function of images; or function or class without arguments that makes one.",
)
@click.option("--transform", metavar="MODULE:NAME", help="Function that is called with each image first.")
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=256, show_default=True, help="Cells in a call of the model."
)
@click.option("--device", default="auto", show_default=True, help="Device of torch, such as cuda:1 or cpu.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Automatic mixed precision with the others.",
)
@click.option("--channel", "channels", multiple=True, metavar="NAME", help="Use this plane only. Repeatable.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Table to write, .h5ad or .zarr.  [default: embedding.h5ad beside the images]",
)
@click.option("--overwrite", is_flag=True, help="Replace another table, and discard other unfinished results.")
@click.option("--progress/--no-progress", default=None, help="Show progress.  [default: in a terminal]")
@debug_option
def embed(
    *,
    file_or_project: "Location",
    model: str,
    transform: str | None,
    batch_size: int,
    device: str,
    precision: str,
    channels: tuple[str, ...],
    output: Path | None,
    overwrite: bool,
    progress: bool | None,
) -> None:
    """Run a network on the single-cell images of FILE_OR_PROJECT, and write its values into a table beside them.

    Modules are also imported from the current folder. An interrupted run resumes.
    """
    write = _writer()
    from cellstamp.embedding.run import Settings
    from cellstamp.pipeline.extraction_plots import find_h5sc

    network = _made(_found("--model", model))
    function = None if transform is None else _found("--transform", transform)
    with closing_line_on_stdout():
        settings = Settings(network, batch_size, device, channels or None, function, precision)
        shown = "auto" if progress is None else progress
        write(find_h5sc(file_or_project), settings, output, overwrite=overwrite, progress=shown)


def _writer() -> Any:
    """Return the function that writes an embedding; an error in one line if torch is missing."""
    import cellstamp

    try:
        _ = cellstamp.embed
    except ImportError as error:
        raise UserError(str(error)) from error
    from cellstamp.pipeline.embed import write_embedding_of

    return write_embedding_of


def _found(option: str, path: str) -> Any:
    """Import an object by its module and name."""
    module, colon, name = path.partition(":")
    if not (module and colon and name):
        raise UserError(f"{option} {path}: must be a module and a name, such as my_module:network")
    if "" not in sys.path:  # a console script does not import from the current folder
        sys.path.insert(0, "")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{option} {path}: cannot be imported: {type(error).__name__}: {error}. Give a module that is installed or "
            "in the current folder, and a name in it, such as my_module:network"
        ) from error
    return found


def _made(found: Any) -> Any:
    """Return a model, made by calling a function or class that needs no arguments."""
    makes_one = isinstance(found, type) or inspect.isroutine(found)
    return found() if makes_one and _needs_nothing(found) else found


def _needs_nothing(function: Any) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # compiled functions
        return False
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(each.default is not each.empty or each.kind in optional for each in parameters)
