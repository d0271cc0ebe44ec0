"""Make samples: SpatialData stores in the layout of projects, with simulated cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from scipy.ndimage import gaussian_filter

from cellstamp.source import ome
from cellstamp.source.load.staging import Staging, staged
from cellstamp.source.load.store import write_centers
from cellstamp.source.names import CYTOSOL, IMAGE, NUCLEUS

DATA = Path(__file__).parent / ".data"
"""Default folder for samples."""

_NUCLEUS = 0.42
"""Radius of a nucleus / radius of its cell."""

_DIRECTIONS = 256
_TEXTURE = 1024


@dataclass(frozen=True)
class Sample:
    """A square image with cells on a jittered grid.

    Attributes
    ----------
    side
        Side of the image, in pixels.
    channels
        Number of channels. The first shows nuclei, the others cells.
    chunk
        Side of the stored chunks of image and masks, in pixels.
    spacing
        Mean distance between neighbouring cells, in pixels.
    radius
        Minimum and maximum radius of a cell, in pixels; its outline varies by about 15%. Touching cells share a border.
    """

    side: int = 6000
    channels: int = 3
    chunk: int = 2000
    spacing: int = 48
    radius: tuple[float, float] = (20.0, 30.0)

    @property
    def name(self) -> str:
        """Return the name of the sample and its file."""
        low, high = self.radius
        return f"{self.side}px_{self.channels}ch_chunk{self.chunk}_every{self.spacing}_r{low:g}-{high:g}"

    def store(self, folder: Path = DATA) -> Path:
        """Return the path of the sample's store with masks and centres; make it if missing."""
        path = folder / f"{self.name}.zarr"
        if not path.exists():
            print(f"making {path} ...", flush=True)
            folder.mkdir(parents=True, exist_ok=True)
            _write(self, path)
        return path


