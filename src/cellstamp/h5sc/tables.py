"""The tables of a file with single-cell images: everything but the images."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import pandas as pd

from cellstamp.h5sc.layout import ANNOTATION, CELL_ID, EXCEEDS, IMAGES, INSTANCE_ID, REGION, Layout

_NAMES = 2**16


def tables_of(layout: Layout) -> dict[str, Any]:
    """Return the elements of an `AnnData`, in encodings that older readers know (see `_text`).

    All rows have the name ""; see `number_rows`.
    """
    n_cells, n_planes = layout.shape[:2]
    x, y = layout.centers.T
    region = pd.Categorical.from_codes(np.zeros(n_cells, np.int8), categories=_text([layout.annotated]))
    columns = {CELL_ID: layout.cell_ids, REGION: region, "x": x, "y": y, EXCEEDS: False}
    if layout.instances is not None:
        numbers = layout.instances.dtype.kind in "iu"
        columns[INSTANCE_ID] = layout.instances if numbers else _text(map(str, layout.instances)).to_numpy()
    obs = pd.DataFrame(columns, index=pd.Index(np.full(n_cells, ""), dtype=object))
    kinds = pd.Categorical(layout.kinds, categories=_text(sorted(set(layout.kinds))))
    var = pd.DataFrame({"channel_mapping": kinds}, index=_text(map(str, range(n_planes))))
    var.insert(0, "channels", pd.Series(layout.names, index=var.index, dtype=object))
    return {
        "obs": obs,
        "var": var,
        "obsm": {"spatial": layout.centers},
        "uns": {IMAGES: layout.description(), ANNOTATION: layout.annotation()},
        **{name: {} for name in ("layers", "obsp", "varm", "varp")},
    }


def number_rows(names: h5py.Dataset) -> None:
    """Name the rows "0", "1", ..., block by block: all names together take 0.2 KiB of memory for each cell.

    Not by the ids: scportrait's tools and plots use these names as row numbers.
    """
    for start in range(0, len(names), _NAMES):
        numbers = range(start, min(start + _NAMES, len(names)))
        names[numbers.start : numbers.stop] = list(map(str, numbers))


def _text(words: object) -> pd.Index:
    """Return an index of Python strings. anndata stores the default type of pandas 3 in a newer encoding."""
    return pd.Index(list(words), dtype=object)  # type: ignore[call-overload]
