"""Write elements atomically: beside a store first, moved into it when all are complete."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import zarr
from filelock import Timeout

from cellstamp.errors import InputError, OutputError
from cellstamp.location import linked_part
from cellstamp.source.library_messages import quiet
from cellstamp.system import acquire_lock, move_folder

# The version of the store's layout, by the zarr format it is written in (SpatialData's own numbers).
_CONTAINER_VERSIONS = {2: "0.1", 3: "0.2"}
_PLAN, _LOCK = "plan.json", "owner.lock"

Format = Literal[2, 3]


def zarr_format(store: Path) -> Format | None:
    """Return 2 or 3, or None if there is no store yet.

    Raises
    ------
    InputError
        If `store` is not a zarr store.
    """
    if (store / "zarr.json").is_file():
        return 3
    if (store / ".zgroup").is_file():
        return 2
    if store.exists() and not (store.is_dir() and not any(store.iterdir())):
        raise InputError(f"{store}: this is not a zarr store (it has neither zarr.json nor .zgroup)")
    return None


class Staging:
    """A temporary store beside the store, which receives new elements; see `staged`.

    Attributes
    ----------
    folder : pathlib.Path
        The temporary store, a zarr store with the same layout.
    format : {2, 3}
        Its zarr format.
    """

    def __init__(self, root: Path, store: Path, new_format: Format) -> None:
        self.root = root
        self.store = store
        self.folder = root / "new"
        self.format = zarr_format(store) or new_format
        self._leaving: list[str] = []
        writer = {"version": _CONTAINER_VERSIONS[self.format], "spatialdata_software_version": version("spatialdata")}
        self._make_group(self.folder, {"spatialdata_attrs": writer})

    def group(self, element: str, attributes: dict[str, Any]) -> Path:
        """Make the group of an element, named like ``"images/input_image"``, and return its folder."""
        path = self.place(element)
        self._make_group(path, attributes)
        return path

    def place(self, element: str) -> Path:
        """Make the group around an element and return where the element's own folder will be."""
        path = self.folder / element
        if not path.parent.exists():
            self._make_group(path.parent, {})
        return path

    def remove(self, element: str) -> None:
        """Mark an element, named like ``"labels/seg_all_nucleus"``, for removal by `commit`, if it exists."""
        if (self.store / element).exists():
            self._leaving.append(element)

    def _make_group(self, path: Path, attributes: dict[str, Any]) -> None:
        import zarr

        zarr.create_group(str(path), zarr_format=self.format, attributes=attributes)

    def commit(self) -> None:
        """Move all elements into the store; after an error, restore the store."""
        check_not_linked(self.store, {*_kinds(self.folder), *(element.split("/")[0] for element in self._leaving)})
        _list_labels(self.store, self.folder, self._leaving, self.format)
        if zarr_format(self.store) is None:
            _consolidate(self.folder)
            move_folder(self.folder, self.store)
            return
        arriving = list(_arriving(self.folder, self.store))
        leaving = [element for element in {*arriving, *self._leaving} if (self.store / element).exists()]
        _keep_metadata(self.root, self.store)
        (self.root / _PLAN).write_text(json.dumps({"arriving": arriving, "leaving": leaving}), encoding="utf-8")
        try:
            for element in leaving:
                _move(self.store / element, self.root / "old" / element)
            for element in arriving:
                _move(self.folder / element, self.store / element)
            _take_labels(self.root, self.store)
            _consolidate(self.store)
            (self.root / _PLAN).unlink()
        except BaseException:
            roll_back(self.root, self.store)
            raise


@contextmanager
def staged(store: Path, *, new_format: Format = 3) -> Iterator[Staging]:
    """Write elements atomically: all are in the store when the block ends without an error, otherwise none is.

    Elements of the same name are replaced once the new ones are complete. Leftovers of killed processes are removed
    first.

    Parameters
    ----------
    store
        The store, created if needed.
    new_format
        Zarr format (2 or 3) of a new store; an existing store keeps its format.
    """
    check_not_linked(store)
    recover(store)
    store.parent.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix=_prefix(store), dir=store.parent))
    try:
        with _locked(root):
            staging = Staging(root, store, new_format)
            yield staging
            staging.commit()
    finally:
        _remove(root)


