"""Pictures show the content of file and store, read no more than that, and report errors."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import matplotlib as mpl
import numpy as np
import pytest
import zarr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import imread
from scipy.ndimage import map_coordinates
from zarr.storage import LocalStore

from cellstamp import ConfigError, InputError, OutputError, Project, plot_cells, plot_removed, read_h5sc
from cellstamp.pictures.canvas import colours_of_channels
from cellstamp.pictures.cells import bar_length
from cellstamp.pictures.mosaic import MOST_PIXELS, choose_across, shrinking, shrunk, stretched
from cellstamp.source.find.elements import find_image, find_labels
from cellstamp.source.read.overview import view_image, view_labels
from commands import run_command
from conftest import make_cells

SIZE, NAMES = 40, ["DAPI", "actin", "tubulin"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project of 64 cells, 28 of them at the border, extracted."""
    folder = tmp_path_factory.mktemp("pictures")
    settings = {"threads": 1, "image_size": SIZE, "cache": str(folder / "cache"), "progress": False}
    project = Project(folder / "project", {"HDF5CellExtraction": settings})
    image, nucleus, cytosol = make_cells(side=240, n=64)
    project.load_input_from_array(image, channel_names=NAMES)
    project.load_segmentation(nucleus, cytosol)
    project.extract()
    return project


@pytest.fixture(scope="module")
def h5sc(made: Project) -> Path:
    return Path(made.extraction_f.output_path)


@pytest.fixture(scope="module")
def stamps(h5sc: Path) -> np.ndarray:
    """float32 (cells, planes, y, x)."""
    with h5py.File(h5sc) as file:
        return file["obsm/single_cell_images"][:].astype(np.float32)


@pytest.fixture(scope="module")
def ids(h5sc: Path) -> list[int]:
    return read_h5sc(h5sc, images=False).obs["scportrait_cell_id"].tolist()


@pytest.fixture
def copy(h5sc: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(h5sc.parent, tmp_path / "copy")) / h5sc.name


def tiles_of(ax: Any) -> list[np.ndarray]:
    """The tiles of a gray picture, row by row."""
    (image,) = ax.images
    pixels = np.ma.filled(image.get_array().astype(np.float32), np.nan)
    lit = np.isfinite(pixels)
    rows, columns = (_runs(lit.any(axis=axis)) for axis in (1, 0))
    parts = [pixels[slice(*row), slice(*column)] for row in rows for column in columns]
    return [part for part in parts if np.isfinite(part).all()]


def _runs(lit: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], lit.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def texts_of(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.texts]


