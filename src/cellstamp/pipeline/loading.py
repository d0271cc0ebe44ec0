"""How an image and its masks come into a project: one loader for each kind of input."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellstamp.pipeline import folder
from cellstamp.pipeline.base import Logable
from cellstamp.pipeline.workers import BlockRunner
from cellstamp.source.load import from_spatialdata as adopt
from cellstamp.source.load import inputs, spool, store
from cellstamp.source.load.plane_choice import mask_choice, plane_choice
from cellstamp.source.load.polygons import polygon_options
from cellstamp.source.load.tiff import TiffChoice
from cellstamp.source.names import CYTOSOL, IMAGE, NUCLEUS

if TYPE_CHECKING:
    from cellstamp.source.values import Centers

PathLike = str | os.PathLike[str]


class ProjectInput(Logable):
    """The part of a project that loads its input into the store.

    Parameters
    ----------
    directory
        Folder of the project.
    overwrite
        Whether loaders may replace existing elements of the same name.
    debug
        Whether log messages are also written to the standard output.
    """

    def __init__(self, directory: PathLike, *, overwrite: bool, debug: bool) -> None:
        super().__init__(directory, debug)
        self.overwrite = overwrite
        self._store = Path(self.directory) / folder.STORE

    @property
    def _n_workers(self) -> int:
        """Processes that may work on the centres of a large mask."""
        return 1

    def _may_replace(self, overwrite: bool | None) -> bool:  # noqa: FBT001 - hands on what the caller was given
        return self.overwrite if overwrite is None else overwrite

    def load_input_from_array(
        self,
        array: Any,
        channel_names: Sequence[str | int] | None = None,
        overwrite: bool | None = None,  # noqa: FBT001 - scportrait's signature
        remap: Sequence[int] | None = None,
        *,
        axes: str | None = None,
        z: Any = None,
        t: int | None = None,
    ) -> None:
        """Load the image from an array.

        Parameters
        ----------
        array
            (c, y, x), or (y, x) for one channel; numpy, or anything that can be sliced like it. The dtype is kept.
            An xarray may have its dimensions in any order.
        channel_names
            One for each channel. When not given: those of an xarray, else ``channel_0``, ``channel_1``, ...
        overwrite
            Whether an existing image is replaced; None: as the project says. Masks stay.
        remap
            New order of the channels and their names: ``[1, 0, 2]`` exchanges the first two.
        axes
            A letter for each axis, out of t, c, z, y and x, where they are others: ``"zcyx"``.
        z
            Planes of an array with an axis z: an index; a list of them, each of which becomes a channel
            (``channel_0_z3``); or "max", the maximum projection.
        t
            Index of the time point, of an array with an axis t.

        Raises
        ------
        InputError
            When image, names or order cannot be used.
        OutputError
            When there is an image, and it may not be replaced.
        """
        inputs.from_array(
            self._store,
            array,
            channel_names=channel_names,
            overwrite=self._may_replace(overwrite),
            remap=remap,
            axes=axes,
            planes=plane_choice(z, t),
        )
        self._log_image("an array")

    def load_input_from_dask(
        self,
        dask_array: Any,
        channel_names: Sequence[str | int] | None = None,
        overwrite: bool | None = None,  # noqa: FBT001 - scportrait's signature
        *,
        axes: str | None = None,
        z: Any = None,
        t: int | None = None,
    ) -> None:
        """Load the image from a dask array (c, y, x), a few blocks at a time; else as `load_input_from_array`."""
        inputs.from_array(
            self._store,
            dask_array,
            channel_names=channel_names,
            overwrite=self._may_replace(overwrite),
            axes=axes,
            planes=plane_choice(z, t),
        )
        self._log_image("a dask array")

    def load_input_from_tif_files(
        self,
        file_paths: Sequence[PathLike],
        channel_names: Sequence[str | int] | None = None,
        crop: Sequence[Any] | None = None,
        overwrite: bool | None = None,  # noqa: FBT001 - scportrait's signature
        remap: Sequence[int] | None = None,
        cache: PathLike | None = None,
        *,
        series: int | None = None,
        z: Any = None,
        t: int | None = None,
    ) -> None:
        """Load the image from TIFF files, a block at a time, at full resolution and in its dtype.

        PNG, BMP, JPEG and ``.npy`` files load too; the content decides which, not the extension.

        Parameters
        ----------
        file_paths
            A file for each channel, or files of several channels each, in the order of the channels. Pages of one shape
            and dtype are channels. Colour images have the channels red, green, blue and, if they have it, alpha. Of an
            OME-TIFF image of several files, each file gives the planes that are in it.
        channel_names, overwrite, remap
            As in `load_input_from_array`. Names that are not given come from the file (OME-XML, ImageJ's labels,
            Micro-Manager, QPTIFF, LSM), where it has them.
        crop
            The part to load: ``[(y_start, y_stop), (x_start, x_stop)]`` in pixels, pairs or slices.
        cache
            Accepted for scportrait's sake; there are no temporary files.
        series
            Index of the image to load, of files with several images that are not channels of one.
        z, t
            Planes of a stack, as in `load_input_from_array`. Pages whose meaning a file doesn't say are z, or t, when
            it is given.

        Raises
        ------
        InputError
            When a file cannot be read, or lacks planes; when it holds several images, or an axis z or t, and no choice
            is made; when files differ in size or dtype; when names, crop or order cannot be used.
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
            choice=TiffChoice(series, plane_choice(z, t)),
        )
        self._log_image(", ".join(os.fspath(path) for path in file_paths))

    def load_input_from_omezarr(
        self,
        ome_zarr_path: PathLike,
        overwrite: bool | None = None,  # noqa: FBT001 - scportrait's signature
        channel_names: Sequence[str | int] | None = None,
        remap: Sequence[int] | None = None,
        *,
        z: Any = None,
        t: int | None = None,
    ) -> None:
        """Load the image from OME-Zarr (0.1 to 0.5), its full-resolution level, a block at a time.

        Parameters
        ----------
        ome_zarr_path
            The folder, URL or zip file of an image, or of a group that holds one: the root of what bioformats2raw
            writes, a plate, a well. The axes may be in any order.
        overwrite, remap
            As in `load_input_from_array`.
        channel_names
            When not given, the names in the OME-Zarr metadata, if it has any.
        z, t
            Planes of a stack, as in `load_input_from_array`.

        Raises
        ------
        InputError
            When there is no such image, it has an axis z or t and no choice is made, or names or order cannot be used.
            When there are several images, the message lists their paths and sizes.
        OutputError
            When there is an image, and it may not be replaced.
        """
        inputs.from_omezarr(
            self._store,
            ome_zarr_path,
            overwrite=self._may_replace(overwrite),
            channel_names=channel_names,
            remap=remap,
            planes=plane_choice(z, t),
        )
        self._log_image(os.fspath(ome_zarr_path))

    def load_input_from_sdata(
        self,
        sdata_path: Any,
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
            Folder of the store, or a SpatialData object that was read from one; its image and masks must be unchanged.
        input_image_name, nucleus_segmentation_name, cytosol_segmentation_name
            Names of the image and of the masks in it; no mask, one or both. A mask is labels or shapes.
        cell_id_identifier
            Column with the cell ids in the tables that annotate a mask; None: the one each table names.
        overwrite
            Whether an existing image and masks are replaced; None: as the project says.
        keep_all
            Whether all other elements of the store come along, under their own names. Tables that annotate a mask then
            annotate it under its new name. What bears a name that projects use (``input_image``, ``seg_all_nucleus``,
            ``seg_all_cytosol`` and their centres) stays behind, unless it was chosen.
        remove_duplicates
            With `keep_all`: whether the chosen elements are in the project once, under their new names, or a second
            time under their own.

        Raises
        ------
        InputError
            When an element is missing, image and masks differ in size, or each mask has cells that the other one lacks.
        OutputError
            When there is an image or a mask, and it may not be replaced.

        Warns
        -----
        UserWarning
            When one mask has cells that the other one lacks, or a mask has none at all.
        """
        names = {IMAGE: input_image_name, NUCLEUS: nucleus_segmentation_name, CYTOSOL: cytosol_segmentation_name}
        taken = [name for name in names.values() if name is not None]
        origin = spool.store_on_disk(sdata_path, taken)
        chosen = adopt.Chosen(
            origin,
            dict(adopt.element_of(origin, element, name) for element, name in names.items() if name is not None),
            others=keep_all,
            originals=not remove_duplicates,
            cell_id_column=cell_id_identifier,
        )
        centers = adopt.load_sdata(
            self._store,
            chosen,
            overwrite=self._may_replace(overwrite),
            run=BlockRunner(self._n_workers),
            log=self.log,
        )
        self._log_image(str(chosen.store))
        self._log_cells(centers)

    def load_segmentation(
        self,
        nucleus: Any = None,
        cytosol: Any = None,
        overwrite: bool | None = None,  # noqa: FBT001 - like the loaders of the image
        *,
        series: int | None = None,
        z: int | None = None,
        t: int | None = None,
        pixel_size: float | None = None,
        transform: Any = None,
        ids: str | None = None,
    ) -> None:
        """Load masks of the project's image: labels, or polygons.

        The centres of the cells of labels are computed and stored. Polygons become shapes of the store, with the
        coordinates and ids that they have. A mask is either; loading one replaces the other, with `overwrite`. Polygons
        that the project already has are left untouched.

        Parameters
        ----------
        nucleus, cytosol
            One or both. Labels: an array (y, x) of whole numbers, or the path of a file with one: TIFF, PNG, BMP, GIF,
            ``.npy``, ``.npz`` or Cellpose's ``_seg.npy``, or of OME-Zarr labels. 0 is background, a cell has the same
            id in both. Floats become uint32. Axes of length 1 are dropped. Polygons: a GeoDataFrame, or the path of a
            file: GeoJSON (QuPath, Baysor, Proseg; also compressed with gzip), JSON with contours (CellViT, HoVer-Net),
            GeoParquet, or Xenium's ``cell_boundaries.parquet``. The content of a file decides how it is read, not its
            extension. Pixel i of the image covers [i, i + 1) of the polygons' coordinates.
        overwrite
            Whether existing masks are replaced; None: as the project says.
        series
            Index of the image to load, of TIFF files with several images.
        z, t
            Indices of the plane, of masks (z, y, x), (t, y, x) or (t, z, y, x).
        pixel_size
            Size of a pixel of the image in the unit of the polygons: 0.2125 for polygons in micrometres on a Xenium
            image. None: polygons are in pixels, or where their element of a SpatialData object is.
        transform
            Instead of `pixel_size`: affine matrix (2, 3) or (3, 3) from (x, y) of the polygons to pixels.
        ids
            Column or property of the polygons with the ids of the cells: integers or texts, each once. None: the index
            of a GeoDataFrame; of files, ``cell_id``, ``cell``, ``EntityID`` or ``id``, if every cell has one.

        Raises
        ------
        InputError
            When there is no image; when a file can't be read as a mask; when labels are not 2-D, not of whole numbers,
            negative, or of another size than the image; when polygons have no cell on the image, or an id is missing
            or repeated; or when each mask has cells that the other one, or the one already loaded, lacks.
        OutputError
            When there is such a mask, and it may not be replaced.

        Warns
        -----
        UserWarning
            When one mask has cells that the other one lacks, or a mask has none at all; when labels are floats; when
            one id seems to stand for many cells; or when features are left out: those without an area, and objects that
            are not cells.
        """
        masks = {kind: mask for kind, mask in (("nucleus", nucleus), ("cytosol", cytosol)) if mask is not None}
        centers = inputs.load_segmentation(
            self._store,
            masks,
            overwrite=self._may_replace(overwrite),
            run=BlockRunner(self._n_workers),
            choice=TiffChoice(series, mask_choice(z, t)),
            polygons=polygon_options(pixel_size, transform, ids),
            log=self.log,
        )
        self._log_cells(centers)

    def _log_image(self, origin: str) -> None:
        image, names = store.open_group(self._store / IMAGE, ("c", "y", "x"))
        self.log(
            f"Input image loaded from {origin}: {image.shape} (c, y, x) {image.dtype}, channels {', '.join(names)}"
        )

    def _log_cells(self, centers: Mapping[str, Centers]) -> None:
        self.log([f"Mask {Path(element).name} loaded: {len(cells)} cells" for element, cells in centers.items()])
