"""What becomes of a batch whose worker died: it runs again, then its halves do, then it is an error that names it."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cellstamp.errors import CellstampError, WorkerError

B = TypeVar("B")

DEATHS = 3
"""A batch at which so many workers died is divided; a part of one at which another dies, too."""


@dataclass(eq=False)
class Attempt(Generic[B]):
    """A batch, and how many workers died at it."""

    batch: B
    deaths: int = 0


def try_again(job: Attempt[B], *, end: str, hint: str, log: Callable[[str], None]) -> Sequence[Attempt[B]]:
    """What to run instead of a batch at which a worker died: the same again, or its halves.

    Parameters
    ----------
    end
        How the worker ended.
    hint
        What to do about it, if nothing is left to try.

    Raises
    ------
    WorkerError
        If workers died at it again and again, and it cannot be divided; the message names the batch.
    """
    job.deaths += 1
    if job.deaths < DEATHS:
        log(f"a worker died ({end}) while it had a batch of {job.batch}; the batch runs again")
        return [job]
    halves = _halves(job.batch)
    if not halves:
        raise WorkerError(
            f"workers died again and again ({job.deaths} times, the last one: {end}) while they had a batch of "
            f"{job.batch}. {hint}"
        )
    log(f"a worker died ({end}) while it had a batch of {job.batch}; its halves run by themselves")
    return [Attempt(half, DEATHS - 1) for half in halves]


def _halves(batch: Any) -> Sequence[Any]:
    """The halves of a batch that can be divided."""
    return batch.halves() if hasattr(batch, "halves") else ()


def portable(error: Exception) -> Exception:
    """An error as it can be sent, with where it was raised."""
    if not isinstance(error, CellstampError):  # ours say where by themselves
        error.add_note(traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - anything may go wrong with somebody else's error
        return RuntimeError(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    return error