class TestCells:
    def test_one_channel_is_a_grid_of_the_stamps_themselves(self, h5sc, stamps, ids) -> None:
        ax = plot_cells(h5sc, cells=[ids[5], ids[2], ids[9], ids[0]], channels="actin")
        assert np.array_equal(tiles_of(ax), stamps[[5, 2, 9, 0], 3])
        assert texts_of(ax) == [str(ids[row]) for row in (5, 2, 9, 0)]
        assert ax.get_title() == "4 of 36 cells: actin"
        assert ax.images[0].get_clim() == (0, 1)

    def test_several_channels_are_a_row_for_each_cell(self, h5sc, stamps, ids) -> None:
        ax = plot_cells(h5sc, cells=ids[:2], channels=["tubulin", "seg_all_nucleus", "DAPI", "actin"])
        assert np.array_equal(tiles_of(ax), stamps[:2][:, [4, 0, 2, 3]].reshape(-1, SIZE, SIZE))
        names = ["tubulin", "seg_all_nucleus", "DAPI", "actin"]
        assert texts_of(ax) == [str(ids[0]), str(ids[1]), *names]

    def test_without_ids_cells_come_from_the_whole_file(self, h5sc, ids) -> None:
        shown = [int(text) for text in texts_of(plot_cells(h5sc, n=5, channels="DAPI"))]
        assert (len(shown), shown[0], shown[-1]) == (5, ids[0], ids[-1])
        assert len(tiles_of(plot_cells(h5sc, n=1000, channels="DAPI"))) == len(ids)
        assert len(tiles_of(plot_cells(h5sc, n=4))) == 12  # all channels, no masks

    def test_without_a_number_the_rows_are_full(self, h5sc) -> None:
        for options in ({"channels": "DAPI"}, {"color": "auto"}, {"channels": ["DAPI", "actin"]}, {}):
            ax = plot_cells(h5sc, **options)
            n_cells = int(ax.get_title().split()[0])
            n_tiles = 1 if "color" in options else len(np.atleast_1d(options.get("channels", ["DAPI"] * 3)))
            assert 12 <= n_cells <= 20
            assert n_cells % choose_across(n_cells, n_tiles, 1.4) == 0

    def test_composites_add_up_the_channels_in_their_colours(self, h5sc, stamps, ids) -> None:
        ax = plot_cells(h5sc, cells=ids[:1], color={"actin": "red", "DAPI": "#0000ff", "tubulin": (0.5, 0, 0.5)})
        pixels = ax.images[0].get_array()[-SIZE:, :SIZE]
        dna, actin, tubulin = stamps[0, 2:]
        expected = np.clip([actin + 0.5 * tubulin, 0 * dna, dna + 0.5 * tubulin], 0, 1)
        assert np.abs(pixels[..., :3] / 255 - np.moveaxis(expected, 0, -1)).max() < 0.005
        assert (pixels[..., 3] == 255).all()
        assert [text.get_text() for text in ax.get_legend().get_texts()][:3] == ["actin", "DAPI", "tubulin"]
        assert plot_cells(h5sc, channels=["DAPI", "actin"], color="auto").images[0].get_array().shape[2] == 4
        assert len(plot_cells(h5sc, color="auto", mask_outline=False).get_legend().get_texts()) == 3
        assert plot_cells(h5sc, channels="DAPI", color="cyan").images[0].get_array().shape[2] == 4

    def test_channels_can_be_numbered_masks_first(self, h5sc, stamps, ids) -> None:
        for channels in (3, np.int64(3), [3], ["actin"]):
            assert np.array_equal(tiles_of(plot_cells(h5sc, cells=ids[:1], channels=channels))[0], stamps[0, 3])
        ax = plot_cells(h5sc, n=2, color={2: "red", "actin": "blue"}, mask_outline=False)
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["DAPI", "actin"]

    def test_channels_of_one_name_are_told_apart_by_their_numbers(self, stamps, copy, ids) -> None:
        data = read_h5sc(copy)
        data.var["channels"] = ["nucleus", "cytosol", "DAPI", "DAPI", "DAPI"]
        assert np.array_equal(tiles_of(plot_cells(data, cells=ids[:1], channels=4))[0], stamps[0, 4])
        with pytest.raises(ConfigError, match="has several named 'DAPI': pass the number instead"):
            plot_cells(data, channels="DAPI")

    def test_cells_can_be_chosen_by_a_mask_or_a_column(self, copy, ids) -> None:
        mask = np.arange(len(ids)) % 3 == 1
        with h5py.File(copy, "r+") as file:
            file["obs/exceeds_crop"][:] = mask
        chosen = [str(cell) for cell, is_chosen in zip(ids, mask, strict=True) if is_chosen]
        part = read_h5sc(copy)[mask]
        for source, cells in ((copy, mask), (copy, mask.tolist()), (copy, "exceeds_crop"), (part, "exceeds_crop")):
            assert texts_of(plot_cells(source, cells=cells, channels="DAPI")) == chosen
        assert texts_of(plot_cells(copy, cells=mask, n=2, channels="DAPI")) == [chosen[0], chosen[-1]]

    def test_a_part_without_cells_is_told(self, h5sc) -> None:
        with pytest.raises(InputError, match=r"^a subset of an AnnData has no cells"):
            plot_cells(read_h5sc(h5sc)[:0])

    def test_between_tiles_the_page_shows(self, h5sc) -> None:
        assert (plot_cells(h5sc, color="auto").images[0].get_array()[..., 3] == 0).any()
        assert np.ma.getmaskarray(plot_cells(h5sc).images[0].get_array()).any()

    def test_outlines_run_where_masks_are_one_half(self, h5sc, stamps, ids) -> None:
        ax = plot_cells(h5sc, cells=ids[3], channels="DAPI")
        nucleus, cytosol = [each for each in ax.collections if isinstance(each, LineCollection)]
        offset = ax.images[0].get_array().shape[0] - SIZE
        for lines, mask in ((nucleus, stamps[3, 0]), (cytosol, stamps[3, 1])):
            points = np.concatenate([path.vertices for path in lines.get_paths()])
            assert len(points) > 15
            values = map_coordinates(mask, [points[:, 1] - offset, points[:, 0]], order=1)
            assert np.abs(values - 0.5).max() < 1e-4
        assert mpl.colors.to_hex(nucleus.get_color()[0]) != mpl.colors.to_hex(cytosol.get_color()[0])

    def test_outlines_can_be_chosen(self, h5sc) -> None:
        def colours(*, outline: Any) -> list[str]:
            lines = plot_cells(h5sc, n=2, mask_outline=outline).collections
            return [mpl.colors.to_hex(each.get_color()[0]) for each in lines]

        assert colours(outline=False) == []
        assert colours(outline="red") == ["#ff0000", "#ff0000"]
        assert colours(outline={"seg_all_cytosol": "lime"}) == ["#00ff00"]

    def test_open_files_and_parts_of_them_show_the_same(self, made, h5sc, stamps, ids) -> None:
        for cells in (read_h5sc(h5sc), made.h5sc):
            assert np.array_equal(tiles_of(plot_cells(cells, cells=ids[7], channels="actin"))[0], stamps[7, 3])
        part = read_h5sc(h5sc)[[7, 4, 20]]
        for cells in (part, part.copy()):
            ax = plot_cells(cells, channels="actin")
            assert np.array_equal(tiles_of(ax), stamps[[7, 4, 20], 3])
            assert ax.get_title() == "3 of 3 cells: actin"

    def test_only_what_is_shown_is_read(self, copy, stamps, ids) -> None:
        with h5py.File(copy, "r+") as file:
            images = file["obsm/single_cell_images"]
            for row in set(range(len(images))) - {3, 8}:  # who reads these, fails
                images.id.write_direct_chunk((row, 0, 0, 0), b"no stamp")
        cells = [ids[3], ids[8]]
        assert np.array_equal(tiles_of(plot_cells(copy, cells=cells, channels="actin")), stamps[[3, 8], 3])
        assert np.array_equal(tiles_of(plot_cells(read_h5sc(copy), cells=cells, channels="actin")), stamps[[3, 8], 3])
        with pytest.raises(
            InputError, match=rf"the image of cell {ids[4]} cannot be read: .*; cellstamp validate lists"
        ):
            plot_cells(copy, cells=[ids[4]], channels="DAPI")

    @pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 1.5])
    def test_values_that_no_stamp_has_are_refused(self, value, copy, ids) -> None:
        with h5py.File(copy, "r+") as file:
            file["obsm/single_cell_images"][4, 3, 7, 9] = value
        told = f": the image of cell {ids[4]} is damaged: actin has values outside 0 to 1"
        part = read_h5sc(copy)[3:6]
        for cells, where in ((copy, "cells.h5sc"), (read_h5sc(copy), "cells.h5sc"), (part, "subset of an AnnData")):
            with pytest.raises(InputError, match=where + told):
                plot_cells(cells, cells=ids[3:6])
        assert plot_cells(copy, cells=ids[3:6], channels="DAPI").has_data()

    @pytest.mark.parametrize("color", [None, "auto"])
    @pytest.mark.parametrize("n", [1, 4, 36])
    def test_a_scale_bar_has_the_length_it_names(self, h5sc, n, color) -> None:
        data = read_h5sc(h5sc)
        assert not plot_cells(data, n=n, color=color).lines
        data.uns["cellstamp"]["settings"]["crop_pixel_size"] = np.array([0.5, 0.65])
        ax = plot_cells(data, n=n, color=color)
        (line,) = ax.lines
        (start, end), y = line.get_xdata(), line.get_ydata()[0]
        assert "10 µm" in texts_of(ax)
        assert (end - start) * 0.65 == pytest.approx(10)
        assert y > ax.images[0].get_array().shape[0]  # below the cells
        ax.figure.draw_without_rendering()
        boxes = [
            ax.get_legend().get_window_extent(),
            line.get_window_extent(),
            *(t.get_window_extent() for t in ax.texts),
        ]
        assert all(box.x0 >= 0 and box.y0 >= 0 for box in boxes)
        label = next(text for text in ax.texts if text.get_text() == "10 µm")
        assert not label.get_window_extent().overlaps(ax.get_legend().get_window_extent())

    def test_a_scale_bar_counts_reduced_pixels(self, h5sc, monkeypatch) -> None:
        data = read_h5sc(h5sc)
        data.uns["cellstamp"]["settings"]["crop_pixel_size"] = np.array([0.5, 0.5])
        monkeypatch.setattr("cellstamp.pictures.mosaic.MOST_PIXELS", 36 * (SIZE // 2) ** 2)
        ax = plot_cells(data, n=36, channels="DAPI")
        assert tiles_of(ax)[0].shape == (SIZE // 2, SIZE // 2)
        (start, end) = ax.lines[0].get_xdata()
        assert end - start == pytest.approx(10)  # of 1 µm
        assert "10 µm" in texts_of(ax)

    def test_a_scale_bar_fits_into_given_axes(self, h5sc) -> None:
        data = read_h5sc(h5sc)
        data.uns["cellstamp"]["settings"]["crop_pixel_size"] = np.array([0.5, 0.5])
        figure = Figure(figsize=(5, 4))
        ax = plot_cells(data, n=9, color="auto", ax=figure.add_subplot())
        figure.draw_without_rendering()
        bar = ax.lines[0].get_window_extent()
        assert ax.get_window_extent().y0 < bar.y0 <= bar.y1 < ax.get_window_extent().y1

    @pytest.mark.parametrize(
        ("most", "expected"),
        [(11, (10, "10 µm")), (0.7, (0.5, "500 nm")), (2500, (2000, "2 mm")), (1, (1, "1 µm")), (49.9, (20, "20 µm"))],
    )
    def test_lengths_of_scale_bars_are_round(self, most, expected) -> None:
        length, label = bar_length(most)
        assert (pytest.approx(length), label) == expected

    def test_cells_get_their_own_limits_or_those_of_all(self, copy, stamps, ids) -> None:
        with h5py.File(copy, "r+") as file:  # comparable values, and one dim cell
            file["uns/cellstamp/settings/normalization_scope"][()] = "image"
            file["obsm/single_cell_images"][0, 2:] = stamps[0, 2:] / 8
        dim, bright, *_ = tiles_of(plot_cells(copy, cells=ids[:4], channels="DAPI", scale="cell"))
        assert dim.max() == bright.max() == 1
        dim, bright, *_ = tiles_of(plot_cells(copy, cells=ids[:4], channels="DAPI", scale="all"))
        assert dim.max() < 0.2
        assert bright.max() == 1
        both = plot_cells(copy, cells=ids[:4], channels=["seg_all_nucleus", "DAPI"], scale="cell")
        assert np.array_equal(tiles_of(both)[0], stamps[0, 0])  # masks stay

    def test_the_same_limits_for_cells_normalised_by_themselves_warn(self, h5sc) -> None:
        with pytest.warns(UserWarning, match=r"each cell was normalised by itself.*Set normalization_scope to 'image'"):
            plot_cells(h5sc, n=4, channels="DAPI", scale="all")

    def test_an_unknown_scale_is_refused(self, h5sc, tmp_path) -> None:
        with pytest.raises(ConfigError, match=r"scale = 'each': must be 'cell', 'all' or None"):
            plot_cells(h5sc, scale="each")
        assert run_command("preview", h5sc, "-o", tmp_path / "c.png", "--scale", "cell").exit_code == 0

    def test_values_that_are_not_normalised_are_stretched_each_channel_by_itself(self, copy, stamps, ids) -> None:
        with h5py.File(copy, "r+") as file:
            images = file["obsm/single_cell_images"]
            images[:, 2] = (stamps[:, 2] * 0.01).astype(np.float16)
            file["uns/single_cell_images/normalization"][()] = False
        dim, bright = (
            np.array(tiles_of(plot_cells(copy, cells=ids, channels=["DAPI", "actin"])))
            .reshape(-1, 2, SIZE, SIZE)
            .swapaxes(0, 1)
        )
        assert (dim.min(), dim.max(), bright.min(), bright.max()) == (0, 1, 0, 1)
        assert (
            np.abs(dim - np.clip(stamps[:, 2] / np.quantile(stamps[:, 2][stamps[:, 2] > 0], 0.999), 0, 1)).max() < 0.01
        )
        masks = tiles_of(plot_cells(copy, cells=ids, channels="seg_all_nucleus"))
        assert np.array_equal(masks, stamps[:, 0])

    def test_integers_are_shown_as_the_values_they_stand_for(self, copy, stamps, ids) -> None:
        with h5py.File(copy, "r+") as file:
            attributes = dict(file["obsm/single_cell_images"].attrs)
            del file["obsm/single_cell_images"]
            whole = np.round(stamps * 255).astype(np.uint8)
            file["obsm"].create_dataset("single_cell_images", data=whole).attrs.update(attributes)
        assert np.abs(tiles_of(plot_cells(copy, cells=ids[:3], channels="actin")) - stamps[:3, 3]).max() < 0.003


class TestSize:
    def test_few_tiles_stay_as_they_are_and_many_are_shrunk(self) -> None:
        assert shrinking(400, 128) == 1
        step = shrinking(8000, 128)
        assert 8000 * (128 // step) ** 2 <= MOST_PIXELS < 8000 * (128 // (step - 1)) ** 2
        planes = np.random.default_rng(0).random((2, 3, 10, 10), np.float32)
        assert np.allclose(shrunk(planes, 3)[1, 2, 1, 2], planes[1, 2, 3:6, 6:9].mean())
        assert shrunk(planes, 1) is planes

    @pytest.mark.parametrize(("n", "tiles", "across"), [(1, 1, 1), (4, 1, 2), (16, 1, 4), (4, 20, 1), (400, 20, 5)])
    def test_pictures_are_a_little_wider_than_high(self, n, tiles, across) -> None:
        assert choose_across(n, tiles, 1.4) == across

    def test_a_channel_without_light_is_black(self) -> None:
        assert not stretched(np.zeros((4, 4), np.float32)).any()
        assert np.isfinite(stretched(np.full((4, 4), 3, np.float32))).all()

    def test_hundreds_of_cells_fit_on_a_page(self, h5sc) -> None:
        width, height = plot_cells(h5sc, n=1000).get_figure().get_size_inches()
        assert max(width, height) < 15


@pytest.mark.once
class TestAxesAndFiles:
    def test_axes_are_taken_and_returned(self, made, h5sc) -> None:
        for plot in (
            lambda ax: plot_cells(h5sc, ax=ax),
            lambda ax: plot_removed(h5sc, ax=ax),
            lambda ax: made.plot_input_image(ax=ax),
            lambda ax: made.plot_segmentation_masks(ax=ax),
            lambda ax: made.plot_removed(ax=ax),
            lambda ax: made.plot_single_cell_images(ax=ax),
        ):
            axes = Figure(figsize=(3, 3)).subplots()
            assert plot(axes) is axes
            assert axes.has_data()
            axes.get_figure().canvas.draw()

    def test_legends_keep_to_axes_that_others_are_beside(self, made, h5sc) -> None:
        figure = Figure(figsize=(9, 6))
        panels = figure.subplots(2, 3).ravel()
        rooms = [ax.get_window_extent() for ax in panels]
        plot_cells(h5sc, channels="DAPI", ax=panels[0])
        plot_cells(h5sc, n=3, ax=panels[1])
        plot_cells(h5sc, color="auto", ax=panels[2])
        made.plot_segmentation_masks(ax=panels[3])
        made.plot_input_image(ax=panels[4])
        plot_removed(h5sc, ax=panels[5])
        figure.canvas.draw()
        for ax, room in zip(panels, rooms, strict=True):
            legend = ax.get_legend().get_window_extent()
            assert room.x0 - 2 <= legend.x0 < legend.x1 <= room.x1 + 2
        for ax, room in zip(panels[:3], rooms[:3], strict=True):
            assert room.y0 - 2 <= ax.get_legend().get_window_extent().y0

    @pytest.mark.parametrize("page", ["white", "black"])
    def test_outlines_of_the_colour_of_the_page_are_seen_in_the_legend(self, page, made, h5sc) -> None:
        with mpl.rc_context({"text.color": page, "figure.facecolor": page, "savefig.facecolor": page}):
            for ax in (plot_cells(h5sc, n=2, mask_outline=page), made.plot_segmentation_masks(mask_outline=page)):
                canvas = FigureCanvasAgg(ax.get_figure())
                canvas.draw()
                pixels = np.asarray(canvas.buffer_rgba())[::-1, :, 0]
                box = ax.get_legend().get_window_extent()
                part = pixels[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)].astype(int)
                assert (np.abs(part - pixels[0, 0]) > 60).sum() > 50

    def test_axes_that_are_none_are_refused_before_anything_is_read(self, h5sc) -> None:
        with pytest.raises(ConfigError, match="ax is ndarray: must be one matplotlib Axes"):
            plot_cells("there is no such file", ax=Figure().subplots(2))

    def test_the_text_follows_the_style(self, h5sc) -> None:
        with mpl.rc_context({"text.color": "#abcdef", "figure.facecolor": "black"}):
            ax = plot_cells(h5sc, n=2)
        assert {text.get_color() for text in [*ax.texts, ax.title, *ax.get_legend().get_texts()]} == {"#abcdef"}
        assert mpl.colors.to_hex(ax.get_figure().get_facecolor()) == "#000000"

    @pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
    def test_the_ending_says_which_kind_of_picture(self, kind, h5sc, tmp_path) -> None:
        path = tmp_path / "new folder" / f"cells.{kind}"
        plot_cells(h5sc, n=2, channels="DAPI", save=path)
        assert path.read_bytes()[:5] in (b"\x89PNG\r", b"%PDF-", b"<?xml")
        assert [*path.parent.iterdir()] == [path]

    def test_a_picture_that_cannot_be_written_leaves_the_old_one(self, h5sc, tmp_path) -> None:
        (tmp_path / "folder.png").mkdir()
        with pytest.raises(OutputError, match=r"cannot write the picture: (Is a directory|Permission denied)"):
            plot_cells(h5sc, n=2, save=tmp_path / "folder.png")
        assert [*tmp_path.iterdir()] == [tmp_path / "folder.png"]
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match=r"cannot write the picture: (File exists|Not a directory)"):
            plot_cells(h5sc, n=2, save=tmp_path / "file" / "cells.png")

    def test_a_picture_that_is_cut_short_leaves_the_old_one(self, h5sc, tmp_path) -> None:
        path = tmp_path / "cells.png"
        path.write_bytes(b"the old one")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))  # as a disk that is full
        try:
            with pytest.raises(OutputError, match=r"cells.png: cannot write the picture: File too large"):
                plot_cells(h5sc, save=path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == b"the old one"
        assert [*tmp_path.iterdir()] == [path]

    @pytest.mark.parametrize("save", ["cells", "cells.h5sc", 3])
    def test_a_file_that_is_no_picture_is_refused(self, save, h5sc) -> None:
        with pytest.raises(ConfigError, match=r"save = .*: must (end with the suffix of .*\.png|be the path of)"):
            plot_cells(h5sc, save=save)

    def test_no_display_and_no_pyplot_are_needed_and_no_figure_is_left(self, h5sc, tmp_path) -> None:
        code = (
            "import sys, cellstamp\n"
            "assert 'matplotlib' not in sys.modules\n"
            f"path, target = {str(h5sc)!r}, {str(tmp_path / 'cells.png')!r}\n"
            "cellstamp.plot_cells(path, n=2, save=target); cellstamp.plot_removed(path, save=target)\n"
            "cellstamp.plot_cells(path, n=2)\n"
            "assert 'matplotlib.pyplot' not in sys.modules\n"
            "from matplotlib import pyplot\n"
            "cellstamp.plot_cells(path, n=2, save=target)\n"
            "assert pyplot.get_fignums() == []\n"
            "ax = cellstamp.plot_cells(path, n=2)\n"
            "assert ax.get_figure() is pyplot.gcf()\n"
        )
        hidden = ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")
        environment = {key: value for key, value in os.environ.items() if key not in hidden}
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=environment, check=False
        )
        assert (result.returncode, result.stderr) == (0, "")
        assert imread(tmp_path / "cells.png").shape[2] == 4

    def test_a_notebook_shows_the_stamps_in_one_line(self, h5sc) -> None:
        nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
        code = f"from cellstamp import plot_cells\nplot_cells({str(h5sc)!r}, n=2)"
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
        nbclient.NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
        data = [output.get("data", {}) for output in notebook.cells[0].outputs]
        assert sum("image/png" in each for each in data) == 1

    def test_after_a_partial_extraction_its_cells_are_shown(self, made) -> None:
        project = Project(made.directory)
        project.extract(partial=True, n_cells=5)
        assert project.plot_single_cell_images().get_title() == "5 of 5 cells"
        ax = project.plot_removed()
        assert [len(each.get_offsets()) for each in ax.collections] == [31, 5, 28]
        shutil.rmtree(Path(project.extraction_f.output_path).parent)

    def test_matplotlib_that_is_missing_is_named(self, made, h5sc, monkeypatch) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        for name, plot in (
            ("plot_cells", lambda: plot_cells(h5sc)),
            ("plot_removed", lambda: plot_removed(h5sc)),
            ("plot_input_image", made.plot_input_image),
            ("plot_segmentation_masks", made.plot_segmentation_masks),
        ):
            with pytest.raises(ConfigError, match=rf"^{name} needs matplotlib: .*'cellstamp\[plot\]'"):
                plot()


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                {"channels": "dapi"},
                "no channel named 'dapi' in .*single_cells.h5sc; did you mean 'DAPI'\\? It has the cha",
            ),
            (
                {"channels": ["DAPI", "xyz"]},
                "no channel named 'xyz' in .*h5sc. It has .*tubulin and the masks seg_all_nu",
            ),
            ({"channels": []}, r"channels = \[\]: must name at least one"),
            ({"n": 0}, "n = 0: must be the number of cells to show"),
            ({"n": True}, "n = True: must be the number"),
            ({"cells": []}, r"cells: no cells are selected"),
            (
                {"cells": [1.5]},
                r"must be cell ids \(integers\), such as .*, a boolean for each cell, or the name of a",
            ),
            ({"cells": "exceeds"}, r"obs of .*h5sc has no column 'exceeds'; did you mean 'exceeds_crop'\?"),
            ({"cells": "x"}, r"obs\['x'\] of .*h5sc is float64; it must be a boolean for every cell"),
            (
                {"cells": [True]},
                r"shape \(1,\); it must have one value for each of the 36 cells of .*h5sc",
            ),
            ({"cells": [False] * 36}, "the boolean mask is False for all 36 cells of "),
            ({"channels": 5}, "h5sc has no 5: must be a name, or a number from 0 to 4, masks first; it has the chan"),
            ({"channels": [-1]}, "has no -1: must be"),
            ({"channels": [True]}, "has no True: must be"),
            ({"color": {7: "red"}}, "has no 7: must be"),
            ({"color": {"DAPI": "bleu"}}, r"color of DAPI: 'bleu' is not a colour; did you mean 'blue'\?"),
            ({"color": ["red"]}, "color = .*'red'.*a colour for each of the 3 channels"),
            ({"color": {"DAPI": "red"}, "channels": ["DAPI", "actin"]}, "no colour for the channels actin"),
            ({"mask_outline": "octarine"}, "mask_outline of seg_all_nucleus: 'octarine' is not a colour"),
            ({"mask_outline": {"nucleus": "red"}}, "no mask named nucleus; the masks are seg_all_nucleus, seg_all_cyt"),
        ],
    )
    def test_arguments(self, arguments, message, h5sc) -> None:
        with pytest.raises(ConfigError, match=message):
            plot_cells(h5sc, **arguments)

    def test_cells_that_are_not_there(self, h5sc, ids) -> None:
        with pytest.raises(
            InputError, match=rf"2 of 3 ids are not in .*h5sc: 99999, -1. It has 36 cells, such as {ids[0]}"
        ):
            plot_cells(h5sc, cells=[99999, ids[1], -1])

    def test_what_is_no_h5sc_file(self, made, h5sc) -> None:
        with pytest.raises(InputError, match="there is no file nowhere"):
            plot_cells("nowhere")
        with pytest.raises(InputError, match=r"h5sc is Project: must be the path .*, or the AnnData from read_h5sc"):
            plot_cells(made)
        with pytest.raises(InputError, match=r"h5sc is NoneType: .*An extraction without cells writes no file"):
            plot_cells(None)
        with pytest.raises(InputError, match=r"AnnData is not from an .h5sc file with its images"):
            plot_cells(read_h5sc(h5sc, images=False))


