"""Open the output of an extraction in its format, with the task that makes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from cellstamp.h5sc.layout import STORE_NAME, URL_NAME, Layout
from cellstamp.h5sc.measured_writer import open_measured
from cellstamp.h5sc.unfinished import noting_finished, open_writer
from cellstamp.pipeline.job import Job
from cellstamp.pipeline.result_folder import forget_url
from cellstamp.pipeline.run import Writer, without, without_shards
from cellstamp.zarr_store.destinations import LocalDestination, RemoteDestination
from cellstamp.zarr_store.layout import ShardedLayout
from cellstamp.zarr_store.shard_task import ShardTask
from cellstamp.zarr_store.writer import open_store


class Output(NamedTuple):
    """An unfinished file or store.

    Attributes
    ----------
    folder
        Its folder.
    writer
        Gets the results.
    task
        The task for a batch, for workers.
    batches
        Those that are not finished.
    """

    folder: Path
    writer: Writer
    task: Callable[[Any], Any]
    batches: Sequence[Any]


@contextmanager
def open_output(
    job: Job,
    layout: Layout,
    batches: Sequence[Any],
    work: Path,
    inputs: Mapping[str, Any],
    *,
    overwrite: bool,
    log: Callable[[str], None],
) -> Iterator[Output]:
    """Open a file or store to write, with all cells that an interrupted run has finished; close it afterwards.

    Parameters
    ----------
    layout, batches
        Those of the job.
    work
        Folder of unfinished results.
    inputs
        Inputs and settings of the results.
    overwrite
        Whether to remove an existing store behind a URL. Local results are replaced when the new ones are complete.
    log
        Called with a line about finished cells that could not be read back.
    """
    if not job.config.images:
        with noting_finished(work, len(job.cells)), open_measured(work, layout, inputs) as (folder, measured):
            yield Output(folder, measured, job.task(), without(batches, measured.written.is_written))
        return
    if isinstance(layout, ShardedLayout):
        place = partial(_destination, job=job, overwrite=overwrite)
        with noting_finished(work, len(job.cells)), open_store(work, layout, inputs, place, log) as (folder, store):
            task = ShardTask(job.task(), store.store, layout.rows_per_shard)
            yield Output(folder, store, task, without_shards(batches, store.written.is_written))
        return
    with noting_finished(work, len(job.cells)), open_writer(work, layout, inputs, log) as (folder, writer):
        yield Output(folder, writer, job.task(writer.planes_per_chunk), without(batches, writer.written.is_written))


def _destination(folder: Path, job: Job, *, overwrite: bool) -> LocalDestination | RemoteDestination:
    """Return where the store is written while it is unfinished: in a folder, or already at its URL."""
    result = job.result
    if isinstance(result, Path):
        return LocalDestination(folder / STORE_NAME)
    (folder / URL_NAME).write_text(f"{result}\n", encoding="utf-8")
    return RemoteDestination(result, overwrite=overwrite, on_removal=partial(forget_url, result, job.folder))
