"""Write the page: one HTML file that needs no other file and no network."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from functools import singledispatch
from html import escape
from pathlib import Path

from cellstamp.errors import ConfigError, OutputError
from cellstamp.run_report.content import Distribution, Note, Part, Picture, RunReport, Section, Table, Thumbnail
from cellstamp.run_report.histogram import histogram
from cellstamp.run_report.style import CSS
from cellstamp.system import replace_file, sync_file

MARK = '<meta name="generator" content="cellstamp report">'
"""Part of the beginning of each page, which shows that cellstamp made it."""
_BEGINNING = 1000
"""Bytes of a page that contain the mark."""


def check_target(path: Path) -> None:
    """Check that a page can be written to a path: there is nothing, or an earlier page.

    Raises
    ------
    ConfigError
        If the name has another suffix.
    OutputError
        If another file or a folder is there.
    """
    if path.suffix.lower() not in {".html", ".htm"}:
        raise ConfigError(f"path = {str(path)!r}: must end with .html, such as report.html")
    try:
        is_folder = path.is_dir()
        path.lstat()
    except FileNotFoundError:
        is_folder = False
    except (OSError, ValueError) as error:
        raise ConfigError(f"path = {str(path)!r}: cannot be the path of a page: {error}") from error
    if is_folder:
        raise OutputError(f"{path} is a folder: give the path of the page, such as {path / 'report.html'}")
    if path.exists() and not _is_page(path):
        raise OutputError(f"{path} is a file that cellstamp did not write as a report: give another path, or remove it")


def _is_page(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return MARK.encode() in file.read(_BEGINNING)
    except OSError as error:
        raise OutputError(f"{path}: cannot read the earlier report: {error.strerror or error}") from error


def write_page(report: RunReport, path: Path) -> None:
    """Write a page, which is renamed when complete; an earlier page is replaced.

    Raises
    ------
    ConfigError, OutputError
        As for `check_target`; or if the page cannot be written.
    """
    check_target(path)
    beside = path.with_name(f".{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(html_of(report), encoding="utf-8", errors="backslashreplace")
        sync_file(beside)
        replace_file(beside, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot write the report: {error.strerror or error}") from error
    finally:
        _remove(beside)


def _remove(beside: Path) -> None:
    try:
        beside.unlink(missing_ok=True)
    except OSError:
        return


def html_of(report: RunReport) -> str:
    """Return the page as text; all content is escaped."""
    title = escape(report.title)
    head = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        MARK,
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title>\n<style>{CSS}</style>\n</head>\n<body>",
        f'<h1>{title}</h1>\n<p class="faint">{escape(report.subtitle)}</p>',
    ]
    return "\n".join([*head, *map(_section, report.sections), "</body>\n</html>\n"])


def _section(section: Section) -> str:
    return "\n".join([f"<section>\n<h2>{escape(section.title)}</h2>", *map(_html, section.parts), "</section>"])


@singledispatch
def _html(part: Part) -> str:
    raise TypeError(type(part).__name__)


@_html.register
def _(table: Table) -> str:
    rows = [f"<tr><th scope='row'>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in table.rows]
    if table.total is not None:
        name, value = map(escape, table.total)
        rows.append(f"<tr class='total'><th scope='row'>{name}</th><td>{value}</td></tr>")
    return "\n".join(["<table>", *rows, "</table>"])


@_html.register
def _(note: Note) -> str:
    return f'<p class="{"warning" if note.is_warning else "faint"}">{escape(note.text)}</p>'


@_html.register
def _(picture: Picture) -> str:
    dark = f'<source media="(prefers-color-scheme: dark)" srcset="{_data(picture.dark)}">'
    return f'<picture>{dark}<img src="{_data(picture.light)}" alt="{escape(picture.text)}"></picture>'


@_html.register
def _(distribution: Distribution) -> str:
    title, cells = distribution.title, "".join(_cells(distribution))
    drawn = histogram(distribution.values, title, distribution.unit)
    return f"<h3>{escape(title)}</h3>\n{drawn}" + (f'\n<div class="cells">{cells}</div>' if cells else "")


def _cells(distribution: Distribution) -> Iterator[str]:
    for each in distribution.thumbnails:
        yield _figure(each, f"{distribution.title}, {each.caption}")


def _figure(thumbnail: Thumbnail, text: str) -> str:
    image = f'<img src="{_data(thumbnail.png)}" alt="{escape(text)}">'
    return f"<figure>{image}<figcaption>{escape(thumbnail.caption)}</figcaption></figure>"


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{b64encode(png).decode()}"