class TestSlide:
    def test_the_image_is_shown_as_it_is_from_dark_to_bright(self, made) -> None:
        ax = made.plot_input_image("actin")
        pixels, image = ax.images[0].get_array(), made.input_image.to_numpy()[1].astype(np.float32)
        low, high = np.quantile(image, 0.01), np.quantile(image, 0.998)
        assert np.abs(pixels - np.clip((image - low) / (high - low), 0, 1)).max() < 1e-4
        assert ax.images[0].get_extent() == [0, 240, 240, 0]

    def test_a_region_is_shown_alone(self, made) -> None:
        ax = made.plot_input_image(region=[(20, 90), (50, 200)])
        assert ax.images[0].get_array().shape == (70, 150, 3)
        assert (ax.get_xlim(), ax.get_ylim()) == ((50, 200), (90, 20))
        assert [text.get_text() for text in ax.get_legend().get_texts()] == NAMES

    def test_masks_are_outlined_on_the_image(self, made) -> None:
        ax = made.plot_segmentation_masks(region=[(0, 240), (0, 240)])
        background, nucleus, _ = (each.get_array() for each in ax.images)
        assert background.shape == (240, 240)
        labels = find_labels(made.sdata_path, "seg_all_nucleus").array[...]
        inner = np.zeros(labels.shape, bool)  # pixels whose four neighbours are of the same cell
        inner[1:-1, 1:-1] = np.all(
            [
                labels[1:-1, 1:-1] == labels[1 + y : 239 + y, 1 + x : 239 + x]
                for y, x in ((0, 1), (1, 0), (0, -1), (-1, 0))
            ],
            axis=0,
        )
        times = nucleus.shape[0] // 240
        drawn = (nucleus[..., 3] > 0).reshape(240, times, 240, times).any(axis=(1, 3))
        assert np.array_equal(drawn, (labels > 0) & ~inner)
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["nucleus", "cell"]
        assert len(made.plot_segmentation_masks(mask_outline={"seg_all_cytosol": "red"}).images) == 2

    @pytest.mark.parametrize("names", [["red", "green", "blue"], ["r", "g", "b"]])
    def test_colour_images_keep_their_colours(self, names, tmp_path) -> None:
        project = Project(tmp_path / "rgb")
        image = np.random.default_rng(0).integers(0, 256, (3, 50, 60)).astype(np.uint8)
        project.load_input_from_array(image, channel_names=names)
        shown = project.plot_input_image().images[0].get_array()
        assert np.array_equal(np.round(shown * 255), np.moveaxis(image, 0, -1))
        mask = np.zeros((50, 60), np.uint8)
        mask[20:30, 20:30] = 1
        project.load_segmentation(nucleus=mask)
        shown = project.plot_segmentation_masks().images[0].get_array()
        assert np.array_equal(np.round(shown * 255), np.moveaxis(image, 0, -1))

    @pytest.mark.parametrize(
        "names", [["red", "green", "blue"], ["r", "g", "b"], ["B", "G", "R"], ["x", "g", "r", "b"]]
    )
    def test_channels_of_colour_images_have_their_colours(self, names) -> None:
        own = {"r": [1, 0, 0], "g": [0, 1, 0], "b": [0, 0, 1]}
        for colour, name in zip(colours_of_channels("auto", names), names, strict=True):
            assert name == "x" or colour.tolist() == own[name[0].lower()]

    def test_other_channels_have_the_colours_of_the_cycle(self) -> None:
        for names in (["DAPI", "g", "r"], ["red", "g", "b"]):
            assert np.array_equal(colours_of_channels("auto", names), colours_of_channels("auto", "xyz"))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"channels": "xyz"}, "no channel named 'xyz'; the project's image has DAPI, actin, tubulin"),
            ({"channels": []}, "channels: no channel given; the project's image has DAPI"),
            ({"region": [(0, 500), (0, 10)]}, r"region = .*: must be .* inside the image of 240 x 240 pixels"),
            ({"region": 7}, "region = 7: must be"),
            ({"region": [(0.5, 10), (0, 10)]}, r"region = .*: must be .*, integers, inside the image"),
            ({"color": ["red"]}, "a colour for each of the 3 channels"),
        ],
    )
    def test_mistakes(self, arguments, message, made) -> None:
        with pytest.raises(ConfigError, match=message):
            made.plot_input_image(**arguments)

    def test_a_project_without_what_is_to_be_shown(self, tmp_path) -> None:
        project = Project(tmp_path / "empty")
        with pytest.raises(InputError, match="there is no image yet"):
            project.plot_input_image()
        with pytest.raises(InputError, match="there is no image yet; load one first"):
            project.plot_segmentation_masks()
        with pytest.raises(InputError, match="empty is new and empty: check its name, or load an image"):
            project.plot_single_cell_images()
        project.load_input_from_array(np.zeros((1, 40, 40), np.uint16))
        with pytest.raises(InputError, match="there is no extraction yet"):
            project.plot_single_cell_images()
        with pytest.raises(InputError, match="seg_all"):
            project.plot_segmentation_masks()


