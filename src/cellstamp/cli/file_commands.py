"""Commands that read a ``.h5sc`` file: ``info``, ``validate``, ``preview`` and ``report``."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cellstamp.cli.errors import debug_option
from cellstamp.cli.exit_codes import Failure
from cellstamp.cli.output import print_result

if TYPE_CHECKING:
    from cellstamp.h5sc.reader import H5scInfo
    from cellstamp.location import Location


class ResultPath(click.Path):
    """The path of an existing file or folder, or a URL."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the location of a result; click's error for a missing path."""
        from cellstamp.location import is_remote, location_of

        return location_of(value) if is_remote(value) else super().convert(value, param, ctx)


RESULT = ResultPath(exists=True, path_type=Path)


@click.command(short_help="Show the content of a .h5sc file, a zarr store, or a project.")
@click.argument("file_or_project", type=RESULT)
@debug_option
def info(file_or_project: "Location") -> None:
    """Show the content of FILE_OR_PROJECT.

    Of a .h5sc file or zarr store: number of cells, channels, size, compression and settings. Of a project's folder: its
    image, masks and results. Of a table of features or an embedding: numbers of cells and values.
    """
    from cellstamp.h5sc.embedding_table import EMBEDDING
    from cellstamp.h5sc.layout import FEATURES_NAMES, RESULT_NAMES
    from cellstamp.h5sc.reader import describe_h5sc

    if isinstance(file_or_project, Path) and _is_project(file_or_project):
        lines = _project_lines(file_or_project)
    elif file_or_project.name in FEATURES_NAMES:
        lines = _lines_of_features(file_or_project)
    elif file_or_project.name in {EMBEDDING.file_name(name) for name in RESULT_NAMES}:
        lines = _lines_of_embedding(file_or_project)
    else:
        about = describe_h5sc(file_or_project)
        lines = [f"{name:<15}{value}" for name, value in _info_lines(file_or_project, about)]
    print_result(*lines)


def _lines_of_features(table: "Location") -> list[str]:
    from cellstamp.h5sc.feature_table import describe_features, n_rows

    return [f"{'cells':<15}{n_rows(table):,}", f"{'features':<15}{describe_features(table)} ({table.name})"]


def _lines_of_embedding(table: "Location") -> list[str]:
    from cellstamp.h5sc.embedding_table import EMBEDDING

    with EMBEDDING.opened(table) as file:
        n_cells, n_values = file["X"].shape
    return [f"{'cells':<15}{n_cells:,}", f"{'embedding':<15}{n_values} values for each cell ({table.name})"]


def _is_project(path: Path) -> bool:
    """Return whether a path is the folder of a project; an error for a folder that contains one."""
    from cellstamp.errors import InputError
    from cellstamp.pipeline.folder import STORE, is_project, lying_below

    if is_project(path):
        return True
    hint = lying_below(path)
    if hint is not None:
        raise InputError(f"{path} is not a project: {STORE} is missing; {hint}")
    return False


def _project_lines(folder: Path) -> list[str]:
    from cellstamp import Project

    return repr(Project(folder)).splitlines()


def _info_lines(file: "Location", about: "H5scInfo") -> Iterator[tuple[str, str]]:
    from cellstamp.report import format_bytes

    masks, channels = about.channel_names[: about.n_masks], about.channel_names[about.n_masks :]
    yield "file", f"{file} ({format_bytes(about.file_bytes)})"
    yield "cells", f"{about.n_cells:,}"
    yield "image size", f"{about.image_size} x {about.image_size} pixels, {about.dtype}"
    yield "masks", f"{len(masks)}: {', '.join(masks)}"
    yield "channels", f"{len(channels)}: {', '.join(channels)}"
    ratio = f", {about.raw_bytes / about.stored_bytes:.1f} times smaller" if about.stored_bytes else ""
    stored, raw = format_bytes(about.stored_bytes), format_bytes(about.raw_bytes)
    yield "compression", f"{about.compression.lower()}{ratio} ({stored} for {raw} of images)"
    yield "normalization", _normalization(about)
    yield from _table_lines(file)
    if not about.settings.get("apply_masks", True):
        yield "surroundings", "kept: channels are not multiplied by the cell mask"
    if about.settings.get("border") == "pad":
        yield "border", "padded: cells near the border are included; pixels outside the image are 0"


