"""The same cells and the same numbers as scportrait 1.8.0, on real images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from cellstamp import HDF5CellExtraction, read_h5sc
from cellstamp.h5sc.layout import removed_name
from restatement import same_bits
from stores import CYTOSOL, NUCLEUS, Sample, write_store

SHARED = Path(__file__).parents[2] / "shared"
NAMES = ["jump", "jump_raw", "codex_crop"]
RUNS: dict[str, dict[str, Any]] = {
    "serial": {"threads": 1, "engine": "serial"},
    "two workers": {"threads": 2, "max_batch_size": 50},
    "zarr": {"threads": 2, "file_format": "zarr"},
}
# Many of the real cells are larger than the crops of the reference.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:\d+ of \d+ cells exceed their crop:UserWarning"),
    pytest.mark.skipif(not (SHARED / "reference").is_dir(), reason="the reference files are not here"),
]


def load_sample(dataset: str, crop: str | None) -> Sample:
    """Real pixels; ``crop`` is "top:bottom,left:right"."""
    folder = SHARED / "data" / dataset
    rows, columns = (slice(*map(int, part.split(":"))) for part in (crop or "0:100000,0:100000").split(","))
    found = {name: folder / f"labels_{name.removeprefix('seg_all_')}.tif" for name in (NUCLEUS, CYTOSOL)}
    masks = {name: tifffile.imread(file)[rows, columns] for name, file in found.items() if file.exists()}
    names = (folder / "channels.txt").read_text().split("\n")
    return Sample(tifffile.imread(folder / "image.tif")[:, rows, columns], masks, [name for name in names if name])


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str | None], Path]:
    """Stores of the real images, each written once."""
    written: dict[tuple[str, str | None], Path] = {}

    def store(dataset: str, crop: str | None) -> Path:
        if (dataset, crop) not in written:
            path = tmp_path_factory.mktemp("real") / "store.zarr"
            written[dataset, crop] = write_store(path, load_sample(dataset, crop), chunks=500)
        return written[dataset, crop]

    return store


@pytest.mark.parametrize("how", RUNS)
@pytest.mark.parametrize("name", NAMES)
def test_same_cells_and_same_numbers(
    tmp_path: Path, stores: Callable[[str, str | None], Path], name: str, how: str
) -> None:
    reference = SHARED / "reference" / name
    made_with = json.loads((reference / "made_with.json").read_text())
    config = {**made_with["config"], **RUNS[how], "cache": str(tmp_path / "cache")}
    step = HDF5CellExtraction(config, tmp_path / "out", filehandler=stores(made_with["dataset"], made_with["crop_y_x"]))
    step()
    path = Path(str(step.output_path))
    removed = [int(line) for line in path.with_name(removed_name(path.name)).read_text().split()]
    # scportrait's are in no order.
    assert removed == sorted(int(line) for line in (reference / "removed_classes.csv").read_text().split())
    got = read_h5sc(step.output_path)
    by_id = np.argsort(got.obs["scportrait_cell_id"].to_numpy())  # rows of a zarr store follow the slide
    with h5py.File(reference / "single_cells.h5sc") as expected:
        for column, item in (
            (got.obs["scportrait_cell_id"].to_numpy()[by_id], "obs/scportrait_cell_id"),
            (got.var["channels"].tolist(), "var/channels"),
            (got.obs_names.tolist(), "obs/_index"),
        ):
            values = expected[item][:]
            assert list(column) == [each.decode() if isinstance(each, bytes) else each for each in values], item
        # 1 in 100,000 might differ by one unit in the last place. None does: the arithmetic is the same, step by step.
        assert same_bits(got.obsm["single_cell_images"][:][by_id], expected["obsm/single_cell_images"][:])
