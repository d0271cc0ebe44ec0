"""Every configuration key with its default and its rule, checked once and kept in a frozen object."""

from __future__ import annotations

import copy
import difflib
import os
import reprlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cellstamp import rules
from cellstamp.engines.cores import default_workers
from cellstamp.errors import ConfigError

# What scportrait's configs may hold to tune HDF5's chunk cache, which chunks written directly go past.
_IGNORED_PREFIX = "hdf5_rdcc_"
_MOST_BYTES = 2**24
"""A file of more is no configuration, whatever else it is."""


def usable_threads() -> Any:
    """Return the default of ``threads``, and its words for the documentation."""
    return Field(default_factory=default_workers, json_schema_extra={"shown": "usable cores"})


def temporary_folder() -> Any:
    """Return the default of ``cache``, and its words for the documentation."""
    return Field(default_factory=rules.system_cache, json_schema_extra={"shown": "the system's temporary folder"})


class StepConfig(BaseModel):
    """What the configurations of all steps have in common: all faults are told at once, in the same words."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    STEP: ClassVar[str]
    """The step's class, as messages call it."""

    MAPPINGS: ClassVar[tuple[str, ...]] = ()
    """Keys whose value may be a mapping."""

    def contradictions(self) -> Iterator[str]:
        """What is wrong between keys that are fine by themselves."""
        yield from ()

    def fitted(self) -> Self:
        """Return this configuration with the defaults that depend on other keys."""
        return self

    @classmethod
    def parse(cls, mapping: Mapping[str, object]) -> Self:
        """Check a configuration, all of it, and resolve it.

        Parameters
        ----------
        mapping
            Keys and values as read. An unknown key that holds a dict is another step's section, and is left alone; but
            not when it is nearly one of `MAPPINGS`.

        Returns
        -------
        StepConfig
            Of this class: every key with its meaning: defaults filled in, ``None`` and ``"None"`` resolved.

        Raises
        ------
        ConfigError
            Naming every fault at once: the key, the value, what is allowed.

        Warns
        -----
        UserWarning
            When there are ``hdf5_rdcc_*`` keys, which mean nothing here.
        """
        title = f"{cls.STEP} config"
        if not isinstance(mapping, Mapping):
            raise ConfigError(f"{title}: must be a dict of keys and values (got {_typed(type(mapping).__name__)})")
        known = {key: value for key, value in mapping.items() if key in cls.model_fields}
        ignored = [key for key in mapping if isinstance(key, str) and key.startswith(_IGNORED_PREFIX)]
        unknown = {key: value for key, value in mapping.items() if key not in known and key not in ignored}
        faults = [cls._unknown_fault(key, value) for key, value in unknown.items() if not cls._is_section(key, value)]
        try:
            parsed = cls.model_validate(known).fitted()
            faults = [*parsed.contradictions(), *faults]
        except ValidationError as error:
            faults = cls._rule_faults(error) + faults
        if faults:
            count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
            raise ConfigError("\n  ".join([f"{title}: {count}", *faults]))
        if ignored:
            warnings.warn(_ignored_warning(title, ignored), UserWarning, stacklevel=2)
        return parsed

    @classmethod
    def required(cls) -> set[str]:
        """Keys without a default."""
        return {key for key, field in cls.model_fields.items() if field.is_required()}

    @classmethod
    def _is_section(cls, key: object, value: object) -> bool:
        """Whether an unknown key is the name of another step's section."""
        near = difflib.get_close_matches(str(key).lower(), cls.MAPPINGS, n=1, cutoff=0.8)
        return isinstance(value, Mapping) and not near

    @classmethod
    def _rule_faults(cls, error: ValidationError) -> list[str]:
        """Each fault of the keys we know, in our words."""
        faults = []
        for fault in error.errors(include_url=False):
            key = str(fault["loc"][0])
            allowed = cls.allowed_for(key)
            if fault["type"] == "missing":
                faults.append(f"{key}: missing; must be {allowed}")
                continue
            faults.append(
                f"{key} = {_shown(fault['input'])}: must be {allowed}{_got(fault.get('ctx', {}).get('error'))}"
            )
        return faults

    @classmethod
    def allowed_for(cls, key: str) -> str:
        """What a key may be, in words that follow "must be"."""
        found = (rule.words for rule in cls.model_fields[key].metadata if isinstance(rule, rules.Allowed))
        return next(found)

    @classmethod
    def _unknown_fault(cls, key: object, value: object) -> str:
        shown = f"{_shown_key(key)} = {_shown(value)}"
        if not isinstance(key, str):
            return f"{shown}: a key must be text (got {_typed(type(key).__name__)})"
        known = list(cls.model_fields)
        # Without a cutoff there is always a nearest one; only a near one is worth a question.
        nearest = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.0)[0]
        near = difflib.SequenceMatcher(None, key.lower(), nearest).ratio() >= 0.5
        hint = f"did you mean {nearest}?" if near else f"the nearest key is {nearest}"
        return f"{shown}: unknown key; {hint}"