def check_not_linked(store: Path, kinds: Iterable[str] = ()) -> None:
    """Refuse to write through a link, since it leads to another folder's store.

    Raises
    ------
    OutputError
        If the store, its metadata or a group in `kinds` is a link; the message names it.
    """
    link = linked_part(store, kinds)
    if link is not None:
        raise OutputError(
            f"{link} is a link to {link.resolve()}: nothing is written through a link, since that would change another "
            f"folder's store. Replace the link with a copy, or work with the store at {link.resolve()} itself"
        )


def recover(store: Path) -> None:
    """Undo the changes of processes that were killed while they changed the store."""
    for root in store.parent.glob(f"{_prefix(store)}*"):
        with _locked(root, wait=False) as free:
            if free:
                roll_back(root, store)
        if free:
            _remove(root)


def roll_back(root: Path, store: Path) -> None:
    """Restore the store to its state before the plan in `root`; without a plan nothing was moved."""
    try:
        plan = json.loads((root / _PLAN).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return
    for element in plan["arriving"]:
        if not (root / "new" / element).exists() and (store / element).exists():
            _move(store / element, root / "new" / element)
    for element in plan["leaving"]:
        if (root / "old" / element).exists():
            _move(root / "old" / element, store / element)
    for path in (root / "metadata").rglob("*"):
        if path.is_file():
            path.replace(store / path.relative_to(root / "metadata"))
    for path in store.glob("*.partial"):  # unfinished metadata of zarr
        path.unlink()
    (root / _PLAN).unlink()


def _prefix(store: Path) -> str:
    return f".{store.name}.staging-"


def _remove(root: Path) -> None:
    """Remove the rest of staging, unless `roll_back` failed: then it has elements of the store."""
    if not (root / _PLAN).exists():
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def _locked(root: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock that marks the owner of `root` as alive; yield whether it was acquired."""
    try:
        lock = acquire_lock(root / _LOCK, wait=wait)
    except (FileNotFoundError, Timeout):  # its owner removed the folder meanwhile
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    move_folder(source, target)


def _kinds(folder: Path) -> list[str]:
    """Return the names of a store's groups of elements."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def _arriving(folder: Path, store: Path) -> Iterator[str]:
    """Return the parts of the temporary store to move: elements, or a group that the store lacks."""
    for kind in _kinds(folder):
        if not (store / kind).exists():
            yield kind
            continue
        yield from (f"{kind}/{path.name}" for path in sorted((folder / kind).iterdir()) if path.is_dir())


def _consolidate(store: Path) -> None:
    with quiet():
        zarr.consolidate_metadata(str(store))


_METADATA = ("zarr.json", ".zmetadata", "labels/zarr.json", "labels/.zattrs")


def _keep_metadata(root: Path, store: Path) -> None:
    """Copy the metadata files that are rewritten, not moved, when elements are added or removed."""
    for name in _METADATA:
        if (store / name).is_file():
            (root / "metadata" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(store / name, root / "metadata" / name)


def _list_labels(store: Path, folder: Path, leaving: list[str], format_: Format) -> None:
    """Write the future list of labels, which OME-Zarr requires, to the temporary store."""
    gone = {Path(element).name for element in leaving if element.startswith("labels/")}
    new, old = ({path.name for path in (base / "labels").glob("*") if path.is_dir()} for base in (folder, store))
    if not new and not gone:
        return
    listed = {"labels": sorted(new | (old - gone))}
    group = zarr.open_group(str(folder / "labels"), mode="a", zarr_format=format_, use_consolidated=False)
    group.attrs.update(listed if format_ == 2 else {"ome": listed})


def _take_labels(root: Path, store: Path) -> None:
    for name in _METADATA[2:]:
        if (root / "new" / name).is_file() and (root / "metadata" / name).is_file():
            shutil.copy2(root / "new" / name, store / name)
