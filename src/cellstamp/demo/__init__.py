"""The demonstration: real fluorescent cells, segmented, extracted and drawn. It needs no network.

scikit-image and matplotlib (``cellstamp[demo]``) are imported when they are used.
"""

from cellstamp.demo.images import (
    CELL_CHANNELS,
    CELL_IMAGE_SIZE,
    CELL_SEGMENTATION,
    CHANNELS,
    SEGMENTATION,
    load_cells,
    load_image,
)
from cellstamp.demo.run import DemoResult, run_demo

__all__ = [
    "CELL_CHANNELS",
    "CELL_IMAGE_SIZE",
    "CELL_SEGMENTATION",
    "CHANNELS",
    "SEGMENTATION",
    "DemoResult",
    "load_cells",
    "load_image",
    "run_demo",
]
