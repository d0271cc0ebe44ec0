"""Measure extractions with elements on other pixel grids than the image, beside those of the same cells on its grid.

Run it from the root of the repository, on an idle machine:

    python -m benchmarks.sampled                     # 5 GB in memory, 2 GB on disk
    python -m benchmarks.sampled --side 1000 --rounds 1
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from cellstamp.source.library_messages import quiet
from cellstamp.source.names import CYTOSOL, IMAGE, NUCLEUS

from .in_turn import compare, run_in_turn
from .sample import DATA, Sample

ANGLE = np.radians(10)


def _masks(suffix: str) -> dict[str, str]:
    return {"nucleus_labels": f"nucleus{suffix}", "cytosol_labels": f"cytosol{suffix}"}


PLAIN, TWO = {"image": "slide", **_masks("")}, {"image": ["slide", "second"], **_masks("")}
CASES: Mapping[str, Mapping[str, Any]] = {
    "plain": PLAIN,
    "two images": TWO,
    "labels at half the resolution": PLAIN | _masks("_half"),
    "turned labels": PLAIN | _masks("_turned"),
    "two images, one of them turned": TWO | {"image": ["slide", "turned"]},
    # crops of the same area
    "crops of twice the pixel size": PLAIN | {"image_pixel_size": 1.0, "crop_pixel_size": 2.0, "image_size": 64},
}
COMPARED_WITH = {
    name: "two images" if "two" in name else "plain" for name in CASES if name not in ("plain", "two images")
}


def placed_store(sample: Sample, data: Path) -> Path:
    """Return a store with the sample's elements, none of them with stored centres, and the same on other grids."""
    path = data / f"{sample.name}_sampled.zarr"
    if not path.exists():
        with quiet():
            _write(sample, sample.store(data), path)
    return path


def _write(sample: Sample, source: Path, path: Path) -> None:
    import dask.array
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, Labels2DModel
    from spatialdata.transformations import Affine, Identity, Scale

    image, nucleus, cytosol = (
        zarr.open_array(str(source / name / "s0"), mode="r")[...] for name in (IMAGE, NUCLEUS, CYTOSOL)
    )
    to_slide = _turn(sample.side)
    here, double, back = Identity(), Scale([2, 2], axes=("y", "x")), Affine(to_slide, ("y", "x"), ("y", "x"))

    def chunked(pixels: NDArray[Any]) -> Any:
        return dask.array.from_array(pixels, chunks=(*[1] * (pixels.ndim - 2), sample.chunk, sample.chunk))

    def an_image(pixels: NDArray[Any], way: Any) -> Any:
        return Image2DModel.parse(chunked(pixels), dims=("c", "y", "x"), transformations={"global": way})

    def some_labels(pixels: NDArray[Any], way: Any) -> Any:
        return Labels2DModel.parse(chunked(pixels), dims=("y", "x"), transformations={"global": way})

    turned = np.stack([_turned(plane, to_slide) for plane in image])
    sdata = SpatialData(
        images={"slide": an_image(image, here), "second": an_image(image, here), "turned": an_image(turned, back)}
    )
    for name, mask in {"nucleus": nucleus, "cytosol": cytosol}.items():
        sdata.labels[name] = some_labels(mask, here)
        sdata.labels[f"{name}_half"] = some_labels(mask[::2, ::2], double)
        sdata.labels[f"{name}_turned"] = some_labels(_turned(mask, to_slide), back)
    sdata.write(path)


def _turn(side: int) -> NDArray[np.float64]:
    """Return the matrix from a turned grid that covers the slide to the slide, for (y, x, 1)."""
    cosine, sine = np.cos(ANGLE), np.sin(ANGLE)
    linear = np.array([[cosine, -sine], [sine, cosine]])
    middle, other = side / 2, _turned_side(side) / 2
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = linear, middle - linear @ [other, other]
    return matrix


def _turned_side(side: int) -> int:
    return int(np.ceil(side * (np.cos(ANGLE) + np.sin(ANGLE))))


def _turned(plane: NDArray[Any], to_slide: NDArray[np.float64]) -> NDArray[Any]:
    shape = (_turned_side(plane.shape[0]),) * 2
    offset = to_slide[:2] @ [0.5, 0.5, 1] - 0.5
    return affine_transform(plane, to_slide[:2, :2], offset, output_shape=shape, order=0)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampled", description=__doc__)
    parser.add_argument("--side", type=int, default=6000, help="side of the image in pixels")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=Path, default=DATA, help="folder for samples")
    options = parser.parse_args()
    data = options.data.resolve()
    store = placed_store(Sample(options.side, chunk=min(2000, options.side // 2)), data)
    runs = run_in_turn(store, CASES, data, options.workers, options.rounds)
    for name, other in COMPARED_WITH.items():
        compare(runs, name, other)


if __name__ == "__main__":
    main()
