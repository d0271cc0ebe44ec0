"""The single-cell images of an open file, as an `AnnData` holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import h5py
from anndata import AnnData
from anndata._io.specs.registry import _REGISTRY
from numpy.typing import NDArray

from cellstamp.errors import InputError
from cellstamp.h5sc.layout import IMAGES
from cellstamp.h5sc.opening import open_h5sc


class StoredImages(h5py.Dataset):  # type: ignore[misc]
    """The single-cell images of an open file, an `h5py.Dataset` that can be copied and pickled.

    Copies read from the same file, which is open for reading only, so that none can change what another one holds.
    ``images[...]`` reads images into memory.
    """

    def copy(self) -> Self:
        """Return images that read from the same file."""
        return type(self)(self.id)

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.copy()

    def __getitem__(self, args: Any, new_dtype: Any = None) -> NDArray[Any]:
        """Read images; unlike `h5py.Dataset`, also backwards along the cells (``images[::-1]``)."""
        cells, *others = args if isinstance(args, tuple) else (args,)
        if not isinstance(cells, slice) or cells.step is None or cells.step > 0:
            return super().__getitem__(args, new_dtype)  # type: ignore[no-any-return]
        rows = range(len(self))[cells]
        forwards = slice(rows[-1], rows[0] + 1, -cells.step) if rows else slice(0)
        return super().__getitem__((forwards, *others), new_dtype)[::-1]  # type: ignore[no-any-return]

    def __reduce__(self) -> tuple[Any, ...]:
        """Take along the path: the file is opened where the images are unpickled."""
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
        If there is no such file, it is no `.h5sc` file, or it was written again since.
    """
    images = StoredImages(open_h5sc(Path(path))["obsm"][IMAGES].id)
    if _state(Path(path)) != state:
        raise InputError(f"{path} was written again after this AnnData was pickled. Open it with read_h5sc({path!r})")
    return images


def _state(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_size, about.st_mtime_ns


def _let_anndata_write() -> None:
    """Have anndata write these images as any `h5py.Dataset`: it looks writers up by the very type, in no public way."""
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
