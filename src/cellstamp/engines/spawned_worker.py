"""Run a worker in a new interpreter."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from cellstamp.engines.connected import connect_to_caller
from cellstamp.engines.interpreter import open_standard_streams, run_and_exit
from cellstamp.engines.result_memory import PackedSlots, ResultMemory
from cellstamp.engines.worker import Caller, run_batches


def main(preload: Sequence[str], memory: str | None) -> NoReturn:
    """Work for the process that started this one.

    Parameters
    ----------
    preload
        Modules to import first.
    memory
        Path of the memory for results.
    """
    run_and_exit(lambda: _work(preload, memory))


def _work(preload: Sequence[str], memory: str | None) -> None:
    os.close(open_standard_streams())
    # first: a caller that is killed meanwhile leaves no file
    slots = PackedSlots(ResultMemory.opened(memory))
    caller = Caller(connect_to_caller())
    for name in preload:
        import_module(name)
    run_batches(caller, slots)
