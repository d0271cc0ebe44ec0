"""Tables of counts as 10x Genomics writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from scipy.sparse import random_array

GENES = ("EPCAM", "CD3E", "MS4A1")


def write_10x_h5(path: Path, barcodes: Sequence[str]) -> None:
    """Write ``cell_feature_matrix.h5`` or ``filtered_feature_bc_matrix.h5``: features (rows) by barcodes, CSC."""
    counts = random_array((len(GENES), len(barcodes)), density=0.7, rng=0).tocsc()
    with h5py.File(path, "w") as file:
        file.attrs.update({"chemistry_description": "made up", "filetype": "matrix", "version": 2})
        matrix = file.create_group("matrix")
        matrix["barcodes"] = np.array(barcodes, "S")
        matrix["data"] = np.ceil(counts.data * 9).astype(np.int32)
        matrix["indices"], matrix["indptr"] = counts.indices.astype(np.int64), counts.indptr.astype(np.int64)
        matrix["shape"] = np.array(counts.shape, np.int32)
        features = matrix.create_group("features")
        features["_all_tag_keys"] = np.array(["genome"], "S")
        features["id"] = np.array([f"ENSG{number:011d}" for number, _ in enumerate(GENES)], "S")
        features["name"] = np.array(GENES, "S")
        features["feature_type"] = np.array(["Gene Expression"] * len(GENES), "S")
        features["genome"] = np.array(["GRCh38"] * len(GENES), "S")
