"""Project: a folder with a segmented image and its results."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellstamp.engines.cores import default_workers
from cellstamp.errors import ConfigError, InputError
from cellstamp.pipeline import folder
from cellstamp.pipeline.base import ProcessingStep
from cellstamp.pipeline.loading import PathLike
from cellstamp.pipeline.pictures import ProjectPictures
from cellstamp.source.load import store
from cellstamp.source.load.tables import add_table
from cellstamp.source.names import CYTOSOL, IMAGE, NUCLEUS, centers_of, other_form

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData
    from xarray import DataArray

_MASKS = ("nucleus", "cytosol")
_WANTED = "return a dict {'nucleus': ..., 'cytosol': ...}, or None if it has written the masks itself"


class FileHandler:
    """Where a step finds the project's store.

    Attributes
    ----------
    sdata_path : str
        Folder of the SpatialData zarr store.
    """

    def __init__(self, sdata_path: PathLike) -> None:
        self.sdata_path = os.fspath(sdata_path)

    def get_sdata(self) -> SpatialData:
        """Open the store in its current state."""
        return store.open_sdata(self.sdata_path)


class Project(ProjectPictures):
    """A project folder: ``config.yml``, ``processing.log``, the store ``scportrait.sdata``, and a folder for each step.

    Names and layout are scportrait's: a folder made by one opens in the other.

    Parameters
    ----------
    project_location
        The folder, made when there is none.
    config_path
        Path of a YAML file, or a dict: copied into the folder. None: the folder's own ``config.yml``, if it has one.
    segmentation_f, extraction_f
        Classes of the steps, each with a section of its name in the configuration. None: `ThresholdSegmentation` and
        `HDF5CellExtraction`, if the configuration has their sections. A configuration without sections is that of an
        extraction. A project without a configuration has both steps, with default settings and `image_size` "auto".
    overwrite
        Whether loaders and steps may replace existing elements of the same name. The folder is never emptied: all else
        stays (only masks of an image leave with it, see `load_input_from_sdata`).
    debug
        Whether log messages are also written to the standard output.

    Attributes
    ----------
    sdata_path : str
        Path of the store.
    config : dict
        The configuration, as read.
    segmentation_f : ProcessingStep or None
        The segmentation step.
    extraction_f : ProcessingStep or None
        The extraction step.

    Raises
    ------
    ConfigError
        When the configuration cannot be read, or has no section for a step.
    """

    def __init__(
        self,
        project_location: PathLike,
        config_path: PathLike | Mapping[str, Any] | None = None,
        segmentation_f: type[ProcessingStep] | None = None,
        extraction_f: type[ProcessingStep] | None = None,
        *,
        overwrite: bool = False,
        debug: bool = False,
    ) -> None:
        super().__init__(project_location, overwrite=overwrite, debug=debug)
        self.project_location = self.directory
        self.filehandler = FileHandler(self._store)
        self._make_directory()
        store.recover(self._store)
        self.config = folder.find_config(Path(self.directory), config_path)
        if extraction_f is None and folder.has_section(self.config, folder.DEFAULT_EXTRACTION):
            from cellstamp.pipeline.extraction import HDF5CellExtraction as extraction_f  # noqa: N813
        if segmentation_f is None and isinstance(self.config.get(folder.DEFAULT_SEGMENTATION), Mapping):
            from cellstamp.pipeline.segmentation import ThresholdSegmentation as segmentation_f  # noqa: N813
        self.segmentation_f = self._make_step(segmentation_f, folder.SEGMENTATION)
        self.extraction_f = self._make_step(extraction_f, folder.EXTRACTION)
        if config_path is not None:
            # the configuration in the folder is replaced by one that can be used, or not at all
            for step in (self.segmentation_f, self.extraction_f):
                if step is not None:
                    step.check_config()
            folder.keep_config(Path(self.directory), config_path)

    @property
    def _n_workers(self) -> int:
        """Return the `threads` of the extraction step; if not set, the default for this machine."""
        threads = getattr(self.extraction_f, "config", {}).get("threads")
        return threads if isinstance(threads, int) and threads > 0 else default_workers()

    def _make_step(self, step: type[ProcessingStep] | None, name: str) -> Any:
        if step is None:
            return None
        return step(
            folder.section(self.config, step),
            str(Path(self.directory) / name),
            project_location=self.project_location,
            debug=self.debug,
            overwrite=self.overwrite,
            project=self,
            filehandler=self.filehandler,
            from_project=True,
        )

    def segment(self, overwrite: bool | None = None) -> None:  # noqa: FBT001 - scportrait's signature
        """Run the segmentation step on the image; a dict of masks that it returns is loaded (`load_segmentation`).

        Parameters
        ----------
        overwrite
            Whether existing masks are replaced, in this call; None: as the project says.

        Raises
        ------
        ConfigError
            When the project has no segmentation step, or that returns something else than a dict of masks or None.
        InputError
            When there is no image, or it or the masks cannot be used.
        OutputError
            When there are masks already, and they may not be replaced.
        """
        if self.segmentation_f is None:
            raise ConfigError(
                f"Project: there is no segmentation step: {folder.CONFIG} in {self.directory} needs a section "
                f"{folder.DEFAULT_SEGMENTATION!r}, or give segmentation_f, or use load_segmentation"
            )
        may_replace = self._may_replace(overwrite)
        masks = self.segmentation_f(self.input_image, overwrite=may_replace)
        if masks is not None:
            self.load_segmentation(**_returned_masks(masks, self.segmentation_f), overwrite=may_replace)

    def extract(
        self,
        partial: bool = False,  # noqa: FBT001, FBT002 - scportrait's signature
        n_cells: int | None = None,
        seed: int = 42,
        overwrite: bool | None = None,  # noqa: FBT001 - scportrait's signature
        output_folder_name: str | None = None,
    ) -> None:
        """Extract the single-cell images; where they are is ``project.extraction_f.output_path``.

        Parameters
        ----------
        partial
            Whether only some of the cells are extracted, drawn at random.
        n_cells, seed
            How many, and the seed of the draw.
        overwrite
            Whether a result of the same name is replaced, in this call; None: as the project says.
        output_folder_name
            Name of the result's folder instead of ``data``.

        Raises
        ------
        ConfigError
            When the project has no extraction step, or an argument cannot be used.
        InputError
            When image or masks are missing, or do not belong together.
        OutputError
            When the result is there already, and may not be replaced.
        """
        if self.extraction_f is None:
            raise ConfigError(
                f"Project: there is no extraction step: {folder.CONFIG} in {self.directory} needs a section "
                f"{folder.DEFAULT_EXTRACTION!r}, or give config_path and extraction_f"
            )
        self.extraction_f(
            partial=partial,
            n_cells=n_cells,
            seed=seed,
            output_folder_name=output_folder_name,
            overwrite=self._may_replace(overwrite),
        )

    def add_table(self, name: str = "single_cells", overwrite: bool | None = None) -> None:  # noqa: FBT001 - as loaders
        """Put the cells of the latest extraction into the project's store, as a table that annotates their mask.

        The images are left out; ``project.sdata[name].obs`` has each cell's id and centre.

        Parameters
        ----------
        name
            The table's name in the store.
        overwrite
            Whether a table of that name is replaced, in this call; None: as the project says.

        Raises
        ------
        InputError
            When there is no extraction, its mask is not in the store, or the name is taken by something else.
        OutputError
            When there is such a table already, and it may not be replaced.
        """
        from cellstamp.h5sc.reader import read_h5sc

        table = read_h5sc(self._latest(), images=False)
        add_table(self._store, name, table, overwrite=self._may_replace(overwrite))
        self.log(f"table {name!r}: {table.n_obs} cells")

    @property
    def sdata_path(self) -> str:
        """Path of the project's SpatialData store."""
        return self.filehandler.sdata_path

    @property
    def sdata(self) -> SpatialData:
        """The project's store as it is now; pixels are read when they are used."""
        return self.filehandler.get_sdata()

    @property
    def input_image(self) -> DataArray:
        """The image at full resolution (c, y, x), read when it is used."""
        image: DataArray = store.open_image(self._store)
        return image

    @property
    def h5sc(self) -> AnnData:
        """The result of the latest extraction; its images are read when they are used.

        Raises
        ------
        InputError
            When there is none.
        """
        from cellstamp.h5sc.reader import read_h5sc

        return read_h5sc(self._latest())

    def _latest(self) -> Path:
        latest = getattr(self.extraction_f, "output_path", None)
        path = Path(latest) if latest else folder.latest_result(Path(self.directory))
        if path is None:
            raise InputError(f"{self.directory}: there is no extraction yet; call extract() first")
        return path

    def _has_mask(self, labels: str) -> bool:
        return any(store.has_element(self._store, mask) for mask in (labels, other_form(labels)))

    @property
    def nuc_seg_status(self) -> bool:
        """Whether there is a nucleus mask: labels or shapes."""
        return self._has_mask(NUCLEUS)

    @property
    def cyto_seg_status(self) -> bool:
        """Whether there is a cytosol mask: labels or shapes."""
        return self._has_mask(CYTOSOL)

    def get_project_status(self) -> dict[str, bool]:
        """Return what the project has: its image, masks, stored centres (of labels only), and a finished extraction."""
        return {
            "input_image": store.has_element(self._store, IMAGE),
            "nucleus_segmentation": self.nuc_seg_status,
            "cytosol_segmentation": self.cyto_seg_status,
            "nucleus_centers": store.has_element(self._store, centers_of(NUCLEUS)),
            "cytosol_centers": store.has_element(self._store, centers_of(CYTOSOL)),
            "extraction": folder.latest_result(Path(self.directory)) is not None,
        }


def _returned_masks(returned: object, step: object) -> dict[str, Any]:
    """The masks that a segmentation step has returned.

    Raises
    ------
    ConfigError
        If it is not a dict of them: results of a step must not be lost silently.
    """
    begin = f"{type(step).__name__}.process returned"
    if not isinstance(returned, Mapping):
        raise ConfigError(f"{begin} {type(returned).__name__}: {_WANTED}")
    for key in returned:
        if key not in _MASKS:
            near = difflib.get_close_matches(str(key).lower(), _MASKS, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{begin} a dict with the key {key!r}: allowed are 'nucleus' and 'cytosol'{hint}")
    if all(mask is None for mask in returned.values()):
        raise ConfigError(f"{begin} a dict without a mask: {_WANTED}")
    return dict(returned)
