"""Embed the single-cell images of a file with a network, into a table beside them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from cellstamp.embedding.run import EmbeddingRun, Settings
from cellstamp.embedding.unfinished import Begun
from cellstamp.errors import ConfigError, InputError, OutputError, reworded
from cellstamp.h5sc.cell_tables import is_store
from cellstamp.h5sc.embedding_table import EMBEDDING, Crops, origin_of
from cellstamp.h5sc.opening import bytes_of
from cellstamp.location import AnyPath, Location, is_remote
from cellstamp.pipeline.extraction_plots import images_of
from cellstamp.pipeline.folder import UNFINISHED
from cellstamp.pipeline.lock import holding
from cellstamp.pipeline.resume_check import differences
from cellstamp.report import Progress, ProgressMode, conclude, format_bytes, format_seconds
from cellstamp.system import remove, replace_file, replace_folder, sync_folder

if TYPE_CHECKING:
    from anndata import AnnData

    from cellstamp.pipeline.project import Project

Precision = Literal["float32", "float16", "bfloat16"]
Origin = dict[str, str] | None


def embed(
    file: AnyPath | Project,
    model: Callable[[torch.Tensor], Any],
    *,
    batch_size: int = 256,
    device: str | torch.device = "auto",
    channels: Any = None,
    transform: Callable[[torch.Tensor], Any] | None = None,
    precision: Precision = "float32",
    path: AnyPath | None = None,
    overwrite: bool = False,
    progress: ProgressMode = "auto",
    n_threads: int | None = None,
) -> AnnData:
    """Run a network on all single-cell images of a file, and write its values into a table beside the file.

    The table has the cells of the file, in the same order. An interrupted run resumes if you call this again with the
    same model and settings. A finished table of the same model, settings and images is returned at once. When the
    memory of the device is too small for a batch, later batches have half as many images, and a warning says so.

    Parameters
    ----------
    file
        Path of an ``.h5sc`` file of cellstamp or scportrait, path or URL of a zarr store, folder of a project, or a
        `Project`: its latest result.
    model
        Network, or function, that turns images, a float32 tensor (n, n_channels, y, x), into a tensor or array (n, d).
        Networks are put into evaluation mode meanwhile. A function must do this with networks that it calls.
    batch_size
        Largest number of images in a call of the model.
    device
        ``"auto"``, or a device of torch, such as ``"cuda:1"``. ``"auto"`` keeps networks on the device they are on, and
        moves those on the CPU to a GPU, if there is one, until the end. Functions get images on the CPU.
    channels
        Names or numbers of channels and masks, in the order wanted. Numbers start at 0, masks first. None: all planes.
    transform
        Function that is called with each image, a tensor (n_channels, y, x), before the model.
    precision
        ``"float32"``, or ``"float16"`` or ``"bfloat16"`` for automatic mixed precision.
    path
        Table to write: a name with ``.h5ad``, or with ``.zarr`` for a zarr store. None: ``embedding.h5ad`` beside
        ``single_cells.h5sc``, ``embedding.zarr`` beside a store, ``NAME.embedding.h5ad`` beside other files.
    overwrite
        Whether another table at this path may be replaced, and unfinished results of other settings discarded.
    progress
        Whether to show a progress bar; ``"auto"``: in a terminal or notebook.
    n_threads
        Number of threads that read and decode. None: one for each core.

    Returns
    -------
    anndata.AnnData
        ``X`` float32 (n_cells, d), in memory. ``obs``, ``obsm["spatial"]`` and ``uns["spatialdata_attrs"]`` are those
        of the file. ``uns["embedding"]`` has the model and the settings.

    Raises
    ------
    ConfigError
        If an argument is invalid, or a channel unknown.
    InputError
        If the file is missing, damaged or modified meanwhile, the model fails, or it returns something else than finite
        numbers (n, d).
    OutputError
        If there is another table, or there are unfinished results of other settings, and `overwrite` is not set; or the
        table cannot be written.
    WorkerError
        If the memory is too small for one cell.
    """
    settings = Settings(model, batch_size, device, channels, transform, precision, n_threads)
    return EMBEDDING.read(write_embedding_of(images_of(file), settings, path, overwrite=overwrite, progress=progress))


def write_embedding_of(
    images: Location, settings: Settings, path: AnyPath | None, *, overwrite: bool, progress: ProgressMode
) -> Path:
    """Write an embedding of some images, unless it is up to date, and return its path; see `embed`."""
    target = _target_of(images, path)
    run = EmbeddingRun(Crops.of(images), settings)
    with _embed_in_messages(), holding(target.with_name(f".{target.name}.lock"), what=target):
        if _is_up_to_date(target, images, run.origin, overwrite=overwrite):
            conclude(f"{target} is up to date", mode=progress)
        else:
            _write(target, run, overwrite=overwrite, progress=progress)
    return target


def _write(target: Path, run: EmbeddingRun, *, overwrite: bool, progress: ProgressMode) -> None:
    begin = time.perf_counter()
    with _work_folder(target, run.origin, overwrite=overwrite) as work:
        with Progress(run.n_cells, progress, doing="embedding") as bar:
            n_embedded = run.write(work / target.name, work, bar)
        (replace_folder if is_store(target) else replace_file)(work / target.name, target)
        sync_folder(target.parent)
    seconds = time.perf_counter() - begin
    conclude(_closing_line(target, run.n_cells, n_embedded, seconds), mode=progress)


# --- paths ------------------------------------------------------------------------------------------------------------


def _target_of(images: Location, path: AnyPath | None) -> Path:
    """Return the path of the table, and check it."""
    if path is None:
        if not isinstance(images, Path):
            raise ConfigError(f"path: must be given for {images}, which is behind a URL: path='embedding.h5ad'")
        return EMBEDDING.beside(images)  # type: ignore[return-value]  # a path like the images
    if is_remote(path):
        raise ConfigError(f"path = {str(path)!r}: must be on a disk, not a URL")
    target = Path(str(path))
    if target.suffix not in (".h5ad", ".zarr"):
        raise ConfigError(f"path = {str(path)!r}: must end with .h5ad, or with .zarr for a zarr store")
    if not target.parent.is_dir():
        raise OutputError(f"path = {str(path)!r}: the folder {target.parent} does not exist: create it")
    return target


# --- existing results -------------------------------------------------------------------------------------------------


def _is_up_to_date(target: Path, images: Location, origin: Origin, *, overwrite: bool) -> bool:
    """Return whether the table exists; raise an error if another one does that may not be replaced."""
    if not target.exists():
        return False
    try:
        before = origin_of(target)
    except InputError:
        if overwrite and target == EMBEDDING.beside(images):  # a damaged embedding, and not some other file
            return False
        raise
    if before is None:
        raise OutputError(f"{target} exists, and is not an embedding of cellstamp: give another path")
    if overwrite:
        return False
    if before and before == origin:
        return True
    how = f" with different settings or input ({_changes(before, origin)})" if before and origin else ""
    raise OutputError(f"{target} already exists{how}. Set overwrite=True to replace it, or give another path")


def _changes(before: dict[str, str], now: dict[str, str]) -> str:
    return "; ".join(differences(before, now))


@contextmanager
def _work_folder(target: Path, origin: Origin, *, overwrite: bool) -> Iterator[Path]:
    """Yield a folder for unfinished results, kept after an error if a later run can resume them."""
    work = target.with_name(f"{UNFINISHED}{target.name}")
    if not _is_resumable(work, target, origin, overwrite=overwrite):
        remove(work)
    work.mkdir(exist_ok=True)
    try:
        yield work
    except BaseException:
        if origin is None or Begun.read(work) is None:
            remove(work)
        raise
    remove(work)


def _is_resumable(work: Path, target: Path, origin: Origin, *, overwrite: bool) -> bool:
    """Return whether unfinished results can be resumed; raise an error if only another run could resume them."""
    begun = Begun.read(work)
    if begun is None or begun.origin is None:
        return False
    if begun.origin == origin:
        return True
    if overwrite:
        return False
    how = _changes(begun.origin, origin) if origin else "the model cannot be identified"
    raise OutputError(
        f"{target}: found unfinished results of a run with different settings or input ({how}). Set overwrite=True to "
        "discard them, or restore the old settings to resume"
    )


# --- messages ---------------------------------------------------------------------------------------------------------


def _embed_in_messages() -> Any:
    """Name the call to repeat in messages about writing."""
    return reworded(lambda message: message.replace("extract again", "call embed again"))


def _closing_line(target: Path, n_cells: int, n_embedded: int, seconds: float) -> str:
    earlier = f" ({n_cells - n_embedded:,} of them by an interrupted run)" if n_embedded < n_cells else ""
    rate = f"{n_embedded / max(seconds, 1e-9):,.0f} cells/s"
    size = format_bytes(bytes_of(target))
    return f"Embedded {n_cells:,} cells{earlier} -> {target} ({size}) in {format_seconds(seconds)} ({rate})"
