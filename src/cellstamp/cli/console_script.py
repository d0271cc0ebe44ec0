"""The console script ``cellstamp``: its commands, signals, and what happens to errors of cellstamp itself."""

import atexit
import io
import os
import signal
import sys
import warnings
from contextlib import suppress
from types import TracebackType

import click

from cellstamp import __version__
from cellstamp.cli.browse_command import browse
from cellstamp.cli.embed_command import embed
from cellstamp.cli.errors import Commands
from cellstamp.cli.exit_codes import EndedBySignal, TerminatedError
from cellstamp.cli.export_command import export
from cellstamp.cli.file_commands import info, preview, report, validate
from cellstamp.cli.project_commands import extract, segment
from cellstamp.cli.setup_commands import compile_kernels, demo


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cellstamp")
def commands() -> None:
    """Single-cell images from segmented microscopy images."""


for command in (segment, extract, info, validate, preview, report, browse, export, embed, compile_kernels, demo):
    commands.add_command(command)


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
    except EndedBySignal as end:
        _leave_at_once(end)


def _leave_at_once(end: EndedBySignal) -> None:
    """Exit without the interpreter's cleanup, which takes seconds on a busy machine."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(end.code if isinstance(end.code, int) else 1)


def _end_on(number: int) -> None:
    """End the command cleanly on a signal, unless the caller ignores the signal, as nohup does."""
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, _terminated)


def _terminated(number: int, _: object) -> None:
    # a second signal would interrupt the cleanup
    signal.signal(number, signal.SIG_IGN)
    raise TerminatedError(number)


def _report_in_one_line(kind: type[BaseException], error: BaseException, _where: TracebackType | None) -> None:
    text = " ".join(str(error).split())
    name = kind.__name__
    click.echo(f"Error: {name}: {text}" if text else f"Error: {name}", err=True)
    click.echo("This is an error in cellstamp. Run again with --debug for the traceback.", err=True)


def _show_warning(message: Warning | str, *_where: object, **_more: object) -> None:
    click.echo(f"Warning: {message}", err=True)
