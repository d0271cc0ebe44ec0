"""Resolve cellstamp beside other tools, and compare their versions with those that users get without cellstamp.

``python .ci/compat.py UV`` downloads metadata only. It prints a table, and fails if a tool conflicts or becomes older.
"""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
CELLSTAMP = (str(ROOT / "pyproject.toml"), "--extra=dask", "--extra=demo", "--extra=notebook")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
NEIGHBOURS = (
    ("scportrait==1.8.0",),
    ("scportrait[all]==1.8.0",),
    ("squidpy",),
    ("scanpy",),
    ("sopa",),
    ("spatialdata-io",),
    ("spatialdata-plot",),
    ("napari-spatialdata",),
    ("harpy-analysis",),
    ("cellpose",),
    ("cellpose<4",),
    ("stardist", "tensorflow"),
    ("sopa[stardist]", "tensorflow"),
    ("torch",),
    ("cudf-cu12", "cuml-cu12"),
)
"""Packages that are installed together; without a version, the newest."""

STUBS = ("cudf-cu12", "cuml-cu12")
"""Packages of which some releases are stubs that cannot be built."""

OPTIONS = ("--quiet", "--no-header", "--no-annotate", "--color=never")

Versions = dict[str, Version]


@dataclass(frozen=True)
class Comparison:
    """Versions of a neighbour's packages without and with cellstamp; None if the resolution failed."""

    names: tuple[str, ...]
    alone: Versions | None
    beside: Versions | None

    @property
    def is_good(self) -> bool:
        """Whether the packages are not older beside cellstamp. What doesn't resolve alone shows nothing."""
        if self.alone is None or self.beside is None:
            return False
        return all(self.beside[name] >= self.alone[name] for name in self.names)

    def __str__(self) -> str:
        alone, beside = (self._listed(found) for found in (self.alone, self.beside))
        return alone if self.is_good else f"{alone} -> {beside}"

    def _listed(self, found: Versions | None) -> str:
        return " + ".join(str(found[name]) for name in self.names) if found else "conflict"


def resolve(uv: str, python: str, neighbour: tuple[str, ...], *cellstamp: str) -> Versions | None:
    """Return the newest versions that fit together, of all packages; None if there are none."""
    wheels = [f"--only-binary={name}" for name in STUBS]
    command = [uv, "pip", "compile", "-", *cellstamp, *OPTIONS, "--python-version", python, *wheels]
    done = subprocess.run(command, input="\n".join(neighbour), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(f"Python {python}, {' '.join(neighbour)}:\n{done.stderr}\n")
        return None
    found = re.findall(r"^([\w.-]+)==(\S+)", done.stdout, re.MULTILINE)
    return {canonicalize_name(name): Version(version) for name, version in found}


def compare(uv: str, python: str, neighbour: tuple[str, ...]) -> Comparison:
    """Resolve a neighbour alone, and beside cellstamp."""
    alone = resolve(uv, python, neighbour)
    return Comparison(names_of(neighbour), alone, resolve(uv, python, neighbour, *CELLSTAMP) if alone else None)


def names_of(neighbour: tuple[str, ...]) -> tuple[str, ...]:
    """Return the packages' names, without versions and extras."""
    return tuple(canonicalize_name(Requirement(text).name) for text in neighbour)


def main(uv: str) -> int:
    """Print a row for each neighbour with a column for each Python, once resolved; return the exit status."""
    n_good = 0
    show("beside cellstamp", *PYTHONS)
    with ThreadPoolExecutor(len(PYTHONS)) as pool:
        for neighbour in NEIGHBOURS:
            found = list(pool.map(compare, repeat(uv), PYTHONS, repeat(neighbour)))
            n_good += sum(comparison.is_good for comparison in found)
            show(" + ".join(neighbour), *map(str, found))
    n_all = len(NEIGHBOURS) * len(PYTHONS)
    sys.stdout.write(f"{n_good} of {n_all} combinations have the versions that they have without cellstamp\n")
    return int(n_good < n_all)


def show(name: str, *cells: str) -> None:
    """Print a row of the table."""
    sys.stdout.write(f"| {name:<27} | {' | '.join(f'{cell:<18}' for cell in cells)} |\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
