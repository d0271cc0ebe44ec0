"""The gallery in a real browser: every control, keys, narrow and dark pages, and a notebook's transport."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cellstamp import Project, cell_images
from cellstamp.gallery.messages import Messages
from cellstamp.gallery.opening import find
from cellstamp.gallery.session import GallerySession
from galleries import CHANNELS, N_CELLS, make_project, request, served
from stamp_files import layout_of, write_file

sync_api = pytest.importorskip("playwright.sync_api", reason="drives the browser: pip install 'cellstamp[dev]'")
if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium (on Debian: apt install chromium)"),
]
expect = sync_api.expect
IDS = np.arange(3, 3 * N_CELLS + 1, 3)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("template") / "project")


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Path:
    """A copy to write to."""
    return Path(shutil.copytree(template, tmp_path / "project"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def watched(browser: Browser, **options: Any) -> Iterator[Page]:
    """A page that must not write to its console."""
    context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **options})
    page, problems = context.new_page(), []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    try:
        yield page
        assert problems == []
    finally:
        context.close()


@contextmanager
def gallery(browser: Browser, session: GallerySession, **options: Any) -> Iterator[Page]:
    """A page with a gallery whose first screen is shown."""
    with served(Messages(session)) as (address, _), watched(browser, **options) as page:
        page.goto(address)
        wait(page)
        yield page


def session_of(given: Path) -> GallerySession:
    found = find(given)
    return GallerySession(found, found.folder)


def wait(page: Page) -> None:
    """Wait until all cells on the screen are painted."""
    page.locator("[data-state=ready]").wait_for()
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.locator("[data-state=ready]").wait_for()


def shown_ids(page: Page) -> list[int]:
    return list(map(int, page.locator(".csg-id").all_inner_texts()))


def pixels_of(picture: Locator) -> np.ndarray:
    """Red, green, blue of a canvas, or of the part of a row's canvas that has a cell: uint8 (y, x, 3)."""
    height, width, values = picture.evaluate(
        """(picture) => {
            const canvas = picture.closest('canvas') ?? picture.closest('.csg-row').querySelector('canvas');
            const [whole, own] = [canvas, picture].map((each) => each.getBoundingClientRect());
            const scale = canvas.width / whole.width;
            const [left, end] = [own.left - whole.left, own.right - whole.left].map((x) => Math.round(x * scale));
            const copy = new OffscreenCanvas(end - left, canvas.height);
            const context = copy.getContext('2d', {willReadFrequently: true});
            context.drawImage(canvas, -left, 0);
            return [copy.height, copy.width, [...context.getImageData(0, 0, copy.width, copy.height).data]];
        }"""
    )
    return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]


def cell(page: Page, number: int) -> Locator:
    return page.get_by_role("gridcell", name=f"Cell {number}", exact=True)


def set_slider(page: Page, name: str, value: float) -> None:
    page.get_by_role("slider", name=name, exact=True).evaluate(
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", value
    )
    wait(page)


def expect_selected(page: Page, ids: list[int]) -> None:
    """Wait for the marks of the cells: the page draws them after the number of selected cells."""
    expect(page.locator(".csg-cell[aria-selected=true] > .csg-id")).to_have_text(list(map(str, ids)))


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_the_first_screen_shows_the_stored_pixels(browser: Browser, template: Path, tmp_path: Path) -> None:
    with gallery(browser, session_of(template)) as page:
        page.screenshot(path=tmp_path / "light.png")
        assert page.get_by_role("status").first.inner_text() == "100 cells"
        assert shown_ids(page)[:5] == [3, 6, 9, 12, 15]
        page.get_by_label("Channels as").select_option("gray")
        for name in CHANNELS[1:]:
            page.get_by_label(name, exact=True).uncheck()
        set_slider(page, "White level of DAPI", 255)
        set_slider(page, "Black level of DAPI", 0)
        pixels = pixels_of(cell(page, 27).locator(".csg-picture"))
        image = cell_images(template / "extraction" / "data" / "single_cells.h5sc", 27, "DAPI")[0, 0]
    assert pixels.shape == (96, 96, 3)
    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert (pixels[..., 0] == pixels[..., 2]).all()
    shown = pixels[1::3, 1::3, 0] / 255
    assert np.abs(shown - image.astype(float)).max() < 0.012


def test_channels_are_shown_in_gray_in_colours_and_as_composites(
    browser: Browser, template: Path, tmp_path: Path
) -> None:
    with gallery(browser, session_of(template)) as page:
        picture = cell(page, 27).locator(".csg-picture")
        composite = pixels_of(picture).astype(int)
        assert composite.shape == (96, 96, 3)
        page.get_by_label("Channels as").select_option("colour")
        wait(page)
        parts = np.split(pixels_of(picture).astype(int), 3, axis=1)
        assert np.abs(np.minimum(sum(parts), 255) - composite).max() <= 2
        page.screenshot(path=tmp_path / "colours.png")
        page.get_by_label("Colour of DAPI").fill("#ff0000")
        wait(page)
        red = pixels_of(picture)[:, :96]
        assert (red[..., 0].max(), red[..., 1:].max()) == (255, 0)
        page.get_by_label("seg_all_nucleus (mask)").check()
        wait(page)
        assert pixels_of(picture).shape == (96, 4 * 96, 3)
        page.get_by_label("Channels as").select_option("gray")
        wait(page)
        mask = pixels_of(picture)[:, :96]
        assert (mask[1::3, 1::3, 0] == 255).sum() > 10


def test_contrast_is_set_for_all_cells_or_each(browser: Browser, template: Path) -> None:
    with gallery(browser, session_of(template)) as page:
        page.get_by_label("Channels as").select_option("gray")
        for name in CHANNELS[1:]:
            page.get_by_label(name, exact=True).uncheck()
        picture = cell(page, 27).locator(".csg-picture")
        before = pixels_of(picture)[..., 0].astype(int)
        set_slider(page, "White level of DAPI", 150)
        brighter = pixels_of(picture)[..., 0].astype(int)
        assert (brighter >= before).all()
        assert brighter.mean() > 1.2 * before.mean()
        set_slider(page, "Black level of DAPI", 149)
        assert set(np.unique(pixels_of(picture)[..., 0])) <= {0, *range(230, 256), *range(1, 230)}
        assert (pixels_of(picture)[..., 0] == 0).sum() > (brighter == 0).sum()
        page.get_by_label("Contrast for").select_option("cell")
        wait(page)
        assert page.get_by_label("White level of DAPI").input_value() == "255"
        assert pixels_of(picture)[..., 0].max() == 255
        page.get_by_label("Contrast for").select_option("global")
        wait(page)
        assert page.get_by_label("White level of DAPI").input_value() == "150"


