"""Read a configuration from a YAML file or a mapping, and find the section of a step in it."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from cellstamp.config_rules import is_client, kind_of
from cellstamp.errors import ConfigError
from cellstamp.similar_names import misspelt_section

_MOST_BYTES = 2**24
"""Maximum size of a configuration file; a larger one is another kind of file."""


def read_config(config: Mapping[str, Any] | str | os.PathLike[str], section: str) -> dict[str, Any]:
    """Read a configuration, and return the section of a step.

    Parameters
    ----------
    config
        A mapping, or the path of a YAML file (read with the safe loader).
    section
        Name of the step. Without a section of this name, the complete configuration is returned.

    Returns
    -------
    dict
        A deep copy.

    Raises
    ------
    ConfigError
        If it is neither a mapping nor a YAML file with one, or the name of its section is misspelt.
    """
    if isinstance(config, Mapping):
        whole = copy.deepcopy(dict(config), {id(client): client for client in _clients(config)})
    elif isinstance(config, (str, os.PathLike)):
        whole = _read_yaml(config)
    else:
        raise ConfigError(f"config: must be a dict, or the path of a YAML file (got {kind_of(config)})")
    check_sections(whole, section)
    part = whole.get(section, whole)
    if part is None:  # a section without keys, in YAML
        return {}
    return dict(part) if isinstance(part, Mapping) else whole


def check_sections(config: Mapping[Any, Any], section: str) -> None:
    """Check that a configuration without the section of a step does not have it under a misspelt name.

    Raises
    ------
    ConfigError
        If the name of another section is similar to that of the step.
    """
    if section in config:
        return
    for name, content in config.items():
        if (content is None or isinstance(content, Mapping)) and misspelt_section(name, section):
            raise ConfigError(f"config: no section {section!r}, but {name!r}. Rename it to {section!r}")


def _clients(config: Mapping[str, Any]) -> Iterator[object]:
    """Yield the dask clients in a configuration and its sections; they can't be copied."""
    for value in config.values():
        if isinstance(value, Mapping):
            yield from _clients(value)
        elif is_client(value):
            yield value


def _read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    where = f"config file {os.fspath(path)!r}"
    try:
        size = Path(path).stat().st_size
        if size > _MOST_BYTES:
            raise ConfigError(f"{where}: {size:,} bytes are too many for a configuration; is it another file?")
        if Path(path).is_dir():  # systems have different errors for opening one
            raise ConfigError(f"{where}: this is a folder, not a YAML file")
        content = Path(path).read_bytes()
    except ConfigError:
        raise
    except FileNotFoundError as error:
        raise ConfigError(f"{where}: there is no such file") from error
    except (OSError, TypeError, ValueError) as error:
        raise ConfigError(f"{where}: cannot be read: {error}") from error
    try:
        _check_unique(content)
        loaded = yaml.safe_load(content)
    # PyYAML raises builtin errors for values that don't fit their tag, such as an invalid date
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{where}: not valid YAML: {_yaml_problem(error)}") from error
    if loaded is None:
        raise ConfigError(f"{where}: the file is empty; it must hold keys and values, like 'threads: 4'")
    if not isinstance(loaded, dict):
        held = kind_of(loaded)
        raise ConfigError(f"{where}: must hold keys and values, like 'threads: 4' (it holds {held})")
    return loaded


def _check_unique(content: bytes) -> None:
    """Refuse a mapping with a key that is given twice, of which PyYAML ignores the first.

    Raises
    ------
    yaml.YAMLError
        If there is one, or the content is not valid.
    """
    waiting, seen = [yaml.compose(content, Loader=yaml.SafeLoader)], set()
    while waiting:
        node = waiting.pop()
        if not isinstance(node, yaml.CollectionNode) or id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            _check_unique_keys(key for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            waiting += [value for _, value in node.value]
        else:
            waiting += node.value


def _check_unique_keys(keys: Iterable[Any]) -> None:
    known: set[tuple[str, str]] = set()
    for key in keys:
        if (key.tag, key.value) in known:
            problem = f"the key {key.value!r} is given twice; give it once"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
        known.add((key.tag, key.value))


def _yaml_problem(error: Exception) -> str:
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or error
    mark = getattr(error, "problem_mark", None)
    where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
    return f"{' '.join(str(problem).split())}{where}"
