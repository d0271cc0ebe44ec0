"""Measure images per second of a training loop: our dataset, scportrait's dataset, and plain h5py slicing.

Run it in scportrait's environment, from the root of the repository, on an idle machine:

    .venv-scportrait/bin/python -m benchmarks.loading FILE.h5sc --rounds 3
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

import h5py
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset

import interop  # noqa: F401  # lets scportrait be imported beside a torch for CPUs
from cellstamp import SingleCellDataset, SingleCellSampler, iter_batches

BATCH_SIZE = 256
WORKERS = (0, 2)


class Sliced(Dataset[Any]):
    """Simple dataset: opens the file in each process, and reads a slice for each cell."""

    def __init__(self, path: str) -> None:
        with h5py.File(path) as file:
            self.ids = file["obs/scportrait_cell_id"][:]
        self.path, self.opened = path, (0, None)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if self.opened[0] != os.getpid():
            self.opened = os.getpid(), h5py.File(self.path)["obsm/single_cell_images"]
        return torch.from_numpy(self.opened[1][index].astype("float32")), int(self.ids[index])


def _loader(dataset: Any, n_workers: int) -> DataLoader[Any]:
    return DataLoader(dataset, BATCH_SIZE, shuffle=True, num_workers=n_workers)


def _theirs(path: str) -> Any:
    from scportrait.tools.ml.datasets import H5ScSingleCellDataset

    return H5ScSingleCellDataset([path], dir_labels=[0], return_id=True)


def _blocks(path: str, n_workers: int, collate_fn: Any = None, **options: Any) -> DataLoader[Any]:
    dataset = SingleCellDataset(path, **options)
    batches = SingleCellSampler(dataset, BATCH_SIZE)
    return DataLoader(dataset, batch_sampler=batches, num_workers=n_workers, collate_fn=collate_fn)


def loaders(path: str, n_slow: int, n_cells: int | None) -> dict[str, Callable[[int], Iterable[Any] | None]]:
    """Return functions from a number of workers to batches in random order; slow loaders read a random subset."""

    def few(dataset: Any) -> Any:
        return Subset(dataset, torch.randperm(len(dataset))[:n_slow].tolist())

    collate = SingleCellDataset.collate
    cells = None if n_cells is None else np.arange(len(Sliced(path))) < n_cells

    return {
        "h5py slicing": lambda n: _loader(few(Sliced(path)), n),
        "scportrait H5ScSingleCellDataset": lambda n: _loader(few(_theirs(path)), n),
        "SingleCellDataset, shuffle=True": lambda n: _loader(SingleCellDataset(path, cells=cells), n),
        "SingleCellDataset, SingleCellSampler": lambda n: _blocks(path, n, cells=cells),
        "SingleCellDataset, SingleCellSampler, collate": lambda n: _blocks(path, n, collate, cells=cells),
        "SingleCellDataset, shuffle=True, collate": lambda n: DataLoader(
            SingleCellDataset(path, cells=cells), BATCH_SIZE, shuffle=True, num_workers=n, collate_fn=collate
        ),
        "SingleCellDataset, SingleCellSampler, float16": lambda n: _blocks(path, n, cells=cells, dtype="float16"),
        "iter_batches": lambda n: iter_batches(path, BATCH_SIZE, shuffle=True, cells=cells) if n == 0 else None,
    }


def rate(batches: Iterable[Any]) -> float:
    """Return the images per second of one epoch, with the start of workers; reads every memory page of the batches."""
    begin, n_cells = time.perf_counter(), 0
    for batch in batches:
        images = torch.as_tensor(batch if isinstance(batch, torch.Tensor) else batch[0])
        images.reshape(len(images), -1)[:, ::1024].sum()
        n_cells += len(images)
    return n_cells / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loading", description=__doc__)
    parser.add_argument("path", help="an .h5sc file")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds")
    parser.add_argument("--slow-cells", type=int, default=4000, help="number of cells for slow loaders")
    parser.add_argument("--only", default="", help="run only loaders with this text in their name")
    parser.add_argument("--cells", type=int, help="number of cells for our loaders, from the first (default: all)")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    measured: dict[tuple[str, int], list[float]] = {}
    for number in range(options.rounds):
        for name, make in loaders(options.path, options.slow_cells, options.cells).items():
            for n_workers in WORKERS:
                if options.only in name and (batches := make(n_workers)) is not None:
                    measured.setdefault((name, n_workers), []).append(rate(batches))
        print(f"round {number + 1}: {[round(rates[-1]) for rates in measured.values()]}", flush=True)
    print(_table(measured))


def _table(measured: dict[tuple[str, int], list[float]]) -> str:
    lines = [
        "| images/s, median (all rounds) | " + " | ".join(f"{n} workers" for n in WORKERS) + " |",
        "|---|---:|---:|",
    ]
    for name in dict.fromkeys(name for name, _ in measured):
        cells = [_cell(measured.get((name, n), [])) for n in WORKERS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(rates: list[float]) -> str:
    return f"{median(rates):,.0f} ({', '.join(f'{each:,.0f}' for each in rates)})" if rates else ""


if __name__ == "__main__":
    main()
