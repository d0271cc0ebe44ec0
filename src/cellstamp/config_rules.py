"""Define the rules for values of a configuration: types with a check, and words that describe allowed values.

A check takes any value and returns its meaning, or raises a `ValueError`. The words go into the error message.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import numpy as np
from pydantic import PlainValidator

from cellstamp.compression import COMPRESSIONS, DEFAULT_COMPRESSION
from cellstamp.compression import Compression as CompressionName
from cellstamp.errors import ConfigError
from cellstamp.features.declared import DEFAULT_GROUPS, GROUPS
from cellstamp.lengths import PixelSize, number_and_unit, parse_length
from cellstamp.source.names import IMAGE_NAME, MASK_KINDS, SEGMENTATION_KEY

DEFAULT_RANGE = (0.001, 0.999)
AUTO = "auto"
MEASURED = 0
"""Value of `image_size` for ``"auto"``: an extraction replaces it by a size that it measures in the masks."""

LARGEST_ID = 2**63 - 1

Quantiles = tuple[float, float]


@dataclass(frozen=True)
class Allowed:
    """Describe the allowed values, in words that follow "must be"."""

    words: str


@dataclass(frozen=True)
class TableColumn:
    """Boolean column of a table in the store; `ids` is the column with each row's id in the mask."""

    table: str
    column: str
    ids: str | None = None


@dataclass(frozen=True)
class FileColumn:
    """Column of ids in a CSV file."""

    path: Path
    ids: str


@dataclass(frozen=True)
class FeatureQuery:
    """Condition on the features of an earlier extraction."""

    path: Path
    query: str


IdChoice = tuple[int, ...] | tuple[str, ...] | Path | FileColumn | TableColumn | None
"""Ids in the mask, ids in a table, a file of either, a column of a table, or all."""
CellChoice = IdChoice | FeatureQuery
"""Meaning of the key ``cells``."""


class WrongTypeError(ValueError):
    """A value has the wrong type; the message can name it."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.type_name = type(value).__name__


class NotAListError(ValueError):
    """A text where a list of texts is allowed; the message can put it into one."""

    def __init__(self, value: str) -> None:
        super().__init__()
        self.value = value


class QuotedBooleanError(ValueError):
    """A text of a boolean where a boolean is allowed; the message can show the boolean."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.value = text.strip().capitalize()


class WrongItemError(ValueError):
    """An item of a list is invalid; the message can show it."""

    def __init__(self, index: int, value: object) -> None:
        super().__init__()
        self.index, self.value = index, value


