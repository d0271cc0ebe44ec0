"""Make one sample, and projects of scportrait and cellstamp from it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import matplotlib
import yaml
from scportrait.pipeline.extraction import HDF5CellExtraction as TheirExtraction
from scportrait.pipeline.featurization import CellFeaturizer
from scportrait.pipeline.project import Project as TheirProject

import cellstamp
from tests.conftest import make_cells, write_store

matplotlib.use("agg")
# ome-zarr's reader logs for each labels image that it has no parent.
logging.getLogger("ome_zarr").setLevel(logging.ERROR)

IMAGE_SIZE = 32

__all__ = ["IMAGE_SIZE", "Bench", "TheirExtraction", "TheirProject"]


class Bench:
    """A folder with one sample, and projects of both packages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "cache").mkdir()
        # The outer cells of this 7 x 7 grid are too close to the border.
        self.image, self.nucleus, self.cytosol = make_cells(n=49)

    def sample(self) -> Path:
        """Return a SpatialData store with image and masks; their names differ from those of a project."""
        path = self.folder / "sample.zarr"
        if not path.exists():
            masks = {"nucleus": self.nucleus, "cytosol": self.cytosol}
            write_store(path, self.image, masks, image_name="image", multiscale=True)
        return path

    def config(self, **keys: Any) -> Path:
        path = self.folder / "config.yml"
        extraction = {"threads": 2, "image_size": IMAGE_SIZE, "cache": str(self.folder / "cache"), **keys}
        featuriser = {"batch_size": 10, "dataloader_worker_number": 0, "inference_device": "cpu", "label": "all"}
        path.write_text(yaml.safe_dump({"HDF5CellExtraction": extraction, "CellFeaturizer": featuriser}))
        return path

    def theirs(self, name: str, extraction: type, *, overwrite: bool = False, **keys: Any) -> TheirProject:
        """Return scportrait's Project for a folder."""
        return TheirProject(
            str(self.folder / name),
            config_path=str(self.config(**keys)),
            extraction_f=extraction,
            featurization_f=CellFeaturizer,
            overwrite=overwrite,
        )

    def loaded(self, name: str, extraction: type, **keys: Any) -> TheirProject:
        """Return scportrait's Project for a new folder, with image and masks."""
        project = self.theirs(name, extraction, overwrite=True, **keys)
        project.load_input_from_sdata(str(self.sample()), "image", "nucleus", "cytosol")
        # Open it again without overwrite=True.
        return self.theirs(name, extraction, **keys)

    def ours(self, name: str, **keys: Any) -> cellstamp.Project:
        """Return cellstamp's Project for a folder."""
        return cellstamp.Project(self.folder / name, config_path=self.config(**keys))
