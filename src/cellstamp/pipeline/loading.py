"""Load an image and its masks into a project: one method for each kind of input."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellstamp.errors import InputError
from cellstamp.lengths import size_in_words
from cellstamp.pipeline import folder
from cellstamp.pipeline.base import Logable
from cellstamp.pipeline.workers import BlockRunner
from cellstamp.source.load import from_spatialdata, inputs, spatialdata_in_memory
from cellstamp.source.load.array_axes import assumed_axes
from cellstamp.source.load.ome_groups import open_group
from cellstamp.source.load.plane_choice import PlaneChoice, mask_choice, plane_choice
from cellstamp.source.load.polygons import polygon_options
from cellstamp.source.load.store import image_pixel_size, stored_mask
from cellstamp.source.load.tiff import TiffChoice
from cellstamp.source.names import CYTOSOL, IMAGE, NUCLEUS
from cellstamp.source.ome import AXES

if TYPE_CHECKING:
    from cellstamp.source.values import Centers

PathLike = str | os.PathLike[str]


class ProjectInput(Logable):
    """Methods of a project that load its input into the store.

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
        """Return how many processes may compute the centres of a large mask."""
        return 1

    def _may_replace(self, overwrite: bool | None) -> bool:  # noqa: FBT001 - passes an argument of the caller
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

        An image that the project already has, with the same content, is kept.

        Parameters
        ----------
        array
            (c, y, x), or (y, x) for one channel; a NumPy, zarr, dask or xarray array. The dtype is kept. The named
            dimensions of an xarray or zarr array may be in any order.

            An array of three axes without names is (y, x, c) if c is at most 16 and both sides have at least 64
            pixels; the log says so. Otherwise it is (c, y, x), and c larger than a side is an error.
        channel_names
            A name for each channel. None: the names in an xarray, else ``channel_0``, ``channel_1``, ...
        overwrite
            Whether an existing image is replaced; None: the setting of the project. Masks stay.
        remap
            New order of the channels and their names: ``[1, 0, 2]`` exchanges the first two.
        axes
            A letter for each axis, like ``"zcyx"``: t, c, z, y or x. Overrides everything the array says or suggests.
        z
            Plane of an array with an axis z: an index from 0; a list of indices, each plane of which becomes a channel
            (``channel_0_z3``); or "max", the maximum projection. Required if z is longer than one plane.
        t
            Index of the time point, of an array with an axis t. Required if t is longer than one time point.

        Raises
        ------
        InputError
            If image, names or order are invalid; if the array has an axis z or t and you don't choose; if the order of
            three axes is unclear.
        OutputError
            If the project has an image with other content, and it may not be replaced.
        """
        self._load_array(
            array,
            "an array",
            channel_names=channel_names,
            overwrite=self._may_replace(overwrite),
            remap=remap,
            axes=axes,
            planes=plane_choice(z, t),
        )

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
        """Load the image from a dask array, a few blocks at a time; otherwise like `load_input_from_array`."""
        self._load_array(
            dask_array,
            "a dask array",
            channel_names=channel_names,
            overwrite=self._may_replace(overwrite),
            axes=axes,
            planes=plane_choice(z, t),
        )

    def _load_array(self, array: Any, origin: str, *, axes: str | None, planes: PlaneChoice, **options: Any) -> None:
        known = axes or (None if planes.given else assumed_axes(array))
        is_new = inputs.from_array(self._store, array, axes=known, planes=planes, **options)
        note = "" if known == axes else " (axes assumed to be y, x, c; if they are c, y, x, give axes='cyx')"
        self._log_image(f"{origin}{note}", is_new=is_new)

    def load_input_from_tif_files(
        self,
        file_paths: PathLike | Sequence[PathLike],
        channel_names: Sequence[str | int] | None = None,
        crop: Sequence[Any] | None = None,
        overwrite: bool | None = None,  # noqa: FBT001 - scportrait's signature
        remap: Sequence[int] | None = None,
        cache: PathLike | None = None,
        *,
        series: int | None = None,
        axes: str | None = None,
        z: Any = None,
        t: int | None = None,
    ) -> None:
        """Load the image from TIFF files, block by block, at full resolution and in its dtype.

        PNG, BMP, JPEG and ``.npy`` files load too; the content decides, not the extension. An image that the project
        already has, with the same content, is kept.

        Parameters
        ----------
        file_paths
            One path or a list, in the order of the channels; a file may hold several channels. Colour images have the
            channels red, green, blue and sometimes alpha.

            Pages of one shape and dtype are channels, unless the file says that they are z or t, or you give `z` or
            `t`. Smaller copies of an image (pyramid levels), thumbnails and label images are left out. If an OME-TIFF
            image is in several files, give all of them. The size of pixels in the metadata (OME-XML, ImageJ) is kept.
        channel_names, overwrite, remap
            See `load_input_from_array`. By default, names come from the file (OME-XML, ImageJ labels, Micro-Manager,
            QPTIFF, LSM), if it has them.
        crop
            Part to load: ``[(y_start, y_stop), (x_start, x_stop)]`` in pixels, as pairs or slices.
        cache
            Ignored; scportrait has this argument.
        series
            Index of the image to load, from 0, if a file has several images that are not channels of one image.
        axes
            A letter for each axis of each file's image, like ``"yxc"``: t, c, z, y or x. Axes of length 1 may be left
            out. None: the axes that the file names. If it names none, three axes follow the rule of
            `load_input_from_array`, with a warning.
        z, t
            Planes of a stack; see `load_input_from_array`. Indices count from 0 within a file, or over all files of an
            OME-TIFF image whose planes are in several files.

        Raises
        ------
        InputError
            If a file can't be read or lacks planes; if it has several images or an axis z or t, and you don't choose;
            if files differ in size or dtype; if names, crop, order or axes are invalid; if the order of three axes is
            unclear.
        OutputError
            If the project has an image with other content, and it may not be replaced.

        Warns
        -----
        UserWarning
            If the axes of a file are assumed to be (y, x, c).
        """
        is_new = inputs.from_tiffs(
            self._store,
            file_paths,
            channel_names=channel_names,
            crop=crop,
            overwrite=self._may_replace(overwrite),
            remap=remap,
            choice=TiffChoice(series, plane_choice(z, t), axes, from_shape=True),
        )
        self._log_image(", ".join(inputs.listed_paths(file_paths)), is_new=is_new)

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
        """Load the image from OME-Zarr (0.1 to 0.5), block by block. Only the full-resolution level is loaded.

        The size of its pixels is kept if its axes have a unit of length.

        An image that the project already has, with the same content, is kept.

        Parameters
        ----------
        ome_zarr_path
            Folder, URL or zip file of an image, or of a group with one image: the root of bioformats2raw's output, a
            plate, a well. The axes may be in any order.
        overwrite, remap
            See `load_input_from_array`.
        channel_names
            By default, the names in the OME-Zarr metadata, if it has any.
        z, t
            Planes of a stack; see `load_input_from_array`.

        Raises
        ------
        InputError
            If there is no image, it has an axis z or t and you don't choose, or names or order are invalid. If there
            are several images, the message lists their paths and sizes.
        OutputError
            If the project has an image with other content, and it may not be replaced.
        """
        is_new = inputs.from_omezarr(
            self._store,
            ome_zarr_path,
            overwrite=self._may_replace(overwrite),
            channel_names=channel_names,
            remap=remap,
            planes=plane_choice(z, t),
        )
        self._log_image(os.fspath(ome_zarr_path), is_new=is_new)

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
        """Load image and masks from a SpatialData store, and compute and store the centres of each mask's cells.

        An element with the project's zarr format, suitable axes and suitable chunks is copied as files, without
        decoding pixels. Any other is read and written block by block, at full resolution. An image without smaller
        copies gets them. Image and masks are one set: previous masks leave the project. If the project already has
        everything with the same content, it is kept.

        Parameters
        ----------
        sdata_path
            Folder of the store, or a SpatialData object read from it, with unchanged image and masks.
        input_image_name, nucleus_segmentation_name, cytosol_segmentation_name
            Names of the image and of the masks in the store; no mask, one or both. A mask is labels or shapes.
        cell_id_identifier
            Column with the cell ids in tables that annotate a mask; None: the column each table names.
        overwrite
            Whether an existing image and masks are replaced; None: the setting of the project.
        keep_all
            Whether to copy all other elements too, under their own names. Tables that annotate a mask then annotate it
            under its new name. Elements with a name that projects use (``input_image``, ``seg_all_nucleus``,
            ``seg_all_cytosol`` and their centres) are left out, unless you choose them.
        remove_duplicates
            With `keep_all`: whether image and masks are stored once, under their new names. False: also under their
            own names.

        Raises
        ------
        InputError
            If an element is missing, image and masks differ in size, or each mask has cells that the other one lacks.
        OutputError
            If the project has an image or a mask with other content, and it may not be replaced.

        Warns
        -----
        UserWarning
            As `load_segmentation`, but not for floats.
        """
        names = {IMAGE: input_image_name, NUCLEUS: nucleus_segmentation_name, CYTOSOL: cytosol_segmentation_name}
        taken = [name for name in names.values() if name is not None]
        origin = spatialdata_in_memory.store_on_disk(sdata_path, taken)
        chosen = from_spatialdata.Chosen(
            origin,
            dict(
                from_spatialdata.element_of(origin, element, name)
                for element, name in names.items()
                if name is not None
            ),
            others=keep_all,
            originals=not remove_duplicates,
            cell_id_column=cell_id_identifier,
        )
        centers = from_spatialdata.load_sdata(
            self._store,
            chosen,
            overwrite=self._may_replace(overwrite),
            run=BlockRunner(self._n_workers),
            log=self.log,
        )
        self._log_image(str(chosen.store), is_new=centers is not None)
        self._log_masks([element for element in chosen.elements if element != IMAGE], centers or {})

    def load_segmentation(
        self,
        nucleus: Any = None,
        cytosol: Any = None,
        overwrite: bool | None = None,  # noqa: FBT001 - like the loaders of the image
        *,
        cells: Any = None,
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

        A mask that the project already has, with the same content, is kept with its centres.

        Parameters
        ----------
        nucleus, cytosol
            One mask or both. Labels: an integer array (y, x), OME-Zarr labels, or a file: TIFF, PNG, BMP, GIF,
            ``.npy``, ``.npz`` or Cellpose's ``_seg.npy``. 0 is background; a cell has the same id in both masks. Floats
            become uint32. Axes of length 1 are dropped. Polygons: a GeoDataFrame, or a file: GeoJSON (QuPath, Baysor,
            Proseg; also compressed with gzip), JSON with contours (CellViT, HoVer-Net), GeoParquet, or Xenium's
            ``cell_boundaries.parquet``. The content of a file decides, not the extension. Pixel i of the image covers
            [i, i + 1) of the polygons' coordinates.
        overwrite
            Whether existing masks are replaced; None: the setting of the project.
        cells
            Same as `cytosol`; give one of them.
        series
            Index of the image to load, from 0, for TIFF files with several images.
        z, t
            Index of the plane and of the time point, from 0, for masks (z, y, x), (t, y, x) or (t, z, y, x). Required
            for axes longer than one.
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
            If there is no image; if a file can't be read as a mask; if labels are not 2-D, not integer, negative, or
            not of the image's size; if polygons have no cell on the image, or an id is missing or repeated; if each
            mask has cells that the other one, or the one already loaded, lacks; if `cytosol` and `cells` are both
            given.
        OutputError
            If the project has a mask with other content, and it may not be replaced.

        Warns
        -----
        UserWarning
            If one mask has cells that the other one lacks; if a mask has no cell or holds floats; if one id seems to
            stand for many cells; if a mask looks like an image; if most nuclei are outside of the cell with their id,
            or the masks seem to be swapped; if features are left out: those without an area, and objects that are not
            cells.
        """
        if cells is not None and cytosol is not None:
            raise InputError("cytosol and cells are the same mask, but both are given. Give one of them")
        given = {"nucleus": nucleus, "cytosol": cytosol if cells is None else cells}
        masks = {kind: mask for kind, mask in given.items() if mask is not None}
        centers = inputs.load_segmentation(
            self._store,
            masks,
            overwrite=self._may_replace(overwrite),
            run=BlockRunner(self._n_workers),
            choice=TiffChoice(series, mask_choice(z, t)),
            polygons=polygon_options(pixel_size, transform, ids),
            log=self.log,
        )
        self._log_masks([stored_mask(self._store, kind) for kind in masks], centers)

    def _log_image(self, origin: str, *, is_new: bool) -> None:
        image, names = open_group(self._store / IMAGE, AXES["images"])
        size = image_pixel_size(self._store)
        known = "" if size is None else f", {size_in_words(size)} per pixel"
        about = f"{image.shape} (c, y, x) {image.dtype}, channels {', '.join(names)}{known}"
        if is_new:
            self.log(f"Input image loaded from {origin}: {about}")
        else:
            self.log(f"Input image kept: {origin} has the same content ({about})")

    def _log_masks(self, elements: Iterable[str], written: Mapping[str, Centers]) -> None:
        """Log the masks given to a loader: those in `written` were loaded, the project had the others."""
        for element in elements:
            name, cells = Path(element).name, written.get(element)
            self.log(f"Mask {name} kept: same content" if cells is None else f"Mask {name} loaded: {len(cells)} cells")