class UnknownGroupError(ValueError):
    """A group of features is unknown; the message can name the nearest."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class WrongRangeError(ValueError):
    """The range of a channel, so that the message can name both."""

    def __init__(self, channel: str, value: object) -> None:
        super().__init__()
        self.channel, self.value = channel, value


class WrongUnitError(ValueError):
    """A size whose unit is unknown or pixels, so that the message can name the units."""

    def __init__(self, number: str, unit: str) -> None:
        super().__init__()
        self.number, self.unit = number, unit


def with_article(name: str) -> str:
    """Return the name of a type with its article, like ``"an int"``."""
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def kind_of(value: object) -> str:
    """Return the type of a value in words, like ``"an int"``."""
    return with_article(type(value).__name__)


def is_none(value: object) -> bool:
    """Return whether a value means None; in YAML, ``None`` is a text."""
    return value is None or (isinstance(value, str) and value == "None")


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise WrongTypeError(value)
    return int(value)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise WrongTypeError(value)
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError from error


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise WrongTypeError(value)
    if not value.strip():
        raise ValueError
    return str(value)


def _count(value: object) -> int:
    count = _integer(value)
    if count < 1:
        raise ValueError
    return count


def _optional_count(value: object) -> int | None:
    return None if is_none(value) else _count(value)


def _whole(value: object) -> int:
    number = _integer(value)
    if number < 0:
        raise ValueError
    return number


def _odd(value: object) -> int:
    number = _integer(value)
    if number < 3 or not number % 2:
        raise ValueError
    return number


def _at_least_0(value: object) -> float:
    number = _number(value)
    if not 0 <= number < math.inf:
        raise ValueError
    return number


def _optional_channel(value: object) -> str | None:
    return None if is_none(value) else _channel(value)


class PhysicalLength(int):
    """A size of crops in micrometres; as pixels it is 0, until an extraction knows the size of pixels."""

    micrometres: float

    def __new__(cls, micrometres: float) -> Self:
        """Create it from its micrometres."""
        length = super().__new__(cls, 0)
        length.micrometres = micrometres
        return length

    def __repr__(self) -> str:
        """Return the length with its unit."""
        return f"'{self.micrometres:.6g} um'"


def _crop_size(value: object) -> int:
    if isinstance(value, str) and value == AUTO:
        return MEASURED
    if isinstance(value, str):
        return PhysicalLength(_length_of(value))
    size = _integer(value)
    if size < 2 or size % 2:
        raise ValueError
    return size


def _length_of(text: str) -> float:
    """Return the micrometres of a text such as ``"30 um"``."""
    length = parse_length(text)
    if length is None and (parts := number_and_unit(text)) and math.isfinite(float(parts[0])):
        raise WrongUnitError(*parts)
    if length is None or not 0 < length < math.inf:
        raise ValueError
    return length


def _optional_pixel_size(value: object) -> PixelSize | None:
    if is_none(value):
        return None
    pair = tuple(map(_number, value)) if isinstance(value, (list, tuple)) else (_number(value),) * 2
    if len(pair) != 2 or not all(0 < side < math.inf for side in pair):
        raise ValueError
    return pair[0], pair[1]


def _optional_length(value: object) -> float | None:
    if is_none(value):
        return None
    length = _number(value)
    if not 0 < length < math.inf:
        raise ValueError
    return length


def _share(value: object) -> float:
    share = _number(value)
    if not 0 < share <= 1:
        raise ValueError
    return share


def _quantile_range(value: object) -> Quantiles | dict[str, Quantiles]:
    if is_none(value):
        return DEFAULT_RANGE
    if isinstance(value, Mapping):
        if not value:
            raise ValueError
        ranges = {name: _pair_of(name, bounds) for name, bounds in ((_channel(key), v) for key, v in value.items())}
        if len(ranges) < len(value):  # 1 and "1" are one channel
            raise ValueError
        return ranges
    return _pair(value)


def _pair_of(channel: str, value: object) -> Quantiles:
    try:
        return _pair(value)
    except ValueError as error:
        raise WrongRangeError(channel, value) from error


def _pair(value: object) -> Quantiles:
    if not isinstance(value, (list, tuple)):
        raise WrongTypeError(value)
    if len(value) != 2:
        raise ValueError
    lower, upper = map(_number, value)
    if not 0 <= lower < upper <= 1:
        raise ValueError
    return lower, upper


def _key(value: object) -> str:
    return SEGMENTATION_KEY if is_none(value) else _name(value)


def _image(value: object) -> str:
    return IMAGE_NAME if is_none(value) else _name(value)


def _images(value: object) -> str | tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        return _image(value)
    names = tuple(map(_name, value))
    if not names or len(set(names)) != len(names):
        raise ValueError
    return names if len(names) > 1 else names[0]


def _optional_name(value: object) -> str | None:
    return None if is_none(value) else _name(value)


def _channel(value: object) -> str:
    """Return the name of a channel; YAML reads a name like 405 as an integer."""
    return str(_integer(value)) if isinstance(value, (int, np.integer)) else _name(value)


def _channels(value: object) -> tuple[str, ...] | None:
    if is_none(value):
        return None
    names = tuple(map(_channel, _listed(value)))
    if not names or len(set(names)) != len(names):
        raise ValueError
    return names


def _cells(value: object) -> CellChoice:
    if is_none(value):
        return None
    if isinstance(value, (str, os.PathLike)):
        return as_folder(value)
    if isinstance(value, Mapping):
        if set(value) == {"features"}:
            return _query(value["features"])
        if set(value) == {"path", "ids"}:
            return FileColumn(as_folder(value["path"]), _name(value["ids"]))
        if not {"table", "column"} <= set(value) <= {"table", "column", "ids"}:
            raise ValueError
        return TableColumn(**{key: _name(name) for key, name in value.items()})
    # arrays, and columns of pandas
    if not isinstance(value, (list, tuple, set, range)) and getattr(value, "ndim", None) != 1:
        raise WrongTypeError(value)
    items = list(_items(value))
    if not items:
        raise ValueError
    if all(isinstance(cell, str) and cell.strip() for cell in items):
        return tuple(sorted({str(cell).strip() for cell in items}))
    return tuple(sorted({_cell_id(index, cell) for index, cell in enumerate(items)}))


def _query(value: object) -> FeatureQuery:
    if not isinstance(value, Mapping):
        raise WrongTypeError(value)
    if set(value) != {"path", "query"}:
        raise ValueError
    return FeatureQuery(as_folder(value["path"]), _name(value["query"]))


def _listed(value: object) -> Sequence[object]:
    if isinstance(value, str):
        raise NotAListError(value)
    if not isinstance(value, (list, tuple)):
        raise WrongTypeError(value)
    return value


def _items(value: Any) -> Iterable[object]:
    items: Iterable[object] = value.tolist() if hasattr(value, "tolist") else value
    return items


def _cell_id(index: int, value: object) -> int:
    try:
        cell = _integer(value)
    except WrongTypeError as error:
        raise WrongItemError(index, value) from error
    if not 1 <= cell <= LARGEST_ID:
        raise WrongItemError(index, value)
    return cell


def _features(value: object) -> tuple[str, ...]:
    if is_none(value) or value is False:
        return ()
    if value is True:
        return DEFAULT_GROUPS
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        raise QuotedBooleanError(value)
    names = _listed(value)
    if not names or len(set(map(str, names))) != len(names):
        raise ValueError
    return tuple(_group_or_path(index, name) for index, name in enumerate(names))


def _group_or_path(index: int, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise WrongItemError(index, value)
    if value not in GROUPS and "." not in value:
        raise UnknownGroupError(value)
    if value not in GROUPS and not all(part.isidentifier() for part in value.split(".")):
        raise WrongItemError(index, value)
    return value


def _masks(value: object) -> str | tuple[str, ...] | None:
    if is_none(value):
        return None
    if not isinstance(value, (list, tuple)):
        return _name(value)
    names = tuple(map(_name, value))
    # of two names, these words show which is the nucleus
    if not all(any(word in name for word in MASK_KINDS) for name in names):
        raise ValueError
    if not 1 <= len(names) <= 2 or len(set(names)) != len(names):
        raise ValueError
    return names


def _choice(meanings: Mapping[object, object], value: object) -> object:
    # check the type first: 1 == True
    if not isinstance(value, (str, bool)) and value is not None:
        raise WrongTypeError(value)
    if value not in meanings:
        raise ValueError
    return meanings[value]


def _normalize(value: object) -> object:
    return _choice({True: True, False: False, None: False, "None": False}, value)


def _compression(value: object) -> object:
    return _choice({True: DEFAULT_COMPRESSION, False: None} | {name: name for name in COMPRESSIONS}, value)


def _file_format(value: object) -> object:
    return _choice({name: name for name in get_args(FileFormatName)}, value)


def _engine(value: object) -> object:
    return _choice({name: name for name in _ENGINES}, value)


def is_client(value: object) -> bool:
    """Return whether a value looks like a client of a dask cluster, without importing dask."""
    return hasattr(value, "scheduler") and hasattr(value, "submit")


def _scheduler(value: object) -> object:
    if is_none(value) or is_client(value):
        return None if is_none(value) else value
    address = _name(value)
    protocol, _, place = address.partition("://")
    if not protocol or not place:
        raise ValueError
    return address


def _optional_url(value: object) -> object:
    if is_none(value):
        return None
    address = _name(value)
    protocol, separator, place = address.partition("://")
    if not protocol or not separator or not place.strip("/") or protocol in _READ_ONLY:
        raise ValueError
    return address.rstrip("/")


def _local_engine(value: object) -> object:
    return _choice({"serial": "serial", "processes": "processes"}, value)


def _method(value: object) -> object:
    return _choice({"local": "local", "otsu": "otsu"}, value)


def _dtype(value: object) -> object:
    return _choice({name: name for name in _DTYPES}, value)


def _border(value: object) -> object:
    return _choice({"drop": "drop", "pad": "pad"}, value)


def _interpolation(value: object) -> object:
    return _choice({name: name for name in _INTERPOLATIONS}, value)


def _store_centers(value: object) -> object:
    return _choice({name: name for name in _STORE_CENTERS}, value)


def _scope(value: object) -> object:
    return _choice({"cell": "cell", "image": "image"}, value)


def _flag(value: object) -> object:
    return _choice({True: True, False: False}, value)


def _progress(value: object) -> object:
    return _choice({"auto": "auto", True: True, False: False}, value)


def as_folder(value: object) -> Path:
    """Return a value as the path of a folder, which need not exist.

    Parameters
    ----------
    value
        A `str` that is neither empty nor ``"None"``, or an `os.PathLike` of one.

    Returns
    -------
    pathlib.Path
        The path, as given.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    text = _name(path)
    if text == "None" or "\0" in text:
        raise ValueError
    return Path(text)


