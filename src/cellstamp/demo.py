"""The demonstration: a real tissue image, segmented on the spot, extracted, and drawn. Needs no network.

Everything here is done through public names, as in a notebook. scikit-image and matplotlib (``cellstamp[demo]``) are
imported when they are used.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cellstamp.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from anndata import AnnData

CHANNELS = ("hematoxylin", "DAB")
CROP_SIZE = 56
SEGMENTATION = {"nucleus_channel": "hematoxylin", "window": 41, "min_distance": 4, "expansion": 4}
"""For nuclei 15 pixels across, close to each other."""
ROWS = 6

MARKER = ".made-by-cellstamp-demo"
"""A file in the demo's folder: what has it may be made anew."""

_OUTLINE_COLOUR = "#ff7000"


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration has written.

    Attributes
    ----------
    project
        The project's folder.
    h5sc
        The single-cell images.
    picture
        A PNG contact sheet of some of them.
    """

    project: Path
    h5sc: Path
    picture: Path


def run_demo(folder: Path) -> DemoResult:
    """Extract the cells of scikit-image's sample of stained tissue and draw some of them.

    Makes the project ``<folder>/project`` and the picture ``<folder>/contact_sheet.png``; both are made anew where an
    earlier run of this has made the folder.

    Parameters
    ----------
    folder
        Where to write: absent, empty, or made by this before.

    Returns
    -------
    DemoResult
        The paths of the two results.

    Raises
    ------
    ConfigError
        scikit-image or matplotlib is not installed.
    OutputError
        Something else is in the folder.
    """
    _check_extras()
    _claim(folder)
    from cellstamp import Project

    rgb, channels = load_image()
    everywhere = {"threads": 2, "cache": str(folder / "cache")}
    config = {
        "ThresholdSegmentation": {**everywhere, **SEGMENTATION},
        "HDF5CellExtraction": {**everywhere, "image_size": CROP_SIZE},
    }
    project = Project(str(folder / "project"), config_path=config, overwrite=True)
    project.load_input_from_array(channels, channel_names=list(CHANNELS))
    project.segment()
    project.extract()

    picture = folder / "contact_sheet.png"
    draw_contact_sheet(project.h5sc, rgb, np.asarray(project.sdata["seg_all_nucleus"]), picture)
    return DemoResult(project=folder / "project", h5sc=Path(project.extraction_f.output_path), picture=picture)


def _check_extras() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("skimage", "matplotlib") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"the demo needs {' and '.join(missing)}: install them with pip install 'cellstamp[demo]'")


def _claim(folder: Path) -> None:
    """Take a folder for the demo: one that has nothing of anybody else's."""
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if there and MARKER not in there:
        held = ", ".join(there[:3]) + (", ..." if len(there) > 3 else "")
        raise OutputError(
            f"{folder} is not empty, and not from an earlier demo: it has {held}. Give the demo a folder that is not "
            "there yet, or an empty one"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text("cellstamp demo made this folder, and replaces project and contact_sheet.png in it.\n")


def load_image() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16]]:
    """Return the tissue image and its stains, separated.

    Returns
    -------
    rgb
        uint8 (y, x, 3).
    channels
        uint16 (2, y, x): hematoxylin (nuclei) and DAB (the antibody), the two stains on this slide. Each is stretched
        so that the strongest stain is near 65535.
    """
    from skimage.color import rgb2hed
    from skimage.data import immunohistochemistry

    rgb: npt.NDArray[np.uint8] = immunohistochemistry()
    stains: npt.NDArray[np.float64] = np.moveaxis(rgb2hed(rgb)[..., [0, 2]], -1, 0)
    low, high = np.quantile(stains, [0.01, 0.999], axis=(1, 2), keepdims=True)
    stretched: npt.NDArray[np.float64] = np.clip((stains - low) / (high - low), 0, 1)
    return rgb, np.round(stretched * 65535).astype(np.uint16)


def draw_contact_sheet(h5sc: "AnnData", rgb: npt.NDArray[np.uint8], nuclei: npt.NDArray[np.uint32], to: Path) -> None:
    """Draw some cells of a file: where they are in the image, and every plane of their stamps with the mask outlines.

    Parameters
    ----------
    h5sc
        As ``Project.h5sc`` returns it.
    rgb
        uint8 (y, x, 3), the image the cells are from.
    nuclei
        Integer (y, x), the nucleus mask.
    to
        The PNG to write.
    """
    from matplotlib.figure import Figure

    from cellstamp import plot_cells

    rows = np.unique(np.linspace(0, h5sc.n_obs - 1, ROWS).astype(int))
    figure = Figure(figsize=(14, 8.6), facecolor="white", layout="constrained")
    title = f"cellstamp demo: {h5sc.n_obs} cells from one tissue image, {len(rows)} of them shown"
    figure.suptitle(title, fontsize=16, weight="bold")
    panels: Any = figure.subplots(1, 2, width_ratios=[1.45, 1])
    _draw_overview(panels[0], h5sc, rgb, nuclei, rows)
    ids = h5sc.obs["scportrait_cell_id"].to_numpy()[rows]
    plot_cells(h5sc, cells=ids, channels=list(h5sc.var["channels"]), ax=panels[1])
    panels[1].set_title(
        f"Their stamps of {CROP_SIZE} x {CROP_SIZE} pixels, with the outlines of the masks", fontsize=13
    )
    figure.savefig(to, dpi=110)


def _draw_overview(axes: Any, h5sc: "AnnData", rgb: Any, nuclei: npt.NDArray[np.uint32], rows: Any) -> None:
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Rectangle
    from skimage.segmentation import find_boundaries

    axes.imshow(rgb)
    outlines: npt.NDArray[np.bool_] = find_boundaries(nuclei, mode="inner")
    axes.imshow(np.ma.masked_array(outlines, mask=~outlines), cmap=ListedColormap([_OUTLINE_COLOUR]))
    corners = np.round(np.asarray(h5sc.obsm["spatial"])[rows]).astype(int) - CROP_SIZE // 2
    for cell, corner in zip(h5sc.obs["scportrait_cell_id"].to_numpy()[rows], corners, strict=True):
        axes.add_patch(Rectangle(corner, CROP_SIZE, CROP_SIZE, fill=False, edgecolor="black", linewidth=2))
        label = {"fontsize": 11, "weight": "bold", "va": "top", "bbox": {"facecolor": "white", "pad": 1.5}}
        axes.text(*(corner + 3), str(cell), **label)
    axes.set_title(f"The slide, its {nuclei.max()} nuclei and the windows shown", fontsize=13)
    axes.set_axis_off()
