"""Network namespaces with slow links, and dask processes in them. Needs root and Linux."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

HOST = "10.77.{}.1"
THERE = "10.77.{}.2"


def run_command(*command: str) -> None:
    """Run a command that must succeed."""
    subprocess.run(command, check=True)


@contextmanager
def namespace(number: int, rate: int, *, both_ways: bool = False) -> Iterator[tuple[str, ...]]:
    """Create a network namespace behind a slow link; yield the command that enters it.

    Parameters
    ----------
    number
        Part of its name and addresses, from 1 to 254.
    rate
        Megabits per second that it sends at most.
    both_ways
        Whether it also receives at this rate.
    """
    name, here, there = f"stamp{number}", link_of(number), f"stamp{number}w"
    inside = ("ip", "netns", "exec", name)
    run_command("ip", "netns", "add", name)
    try:
        run_command("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        run_command("ip", "addr", "add", f"{HOST.format(number)}/24", "dev", here)
        run_command("ip", "link", "set", here, "up")
        run_command(*inside, "ip", "addr", "add", f"{THERE.format(number)}/24", "dev", there)
        run_command(*inside, "ip", "link", "set", there, "up")
        run_command(*inside, "ip", "link", "set", "lo", "up")
        run_command(*inside, "ip", "route", "add", "default", "via", HOST.format(number))
        _limit(there, rate, inside)
        if both_ways:
            _limit(here, rate)
        yield inside
    finally:
        # remove the link first: the namespace exists until the last process in it has ended
        subprocess.run(["ip", "link", "del", here], check=False)
        run_command("ip", "netns", "del", name)


def link_of(number: int) -> str:
    """Return the name of the link to a namespace, on this side."""
    return f"stamp{number}h"


def _limit(device: str, rate: int, inside: Sequence[str] = ()) -> None:
    limits = ("tbf", "rate", f"{rate}mbit", "burst", "256kb", "latency", "50ms")
    run_command(*inside, "tc", "qdisc", "add", "dev", device, "root", *limits)


def start_scheduler(stack: ExitStack, folder: Path) -> str:
    """Start a scheduler that listens on all addresses, until the stack closes; return its port."""
    file = folder / "scheduler.json"
    options = ("--host", "0.0.0.0", "--port", "0", "--scheduler-file", str(file))
    start_dask(stack, "dask_scheduler", *options)
    while not file.exists() or not file.stat().st_size:
        time.sleep(0.1)
    return str(json.loads(file.read_text())["address"]).rpartition(":")[2]


def start_dask(stack: ExitStack, module: str, *options: str, before: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Start a process of dask's command line, until the stack closes."""
    process = subprocess.Popen(
        [*before, sys.executable, "-m", f"distributed.cli.{module}", *options, "--no-dashboard"],
        stderr=subprocess.DEVNULL,
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process
