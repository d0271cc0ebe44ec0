"""Resolve cellstamp beside other tools, and compare their versions with those that users get without cellstamp.

``python .ci/compat.py UV`` downloads metadata only. It prints a table, and fails if a tool conflicts or becomes older.
"""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
CELLSTAMP = (str(ROOT / "pyproject.toml"), "--extra=dask", "--extra=demo", "--extra=notebook")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
NEIGHBOURS = (
    ("scportrait",),
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
    # releases of the neighbours that would have to be built are stubs, which fail
    wheels = [f"--only-binary={name}" for name in names_of(neighbour)]
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
    """Print a table with a row for each neighbour and a column for each Python; return the exit status."""
    with ThreadPoolExecutor(4) as pool:
        results = pool.map(lambda pair: compare(uv, pair[1], pair[0]), product(NEIGHBOURS, PYTHONS))
        found = dict(zip(product(NEIGHBOURS, PYTHONS), results, strict=True))
    rows = [["beside cellstamp", *PYTHONS]]
    rows += [[" + ".join(names), *(str(found[names, python]) for python in PYTHONS)] for names in NEIGHBOURS]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(f"| {line} |\n")
    n_good = sum(comparison.is_good for comparison in found.values())
    sys.stdout.write(f"{n_good} of {len(found)} combinations have the versions that they have without cellstamp\n")
    return int(n_good < len(found))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
