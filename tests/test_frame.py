"""The frame around the library: what is public, what imports what, and whether the pages say what is true."""

import ast
import importlib.metadata
import inspect
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

import cellstamp
from cellstamp.cli import commands
from cellstamp.compiling.cache_folders import SOURCES
from cellstamp.config import ExtractionConfig

ROOT = Path(__file__).parent.parent
SOURCE = Path(cellstamp.__file__).parent
HEAVY = {
    *("anndata", "dask", "h5py", "imagecodecs", "matplotlib", "numba", "numpy", "pandas", "psutil"),
    *("pydantic", "scipy", "skimage", "spatialdata", "tqdm", "xarray", "yaml", "zarr"),
}


def imported_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has imported after running some code."""
    code += "\nimport sys; sys.stderr.write(' '.join({name.partition('.')[0] for name in sys.modules}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stderr.split())


@pytest.mark.parametrize(
    "code",
    [
        "import cellstamp",
        "from cellstamp.cli import commands; commands(['--help'], standalone_mode=False)",
        "from cellstamp.cli import commands; commands(['extract', '--help'], standalone_mode=False)",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code):
    assert imported_by(code) & HEAVY == set()


def test_the_server_of_the_workers_imports_no_more_than_they_need():
    imported = imported_by("import cellstamp.cells.preload") & HEAVY
    assert imported - {"numba", "numpy", "scipy", "yaml", "zarr"} == set()  # scipy: numba looks at its version only


def test_public_names_are_there_and_documented():
    for name in cellstamp.__all__:
        if name == "__version__":
            continue
        thing = getattr(cellstamp, name)
        assert inspect.getdoc(thing), name
        if not inspect.isclass(thing):
            continue
        members = [member for member in vars(thing) if not member.startswith("_")]
        functions = [m for m in members if inspect.isroutine(vars(thing)[m]) or isinstance(vars(thing)[m], property)]
        undocumented = [f"{name}.{member}" for member in functions if not inspect.getdoc(getattr(thing, member))]
        assert undocumented == []


def test_public_names_are_listed_by_dir():
    assert set(cellstamp.__all__) <= set(dir(cellstamp))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Projekt'"):
        cellstamp.Projekt  # noqa: B018 - looking is the test


def test_the_version_is_one():
    assert re.fullmatch(r"\d+\.\d+\.\d+", cellstamp.__version__)
    assert f"\n## {cellstamp.__version__} " in (ROOT / "CHANGELOG.md").read_text()


def test_the_installed_version_is_that_of_the_code():
    try:
        installed = importlib.metadata.version("cellstamp")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("cellstamp is not installed here")
    assert installed == cellstamp.__version__


def roots_imported_in(path: Path) -> set[str]:
    roots = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add((node.module or ".").partition(".")[0])
    return roots - set(sys.stdlib_module_names)


KERNELS = [source for source in SOURCES if source.startswith("cells/kernels/")]


@pytest.mark.parametrize("source", [*KERNELS, "encoding.py"])
def test_kernels_import_numpy_numba_and_their_decorators_only(source):
    allowed = {"numpy", "numba", "cellstamp"} | (set() if source in KERNELS else {"imagecodecs"})
    assert roots_imported_in(SOURCE / source) <= allowed
    ours = {line for line in (SOURCE / source).read_text().splitlines() if line.startswith("from cellstamp")}
    modules = {line.partition(" import ")[0].removeprefix("from ") for line in ours}
    inside = {module for module in modules if module.startswith("cellstamp.cells.kernels.")}
    # The encoder needs two more modules, which import no more than numpy themselves.
    theirs = set() if source in KERNELS else {"cellstamp.compression", "cellstamp.encoded_cells"}
    assert modules - inside <= {"cellstamp.compiling.decorators"} | theirs
    assert not inside or source in KERNELS


def test_every_file_of_compiled_functions_decides_whether_kept_code_is_valid():
    compiled = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py") if "@compiled" in path.read_text()}
    assert {*SOURCES} == {*compiled, "compiling/decorators.py"}


def test_only_the_decorators_compile():
    assert [path.name for path in SOURCE.rglob("*.py") if re.search(r"\bnjit\b", path.read_text())] == ["decorators.py"]


def test_functions_that_only_compiled_functions_may_call_are_imported_by_kernels_only():
    files = [
        *({*SOURCE.rglob("*.py")} - {SOURCE / source for source in SOURCES}),
        *(ROOT / "tests").glob("*.py"),
        *(ROOT / "benchmarks").glob("*.py"),
    ]
    imports = [
        (node.module, alias.name)
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    for source in SOURCES:
        module = ".".join(("cellstamp", *Path(source).with_suffix("").parts))
        parts = re.findall(r"@compiled_(?:part|inline)\ndef (\w+)", (SOURCE / source).read_text())
        assert not {(module, part) for part in parts} & {*imports}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)


def test_the_readme_lists_existing_keys_and_their_defaults():
    rows = re.findall(r"^\| `(\w+)` \| `?([^|`]+)`? \|", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    config = ExtractionConfig.parse({"image_size": 128})
    shown = {"image_size": "required", "threads": "usable cores", "features": "False"}
    assert dict(rows) == {key: shown.get(key, str(getattr(config, key))) for key, _ in rows}
    assert set(shown) <= set(dict(rows))


def test_the_code_in_the_readme_runs(tmp_path, monkeypatch):
    import numpy as np
    import tifffile

    masks = np.zeros((400, 400), dtype=np.uint16)
    for number, (y, x) in enumerate([(100, 100), (100, 300), (300, 100), (200, 200)], start=1):
        masks[y - 10 : y + 10, x - 10 : x + 10] = number
    for name, pixels in {"nuclei": masks, "cells": masks, "dapi": masks * 1000, "actin": masks * 500}.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks("README.md", "python"):
        exec(compile(block, "README.md", "exec"), names)
    assert Path("my_project/extraction/data/single_cells.h5sc").is_file()


def anchors_of(page: Path) -> set[str]:
    """What links to places in a page are called: its headings, in small letters, with hyphens."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\((?!https?://)([^)]+)\)|src=\"(?!https?://)([^\"]+)\"", text)
    assert links or page in ("SECURITY.md", "CHANGELOG.md")
    for file, _, anchor in (("".join(link)).partition("#") for link in links):
        target = ROOT / (file or page)
        assert target.exists(), file
        assert not anchor or anchor in anchors_of(target), f"{file}#{anchor}"


