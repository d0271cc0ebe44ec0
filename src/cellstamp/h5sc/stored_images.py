"""The single-cell images of an open file, in the `obsm` of an `AnnData`."""

from __future__ import annotations

from functools import partial, wraps
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from anndata import AnnData
from anndata._io.specs.registry import _REGISTRY
from numpy.typing import NDArray

from cellstamp.errors import InputError, OutputError
from cellstamp.h5sc.indexing import read_as_numpy
from cellstamp.h5sc.layout import IMAGES
from cellstamp.h5sc.many_images import read_many
from cellstamp.h5sc.opening import open_h5sc


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


def _let_anndata_write() -> None:
    """Register anndata's writers of `h5py.Dataset` for `StoredImages`: anndata looks them up by exact type."""
    for (target, source, modifiers), write in [*_REGISTRY.write.items()]:
        if source is h5py.Dataset:
            _REGISTRY.write[target, StoredImages, modifiers] = write
    _REGISTRY.write_specs[StoredImages] = _REGISTRY.write_specs[h5py.Dataset]


_let_anndata_write()


def _let_anndata_copy() -> None:
    """Have ``AnnData.copy`` copy `StoredImages`: anndata 0.13 refuses every `h5py.Dataset`, since most have no copy."""
    refuses = getattr(AnnData, "_has_raw_zarr_or_h5_array", None)
    if refuses is None:
        return

    def has_none_of_ours_and(self: AnnData) -> bool:
        return refuses(self) and not any(isinstance(value, StoredImages) for value in self.obsm.values())

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
