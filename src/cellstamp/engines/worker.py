"""Run batches in a worker process until there are no more."""

from __future__ import annotations

import os
import pickle
import select
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from cellstamp.engines.base import outcome
from cellstamp.engines.parcels import Slots, pack
from cellstamp.engines.retries import portable


@dataclass(frozen=True)
class Failure:
    """The error of a failed batch."""

    error: Exception


def work(descriptors: Sequence[int]) -> None:
    """Run one batch after the other until there are no more.

    Parameters
    ----------
    descriptors
        Descriptors of the connection to the caller, and of the memory for results. The caller sends its
        `Surroundings`, the task, then pairs of a batch and the slot for its result, and None at the end.
    """
    connection, memory = descriptors
    caller: Connection[Any, Any] = Connection(connection)
    slots = Slots(memory, keep=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_caller, args=(connection,), daemon=True).start()
    with suppress(EOFError):
        _receive(caller).enter()
        task = _receive(caller)
        while (order := _receive(caller)) is not None:
            batch, slot = order
            try:
                done: object = outcome(pack(task(batch), slots, slot))
            except Exception as error:  # noqa: BLE001 - the caller raises it
                done = Failure(portable(error))
            with suppress(ConnectionError):
                caller.send(done)


def _receive(caller: Connection[Any, Any]) -> Any:
    """Receive a message; raise an `EOFError` if the caller has ended."""
    try:
        message = caller.recv_bytes()
    except ConnectionError as error:
        raise EOFError from error
    return pickle.loads(message)


def _end_with_caller(connection: int) -> None:
    """End this process when the caller ends, even in the middle of a batch."""
    watch = select.poll()
    watch.register(connection, 0)  # poll always reports that the other end was closed
    watch.poll()
    os._exit(1)
