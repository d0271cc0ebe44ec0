"""Draw pictures into memory, for light and for dark pages."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from cellstamp.pictures.removed import CellPositions, draw_removed

_WIDTH, _LONGEST = 4.5, 6.5
"""Width of a figure, and largest height, in inches; text stays readable on a phone."""
_DPI = 160
_INK = {False: "#1b1f24", True: "#e6edf3"}


def removed_png(cells: CellPositions, *, is_dark: bool) -> bytes:
    """Draw the positions of kept and removed cells; return the content of a PNG file without background."""
    ink = _INK[is_dark]
    keys = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    style: Any = dict.fromkeys(keys, ink)
    rows, columns = cells.shape
    height = min(_LONGEST, max(2.0, 0.9 * _WIDTH * rows / columns) + 1.2)
    with mpl.rc_context(style):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        draw_removed(cells, ax=figure.add_subplot(), save=None)
        file = BytesIO()
        figure.savefig(file, format="png", dpi=_DPI, transparent=True)
    return file.getvalue()
