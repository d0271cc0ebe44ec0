"""Draw the demo's picture: the image with its masks, and below it every plane of some single-cell images."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from cellstamp.h5sc.layout import CELL_ID, IMAGES

if TYPE_CHECKING:
    from anndata import AnnData

COLOURS = np.array([[0.2, 0.4, 1.0], [0.05, 0.85, 0.25], [0.95, 0.2, 0.1]])
"""RGB of the three channels: blue, green and red."""
_GAMMA = 1.4
NUCLEUS, CELL = "#ffd23f", "#3fc1ff"
"""Outlines of nuclei and of cells, as in cellstamp's other pictures."""
PAPER, INK = "#101418", "#f2f4f7"
ACROSS, DOWN = 3, 2
"""Columns and rows that the image is divided into; one cell of each part is shown."""


def draw_contact_sheet(
    h5sc: "AnnData", image: NDArray[np.uint8], nuclei: NDArray[np.uint32], cells: NDArray[np.uint32], *, to: Path
) -> None:
    """Draw the image with its masks, and the planes of six of its cells.

    Parameters
    ----------
    h5sc
        The single-cell images, as ``Project.h5sc`` returns them.
    image
        uint8 (3, y, x), the image the cells are from.
    nuclei, cells
        Integer (y, x), the masks.
    to
        The PNG to write.
    """
    rows = cells_to_show(h5sc, image.shape[1:])
    figure = Figure(figsize=(8, 13.6), facecolor=PAPER)
    overview = figure.add_axes((0.02, 0.435, 0.96, 0.525))
    _draw_overview(overview, image, nuclei, cells)
    _draw_windows(overview, h5sc, rows)
    _draw_planes(figure, h5sc, rows)
    texts: dict[str, Any] = {"color": INK, "ha": "center", "va": "center", "fontsize": 19}
    figure.text(0.5, 0.978, f"{nuclei.max()} nuclei and cells in a fluorescence image", weight="bold", **texts)
    figure.text(0.5, 0.412, f"{len(rows)} of {h5sc.n_obs} single-cell images", weight="bold", **texts)
    figure.savefig(to, dpi=130)


def cells_to_show(h5sc: "AnnData", shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the rows of six cells spread over the image: the one nearest to the middle of each of six parts."""
    centres = h5sc.obs[["y", "x"]].to_numpy(dtype=float)
    middles = [
        ((2 * row + 1) / (2 * DOWN) * shape[0], (2 * column + 1) / (2 * ACROSS) * shape[1])
        for row in range(DOWN)
        for column in range(ACROSS)
    ]
    return np.array([np.argmin(np.sum((centres - middle) ** 2, axis=1)) for middle in middles])


def blend(image: NDArray[Any]) -> NDArray[np.float64]:
    """Return the channels (3, y, x) in their colours, each stretched from dark to bright: float64 (y, x, 3)."""
    low, high = np.quantile(image, [0.3, 0.998], axis=(1, 2), keepdims=True)
    return in_colours(np.clip((image - low) / (high - low), 0, 1))


def in_colours(channels: NDArray[Any]) -> NDArray[np.float64]:
    """Return the channels (3, y, x), 0 to 1, in their colours: float64 (y, x, 3). Dim pixels get darker."""
    blended: NDArray[np.float64] = np.clip(np.tensordot(channels**_GAMMA, COLOURS, axes=(0, 0)), 0, 1)
    return blended


def draw_outlines(axes: Any, mask: NDArray[Any], colour: str, width: float) -> None:
    """Draw the outline of each label of a mask (y, x): its own, also where two labels touch."""
    for label in np.unique(mask[mask > 0]):
        y, x = np.nonzero(mask == label)
        top, left = y.min() - 1, x.min() - 1
        window = np.zeros((y.max() - top + 2, x.max() - left + 2))
        window[y - top, x - left] = 1
        rows, columns = np.arange(window.shape[0]) + top, np.arange(window.shape[1]) + left
        axes.contour(columns, rows, window, levels=[0.5], colors=colour, linewidths=width)


def _draw_overview(axes: Any, image: NDArray[Any], nuclei: NDArray[Any], cells: NDArray[Any]) -> None:
    axes.imshow(blend(image), interpolation="bicubic")
    draw_outlines(axes, cells, CELL, 1.1)
    draw_outlines(axes, nuclei, NUCLEUS, 1.1)
    axes.set(xlim=(-0.5, image.shape[2] - 0.5), ylim=(image.shape[1] - 0.5, -0.5))
    axes.set_axis_off()


def _draw_windows(axes: Any, h5sc: "AnnData", rows: NDArray[np.int64]) -> None:
    side = h5sc.obsm[IMAGES].shape[-1]
    label = {"fontsize": 17, "weight": "bold", "color": PAPER, "va": "bottom", "ha": "left"}
    for name, (x, y) in zip(_names(h5sc, rows), np.asarray(h5sc.obsm["spatial"])[rows], strict=True):
        left, top = round(x) - side // 2, round(y) - side // 2
        axes.add_patch(Rectangle((left, top), side, side, fill=False, edgecolor=INK, linewidth=2.5))
        axes.text(left, top, name, bbox={"facecolor": INK, "edgecolor": INK, "pad": 1.5}, **label)


def _draw_planes(figure: Any, h5sc: "AnnData", rows: NDArray[np.int64]) -> None:
    """Draw a row for each plane and a column for each cell."""
    names = ["nucleus", "cell", *h5sc.var["channels"].iloc[2:]]
    images = np.stack([np.asarray(h5sc.obsm[IMAGES][row]) for row in rows]).astype(np.float32)
    grid = figure.add_gridspec(
        len(names), len(rows), left=0.2, right=0.98, bottom=0.01, top=0.375, wspace=0.05, hspace=0.05
    )
    for plane, name in enumerate(names):
        for column, cell in enumerate(_names(h5sc, rows)):
            axes = figure.add_subplot(grid[plane, column])
            _draw_plane(axes, images[column], plane)
            if plane == 0:
                axes.set_title(cell, color=INK, fontsize=17, weight="bold", pad=5)
            if column == 0:
                colour = {0: NUCLEUS, 1: CELL}.get(plane, INK)
                axes.set_ylabel(name, color=colour, fontsize=17, rotation=0, ha="right", va="center", labelpad=8)


def _draw_plane(axes: Any, planes: NDArray[np.float32], plane: int) -> None:
    axes.imshow(planes[plane], cmap="gray", vmin=0, vmax=1, interpolation="bicubic" if plane > 1 else "nearest")
    for mask, colour in zip(planes[1::-1], (CELL, NUCLEUS), strict=True):
        axes.contour(mask, levels=[0.5], colors=colour, linewidths=1.6)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _names(h5sc: "AnnData", rows: NDArray[np.int64]) -> Sequence[str]:
    return [str(name) for name in h5sc.obs[CELL_ID].to_numpy()[rows]]