class _Cells:
    """Positions and shapes of a sample's cells."""

    def __init__(self, sample: Sample) -> None:
        rng = np.random.default_rng(sample.side + sample.spacing)
        grid = np.arange(sample.spacing // 2, sample.side, sample.spacing)
        places = np.stack(np.meshgrid(grid, grid, indexing="ij"), axis=-1).reshape(-1, 2)
        self.yx = np.rint(places + rng.uniform(-0.2, 0.2, places.shape) * sample.spacing).astype(int)
        self._radius = rng.uniform(*sample.radius, len(places))
        self._waves = rng.normal(0, 0.05, (len(places), 4))
        self._phases = rng.uniform(0, 2 * np.pi, (len(places), 4))
        self.reach = int(np.ceil(1.25 * sample.radius[1]))

    @cached_property
    def _around(self) -> tuple[np.ndarray, np.ndarray]:
        """Return distance and direction of the pixels around a centre, in pixels and in 1/256 turns."""
        y, x = np.mgrid[-self.reach : self.reach + 1, -self.reach : self.reach + 1]
        turns = np.arctan2(y, x) / (2 * np.pi) % 1
        return np.hypot(y, x), (turns * _DIRECTIONS).astype(int) % _DIRECTIONS

    def near(self, top: int, bottom: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield cells near some rows: index, and boolean masks of cell and nucleus around the centre."""
        angles = np.linspace(0, 2 * np.pi, _DIRECTIONS, endpoint=False)
        distance, direction = self._around
        rows = self.yx[:, 0]
        for k in np.flatnonzero((rows >= top - self.reach) & (rows < bottom + self.reach)):
            outline = self.radii(int(k), angles)[direction]
            yield int(k), distance < outline, distance < _NUCLEUS * outline

    def radii(self, k: int, angles: np.ndarray) -> np.ndarray:
        """Return the distances of a cell's outline from its centre, in pixels, in some directions."""
        waves = self._waves[k] @ np.cos(np.outer([2, 3, 4, 5], angles) + self._phases[k, :, np.newaxis])
        return self._radius[k] * np.clip(1 + waves, 0.75, 1.24)


def cell_outlines(sample: Sample, n_vertices: int) -> dict[str, np.ndarray]:
    """Return the outlines of the sample's nuclei and cells: (cells, vertices, x and y), in pixels as in SpatialData."""
    cells = _Cells(sample)
    angles = np.linspace(0, 2 * np.pi, n_vertices, endpoint=False)
    radii = np.stack([cells.radii(k, angles) for k in range(len(cells.yx))])[..., np.newaxis]
    steps = radii * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    centres = cells.yx[:, np.newaxis, ::-1] + 0.5
    return {"nucleus": centres + _NUCLEUS * steps, "cytosol": centres + steps}


def _paint(cells: _Cells, top: int, bottom: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows ``top`` to ``bottom`` of the nucleus and cytosol masks. Where cells overlap, the first one wins."""
    nucleus, cytosol = np.zeros((2, bottom - top, side), np.uint32)
    for k, cell, core in cells.near(top, bottom):
        y, x = cells.yx[k] - (top, 0) - cells.reach
        size = len(cell)
        y0, y1, x0, x1 = max(y, 0), min(y + size, bottom - top), max(x, 0), min(x + size, side)
        if y0 >= y1 or x0 >= x1:
            continue
        part = slice(y0 - y, y1 - y), slice(x0 - x, x1 - x)
        place = slice(y0, y1), slice(x0, x1)
        free = cytosol[place] == 0
        cytosol[place][free & cell[part]] = k + 1
        nucleus[place][free & core[part]] = k + 1
    return nucleus, cytosol


def _shine(labels: np.ndarray, level: np.ndarray, texture: np.ndarray, top: int, rng: np.random.Generator) -> Any:
    """Return one channel of some rows: brightness of each cell, texture, and camera noise."""
    rows, columns = (np.arange(n) % _TEXTURE for n in labels.shape)
    pixels = level[labels] * texture[np.ix_((rows + top) % _TEXTURE, columns)]
    pixels += np.sqrt(pixels) * 1.5 * rng.standard_normal(labels.shape, np.float32)
    return np.clip(pixels, 0, 65535).astype(np.uint16)


def _write(sample: Sample, path: Path) -> None:
    rng = np.random.default_rng(sample.channels)
    cells = _Cells(sample)
    side, chunk = sample.side, min(sample.chunk, sample.side)
    levels = 300 + 2500 * rng.lognormal(0, 0.3, (sample.channels, len(cells.yx) + 1)).astype(np.float32)
    levels[:, 0] = 300
    texture = gaussian_filter(rng.standard_normal((_TEXTURE, _TEXTURE)).astype(np.float32), 2, mode="wrap")
    texture = np.clip(1 + 0.3 * texture / texture.std(), 0.05, None)
    with staged(path) as staging:
        image = new_array(staging, IMAGE, (sample.channels, side, side), (1, chunk, chunk), np.uint16)
        masks = [new_array(staging, name, (side, side), (chunk, chunk), np.uint32) for name in (NUCLEUS, CYTOSOL)]
        for top in range(0, side, chunk):
            bottom = min(top + chunk, side)
            labels = _paint(cells, top, bottom, side)
            for mask, pixels in zip(masks, labels, strict=True):
                mask[top:bottom] = pixels
            for channel, level in enumerate(levels):
                shifted = np.roll(texture, 97 * channel, axis=(0, 1))
                image[channel, top:bottom] = _shine(labels[min(channel, 1)], level, shifted, top, rng)
        write_centers(staging, [NUCLEUS, CYTOSOL], run=map)


def new_array(staging: Staging, element: str, shape: Any, chunks: Any, dtype: Any) -> Any:
    """Make the empty array of a new image or mask."""
    kind, name = element.split("/")
    names = [f"ch{k}" for k in range(shape[0])] if kind == "images" else []
    attributes = ome.raster_attributes(kind, name, [shape], format_=staging.format, channel_names=names)
    path = staging.group(element, attributes) / "s0"
    return zarr.create_array(str(path), shape=shape, chunks=chunks, dtype=dtype, fill_value=0)
