"""Check the types as on Windows and macOS: calls that a system lacks are errors there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SYSTEMS = ("win32", "darwin")
FORKING = ("src/cellstamp/engines/fork_server.py", "src/cellstamp/engines/forking.py")
"""Modules that run only where processes can be forked."""


def problems(system: str) -> list[str]:
    """Return the errors that mypy finds for a system, except those in modules that it never runs."""
    command = [sys.executable, "-m", "mypy", "--platform", system, "--cache-dir", f".mypy_cache/{system}"]
    done = subprocess.run(
        [*command, "--no-error-summary"], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stdout.splitlines() if ": error:" in line and not line.startswith(FORKING)]
    return [*lines, *done.stderr.splitlines()]


if __name__ == "__main__":
    found = [f"{system}: {problem}" for system in SYSTEMS for problem in problems(system)]
    sys.exit("\n".join(found) or 0)