def test_levels_of_contrast_are_shown_and_stay_in_order(browser: Browser, template: Path) -> None:
    with gallery(browser, session_of(template)) as page:
        black, white = page.get_by_label("Black level of actin"), page.get_by_label("White level of actin")
        assert black.bounding_box()["width"] == white.bounding_box()["width"] > 100
        set_slider(page, "White level of actin", 102)
        expect(white).to_have_attribute("aria-valuetext", "0.16")
        expect(page.locator("label", has=white)).to_have_text("White0.16")
        set_slider(page, "Black level of actin", 200)
        expect(black).to_have_value("101")
        set_slider(page, "White level of actin", 0)
        expect(white).to_have_value("102")
        page.get_by_label("Contrast for").select_option("cell")
        expect(page.locator("label", has=page.get_by_label("White level of actin"))).to_have_text("White100%")


def test_lists_are_wide_enough_for_their_texts(browser: Browser, template: Path) -> None:
    scroll_bar = 15  # hidden in tests
    with gallery(browser, session_of(template)) as page:
        page.get_by_label("Channels as").select_option("colour")
        widths = page.locator("select").evaluate_all(
            """(lists) => lists.map((list) => {
                const text = list.selectedOptions[0].textContent;
                const copy = list.parentNode.appendChild(list.cloneNode());
                copy.append(new Option(text));
                copy.style.cssText = 'position: absolute; width: max-content';
                const needed = copy.offsetWidth;
                copy.remove();
                return [text, needed, list.offsetWidth];
            })"""
        )
    assert [text for text, _, _ in widths] == ["one colour each", "all cells", "order of the file", "choose a column"]
    assert [text for text, needed, has in widths if needed + scroll_bar > has] == []


def test_outlines_of_masks_are_drawn(browser: Browser, template: Path, tmp_path: Path) -> None:
    with gallery(browser, session_of(template)) as page:
        picture = cell(page, 27).locator(".csg-picture")
        before = pixels_of(picture).astype(int)
        page.get_by_label("Mask outlines").check()
        wait(page)
        after = pixels_of(picture).astype(int)
        page.screenshot(path=tmp_path / "outlines.png")
        changed = np.abs(after - before).max(axis=-1) > 40
        assert 0.02 < changed.mean() < 0.4
        page.locator(".csg-grid").press("o")
        wait(page)
        assert not page.get_by_label("Mask outlines").is_checked()
        np.testing.assert_array_equal(pixels_of(picture), before)


_PAINTED = """(row) => {
    const strip = row.querySelector('canvas');
    const copy = new OffscreenCanvas(strip.width, strip.height);
    const context = copy.getContext('2d', {willReadFrequently: true});
    context.drawImage(strip, 0, 0);
    const { data } = context.getImageData(0, 0, strip.width, 1);
    const isPainted = (x) => x >= 0 && x < strip.width && data[4 * x + 3] > 0;
    const [scale, left] = [strip.width / strip.getBoundingClientRect().width, strip.getBoundingClientRect().left];
    const places = [], painted = [];
    for (const cell of row.querySelectorAll('.csg-picture')) {
        const own = cell.getBoundingClientRect();
        places.push((own.left - left) * scale, (own.right - left) * scale);
    }
    for (let x = 0; x <= strip.width; x++) if (isPainted(x) !== isPainted(x - 1)) painted.push(x);
    return [places, painted];
}"""
"""Where cells of a row begin and end, and where the painted parts do, in pixels of the canvas."""


@pytest.mark.parametrize("ratio", [1, 0.9, 1.1, 1.25, 1.5, 2])
def test_cells_of_a_row_are_painted_where_they_are(browser: Browser, template: Path, ratio: float) -> None:
    """Also if the pixels of a cell on the screen are not whole pixels of the display."""
    options = {"device_scale_factor": ratio, "viewport": {"width": 2133, "height": 700}}
    with gallery(browser, session_of(template), **options) as page:
        set_slider(page, "Crop", 16)  # outlines follow the edges of crops, and must stay in their cell
        page.get_by_label("Mask outlines").check()
        for size in (96, 77, 25):
            set_slider(page, "Size on screen", size)
            places, painted = page.locator(".csg-row").first.evaluate(_PAINTED)
            assert len(painted) == len(places) > 30
            assert np.abs(np.subtract(painted, places)).max() <= 0.51
        page.get_by_label("Channels as").select_option("gray")
        wait(page)
        places, painted = page.locator(".csg-row").first.evaluate(_PAINTED)
        assert np.abs(np.subtract(painted, places)).max() <= 0.51


def test_sizes_change_by_slider_and_keys(browser: Browser, template: Path) -> None:
    with gallery(browser, session_of(template)) as page:
        picture = cell(page, 3).locator(".csg-picture")
        whole = pixels_of(picture)
        set_slider(page, "Crop", 16)
        part = pixels_of(picture)
        assert np.abs(part[3::6, 3::6].astype(int) - whole[25:73:3, 25:73:3].astype(int)).max() <= 1
        set_slider(page, "Size on screen", 200)
        assert picture.bounding_box()["width"] == 200
        page.locator(".csg-grid").press("-")
        wait(page)
        assert picture.bounding_box()["width"] == 160
        page.locator(".csg-grid").press("+")
        wait(page)
        assert picture.bounding_box()["width"] == 200
        set_slider(page, "Size on screen", 24)
        assert len(shown_ids(page)) == N_CELLS


