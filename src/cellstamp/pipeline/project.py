"""The class a user meets first: a folder with a segmented image, and what is made from it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellstamp.errors import ConfigError, InputError
from cellstamp.pipeline import folder
from cellstamp.pipeline.base import Logable, ProcessingStep
from cellstamp.source import adopt, inputs, store
from cellstamp.source.names import CYTOSOL, IMAGE, NUCLEUS, centers_of

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData
    from xarray import DataArray

PathLike = str | os.PathLike[str]


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
        """Open the store as it is now."""
        return store.open_sdata(self.sdata_path)


class Project(Logable):
    """A project folder: ``config.yml``, ``processing.log``, the store ``scportrait.sdata``, and a folder for each step.

    Names and layout are scportrait's: a folder made by one opens in the other.

    Parameters
    ----------
    project_location
        The folder, made when there is none.
    config_path
        Path of a YAML file, or a dict: copied into the folder. None: the folder's own ``config.yml``, if it has one.
    segmentation_f, extraction_f
        Classes of the steps, each with a section of its name in the configuration. Without `extraction_f` it is
        `HDF5CellExtraction`, when the configuration has a section for that (or no sections at all).
    overwrite
        Whether loaders and steps may replace what is there under the same name. Nothing else is ever removed.
    debug
        Whether what is logged is also written to the standard output.

    Attributes
    ----------
    sdata_path : str
        Path of the store.
    config : dict
        The configuration, as read.
    segmentation_f, extraction_f : ProcessingStep or None
        The steps.

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
        super().__init__(project_location, debug)
        self.project_location = self.directory
        self.overwrite = overwrite
        self._store = Path(self.directory) / folder.STORE
        self.filehandler = FileHandler(self._store)
        self._make_directory()
        store.recover(self._store)
        self.config = folder.take_config(Path(self.directory), config_path)
        if extraction_f is None and folder.has_section(self.config, folder.DEFAULT_EXTRACTION):
            from cellstamp.pipeline.extraction import HDF5CellExtraction as extraction_f  # noqa: N813
        self.segmentation_f = self._make_step(segmentation_f, folder.SEGMENTATION)
        self.extraction_f = self._make_step(extraction_f, folder.EXTRACTION)

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

    def _may_replace(self, overwrite: bool | None) -> bool:  # noqa: FBT001 - hands on what the caller was given
        return self.overwrite if overwrite is None else overwrite

    def load_input_from_array(
        self,
        array: Any,
        channel_names: Sequence[str | int] | None = None,
        overwrite: bool | None = None,  # noqa: FBT001 - scportrait's signature
        remap: Sequence[int] | None = None,
    ) -> None:
        """Load the image from an array.

        Parameters
        ----------
        array
            (c, y, x), or (y, x) for one channel; numpy, or anything that can be sliced like it. The dtype is kept.
        channel_names
            One for each channel; ``channel_0``, ``channel_1``, ... when not given.
        overwrite
            Whether an image that is there is replaced; None: as the project says. Masks stay.
        remap
            New order of the channels and their names: ``[1, 0, 2]`` exchanges the first two.

        Raises
        ------
        InputError
            When image, names or order cannot be used.
        OutputError
            When there is an image, and it may not be replaced.
        """
        inputs.from_array(
            self._store, array, channel_names=channel_names, overwrite=self._may_replace(overwrite), remap=remap
        )
        self._log_image("an array")

    def load_input_from_dask(
        self,
        dask_array: Any,
        channel_names: Sequence[str | int] | None = None,
        overwrite: bool | None = None,  # noqa: FBT001 - scportrait's signature
    ) -> None:
        """Load the image from a dask array (c, y, x), a few blocks at a time; else as `load_input_from_array`."""
        inputs.from_array(self._store, dask_array, channel_names=channel_names, overwrite=self._may_replace(overwrite))
        self._log_image("a dask array")

    def load_input_from_tif_files(
        self,
        file_paths: Sequence[PathLike],
        channel_names: Sequence[str | int] | None = None,
        crop: Sequence[Any] | None = None,
        overwrite: bool | None = None,  # noqa: FBT001 - scportrait's signature
        remap: Sequence[int] | None = None,
        cache: PathLike | None = None,
    ) -> None:
        """Load the image from TIFF files, a block at a time: the whole of it, in its dtype.

        Parameters
        ----------
        file_paths
            A file for each channel, or files of several channels each, in the order of the channels.
        channel_names, overwrite, remap
            As in `load_input_from_array`.
        crop
            The part to load: ``[(y_start, y_stop), (x_start, x_stop)]`` in pixels, pairs or slices.
        cache
            Accepted for scportrait's sake; there are no temporary files.

        Raises
        ------
        InputError
            When a file cannot be read, files differ in size or dtype, or names, crop or order cannot be used.
        OutputError
            When there is an image, and it may not be replaced.
        """
        inputs.from_tiffs(
            self._store,
            file_paths,
            channel_names=channel_names,
            crop=crop,
            overwrite=self._may_replace(overwrite),
            remap=remap,
        )
        self._log_image(", ".join(map(os.fspath, file_paths)))

    def load_input_from_omezarr(
        self,
        ome_zarr_path: PathLike,
        overwrite: bool | None = None,  # noqa: FBT001 - scportrait's signature
        channel_names: Sequence[str | int] | None = None,
        remap: Sequence[int] | None = None,
    ) -> None:
        """Load the image from the folder of an OME-Zarr image, its full-resolution level, a block at a time.

        Parameters
        ----------
        ome_zarr_path
            The folder. Axes other than c, y and x must be one pixel long.
        overwrite, remap
            As in `load_input_from_array`.
        channel_names
            When not given, the names in the OME-Zarr metadata, if it has any.

        Raises
        ------
        InputError
            When there is no such image, or names or order cannot be used.
        OutputError
            When there is an image, and it may not be replaced.
        """
        inputs.from_omezarr(
            self._store,
            ome_zarr_path,
            overwrite=self._may_replace(overwrite),
            channel_names=channel_names,
            remap=remap,
        )
        self._log_image(os.fspath(ome_zarr_path))

    def load_input_from_sdata(
        self,
        sdata_path: PathLike,
        input_image_name: str,
        nucleus_segmentation_name: str | None = None,
        cytosol_segmentation_name: str | None = None,
        cell_id_identifier: str | None = None,
        overwrite: bool | None = None,  # noqa: FBT001 - scportrait's signature
        keep_all: bool = True,  # noqa: FBT001, FBT002 - scportrait's signature
        remove_duplicates: bool = True,  # noqa: FBT001, FBT002 - scportrait's signature
    ) -> None:
        """Load image and masks from a SpatialData store, and compute and store the centres of the cells of each mask.

        An element of the project's zarr format, with axes c, y, x and blocks of a sensible size, is copied as a folder
        of files, without decoding a pixel; any other is read and written a block at a time. An image without smaller
        copies is given them. Masks that were in the project before leave it: image and masks are one set.

        Parameters
        ----------
        sdata_path
            Folder of the store.
        input_image_name, nucleus_segmentation_name, cytosol_segmentation_name
            Names of the image and of the masks in it; no mask, one or both.
        cell_id_identifier
            Column with the cell ids in the tables that annotate a mask; None: the one each table names.
        overwrite
            Whether an image and masks that are there are replaced; None: as the project says.
        keep_all
            Whether all other elements of the store come along, under their own names. Tables that annotate a mask then
            annotate it under its new name. What bears a name that projects use (``input_image``, ``seg_all_nucleus``,
            ``seg_all_cytosol`` and their centres) stays behind, unless it was chosen.
        remove_duplicates
            With `keep_all`: whether the chosen elements are in the project once, under their new names, or a second time
            under their own.

        Raises
        ------
        InputError
            When an element is missing, image and masks differ in size, or each mask has cells that the other one lacks.
        OutputError
            When there is an image or a mask, and it may not be replaced.

        Warns
        -----
        UserWarning
            When one mask has cells that the other one lacks.
        """
        names = {IMAGE: input_image_name, NUCLEUS: nucleus_segmentation_name, CYTOSOL: cytosol_segmentation_name}
        chosen = adopt.Chosen(
            Path(sdata_path),
            {element: f"{element.split('/')[0]}/{name}" for element, name in names.items() if name is not None},
            others=keep_all,
            originals=not remove_duplicates,
            cell_id_column=cell_id_identifier,
        )
        centers = adopt.load_sdata(self._store, chosen, overwrite=self._may_replace(overwrite))
        self._log_image(os.fspath(sdata_path))
        self._log_cells(centers)

    def load_segmentation(
        self,
        nucleus: Any = None,
        cytosol: Any = None,
        overwrite: bool | None = None,  # noqa: FBT001 - like the loaders of the image
    ) -> None:
        """Load masks of the project's image, and compute and store the centres of their cells.

        Parameters
        ----------
        nucleus, cytosol
            One or both: an array (y, x) of integers, or the path of a TIFF file with one. 0 is background, a cell has
            the same id in both.
        overwrite
            Whether masks that are there are replaced; None: as the project says.

        Raises
        ------
        InputError
            When there is no image, or a mask is not 2-D, not of integers, negative, or of another size than the image;
            or when each mask has cells that the other one, or the one already loaded, lacks.
        OutputError
            When there is such a mask, and it may not be replaced.

        Warns
        -----
        UserWarning
            When one mask has cells that the other one lacks.
        """
        masks = {kind: mask for kind, mask in (("nucleus", nucleus), ("cytosol", cytosol)) if mask is not None}
        self._log_cells(inputs.load_segmentation(self._store, masks, overwrite=self._may_replace(overwrite)))

    def segment(self) -> None:
        """Run the segmentation step on the image; a dict of masks that it returns is loaded (`load_segmentation`).

        Raises
        ------
        ConfigError
            When the project has no segmentation step.
        """
        if self.segmentation_f is None:
            raise ConfigError("Project: there is no segmentation step: give segmentation_f, or use load_segmentation")
        masks = self.segmentation_f(self.input_image, overwrite=self.overwrite)
        if isinstance(masks, Mapping):
            self.load_segmentation(**masks)

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

        latest = getattr(self.extraction_f, "output_path", None)
        path = Path(latest) if latest else folder.latest_result(Path(self.directory))
        if path is None:
            raise InputError(f"{self.directory}: there is no extraction yet; call extract() first")
        return read_h5sc(path)

    @property
    def nuc_seg_status(self) -> bool:
        """Whether there is a nucleus mask."""
        return store.has_element(self._store, NUCLEUS)

    @property
    def cyto_seg_status(self) -> bool:
        """Whether there is a cytosol mask."""
        return store.has_element(self._store, CYTOSOL)

    def get_project_status(self) -> dict[str, bool]:
        """Return what the project has: its image, masks, centres, and a finished extraction."""
        return {
            "input_image": store.has_element(self._store, IMAGE),
            "nucleus_segmentation": self.nuc_seg_status,
            "cytosol_segmentation": self.cyto_seg_status,
            "nucleus_centers": store.has_element(self._store, centers_of(NUCLEUS)),
            "cytosol_centers": store.has_element(self._store, centers_of(CYTOSOL)),
            "extraction": folder.latest_result(Path(self.directory)) is not None,
        }

    def _log_image(self, origin: str) -> None:
        image, names = store.open_group(self._store / IMAGE, ("c", "y", "x"))
        self.log(
            f"Input image loaded from {origin}: {image.shape} (c, y, x) {image.dtype}, channels {', '.join(names)}"
        )

    def _log_cells(self, centers: Mapping[str, Sequence[Any]]) -> None:
        self.log([f"Mask {Path(element).name} loaded: {len(cells)} cells" for element, cells in centers.items()])
