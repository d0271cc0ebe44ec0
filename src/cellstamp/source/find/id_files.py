"""Read cell ids, integers or text, from a column of a CSV file (or with semicolons or tabs)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellstamp.config_rules import LARGEST_ID
from cellstamp.errors import ConfigError
from cellstamp.source.id_columns import CSV_COLUMNS

_OURS = "scportraitcellid"
_GROUPS = ("fov", "image", "imagenumber", "imagename", "filename", "sample", "sampleid", "slide", "roi", "region")
"""Names of columns with a cell's image: ids may repeat from one image to the next."""

_SEPARATORS = ",;\t"

# "12.0" is an integer too: pandas writes it if the column has missing values
_WHOLE = re.compile(r"\+?(\d{1,20})(\.0*)?")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass(frozen=True)
class IdColumn:
    """Ids in a file.

    Attributes
    ----------
    numbers
        Integers; empty if the ids are text.
    texts
        Text; empty if the ids are integers.
    first
        First row of a file with a single column of text: its header, or one more id.
    of_program
        True: the column has the name of another program's column, so that its numbers may start at 0. False: it has
        one of ours. None: it has no name.
    """

    numbers: frozenset[int] = frozenset()
    texts: frozenset[str] = frozenset()
    first: str | None = None
    of_program: bool | None = None


@dataclass(frozen=True)
class _Rows:
    """Rows that are not empty: the number of each one's last line in the file, and its fields."""

    lines: list[int]
    fields: list[list[str]]

    def column(self, index: int) -> list[str]:
        return [row[index] if index < len(row) else "" for row in self.fields]


def read_ids(
    path: Path, *, column: str | None = None, masks: Sequence[str] = (), largest: int = LARGEST_ID
) -> IdColumn:
    """Read the ids in a file.

    Parameters
    ----------
    path
        The file. Lines at its start that begin with ``#`` are comments.
    column
        Name of the column of ids; None: the column with a name in `CSV_COLUMNS`.
    masks
        Names of masks: a column with such a name holds their ids.
    largest
        Largest id, a power of 2 minus 1.

    Raises
    ------
    ConfigError
        If the file cannot be read, if it is unclear which column holds the ids, or if a value is not a cell id.
    """
    rows = _read(path)
    first = rows.fields[0] if rows.fields else []
    body = _Rows(rows.lines[1:], rows.fields[1:])
    index = _index_of_ids(first, body, path, column, masks)
    is_named = column is not None or len(first) > 1 or _normalized(first[0] if first else "") in _known_names(masks)
    if not is_named and _may_be_id(first):
        return _as_ids(rows.lines, rows.column(index), path, largest)
    _check_one_image(first, body, index, path)
    texts = body.column(index)
    if is_named or not all(map(_is_text, texts)):
        of_program = _normalized(first[index]) not in _our_names(masks) if is_named else None
        return _as_ids(body.lines, texts, path, largest, of_program=of_program)
    # one column of text: only the caller knows whether the first row is an id or a header
    return IdColumn(texts=frozenset(texts), first=first[0] if first else None)


def _read(path: Path) -> _Rows:
    try:
        if path.is_dir():  # systems have different errors for opening one
            raise ConfigError(f"{_origin(path)}: this is a folder, not a CSV file")
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(file)
        comments = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
        rows = list(_filled_rows(lines[comments:]))
    except FileNotFoundError as error:
        raise ConfigError(f"{_origin(path)}: file not found ({path.absolute()})") from error
    except ConfigError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{_origin(path)}: cannot be read as a CSV file: {error}") from error
    return _Rows([comments + line for line, _ in rows], [fields for _, fields in rows])