def _table_lines(file: "Location") -> Iterator[tuple[str, str]]:
    from cellstamp.h5sc.cell_tables import is_written
    from cellstamp.h5sc.embedding_table import EMBEDDING, describe_embedding
    from cellstamp.h5sc.feature_table import describe_features, features_beside, has_features

    if has_features(file):
        yield "features", f"{describe_features(file)} ({features_beside(file).name})"
    if is_written(EMBEDDING.beside(file)):
        yield "embedding", f"{describe_embedding(EMBEDDING.beside(file))} ({EMBEDDING.beside(file).name})"


def _normalization(about: "H5scInfo") -> str:
    if about.normalization_range is None:
        return "none (integers divided by the largest value of their type, floats unchanged)"
    whole = "the whole image" if about.settings.get("normalization_scope") == "image" else "each cell"
    if isinstance(about.normalization_range, str):
        return f"quantiles of each channel of {whole}, different for each channel"
    lower, upper = about.normalization_range
    return f"quantiles {lower:g} to {upper:g} of each channel of {whole}"


@click.command(short_help="Check that a .h5sc file or zarr store is complete and valid.")
@click.argument("file", type=RESULT)
@debug_option
def validate(file: "Location") -> None:
    """Check FILE, a .h5sc file or zarr store: counts agree, images are readable, values in range, and ids unique."""
    from cellstamp.h5sc.validate import errors_in

    errors = errors_in(file)
    if errors:
        raise Failure("\n  ".join([f"{file} is invalid:", *errors]))
    print_result(f"{file} is valid")


@click.command(short_help="Draw some of the single-cell images.")
@click.argument("file_or_project", type=RESULT)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Picture to write."
)
@click.option("--n", type=click.IntRange(min=1), help="Number of cells.  [default: about 16, in full rows]")
@click.option("--cell", "cells", type=click.IntRange(min=1), multiple=True, metavar="ID", help="Draw this cell only.")
@click.option("--channel", "channels", multiple=True, metavar="NAME", help="Draw this channel only.")
@click.option("--color", "colors", multiple=True, metavar="NAME", help="Colour of the next channel, or auto.")
@click.option(
    "--scale", type=click.Choice(["cell", "all"]), help="Limits of brightness: of each cell, or of all cells."
)
@click.option("--outlines/--no-outlines", default=True, show_default=True, help="Draw the outlines of masks.")
@debug_option
def preview(
    *,
    file_or_project: "Location",
    output: Path,
    n: int | None,
    cells: tuple[int, ...],
    channels: tuple[str, ...],
    colors: tuple[str, ...],
    scale: str | None,
    outlines: bool,
) -> None:
    """Draw single-cell images of FILE_OR_PROJECT: a .h5sc file, a zarr store, or the latest result of a project.

    Each cell is a row with all channels. Repeat --cell, --channel and --color for several.
    """
    from cellstamp import plot_cells
    from cellstamp.pipeline.extraction_plots import find_h5sc

    plot_cells(
        find_h5sc(file_or_project),
        cells=cells or None,
        n=n,
        channels=channels or None,
        mask_outline=outlines,
        color="auto" if colors == ("auto",) else list(colors) or None,
        scale=scale,
        save=output,
    )
    print_result(f"Picture: {output}")


@click.command(short_help="Write an HTML page about a run.")
@click.argument("file_or_project", type=RESULT)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Page to write, .html.  [default: report.html beside the result]",
)
@debug_option
def report(*, file_or_project: "Location", output: Path | None) -> None:
    """Write an HTML page about a run: counts, removed cells, histograms, single-cell images, settings and timings.

    FILE_OR_PROJECT is a project, whose latest result is described, or a .h5sc file, zarr store or table of features.
    """
    from cellstamp import write_report

    print_result(f"Report: {write_report(file_or_project, output)}")
