"""Read the ids and centres of the kept cells of a result, and the ids of removed ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import anndata
import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import InputError
from cellstamp.h5sc.layout import IMAGES, REMOVED_NAME, removed_name
from cellstamp.h5sc.result_tables import read_result
from cellstamp.h5sc.stored_images import ShardedImages
from cellstamp.location import Location, is_path, location_of


@dataclass(frozen=True)
class KeptAndRemoved:
    """Kept and removed cells of a file.

    Attributes
    ----------
    path
        The file.
    kept, removed
        Ids, uint64 (n,).
    kept_xy
        Centres of the kept cells, float64 (n, 2): x, y in pixels. None: not in the file.
    image
        Name of the image. None: not in the file.
    masks
        Names of the masks; the first one defines the cells.
    coordinate_system
        Coordinate system that places the masks on the image. None: not chosen.
    centers
        Name of the element with the centres. None: the centres stored for the mask.
    image_size
        Side of a crop in pixels; 0: not in the file.
    keeps_border
        Whether cells at the image border were kept.
    scale
        Sides of a pixel of the crops in pixels of the image: y, x.
    """

    path: Location
    kept: NDArray[np.uint64]
    removed: NDArray[np.uint64]
    kept_xy: NDArray[np.float64] | None
    image: str | None
    masks: tuple[str, ...]
    coordinate_system: str | None
    centers: str | None
    image_size: int
    keeps_border: bool
    scale: tuple[float, float] = (1.0, 1.0)

    @property
    def mask(self) -> str:
        """Return the name of the mask that defines the cells."""
        return self.masks[0]


def kept_and_removed(h5sc: Any) -> KeptAndRemoved:
    """Read the kept and removed cells of a path, also of features, or of an `AnnData` from `read_h5sc`.

    Reads no images.

    Raises
    ------
    InputError
        If it is not an `.h5sc` file, or the list of removed cells is missing beside it.
    """
    path = _path_of(h5sc)
    tables = read_result(path)
    settings, kept = tables.settings, tables.cell_ids.astype(np.uint64)
    return KeptAndRemoved(
        path,
        kept,
        _removed_of(path, kept, tables.about),
        tables.xy,
        _named(settings, "image"),
        tables.masks,
        _named(settings, "coordinate_system"),
        _named(settings, "centers"),
        tables.image_size or 0,
        settings.get("border") == "pad",
        _scale(settings),
    )


def _scale(settings: Any) -> tuple[float, float]:
    """Return how many pixels of the image a pixel of the crops is high and wide."""
    if "crop_pixel_size" not in settings:
        return 1.0, 1.0
    height, width = np.divide(settings["crop_pixel_size"], settings["image_pixel_size"]).tolist()
    return height, width


def _named(settings: Any, key: str) -> str | None:
    name = str(settings.get(key, "None"))
    return None if name == "None" else name


def _path_of(h5sc: Any) -> Location:
    if is_path(h5sc):
        return location_of(h5sc)
    images = h5sc.obsm.get(IMAGES) if isinstance(h5sc, anndata.AnnData) and not h5sc.is_view else None
    if isinstance(images, ShardedImages):
        return images.location
    file = getattr(images, "file", None)
    if file is None:
        raise InputError(
            f"h5sc is {type(h5sc).__name__} without an open file or store: pass the path of the .h5sc file or zarr "
            "store, or the complete AnnData from read_h5sc(path) or project.h5sc"
        )
    return location_of(file.filename)


def _removed_of(path: Location, kept: NDArray[np.uint64], about: Any) -> NDArray[np.uint64]:
    """Read the removed cells of a result: from its list, or from the list that earlier versions wrote for all."""
    own, shared = path.with_name(removed_name(path.name)), path.with_name(REMOVED_NAME)
    found = own if own.is_file() or not shared.is_file() else shared
    removed = _removed(found)
    n_removed, both = about.get("cells_removed_at_border", removed.size), np.intersect1d(removed, kept)
    problem = None
    if n_removed != removed.size:
        problem = f"{removed.size} cells, but {n_removed} were removed for {path.name}"
    elif both.size:
        problem = f"cell {both[0]}, which {path.name} has"
    if problem is not None:
        raise InputError(
            f"{found} lists {problem}: the list is that of another result. Extract again, with output_folder_name for "
            "another folder, or overwrite=True"
        )
    return removed


def _removed(path: Location) -> NDArray[np.uint64]:
    if not path.is_file():
        raise InputError(f"{path} is missing: the list of removed cells that an extraction writes beside its file")
    try:
        return np.array(
            [int(float(line)) if "." in line else int(line) for line in path.read_text(encoding="utf-8").split()],
            np.uint64,
        )
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: must have one cell id in each line: {error}") from error