def system_cache() -> Path:
    """Return the system's folder for temporary files (``$TMPDIR``, usually ``/tmp``).

    Raises
    ------
    ConfigError
        If the system has no writable folder.
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        message = f"cache: the system has no writable folder for temporary files ({error.strerror}). Set cache to one"
        raise ConfigError(message) from error


FileFormatName = Literal["h5sc", "zarr"]
EngineName = Literal["serial", "processes", "dask"]
StampType = Literal["float16", "float32", "uint8", "uint16"]
StoreCentersName = Literal["auto", "never", "always"]
InterpolationName = Literal["bilinear", "nearest"]
_ENGINES, _DTYPES = get_args(EngineName), get_args(StampType)
_STORE_CENTERS = get_args(StoreCentersName)
_INTERPOLATIONS = get_args(InterpolationName)
A_PAIR = "two numbers with 0 <= lower < upper <= 1"

Count = Annotated[int, PlainValidator(_count), Allowed("an integer >= 1")]
OptionalCount = Annotated[
    int | None, PlainValidator(_optional_count), Allowed("an integer >= 1, or None for the default")
]
Whole = Annotated[int, PlainValidator(_whole), Allowed("an integer >= 0")]
Odd = Annotated[int, PlainValidator(_odd), Allowed("an odd integer >= 3")]
Length = Annotated[float, PlainValidator(_at_least_0), Allowed("a number >= 0")]
CropSize = Annotated[int, PlainValidator(_crop_size), Allowed('an even integer >= 2, a length like "30 um", or "auto"')]
OptionalLength = Annotated[
    float | None, PlainValidator(_optional_length), Allowed("a number above 0 (micrometres), or None")
]
OptionalPixelSize = Annotated[
    PixelSize | None,
    PlainValidator(_optional_pixel_size),
    Allowed("a number above 0 (micrometres), two of them (y, x), or None"),
]
Folder = Annotated[Path, PlainValidator(as_folder), Allowed("the path of a folder for temporary files")]
Share = Annotated[float, PlainValidator(_share), Allowed("a number above 0 and at most 1")]
QuantileRange = Annotated[
    Quantiles | dict[str, Quantiles],
    PlainValidator(_quantile_range),
    Allowed(f"{A_PAIR}, a mapping from channel names to such pairs, or None for the default"),
]
Normalize = Annotated[
    bool, PlainValidator(_normalize), Allowed('True, False, None or "None" (the last two mean False)')
]
Scope = Annotated[Literal["cell", "image"], PlainValidator(_scope), Allowed('"cell" or "image"')]
Flag = Annotated[bool, PlainValidator(_flag), Allowed("True or False")]
StoreCenters = Annotated[StoreCentersName, PlainValidator(_store_centers), Allowed('"auto", "never" or "always"')]
Interpolation = Annotated[InterpolationName, PlainValidator(_interpolation), Allowed('"bilinear" or "nearest"')]
Border = Annotated[Literal["drop", "pad"], PlainValidator(_border), Allowed('"drop" or "pad"')]
Dtype = Annotated[StampType, PlainValidator(_dtype), Allowed(", ".join(f'"{name}"' for name in _DTYPES))]
Compression = Annotated[
    CompressionName | None, PlainValidator(_compression), Allowed('True or "lzf", "gzip", or False for none')
]
_READ_ONLY = ("http", "https")
"""Protocols of URLs that cannot be written to."""
OptionalUrl = Annotated[
    str | None,
    PlainValidator(_optional_url),
    Allowed("a URL that fsspec can write to, like s3://bucket/run, or None"),
]
FileFormat = Annotated[FileFormatName, PlainValidator(_file_format), Allowed('"h5sc" or "zarr"')]
Engine = Annotated[EngineName, PlainValidator(_engine), Allowed(", ".join(f'"{name}"' for name in _ENGINES))]
Scheduler = Annotated[
    Any,
    PlainValidator(_scheduler),
    Allowed("the address of a scheduler (tcp://HOST:PORT), a dask Client, or None"),
]
LocalEngine = Annotated[
    Literal["serial", "processes"], PlainValidator(_local_engine), Allowed('"serial" or "processes"')
]
Method = Annotated[Literal["local", "otsu"], PlainValidator(_method), Allowed('"local" or "otsu"')]
Progress = Annotated[Literal["auto"] | bool, PlainValidator(_progress), Allowed('"auto", True or False')]
ImageName = Annotated[
    str, PlainValidator(_image), Allowed("the name of an image in the store, or None for the default")
]
ImageNames = Annotated[
    str | tuple[str, ...],
    PlainValidator(_images),
    Allowed("the name of an image in the store, a list of such names, each once, or None for the default"),
]
ElementName = Annotated[
    str | None, PlainValidator(_optional_name), Allowed("the name of an element in the store, or None")
]
Channels = Annotated[
    tuple[str, ...] | None,
    PlainValidator(_channels),
    Allowed("a list of channel names, each once, or None for all of them"),
]
Channel = Annotated[
    str | None, PlainValidator(_optional_channel), Allowed("the name of a channel, or None for the first")
]
Cells = Annotated[
    CellChoice,
    PlainValidator(_cells),
    Allowed(
        "a list of cell ids (integers >= 1, or all of them text), the path of a CSV file, a mapping with the keys "
        "table and column (and ids), path and ids, or features (a mapping with path and query), or None for all cells"
    ),
]
Features = Annotated[
    tuple[str, ...],
    PlainValidator(_features),
    Allowed(
        f"True, False, or a list of {', '.join(GROUPS)} and of dotted paths of functions (module.function), each once"
    ),
]
SegmentationKey = Annotated[str, PlainValidator(_key), Allowed("a text that is not empty, or None for the default")]
SegmentationMask = Annotated[
    str | tuple[str, ...] | None,
    PlainValidator(_masks),
    Allowed('the name of a mask, or a list of one or two with "nucleus" or "cytosol" in each, or None'),
]