def test_zooming_keeps_the_current_cell_on_the_screen(browser: Browser, template: Path) -> None:
    with gallery(browser, session_of(template), viewport={"width": 900, "height": 400}) as page:
        grid, picture = page.locator(".csg-grid"), page.locator(".csg-cursor .csg-picture")
        for _ in range(14):
            grid.press("ArrowRight")
        for keys in ("+" * 8, "-" * 12, "+" * 8):
            for key in keys:
                grid.press(key)
                wait(page)
                assert page.locator(".csg-cursor .csg-id").inner_text() == "45"
                ratio = 0.9 if picture.bounding_box()["height"] < 350 else 0.5
                expect(picture).to_be_in_viewport(ratio=ratio)
        grid.hover()
        page.mouse.wheel(0, 3000)  # away from the current cell: the first row stays
        page.wait_for_function("() => !document.querySelector('.csg-cursor')")
        wait(page)
        first = shown_ids(page)[0]
        grid.press("-")
        wait(page)
        across = int(grid.get_attribute("aria-colcount"))
        assert shown_ids(page)[0] <= first < shown_ids(page)[0] + 3 * across


@pytest.mark.parametrize("mode", ["gray", "colour", "composite"])
def test_cells_without_channels_have_ids_and_outlines(browser: Browser, template: Path, mode: str) -> None:
    with gallery(browser, session_of(template)) as page:
        page.get_by_label("Channels as").select_option(mode)
        for name in CHANNELS:
            page.get_by_label(name, exact=True).uncheck()
        wait(page)
        picture = cell(page, 27).locator(".csg-picture")
        assert shown_ids(page)[:3] == [3, 6, 9]
        assert pixels_of(picture).max() == 0
        page.get_by_label("Mask outlines").check()
        wait(page)
        pixels = pixels_of(picture)
        assert pixels.shape == (96, 96, 3)
        assert 0.02 < (pixels.max(axis=-1) > 100).mean() < 0.4
        page.get_by_label("seg_all_nucleus (mask)").check()
        wait(page)
        assert (pixels_of(picture).max(axis=-1) > 100).sum() > (pixels.max(axis=-1) > 100).sum()


# --- order, filters ---------------------------------------------------------------------------------------------------


def test_cells_are_sorted_sampled_and_found(browser: Browser, template: Path) -> None:
    area = Project(template).features.to_df()["cell__area"].to_numpy()
    with gallery(browser, session_of(template)) as page:
        page.get_by_label("Sort by").select_option("cell__area")
        wait(page)
        expected = IDS[np.argsort(area, kind="stable")]
        assert shown_ids(page)[:20] == expected[:20].tolist()
        page.get_by_label("Descending").check()
        wait(page)
        assert shown_ids(page)[:20] == IDS[np.argsort(-area, kind="stable")][:20].tolist()
        page.get_by_label("Sort by").select_option("order of the file")
        page.get_by_label("Random cells").fill("7")
        page.get_by_label("Seed").fill("3")
        page.get_by_role("button", name="Draw sample").click()
        wait(page)
        sample = shown_ids(page)
        assert (len(sample), sorted(sample)) == (7, sample)
        assert page.get_by_role("status").first.inner_text() == "7 of 100 cells"
        page.get_by_label("Cell id").fill(str(next(each for each in IDS.tolist() if each not in sample)))
        page.get_by_role("button", name="Jump").click()
        expect(page.get_by_role("alert")).to_contain_text("does not pass the filters or is not in the sample")
        page.get_by_label("Close the message").click()
        page.get_by_role("button", name="All cells").click()
        wait(page)
        page.set_viewport_size({"width": 1200, "height": 300})
        page.locator(".csg-grid").press("/")
        page.keyboard.type("270\n")
        wait(page)
        expect(page.locator(".csg-cursor .csg-id")).to_have_text("270")
        expect(page.locator(".csg-grid")).to_be_focused()
        page.locator(".csg-grid").press("/")
        page.keyboard.type("4\n")
        expect(page.get_by_role("alert")).to_contain_text("there is no cell '4'")


def test_cells_are_filtered_by_numbers_and_by_brush(browser: Browser, template: Path, tmp_path: Path) -> None:
    with gallery(browser, session_of(template)) as page:
        page.get_by_label("Column").select_option("scportrait_cell_id")
        page.get_by_role("spinbutton", name="From").fill("31")
        page.get_by_role("spinbutton", name="From").press("Enter")
        wait(page)
        assert shown_ids(page)[0] == 33
        page.get_by_role("spinbutton", name="To").fill("60")
        page.get_by_role("spinbutton", name="To").press("Enter")
        wait(page)
        assert shown_ids(page) == list(range(33, 61, 3))
        expect(page.get_by_role("listitem")).to_contain_text("31 ≤ scportrait_cell_id ≤ 60")
        page.get_by_label("Remove the filter of scportrait_cell_id").click()
        wait(page)
        bins = page.get_by_role("img", name="Histogram of scportrait_cell_id from 3 to 300")
        bins.scroll_into_view_if_needed()
        box = bins.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] + 40, box["y"] + 30, steps=4)
        page.screenshot(path=tmp_path / "brush.png")
        page.mouse.up()
        wait(page)
        assert shown_ids(page)[0] == pytest.approx(150, abs=6)
        expect(page.get_by_role("listitem")).to_contain_text("scportrait_cell_id ≥")
        bins.click()
        wait(page)
        assert shown_ids(page)[0] == 3


def test_a_range_that_ends_before_it_begins_is_reported(browser: Browser, template: Path) -> None:
    with gallery(browser, session_of(template)) as page:
        page.get_by_label("Column").select_option("scportrait_cell_id")
        first, last = page.get_by_role("spinbutton", name="From"), page.get_by_role("spinbutton", name="To")
        last.fill("100")
        last.press("Enter")
        wait(page)
        first.fill("300")
        first.press("Tab")
        expect(page.get_by_text("From must be at most To")).to_be_visible()
        expect(first).to_have_attribute("aria-invalid", "true")
        expect(first).to_have_accessible_description("From must be at most To")
        expect(last).to_have_attribute("aria-invalid", "false")
        expect(page.get_by_role("listitem")).to_contain_text("scportrait_cell_id ≤ 100")
        wait(page)
        assert shown_ids(page)[0] == 3
        last.fill("303")
        last.press("Enter")
        wait(page)
        expect(page.get_by_text("From must be at most To")).to_be_hidden()
        expect(first).to_have_attribute("aria-invalid", "false")
        assert shown_ids(page) == [300]
        first.fill("")
        first.press("e")
        first.press("Enter")
        expect(page.get_by_text("Enter a number")).to_be_visible()
        assert shown_ids(page) == [300]


