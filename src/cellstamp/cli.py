"""The command line: parse arguments, then make the same calls as a notebook.

Exit codes: 0; 2 for invalid input (one line each); 130, 143 and 129 after Ctrl-C, SIGTERM and SIGHUP, and 149 after
Ctrl-Break on Windows; 1 otherwise. Slow modules are imported by the command that needs them.
"""

import atexit
import io
import logging
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import reduce
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from cellstamp import __version__
from cellstamp.errors import CellstampError, InputError, WorkerError

if TYPE_CHECKING:
    from cellstamp import Project
    from cellstamp.h5sc.reader import H5scInfo

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class _TerminatedError(BaseException):
    """SIGTERM, SIGHUP or SIGBREAK arrived, from a batch system, a closed terminal, or Ctrl-Break on Windows."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


_OPTIONS = {
    "extract": {
        r"(?<![\w/])overwrite=True\b": "--overwrite",
        r"(?<![\w/])output_folder_name\b": "--output-folder",
        r"(?<![\w/])n_cells\b": "--partial",
    },
    "segment": {r"(?<![\w/])overwrite=True\b": "--overwrite"},
    "preview": {
        r"^cells\b": "--cell",
        r"^channels\b": "--channel",
        r"^(color\b.*)": r"--\1; here: --color NAME once for each channel shown, in turn, or --color auto",
        r"^save\b": "--output",
    },
}
"""Patterns of arguments in messages, and the options for them, for each command."""

_LEFT = {
    "extract": " Finished cells are kept. Run the command again to resume.",
    "segment": " No masks were written. Run the command again to start over.",
}
"""The state after an interrupt, for each command."""


def _end_on(number: int) -> None:
    """End the command cleanly on a signal, unless the caller ignores the signal, as nohup does."""
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, _terminated)


def _terminated(number: int, _: object) -> None:
    # a second signal would interrupt the cleanup
    signal.signal(number, signal.SIG_IGN)
    raise _TerminatedError(number)


# click before 8.2 prints the help of a command without arguments and exits; later ones raise this
_HELP_ONLY: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())


class _UserError(click.ClickException):
    exit_code = 2


class _Failure(click.ClickException):
    exit_code = 1


class _Commands(click.Group):
    """Commands that report each error in one line: invalid input with exit code 2, failures with 1."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _usage_errors_in_one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _usage_errors_in_one_line():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            raise _report_end(ctx, "Interrupted", 128 + signal.SIGINT) from None
        except _TerminatedError as end:
            raise _report_end(ctx, "Terminated", end.exit_code) from None
        except CellstampError as error:
            if ctx.meta.get(__name__):
                traceback.print_exc()
            kind = _Failure if isinstance(error, WorkerError) else _UserError
            raise kind(_with_options(str(error), ctx.invoked_subcommand)) from error


class _EndedBySignal(SystemExit):
    pass


def _report_end(ctx: click.Context, word: str, code: int) -> _EndedBySignal:
    # the terminal may be closed
    with suppress(OSError):
        click.echo(f"{word}.{_LEFT.get(ctx.invoked_subcommand or '', '')}", err=True)
    return _EndedBySignal(code)


def _with_options(message: str, command: str | None) -> str:
    for pattern, option in _OPTIONS.get(command or "", {}).items():
        message = re.sub(pattern, option, message)
    return message


@contextmanager
def _usage_errors_in_one_line() -> Iterator[None]:
    try:
        yield
    except _HELP_ONLY:
        raise
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "cellstamp"
        raise _UserError(f"{error.format_message()} (see {where} --help)") from error


def _set_debug(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's signature
    ctx.meta[__name__] = value
    if value:
        sys.excepthook = sys.__excepthook__


_debug_option = click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    callback=_set_debug,
    help="Show the log, and the traceback of an error.",
)