class ExtractionConfig(StepConfig):
    """The configuration of an extraction, checked and resolved.

    Made by `parse`; the attributes are the keys of the configuration. Their docstrings are the documentation's page
    "Configuration".
    """

    STEP: ClassVar[str] = "HDF5CellExtraction"
    MAPPINGS: ClassVar[tuple[str, ...]] = ("cells", "normalization_range")

    threads: rules.Count = usable_threads()
    """Number of worker processes; 1 runs in the calling process. By default one for each core that this process may
    use, or fewer if memory is short."""
    image_size: rules.CropSize
    """Side of a single-cell image, in pixels; at most the image's, unless ``border`` is ``"pad"``. ``"auto"`` measures
    the masks: the smallest even size that holds 99% of the cells completely. Only a project without a configuration may
    omit it; it is then ``"auto"``."""
    cache: rules.Folder = temporary_folder()
    """Folder for temporary files, created if missing. A relative path starts at the current directory."""

    image: rules.ImageName = rules.DEFAULT_IMAGE
    """The image to extract from."""
    nucleus_labels: rules.ElementName = None
    """The nucleus mask, whatever its name; instead of ``segmentation_key``."""
    cytosol_labels: rules.ElementName = None
    """The cytosol mask, whatever its name; instead of ``segmentation_key``."""
    centers: rules.ElementName = None
    """Points or a table with the cells' centres; ``None``: those stored beside the mask, else they are computed."""
    store_centers: rules.StoreCenters = "auto"
    """Where computed centres are stored for the next run: ``"auto"`` in a project's own store only, ``"always"`` in any
    folder given by its path, ``"never"`` nowhere."""
    segmentation_key: rules.SegmentationKey = rules.DEFAULT_KEY
    """Use the masks ``<key>_nucleus`` and ``<key>_cytosol``."""
    segmentation_mask: rules.SegmentationMask = None
    """Use these masks instead; in a list, each name has "nucleus" or "cytosol" in it."""

    cells: rules.Cells = None
    """Extract these cells only: by id (of the mask, or the text a table has for it), from a CSV file of ids, or where a
    boolean column of a table is true."""
    channels: rules.Channels = None
    """Extract these channels of the image only, in this order."""
    border: rules.Border = "drop"
    """What happens to cells whose window reaches over the image's border: ``"drop"`` leaves them out, ``"pad"`` keeps
    them, as if the image went on, black, beyond its border."""

    apply_masks: rules.Flag = True
    """Whether channels are multiplied by the cell mask; ``False`` keeps the surroundings."""
    normalize_output: rules.Normalize = True
    """Whether channels are stretched to 0..1 between two of their quantiles; otherwise integers are divided by the
    largest value of their type, and floats must lie in 0..1 already."""
    normalization_range: rules.QuantileRange = rules.DEFAULT_RANGE
    """The two quantiles that become 0 and 1; or, for some channels by name, theirs (the others have the default)."""
    normalization_scope: rules.Scope = "cell"
    """Quantiles of what: of each channel of each ``"cell"``, or of each channel of the whole ``"image"``, so that
    intensities compare between cells."""
    dtype: rules.Dtype = "float16"
    """Type of the stored values. In integers, 1 is their largest value; they need ``normalize_output: False``."""
    compression: rules.Compression = "lzf"
    """How single-cell images are compressed; ``True`` is lzf, ``False`` is not at all."""

    target_ram_utilization: rules.Share = 0.85
    """Share of the job's memory (the container's limit, else the machine's) that the extraction keeps to."""
    max_inflight_result_batches: rules.OptionalCount = None
    """Batches under way or waiting to be written, at most; ``None``: measured, and measured again while running."""
    flush_every: rules.OptionalCount = None
    """Batches after which written data is pushed to the disk; ``None``: the smaller of the limit above and about 5 s of
    writing."""
    max_batch_size: rules.Count = 1000
    """Cells in a batch, at most."""
    engine: rules.Engine = "processes"
    """Where batches run; ``"serial"`` is the calling process, whatever ``threads`` says, ``"dask"`` a cluster."""
    dask_scheduler: rules.Scheduler = None
    """The cluster for ``engine: dask``; ``None``: that of the current ``Client``, if there is one, else one of
    ``threads`` processes on this machine."""
    progress: rules.Progress = "auto"
    """Progress bar; ``"auto"`` shows it where someone can see it."""

    def fitted(self) -> Self:
        """Limit the default number of workers to the share of memory in ``target_ram_utilization``."""
        if "threads" in self.model_fields_set:
            return self
        return self.model_copy(update={"threads": default_workers(self.target_ram_utilization)})

    def contradictions(self) -> Iterator[str]:
        """Yield an error for each combination of valid keys that is invalid."""
        if self.dtype.startswith("uint") and self.normalize_output:
            yield (
                f"dtype = {self.dtype!r}: integers are for what is not normalised; set normalize_output to False, or "
                "dtype to 'float16' or 'float32'"
            )
        named = [key for key in ("nucleus_labels", "cytosol_labels") if getattr(self, key) is not None]
        if named and self.segmentation_mask is not None:
            masks, others = self.segmentation_mask, f"so {'do' if len(named) > 1 else 'does'} {' and '.join(named)}"
            yield f"segmentation_mask = {masks!r}: names the masks, and {others}; choose one"
        if self.dask_scheduler is not None and self.engine != "dask":
            given = _shown(self.dask_scheduler)
            yield f"dask_scheduler = {given}: is for engine = 'dask'; set it, or this key to None"
        if len(named) == 2 and self.nucleus_labels == self.cytosol_labels:
            yield f"cytosol_labels = {self.cytosol_labels!r}: must not be the same as nucleus_labels; give one of them"