def test_the_api_page_has_every_public_name():
    page = (ROOT / "docs" / "api.md").read_text()
    listed = re.findall(r"^\.\. auto\w+:: cellstamp\.(\w+)", page, flags=re.MULTILINE)
    assert sorted(listed) == sorted(cellstamp._HOMES)  # and so those that need torch


def test_the_package_says_that_it_has_types():
    assert (SOURCE / "py.typed").is_file()


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # what the format asks for
    assert (citation["version"], citation["license"]) == (cellstamp.__version__, "BSD-3-Clause")


def test_issue_forms_ask_something():
    forms = [path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config"]
    assert len(forms) == 2
    for form in (yaml.safe_load(path.read_text()) for path in forms):
        assert {"name", "description", "body"} <= set(form)
        ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
        assert len(ids) == len(set(ids)) > 1
        assert all("label" in field["attributes"] for field in form["body"] if field["type"] != "markdown")


def test_the_page_on_the_command_line_has_every_command_and_option_and_no_other():
    page = (ROOT / "docs" / "command-line.md").read_text()
    assert set(re.findall(r"^## cellstamp (\w+)$", page, flags=re.MULTILINE)) == set(commands.commands)
    options = {
        option
        for command in commands.commands.values()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("--")
    }
    assert set(re.findall(r"--[a-z][a-z-]*", page)) == options | {"--help"}
