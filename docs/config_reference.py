"""Makes the table of configuration keys from the model that checks them, so that it cannot go stale."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cellstamp.config import ExtractionConfig, allowed_for

# The model's order is kept; a new key belongs to the group of the key above it.
GROUPS = {
    "threads": "Required",
    "image": "What is read",
    "cells": "Which cells and channels",
    "apply_masks": "How single-cell images are made",
    "target_ram_utilization": "Memory, workers, and what is shown",
}
HEADER = ["| key | default | allowed | what it does |", "|---|---|---|---|"]


def lines() -> Iterator[str]:
    """The tables in Markdown, a group each."""
    for key, field in ExtractionConfig.model_fields.items():
        if key in GROUPS:
            yield from ["", f"**{GROUPS[key]}**", "", *HEADER]
        default = "required" if field.is_required() else f"`{_shown(field.default)}`"
        meaning = " ".join(str(field.description).replace("``", "`").split())
        # as code, or its quotes would be turned into typographic ones, which nobody can paste into a configuration
        allowed = re.sub(r'"\w+"', r"`\g<0>`", allowed_for(key))
        yield f"| `{key}` | {default} | {allowed} | {meaning} |"


def _shown(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def setup(app: Any) -> dict[str, bool]:
    """Give Sphinx the directive ``config-reference``."""
    from docutils import nodes
    from docutils.statemachine import StringList
    from sphinx.util.docutils import SphinxDirective

    class ConfigReference(SphinxDirective):
        def run(self) -> list[nodes.Node]:
            node = nodes.Element()
            self.state.nested_parse(StringList(list(lines()), source="config_reference"), self.content_offset, node)
            return node.children

    app.add_directive("config-reference", ConfigReference)
    return {"parallel_read_safe": True}