def test_a_filter_that_no_cell_passes_is_explained(browser: Browser, template: Path) -> None:
    with gallery(browser, session_of(template)) as page:
        page.get_by_label("Column").select_option("scportrait_cell_id")
        page.get_by_role("spinbutton", name="From").fill("1e6")
        page.get_by_role("spinbutton", name="From").press("Enter")
        wait(page)
        expect(page.get_by_role("status").first).to_have_text("0 of 100 cells")
        shown = page.locator(".csg-window").evaluate("(each) => getComputedStyle(each, '::after').content")
        assert shown == '"No cells pass the filters."'
        for key in ("Enter", "Space", "End", "ArrowUp", "Shift+ArrowDown", "PageDown", "Control+a"):
            page.locator(".csg-grid").press(key)
        expect(page.get_by_text("0 cells selected")).to_be_visible()
        expect(page.get_by_role("alert")).to_be_empty()
        page.get_by_label("Remove the filter of scportrait_cell_id").click()
        wait(page)
        assert shown_ids(page)[0] == 3
        expect(page.get_by_role("dialog")).to_be_hidden()


def test_cells_are_filtered_by_categories(browser: Browser, project: Path) -> None:
    session = session_of(project)
    exceeding = session.columns.values("exceeds_crop").numbers == 1
    with gallery(browser, session) as page:
        page.get_by_label("Column").select_option("exceeds_crop")
        page.get_by_label(f"False ({(~exceeding).sum()})").uncheck()
        wait(page)
        assert page.get_by_role("status").first.inner_text() == f"{exceeding.sum()} of 100 cells"
        expect(page.get_by_role("listitem")).to_contain_text("exceeds_crop: ")
        page.get_by_label(f"False ({(~exceeding).sum()})").check()
        wait(page)
        assert page.get_by_role("status").first.inner_text() == "100 cells"


def test_the_focus_stays_and_shortcuts_work(browser: Browser, project: Path) -> None:
    session = session_of(project)
    exceeding = int((session.columns.values("exceeds_crop").numbers == 1).sum())
    with gallery(browser, session) as page:
        outlines, column = page.get_by_label("Mask outlines"), page.get_by_label("Column")

        def press_o() -> None:
            before = outlines.is_checked()
            page.keyboard.press("o")
            expect(outlines).to_be_checked(checked=not before)

        column.select_option("scportrait_cell_id")
        first, last = page.get_by_role("spinbutton", name="From"), page.get_by_role("spinbutton", name="To")
        first.fill("31")
        page.keyboard.press("Enter")
        wait(page)
        expect(first).to_be_focused()
        page.keyboard.press("Tab")
        expect(last).to_be_focused()
        page.keyboard.type("60")
        page.keyboard.press("Shift+Tab")
        wait(page)
        expect(first).to_be_focused()
        assert shown_ids(page) == list(range(33, 61, 3))
        first.fill("40")
        page.keyboard.press("Tab")
        page.keyboard.type("90")  # at once: the field is not replaced meanwhile
        wait(page)
        expect(last).to_be_focused()
        page.keyboard.press("Enter")
        wait(page)
        assert shown_ids(page) == list(range(42, 91, 3))
        column.select_option("exceeds_crop")
        page.get_by_label(re.compile(r"^False \(")).uncheck()
        wait(page)
        expect(page.get_by_label(re.compile(r"^False \("))).to_be_focused()
        press_o()
        for name in ("scportrait_cell_id", "exceeds_crop"):
            page.get_by_label(f"Remove the filter of {name}").focus()
            page.keyboard.press("Enter")
            wait(page)
            expect(column).to_be_focused()
        expect(page.get_by_label(f"True ({exceeding})")).to_be_checked()
        expect(page.get_by_label(f"False ({N_CELLS - exceeding})")).to_be_checked()
        for text in (page.get_by_text("100 cells", exact=True), page.get_by_text("0 cells selected")):
            text.click()
            expect(page.locator(".csg-grid")).to_be_focused()
            press_o()
        page.keyboard.press("Control+a")
        expect(page.get_by_text("100 cells selected")).to_be_visible()
        page.get_by_label("Name").fill("a")
        save = page.get_by_role("button", name="Save ids")
        save.click()
        expect(page.get_by_text("Saved")).to_be_visible()
        for answer in ("Overwrite", "Cancel"):
            save.click()
            page.get_by_role("button", name=answer).focus()
            page.keyboard.press("Enter")
            expect(page.get_by_role("button", name=answer)).to_be_hidden()
            expect(save).to_be_focused()
            press_o()
        page.get_by_label("Name").fill("/")
        save.click()
        page.get_by_label("Close the message").click()
        expect(page.locator(".csg-grid")).to_be_focused()
        page.get_by_label("White level of DAPI").focus()
        press_o()
        page.evaluate("document.activeElement.blur()")
        assert page.evaluate("document.activeElement === document.body")
        press_o()
        page.keyboard.press("Space")
        expect(page.get_by_text("99 cells selected")).to_be_visible()


# --- scrolling --------------------------------------------------------------------------------------------------------


def test_wheel_and_keys_move_through_all_cells(browser: Browser, template: Path) -> None:
    with gallery(browser, session_of(template), viewport={"width": 800, "height": 300}) as page:
        grid = page.locator(".csg-grid")
        grid.hover()
        page.mouse.wheel(0, 240)
        wait(page)
        page.wait_for_function("() => document.querySelector('.csg-grid').scrollTop === 240")
        assert shown_ids(page)[0] > 3
        assert int(grid.get_attribute("aria-rowcount")) * int(grid.get_attribute("aria-colcount")) >= N_CELLS
        across = int(grid.get_attribute("aria-colcount"))
        for keys, expected in (
            (["End"], 99), (["Home"], 0), (["ArrowRight"] * 2, 2), (["ArrowDown"], 2 + across),
            (["ArrowLeft"], 1 + across), (["ArrowUp"], 1), (["PageDown"], 1 + 2 * across), (["PageUp"], 1),
        ):  # fmt: skip
            for key in keys:
                grid.press(key)
            wait(page)
            active = page.locator(f"#{grid.get_attribute('aria-activedescendant')}")
            expect(active).to_have_attribute("aria-label", f"Cell {IDS[expected]}")
            expect(active).to_be_in_viewport(ratio=0.9)


