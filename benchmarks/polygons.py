"""Measure extractions of cells given as polygons: beside the labels of the same cells, or a million of them.

Run it from the root of the repository, on an idle machine:

    python -m benchmarks.polygons                    # labels and polygons in turn
    python -m benchmarks.polygons --side 48000       # 1,000,000 cells, polygons only: 25 GB on disk
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import shapely

from cellstamp.source.library_messages import quiet
from cellstamp.source.load.staging import staged
from cellstamp.source.names import IMAGE

from .in_turn import compare, extract_with, run_in_turn
from .repeated import link_chunks
from .sample import DATA, Sample, cell_outlines, new_array

N_VERTICES = 30
POLYGONS = {"nucleus_shapes": "nucleus_polygons", "cytosol_shapes": "cytosol_polygons"}


def _write_shapes(store: Path, outlines: dict[str, np.ndarray]) -> None:
    """Write polygons (n, vertices, x and y) as elements ``nucleus_polygons`` and ``cytosol_polygons``."""
    with quiet():
        import geopandas
        import spatialdata
        from spatialdata.models import ShapesModel

        sdata = spatialdata.read_zarr(store)
        for kind, xy in outlines.items():
            index = np.arange(1, len(xy) + 1)
            frame = geopandas.GeoDataFrame(geometry=shapely.polygons(xy), index=index)
            sdata.shapes[f"{kind}_polygons"] = ShapesModel.parse(frame)
            sdata.write_element(f"{kind}_polygons")


def _with_polygons(sample: Sample, data: Path) -> Path:
    """Return the store of the sample with its cells as polygons, too."""
    store = sample.store(data)
    if not (store / "shapes").exists():
        _write_shapes(store, cell_outlines(sample, N_VERTICES))
    return store


def _repeated(sample: Sample, side: int, data: Path) -> Path:
    """Return a store with an image that repeats the sample's by hard links, and its cells as polygons."""
    store, n = data / f"{side}px_polygons.zarr", side // sample.side
    if store.exists():
        return store
    with staged(store) as staging:
        new_array(staging, IMAGE, (sample.channels, side, side), (1, sample.chunk, sample.chunk), np.uint16)
        link_chunks(sample.store(data) / IMAGE / "s0" / "c", staging.place(IMAGE) / "s0" / "c", n)
    shifts = sample.side * np.stack(np.meshgrid(np.arange(n), np.arange(n)), -1).reshape(-1, 1, 1, 2)
    outlines = cell_outlines(sample, N_VERTICES)
    _write_shapes(
        store, {kind: (xy + shifts[:, np.newaxis]).reshape(-1, N_VERTICES, 2) for kind, xy in outlines.items()}
    )
    return store


def _compare(options: argparse.Namespace, sample: Sample) -> None:
    store = _with_polygons(sample, options.data)
    labels = {"nucleus_labels": "seg_all_nucleus", "cytosol_labels": "seg_all_cytosol"}
    cases = {"labels": labels, "polygons": POLYGONS}
    compare(run_in_turn(store, cases, options.data, options.workers, options.rounds), "polygons", "labels")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.polygons", description=__doc__)
    parser.add_argument("--side", type=int, help="side of a larger image, a multiple of 6000: polygons only")
    parser.add_argument("--rounds", type=int, default=7, help="number of rounds")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=Path, default=DATA, help="folder for samples")
    options = parser.parse_args()
    options.data = options.data.resolve()
    if options.side is None:
        _compare(options, Sample())
    else:
        run = extract_with(_repeated(Sample(), options.side, options.data), POLYGONS, options.data, options.workers)
        print("\n".join(f"{what}: {value:.5g}" for what, value in run.items()))


if __name__ == "__main__":
    main()
