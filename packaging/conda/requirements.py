"""Write the requirements of pyproject.toml into recipe.yaml: ``python packaging/conda/requirements.py``."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

RECIPE = Path(__file__).with_name("recipe.yaml")
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
EXTRAS = ("plot", "segmentation")
NAMES = {"dask": ["dask-core"], "fsspec[http]": ["fsspec", "aiohttp"], "matplotlib": ["matplotlib-base"]}
"""Packages of conda-forge for a package of PyPI, where names differ; the first has the bound."""


def requirements() -> list[str]:
    """Return the lines of the recipe's section ``run``, for what pyproject.toml requires."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(each for extra in EXTRAS for each in project["optional-dependencies"][extra])]
    return ["python >=${{ python_min }}", *sorted(line for each in wanted for line in _for_conda(each))]


def _for_conda(requirement: str) -> Iterator[str]:
    match = re.fullmatch(r"([\w.-]+(?:\[\w+\])?)\s*((?:[<>=!~]=?[\w.*]+,?)*)", requirement)
    if match is None:
        raise SystemExit(f"{requirement!r} in pyproject.toml: write NAME or NAME>=VERSION, or extend {__file__}")
    first, *others = NAMES.get(match[1], [match[1]])
    yield f"{first} {match[2]}".strip()
    yield from others


def with_requirements(recipe: str) -> str:
    """Return the recipe with these lines in its section ``run``."""
    lines = "".join(f"    - {line}\n" for line in requirements())
    return re.sub(r"(?m)^(  run:\n)(?:    - .*\n)*", lambda match: match[1] + lines, recipe, count=1)


if __name__ == "__main__":
    RECIPE.write_text(with_requirements(RECIPE.read_text(encoding="utf-8")), encoding="utf-8")
