"""Folders of an extraction's results: check the name, and lock the folder for unfinished results beside it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cellstamp.errors import ConfigError, OutputError
from cellstamp.h5sc.layout import FEATURES_NAMES, RESULT_NAMES, URL_NAME
from cellstamp.h5sc.opening import is_finished
from cellstamp.h5sc.unfinished import attempts_in, n_finished
from cellstamp.location import Location
from cellstamp.pipeline.folder import UNFINISHED
from cellstamp.pipeline.lock import holding

MEASURED_DIR = "features"
"""Default folder for the results of runs without single-cell images."""
_LONGEST_NAME = 100


def claim_folder(directory: Path, name: str | None, draw: str | None, *, default: str) -> Path:
    """Return the folder for the results, and check that nothing else has its name.

    Parameters
    ----------
    directory
        Folder of the step.
    name, default
        Name given by the user, and the name without one.
    draw
        End of the name for a random sample; None: all cells.

    Raises
    ------
    ConfigError
        If the name is not that of a folder in the step's folder.
    OutputError
        If a file or a link has this name.
    """
    base = default if name is None else name
    if not isinstance(base, str) or base[:1] in {"", "."} or Path(base).name != base or len(base) > _LONGEST_NAME:
        message = (
            f"output_folder_name = {name!r}: must be the name of a folder inside {directory}: text of at most "
            f"{_LONGEST_NAME} characters, without '/' and not beginning with '.'"
        )
        raise ConfigError(message)
    folder = directory / (base if draw is None else f"partial_{base}{draw}")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        kind = "a link" if folder.is_symlink() else "no folder"
        message = f"{folder} is in the way: it is {kind}. Move it, or give another output_folder_name"
        raise OutputError(message)
    return folder


def check_kind(folder: Path, *, images: bool, overwrite: bool) -> None:
    """Check that single-cell images and features of different runs don't get into one folder.

    Parameters
    ----------
    images
        Whether the run writes single-cell images, not features only.
    overwrite
        Whether it may replace results.

    Raises
    ------
    OutputError
        If they would.
    """
    there = [name for name in RESULT_NAMES if (folder / name).exists()]
    if not images and there:
        raise OutputError(
            f"{folder} has single-cell images ({there[0]}), and images = False measures features only. Give another "
            "output_folder_name, or set images to True"
        )
    measured = [name for name in FEATURES_NAMES if (folder / name).exists()]
    if images and measured and not there and not overwrite:
        raise OutputError(
            f"{folder} has {measured[0]} of a run with images = False. Give another output_folder_name, or set "
            "overwrite=True to replace it"
        )


def is_published(result: Location, folder: Path) -> bool:
    """Return whether a finished result exists, and the run that made it has ended.

    Parameters
    ----------
    result
        Location of the result.
    folder
        Folder for results.
    """
    # a store behind a URL is complete before the run has ended
    is_left = not isinstance(result, Path) and bool(attempts_in(_unfinished(folder)))
    return not is_left and is_finished(result)


def keep_url(result: Location, folder: Path) -> None:
    """Note the URL of a result in the folder for results, which lacks it if another project has made the result."""
    note = folder / URL_NAME
    if not isinstance(result, Path) and not note.exists():
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(f"{result}\n", encoding="utf-8")


def forget_url(result: Location, folder: Path) -> None:
    """Remove the note of the URL of a result that was removed, so that nothing lists it."""
    note = folder / URL_NAME
    if note.is_file() and note.read_text(encoding="utf-8").strip() == str(result):
        note.unlink()


def _unfinished(folder: Path) -> Path:
    return folder.with_name(f"{UNFINISHED}{folder.name}")


@contextmanager
def work_folder(folder: Path) -> Iterator[Path]:
    """Lock the folder for results; yield a folder next to it for unfinished results, kept if it has any."""
    work = _unfinished(folder)
    with holding(folder.with_name(f".{folder.name}.lock"), what=folder):
        if work.is_symlink():
            message = f"{work} is a link, and is not followed: remove it"
            raise OutputError(message)
        work.mkdir(parents=True, exist_ok=True)
        try:
            yield work
        finally:
            if not n_finished(work):
                shutil.rmtree(work, ignore_errors=True)
