"""Time `cellstamp.embed` beside a plain loop over scportrait's dataset, with the same small network and file.

Run it in scportrait's environment, from the root of the repository:

    .venv-scportrait/bin/python -m benchmarks.embedding FILE.h5sc
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

import interop  # noqa: F401  # lets scportrait be imported beside a torch for CPUs
from cellstamp import embed, read_h5sc

BATCH_SIZE = 256


def make_network(n_channels: int) -> nn.Module:
    """Two convolutions, in evaluation mode."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(n_channels, 16, 3, stride=4),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).eval()


def theirs(path: str, network: nn.Module) -> np.ndarray:
    """Embed with a loop, as in a script."""
    from scportrait.tools.ml.datasets import H5ScSingleCellDataset

    dataset = H5ScSingleCellDataset([path], dir_labels=[0], return_id=True)
    with torch.inference_mode():
        return torch.cat([network(images) for images, *_ in DataLoader(dataset, BATCH_SIZE)]).numpy()


def ours(path: str, network: nn.Module) -> np.ndarray:
    """Embed with cellstamp, which also writes the table."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "embedding.h5ad"
        return np.asarray(embed(path, network, batch_size=BATCH_SIZE, path=table, progress=False).X)


def network_alone(images: torch.Tensor, network: nn.Module, n_cells: int) -> float:
    """Return the seconds that the network takes for all cells, on the same images again and again."""
    begin = time.perf_counter()
    with torch.inference_mode():
        for start in range(0, n_cells, BATCH_SIZE):
            network(images[: n_cells - start])
    return time.perf_counter() - begin


def main() -> None:
    """Time both, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embedding", description=__doc__)
    parser.add_argument("path", help="an .h5sc file")
    path = parser.parse_args().path
    warnings.simplefilter("ignore")
    data = read_h5sc(path)
    shape = (BATCH_SIZE, *data.obsm["single_cell_images"].shape[1:])
    network = make_network(shape[1])
    ours(path, network)  # the first call compiles the decoders, and the files are in the page cache for both
    rows, values = [("network alone", network_alone(torch.rand(shape), network, data.n_obs))], []
    for name, run in (("loop over scportrait's H5ScSingleCellDataset", theirs), ("cellstamp.embed", ours)):
        begin = time.perf_counter()
        values.append(run(path, network))
        rows.append((name, time.perf_counter() - begin))
    np.testing.assert_allclose(*values, rtol=1e-3, atol=1e-5)
    print(f"{data.n_obs:,} cells of {shape[2]} x {shape[3]} pixels, {shape[1]} planes\n")
    print("| way | s | cells/s |\n|---|---:|---:|")
    for name, seconds in rows:
        print(f"| {name} | {seconds:.2f} | {data.n_obs / seconds:,.0f} |")
    print(f"\nratio: {rows[1][1] / rows[2][1]:.1f}")


if __name__ == "__main__":
    main()
