"""Define every key of an extraction with its default and rule; check a configuration once, into a frozen object."""

from __future__ import annotations

import reprlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cellstamp import config_rules as rules
from cellstamp.compression import DEFAULT_COMPRESSION
from cellstamp.config_files import check_sections
from cellstamp.engines.cores import default_workers
from cellstamp.errors import ConfigError
from cellstamp.features.declared import GROUPS
from cellstamp.lengths import even_pixels
from cellstamp.similar_names import did_you_mean, misspelt_key
from cellstamp.source.names import IMAGE_NAME, MASK_KINDS, SEGMENTATION_KEY

# scportrait's configs tune HDF5's chunk cache with these keys; chunks written directly bypass it
_IGNORED_PREFIX = "hdf5_rdcc_"
_PIXEL_UNITS = ("", "px", "pix", "pixel", "pixels")


def usable_threads() -> Any:
    """Return the default of ``threads``, and its words for the documentation."""
    return Field(default_factory=default_workers, json_schema_extra={"shown": "usable cores"})


def temporary_folder() -> Any:
    """Return the default of ``cache``, and its words for the documentation."""
    return Field(default_factory=rules.system_cache, json_schema_extra={"shown": "the system's temporary folder"})


class StepConfig(BaseModel):
    """Base class of the configurations of all steps; reports all errors at once."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    STEP: ClassVar[str]
    """Name of the step's class, for messages."""

    MAPPINGS: ClassVar[tuple[str, ...]] = ()
    """Keys with values that may be mappings."""

    def contradictions(self) -> Iterator[str]:
        """Yield an error for each combination of valid keys that is invalid."""
        yield from ()

    def fitted(self) -> Self:
        """Return this configuration with the defaults that depend on other keys."""
        return self

    @classmethod
    def parse(cls, mapping: Mapping[str, object]) -> Self:
        """Check a configuration and resolve defaults.

        Parameters
        ----------
        mapping
            Keys and values. An unknown key with a dict is the section of another step and is ignored, unless its name
            is similar to one of `MAPPINGS`.

        Returns
        -------
        StepConfig
            Instance of this class, with all keys; ``None`` and ``"None"`` are resolved.

        Raises
        ------
        ConfigError
            If the configuration has errors; the message lists all of them with key, value and allowed values. A
            misspelt section of this step is reported alone.

        Warns
        -----
        UserWarning
            If it has ``hdf5_rdcc_*`` keys, which are ignored.
        """
        title = f"{cls.STEP} config"
        if not isinstance(mapping, Mapping):
            raise ConfigError(f"{title}: must be a dict of keys and values (got {rules.kind_of(mapping)})")
        check_sections(mapping, cls.STEP)
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
            count = "1 error" if len(faults) == 1 else f"{len(faults)} errors"
            raise ConfigError("\n  ".join([f"{title}: {count}", *faults]))
        if ignored:
            warnings.warn(_ignored_warning(title, ignored), UserWarning, stacklevel=2)
        return parsed

    @classmethod
    def required(cls) -> set[str]:
        """Return the keys without a default."""
        return {key for key, field in cls.model_fields.items() if field.is_required()}

    @classmethod
    def _is_section(cls, key: object, value: object) -> bool:
        """Return whether an unknown key is the section of another step."""
        return isinstance(value, Mapping) and misspelt_key(key, cls.MAPPINGS) is None

    @classmethod
    def _rule_faults(cls, error: ValidationError) -> list[str]:
        """Return a message for each invalid or missing key."""
        faults = []
        for fault in error.errors(include_url=False):
            key = str(fault["loc"][0])
            allowed = cls.allowed_for(key)
            if fault["type"] == "missing":
                faults.append(f"{key}: missing; must be {allowed}")
                continue
            reason = fault.get("ctx", {}).get("error")
            rule = f"must be {allowed}{_got(reason)}"
            if isinstance(reason, rules.WrongRangeError):
                rule = _range_rule(reason)
            faults.append(f"{key} = {_shown(fault['input'])}: {rule}")
        return faults

    @classmethod
    def allowed_for(cls, key: str) -> str:
        """Return the allowed values of a key, in words that follow "must be"."""
        found = (rule.words for rule in cls.model_fields[key].metadata if isinstance(rule, rules.Allowed))
        return next(found)

    @classmethod
    def _unknown_fault(cls, key: object, value: object) -> str:
        shown = f"{_shown_key(key)} = {_shown(value)}"
        if not isinstance(key, str):
            return f"{shown}: a key must be text (got {rules.kind_of(key)})"
        if key == cls.STEP and value is None:
            *others, last = [name for name in cls.model_fields if name in cls.required()]
            needed = f"{', '.join(others)} and {last}" if others else last
            return f"{key}: this section is empty; it must hold at least {needed}"
        hint = did_you_mean(key, cls.model_fields) or f"; remove it (the documentation lists the keys of {cls.STEP})"
        return f"{shown}: unknown key{hint}"