@pytest.mark.once
class TestViews:
    """What is read of an image for a picture: `side` stands for a slide that is larger than a picture."""

    @pytest.fixture
    def store(self, project_store) -> Path:
        return project_store(cells=make_cells(side=300), chunks=64, multiscale=True)

    @staticmethod
    def spoil(store: Path, element: str, level: str, keep: set[str]) -> None:
        """Make chunks of an array unreadable."""
        for path in (store / element / level / "c").rglob("*"):
            if path.is_file() and "/".join(path.relative_to(store / element / level / "c").parts) not in keep:
                path.write_bytes(b"no chunk")

    @staticmethod
    def levels(store: Path, element: str) -> list[str]:
        ome = json.loads((store / element / "zarr.json").read_text())["attributes"]["ome"]
        return [each["path"] for each in ome["multiscales"][0]["datasets"]]

    def test_a_coarser_level_is_read_where_it_shows_enough(self, store) -> None:
        fine, coarse = self.levels(store, "images/input_image")
        self.spoil(store, "images/input_image", fine, set())
        image = find_image(store, "input_image").image
        view = view_image(image, [0, 2], side=150)
        assert np.array_equal(view.pixels, zarr.open_array(store / "images/input_image" / coarse)[:][[0, 2]])
        assert view.extent == (0, 300, 0, 300)
        with pytest.raises(InputError, match="cannot be read"):
            view_image(image, [0], side=200)

    def test_of_a_region_only_its_chunks_are_read(self, store) -> None:
        image = find_image(store, "input_image").image
        expected = image.array[1, 70:120, 130:190]
        fine, coarse = self.levels(store, "images/input_image")
        self.spoil(store, "images/input_image", fine, {"1/1/2"})
        self.spoil(store, "images/input_image", coarse, set())
        assert np.array_equal(view_image(image, [1], [(70, 120), (130, 190)]).pixels[0], expected)

    @pytest.fixture
    def long_store(self, project_store) -> Path:
        """One that is read in more than one block, and has no coarser levels."""
        labels = np.arange(200 * 2500, dtype=np.uint32).reshape(200, 2500) // 11
        pixels = np.random.default_rng(0).integers(0, 65536, (1, 200, 2500)).astype(np.uint16)
        return project_store(cells=(pixels, labels, labels), chunks=64)

    def test_without_levels_pixels_are_means_whatever_the_blocks(self, long_store) -> None:
        image = find_image(long_store, "input_image").image
        whole = image.array[0, 10:190, 7:2400].astype(np.float64)
        view = view_image(image, [0], [(10, 190), (7, 2400)], side=342)  # seven pixels are one
        assert view.extent == (7, 7 + 342 * 7, 10, 10 + 26 * 7)
        padded = np.full((26 * 7, 342 * 7), np.nan)
        padded[:180, :2393] = whole
        assert np.allclose(view.pixels[0], np.nanmean(padded.reshape(26, 7, 342, 7), axis=(1, 3)))

    @pytest.mark.parametrize("depth", [1, 2])
    def test_each_chunk_is_read_once(self, depth, project_store, monkeypatch) -> None:
        pixels = np.random.default_rng(0).integers(0, 65536, (2, 200, 2500)).astype(np.uint16)
        labels = np.ones((200, 2500), np.uint32)
        long_store = project_store(cells=(pixels, labels, labels))
        path = find_image(long_store, "input_image").image.path
        zarr.create_array(long_store / path, data=pixels, chunks=(depth, 64, 64), overwrite=True)
        keys, get = [], LocalStore.get

        async def counting(store: LocalStore, key: str, *args: Any, **options: Any) -> Any:
            keys.append(key)
            return await get(store, key, *args, **options)

        monkeypatch.setattr(LocalStore, "get", counting)
        image = find_image(long_store, "input_image").image
        view = view_image(image, [1, 0], [(10, 190), (7, 2400)], side=342)
        assert np.allclose(view.pixels[:, 2, 3], pixels[::-1, 24:31, 28:35].mean(axis=(1, 2)))
        chunks = [key for key in keys if "/c/" in key]
        assert len(chunks) == len(set(chunks)) == 3 * 38 * 2 // depth  # of 4 x 40

    def test_of_labels_single_pixels_are_taken(self, long_store) -> None:
        labels = find_labels(long_store, "seg_all_cytosol")
        view = view_labels(labels, [(10, 190), (7, 2400)], side=342)
        assert np.array_equal(view.pixels, labels.array[10:190:7, 7:2400:7])