def main() -> None:
    """Run the command line; the console script ``cellstamp``."""
    for name in ("SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):  # Windows has no SIGHUP, and only Windows has SIGBREAK
            _end_on(getattr(signal, name))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name that the encoding lacks must not stop a command
            stream.reconfigure(errors="backslashreplace")
    sys.excepthook = _report_in_one_line
    warnings.showwarning = _show_warning
    try:
        commands(prog_name="cellstamp")
    except _EndedBySignal as end:
        _leave_at_once(end)


def _leave_at_once(end: _EndedBySignal) -> None:
    """Exit without the interpreter's cleanup, which takes seconds on a busy machine."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(end.code if isinstance(end.code, int) else 1)


def _report_in_one_line(kind: type[BaseException], error: BaseException, _where: TracebackType | None) -> None:
    text = " ".join(str(error).split())
    name = kind.__name__
    click.echo(f"Error: {name}: {text}" if text else f"Error: {name}", err=True)
    click.echo("This is an error in cellstamp. Run again with --debug for the traceback.", err=True)


def _show_warning(message: Warning | str, *_where: object, **_more: object) -> None:
    click.echo(f"Warning: {message}", err=True)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cellstamp")
def commands() -> None:
    """Single-cell images from segmented microscopy images."""


def _together(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Join decorators into one, the first outermost."""
    return lambda command: reduce(lambda inner, decorate: decorate(inner), reversed(decorators), command)


_project_options = _together(
    click.argument("project_folder", type=_FOLDER),
    click.option("--config", type=_FILE, help="YAML file that replaces the folder's config.yml."),
    click.option(
        "--set",
        "settings",
        metavar="KEY=VALUE",
        multiple=True,
        help="Set a key of the configuration; the value is YAML.",
    ),
)
_run_options = _together(
    click.option("--progress/--no-progress", default=None, help="Show progress.  [default: in a terminal]"),
    _debug_option,
    click.pass_context,
)


@commands.command(short_help="Segment the nuclei and cells of a project's image.")
@_project_options
@click.option("--overwrite", is_flag=True, help="Replace existing masks.")
@_run_options
def segment(
    ctx: click.Context,
    *,
    project_folder: Path,
    config: Path | None,
    settings: tuple[str, ...],
    overwrite: bool,
    progress: bool | None,
) -> None:
    """Segment nuclei and cells in the image of PROJECT_FOLDER with a threshold, and write both masks."""
    overrides = _overrides(settings, progress=progress)
    from cellstamp import ThresholdSegmentation

    project = _open_project(ctx, project_folder, config, segmentation_f=ThresholdSegmentation)
    project.segmentation_f.config.update(overrides)
    with _closing_line_on_stdout(), _no_nucleus_is_an_error():
        project.segment(overwrite=overwrite or None)


@commands.command(short_help="Extract the single-cell images of a project.")
@_project_options
@click.option("--partial", "n_cells", type=click.IntRange(min=1), metavar="N", help="Extract N random cells only.")
@click.option("--seed", type=click.IntRange(min=0), default=42, show_default=True, help="Seed for --partial.")
@click.option("--output-folder", metavar="NAME", help="Name of the result's folder.  [default: data]")
@click.option("--overwrite", is_flag=True, help="Replace existing results.")
@_run_options
def extract(
    ctx: click.Context,
    *,
    project_folder: Path,
    config: Path | None,
    settings: tuple[str, ...],
    n_cells: int | None,
    seed: int,
    output_folder: str | None,
    overwrite: bool,
    progress: bool | None,
) -> None:
    """Extract the single-cell images of the project in PROJECT_FOLDER. An interrupted run resumes."""
    overrides = _overrides(settings, progress=progress)
    from cellstamp import HDF5CellExtraction

    project = _open_project(ctx, project_folder, config, extraction_f=HDF5CellExtraction)
    project.extraction_f.config.update(overrides)
    with _closing_line_on_stdout():
        project.extract(
            partial=n_cells is not None,
            n_cells=n_cells,
            seed=seed,
            overwrite=overwrite or None,
            output_folder_name=output_folder,
        )


def _overrides(settings: tuple[str, ...], *, progress: bool | None) -> dict[str, Any]:
    """Return the keys for this run. Set them on the step: the project would save them to the folder's config.yml."""
    overrides = _parse_settings(settings)
    return overrides if progress is None else overrides | {"progress": progress}


def _open_project(ctx: click.Context, folder: Path, config: Path | None, **steps: Any) -> "Project":
    from cellstamp.pipeline.folder import STORE, lying_below

    if not (folder / STORE).is_dir():
        found = lying_below(folder)
        raise InputError(f"{folder} is not a project: {STORE} is missing" + (f"; {found}" if found else ""))
    from cellstamp import Project

    return Project(folder, config_path=config, debug=bool(ctx.meta.get(__name__)), **steps)


@contextmanager
def _no_nucleus_is_an_error() -> Iterator[None]:
    """Raise an error when no masks are written, so that a script doesn't extract cells with older masks."""
    from cellstamp.warnings import NoNucleusWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error", NoNucleusWarning)
        try:
            yield
        except NoNucleusWarning as warning:
            raise InputError(str(warning)) from warning


def _parse_settings(settings: tuple[str, ...]) -> dict[str, Any]:
    """Parse the ``--set`` options; values are YAML."""
    import yaml

    parsed: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"{setting!r}: write KEY=VALUE, like threads=4", param_hint="--set")
        try:
            parsed[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise click.BadParameter(f"{setting!r}: the value is not valid YAML", param_hint="--set") from error
    return parsed


class _Echo(logging.Handler):
    """Show lines on stdout; where that cannot be written, the command still finishes its work."""

    def __init__(self) -> None:
        super().__init__()
        self.error: OSError | None = None
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.show(record.getMessage())

    def show(self, line: str) -> None:
        """Show a line."""
        self.last = line
        try:
            click.echo(line)
        except OSError as error:
            self.error = error

    def check(self) -> None:
        """Raise an error with the last line if stdout could not be written."""
        if self.error is None:
            return
        raise _unwritable(self.error, f"The command finished: {self.last}") from self.error


def _unwritable(error: OSError, outcome: str) -> _Failure:
    """Return the error for a stdout that cannot be written, such as that of a full disk."""
    # otherwise the rest of the buffer would raise this error again when the process ends
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    return _Failure(f"standard output cannot be written ({error.strerror}). {outcome}")


def _print(*lines: str) -> None:
    """Print a command's result on stdout."""
    try:
        for line in lines:
            click.echo(line)
    except BrokenPipeError:  # the reader has enough: click ends the command silently
        raise
    except OSError as error:
        raise _unwritable(error, f"The command finished: {'; '.join(lines)}") from error


@contextmanager
def _closing_line_on_stdout() -> Iterator[Callable[[str], None]]:
    """Show log lines on stdout, and lines passed to the function that this yields."""
    logger, handler = logging.getLogger("cellstamp"), _Echo()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler.show
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    handler.check()


@commands.command(short_help="Show the content of a .h5sc file.")
@click.argument("file", type=_FILE)
@_debug_option
def info(file: Path) -> None:
    """Show the number of cells, channels, size, compression and settings of FILE, a .h5sc file."""
    from cellstamp.h5sc.reader import describe_h5sc

    _print(*(f"{name:<15}{value}" for name, value in _info_lines(file, describe_h5sc(file))))


def _info_lines(file: Path, about: "H5scInfo") -> Iterator[tuple[str, str]]:
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
    if not about.settings.get("apply_masks", True):
        yield "surroundings", "kept: channels are not multiplied by the cell mask"
    if about.settings.get("border") == "pad":
        yield "border", "padded: cells near the border are included; pixels outside the image are 0"


def _normalization(about: "H5scInfo") -> str:
    if about.normalization_range is None:
        return "none (integers divided by the largest value of their type, floats unchanged)"
    whole = "the whole image" if about.settings.get("normalization_scope") == "image" else "each cell"
    if isinstance(about.normalization_range, str):
        return f"quantiles of each channel of {whole}, different for each channel"
    lower, upper = about.normalization_range
    return f"quantiles {lower:g} to {upper:g} of each channel of {whole}"


@commands.command(short_help="Check that a .h5sc file is complete and valid.")
@click.argument("file", type=_FILE)
@_debug_option
def validate(file: Path) -> None:
    """Check FILE, a .h5sc file: counts agree, every image is readable, values are in range, ids are unique."""
    from cellstamp.h5sc.validate import errors_in

    errors = errors_in(file)
    if errors:
        raise _Failure("\n  ".join([f"{file} is invalid:", *errors]))
    _print(f"{file} is valid")


@commands.command(short_help="Draw some of the single-cell images.")
@click.argument("file_or_project", type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Picture to write."
)
@click.option("--n", type=click.IntRange(min=1), help="Number of cells.  [default: about 16, in full rows]")
@click.option("--cell", "cells", type=click.IntRange(min=1), multiple=True, metavar="ID", help="Draw this cell only.")
@click.option("--channel", "channels", multiple=True, metavar="NAME", help="Draw this channel only.")
@click.option("--color", "colors", multiple=True, metavar="NAME", help="Colour of the next channel, or auto.")
@click.option("--outlines/--no-outlines", default=True, show_default=True, help="Draw the outlines of masks.")
@_debug_option
def preview(
    *,
    file_or_project: Path,
    output: Path,
    n: int | None,
    cells: tuple[int, ...],
    channels: tuple[str, ...],
    colors: tuple[str, ...],
    outlines: bool,
) -> None:
    """Draw single-cell images of FILE_OR_PROJECT: a .h5sc file, or the latest result of a project.

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
        save=output,
    )
    _print(f"Picture: {output}")


def _type_option(name: str, target: str, default: str, text: str) -> Callable[[Any], Any]:
    return click.option(
        name, target, multiple=True, default=[default], metavar="TYPE", show_default=True, help=f"{text}. Repeatable."
    )


@commands.command(name="compile", short_help="Compile for later runs, for example in a container image.")
@_type_option("--image", "images", "uint16", "Data type of images")
@_type_option("--masks", "masks", "uint32", "Data type of masks")
@_type_option("--dtype", "dtypes", "float16", "Data type of single-cell images")
@_debug_option
def compile_kernels(*, images: tuple[str, ...], masks: tuple[str, ...], dtypes: tuple[str, ...]) -> None:
    """Compile the code of extractions now, so that the first run starts at once.

    With several types, all combinations are compiled. Existing code is kept.
    """
    from cellstamp.pipeline.compile_kernels import compile_for_later

    compile_for_later(images, masks, dtypes, click.echo)


@commands.command(short_help="Segment, extract and draw the cells of a real image.")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default="cellstamp-demo")
@_debug_option
def demo(folder: Path) -> None:
    """Segment, extract and draw the cells of a real image into FOLDER (cellstamp-demo). Needs no network."""
    from cellstamp.demo import run_demo

    with _closing_line_on_stdout() as show:
        result = run_demo(folder, show)
        show(f"Project:            {result.project}")
        show(f"Single-cell images: {result.h5sc}")
        show(f"Picture of them:    {result.picture}")
