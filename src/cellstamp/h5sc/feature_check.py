"""Check the table of features beside a file of single-cell images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anndata
import numpy as np

from cellstamp.errors import InputError
from cellstamp.h5sc.feature_table import features_beside, has_features, read_features
from cellstamp.h5sc.layout import MEASURED_IN_PART, OURS
from cellstamp.location import Location


def wrong_features(path: Location, file: Any) -> Iterator[str]:
    """Find differences between the features and the images of a file.

    Parameters
    ----------
    path
        Path of the file.
    file
        The opened file, see `cellstamp.h5sc.opening.open_h5sc`.
    """
    own = anndata.io.read_elem(file[f"uns/{OURS}"]) if f"uns/{OURS}" in file else {}
    found = features_beside(path)
    if not has_features(path):  # none were measured, or the file was moved
        return
    try:
        features = read_features(path)
    except InputError as error:
        yield str(error)
        return
    obs = anndata.io.read_elem(file["obs"])
    if len(features) != len(obs):
        yield f"{found.name} has {len(features)} rows for {len(obs)} cells"
        return
    if str(features.uns.get(OURS, {}).get("fingerprint")) != str(own.get("fingerprint")):
        yield f"{found.name} was made with other settings or input than this file. Extract again"
    for column in obs:
        if column not in features.obs or features.obs[column].tolist() != obs[column].tolist():
            yield f"obs/{column} differs between {found.name} and this file"
    if MEASURED_IN_PART not in features.obs:
        yield f"{found.name}: obs/{MEASURED_IN_PART} is missing"
    repeated = features.var_names[features.var_names.duplicated()]
    if len(repeated):
        yield f"{found.name}: {len(repeated)} names of features are repeated, such as {repeated[0]}"
    if np.isinf(features.X).any():
        yield f"{found.name}: values must be finite or NaN"