def test_more_cells_than_the_height_of_an_element_are_reached(browser: Browser, tmp_path: Path) -> None:
    n_cells = 40_000
    write_file(tmp_path / "many.h5sc", layout_of(n_cells, size=4))
    with gallery(browser, session_of(tmp_path / "many.h5sc"), viewport={"width": 700, "height": 700}) as page:
        set_slider(page, "Size on screen", 320)
        grid = page.locator(".csg-grid")
        height = grid.evaluate("(grid) => grid.scrollHeight")
        assert 11e6 < height < 12.1e6
        assert n_cells * 320 > height
        last = 5 + 3 * (n_cells - 1)
        grid.press("End")
        wait(page)
        assert shown_ids(page)[-1] == last
        grid.hover()
        page.mouse.wheel(0, -344)  # one row
        page.wait_for_function(
            "(id) => document.querySelector('.csg-grid').textContent.includes(id)", arg=str(last - 9)
        )
        wait(page)
        assert last - 3 in shown_ids(page)
        grid.evaluate("(grid) => { grid.scrollTop = grid.scrollHeight / 2; }")
        page.wait_for_function(
            "(id) => !document.querySelector('.csg-grid').textContent.includes(id)", arg=str(last - 3)
        )
        wait(page)
        assert shown_ids(page)[0] == pytest.approx(last / 2, rel=0.01)
        grid.press("Home")
        wait(page)
        assert shown_ids(page)[0] == 5


# --- selecting, saving ------------------------------------------------------------------------------------------------


def test_cells_are_selected_with_mouse_and_keys(browser: Browser, template: Path) -> None:
    session = session_of(template)
    with gallery(browser, session) as page:
        number = page.get_by_text(re.compile(r"^\d+ cells? selected$"))
        grid = page.locator(".csg-grid")
        cell(page, 9).hover()
        cell(page, 9).locator(".csg-tick").click()
        expect(number).to_have_text("1 cell selected")
        cell(page, 15).click(modifiers=["Control"])
        expect(number).to_have_text("2 cells selected")
        cell(page, 24).click(modifiers=["Shift"])
        expect(number).to_have_text("5 cells selected")
        expect_selected(page, [9, 15, 18, 21, 24])
        grid.press("ArrowRight")
        grid.press("Space")
        expect(number).to_have_text("6 cells selected")
        grid.press("Shift+ArrowRight")
        expect(number).to_have_text("7 cells selected")
        grid.press("ArrowRight")
        grid.press("ArrowRight")
        grid.press("Shift+Space")
        expect(number).to_have_text("8 cells selected")
        grid.press("Space")
        expect(number).to_have_text("7 cells selected")
        expect_selected(page, [9, 15, 18, 21, 24, 27, 30])
        assert session.selected_ids.tolist() == [9, 15, 18, 21, 24, 27, 30]
        page.reload()
        wait(page)
        expect_selected(page, [9, 15, 18, 21, 24, 27, 30])
        page.get_by_role("button", name="Deselect all").click()
        expect(number).to_have_text("0 cells selected")
        expect(page.locator(".csg-cell[aria-selected=true]")).to_have_count(0)
        grid.press("Control+a")
        expect(number).to_have_text("100 cells selected")
        page.get_by_role("button", name="Deselect all").click()
        page.get_by_label("Column").select_option("scportrait_cell_id")
        page.get_by_role("spinbutton", name="From").fill("280")
        page.get_by_role("spinbutton", name="From").press("Enter")
        wait(page)
        page.get_by_role("button", name="Select all that pass (7)").click()
        expect(number).to_have_text("7 cells selected")
        assert session.selected_ids.tolist() == list(range(282, 301, 3))


def test_a_range_shrinks_when_its_end_moves_back(browser: Browser, template: Path) -> None:
    session = session_of(template)
    with gallery(browser, session) as page:
        grid = page.locator(".csg-grid")
        for _ in range(3):
            grid.press("ArrowRight")
        for keys, expected in (
            (["ArrowRight"] * 3, [12, 15, 18, 21]),
            (["ArrowLeft"], [12, 15, 18]),
            (["ArrowLeft"] * 5, [3, 6, 9, 12]),
            (["ArrowRight"] * 4, [12, 15]),
        ):
            for key in keys:
                page.keyboard.press(f"Shift+{key}")
            expect(page.locator(".csg-cell[aria-selected=true] .csg-id")).to_have_text(list(map(str, expected)))
            assert session.selected_ids.tolist() == expected
        cell(page, 30).click(modifiers=["Control"])
        cell(page, 39).click(modifiers=["Shift"])
        cell(page, 24).click(modifiers=["Shift"])
        expect(page.get_by_text("5 cells selected")).to_be_visible()
        expect_selected(page, [12, 15, 24, 27, 30])
        assert session.selected_ids.tolist() == [12, 15, 24, 27, 30]


