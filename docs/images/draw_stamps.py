"""Draw ``stamps.png``, the picture of the README: a slide, its masks, and the stamps of some cells.

From the top of a checkout: ``python docs/images/draw_stamps.py`` (needs ``cellstamp[demo]``).
"""

import tempfile
from pathlib import Path

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from PIL import Image
from skimage.segmentation import find_boundaries

from cellstamp import Project
from cellstamp.demo import SEGMENTATION, load_image

SIDE, ROWS, COLUMNS = 40, 4, 6
SHOWN = slice(40, 300), slice(0, 260)  # (y, x) of the slide
COLOURS = ListedColormap(["#101418", *np.random.default_rng(3).permutation([
    "#e8a33d", "#6db3e8", "#7fc97f", "#d36ba6", "#f0e05a", "#9a86d8", "#e8734a", "#4fc3b5",
])])  # fmt: skip


def extract(image, folder):
    """The project: segmented, and extracted."""
    everywhere = {"threads": 1, "cache": folder, "progress": False}
    config = {
        "ThresholdSegmentation": everywhere | SEGMENTATION,
        "HDF5CellExtraction": everywhere | {"image_size": SIDE},
    }
    project = Project(Path(folder) / "project", config)
    project.load_input_from_array(image, channel_names=["hematoxylin", "DAB"])
    project.segment()
    project.extract()
    return project


def draw(rgb, nuclei, cells, stamps):
    """The strip, as a matplotlib figure."""
    figure = Figure(figsize=(15, 4.3), facecolor="white", layout="constrained")
    slide, masks, found = figure.subfigures(1, 3, width_ratios=[1, 1, 1.5])
    axes = _panel(slide, "a slide")
    axes.imshow(rgb[SHOWN])
    axes = _panel(masks, "its masks")
    axes.imshow(np.where(cells, (cells * 5) % 8 + 1, 0)[SHOWN], cmap=COLOURS, interpolation="nearest")
    outlines = find_boundaries(nuclei, mode="inner")[SHOWN]
    axes.imshow(np.ma.masked_array(outlines, mask=~outlines), cmap=ListedColormap(["#101418"]), interpolation="nearest")
    found.suptitle(f"stamps: {ROWS * COLUMNS} of {stamps.n_obs} cells", fontsize=15)
    for axes, cell in zip(found.subplots(ROWS, COLUMNS).flat, _chosen(stamps), strict=True):
        nucleus, _, hematoxylin, dab = np.float32(stamps.obsm["single_cell_images"][cell])
        axes.imshow(np.stack([dab, 0.55 * dab + 0.45 * hematoxylin, hematoxylin], axis=-1), vmin=0, vmax=1)
        axes.contour(nucleus, levels=[0.5], colors="white", linewidths=0.7)
        axes.set(xticks=[], yticks=[])
    return figure


def _panel(figure, title):
    figure.suptitle(title, fontsize=15)
    axes = figure.subplots()
    axes.set_axis_off()
    return axes


def _chosen(stamps):
    """Rows of cells of middle size that lie in the part shown."""
    y, x = stamps.obs["y"].to_numpy(), stamps.obs["x"].to_numpy()
    inside = (y > SHOWN[0].start) & (y < SHOWN[0].stop) & (x > SHOWN[1].start) & (x < SHOWN[1].stop)
    rows = np.flatnonzero(inside & ~stamps.obs["exceeds_crop"].to_numpy())
    area = np.array([np.sum(stamps.obsm["single_cell_images"][row, 1] > 0.5) for row in rows])
    largest = rows[np.argsort(area)[-80:]]
    return np.sort(np.random.default_rng(0).choice(largest, ROWS * COLUMNS, replace=False))


if __name__ == "__main__":
    rgb, image = load_image()
    with tempfile.TemporaryDirectory() as folder:
        project = extract(image, folder)
        nuclei, cells = (np.asarray(project.sdata[f"seg_all_{mask}"]) for mask in ("nucleus", "cytosol"))
        picture = draw(rgb, nuclei, cells, project.h5sc)
        picture.savefig(Path(folder) / "picture.png", dpi=90)
        colours = Image.open(Path(folder) / "picture.png").convert("RGB").quantize(256)
    colours.save(Path(__file__).with_name("stamps.png"), optimize=True)
