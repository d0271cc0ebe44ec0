"""Names and paths in a project folder, as in scportrait, and its configuration file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cellstamp.config import ExtractionConfig
from cellstamp.config_files import check_sections, read_config
from cellstamp.config_rules import AUTO
from cellstamp.errors import ConfigError, OutputError
from cellstamp.h5sc.layout import FEATURES_NAMES, RESULT_NAMES, URL_NAME
from cellstamp.h5sc.opening import read_url
from cellstamp.location import Location, location_of
from cellstamp.segmentation_config import SegmentationConfig

CONFIG = "config.yml"
STORE = "scportrait.sdata"
SEGMENTATION = "segmentation"
EXTRACTION = "extraction"
UNFINISHED = ".unfinished_"
"""Beginning of the names of folders with unfinished results, next to the folder of the result."""
DEFAULT_SEGMENTATION = "ThresholdSegmentation"
DEFAULT_EXTRACTION = "HDF5CellExtraction"

_KEYS = {*ExtractionConfig.model_fields, *SegmentationConfig.model_fields}
"""Keys that are never sections of steps."""


def check_can_be_made(directory: Path) -> None:
    """Check that a project folder exists, or can be created; nothing is created.

    Raises
    ------
    OutputError
        If a file is in its place, or its parent folder cannot be written to.
    """
    nearest = next(path for path in (directory, *directory.parents) if path.exists())
    if not nearest.is_dir():
        raise OutputError(f"{nearest} is a file: give the path of a folder for results and log")
    if nearest != directory and not os.access(nearest, os.W_OK):
        raise OutputError(f"{directory}: the folder for results and log cannot be made: {nearest} is read-only")


def find_config(directory: Path, config: str | os.PathLike[str] | Mapping[str, Any] | None) -> dict[str, Any]:
    """Read the configuration.

    Parameters
    ----------
    directory
        The project folder.
    config
        Path of a YAML file, a mapping, or None for the file in the folder.

    Returns
    -------
    dict
        Without a file and a mapping: both steps with their defaults.

    Raises
    ------
    ConfigError
        If it cannot be read.
    """
    own = directory / CONFIG
    if config is None and not own.is_file():
        return {DEFAULT_SEGMENTATION: {}, DEFAULT_EXTRACTION: {"image_size": AUTO}}
    # no section has an empty name, so all sections are read
    found = read_config(own if config is None else config, "")
    # in YAML, a section without keys is None
    steps = (DEFAULT_SEGMENTATION, DEFAULT_EXTRACTION)
    return {key: {} if key in steps and value is None else value for key, value in found.items()}


def keep_config(directory: Path, config: str | os.PathLike[str] | Mapping[str, Any] | None) -> None:
    """Copy a configuration to the project folder, and replace an existing one. Do nothing for None.

    Raises
    ------
    ConfigError
        If a mapping has values that YAML cannot store.
    """
    own = directory / CONFIG
    if isinstance(config, Mapping):
        own.write_text(_as_yaml(config), encoding="utf-8")
    elif config is not None and not (own.exists() and own.samefile(config)):
        shutil.copyfile(config, own)


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Write numbers and arrays of numpy, and columns of pandas, as plain values."""


def _column(dumper: _Dumper, value: Any) -> Any:
    """Write an object with one axis, such as a pandas column, as a list."""
    is_column = getattr(value, "ndim", None) == 1 and hasattr(value, "tolist")
    return dumper.represent_data(value.tolist()) if is_column else dumper.represent_undefined(value)


_Dumper.add_multi_representer(np.generic, lambda dumper, value: dumper.represent_data(value.item()))
_Dumper.add_multi_representer(np.ndarray, lambda dumper, value: dumper.represent_data(value.tolist()))
_Dumper.add_multi_representer(object, _column)


def _as_yaml(config: Mapping[str, Any]) -> str:
    try:
        text: str = yaml.dump(dict(config), Dumper=_Dumper, sort_keys=False)
    except yaml.representer.RepresenterError as error:
        held = type(error.args[-1]).__name__
        raise ConfigError(f"config: cannot be kept as {CONFIG}: it holds a {held}; use text and numbers") from error
    return text