class ExtractionConfig(StepConfig):
    """Validated configuration of an `HDF5CellExtraction`; the attributes are its keys.

    Create it with `parse`. The documentation's page "Configuration" shows the docstrings of the keys.
    """

    STEP: ClassVar[str] = "HDF5CellExtraction"
    MAPPINGS: ClassVar[tuple[str, ...]] = ("cells", "normalization_range")

    threads: rules.Count = usable_threads()
    """Number of worker processes; 1 runs in the calling process. By default one for each core that this process may
    use, or fewer if memory is short."""
    image_size: rules.CropSize
    """Side of a single-cell image, in pixels; at most the image's, unless ``border`` is ``"pad"``. A length
    like ``"30 um"`` is rounded up to an even number of pixels; their size must be known. ``"auto"`` measures the masks:
    the smallest even size that holds 99% of the cells completely. Only a project without a configuration may omit it;
    it is then ``"auto"``."""
    cache: rules.Folder = temporary_folder()
    """Folder for temporary files, created if missing. A relative path starts at the current directory."""

    image: rules.ImageNames = IMAGE_NAME
    """Name of the image. A list stacks the channels of several images; crops have the pixels of the first one."""
    image_pixel_size: rules.OptionalPixelSize = None
    """Micrometres per pixel of the image; two numbers (y, x) if pixels are not square. ``None``: those in the image's
    metadata, if any."""
    crop_pixel_size: rules.OptionalLength = None
    """Micrometres per pixel of the single-cell images, which makes images of different magnifications comparable.
    ``None``: those of the image."""
    nucleus_labels: rules.ElementName = None
    """Name of the nucleus mask, instead of ``segmentation_key``."""
    cytosol_labels: rules.ElementName = None
    """Name of the cytosol mask, instead of ``segmentation_key``."""
    nucleus_shapes: rules.ElementName = None
    """Name of shapes (polygons, or circles) that are the nucleus mask, instead of labels."""
    cytosol_shapes: rules.ElementName = None
    """Name of shapes (polygons, or circles) that are the cytosol mask, instead of labels."""
    coordinate_system: rules.ElementName = None
    """Coordinate system that places masks and further images on the first image. ``None``: the only shared one, or
    ``global``."""
    interpolation: rules.Interpolation = "bilinear"
    """How further images with other pixels than the first are sampled: ``"bilinear"``, or ``"nearest"``, which keeps
    values such as classes."""
    centers: rules.ElementName = None
    """Points or a table with the cells' centres. ``None``: centres stored with the mask, otherwise computed ones."""
    store_centers: rules.StoreCenters = "auto"
    """Where computed centres are stored for the next run: ``"auto"`` in a project's own store only, ``"always"`` in any
    folder given by its path, ``"never"`` nowhere."""
    segmentation_key: rules.SegmentationKey = SEGMENTATION_KEY
    """Use the masks ``<key>_nucleus`` and ``<key>_cytosol``."""
    segmentation_mask: rules.SegmentationMask = None
    """Names of the masks instead: one name, or a list of two, with "nucleus" in one and "cytosol" in the other."""

    cells: rules.Cells = None
    """Extract only these cells: a list of ids (of the mask, or texts from a table), a CSV file of ids, or a boolean
    column of a table."""
    channels: rules.Channels = None
    """Extract only these channels, in this order."""
    border: rules.Border = "drop"
    """Cells too close to the image border: ``"drop"`` removes them, ``"pad"`` extracts them, with zeros outside of the
    image."""

    apply_masks: rules.Flag = True
    """Multiply channels by the cell mask; ``False`` keeps the surroundings."""
    normalize_output: rules.Normalize = True
    """Scale channels to 0..1 between two quantiles. ``False`` divides integers by the maximum of their type; floats
    must be in 0..1."""
    normalization_range: rules.QuantileRange = rules.DEFAULT_RANGE
    """The two quantiles that become 0 and 1; or a mapping with the quantiles of some channels."""
    normalization_scope: rules.Scope = "cell"
    """Quantiles of each channel of each ``"cell"``: intensities are not comparable between cells. Or of each channel of
    the ``"image"``: they are comparable."""
    dtype: rules.Dtype = "float16"
    """Data type of the images. Integers store 1 as their maximum, and need ``normalize_output: False``."""
    compression: rules.Compression = DEFAULT_COMPRESSION
    """Compression of single-cell images; ``True`` is lzf, ``False`` is none. In zarr stores, ``"lzf"`` is lz4 and
    ``"gzip"`` is zstd."""
    file_format: rules.FileFormat = "h5sc"
    """``"h5sc"``, a file as scportrait writes it; or ``"zarr"``, an AnnData store of which workers write the shards."""
    output_url: rules.OptionalUrl = None
    """Write the zarr store to an object store, as ``s3://bucket/run``: to ``<output_url>/<folder>/single_cells.zarr``.
    ``None``: to the folder of results. Log and table of runs stay in the folder of the step."""
    features: rules.Features = Field(default=(), json_schema_extra={"shown": "`False`"})
    """Measure each cell on the unchanged pixels of the image, and write a table next to the images. ``True`` is
    ``[shape, intensity]``; functions get masks and image of a cell."""
    images: rules.Flag = True
    """Write single-cell images. ``False`` only measures ``features``, into the folder ``features``."""

    target_ram_utilization: rules.Share = 0.85
    """Share of the memory to use, of the limit of the container or job, otherwise of the machine."""
    max_inflight_result_batches: rules.OptionalCount = None
    """Maximum number of batches in flight; ``None``: chosen from the measured memory, during the run."""
    flush_every: rules.OptionalCount = None
    """Number of batches between two syncs to the disk; ``None``: the limit above, or about 5 s if that is less."""
    max_batch_size: rules.Count = 1000
    """Maximum number of cells in a batch."""
    engine: rules.Engine = "processes"
    """Where batches run. ``"serial"`` is the calling process; ``threads`` is then ignored. ``"dask"`` is a cluster."""
    dask_scheduler: rules.Scheduler = None
    """Cluster for ``engine: dask``. ``None``: the cluster of the current ``Client``, otherwise a new one with
    ``threads`` processes on this machine."""
    progress: rules.Progress = "auto"
    """Progress bar; ``"auto"`` shows it in terminals and notebooks. ``False`` also hides the closing line."""

    @property
    def image_names(self) -> tuple[str, ...]:
        """Return the names of all images."""
        return (self.image,) if isinstance(self.image, str) else self.image

    @property
    def feature_groups(self) -> tuple[str, ...]:
        """Return the groups of features to measure, in their usual order."""
        return tuple(group for group in GROUPS if group in self.features)

    @property
    def feature_functions(self) -> tuple[str, ...]:
        """Return the dotted paths of the user's functions that measure cells."""
        return tuple(name for name in self.features if name not in GROUPS)

    def fitted(self) -> Self:
        """Limit the default number of workers to the share of memory in ``target_ram_utilization``."""
        if "threads" in self.model_fields_set:
            return self
        return self.model_copy(update={"threads": default_workers(self.target_ram_utilization)})

    def contradictions(self) -> Iterator[str]:
        """Yield an error for each combination of valid keys that is invalid."""
        if self.dtype.startswith("uint") and self.normalize_output:
            yield (
                f"dtype = {self.dtype!r}: integers store unnormalised images; set normalize_output to False, or "
                "dtype to 'float16' or 'float32'"
            )
        named = [key for key in _MASK_KEYS if getattr(self, key) is not None]
        if named and self.segmentation_mask is not None:
            masks, others = self.segmentation_mask, f"so {'do' if len(named) > 1 else 'does'} {' and '.join(named)}"
            yield f"segmentation_mask = {masks!r}: names the masks, and {others}; choose one"
        if self.dask_scheduler is not None and self.engine != "dask":
            given = _shown(self.dask_scheduler)
            yield f"dask_scheduler = {given}: is for engine = 'dask'; set it, or this key to None"
        if not self.images and not self.features:
            yield "images = False: nothing is left to do without features; set features to True, or images to True"
        if not self.images and self.output_url is not None:
            yield f"output_url = {self.output_url!r}: needs single-cell images; set images to True, or this key to None"
        if self.output_url is not None and self.file_format != "zarr":
            yield f"output_url = {self.output_url!r}: is for file_format = 'zarr'; set it, or this key to None"
        for kind in ("labels", "shapes"):
            nucleus, cytosol = getattr(self, f"nucleus_{kind}"), getattr(self, f"cytosol_{kind}")
            if nucleus is not None and nucleus == cytosol:
                yield f"cytosol_{kind} = {cytosol!r}: must not be the same as nucleus_{kind}; give one of them"
        for role in MASK_KINDS:
            if {f"{role}_labels", f"{role}_shapes"} <= set(named):
                yield f"{role}_shapes = {getattr(self, f'{role}_shapes')!r}: {role}_labels is set too; give one of them"