class TestRemoved:
    def test_every_cell_has_its_dot(self, made, h5sc, ids) -> None:
        centers = made.sdata.points["centers_seg_all_nucleus"].compute()
        for ax in (made.plot_removed(), plot_removed(h5sc), plot_removed(made.h5sc, made.sdata_path)):
            other, kept, removed = (each.get_offsets() for each in ax.collections)
            assert np.allclose(kept, centers.loc[ids, ["x", "y"]])
            assert np.allclose(removed, centers.drop(ids)[["x", "y"]])
            assert len(other) == 0
            assert ax.get_title() == "36 of 64 cells kept"
            assert ax.patches[0].get_bbox().bounds == (20, 20, 200, 200)

    def test_cells_that_are_not_those_of_the_store_are_refused(self, made, copy) -> None:
        image, nucleus, cytosol = make_cells(side=240, n=64)
        ending = "The masks were replaced after the extraction, or .*: extract again, or pass the original store"
        for masks, message in (
            (
                [np.where(mask > 60, 0, mask) for mask in (nucleus, cytosol)],
                "4 of its 64 kept and removed cells are missing in 'seg_all",
            ),
            (
                [np.roll(mask, 3, axis=1) for mask in (nucleus, cytosol)],
                "of its 36 cells have another centre in 'seg_all_nuc",
            ),
        ):
            other = Project(copy.parent / "other", made.config, overwrite=True)
            other.load_input_from_array(image, channel_names=NAMES)
            other.load_segmentation(*masks)
            other.extract()
            with pytest.raises(InputError, match=f"{message}.*{ending}"):
                plot_removed(copy, other.sdata_path)

    def test_what_is_missing_is_told(self, made, h5sc, copy, tmp_path) -> None:
        with pytest.raises(
            ConfigError, match=r"store = None: .* is not in the folder of a project .*: pass the SpatialData store"
        ):
            plot_removed(copy)
        assert plot_removed(copy, made.sdata_path).get_title() == "36 of 64 cells kept"
        with pytest.raises(InputError, match="is AnnData without an open file or store: pass the path"):
            plot_removed(read_h5sc(h5sc)[:3])
        store = shutil.copytree(made.sdata_path, tmp_path / "store")
        shutil.rmtree(store / "points")
        assert plot_removed(h5sc, store).get_title() == "36 of 64 cells kept"  # centres are computed, not stored
        assert not (store / "points").exists()
        (copy.parent / "removed_classes.csv").write_text("7\nseven\n")
        with pytest.raises(InputError, match=r"removed_classes.csv: must have one cell id in each line"):
            plot_removed(copy, made.sdata_path)
        (copy.parent / "removed_classes.csv").write_text("7\n8\n")
        with pytest.raises(
            InputError, match=r"lists 2 cells, but 28 were removed for .*: the list is that of another result"
        ):
            plot_removed(copy, made.sdata_path)
        (copy.parent / "removed_classes.csv").unlink()
        with pytest.raises(InputError, match="the list of removed cells"):
            plot_removed(copy, made.sdata_path)


