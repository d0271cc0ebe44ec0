"""Workflows, container image, recipe and pipeline module: their commands, options, targets and versions exist."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from cellstamp import __version__, read_h5sc
from cellstamp.cli import commands

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MODULE = ROOT / "packaging" / "nextflow" / "modules" / "cellstamp" / "extract"
RECIPE = ROOT / "packaging" / "conda" / "recipe.yaml"
DOCKERFILE = ROOT / "Dockerfile"
PAGE = ROOT / "docs" / "containers.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WITH_COMMANDS = [*WORKFLOWS, *sorted(MODULE.rglob("*.nf")), RECIPE, DOCKERFILE, PAGE]


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def workflow(name: str) -> dict[str, Any]:
    return yaml.safe_load(text_of(ROOT / ".github" / "workflows" / f"{name}.yml"))


def lines_of(path: Path) -> Iterator[str]:
    """Lines without comments, those that a backslash splits in one piece."""
    joined = re.sub(r"\\+\n\s*", " ", text_of(path))
    return (line for line in joined.splitlines() if not line.lstrip().startswith(("#", "//")))


def cellstamp_commands(path: Path) -> Iterator[list[str]]:
    """Arguments of each call of cellstamp, up to the end of the command."""
    starts = r"(?:^\s*(?:- (?:run: )?|RUN |\")?|\bcellstamp(?::\S+)? |\.sif |; )"
    for line in lines_of(path):
        if match := re.search(rf"{starts}cellstamp ((?:{'|'.join(commands.commands)})\b.*)", line):
            yield shlex.split(re.sub(r"[\"`|;].*$", "", match[1]).replace("${", "{"))


def test_commands_are_found_in_every_kind_of_file() -> None:
    found = {path.name: [arguments[0] for arguments in cellstamp_commands(path)] for path in WITH_COMMANDS}
    assert found == {
        "test.yml": ["demo", "validate", "demo"],
        "release.yml": [],
        "main.nf": ["extract", "validate"],
        "make_project.nf": ["demo"],
        "recipe.yaml": ["demo"],
        "Dockerfile": ["compile"],
        "containers.md": ["extract", "compile", "extract", "extract"],
    }


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=lambda path: path.name)
def test_options_of_cellstamp_exist(path: Path) -> None:
    for name, *arguments in cellstamp_commands(path):
        command = commands.commands[name]
        command.make_parser(click.Context(command, info_name=name)).parse_args(arguments)


def test_targets_of_make_exist() -> None:
    called = {name for path in WORKFLOWS for line in lines_of(path) for name in re.findall(r"run: make ([\w-]+)", line)}
    assert {"check", "wheel", "test-wheel"} <= called
    assert called <= set(re.findall(r"^([\w-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))


def test_extras_exist() -> None:
    called = {
        extra
        for path in (*WORKFLOWS, DOCKERFILE)
        for line in lines_of(path)
        for extras in re.findall(r"(?:'\.|\.whl\)\")?\[([a-z,]+)\]['\"]", line)
        for extra in extras.split(",")
    }
    (install,) = yaml.safe_load(text_of(ROOT / ".readthedocs.yaml"))["python"]["install"]
    assert called == {"test", "demo", "dask", "plot", "segmentation"}
    assert called | set(install["extra_requirements"]) <= set(PROJECT["optional-dependencies"])


def test_supported_versions_are_those_whose_jobs_must_pass() -> None:
    job = workflow("test")["jobs"]["test"]
    may_fail = set(re.findall(r"matrix\.python == '([\d.]+)'", job["continue-on-error"]))
    prefix = "Programming Language :: Python :: 3."
    classified = {each.removeprefix(prefix) for each in PROJECT["classifiers"] if each.startswith(prefix)}
    assert {f"3.{minor}" for minor in classified} == set(job["strategy"]["matrix"]["python"]) - may_fail
    assert [each for each in PROJECT["classifiers"] if each.startswith("Operating System")] == [
        "Operating System :: POSIX :: Linux"
    ]
    assert "!startsWith(matrix.os, 'ubuntu')" in job["continue-on-error"]


def test_single_versions_of_python_are_supported() -> None:
    places = [*WORKFLOWS, DOCKERFILE, ROOT / ".readthedocs.yaml", RECIPE]
    pattern = r"(?:python-version: \"|FROM python:|python: \"|python_min: \")(3\.\d+)"
    used = {version for path in places for version in re.findall(pattern, text_of(path))}
    assert used == {"3.11", "3.13"}
    assert PROJECT["requires-python"] == ">=3.11"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_to_commits(path: Path) -> None:
    used = re.findall(r"uses: (.*)", text_of(path))
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", action)


def test_only_the_job_that_publishes_has_rights() -> None:
    assert workflow("test")["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in workflow("test")["jobs"].values())
    release = workflow("release")
    assert release["permissions"] == {}
    assert {name: job["permissions"] for name, job in release["jobs"].items()} == {
        "build": {"contents": "read"},
        "publish": {"id-token": "write"},
    }


def test_every_reason_to_let_a_job_fail_is_explained() -> None:
    may_fail = {name for name, job in workflow("test")["jobs"].items() if "continue-on-error" in job}
    assert may_fail == {"test", "wheel-demo", "upcoming"}
    (top, _) = text_of(ROOT / ".github" / "workflows" / "test.yml").split("name: Tests")
    assert "macOS, Windows or Python 3.14" in " ".join(top.replace("#", "").split())


def test_versions_of_the_package_agree() -> None:
    places = [PAGE, RECIPE, *MODULE.rglob("*.nf"), MODULE / "environment.yml"]
    pattern = r"(?:cellstamp:|cellstamp=|version: \")(\d+\.\d+\.\d+)"
    found = {path: set(re.findall(pattern, text_of(path))) for path in places}
    assert found == {path: {__version__} for path in places}


def test_the_recipe_requires_what_the_package_requires() -> None:
    spec = importlib.util.spec_from_file_location("requirements", RECIPE.with_name("requirements.py"))
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    recipe = text_of(RECIPE)
    assert script.with_requirements(recipe) == recipe, "run: python packaging/conda/requirements.py"
    names = {re.split(r"[\[<>=!~; ]", each)[0] for each in PROJECT["dependencies"]}
    listed = {line.split()[0] for line in yaml.safe_load(recipe)["requirements"]["run"]}
    assert names - {"dask"} < listed


def test_the_page_shows_the_variables_and_the_command_of_the_image() -> None:
    in_page = re.search(r"```dockerfile\nENV (.*)\n(RUN .*)\n```", text_of(PAGE))
    assert in_page is not None
    image = list(lines_of(DOCKERFILE))
    assert in_page[2] in image
    assert all(any(variable in line.split() for line in image) for variable in in_page[1].split())


def script_of(section: str, values: dict[str, str]) -> str:
    """The script of the module, with values for its variables, as Nextflow makes it."""
    (script,) = re.findall(rf'^    {section}:.*?^    """\n(.*?)^    """', text_of(MODULE / "main.nf"), re.M | re.S)
    filled = re.sub(r"(?<!\\)\$\{([\w.]+)\}", lambda match: values[match[1]], script)
    assert not re.search(r"(?<!\\)\$", filled)
    return filled.replace("\\$", "$").replace("\\\\\n", "\\\n")


def run_script(script: str, folder: Path) -> None:
    """Run it as Nextflow does, with cellstamp on the path."""
    program = folder / "bin" / "cellstamp"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom cellstamp.cli import main\nmain()\n")
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        ["bash", "-e", "-u", "-o", "pipefail", "-c", script],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def digests(folder: Path) -> dict[Path, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.once
@pytest.mark.parametrize("own_config", [True, False], ids=["the project's settings", "other settings"])
def test_the_script_of_the_pipeline_module_extracts_a_linked_project(
    project_store: Any, tmp_path: Path, *, own_config: bool
) -> None:
    project = tmp_path / "elsewhere" / "slide 1"
    project.mkdir(parents=True)
    project_store(project / "scportrait.sdata")
    config = project / "config.yml" if own_config else tmp_path / "work" / "other.yml"
    before = digests(project)
    (tmp_path / "work" / "input").mkdir(parents=True)
    (tmp_path / "work" / "input" / "slide_1").symlink_to(project)
    config.write_text(yaml.safe_dump({"HDF5CellExtraction": {"image_size": 32 if own_config else 24}}))
    before |= digests(project)
    values = {
        "project": "input/slide_1",
        "settings": "input/slide_1/config.yml" if own_config else "other.yml",
        "task.cpus": "1",
        "args": "--set border=pad",
        "prefix": "slide_1",
    }
    run_script(script_of("script", values), tmp_path / "work")
    images = read_h5sc(tmp_path / "work" / "slide_1.h5sc").obsm["single_cell_images"]
    assert images.shape[:3] == (16, 5, 32 if own_config else 24)  # all cells, since the border is padded
    assert "Extracted" in (tmp_path / "work" / "slide_1.log").read_text()
    assert digests(project) == before


def test_the_stub_of_the_pipeline_module_makes_all_outputs(tmp_path: Path) -> None:
    run_script(script_of("stub", {"prefix": "slide_1"}), tmp_path)
    outputs = re.findall(r'path\("\$\{prefix\}(\.\w+)"\)', text_of(MODULE / "main.nf"))
    assert outputs == [".h5sc", ".log"]
    assert all((tmp_path / f"slide_1{output}").is_file() for output in outputs)


def test_the_pipeline_module_is_described() -> None:
    described = yaml.safe_load(text_of(MODULE / "meta.yml"))
    emitted = re.findall(r"emit: (\w+)", text_of(MODULE / "main.nf"))
    assert list(described["output"]) == emitted
    assert [next(iter(each)) for each in described["input"][0]] == ["meta", "project", "config"]
