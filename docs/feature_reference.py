"""Make the tables of features from their declarations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cellstamp.features.declared import AREA_RATIO, INTENSITIES, SHAPES, TEXTURES, Definition

TABLES: tuple[tuple[str, Sequence[Definition]], ...] = (
    ("**shape**: `nucleus__NAME`, `cell__NAME`", SHAPES),
    ("**shape**, with two masks: `nucleus__NAME`", (AREA_RATIO,)),
    (
        "**intensity**: `nucleus__NAME__CHANNEL`, `cell__NAME__CHANNEL`, `cytoplasm__NAME__CHANNEL`",
        INTENSITIES,
    ),
    ("**texture**: `nucleus__NAME__CHANNEL`, `cell__NAME__CHANNEL`", TEXTURES),
)
HEADER = (
    "| name | unit | definition | equal to | in CellProfiler | in CellFeaturizer |",
    "|---|---|---|---|---|---|",
)


def lines() -> Iterator[str]:
    """Yield the lines of a Markdown table for each kind of features."""
    for title, definitions in TABLES:
        yield from ["", title, "", *HEADER]
        for each in definitions:
            texts = (f"`{each.name}`", each.unit, each.formula, each.source, each.cellprofiler, each.cellfeaturizer)
            yield _row(texts)


def _row(texts: Sequence[str]) -> str:
    """Return a row of a table; in a formula such as |i - j|, "|" does not end a cell."""
    return " | ".join(["", *(text.replace("|", r"\|") for text in texts), ""]).strip()


def setup(app: Any) -> dict[str, bool]:
    """Add the directive ``feature-reference`` to Sphinx."""
    from docutils import nodes
    from docutils.statemachine import StringList
    from sphinx.util.docutils import SphinxDirective

    class FeatureReference(SphinxDirective):
        has_content = True  # readers of the Markdown file see it instead of the table

        def run(self) -> list[nodes.Node]:
            node = nodes.Element()
            self.state.nested_parse(StringList(list(lines()), source="feature_reference"), self.content_offset, node)
            return node.children

    app.add_directive("feature-reference", FeatureReference)
    return {"parallel_read_safe": True}
