"""Retry a batch whose worker died: the same batch first, then its halves. The last step is an error that names it."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cellstamp.errors import CellstampError, WorkerError

B = TypeVar("B")

DEATHS = 3
"""Divide a batch after this number of dead workers; divide a half after one more."""


@dataclass(eq=False)
class Attempt(Generic[B]):
    """A batch, and the number of workers that died while working on it."""

    batch: B
    deaths: int = 0


def try_again(attempt: Attempt[B], *, end: str, hint: str, log: Callable[[str], None]) -> Sequence[Attempt[B]]:
    """Return what to run after a worker died: the same batch, or its halves.

    Parameters
    ----------
    end
        How the worker ended.
    hint
        What the user can do if nothing is left to try.

    Raises
    ------
    WorkerError
        Several workers died at the batch, and it cannot be divided. The message names the batch.
    """
    attempt.deaths += 1
    if attempt.deaths < DEATHS:
        log(f"a worker died ({end}) while working on {attempt.batch}; retrying the batch")
        return [attempt]
    halves = _halves(attempt.batch)
    if not halves:
        raise WorkerError(
            f"{attempt.deaths} workers died while working on {attempt.batch} (the last one: {end}). {hint}"
        )
    log(f"a worker died ({end}) while working on {attempt.batch}; retrying its halves separately")
    return [Attempt(half, DEATHS - 1) for half in halves]


def _halves(batch: Any) -> Sequence[Any]:
    """Return the halves of a batch; nothing if it cannot be divided."""
    return batch.halves() if hasattr(batch, "halves") else ()


def portable(error: Exception) -> Exception:
    """Return an error that can be pickled, with its traceback."""
    if not isinstance(error, CellstampError):  # ours name the place already
        error.add_note(traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - pickling another library's error may raise anything
        return RuntimeError(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    return error
