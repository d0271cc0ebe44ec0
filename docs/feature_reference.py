"""Make the tables of features from their declarations: of definitions, or of names in other programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cellstamp.features.declared import AREA_RATIO, INTENSITIES, SHAPES, TEXTURES, Definition

GROUPS: tuple[tuple[str, Sequence[Definition]], ...] = (
    ("**shape**: `nucleus__NAME`, `cell__NAME`", SHAPES),
    ("**shape**, with two masks: `nucleus__NAME`", (AREA_RATIO,)),
    (
        "**intensity**: `nucleus__NAME__CHANNEL`, `cell__NAME__CHANNEL`, `cytoplasm__NAME__CHANNEL`",
        INTENSITIES,
    ),
    ("**texture**: `nucleus__NAME__CHANNEL`, `cell__NAME__CHANNEL`", TEXTURES),
)


@dataclass(frozen=True)
class Table:
    """Columns of a table, and their texts for a feature."""

    header: Sequence[str]
    texts: Callable[[Definition], Sequence[str]]


TABLES: Mapping[str, Table] = {
    "definitions": Table(
        ("name", "unit", "definition", "equal to"),
        lambda each: (f"`{each.name}`", each.unit, each.formula, each.source),
    ),
    "names": Table(
        ("name", "in CellProfiler", "in CellFeaturizer"),
        lambda each: (f"`{each.name}`", each.cellprofiler, each.cellfeaturizer),
    ),
}
"""Kinds of tables, by the argument of the directive."""


def lines(kind: str) -> Iterator[str]:
    """Yield the lines of a Markdown table for each group of features."""
    table = TABLES[kind]
    for title, definitions in GROUPS:
        yield from ["", title, "", _row(table.header), _row(["---"] * len(table.header))]
        for each in definitions:
            yield _row(table.texts(each))


def _row(texts: Sequence[str]) -> str:
    """Return a row of a table; in a formula such as |i - j|, "|" does not end a cell."""
    return " | ".join(["", *(text.replace("|", r"\|") for text in texts), ""]).strip()


def setup(app: Any) -> dict[str, bool]:
    """Add the directive ``feature-reference`` to Sphinx."""
    from docutils import nodes
    from docutils.statemachine import StringList
    from sphinx.util.docutils import SphinxDirective

    class FeatureReference(SphinxDirective):
        required_arguments = 1  # one of TABLES
        has_content = True  # readers of the Markdown file see it instead of the table

        def run(self) -> list[nodes.Node]:
            node = nodes.Element()
            text = StringList(list(lines(self.arguments[0])), source="feature_reference")
            self.state.nested_parse(text, self.content_offset, node)
            return node.children

    app.add_directive("feature-reference", FeatureReference)
    return {"parallel_read_safe": True}
