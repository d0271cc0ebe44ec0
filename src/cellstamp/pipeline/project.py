"""Project: a folder with a segmented image and its results."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellstamp.engines.cores import default_workers
from cellstamp.errors import ConfigError, InputError
from cellstamp.h5sc.layout import FEATURES_NAMES
from cellstamp.location import Location, location_of
from cellstamp.pipeline import folder
from cellstamp.pipeline.base import ProcessingStep
from cellstamp.pipeline.loading import PathLike
from cellstamp.pipeline.project_plots import ProjectPictures
from cellstamp.pipeline.project_summary import summarize
from cellstamp.report import ProgressMode, conclude
from cellstamp.similar_names import did_you_mean
from cellstamp.source.load import store
from cellstamp.source.load.staging import recover
from cellstamp.source.load.tables import add_table
from cellstamp.source.names import CYTOSOL, IMAGE, MASK_KINDS, NUCLEUS, centers_of, other_form

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData
    from xarray import DataArray

    from cellstamp.export.job import Format

_WANTED = "return a dict {'nucleus': ..., 'cytosol': ...}, or None if it has written the masks itself"


class FileHandler:
    """Access to the project's store for a step.

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
    """A folder with a segmented image and its single-cell images.

    It has ``config.yml``, ``processing.log``, the SpatialData store ``scportrait.sdata``, and a folder for each step.
    cellstamp and scportrait open each other's projects. ``repr(project)`` shows image, masks, results and next step.

    Parameters
    ----------
    project_location
        The folder. If it does not exist, the project is new and empty, and a line on stdout says so. The folder is
        created when something is written to it: a configuration, an image, or the log.
    config_path
        Path of a YAML file, or a dict, which is copied to the folder. None: ``config.yml`` of the folder, if it has
        one.
    segmentation_f, extraction_f
        Classes of the steps, each with a section of its name in the configuration. None: `ThresholdSegmentation` and
        `HDF5CellExtraction`, if the configuration has their sections. A configuration without sections is for an
        extraction. A project without a configuration has both steps, with default settings and `image_size` "auto".
    overwrite
        Whether loaders and steps may replace existing elements of the same name. Other elements stay, except that
        `load_input_from_sdata` removes masks of the previous image.
    debug
        Whether log lines also go to stdout.

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
        If the configuration cannot be read, has no section for a step, or has it under a misspelt name.
    OutputError
        If the folder does not exist and cannot be created.
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
        is_new = not Path(self.directory).exists()
        folder.check_can_be_made(Path(self.directory))
        recover(self._store)
        self.config = folder.find_config(Path(self.directory), config_path)
        if extraction_f is None and folder.has_section(self.config, folder.DEFAULT_EXTRACTION):
            from cellstamp.pipeline.extraction import HDF5CellExtraction as extraction_f  # noqa: N813
        if segmentation_f is None and folder.names_section(self.config, folder.DEFAULT_SEGMENTATION):
            from cellstamp.pipeline.segmentation import ThresholdSegmentation as segmentation_f  # noqa: N813
        self.segmentation_f = self._make_step(segmentation_f, folder.SEGMENTATION)
        self.extraction_f = self._make_step(extraction_f, folder.EXTRACTION)
        if config_path is not None:
            # the configuration in the folder is replaced by one that can be used, or not at all
            for step in (self.segmentation_f, self.extraction_f):
                if step is not None:
                    step.check_config()
            folder.keep_config(self._make_directory(), config_path)
        if is_new:
            conclude(f"New, empty project in {self.directory}", mode=self._progress)

    def __repr__(self) -> str:
        """Return image, masks, results and the next step, a line each; no pixels are read."""
        return summarize(Path(self.directory), segmentation=self.segmentation_f, extraction=self.extraction_f)

    @property
    def _progress(self) -> ProgressMode:
        """Return False if a step has ``progress: False``, else "auto"."""
        steps = (self.segmentation_f, self.extraction_f)
        return False if any(getattr(step, "config", {}).get("progress") is False for step in steps) else "auto"

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
        """Run the segmentation step on the image. If it returns a dict of masks, `load_segmentation` loads them.

        Parameters
        ----------
        overwrite
            Whether existing masks are replaced in this call; None: the setting of the project.

        Raises
        ------
        ConfigError
            If the project has no segmentation step, or the step returns neither a dict of masks nor None.
        InputError
            If there is no image, or image or masks are invalid.
        OutputError
            If the project has other masks, and they may not be replaced.
        """
        if self.segmentation_f is None:
            raise ConfigError(
                f"Project: there is no segmentation step. Add a section {folder.DEFAULT_SEGMENTATION!r} to "
                f"{folder.CONFIG} in {self.directory}, or load masks with load_segmentation"
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
        """Extract the single-cell images to the file ``project.extraction_f.output_path``.

        Parameters
        ----------
        partial
            Whether to extract only some of the cells, drawn at random.
        n_cells, seed
            Number of cells to draw, and the seed.
        overwrite
            Whether a result of the same name is replaced in this call; None: the setting of the project.
        output_folder_name
            Name of the result's folder instead of ``data``.

        Raises
        ------
        ConfigError
            If the project has no extraction step, or an argument is invalid.
        InputError
            If image or masks are missing, or do not belong together.
        OutputError
            If the result exists with other settings or input, and may not be replaced.
        """
        if self.extraction_f is None:
            raise ConfigError(
                f"Project: there is no extraction step. Add a section {folder.DEFAULT_EXTRACTION!r} to "
                f"{folder.CONFIG} in {self.directory}, or give config_path and extraction_f"
            )
        if self.extraction_f.filehandler is self.filehandler:
            self._check_not_empty()
        self.extraction_f(
            partial=partial,
            n_cells=n_cells,
            seed=seed,
            output_folder_name=output_folder_name,
            overwrite=self._may_replace(overwrite),
        )

    def add_table(
        self,
        name: str = "single_cells",
        overwrite: bool | None = None,  # noqa: FBT001 - as loaders
        *,
        features: bool = False,
        embedding: bool = False,
    ) -> None:
        """Write the cells of the latest extraction to the project's store, as a table that annotates their mask.

        Images are left out. ``project.sdata[name].obs`` has the id and centre of each cell.

        Parameters
        ----------
        name
            Name of the table in the store.
        overwrite
            Whether a table of this name is replaced in this call; None: the setting of the project.
        features
            Whether the table has the features of the cells as ``X``.
        embedding
            Whether the table has the embedding of the cells as ``X``, see `embed`.

        Raises
        ------
        ConfigError
            If both `features` and `embedding` are set.
        InputError
            If there is no extraction, or none with features or an embedding, its mask is not in the store, or another
            element has this name.
        OutputError
            If the table exists, and may not be replaced.
        """
        if features and embedding:
            raise ConfigError("add_table: a table has features or an embedding, not both: add two tables")
        table = self.features if features else self.embedding if embedding else self._table()
        add_table(self._store, name, table, overwrite=self._may_replace(overwrite))
        self.log(f"table {name!r}: {table.n_obs} cells")

    def embed(self, model: Callable[[Any], Any], **options: Any) -> AnnData:
        """Run a network on the single-cell images of the latest extraction, see `cellstamp.embed`.

        Parameters
        ----------
        model
            Network, or function, that turns images, a tensor (n, n_channels, y, x), into a tensor (n, d).
        **options
            Other arguments of `cellstamp.embed`.

        Returns
        -------
        anndata.AnnData
            ``X`` float32 (n_cells, d), in the order of `h5sc`.

        Raises
        ------
        ConfigError
            If an argument is invalid.
        ImportError
            If torch is not installed.
        InputError
            If there is no extraction, or the model fails.
        OutputError
            If another embedding exists, and may not be replaced; or it cannot be written.
        WorkerError
            If the memory is too small for one cell.
        """
        from cellstamp import embed

        return embed(self, model, **{"progress": self._progress, **options})

    def export_cells(self, folder: PathLike, cells: Any = None, format: Format = "png", **options: Any) -> Path:
        """Write single-cell images of the latest extraction as files, see `cellstamp.export_cells`.

        Parameters
        ----------
        folder
            Folder to write. It must be missing, empty, or have an export with the same settings.
        cells
            Cell ids; a CSV file of ids; a boolean for each cell; a boolean column of ``obs``; or a condition on
            features, such as ``"cell__area > 400"``. None: all cells.
        format
            ``"png"``, ``"tiff"``, ``"ome-tiff"``, ``"npy"`` or ``"webdataset"``.
        **options
            Other arguments of `cellstamp.export_cells`.

        Returns
        -------
        pathlib.Path
            The table of the cells.

        Raises
        ------
        ConfigError
            If an argument is invalid, a channel unknown, or matplotlib is missing for `color`.
        InputError
            If there is no extraction, it is damaged, or it lacks one of the cells.
        OutputError
            If the folder has other files, or another export that may not be replaced; or it cannot be written.
        """
        from cellstamp import export_cells

        return export_cells(self, folder, cells, format, **{"progress": self._progress, **options})

    def report(self, path: PathLike | None = None) -> Path:
        """Write an HTML page about the latest extraction, see `cellstamp.write_report`.

        Parameters
        ----------
        path
            Page to write. None: ``report.html`` in the folder of the result.

        Returns
        -------
        pathlib.Path
            The page.

        Raises
        ------
        ConfigError
            If `path` does not end with ``.html``, or matplotlib is not installed.
        InputError
            If there is no extraction, or it is damaged.
        OutputError
            If another file is at the path, or the page cannot be written.
        """
        from cellstamp.pipeline.run_report import write_report

        return write_report(self, path)

    @property
    def sdata_path(self) -> str:
        """Path of the project's SpatialData store."""
        return self.filehandler.sdata_path

    @property
    def sdata(self) -> SpatialData:
        """Current content of the project's store; pixels are read when they are used."""
        return self.filehandler.get_sdata()

    @property
    def input_image(self) -> DataArray:
        """Image at full resolution (c, y, x); pixels are read when they are used."""
        image: DataArray = store.open_image(self._store)
        return image

    @property
    def h5sc(self) -> AnnData:
        """Result of the latest extraction; images are read when they are used.

        Raises
        ------
        InputError
            If there is no extraction.
        """
        from cellstamp.h5sc.reader import read_h5sc

        return read_h5sc(self._latest())

    @property
    def features(self) -> AnnData:
        """Features of the latest extraction (cells x features), in the order of `h5sc` if it has single-cell images.

        Raises
        ------
        InputError
            If there is no extraction, or none with features.
        """
        from cellstamp.h5sc.feature_table import read_features

        if self._output_path is not None:
            return read_features(self._output_path)
        entry = folder.latest_entry(Path(self.directory))
        return read_features(self._latest() if entry is None else folder.location_in(entry))

    @property
    def embedding(self) -> AnnData:
        """Embedding of the latest extraction (cells x values), in the order of `h5sc`; see `embed`.

        Raises
        ------
        InputError
            If there is no extraction, or none with an embedding.
        """
        from cellstamp.h5sc.embedding_table import read_embedding

        return read_embedding(self._latest())

    def _table(self) -> AnnData:
        from cellstamp.h5sc.reader import read_h5sc

        return read_h5sc(self._latest(), images=False)

    def _latest(self) -> Location:
        path = self._output_path
        if path is None or path.name in FEATURES_NAMES:
            path = folder.latest_result(Path(self.directory))
        if path is None:
            self._check_not_empty()
            if folder.measured(Path(self.directory)):
                raise InputError(f"{self.directory}: only features were extracted; extract again without images: False")
            raise InputError(f"{self.directory}: there is no extraction yet; call extract() first")
        return path

    @property
    def _output_path(self) -> Location | None:
        """Path of the result of the latest run of this object."""
        latest = getattr(self.extraction_f, "output_path", None)
        return location_of(latest) if latest else None

    def _has_mask(self, labels: str) -> bool:
        return any(store.has_element(self._store, mask) for mask in (labels, other_form(labels)))

    def _check_not_empty(self) -> None:
        """Refuse to read from a project without a store: its name may have a typing error.

        Raises
        ------
        InputError
            If there is no store.
        """
        if not self._store.exists():
            hint = folder.lying_below(Path(self.directory)) or "check its name, or load an image"
            raise InputError(f"project {self.directory} is new and empty: {hint}")

    @property
    def nuc_seg_status(self) -> bool:
        """Whether there is a nucleus mask, as labels or as shapes."""
        return self._has_mask(NUCLEUS)

    @property
    def cyto_seg_status(self) -> bool:
        """Whether there is a cytosol mask, as labels or as shapes."""
        return self._has_mask(CYTOSOL)

    def get_project_status(self) -> dict[str, bool]:
        """Return what the project has: its image, masks, stored centres (of labels only), and a finished extraction."""
        return {
            "input_image": store.has_element(self._store, IMAGE),
            "nucleus_segmentation": self.nuc_seg_status,
            "cytosol_segmentation": self.cyto_seg_status,
            "nucleus_centers": store.has_element(self._store, centers_of(NUCLEUS)),
            "cytosol_centers": store.has_element(self._store, centers_of(CYTOSOL)),
            "extraction": bool(folder.results(Path(self.directory))),
        }


def _returned_masks(returned: object, step: object) -> dict[str, Any]:
    """Return the masks that a segmentation step returned.

    Raises
    ------
    ConfigError
        If they are not a dict of masks: results of a step must not be lost silently.
    """
    begin = f"{type(step).__name__}.process returned"
    if not isinstance(returned, Mapping):
        raise ConfigError(f"{begin} {type(returned).__name__}: {_WANTED}")
    for key in returned:
        if key not in MASK_KINDS:
            hint = did_you_mean(key, MASK_KINDS)
            raise ConfigError(f"{begin} a dict with the key {key!r}: allowed are 'nucleus' and 'cytosol'{hint}")
    if all(mask is None for mask in returned.values()):
        raise ConfigError(f"{begin} a dict without a mask: {_WANTED}")
    return dict(returned)