def test_selections_are_tagged_and_saved(browser: Browser, project: Path, tmp_path: Path) -> None:
    with gallery(browser, session_of(project)) as page:
        for number in (6, 12):
            cell(page, number).click(modifiers=["Control"])
        expect(page.get_by_text("2 cells selected")).to_be_visible()
        page.get_by_role("button", name="Save ids").click()
        expect(page.get_by_role("alert")).to_contain_text("must be a name of up to 100 letters")
        page.get_by_label("Name").fill("round ones")
        page.get_by_role("button", name="Tag").click()
        expect(page.get_by_text("Tagged: round ones is now a column")).to_be_visible()
        expect(page.get_by_role("alert")).to_be_empty()
        page.get_by_label("Column").select_option("round ones")
        page.get_by_label("False (98)").uncheck()
        wait(page)
        assert shown_ids(page) == [6, 12]
        page.get_by_role("button", name="Save ids").click()
        saved = project / "round ones.csv"
        expect(page.get_by_text(f"Saved {saved}")).to_be_visible()
        assert saved.read_text() == "scportrait_cell_id\n6\n12\n"
        cell(page, 6).click(modifiers=["Control"])
        page.get_by_role("button", name="Save ids").click()
        page.get_by_role("button", name="Cancel").click()
        assert saved.read_text() == "scportrait_cell_id\n6\n12\n"
        page.get_by_role("button", name="Save ids").click()
        page.get_by_role("button", name="Overwrite").click()
        expect(page.get_by_text(f"Saved {saved}")).to_be_visible()
        assert saved.read_text() == "scportrait_cell_id\n12\n"
        page.get_by_label("Name").fill("phase")
        page.get_by_role("textbox", name="Value").fill("late")
        page.get_by_role("button", name="Save column").click()
        expect(page.get_by_text("Saved obs['phase']")).to_be_visible()
        page.get_by_role("button", name="Save column").click()
        page.get_by_role("button", name="Overwrite").click()
        expect(page.get_by_text("Saved obs['phase']")).to_be_visible()
        page.screenshot(path=tmp_path / "saved.png")
    features = Project(project).features
    assert features.obs["scportrait_cell_id"][features.obs["phase"] == "late"].tolist() == [12]


def test_ids_are_downloaded_where_nothing_may_be_written(browser: Browser, tmp_path: Path) -> None:
    write_file(tmp_path / "a.h5sc", layout_of(9))
    with gallery(browser, session_of(tmp_path / "a.h5sc")) as page:
        cell(page, 8).click(modifiers=["Control"])
        expect(page.get_by_text("1 cell selected")).to_be_visible()
        page.get_by_label("Name").fill("mine")
        with page.expect_download() as download:
            page.get_by_role("button", name="Save ids").click()
        assert download.value.suggested_filename == "mine.csv"
        assert Path(download.value.path()).read_text() == "scportrait_cell_id\n8\n"
        page.get_by_role("button", name="Save column").click()
        expect(page.get_by_role("alert")).to_contain_text("there is no table of features")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5sc"]


def test_an_offer_to_overwrite_concerns_what_it_asked_about(browser: Browser, project: Path) -> None:
    with gallery(browser, session_of(project)) as page:
        name, save = page.get_by_label("Name"), page.get_by_role("button", name="Save ids")
        overwrite = page.get_by_role("button", name="Overwrite")
        cell(page, 6).click(modifiers=["Control"])
        for file in ("b1", "a1"):
            name.fill(file)
            save.click()
            expect(page.get_by_text(f"Saved {project / file}.csv")).to_be_visible()
        cell(page, 12).click(modifiers=["Control"])

        def withdraws(change: Callable[[], None], button: str = "Save ids") -> None:
            page.get_by_role("button", name=button).click()
            expect(overwrite).to_be_visible()
            change()
            expect(overwrite).to_be_hidden()

        withdraws(lambda: name.fill("b1"))
        name.fill("a1")
        withdraws(lambda: page.get_by_role("textbox", name="Value").fill("x"))
        withdraws(lambda: cell(page, 18).click(modifiers=["Control"]))
        withdraws(lambda: page.locator(".csg-grid").press("Space"))
        page.get_by_label("Cell id").fill("4")
        withdraws(page.get_by_role("button", name="Jump").click)
        expect(page.get_by_role("alert")).to_contain_text("there is no cell '4'")
        page.get_by_role("textbox", name="Value").fill("")
        page.get_by_role("button", name="Save column").click()
        expect(page.get_by_text("Saved obs['a1']")).to_be_visible()
        withdraws(lambda: name.fill("c1"), "Save column")
        name.fill("a1")
        withdraws(page.get_by_role("button", name="Tag").click, "Save column")
        withdraws(page.get_by_role("button", name="Deselect all").click)
        assert {(project / f"{file}.csv").read_text() for file in ("a1", "b1")} == {"scportrait_cell_id\n6\n"}
        assert not (project / "c1.csv").exists()
        cell(page, 12).click(modifiers=["Control"])
        save.click()
        overwrite.click()
        expect(page.get_by_text(f"Saved {project / 'a1.csv'}")).to_be_visible()
        expect(overwrite).to_be_hidden()
    assert (project / "a1.csv").read_text() == "scportrait_cell_id\n12\n"
    assert (project / "b1.csv").read_text() == "scportrait_cell_id\n6\n"


def test_labels_are_replaced_only_after_a_question(browser: Browser, project: Path) -> None:
    session = session_of(project)
    with gallery(browser, session) as page:
        value, tag = page.get_by_role("textbox", name="Value"), page.get_by_role("button", name="Tag")
        page.get_by_label("Name").fill("cls")
        for number, text in ((6, "early"), (12, "late")):
            page.get_by_role("button", name="Deselect all").click()
            cell(page, number).click(modifiers=["Control"])
            value.fill(text)
            tag.click()
            expect(page.get_by_text("Tagged: cls is now a column")).to_be_visible()
        value.fill("")
        question = page.get_by_text("cls has labels early (1), late (1). Replace them by True and False?")
        for button in ("Tag", "Save column"):
            page.get_by_role("button", name=button).click()
            expect(question).to_be_visible()
            page.get_by_role("button", name="Cancel").click()
            expect(question).to_be_hidden()
        assert session.tags["cls"].dropna().tolist() == ["early", "late"]
        tag.click()
        page.get_by_role("button", name="Replace").click()
        expect(page.get_by_text("Tagged: cls is now a column")).to_be_visible()
        assert np.flatnonzero(session.tags["cls"]).tolist() == [3]
        value.fill("late")
        page.get_by_role("button", name="Save column").click()
        expect(page.get_by_text("cls has labels True (1). Remove them, and label the selected")).to_be_visible()
        page.get_by_role("button", name="Replace").click()
        expect(page.get_by_text("Saved obs['cls']")).to_be_visible()
    assert Project(project).features.obs["cls"].dropna().tolist() == ["late"]


