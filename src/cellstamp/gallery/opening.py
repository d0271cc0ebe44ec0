"""Find what a gallery shows: the single-cell images, their features, and the store of their project."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellstamp.errors import InputError
from cellstamp.h5sc.feature_table import features_beside, has_features
from cellstamp.h5sc.selected_images import selected_images
from cellstamp.location import Location, is_path, location_of
from cellstamp.pipeline.extraction_plots import find_h5sc
from cellstamp.pipeline.folder import EXTRACTION, STORE

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Found:
    """What a gallery shows.

    Attributes
    ----------
    h5sc
        Path or URL of the images, or an `AnnData`.
    features
        Path of a table of features, an `AnnData`, or None.
    store
        Store with the slide; None: not found.
    folder
        Folder of the project that the user gave; None: the user gave a file.
    """

    h5sc: Any
    features: Any
    store: Path | None
    folder: Path | None


def find(given: Any, features: Any = None) -> Found:
    """Find images, features and store.

    Parameters
    ----------
    given
        Path of a file, a store or a project's folder; a `Project`; or an `AnnData` from `read_h5sc`.
    features
        Path of a table of features, or an `AnnData`. None: the table beside the images, if there is one.

    Raises
    ------
    ConfigError
        If a project has no extraction.
    InputError
        If something is given that has no single-cell images.
    """
    folder = _folder_of(given)
    h5sc = given if folder is None else find_h5sc(folder)
    path = location_of(h5sc) if is_path(h5sc) else _file_of(h5sc)
    if path is None:
        return Found(h5sc, features, None, None)
    if features is None and has_features(path):
        features = features_beside(path)
    return Found(path if is_path(h5sc) else h5sc, features, _store_of(path, folder), folder)


def _file_of(data: AnnData) -> Location | None:
    """Return the file of the images of an `AnnData`; None: it has only some of the cells, or its own images."""
    with selected_images(data) as look:
        return look.path


def _folder_of(given: Any) -> Path | None:
    """Return the folder of a project, given as one or by its path; None: it is something else."""
    if hasattr(given, "project_location"):
        return Path(given.project_location)
    if not is_path(given):
        if not hasattr(given, "obsm"):
            raise InputError(
                f"browse: {type(given).__name__} has no single-cell images: give the path of an .h5sc file, a zarr "
                "store or a project, a Project, or the AnnData from read_h5sc"
            )
        return None
    path = location_of(given)
    return path if isinstance(path, Path) and find_h5sc(path) != path else None


def _store_of(path: Location, folder: Path | None) -> Path | None:
    """Return the store of the project in whose extraction folder a file is, or that the user gave."""
    if folder is not None:
        return folder / STORE
    if not isinstance(path, Path):
        return None
    parents = path.absolute().parents
    is_result = len(parents) > 2 and parents[1].name == EXTRACTION and (parents[2] / STORE).is_dir()
    return parents[2] / STORE if is_result else None
