"""Measure the gallery with a million cells in a real browser: first screen, further screens, sorting, memory.

Run it from the root of the repository, with the packages of the extra ``dev``, on an idle machine:

    python -m benchmarks.gallery                  # makes a file of 1,000,000 cells: 9 GB on disk
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import anndata
import numpy as np
import pandas as pd
import psutil

from cellstamp.checksums import checksum
from cellstamp.encoded_cells import EncodedCells
from cellstamp.encoding import StampEncoder
from cellstamp.h5sc.layout import CELL_ID, Layout
from cellstamp.h5sc.writer import StampWriter

from .sample import DATA

_DIFFERENT = 2000
"""Different cells in the file: encoding a million takes long, and reading does not notice."""
_FEATURES = 60
_CHROMIUM = "/usr/bin/chromium"
_READY = "[data-state=ready]"


def layout_of(n_cells: int, side: int) -> Layout:
    rng = np.random.default_rng(0)
    return Layout(
        cell_ids=np.arange(1, n_cells + 1, dtype=np.uint64),
        centers=rng.uniform(0, 54_000, (n_cells, 2)),
        mask_names=("nucleus", "cytosol"),
        channel_names=("DAPI", "actin", "tubulin"),
        image_size=side,
        normalization_ranges=((0.001, 0.999),) * 3,
        compression="lzf",
    )


def cells(n_cells: int, side: int) -> np.ndarray:
    """Round cells: two soft masks and three noisy channels, float16 (n_cells, 5, y, x)."""
    rng = np.random.default_rng(1)
    yy, xx = np.mgrid[:side, :side] - side / 2
    radius = rng.uniform(0.25, 0.42, (n_cells, 1, 1)) * side
    distance = np.hypot(yy * rng.uniform(0.8, 1.2, (n_cells, 1, 1)), xx)
    masks = [np.clip(share * radius - distance + 0.5, 0, 1) for share in (0.5, 1)]
    channels = [masks[number > 0] * rng.uniform(0.2, 1, (n_cells, side, side)) for number in range(3)]
    return np.stack([*masks, *channels], axis=1).astype(np.float16)


def make_file(path: Path, n_cells: int, side: int) -> None:
    layout = layout_of(n_cells, side)
    images = cells(min(_DIFFERENT, n_cells), side)
    boxes = np.tile([0, side, 0, side], (*images.shape[:2], 1))
    encoder = StampEncoder(layout.compression, layout.planes_per_chunk)
    payload = np.empty(encoder.room(*images.shape[:2], images[0, 0].nbytes), np.uint8)
    sizes = encoder.encode(images, boxes, payload)
    payload = payload[: sizes.sum()]
    with StampWriter(path, layout, path.with_suffix(".journal"), {}) as writer:
        for first in range(0, n_cells, len(images)):
            rows = np.arange(first, min(first + len(images), n_cells), dtype=np.int32)
            stored = payload[: sizes[: len(rows)].sum()]
            counts = np.zeros(2, np.int64), np.zeros(0, np.int32)
            writer.write(EncodedCells(rows, sizes[: len(rows)], stored, checksum(stored), *counts))
    path.with_suffix(".journal").unlink(missing_ok=True)
    write_features(path.with_name(f"{path.name}.features.h5ad"), layout)


def write_features(path: Path, layout: Layout) -> None:
    values = np.random.default_rng(2).normal(size=(len(layout.cell_ids), _FEATURES)).astype(np.float32)
    obs = pd.DataFrame({CELL_ID: layout.cell_ids}, index=layout.cell_ids.astype(str))
    names = [f"cell__feature_{number}" for number in range(_FEATURES)]
    anndata.AnnData(values, obs, pd.DataFrame(index=names)).write_h5ad(path)


@contextmanager
def command(path: Path) -> Iterator[tuple[psutil.Process, str, float]]:
    """Run the command; yields its process, its address, and the seconds until it showed this."""
    started = time.perf_counter()
    call = [sys.executable, "-u", "-c", "from cellstamp.cli import main; main()", "browse", str(path), "--no-open"]
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = re.search(r"http\S+", process.stdout.readline())
        assert address is not None
        try:
            yield psutil.Process(process.pid), address[0], time.perf_counter() - started
        finally:
            process.terminate()


def timed(action: Callable[[], object], page: Any) -> float:
    """Seconds until all cells on the screen are painted."""
    started = time.perf_counter()
    action()
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.locator(_READY).wait_for()
    return time.perf_counter() - started


def measure(path: Path, chromium: str, n_screens: int) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    with command(path) as (server, address, ready), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        found: dict[str, Any] = {"command_s": ready, "mib_at_start": memory(server)}
        found["first_screen_s"] = timed(lambda: page.goto(address), page)
        found["cells_on_screen"] = page.locator(".csg-cell").count()
        grid = page.locator(".csg-grid")
        found["mib_after_first_screen"] = memory(server)
        found["next_screen_s"] = spread([timed(lambda: grid.press("PageDown"), page) for _ in range(n_screens)])
        found["far_screen_s"] = spread([timed(lambda k=k: jump(page, k), page) for k in places(n_screens)])
        found["mib_after_screens"] = memory(server)
        page.get_by_label("Mask outlines").check()
        found["far_screen_with_outlines_s"] = spread([timed(lambda k=k: jump(page, k), page) for k in places(20)])
        sort = page.get_by_label("Sort by")
        found["sort_s"] = timed(lambda: sort.select_option("cell__feature_7"), page)
        found["sorted_far_screen_s"] = spread([timed(lambda k=k: jump(page, k), page) for k in places(n_screens)])
        found["contrast_s"] = timed(lambda: page.get_by_label("White level of DAPI").fill("200"), page)
        found["select_all_s"] = timed(lambda: grid.press("Control+a"), page)
        found["mib_at_end"] = memory(server)
        browser.close()
    return found


def jump(page: Any, place: float) -> None:
    page.locator(".csg-grid").evaluate("(grid, part) => { grid.scrollTop = part * grid.scrollHeight; }", place)


def places(n: int) -> list[float]:
    return np.random.default_rng(3).random(n).tolist()


def memory(process: psutil.Process) -> int:
    return round(process.memory_info().rss / 2**20)


def spread(seconds: list[float]) -> dict[str, float]:
    return {"median": round(median(seconds), 3), "p95": round(float(np.quantile(seconds, 0.95)), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--screens", type=int, default=100)
    parser.add_argument("--chromium", default=_CHROMIUM)
    parser.add_argument("--data", type=Path, default=DATA)
    given = parser.parse_args()
    path = given.data / f"gallery_{given.cells}_cells_of_{given.side}px.h5sc"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        make_file(path, given.cells, given.side)
    print(
        json.dumps(
            {"gib": round(path.stat().st_size / 2**30, 1), **measure(path, given.chromium, given.screens)}, indent=2
        )
    )


if __name__ == "__main__":
    main()
