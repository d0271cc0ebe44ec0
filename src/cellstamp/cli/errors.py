"""Report each error or interrupt of a command in one line."""

import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from cellstamp.cli.exit_codes import INTERRUPTED, EndedBySignal, Failure, TerminatedError, UserError
from cellstamp.errors import CellstampError, WorkerError, notes_of

DEBUG = __name__
"""Key of click's context for the option ``--debug``."""


def _as_option(argument: re.Match[str]) -> str:
    """Return the option for an argument."""
    return f"--{argument[1].replace('_', '-')}"


_OPTIONS: dict[str, dict[str, str | Callable[[re.Match[str]], str]]] = {
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
        r"(?<![\w/])scale='all'": "--scale all",
    },
    "report": {
        r"^path\b": "--output",
        r"(?<![\w/])another path\b": "another --output",
    },
    "embed": {
        r"(?<![\w/])overwrite=True\b": "--overwrite",
        r"(?<![\w/])(batch_size|device|precision|transform|model)\b(?=(?::| ?=))": _as_option,
        r"^channels\b": "--channel",
        r"^path\b": "--output",
        r"(?<![\w/])another path\b": "another --output",
        r"(?<![\w/])call embed again\b": "run the command again",
    },
    "export": {
        r"(?<![\w/])overwrite=True\b": "--overwrite",
        r"^cells\b": "--cells",
        r"^channels\b": "--channel",
        r"(?<![\w/])channels=('[^']*')": r"--channel \1",
        r"^(color =.*)": r"--\1; here: --color NAME once for each channel shown, in turn, or --color auto",
        r"^color\b": "--color",
        r"^(cells_per_shard|scale)\b": _as_option,
        r"(?<![\w/])format=('[^']*')": r"--format \1",
        r"^folder\b": "FOLDER",
        r"(?<![\w/])call export_cells again\b": "run the command again",
    },
    "browse": {
        r"^port\b": "--port",
        r"^save\b": "--save",
        r"^features\b": "--features",
    },
}
"""Patterns of arguments in messages, and the options for them, for each command."""

_LEFT = {
    "extract": " Run the command again.",
    "embed": " Run the command again.",
    "segment": " No masks were written. Run the command again to start over.",
}
"""The state after an interrupt without notes, for each command."""


# click before 8.2 prints the help of a command without arguments and exits; later ones raise this
_HELP_ONLY: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())


class Commands(click.Group):
    """Commands that report each error in one line: invalid input with exit code 2, failures with 1."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the arguments."""
        with _usage_errors_in_one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            with _usage_errors_in_one_line():
                return super().invoke(ctx)
        except KeyboardInterrupt as end:
            raise _report_end(ctx, "Interrupted", INTERRUPTED, end) from None
        except TerminatedError as end:
            raise _report_end(ctx, "Terminated", end.exit_code, end) from None
        except CellstampError as error:
            if ctx.meta.get(DEBUG):
                traceback.print_exc()
            kind = Failure if isinstance(error, WorkerError) else UserError
            message = _with_options(str(error), ctx.invoked_subcommand)
            raise kind(". ".join([message, *notes_of(error)])) from error


def _report_end(ctx: click.Context, word: str, code: int, end: BaseException) -> EndedBySignal:
    state = "".join(f" {note}." for note in notes_of(end)) or _LEFT.get(ctx.invoked_subcommand or "", "")
    # the terminal may be closed
    with suppress(OSError):
        click.echo(f"{word}.{state}", err=True)
    return EndedBySignal(code)


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
        raise UserError(f"{error.format_message()} (see {where} --help)") from error


def _set_debug(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's signature
    ctx.meta[DEBUG] = value
    if value:
        sys.excepthook = sys.__excepthook__


debug_option = click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    callback=_set_debug,
    help="Show the log, and the traceback of an error.",
)
