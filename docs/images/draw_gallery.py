"""Take ``gallery.png`` and ``gallery_dark.png``: pictures of the gallery in Chromium, of the cells of the demo.

From the top of a checkout: ``python docs/images/draw_gallery.py`` (needs ``cellstamp[dev]`` and Debian's chromium).
"""

import tempfile
import threading
from pathlib import Path

from draw_single_cell_images import extract
from playwright.sync_api import sync_playwright

from cellstamp.demo import load_cells
from cellstamp.gallery.messages import Messages
from cellstamp.gallery.opening import find
from cellstamp.gallery.server import GalleryServer
from cellstamp.gallery.session import GallerySession

READY = "[data-state=ready]"


def take(browser, address, scheme, path):
    """Take a picture of the page: sorted, with outlines, and three cells selected."""
    page = browser.new_page(viewport={"width": 1160, "height": 720}, color_scheme=scheme)
    page.goto(address)
    page.locator(READY).wait_for()
    page.get_by_label("Mask outlines").check()
    page.get_by_label("Sort by").select_option("cell__area")
    page.get_by_label("Descending").check()
    page.get_by_label("Column").select_option("cell__area")
    page.get_by_role("button", name="Deselect all").click()
    for section in ("Size", "Order"):
        page.locator("summary", has_text=section).click()
    page.locator(READY).wait_for()
    for number in (9, 10, 12):
        page.locator(".csg-cell").nth(number).click(modifiers=["Control"])
    page.get_by_text("3 cells selected").wait_for()
    page.locator(".csg-panel").evaluate("(panel) => { panel.scrollTop = 0; }")
    page.mouse.move(0, 0)
    page.screenshot(path=path)
    page.close()


def main():
    """Serve the gallery of the demo's cells, and take both pictures."""
    with tempfile.TemporaryDirectory() as folder:
        project = extract(load_cells(), folder, features=True)
        server = GalleryServer(Messages(GallerySession(find(project))))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
                for scheme, name in (("light", "gallery.png"), ("dark", "gallery_dark.png")):
                    take(browser, server.address, scheme, Path(__file__).with_name(name))
                browser.close()
        finally:
            server.stop()
            thread.join()


if __name__ == "__main__":
    main()
