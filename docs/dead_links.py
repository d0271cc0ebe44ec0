"""Find dead links between the built pages: links to missing files or missing anchors."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LINKS = {"a": "href", "img": "src", "link": "href", "script": "src", "object": "data"}


class Page(HTMLParser):
    """Links of a page, and ids that links can point to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.ids |= {str(found[name]) for name in ("id", "name") if name in found}
        if link := found.get(LINKS.get(tag, "")):
            self.links.add(link)


def dead_links(folder: Path) -> list[str]:
    """Return an error for each dead link, with its page."""
    pages = {path.resolve(): Page(path) for path in folder.rglob("*.html") if "_static" not in path.parts}
    return [
        f"{path.relative_to(folder.resolve())}: dead link {link!r}"
        for path, page in sorted(pages.items())
        for link in sorted(page.links)
        if not _leads_somewhere(link, path, pages)
    ]


def _leads_somewhere(link: str, path: Path, pages: dict[Path, Page]) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:  # external: `make linkcheck` checks it
        return True
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target not in pages:
        return target.exists()
    return parts.fragment in {"", *pages[target].ids}


def _check(app: Any, error: Exception | None) -> None:
    from sphinx.util import logging

    if error is None and app.builder.name == "html":
        for message in dead_links(Path(app.outdir)):
            logging.getLogger(__name__).warning(message)


def setup(app: Any) -> dict[str, bool]:
    """Add a warning for each dead link to Sphinx."""
    app.connect("build-finished", _check, priority=900)  # after extensions that copy files into the site
    return {"parallel_read_safe": True, "parallel_write_safe": True}
