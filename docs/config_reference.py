"""Make the tables of configuration keys from the models that validate them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cellstamp.config import ExtractionConfig, StepConfig
from cellstamp.segmentation_config import SegmentationConfig

# Keys have the order of the models; each entry names the first key of a group.
EXTRACTION = {
    "threads": "General",
    "image": "Input",
    "cells": "Cells and channels",
    "apply_masks": "Single-cell images",
    "target_ram_utilization": "Memory, workers and display",
}
SEGMENTATION = {
    "threads": "General",
    "image": "Input",
    "method": "Nuclei and cells",
    "block_size": "Memory, workers and display",
}
MODELS: dict[str, tuple[type[StepConfig], dict[str, str]]] = {
    "extraction": (ExtractionConfig, EXTRACTION),
    "segmentation": (SegmentationConfig, SEGMENTATION),
}
HEADER = ["| key | meaning | default | allowed |", "|---|---|---|---|"]


def lines(step: str = "extraction") -> Iterator[str]:
    """Yield the lines of a Markdown table for each group of keys."""
    model, groups = MODELS[step]
    for key, field in model.model_fields.items():
        if key in groups:
            yield from ["", f"**{groups[key]}**", "", *HEADER]
        default = "required" if field.is_required() else _default(field)
        meaning = " ".join(str(field.description).replace("``", "`").split())
        # values in code keep straight quotes, so that readers can paste them into a configuration
        allowed = re.sub(r'"[\w ]+"', r"`\g<0>`", model.allowed_for(key))
        yield f"| `{key}` | {meaning} | {default} | {allowed} |"


def _default(field: Any) -> str:
    """Return the default of a key; in words if it depends on the machine."""
    return (field.json_schema_extra or {}).get("shown") or f"`{_shown(field.default)}`"


def _shown(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def setup(app: Any) -> dict[str, bool]:
    """Add the directive ``config-reference`` to Sphinx."""
    from docutils import nodes
    from docutils.statemachine import StringList
    from sphinx.util.docutils import SphinxDirective

    class ConfigReference(SphinxDirective):
        optional_arguments = 1
        has_content = True  # readers of the Markdown file see it instead of the table

        def run(self) -> list[nodes.Node]:
            node = nodes.Element()
            self.state.nested_parse(
                StringList(list(lines(*self.arguments)), source="config_reference"), self.content_offset, node
            )
            return node.children

    app.add_directive("config-reference", ConfigReference)
    return {"parallel_read_safe": True}
