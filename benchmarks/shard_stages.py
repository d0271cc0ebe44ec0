"""Measure the stages of an extraction to a zarr store, in which workers write the shards."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .meters import Meter, metered
from .wire import Wire


def walk_shards(job: Any, batches: Sequence[Any], folder: Path, meters: dict[str, Meter]) -> tuple[Path, list[int]]:
    """Write every shard, and send and record its numbers; return the store, and the bytes sent for each shard."""
    from cellstamp.cells.cutter import StampCutter
    from cellstamp.cells.task import StampTask
    from cellstamp.encoding import StampEncoder
    from cellstamp.h5sc.layout import STORE_NAME
    from cellstamp.source.read.tiles import TileReader
    from cellstamp.zarr_store.destinations import LocalDestination
    from cellstamp.zarr_store.shard_task import ShardTask
    from cellstamp.zarr_store.shards import shard_path
    from cellstamp.zarr_store.writer import ZarrWriter

    whole, frame, record, sync, tables, bare = (Meter() for _ in range(6))
    job.task()(batches[0].pieces[0])  # the first batch of a process is slower; complete runs measure it
    with frame.running():
        writer = ZarrWriter(folder, LocalDestination(folder / STORE_NAME), job.layout(), {})
    task, wire, sent = ShardTask(job.task(), writer.store, job.layout().rows_per_shard), Wire(), []
    with (
        metered(StampTask, "__call__") as encoded,
        metered(TileReader, "read") as read,
        metered(StampCutter, "_cut") as cut,
        metered(StampEncoder, "encode") as encode,
        writer,
    ):
        for batch in batches:
            with whole.running():
                made = task(batch)
            shard = wire.carry(made)
            sent.append(len(pickle.dumps(shard, pickle.HIGHEST_PROTOCOL)))
            with record.running():
                writer.write(shard)
            _write_bare(shard_path(writer.store, shard.number), folder / "bare", bare)
        with sync.running():
            writer.flush()
        with tables.running():
            writer.describe({}, np.zeros(0, np.int64))
    meters |= {"read": read, "cut": cut, "encode": encode, "rest of the task": encoded.without(read, cut, encode)}
    meters |= {"write shard": whole.without(encoded), "send": wire.send, "receive": wire.receive}
    meters |= {"frame": frame, "record": record, "sync": sync, "tables": tables, "bare write": bare}
    return writer.store, sent


def _write_bare(shard: Path, folder: Path, meter: Meter) -> None:
    """Write the bytes of a shard to another file, with one call."""
    content = shard.read_bytes()
    folder.mkdir(exist_ok=True)
    with meter.running():
        (folder / shard.parts[-4]).write_bytes(content)
