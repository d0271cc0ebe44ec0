"""Load the compiled kernels that workers need to measure features, in addition to `cellstamp.cells.preload`."""

import gc

from cellstamp.cells.load_measuring import load_measuring
from cellstamp.cells.preload import load_without_scipy
from cellstamp.cells.task import USUAL_MEASURING
from cellstamp.compiling.cache_folders import is_kept

if is_kept(USUAL_MEASURING):
    load_without_scipy(load_measuring)
    gc.freeze()
