"""The two sample images, and settings that segment them well."""

from importlib.resources import files

import numpy as np
import numpy.typing as npt

CELL_CHANNELS = ("DAPI", "FITC", "rhodamine")
CELL_IMAGE_SIZE = 48
"""Side of a crop in pixels: the largest cell is 42 pixels across."""
CELL_SEGMENTATION = {
    "nucleus_channel": "DAPI",
    "smoothing": 2,
    "window": 61,
    "floor": 0.5,
    "min_distance": 7,
    "min_area": 80,
    "expansion": 6,
}
"""For round nuclei 20 pixels across, in cells 33 pixels across."""

CHANNELS = ("hematoxylin", "DAB")
SEGMENTATION = {"nucleus_channel": "hematoxylin", "window": 41, "min_distance": 4, "expansion": 4}
"""For nuclei 15 pixels across, close to each other: those of the tissue image."""


def load_cells() -> npt.NDArray[np.uint8]:
    """Return the image of cultured fly cells that ships with cellstamp; `CELL_CHANNELS` names its channels.

    It is a part of CellProfiler's example ExampleFly. Its source and licence are in ``fly_cells.LICENSE.txt``.

    Returns
    -------
    numpy.ndarray
        uint8 (3, 440, 480), in the order channel, y, x: nuclei (DAPI) and two stains of the cell.
    """
    import tifffile

    with files("cellstamp.demo").joinpath("fly_cells.tif").open("rb") as file:
        cells: npt.NDArray[np.uint8] = tifffile.imread(file)
    return cells


def load_image() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16]]:
    """Return scikit-image's sample of stained tissue, and its two stains separated.

    Returns
    -------
    rgb
        uint8 (y, x, 3).
    channels
        uint16 (2, y, x): hematoxylin (nuclei) and DAB (the antibody). Each is stretched so that the strongest stain is
        near 65535.
    """
    from skimage.color import rgb2hed
    from skimage.data import immunohistochemistry

    rgb: npt.NDArray[np.uint8] = immunohistochemistry()
    stains: npt.NDArray[np.float64] = np.moveaxis(rgb2hed(rgb)[..., [0, 2]], -1, 0)
    low, high = np.quantile(stains, [0.01, 0.999], axis=(1, 2), keepdims=True)
    stretched: npt.NDArray[np.float64] = np.clip((stains - low) / (high - low), 0, 1)
    return rgb, np.round(stretched * 65535).astype(np.uint16)
