"""Define the errors that cellstamp raises. Each is also a subclass of the matching builtin error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class CellstampError(Exception):
    """Base class of all errors of cellstamp."""


class ConfigError(CellstampError, ValueError):
    """A configuration or an argument is invalid."""


class InputError(CellstampError, ValueError):
    """An image, a mask, a table of centres or a store is missing or invalid."""


class OutputError(CellstampError, ValueError):
    """A result already exists, or cannot be written."""


class WorkerError(CellstampError, RuntimeError):
    """A batch failed in a worker, or a worker died."""


@contextmanager
def reworded(reword: Callable[[str], str]) -> Iterator[None]:
    """Change the messages of errors, such as names of temporary folders, which a user does not know."""
    try:
        yield
    except CellstampError as error:
        error.args = tuple(reword(each) if isinstance(each, str) else each for each in error.args)
        raise