def test_a_message_replaces_the_one_before(browser: Browser, project: Path) -> None:
    with gallery(browser, session_of(project)) as page:
        save, alert = page.get_by_role("button", name="Save ids"), page.get_by_role("alert")
        cell(page, 6).click(modifiers=["Control"])
        expect(page.get_by_text("1 cell selected")).to_be_visible()
        save.click()
        expect(alert).to_contain_text("must be a name of up to 100 letters")
        page.locator(".csg-grid").press("End")  # more cells are loaded, but no action was done
        wait(page)
        expect(alert).to_contain_text("must be a name of up to 100 letters")
        page.get_by_label("Name").fill("a")
        save.click()
        expect(page.get_by_text(f"Saved {project / 'a.csv'}")).to_be_visible()
        expect(alert).to_be_empty()
        page.get_by_label("Name").fill("/")
        save.click()
        expect(alert).to_contain_text("must be a name of up to 100 letters")
        expect(page.get_by_text("Saved")).to_be_hidden()
        page.get_by_label("Sort by").select_option("cell__area")
        expect(alert).to_be_empty()


# --- a cell -----------------------------------------------------------------------------------------------------------


def test_a_cell_is_shown_with_its_planes_its_values_and_its_place(
    browser: Browser, template: Path, tmp_path: Path
) -> None:
    session = session_of(template)
    with gallery(browser, session) as page:
        cell(page, 30).click()
        dialog = page.get_by_role("dialog", name="Cell 30")
        expect(dialog).to_be_visible()
        for name in ("composite", "seg_all_nucleus", "seg_all_cytosol", *CHANNELS):
            assert pixels_of(dialog.get_by_role("img", name=name, exact=True)).max() > 100
        values = dialog.get_by_role("row").all_inner_texts()
        assert "scportrait_cell_id\t30" in values
        assert any(value.startswith("cell__area\t") for value in values)
        expect(dialog.get_by_role("img", name=re.compile("^Cell 30 on the slide, at x"))).to_be_visible()
        expect(dialog.get_by_role("img", name="Pixels of the slide around the cell")).to_be_visible()
        page.screenshot(path=tmp_path / "cell.png")
        page.keyboard.press("ArrowRight")
        dialog = page.get_by_role("dialog", name="Cell 33")
        expect(dialog).to_be_visible()
        dialog.get_by_label("Next cell").click()
        dialog = page.get_by_role("dialog", name="Cell 36")
        expect(dialog).to_be_visible()
        dialog.get_by_label("selected").check()
        page.wait_for_function("() => document.querySelector('[aria-label=\"Cell 36\"]').ariaSelected === 'true'")
        dialog.get_by_label("Previous cell").click()
        dialog = page.get_by_role("dialog", name="Cell 33")
        expect(dialog).to_be_visible()
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        expect(page.locator(".csg-grid")).to_be_focused()
        page.locator(".csg-grid").press("Enter")
        dialog = page.get_by_role("dialog", name="Cell 33")
        expect(dialog).to_be_visible()
        dialog.get_by_label("Close").click()
        expect(dialog).to_be_hidden()
    assert session.selected_ids.tolist() == [36]


def test_space_selects_in_a_cell_whatever_has_focus(browser: Browser, template: Path, tmp_path: Path) -> None:
    session = session_of(template)
    with gallery(browser, session) as page:
        page.locator(".csg-grid").press("Enter")
        dialog, ticked = page.get_by_role("dialog"), page.get_by_role("dialog").get_by_label("selected")
        expect(page.get_by_role("dialog", name="Cell 3")).to_be_visible()
        page.keyboard.press("Space")
        expect(ticked).to_be_checked()
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("dialog", name="Cell 6")).to_be_visible()
        page.keyboard.press("Space")
        expect(ticked).to_be_checked()
        dialog.get_by_label("Next cell").click()
        expect(page.get_by_role("dialog", name="Cell 9")).to_be_visible()
        page.keyboard.press("Space")
        expect(ticked).to_be_checked()
        dialog.get_by_role("heading", name="Values").click()
        page.keyboard.press("Space")
        expect(ticked).not_to_be_checked()
        ticked.focus()
        page.keyboard.press("Space")
        expect(ticked).to_be_checked()
        page.keyboard.press("ArrowLeft")
        expect(page.get_by_role("dialog", name="Cell 6")).to_be_visible()
        page.set_viewport_size({"width": 360, "height": 740})
        page.keyboard.press("/")  # opens no controls behind the cell
        page.screenshot(path=tmp_path / "narrow-cell.png")
        expect(page.locator(".csg-toggle")).to_have_attribute("aria-expanded", "false")
        dialog.get_by_label("Close").focus()
        page.keyboard.press("Enter")
        expect(dialog).to_be_hidden()
        expect(page.locator(".csg-cell[aria-selected=true]")).to_have_count(3)
    assert session.selected_ids.tolist() == [3, 6, 9]


# --- all pages --------------------------------------------------------------------------------------------------------

