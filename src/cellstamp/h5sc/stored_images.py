"""The single-cell images of an open file, in the `obsm` of an `AnnData`."""

from __future__ import annotations

from functools import partial, wraps
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import zarr
from anndata import AnnData
from anndata._io.specs.registry import _REGISTRY
from numpy.typing import NDArray

from cellstamp.errors import InputError, OutputError
from cellstamp.h5sc.chunks import StoredStamps, look_into
from cellstamp.h5sc.indexing import read_as_numpy
from cellstamp.h5sc.layout import IMAGES
from cellstamp.h5sc.many_images import read_many, read_selection
from cellstamp.h5sc.opening import Mark, OpenStore, check_not_replaced, open_h5sc
from cellstamp.location import Location, location_of


class StoredImages(h5py.Dataset):  # type: ignore[misc]
    """The single-cell images of an open file, an `h5py.Dataset` that can be copied and pickled.

    Copies read from the same file. It is open for reading only, so copies cannot change each other. ``images[...]``
    reads images into memory.
    """

    def copy(self) -> Self:
        """Return images that read from the same file."""
        return type(self)(self.id)

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.copy()

    def __getitem__(self, args: Any, new_dtype: Any = None) -> NDArray[Any]:
        """Read images. Selections have numpy's results: unsorted, repeated, negative and boolean ones, too."""
        read = partial(self._read, new_dtype=new_dtype)
        return read_as_numpy(read, self.shape, np.dtype(new_dtype or self.dtype), args)

    def _read(self, args: Any, new_dtype: Any) -> NDArray[Any]:
        many = read_many(self, args) if new_dtype is None else None
        read: NDArray[Any] = super().__getitem__(args, new_dtype=new_dtype) if many is None else many
        return read

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path: the process that unpickles the images opens the file."""
        path = Path(self.file.filename).absolute()
        return images_of, (str(path), _state(path))


class ShardedImages(zarr.Array):  # type: ignore[type-arg]
    """The single-cell images of a zarr store, a `zarr.Array` that is indexed as numpy's arrays are.

    ``images[...]`` reads images into memory. After the store was replaced, it raises `InputError`.

    Attributes
    ----------
    location, mark
        Location of the open store, and mark of its root.
    """

    location: Location
    mark: Mark
    _stored: StoredStamps | None = None

    @classmethod
    def of(cls, store: OpenStore) -> Self:
        """Return the images of an open store."""
        images = cls(store[f"obsm/{IMAGES}"]._async_array)
        images.location, images.mark = location_of(store.filename), store.mark
        return images

    def copy(self) -> Self:
        """Return images that read from the same store."""
        images = type(self)(self._async_array)
        images.location, images.mark = self.location, self.mark
        return images

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.copy()

    def __getitem__(self, args: Any) -> NDArray[Any]:  # type: ignore[override]
        """Read images. Selections have numpy's results: unsorted, repeated, negative and boolean ones, too."""
        return read_as_numpy(self._read, self.shape, np.dtype(self.dtype), args)

    def _look(self) -> StoredStamps:
        """Find the bytes of all images, once: there may be thousands of shards."""
        if self._stored is None:
            self._stored = look_into(self.location)
        return self._stored

    def _read(self, args: Any) -> NDArray[Any]:
        try:
            many = read_selection(self._look, self, args)
            return np.asarray(super().__getitem__(args)) if many is None else many
        finally:
            check_not_replaced(self.location, self.mark)


def stored_images(file: Any) -> StoredImages | ShardedImages:
    """Return the images of an open file or store."""
    return ShardedImages.of(file) if isinstance(file, OpenStore) else StoredImages(file["obsm"][IMAGES].id)


def images_of(path: str, state: tuple[int, int]) -> StoredImages:
    """Open the images of a file.

    Parameters
    ----------
    path
        The file.
    state
        Its size in bytes and modification time in ns when its images were pickled.

    Raises
    ------
    InputError
        If the file is missing, is not an `.h5sc` file, or was written again after the images were pickled.
    """
    images = StoredImages(open_h5sc(Path(path))["obsm"][IMAGES].id)
    if _state(Path(path)) != state:
        raise InputError(f"{path} was written again after this AnnData was pickled. Open it with read_h5sc({path!r})")
    return images


def _state(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_size, about.st_mtime_ns


def _let_anndata_write(kind: type, ours: type) -> None:
    """Register anndata's writers of a type of arrays for our kind of them: anndata looks them up by exact type."""
    for (target, source, modifiers), write in [*_REGISTRY.write.items()]:
        if source is kind:
            _REGISTRY.write[target, ours, modifiers] = write
    _REGISTRY.write_specs[ours] = _REGISTRY.write_specs[kind]


_let_anndata_write(h5py.Dataset, StoredImages)
_let_anndata_write(zarr.Array, ShardedImages)


def _let_anndata_copy() -> None:
    """Have ``AnnData.copy`` copy our images: anndata 0.13 refuses every array on disk, since most have no copy."""
    refuses = getattr(AnnData, "_has_raw_zarr_or_h5_array", None)
    if refuses is None:
        return

    def has_none_of_ours_and(self: AnnData) -> bool:
        return refuses(self) and not any(
            isinstance(value, StoredImages | ShardedImages) for value in self.obsm.values()
        )

    AnnData._has_raw_zarr_or_h5_array = has_none_of_ours_and


_let_anndata_copy()


def _refuse_own_file(name: str) -> None:
    """Have a method of `AnnData` refuse to write to the file that `StoredImages` read from; h5py's error is unclear."""
    write = getattr(AnnData, name)

    @wraps(write)
    def checked(self: AnnData, filename: Any = None, *args: Any, **kwargs: Any) -> None:
        if filename is not None:
            _check_other_file(self, Path(filename))
        write(self, filename, *args, **kwargs)

    setattr(AnnData, name, checked)


def _check_other_file(data: AnnData, target: Path) -> None:
    while data.is_view:  # a view would read its images
        data = data._adata_ref
    images = data.obsm.get(IMAGES)
    if isinstance(images, StoredImages) and images and target.exists() and target.samefile(images.file.filename):
        raise OutputError(
            f"{target}: this AnnData reads its images from this file, which can't be overwritten meanwhile. Write it "
            "to another path"
        )


for _method in ("write", "write_h5ad"):
    _refuse_own_file(_method)
