"""How many examples hypothesis draws: an eighth of those named, or all if CELLSTAMP_EXAMPLES is "all" (make faults)."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings

_SHARE = 1 if os.environ.get("CELLSTAMP_EXAMPLES") == "all" else 8


def examples(n: int, **options: Any) -> settings:
    """Settings of a test: its number of examples in make faults, without a deadline, since machines are busy."""
    return settings(max_examples=max(1, n // _SHARE), deadline=None, **options)
