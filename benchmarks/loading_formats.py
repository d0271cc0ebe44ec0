"""Measure images per second of loaders: `.h5sc` and zarr with our dataset, zarr with annbatch, scportrait's dataset.

Run it in scportrait's environment, from the root of the repository, on an idle machine. annbatch needs Python 3.12 or
newer, so it has another environment:

    python3.13 -m venv PLACE && PLACE/bin/python -m pip install 'annbatch[zarrs]==0.3.1'
    .venv-scportrait/bin/python -m benchmarks.loading_formats --annbatch PLACE/bin/python --rounds 3

All loaders run in turn, each in a new process without workers of a DataLoader.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from cellstamp import HDF5CellExtraction

from .sample import DATA, Sample

LOADER = Path(__file__).with_name("loader.py")
FORMATS = ("h5sc", "zarr")


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes
    ----------
    name
        What is shown.
    loader
        Name in `loader.LOADERS`.
    file_format
        What it reads.
    is_slow
        Whether it reads only some cells.
    """

    name: str
    loader: str
    file_format: str
    is_slow: bool = False

    @property
    def needs_annbatch(self) -> bool:
        """Whether it runs in annbatch's environment."""
        return self.loader.startswith("annbatch")


ROWS = (
    Row("scportrait `H5ScSingleCellDataset`, `.h5sc`", "scportrait", "h5sc", is_slow=True),
    Row("`SingleCellDataset`, `.h5sc`", "cellstamp", "h5sc"),
    Row("`SingleCellDataset`, zarr", "cellstamp", "zarr"),
    Row("annbatch `Loader` with zarrs, zarr", "annbatch", "zarr"),
    Row("annbatch `Loader` without zarrs, zarr", "annbatch without zarrs", "zarr", is_slow=True),
    Row("`SingleCellDataset`, `.h5sc`, float16", "cellstamp float16", "h5sc"),
    Row("`SingleCellDataset`, zarr, float16", "cellstamp float16", "zarr"),
    Row("annbatch `Loader` with zarrs, zarr, float16", "annbatch float16", "zarr"),
)


def extracted(sample: Sample, data: Path) -> dict[str, Path]:
    """Return the sample's single-cell images in all formats; extract them if missing."""
    folder = data / f"loading-{sample.name}"
    paths = {name: folder / name / "data" / f"single_cells.{name}" for name in FORMATS}
    for name, path in paths.items():
        if not path.exists():
            config = {"threads": 2, "image_size": 128, "cache": str(folder), "file_format": name}
            HDF5CellExtraction(config, path.parents[1], filehandler=sample.store(data))()
    return paths


def run(row: Row, python: str, path: Path, block_size: int, n_cells: int) -> float:
    """Return the images per second of one loader, in a new process."""
    command = [python, str(LOADER), row.loader, str(path), str(block_size), str(n_cells)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{row.name} failed (exit code {done.returncode}):\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Run all loaders in turn, and print a table."""
    options = _parser().parse_args()
    python = options.annbatch and (shutil.which(options.annbatch) or str(Path(options.annbatch).absolute()))
    paths = extracted(Sample(side=options.side), options.data.resolve())
    rows = [row for row in ROWS if options.only in row.loader and (python or not row.needs_annbatch)]
    blocks = (1, options.block_size)
    measured: dict[tuple[Row, int], list[float]] = {(row, block): [] for row in rows for block in blocks}
    for number in range(options.rounds):
        for (row, block), rates in measured.items():
            interpreter = python if row.needs_annbatch else sys.executable
            n_cells = options.slow_cells if row.is_slow else sys.maxsize
            rates.append(run(row, interpreter, paths[row.file_format], block, n_cells))
        print(f"round {number + 1}: {[round(rates[-1]) for rates in measured.values()]}", flush=True)
    print(_table(measured, rows, blocks))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loading_formats", description=__doc__)
    parser.add_argument("--annbatch", metavar="PYTHON", help="Python interpreter with annbatch and zarrs")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds")
    parser.add_argument("--side", type=int, default=6000, help="side of the image in pixels (6000: about 15,000 cells)")
    parser.add_argument("--block-size", type=int, default=8, help="neighbours that stay together in shuffled chunks")
    parser.add_argument("--slow-cells", type=int, default=4096, help="number of cells for slow loaders")
    parser.add_argument("--only", default="", metavar="TEXT", help="run only loaders with this text in their name")
    parser.add_argument("--data", type=Path, default=DATA, help="folder for the sample")
    return parser


def _table(measured: dict[tuple[Row, int], list[float]], rows: list[Row], blocks: tuple[int, int]) -> str:
    lines = [f"| images/s, median (all rounds) | random order | chunks of {blocks[1]} |", "|---|---:|---:|"]
    lines += [f"| {row.name} | {' | '.join(_cell(measured[row, block]) for block in blocks)} |" for row in rows]
    return "\n".join(lines)


def _cell(rates: list[Any]) -> str:
    return f"{median(rates):,.0f} ({', '.join(f'{each:,.0f}' for each in rates)})"


if __name__ == "__main__":
    main()
