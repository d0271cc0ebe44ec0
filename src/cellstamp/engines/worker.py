"""Runs in a worker: does one batch after the other until there are no more."""

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
    """The error that a batch ended with."""

    error: Exception


def work(descriptors: Sequence[int]) -> None:
    """Do batch after batch, until there are no more.

    Parameters
    ----------
    descriptors
        Of the connection to the caller, and of the memory for results. Through the connection come the caller's
        `Surroundings`, the task, and then pairs of a batch and the slot for its result; None at the end.
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
            except Exception as error:  # noqa: BLE001 - it is raised where it can be told
                done = Failure(portable(error))
            with suppress(ConnectionError):
                caller.send(done)


def _receive(caller: Connection[Any, Any]) -> Any:
    """Receive a message; an `EOFError` says that there is no caller any more."""
    try:
        message = caller.recv_bytes()
    except ConnectionError as error:
        raise EOFError from error
    return pickle.loads(message)


def _end_with_caller(connection: int) -> None:
    """Wait until nobody is at the other end any more, and end; a worker in the middle of a batch would not notice."""
    watch = select.poll()
    watch.register(connection, 0)  # that the other end was closed is always told
    watch.poll()
    os._exit(1)
