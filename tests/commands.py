"""Run commands in this process, with any release of click."""

import inspect
from typing import Any

from click.testing import CliRunner, Result

from cellstamp.cli import commands

# click before 8.2 joins stdout and stderr unless this is False
_SEPARATE: dict[str, Any] = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}


def run_command(*arguments: object) -> Result:
    return CliRunner(**_SEPARATE).invoke(commands, [str(argument) for argument in arguments], prog_name="cellstamp")
