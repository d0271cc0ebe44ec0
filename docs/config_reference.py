"""Makes the table of configuration keys from the model that checks them, so that it cannot go stale."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cellstamp.config import ExtractionConfig, StepConfig
from cellstamp.segmentation_config import SegmentationConfig

# The models' order is kept; a new key belongs to the group of the key above it.
EXTRACTION = {
    "threads": "Required",
    "image": "What is read",
    "cells": "Which cells and channels",
    "apply_masks": "How single-cell images are made",
    "target_ram_utilization": "Memory, workers, and what is shown",
}
SEGMENTATION = {
    "threads": "Required",
    "image": "What is read",
    "method": "What is a nucleus, and what a cell",
    "block_size": "Memory, workers, and what is shown",
}
MODELS: dict[str, tuple[type[StepConfig], dict[str, str]]] = {
    "extraction": (ExtractionConfig, EXTRACTION),
    "segmentation": (SegmentationConfig, SEGMENTATION),
}
HEADER = ["| key | default | allowed | what it does |", "|---|---|---|---|"]


def lines(step: str = "extraction") -> Iterator[str]:
    """The tables in Markdown, a group each."""
    model, groups = MODELS[step]
    for key, field in model.model_fields.items():
        if key in groups:
            yield from ["", f"**{groups[key]}**", "", *HEADER]
        default = "required" if field.is_required() else f"`{_shown(field.default)}`"
        meaning = " ".join(str(field.description).replace("``", "`").split())
        # as code, or its quotes would be turned into typographic ones, which nobody can paste into a configuration
        allowed = re.sub(r'"\w+"', r"`\g<0>`", model.allowed_for(key))
        yield f"| `{key}` | {default} | {allowed} | {meaning} |"


def _shown(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def setup(app: Any) -> dict[str, bool]:
    """Give Sphinx the directive ``config-reference``."""
    from docutils import nodes
    from docutils.statemachine import StringList
    from sphinx.util.docutils import SphinxDirective

    class ConfigReference(SphinxDirective):
        optional_arguments = 1

        def run(self) -> list[nodes.Node]:
            node = nodes.Element()
            self.state.nested_parse(
                StringList(list(lines(*self.arguments)), source="config_reference"), self.content_offset, node
            )
            return node.children

    app.add_directive("config-reference", ConfigReference)
    return {"parallel_read_safe": True}
