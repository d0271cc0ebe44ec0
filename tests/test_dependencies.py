"""Each package that the code imports is declared, and nothing else."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

import cellstamp

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = ("browse", "dask", "plot", "segmentation", "torch")
"""Extras with packages that the code imports; the others are for notebooks, tests and documentation."""

IMPORTED_AS = {
    "google-crc32c": "google_crc32c",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-image": "skimage",
    "universal-pathlib": "upath",
}


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def declared() -> set[str]:
    optional = [text for extra in EXTRAS for text in PROJECT["optional-dependencies"][extra]]
    names = [re.match(r"[\w-]+", text)[0] for text in PROJECT["dependencies"] + optional]
    return {IMPORTED_AS.get(name, name) for name in names}


def test_imports_are_declared_and_declarations_are_imported():
    imported = set[str]().union(*map(imports_of, Path(cellstamp.__file__).parent.rglob("*.py")))
    assert imported - set(sys.stdlib_module_names) - {"cellstamp"} == declared()


@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_each_requirement_has_a_lower_bound_only(extra):
    requirements = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    for text in requirements:
        assert re.fullmatch(r"[\w-]+(\[\w+\])?>=[\d.]+", text)
