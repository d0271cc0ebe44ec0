"""Read the tables of a result, with or without single-cell images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellstamp.errors import InputError
from cellstamp.h5sc.cell_tables import check_cells
from cellstamp.h5sc.feature_table import FEATURES, features_beside, has_features, read_columns
from cellstamp.h5sc.layout import CELL_ID, EXCEEDS, FEATURES_NAMES, IMAGES, OURS
from cellstamp.h5sc.reader import as_plain, read_h5sc
from cellstamp.location import Location


@dataclass(frozen=True)
class ResultTables:
    """Cells and description of a result.

    Attributes
    ----------
    cell_ids
        (n_cells,), in the order of the file.
    xy
        Centres, float64 (n_cells, 2): x, y in pixels of the image. None: not in the file.
    n_exceeding
        Number of cells that extend beyond their crops. None: not in the file.
    about
        Content of ``uns/cellstamp``; empty in files of other programs.
    plane_names
        Masks, then channels; empty without single-cell images.
    image_size
        Side of a crop in pixels. None: not in the file.
    """

    cell_ids: NDArray[Any]
    xy: NDArray[np.float64] | None
    n_exceeding: int | None
    about: Mapping[str, Any]
    plane_names: tuple[str, ...]
    image_size: int | None

    @property
    def has_images(self) -> bool:
        """Whether the result has single-cell images."""
        return bool(self.plane_names)

    @property
    def masks(self) -> tuple[str, ...]:
        """Names of the masks, of which the first one defines the cells."""
        listed = [str(name) for name in self.settings.get("masks", ())]
        return (self.plane_names[0], *listed[1:]) if self.has_images else tuple(listed)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings of the extraction; empty in files of other programs."""
        settings: Mapping[str, Any] = self.about.get("settings", {})
        return settings


def read_result(path: Location) -> ResultTables:
    """Read the tables of a file or store of single-cell images, or of a table of features alone.

    Raises
    ------
    InputError
        If it is missing, damaged, or something else.
    """
    if path.name not in FEATURES_NAMES:
        data = read_h5sc(path, images=False)
        planes = tuple(map(str, data.var["channels"]))
        return _tables(data.obs, data.obsm, data.uns, planes, data.uns.get(IMAGES, {}).get("image_size"))
    if not has_features(path):
        raise InputError(f"there is no file {path}")
    with FEATURES.opened(path) as file:
        obs, uns, obsm = (as_plain(anndata.io.read_elem(file[name])) for name in ("obs", "uns", "obsm"))
    return _tables(obs, obsm, uns, (), uns[OURS]["settings"]["image_size"])


def _tables(
    obs: pd.DataFrame, obsm: Any, uns: Mapping[str, Any], plane_names: tuple[str, ...], image_size: Any
) -> ResultTables:
    return ResultTables(
        obs[CELL_ID].to_numpy(),
        np.asarray(obsm["spatial"], np.float64) if "spatial" in obsm else None,
        int(obs[EXCEEDS].sum()) if EXCEEDS in obs else None,
        uns.get(OURS, {}),
        plane_names,
        None if image_size is None else int(image_size),
    )


def feature_values(path: Location, names: list[str]) -> dict[str, NDArray[np.float64]]:
    """Read those of some features that a result has: float64 (n_cells,) by name.

    Raises
    ------
    InputError
        If the features are damaged, or those of other cells than the images.
    """
    if not has_features(path):
        return {}
    found = features_beside(path)
    columns, known = read_columns(found, "\n".join(names))
    if found != path:
        check_cells(columns[CELL_ID].to_numpy(), found, path)
    return {name: columns[name].to_numpy().astype(np.float64) for name in names if name in known}
