"""Run a worker in a new interpreter."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

from cellstamp.engines.connected import connect_to_caller
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
    code = 1
    try:
        caller = Caller(connect_to_caller())
        slots = PackedSlots(ResultMemory.opened(memory))
        for name in preload:
            import_module(name)
        run_batches(caller, slots)
        code = 0
    except BaseException:  # noqa: BLE001 - a normal exit is slow with many imported modules
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
