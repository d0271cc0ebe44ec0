"""A file with a column of cell ids (CSV, or with semicolons or tabs) -> these ids, whole numbers or text."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellstamp.errors import ConfigError
from cellstamp.rules import LARGEST_ID

ID_COLUMNS = (
    "scportrait_cell_id",
    "cell_id",
    "instance_id",
    "label",
    "cell_label",
    "cell_labels",
    "object_number",
    "object_id",
    "object",
    "entity_id",
    "barcode",
)
"""Names of columns of ids; neither case nor what is between words counts: CellID, Cell ID and cell_id are one name."""

_OURS = "scportraitcellid"
_GROUPS = ("fov", "image", "imagenumber", "imagename", "filename", "sample", "sampleid", "slide", "roi", "region")
"""Names of columns that say which image a cell is of: ids may repeat from one image to the next."""

_SEPARATORS = ",;\t"

# What pandas writes of a column in which something is missing, "12.0", is a whole number too.
_WHOLE = re.compile(r"\+?(\d{1,19})(\.0*)?")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass(frozen=True)
class IdColumn:
    """The ids in a file.

    Attributes
    ----------
    numbers
        Whole numbers; empty when the ids are text.
    texts
        Text; empty when they are whole numbers.
    first
        What is in the first row of a file that has nothing but texts in one column: its heading, or one more id.
    """

    numbers: frozenset[int] = frozenset()
    texts: frozenset[str] = frozenset()
    first: str | None = None


@dataclass(frozen=True)
class _Rows:
    """Rows with something in them: the lines they end at in the file, and their fields."""

    lines: list[int]
    fields: list[list[str]]

    def column(self, index: int) -> list[str]:
        return [row[index] if index < len(row) else "" for row in self.fields]


def read_ids(path: Path, *, column: str | None = None, masks: Sequence[str] = ()) -> IdColumn:
    """Read the ids in a file.

    Parameters
    ----------
    path
        The file. Lines at its beginning that start with ``#`` are comments.
    column
        Name of its column of ids; None: the one with a name in `ID_COLUMNS`.
    masks
        Names of masks: a column of such a name holds their ids.

    Raises
    ------
    ConfigError
        If it cannot be read, it is unclear which column is meant, or there is something else than ids in that.
    """
    rows = _read(path)
    first = rows.fields[0] if rows.fields else []
    body = _Rows(rows.lines[1:], rows.fields[1:])
    index = _index_of_ids(first, body, path, column, masks)
    is_named = column is not None or len(first) > 1 or _plain(first[0] if first else "") in _known(masks)
    if not is_named and _may_be_id(first):
        return _as_ids(rows.lines, rows.column(index), path)
    _check_one_image(first, body, index, path)
    texts = body.column(index)
    if is_named or not all(map(_is_text, texts)):
        return _as_ids(body.lines, texts, path)
    # nothing but text: only who knows the ids can say whether the first is one
    return IdColumn(texts=frozenset(texts), first=first[0] if first else None)


def _read(path: Path) -> _Rows:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(file)
        comments = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
        rows = list(_filled_rows(lines[comments:]))
    except FileNotFoundError as error:
        raise ConfigError(f"{_origin(path)}: there is no such file ({path.absolute()})") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{_origin(path)}: this is a folder, not a CSV file") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{_origin(path)}: cannot be read as a CSV file: {error}") from error
    return _Rows([comments + line for line, _ in rows], [fields for _, fields in rows])


def _filled_rows(lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    start = next((line for line in lines if line.strip()), "")
    reader = csv.reader(lines, delimiter=max(_SEPARATORS, key=start.count))
    for row in reader:
        fields = [field.strip() for field in row]
        if any(fields):
            yield reader.line_num, fields


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())


def _known(masks: Sequence[str]) -> set[str]:
    return {_plain(name) for name in (*ID_COLUMNS, *masks)}


def _index_of_ids(first: list[str], body: _Rows, path: Path, column: str | None, masks: Sequence[str]) -> int:
    """Which column of a file holds the ids."""
    if column is not None:
        if column not in first:
            raise ConfigError(
                f"{_origin(path)}: there is no column {column!r}; the file has {', '.join(first) or 'none'}"
            )
        return first.index(column)
    names = [_plain(name) for name in first]
    known = [index for index, name in enumerate(names) if name in _known(masks)]
    # what is said to be of the mask itself comes before what may be
    own = [index for index in known if names[index] in {_OURS, *map(_plain, masks)}]
    found = own[:1] or known
    if len({tuple(body.column(index)) for index in found}) > 1:
        several = [first[index] for index in found]
        raise ConfigError(
            f"{_origin(path)}: which of the columns {', '.join(several)} holds the ids? Name it: "
            f"{_named(path, several[0])}"
        )
    if found:
        return found[0]
    if len(first) > 1 and not (first[0] == "" and body.fields and all(map(_is_text, body.column(0)))):
        raise _unclear(first, path)
    return 0


def _unclear(first: list[str], path: Path) -> ConfigError:
    wanted = f"one must be named {', '.join(ID_COLUMNS[:-1])} or {ID_COLUMNS[-1]}"
    if _may_be_id(first):
        return ConfigError(
            f"{_origin(path)}: there are {len(first)} columns and no header; {wanted}, or leave only the ids"
        )
    named = f"or name it: {_named(path, next(filter(None, first)))}"
    return ConfigError(f"{_origin(path)}: which column holds the ids? There are {', '.join(first)}; {wanted}, {named}")


def _origin(path: Path) -> str:
    return f"cells = {str(path)!r}"


def _named(path: Path, column: str) -> str:
    """What to write in the configuration for a column of a file."""
    return f"cells = {{'path': {str(path)!r}, 'ids': {column!r}}}"


def _may_be_id(fields: list[str]) -> bool:
    """Whether a first row is no header: a number with a slip in it would be left out, and nobody told."""
    return any(re.match(r"[-+.\d]", field) for field in fields)


def _check_one_image(first: list[str], body: _Rows, index: int, path: Path) -> None:
    """Refuse ids that come again in another image: they would choose cells that are not meant."""
    ids = body.column(index)
    if len(set(ids)) == len(ids):
        return
    for place, name in enumerate(first):
        images = sorted(set(body.column(place)))
        if _plain(name) in _GROUPS and place != index and len(images) > 1:
            raise ConfigError(
                f"{_origin(path)}: the file has cells of {len(images)} images (column {name!r}: {', '.join(images[:3])}"
                f"{', ...' if len(images) > 3 else ''}), and their ids repeat; leave only the rows of this image"
            )


def _is_text(field: str) -> bool:
    return bool(field) and not _NUMBER.fullmatch(field)


def _as_ids(lines: list[int], fields: list[str], path: Path) -> IdColumn:
    if fields and all(map(_is_text, fields)):
        return IdColumn(texts=frozenset(fields))
    numbers = {_as_number(field, f"{_origin(path)}, line {line}") for line, field in zip(lines, fields, strict=True)}
    return IdColumn(numbers=frozenset(numbers))


def _as_number(text: str, where: str) -> int:
    found = _WHOLE.fullmatch(text)
    cell = int(found[1]) if found else 0
    if not 1 <= cell <= LARGEST_ID:
        shown = repr(text if len(text) <= 40 else f"{text[:40]}...")
        raise ConfigError(f"{where}: {shown} is no cell id; must be a whole number from 1 to 2**63 - 1")
    return cell