def _filled_rows(lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    start = next((line for line in lines if line.strip()), "")
    reader = csv.reader(lines, delimiter=max(_SEPARATORS, key=start.count))
    for row in reader:
        fields = [field.strip() for field in row]
        if any(fields):
            yield reader.line_num, fields


def _normalized(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())


def _our_names(masks: Sequence[str]) -> set[str]:
    return {_OURS, *map(_normalized, masks)}


def _known_names(masks: Sequence[str]) -> set[str]:
    return {_normalized(name) for name in (*CSV_COLUMNS, *masks)}


def _index_of_ids(first: list[str], body: _Rows, path: Path, column: str | None, masks: Sequence[str]) -> int:
    """Return the index of the column with the ids."""
    if column is not None:
        if column not in first:
            raise ConfigError(
                f"{_origin(path)}: the column {column!r} is missing; the file has {', '.join(first) or 'none'}"
            )
        return first.index(column)
    names = [_normalized(name) for name in first]
    known = [index for index, name in enumerate(names) if name in _known_names(masks)]
    # columns named like the mask come before those that may be of another one
    own = [index for index in known if names[index] in _our_names(masks)]
    found = own[:1] or known
    if len({tuple(body.column(index)) for index in found}) > 1:
        several = [first[index] for index in found]
        raise ConfigError(
            f"{_origin(path)}: several columns may hold the ids: {', '.join(several)}. Name one: "
            f"{_named(path, several[0])}"
        )
    if found:
        return found[0]
    if len(first) > 1 and not (first[0] == "" and body.fields and all(map(_is_text, body.column(0)))):
        raise _unclear(first, path)
    return 0


def _unclear(first: list[str], path: Path) -> ConfigError:
    wanted = f"one must be named {', '.join(CSV_COLUMNS[:-1])} or {CSV_COLUMNS[-1]}"
    if _may_be_id(first):
        return ConfigError(
            f"{_origin(path)}: the file has {len(first)} columns and no header; {wanted}, or keep only the ids"
        )
    named = f"or name it: {_named(path, next(filter(None, first)))}"
    return ConfigError(f"{_origin(path)}: no column of ids found; it has {', '.join(first)}; {wanted}, {named}")


def _origin(path: Path) -> str:
    return f"cells = {str(path)!r}"


def _named(path: Path, column: str) -> str:
    """Return the configuration for a column of a file."""
    return f"cells = {{'path': {str(path)!r}, 'ids': {column!r}}}"


def _may_be_id(fields: list[str]) -> bool:
    """Return whether a first row may be data, not a header: a misspelt id must not be skipped silently."""
    return any(re.match(r"[-+.\d]", field) for field in fields)


def _check_one_image(first: list[str], body: _Rows, index: int, path: Path) -> None:
    """Check that ids do not repeat because the file has several images: they would choose the wrong cells."""
    ids = body.column(index)
    if len(set(ids)) == len(ids):
        return
    for place, name in enumerate(first):
        images = sorted(set(body.column(place)))
        if _normalized(name) in _GROUPS and place != index and len(images) > 1:
            raise ConfigError(
                f"{_origin(path)}: the file has cells of {len(images)} images (column {name!r}: {', '.join(images[:3])}"
                f"{', ...' if len(images) > 3 else ''}), and their ids repeat; keep only the rows of this image"
            )


def _is_text(field: str) -> bool:
    return bool(field) and not _NUMBER.fullmatch(field)


def _as_ids(
    lines: list[int], fields: list[str], path: Path, largest: int, *, of_program: bool | None = None
) -> IdColumn:
    if fields and all(map(_is_text, fields)):
        return IdColumn(texts=frozenset(fields))
    least = 0 if of_program else 1
    where = [f"{_origin(path)}, line {line}" for line in lines]
    numbers = {_as_number(field, place, least, largest) for place, field in zip(where, fields, strict=True)}
    return IdColumn(numbers=frozenset(numbers), of_program=of_program)


def _as_number(text: str, where: str, least: int, largest: int) -> int:
    found = _WHOLE.fullmatch(text)
    cell = int(found[1]) if found else -1
    if not least <= cell <= largest:
        shown, power = repr(text if len(text) <= 40 else f"{text[:40]}..."), largest.bit_length()
        raise ConfigError(f"{where}: {shown} is not a cell id; ids are integers from {least} to 2**{power} - 1")
    return cell
