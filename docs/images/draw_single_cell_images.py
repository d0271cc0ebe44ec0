"""Draw ``single_cell_images.png``, the README's picture: an image with its masks, and single-cell images cut from it.

From the top of a checkout: ``python docs/images/draw_single_cell_images.py`` (needs ``cellstamp[demo]``).
"""

import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from cellstamp import Project
from cellstamp.demo import CELL_CHANNELS, CELL_IMAGE_SIZE, CELL_SEGMENTATION, load_cells
from cellstamp.demo.picture import CELL, INK, NUCLEUS, PAPER, blend, draw_outlines, in_colours

ROWS, COLUMNS = 5, 5
SHOWN = slice(20, 310), slice(20, 310)  # (y, x) of the image


def extract(image, folder, **more):
    """Return the project: segmented and extracted."""
    everywhere = {"threads": 1, "cache": folder, "progress": False}
    config = {
        "ThresholdSegmentation": everywhere | CELL_SEGMENTATION,
        "HDF5CellExtraction": everywhere | {"image_size": CELL_IMAGE_SIZE, "border": "pad"} | more,
    }
    project = Project(Path(folder) / "project", config)
    project.load_input_from_array(image, channel_names=list(CELL_CHANNELS))
    project.segment()
    project.extract()
    return project


def draw(image, nuclei, cells, h5sc):
    """Return the picture: the image with its masks on the left, single-cell images on the right."""
    figure = Figure(figsize=(12, 6.6), facecolor=PAPER)
    left = figure.add_axes((0.012, 0.022, 0.476, 0.866))
    left.imshow(blend(image), interpolation="bicubic")
    draw_outlines(left, cells, CELL, 1.5)
    draw_outlines(left, nuclei, NUCLEUS, 1.5)
    left.set(xlim=(SHOWN[1].start, SHOWN[1].stop), ylim=(SHOWN[0].stop, SHOWN[0].start))
    left.set_axis_off()
    grid = figure.add_gridspec(
        ROWS, COLUMNS, left=0.512, right=0.988, bottom=0.022, top=0.888, wspace=0.06, hspace=0.06
    )
    for place, row in zip(grid, rows_to_show(h5sc), strict=True):
        axes = figure.add_subplot(place)
        planes = np.float32(h5sc.obsm["single_cell_images"][row])
        axes.imshow(in_colours(planes[2:]), interpolation="bicubic")
        axes.set_axis_off()
    text = {"color": INK, "fontsize": 27, "ha": "center", "va": "center"}
    figure.text(0.25, 0.942, "image and masks", **text)
    figure.text(0.75, 0.942, "single-cell images", **text)
    return figure


def rows_to_show(h5sc):
    """Return the rows of the largest cells whose crops lie within the shown part, in the order of the file."""
    half = CELL_IMAGE_SIZE // 2
    (y, x), (ys, xs) = (h5sc.obs[name].to_numpy() for name in "yx"), SHOWN
    inside = (y > ys.start + half) & (y < ys.stop - half) & (x > xs.start + half) & (x < xs.stop - half)
    rows = np.flatnonzero(inside)
    areas = [np.sum(h5sc.obsm["single_cell_images"][row][1] > 0.5) for row in rows]
    return np.sort(rows[np.argsort(areas)[-ROWS * COLUMNS :]])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        image = load_cells()
        project = extract(image, folder)
        masks = [np.asarray(project.sdata[name]) for name in ("seg_all_nucleus", "seg_all_cytosol")]
        draw(image, *masks, project.h5sc).savefig(Path(folder) / "picture.png", dpi=100)
        picture = Image.open(Path(folder) / "picture.png").convert("RGB")
    # dithered: a third of the size, without visible steps of colour
    small = picture.quantize(palette=picture.quantize(256), dither=Image.Dither.FLOYDSTEINBERG)
    small.save(Path(__file__).with_name("single_cell_images.png"), optimize=True)
