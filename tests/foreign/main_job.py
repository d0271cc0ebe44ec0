"""The main job, as a user runs it: load, extract, read, train. Prints a digest of the images.

Arguments: folder, number of workers. Run by ``test_operating_systems.py`` in a process that emulates another system.
"""

from __future__ import annotations

import gc
import hashlib
import sys
from pathlib import Path

import numpy as np


def make_cells() -> tuple[np.ndarray, np.ndarray]:
    """Twenty square cells: an image uint16 (2, 250, 200), and their mask."""
    mask = np.zeros((250, 200), np.uint32)
    for number in range(20):
        y, x = (50 * place + 15 for place in divmod(number, 4))
        mask[y : y + 20, x : x + 16] = number + 1
    image = np.random.default_rng(0).integers(0, 60000, (2, *mask.shape))
    return image.astype(np.uint16), mask


def main(folder: Path, threads: int) -> None:
    from cellstamp import Project
    from cellstamp.errors import OutputError
    from cellstamp.training.batches import iter_batches

    keys = {"threads": threads, "image_size": 32, "max_batch_size": 4, "cache": str(folder / "cache")}
    project = Project(folder / "project", {"HDF5CellExtraction": keys})
    image, mask = make_cells()
    project.load_input_from_array(image, channel_names=["dna", "actin"])
    project.load_segmentation(nucleus=mask)
    project.load_segmentation(nucleus=mask, overwrite=True)
    project.extract()
    opened = project.h5sc
    images = opened.obsm["single_cell_images"][:]
    print(hashlib.sha256(images.tobytes()).hexdigest())
    try:
        project.extract(overwrite=True)
    except OutputError as error:
        print(ascii(str(error)))
    del opened
    gc.collect()
    project.extract(overwrite=True)
    project.add_table()
    batches = [batch for batch, *_ in iter_batches(project.extraction_f.output_path, batch_size=7)]
    print(sum(len(batch) for batch in batches))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
