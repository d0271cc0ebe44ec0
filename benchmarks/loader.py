"""Time one loader once, on images of `loading_formats`: ``python benchmarks/loader.py LOADER PATH BLOCK_SIZE N_CELLS``.

Run it with the Python of the loader's environment; so it imports nothing from this package. The last line is JSON: the
images per second of an epoch, or of its first cells, after some batches to warm up.
"""

import importlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

BATCH_SIZE = 256
LOADED = 2048
"""Cells that annbatch loads and shuffles at once: the largest multiple of a batch in less than 0.4 GB."""
WARM_UP = LOADED // BATCH_SIZE


def cellstamp(path: str, block_size: int, dtype: str = "float32") -> Iterable[Any]:
    """Return batches of `SingleCellDataset`, from a file or a store."""
    from torch.utils.data import DataLoader

    from cellstamp import SingleCellDataset, SingleCellSampler

    dataset = SingleCellDataset(path, dtype=dtype)
    return DataLoader(dataset, batch_sampler=SingleCellSampler(dataset, BATCH_SIZE, block_size=block_size))


def scportrait(path: str, block_size: int) -> Iterable[Any]:
    """Return batches of scportrait's dataset, in the orders of our sampler; it has none itself."""
    from torch.utils.data import DataLoader

    sys.path.append(str(Path(__file__).parents[1]))
    importlib.import_module("interop")  # lets scportrait be imported with any torch
    from scportrait.tools.ml.datasets import H5ScSingleCellDataset

    from cellstamp import SingleCellSampler

    dataset = H5ScSingleCellDataset([path], dir_labels=[0], return_id=True)
    return DataLoader(dataset, batch_sampler=SingleCellSampler(dataset, BATCH_SIZE, block_size=block_size))


class Annbatch:
    """Batches of annbatch's loader from the array of images, with cell ids.

    annbatch reads `X` of AnnData objects only. But its `add_dataset` takes any array, and yields rows of any shape.
    """

    def __init__(self, path: str, block_size: int, *, dtype: str = "float32", with_zarrs: bool = True) -> None:
        import anndata
        import zarr
        from annbatch import Loader

        if with_zarrs:  # as its documentation recommends for local files
            import zarrs  # noqa: F401

            zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
        store = zarr.open_group(path, mode="r")
        ids = anndata.io.read_elem(store["obs"])[["scportrait_cell_id"]]
        loader = Loader(
            chunk_size=block_size, preload_nchunks=LOADED // block_size, batch_size=BATCH_SIZE, shuffle=True
        )
        self._batches, self._dtype = loader.add_dataset(store["obsm/single_cell_images"], obs=ids), dtype

    def __iter__(self) -> Iterator[Any]:
        for batch in self._batches:
            yield batch["X"].astype(self._dtype, copy=False), batch["obs"]["scportrait_cell_id"].to_numpy()


LOADERS: dict[str, Callable[[str, int], Iterable[Any]]] = {
    "scportrait": scportrait,
    "cellstamp": cellstamp,
    "cellstamp float16": lambda path, block_size: cellstamp(path, block_size, "float16"),
    "annbatch": Annbatch,
    "annbatch float16": lambda path, block_size: Annbatch(path, block_size, dtype="float16"),
    "annbatch without zarrs": lambda path, block_size: Annbatch(path, block_size, with_zarrs=False),
}


def rate(batches: Iterable[Any], n_cells: int) -> float:
    """Return the images per second, until there are `n_cells`; reads every memory page of the batches."""
    begin, n_seen = time.perf_counter(), 0
    for images, *_ in batches:
        array = np.asarray(images)
        array.reshape(len(array), -1)[:, ::1024].sum(dtype=np.float32)
        n_seen += len(array)
        if n_seen >= n_cells:
            break
    return n_seen / (time.perf_counter() - begin)


def main() -> None:
    """Time the loader, and print the result."""
    warnings.simplefilter("ignore")
    name, path, block_size, n_cells = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    batches = LOADERS[name](path, block_size)
    rate(islice(batches, WARM_UP), n_cells)
    print(json.dumps(rate(batches, n_cells)))


if __name__ == "__main__":
    main()