def names_section(config: Mapping[str, Any], name: str) -> bool:
    """Return whether the configuration has a section with the name of a step.

    Raises
    ------
    ConfigError
        If its name is misspelt.
    """
    check_sections(config, name)
    return isinstance(config.get(name), Mapping)


def has_section(config: Mapping[str, Any], name: str) -> bool:
    """Return whether the configuration is for a step: it has its section, or keys and no sections.

    A mapping under a known key, such as ``normalization_range``, is a value. A configuration with ``image_size`` is for
    an extraction, also if it has sections of other steps.

    Raises
    ------
    ConfigError
        If the name of the section is misspelt.
    """
    if names_section(config, name):
        return True
    sections = [key for key, value in config.items() if isinstance(value, Mapping) and key not in _KEYS]
    is_complete = name == DEFAULT_EXTRACTION and ExtractionConfig.required() <= set(config)
    return bool(config) and (not sections or is_complete)


def _holds_values_only(config: Mapping[str, Any]) -> bool:
    """Return whether no mapping in a configuration has a name like a class, as sections of steps do."""
    named = (str(key) for key, value in config.items() if isinstance(value, Mapping))
    return bool(config) and not any(name[:1].isupper() for name in named)


def section(config: Mapping[str, Any], step: object) -> dict[str, Any]:
    """Return the part of the configuration for a step.

    Raises
    ------
    ConfigError
        If `step` is not a class, or has no section.
    """
    if not isinstance(step, type):
        raise ConfigError(f"Project: a step must be given as a class, like HDF5CellExtraction (got {step!r})")
    check_sections(config, step.__name__)
    if not (has_section(config, step.__name__) or _holds_values_only(config)):
        there = ", ".join(map(str, config)) or "nothing"
        raise ConfigError(f"config: no section {step.__name__!r} for this step (it has: {there})")
    return read_config(config, step.__name__)


def results(directory: Path) -> list[Path]:
    """Return the finished extractions in a project folder, the newest first; see `location_in`."""
    # a folder with a leading dot has an unfinished run
    return _newest_first(path for name in RESULT_NAMES for path in (directory / EXTRACTION).glob(f"[!.]*/{name}"))


def measured(directory: Path) -> list[Path]:
    """Return the features of runs without single-cell images in a project folder, the newest first."""
    found = [path for name in FEATURES_NAMES for path in (directory / EXTRACTION).glob(f"[!.]*/{name}")]
    alone = [path for path in found if not any((path.parent / name).exists() for name in RESULT_NAMES)]
    return _newest_first(alone)


def _newest_first(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def location_in(result: Path) -> Location:
    """Return the location of a result: itself, or the URL that it holds.

    Raises
    ------
    InputError
        If it must hold a URL, and does not.
    """
    return result if result.name != URL_NAME else location_of(read_url(result))


def latest_result(directory: Path) -> Location | None:
    """Return the newest finished extraction of a project folder."""
    return next(map(location_in, results(directory)), None)


def latest_entry(directory: Path) -> Path | None:
    """Return the newest finished extraction of a project folder, with or without single-cell images."""
    return next(iter(_newest_first([*results(directory)[:1], *measured(directory)[:1]])), None)


def project_of(result: Path) -> Path:
    """Return the folder of the project that a result is in, if it is in one."""
    return result.absolute().parent.parent.parent


def is_project(path: Path) -> bool:
    """Return whether a path is the folder of a project with a store or results."""
    return any((path / name).is_dir() for name in (STORE, EXTRACTION))


def unfinished_results(directory: Path) -> list[str]:
    """Return the names of the results that interrupted runs left unfinished, or that runs are writing."""
    return sorted(path.name.removeprefix(UNFINISHED) for path in (directory / EXTRACTION).glob(f"{UNFINISHED}*"))


def lying_below(directory: Path) -> str | None:
    """Return a hint if a folder is not a project but contains one, as the demo's folder does."""
    below = [] if (directory / STORE).is_dir() else [store.parent for store in directory.glob(f"*/{STORE}")]
    return f"there is a project in {below[0]}: give that" if len(below) == 1 else None
