"""How a command can end, with its exit code."""

import signal

import click

_BY_SIGNAL = 128
"""Added to the number of a signal, as shells do."""
INTERRUPTED = _BY_SIGNAL + signal.SIGINT


class UserError(click.ClickException):
    """The input is invalid."""

    exit_code = 2


class Failure(click.ClickException):
    """The input is valid, but the command failed."""

    exit_code = 1


class TerminatedError(BaseException):
    """SIGTERM, SIGHUP or SIGBREAK arrived, from a batch system, a closed terminal, or Ctrl-Break on Windows."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = _BY_SIGNAL + number


class EndedBySignal(SystemExit):
    """A signal ended the command, and its cleanup is done."""
