"""Show results and log lines on stdout, also if it cannot be written."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from cellstamp.cli.exit_codes import Failure


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


def _unwritable(error: OSError, outcome: str) -> Failure:
    """Return the error for a stdout that cannot be written, such as that of a full disk."""
    # otherwise the rest of the buffer would raise this error again when the process ends
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    return Failure(f"standard output cannot be written ({error.strerror}). {outcome}")


def print_result(*lines: str) -> None:
    """Print a command's result on stdout."""
    try:
        for line in lines:
            click.echo(line)
    except BrokenPipeError:  # the reader has enough: click ends the command silently
        raise
    except OSError as error:
        raise _unwritable(error, f"The command finished: {'; '.join(lines)}") from error


@contextmanager
def closing_line_on_stdout() -> Iterator[Callable[[str], None]]:
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
