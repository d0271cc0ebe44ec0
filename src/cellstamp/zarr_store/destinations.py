"""Places that a zarr store is written to: a folder, or an object store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cellstamp.errors import OutputError, writing
from cellstamp.h5sc.layout import FEATURES_STORE, URL_NAME, removed_name
from cellstamp.h5sc.opening import ROOT
from cellstamp.system import replace_file, sync_file, sync_folder
from cellstamp.zarr_store.remote_shards import sizes_of_shards
from cellstamp.zarr_store.shards import images_path, read_index, remove_unfinished, shard_path

if TYPE_CHECKING:
    from upath import UPath


_UNFINISHED = ".unfinished"


class LocalDestination:
    """A store in a folder of this machine, or one that all machines share.

    Parameters
    ----------
    store
        Folder of the store.
    """

    def __init__(self, store: Path) -> None:
        # workers of a cluster have other working folders
        self.store = store.absolute()

    def begin(self) -> None:
        """Make the folder for shards."""
        images_path(self.store).mkdir(parents=True)

    def resume(self) -> None:
        """Remove what an interrupted run has left incomplete."""
        images_path(self.store).mkdir(parents=True, exist_ok=True)
        (self.store / ROOT).unlink(missing_ok=True)
        remove_unfinished(self.store)

    def complete(self, numbers: Iterable[int], n_chunks: int) -> list[int]:
        """Return which of some shards are complete."""
        return [number for number in numbers if read_index(shard_path(self.store, number), n_chunks) is not None]

    def sync(self, number: int) -> None:
        """Bring a shard to the disk."""
        sync_file(shard_path(self.store, number))

    def take(self, aside: Path) -> None:
        """Move the files of a folder into the store, the metadata of its root last."""
        remove_unfinished(self.store)
        for file in _root_last(aside):
            sync_file(file)
            target = self.store / file.relative_to(aside)
            target.parent.mkdir(parents=True, exist_ok=True)
            replace_file(file, target)
        sync_folder(self.store)


class RemoteDestination:
    """A store behind a URL. Objects are complete, and on the server's disks, when they exist.

    Parameters
    ----------
    store
        URL of the store.
    overwrite
        Whether to remove an existing store.
    on_removal
        Called when an existing store was removed.
    """

    def __init__(self, store: UPath, *, overwrite: bool, on_removal: Callable[[], None]) -> None:
        self.store, self._overwrite, self._on_removal = store, overwrite, on_removal

    def begin(self) -> None:
        """Remove an existing store, the metadata of its root first, so that no reader takes the rest for a result.

        Raises
        ------
        OutputError
            If there is a store that must not be removed, or the URL cannot be written to.
        """
        with writing(self.store):
            if self.store.exists():
                self._remove()
            # it shows early whether objects can be written, and others that a run is unfinished
            (self.store / _UNFINISHED).write_bytes(b"")

    def _remove(self) -> None:
        if not self._overwrite:
            raise OutputError(
                f"{self.store} has unfinished results of a run in another folder. Run in that folder to resume, or set "
                "overwrite=True to discard them"
            )
        if (self.store / ROOT).exists():
            (self.store / ROOT).unlink()
        self._on_removal()
        for store in (self.store.with_name(FEATURES_STORE), self.store):
            if store.exists():
                store.fs.rm(store.path, recursive=True)

    def resume(self) -> None:
        """Do nothing: there are no incomplete objects."""

    def complete(self, numbers: Iterable[int], n_chunks: int) -> list[int]:
        """Return which of some shards exist."""
        del n_chunks
        with writing(self.store):
            existing = sizes_of_shards(self.store)
        return [number for number in numbers if number in existing]

    def sync(self, number: int) -> None:
        """Do nothing: an object that was written is on disk."""

    def take(self, aside: Path) -> None:
        """Upload the files of a folder, and the table and list beside it, the metadata of the root last."""
        removed = self.store.with_name(removed_name(self.store.name))
        self.store.fs.put_file(str(aside.with_name(removed_name(URL_NAME))), removed.path)
        features = aside.with_name(FEATURES_STORE)
        for folder, store in ((features, self.store.with_name(FEATURES_STORE)), (aside, self.store)):
            if folder.exists():
                *files, root = _root_last(folder)
                _upload(files, folder, store)
                _upload([root], folder, store)
        (self.store / _UNFINISHED).unlink(missing_ok=True)


def _upload(files: Sequence[Path], folder: Path, target: UPath) -> None:
    places = [(target / file.relative_to(folder).as_posix()).path for file in files]
    target.fs.put([str(file) for file in files], places)


def _root_last(folder: Path) -> list[Path]:
    """Return all files below a folder, the metadata of its root last."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [*(path for path in files if path != folder / ROOT), folder / ROOT]