_UNNAMED = """() => [...document.querySelectorAll('input, select, button, canvas[role], [role=grid]')].filter(
  (each) => !(each.ariaLabel || each.labels?.length || each.textContent.trim() || each.getAttribute('aria-labelledby'))
).map((each) => each.outerHTML)"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_page_has_all_controls(browser: Browser, template: Path, tmp_path: Path, scheme: str) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme, "device_scale_factor": 2}
    with gallery(browser, session_of(template), **phone) as page:
        page.screenshot(path=tmp_path / f"narrow-{scheme}.png")
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        controls = page.get_by_role("button", name="Controls")
        expect(page.get_by_label("Sort by")).to_be_hidden()
        controls.click()
        expect(controls).to_have_attribute("aria-expanded", "true")
        expect(page.get_by_label("Sort by")).to_be_visible()
        page.screenshot(path=tmp_path / f"narrow-controls-{scheme}.png")
        controls.click()
        expect(page.get_by_label("Sort by")).to_be_hidden()
        page.locator(".csg-grid").press("/")
        expect(page.get_by_label("Cell id")).to_be_focused()
        controls.click()
        cell(page, 6).locator(".csg-picture").click()
        expect(page.get_by_role("dialog", name="Cell 6")).to_be_visible()
        page.screenshot(path=tmp_path / f"narrow-cell-{scheme}.png")
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        ground = page.locator(".csg").evaluate("(each) => getComputedStyle(each).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]


def test_controls_that_cover_the_grid_close_after_a_jump(browser: Browser, template: Path) -> None:
    with gallery(browser, session_of(template), viewport={"width": 360, "height": 740}) as page:
        grid, controls = page.locator(".csg-grid"), page.get_by_role("button", name="Controls")
        grid.press("/")
        page.keyboard.type("4\n")
        expect(page.get_by_role("alert")).to_contain_text("there is no cell '4'")
        expect(page.get_by_label("Cell id")).to_be_focused()
        page.get_by_label("Cell id").fill("270")
        page.keyboard.press("Enter")
        expect(grid).to_be_focused()
        expect(page.get_by_label("Cell id")).to_be_hidden()
        expect(controls).to_have_attribute("aria-expanded", "false")
        wait(page)
        expect(page.locator(".csg-cursor .csg-id")).to_have_text("270")
        expect(page.locator(".csg-cursor .csg-picture")).to_be_in_viewport(ratio=0.9)
        grid.press("/")
        page.get_by_text("Order", exact=True).click()
        page.keyboard.press("/")  # the section is opened, not the panel closed
        expect(page.get_by_label("Cell id")).to_be_focused()
        page.get_by_label("Size on screen").fill("200")
        page.get_by_label("White level of DAPI").focus()
        page.keyboard.press("Escape")
        expect(grid).to_be_focused()
        expect(page.get_by_label("Cell id")).to_be_hidden()
        wait(page)
        expect(page.locator(".csg-cursor .csg-picture")).to_be_in_viewport(ratio=0.9)
        assert page.locator(".csg-cursor .csg-picture").bounding_box()["width"] == 200


def test_every_control_has_a_name(browser: Browser, template: Path, tmp_path: Path) -> None:
    with gallery(browser, session_of(template), color_scheme="dark") as page:
        page.get_by_text("Keys", exact=True).click()
        expect(page.get_by_text("jump to a cell id")).to_be_visible()
        page.get_by_label("Column").select_option("cell__area")
        cell(page, 6).click()
        expect(page.get_by_role("dialog", name="Cell 6")).to_be_visible()
        assert page.evaluate(_UNNAMED) == []
        page.keyboard.press("Escape")
        page.screenshot(path=tmp_path / "dark.png")


def test_closing_the_tab_ends_the_server_and_loading_again_does_not(browser: Browser, template: Path) -> None:
    with served(Messages(session_of(template)), closed=2.0) as (address, thread), watched(browser) as page:
        page.goto(address)
        wait(page)
        page.reload()
        wait(page)
        assert request(address).status == 200
        page.close()
        thread.join(timeout=60)
        assert not thread.is_alive()


def test_the_page_says_when_the_server_has_ended(browser: Browser, template: Path) -> None:
    context = browser.new_context()
    page = context.new_page()
    with served(Messages(session_of(template))) as (address, _):
        page.goto(address)
        wait(page)
    expect(page.get_by_role("alert")).to_contain_text("cellstamp has ended: run cellstamp browse again")
    context.close()


# --- notebook ---------------------------------------------------------------------------------------------------------

_NOTEBOOK = """async ({script, css}) => {
  const bytes = (text) => new DataView(Uint8Array.from(atob(text), (each) => each.charCodeAt(0)).buffer);
  const listeners = new Set();
  window.receive = (content, buffers) => { for (const each of listeners) each(content, buffers.map(bytes)); };
  const model = {
    send: (content) => window.answer(content),
    on: (_, listener) => listeners.add(listener),
    off: (_, listener) => listeners.delete(listener),
  };
  const style = document.head.appendChild(document.createElement('style'));
  style.textContent = css;
  const module = await import(URL.createObjectURL(new Blob([script], {type: 'text/javascript'})));
  window.pressed = [];
  document.addEventListener('keydown', (event) => window.pressed.push(event.key));
  window.end = module.default.render({model, el: document.body});
  window.nListeners = () => listeners.size;
}"""


def test_the_same_front_end_works_in_a_notebook(browser: Browser, project: Path, tmp_path: Path) -> None:
    from cellstamp.gallery.widget import GalleryWidget

    sent: list[Callable[[], None]] = []

    class Bridged(GalleryWidget):
        """A widget whose front end is the page."""

        def send(self, content: Any, buffers: Any = None) -> None:
            texts = [base64.b64encode(each).decode() for each in buffers or []]
            sent.append(
                lambda: page.evaluate("([content, buffers]) => window.receive(content, buffers)", [content, texts])
            )

    found = find(project)
    widget = Bridged(found, found.folder)

    def until(locator: Locator) -> None:
        """Pass on messages until an element is visible."""
        while True:
            while sent:
                sent.pop(0)()
            if locator.count() and locator.first.is_visible():
                return
            page.evaluate("() => new Promise(requestAnimationFrame)")

    with watched(browser) as page:
        page.expose_function("answer", lambda content: widget._handle_custom_msg(content, []))
        page.evaluate(_NOTEBOOK, {"script": widget._esm, "css": widget._css})
        until(cell(page, 30))
        until(page.locator("[data-state=ready]"))
        page.screenshot(path=tmp_path / "notebook.png")
        assert page.evaluate("document.activeElement === document.body")
        for is_light, ground in (("true", "rgb(255, 255, 255)"), ("false", "rgb(20, 23, 27)")):
            page.evaluate("(is_light) => { document.body.dataset.jpThemeLight = is_light; }", is_light)
            assert page.locator(".csg").evaluate("(each) => getComputedStyle(each).backgroundColor") == ground
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("o")  # belongs to the notebook
        assert page.evaluate("window.pressed.splice(0)") == ["o"]
        assert not page.get_by_label("Mask outlines").is_checked()
        page.get_by_text("100 cells", exact=True).click()
        page.keyboard.press("o")
        assert page.get_by_label("Mask outlines").is_checked()
        page.locator(".csg-grid").press("ArrowRight")
        page.locator(".csg-grid").press("Space")
        until(page.get_by_text("1 cell selected"))
        assert widget.selected.tolist() == [6]
        assert page.evaluate("window.pressed") == []  # shortcuts of the notebook
        page.evaluate("window.end()")
        assert page.evaluate("window.nListeners()") == 0
    widget.close()