class TestPreview:
    def run(self, *arguments: object) -> Any:
        return run_command("preview", *arguments)

    def test_of_a_file_and_of_a_project(self, made, h5sc, ids, tmp_path) -> None:
        for source in (h5sc, made.directory):
            target = tmp_path / f"{Path(source).name}.png"
            result = self.run(source, "-o", target, "--n", 4, "--channel", "DAPI")
            assert (result.exit_code, result.output) == (0, f"Picture: {target}\n")
            assert imread(target).shape[2] == 4
        options = ["--cell", ids[0], "--cell", ids[1], "--color", "blue", "--color", "red", "--channel", "DAPI"]
        result = self.run(h5sc, "-o", target, *options, "--channel", "actin", "--no-outlines")
        assert result.exit_code == 0

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            (
                ["--color", "red"],
                "--color = ['red']: must be a list with a colour for each of the 3 channels (DAPI, actin, tubulin)",
            ),
            (["--color", "bluee"], "--color: 'bluee' is not a colour; did you mean 'blue'?"),
            (["--color", "atuo"], "--color: 'atuo' is not a colour; did you mean 'auto'?"),
            (
                ["--channel", "DAPI", "--color", "bluee"],
                "--color of DAPI: 'bluee' is not a colour; did you mean 'blue'?",
            ),
            (["--color", "auto", "--color", "red"], "--color: 'auto' is not a colour. It must be a matplotlib colour"),
            (["--channel", "DNA"], "--channel: no channel named 'DNA'"),
            (["--cell", "99999"], "--cell: 1 of 1 ids are not in"),
            (["-o", "cells.tar"], "--output = 'cells.tar': must end with the suffix of a picture: ."),
        ],
    )
    def test_mistakes_are_told_by_the_names_of_options(self, options, told, h5sc, tmp_path) -> None:
        result = self.run(h5sc, "-o", tmp_path / "a.png", *options)
        assert (result.exit_code, result.stderr.startswith(f"Error: {told}")) == (2, True), result.stderr
        hint = "here: --color NAME once for each channel shown, in turn, or --color auto\n"
        assert result.stderr.endswith(hint) == ("--color" in options)

    def test_mistakes(self, h5sc, tmp_path) -> None:
        result = self.run(h5sc, "-o", tmp_path / "a.png", "--channel", "DNA")
        assert result.exit_code == 2
        assert "no channel named 'DNA'" in result.stderr
        result = self.run(tmp_path, "-o", tmp_path / "a.png")
        told = f"{tmp_path}: this folder has no extraction; it has no image either: check its name, or load an image"
        assert (result.exit_code, told in result.stderr) == (2, True)

    def test_a_project_one_folder_below_is_named(self, made, tmp_path) -> None:
        folder = Path(made.directory)
        result = self.run(folder.parent, "-o", tmp_path / "a.png")
        told = f"{folder.parent}: this folder has no extraction; there is a project in {folder}: give that\n"
        assert (result.exit_code, result.stderr.endswith(told)) == (2, True), result.stderr
