"""Commands that run the steps of a project: ``segment`` and ``extract``."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cellstamp.cli.errors import DEBUG, debug_option
from cellstamp.cli.output import closing_line_on_stdout
from cellstamp.errors import InputError

if TYPE_CHECKING:
    from cellstamp import Project

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _together(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Join decorators into one, the first outermost."""
    return lambda command: reduce(lambda inner, decorate: decorate(inner), reversed(decorators), command)


_project_options = _together(
    click.argument("project_folder", type=_FOLDER),
    click.option(
        "--config",
        type=_FILE,
        help="YAML file that replaces the folder's config.yml.",
    ),
    click.option(
        "--set",
        "settings",
        metavar="KEY=VALUE",
        multiple=True,
        help="Set a key of the configuration; the value is YAML.",
    ),
)
_run_options = _together(
    click.option("--progress/--no-progress", default=None, help="Show progress.  [default: in a terminal]"),
    debug_option,
    click.pass_context,
)


@click.command(short_help="Segment the nuclei and cells of a project's image.")
@_project_options
@click.option("--overwrite", is_flag=True, help="Replace existing masks.")
@_run_options
def segment(
    ctx: click.Context,
    *,
    project_folder: Path,
    config: Path | None,
    settings: tuple[str, ...],
    overwrite: bool,
    progress: bool | None,
) -> None:
    """Segment nuclei and cells in the image of PROJECT_FOLDER with a threshold, and write both masks."""
    overrides = _overrides(settings, progress=progress)
    from cellstamp import ThresholdSegmentation

    project = _open_project(ctx, project_folder, config, segmentation_f=ThresholdSegmentation)
    project.segmentation_f.config.update(overrides)
    with closing_line_on_stdout(), _no_nucleus_is_an_error():
        project.segment(overwrite=overwrite or None)


@click.command(short_help="Extract the single-cell images of a project.")
@_project_options
@click.option("--partial", "n_cells", type=click.IntRange(min=1), metavar="N", help="Extract N random cells only.")
@click.option("--seed", type=click.IntRange(min=0), default=42, show_default=True, help="Seed for --partial.")
@click.option("--output-folder", metavar="NAME", help="Name of the result's folder.  [default: data]")
@click.option("--overwrite", is_flag=True, help="Replace existing results.")
@click.option("--report", "wants_report", is_flag=True, help="Write an HTML page about the run beside the result.")
@_run_options
def extract(
    ctx: click.Context,
    *,
    project_folder: Path,
    config: Path | None,
    settings: tuple[str, ...],
    n_cells: int | None,
    seed: int,
    output_folder: str | None,
    overwrite: bool,
    wants_report: bool,
    progress: bool | None,
) -> None:
    """Extract the single-cell images of the project in PROJECT_FOLDER. An interrupted run resumes."""
    overrides = _overrides(settings, progress=progress)
    from cellstamp import HDF5CellExtraction

    project = _open_project(ctx, project_folder, config, extraction_f=HDF5CellExtraction)
    project.extraction_f.config.update(overrides)
    if wants_report:
        from cellstamp.pipeline.run_report import check_page_of_run

        check_page_of_run(project.extraction_f, output_folder, None if n_cells is None else (n_cells, seed))
    with closing_line_on_stdout() as show:
        project.extract(
            partial=n_cells is not None,
            n_cells=n_cells,
            seed=seed,
            overwrite=overwrite or None,
            output_folder_name=output_folder,
        )
        if wants_report:
            show(_report(project))


def _report(project: "Project") -> str:
    """Write the page about the run that has ended; return a line about it."""
    if project.extraction_f.output_path is None:
        return "No report: no cell was extracted"
    return f"Report: {project.report()}"


def _overrides(settings: tuple[str, ...], *, progress: bool | None) -> dict[str, Any]:
    """Return the keys for this run. Set them on the step: the project would save them to the folder's config.yml."""
    overrides = _parse_settings(settings)
    return overrides if progress is None else overrides | {"progress": progress}


def _open_project(ctx: click.Context, folder: Path, config: Path | None, **steps: Any) -> "Project":
    from cellstamp.pipeline.folder import STORE, lying_below

    if not (folder / STORE).is_dir():
        found = lying_below(folder)
        raise InputError(f"{folder} is not a project: {STORE} is missing" + (f"; {found}" if found else ""))
    from cellstamp import Project

    return Project(folder, config_path=config, debug=bool(ctx.meta.get(DEBUG)), **steps)


@contextmanager
def _no_nucleus_is_an_error() -> Iterator[None]:
    """Raise an error when no masks are written, so that a script doesn't extract cells with older masks."""
    from cellstamp.warnings import NoNucleusWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error", NoNucleusWarning)
        try:
            yield
        except NoNucleusWarning as warning:
            raise InputError(str(warning)) from warning


def _parse_settings(settings: tuple[str, ...]) -> dict[str, Any]:
    """Parse the ``--set`` options; values are YAML."""
    import yaml

    parsed: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"{setting!r}: write KEY=VALUE, like threads=4", param_hint="--set")
        try:
            parsed[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise click.BadParameter(f"{setting!r}: the value is not valid YAML", param_hint="--set") from error
    return parsed