_MASK_KEYS = ("nucleus_labels", "cytosol_labels", "nucleus_shapes", "cytosol_shapes")


def _shown(value: object) -> str:
    """Return the repr of a value, on one line and shortened."""
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
    """Return the type or the item that is invalid, if the value does not show it."""
    if isinstance(reason, rules.NotAListError):
        return f" (got a str; write [{_shown(reason.value)}])"
    if isinstance(reason, rules.QuotedBooleanError):
        return f" (got a str; write {reason.value} without quotes)"
    if isinstance(reason, rules.WrongTypeError):
        return f" (got {rules.with_article(reason.type_name)})"
    if isinstance(reason, rules.WrongItemError):
        return f" (item {reason.index} is {_shown(reason.value)})"
    if isinstance(reason, rules.UnknownGroupError):
        hint = did_you_mean(reason.name, GROUPS)
        return f" ({_shown(reason.name)} is neither a group nor a dotted path{hint})"
    if isinstance(reason, rules.WrongUnitError):
        return _unit_hint(reason.number, reason.unit)
    return ""


def _unit_hint(number: str, unit: str) -> str:
    """Return how to write a size whose unit is unknown or pixels."""
    if unit.lower() in _PIXEL_UNITS:
        return f"; pixels have no unit: write {even_pixels(float(number), 1)}, without quotes"
    return f'; {unit!r} is not a known unit; write um, µm, nm or mm, like "{number} um"'


def _range_rule(reason: rules.WrongRangeError) -> str:
    """What the range of a channel must be, and which channel's is not."""
    hint = "; a channel that is left out has the default" if rules.is_none(reason.value) else ""
    return f"each channel's range must be {rules.A_PAIR} ({reason.channel!r} is {_shown(reason.value)}{hint})"


def _ignored_warning(title: str, keys: list[str]) -> str:
    names = ", ".join(map(_shown_key, keys))
    verb = "means nothing here and is" if len(keys) == 1 else "mean nothing here and are"
    return f"{title}: {names} {verb} ignored: chunks are written without HDF5's chunk cache"
