"""The single-cell images of an open file, in the `obsm` of an `AnnData`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from anndata._io.specs.registry import _REGISTRY
from numpy.typing import NDArray

from cellstamp.h5sc.indexing import read_as_numpy
from cellstamp.h5sc.layout import IMAGES
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
        read = partial(super().__getitem__, new_dtype=new_dtype)
        return read_as_numpy(read, self.shape, np.dtype(new_dtype or self.dtype), args)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path: the process that unpickles the images opens the file."""
        return images_of, (str(Path(self.file.filename).absolute()),)


def images_of(path: str) -> StoredImages:
    """Open the images of a file.

    Raises
    ------
    InputError
        If the file is missing, or is not an `.h5sc` file.
    """
    return StoredImages(open_h5sc(Path(path))["obsm"][IMAGES].id)


def _let_anndata_write() -> None:
    """Register anndata's writers of `h5py.Dataset` for `StoredImages`: anndata looks them up by exact type."""
    for (target, source, modifiers), write in [*_REGISTRY.write.items()]:
        if source is h5py.Dataset:
            _REGISTRY.write[target, StoredImages, modifiers] = write
    _REGISTRY.write_specs[StoredImages] = _REGISTRY.write_specs[h5py.Dataset]


_let_anndata_write()