def _typed(name: str) -> str:
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _shown(value: object) -> str:
    """A value as Python writes it, on one line and no longer than a message can hold."""
    limits = reprlib.Repr()
    limits.maxstring = limits.maxother = limits.maxlong = 80
    limits.maxlevel, limits.maxlist, limits.maxdict = 2, 3, 3
    try:
        return " ".join(limits.repr(value).split())
    except ValueError:  # an integer of more digits than Python agrees to print
        return "a very large number"


def _shown_key(key: object) -> str:
    return key if isinstance(key, str) and key.isprintable() and 0 < len(key.strip()) <= 80 else _shown(key)


def _got(reason: object) -> str:
    """What of a value is wrong, where looking at it does not tell."""
    if isinstance(reason, rules.WrongTypeError):
        return f" (got {_typed(reason.type_name)})"
    if isinstance(reason, rules.WrongItemError):
        return f" (item {reason.index} is {_shown(reason.value)})"
    return ""


def _ignored_warning(title: str, keys: list[str]) -> str:
    names = ", ".join(map(_shown_key, keys))
    verb = "means nothing here and is" if len(keys) == 1 else "mean nothing here and are"
    return f"{title}: {names} {verb} ignored: chunks are written without HDF5's chunk cache"


def read_config(config: Mapping[str, Any] | str | os.PathLike[str], section: str) -> dict[str, Any]:
    """Read a configuration, and pick a step's part of it.

    Parameters
    ----------
    config
        A mapping, or the path of a YAML file (read with the safe loader).
    section
        Name of the step. When the configuration has this key and it holds a dict, that is returned, else all of it.

    Returns
    -------
    dict
        A deep copy: changing it changes nothing of the caller's.

    Raises
    ------
    ConfigError
        When it is neither a mapping nor a file that holds one.
    """
    if isinstance(config, Mapping):
        whole = copy.deepcopy(dict(config), {id(client): client for client in _clients(config)})
    elif isinstance(config, (str, os.PathLike)):
        whole = _read_yaml(config)
    else:
        raise ConfigError(f"config: must be a dict, or the path of a YAML file (got {_typed(type(config).__name__)})")
    part = whole.get(section, whole)
    if part is None:  # a section without keys, in YAML
        return {}
    return dict(part) if isinstance(part, Mapping) else whole


def _clients(config: Mapping[str, Any]) -> Iterator[object]:
    """What cannot be copied: the clients of a dask cluster in a configuration and its sections."""
    for value in config.values():
        if isinstance(value, Mapping):
            yield from _clients(value)
        elif rules.is_client(value):
            yield value


def _read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    where = f"config file {os.fspath(path)!r}"
    try:
        size = Path(path).stat().st_size
        if size > _MOST_BYTES:
            raise ConfigError(f"{where}: {size:,} bytes are too many for a configuration; is it another file?")
        content = Path(path).read_bytes()
    except ConfigError:
        raise
    except FileNotFoundError as error:
        raise ConfigError(f"{where}: there is no such file") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{where}: this is a folder, not a YAML file") from error
    except (OSError, TypeError, ValueError) as error:
        raise ConfigError(f"{where}: cannot be read: {error}") from error
    try:
        loaded = yaml.safe_load(content)
    # PyYAML lets the builtin errors through when a value does not fit its tag, or is no date or number after all.
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{where}: not valid YAML: {_yaml_problem(error)}") from error
    if loaded is None:
        raise ConfigError(f"{where}: the file is empty; it must hold keys and values, like 'threads: 4'")
    if not isinstance(loaded, dict):
        held = _typed(type(loaded).__name__)
        raise ConfigError(f"{where}: must hold keys and values, like 'threads: 4' (it holds {held})")
    return loaded


def _yaml_problem(error: Exception) -> str:
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or error
    mark = getattr(error, "problem_mark", None)
    where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
    return f"{' '.join(str(problem).split())}{where}"
