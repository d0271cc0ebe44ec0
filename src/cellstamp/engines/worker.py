"""Run batches in a worker process until there are no more."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from cellstamp.engines.base import outcome
from cellstamp.engines.parcels import pack
from cellstamp.engines.result_memory import ResultMemory, Slots, SparseSlots
from cellstamp.engines.retries import portable
from cellstamp.system import kill_first


@dataclass(frozen=True)
class Failure:
    """The error of a failed batch."""

    error: Exception


class Caller:
    """The process that this worker works for. When it ends, this process ends, even in the middle of a batch.

    A thread reads messages as soon as they arrive: a pipe may hold only 8 KiB, and the caller must not wait for the end
    of a batch.

    Parameters
    ----------
    connection
        Connection to the caller.
    """

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection
        self._messages: SimpleQueue[bytes] = SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                self._messages.put(self._connection.recv_bytes())
        os._exit(1)

    def receive(self) -> Any:
        """Return the next message."""
        return pickle.loads(self._messages.get())

    def send(self, message: object) -> None:
        """Send a message, unless the caller has ended."""
        with suppress(ConnectionError):
            self._connection.send(message)


def work(descriptors: Sequence[int]) -> None:
    """Work in a process that was forked from the server.

    Parameters
    ----------
    descriptors
        Descriptors of the connection to the caller, and of the memory for results.
    """
    connection, memory = descriptors
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    kill_first(os.getpid())
    run_batches(Caller(Connection(connection)), SparseSlots(ResultMemory(memory)))


def run_batches(caller: Caller, slots: Slots) -> None:
    """Run one batch after the other until there are no more.

    Parameters
    ----------
    caller
        It sends its `Surroundings`, the task, then pairs of a batch and the slot for its result, and None at the end.
    slots
        Memory for results.
    """
    caller.receive().enter()
    task = caller.receive()
    while (order := caller.receive()) is not None:
        batch, slot = order
        try:
            done: object = outcome(pack(task(batch), slots, slot))
        except Exception as error:  # noqa: BLE001 - the caller raises it
            done = Failure(portable(error))
        caller.send(done)
