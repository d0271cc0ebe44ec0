"""Small zarr stores with known pixels, for tests of what reads them. Not a test module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr

from cellstamp.source.read.arrays import ArrayHandle, PixelSource


def write_array(store: Path, path: str, data: np.ndarray, chunks: tuple[int, ...], **options: Any) -> ArrayHandle:
    """Write one array (options are those of `zarr.create_array`) and return the handle of it."""
    array = zarr.create_array(store=str(store), name=path, data=data, chunks=chunks, **options)
    return ArrayHandle(str(store), Path(path).parent.name, path, array.shape, array.chunks, str(array.dtype))


def write_source(
    store: Path,
    image: np.ndarray,
    masks: list[np.ndarray],
    *,
    image_chunk: int,
    mask_chunk: int,
    shard_chunks: int | None = None,
    zarr_format: int = 3,
) -> PixelSource:
    """Write an image (c, y, x) and masks (y, x) in square chunks, if asked in shards of so many chunks a side."""

    def options(chunk: int, *front: int) -> dict[str, Any]:
        shards = None if shard_chunks is None else (*front, chunk * shard_chunks, chunk * shard_chunks)
        return {"chunks": (*front, chunk, chunk), "shards": shards, "zarr_format": zarr_format}

    names = ["seg_all_nucleus", "seg_all_cytosol"][-len(masks) :]
    pixels = write_array(store, "images/input_image/s0", image, **options(image_chunk, 1))
    handles = [
        write_array(store, f"labels/{name}/s0", mask, **options(mask_chunk))
        for name, mask in zip(names, masks, strict=True)
    ]
    return PixelSource(pixels, tuple(handles), tuple(map(str, range(len(image)))))
