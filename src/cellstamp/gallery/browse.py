"""Open a gallery where the user is: in a notebook, or as a page of this computer."""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import ConfigError
from cellstamp.gallery.messages import Messages
from cellstamp.gallery.opening import Found, find
from cellstamp.gallery.session import GallerySession
from cellstamp.report import in_notebook

if TYPE_CHECKING:
    from anndata import AnnData

    from cellstamp.gallery.widget import GalleryWidget
    from cellstamp.pipeline.project import Project

PathLike = str | os.PathLike[str]
INSTALL = "pip install 'cellstamp[browse]'"
_PAGE, _WIDGET = ("starlette", "uvicorn"), ("anywidget",)


def browse(
    h5sc: PathLike | AnnData | Project, features: PathLike | AnnData | None = None, *, save: PathLike | None = None
) -> GalleryWidget | NDArray[np.uint64]:
    """Look through single-cell images: sort, filter, select, and save selections.

    In a notebook (Jupyter, VS Code, marimo), returns a widget. Elsewhere, serves a page of this computer, opens it in
    the browser, and waits until it is closed, or for Ctrl-C. Only images on the screen are read.

    Parameters
    ----------
    h5sc
        Path of an ``.h5sc`` file, a zarr store, or a project's folder; a `Project`; or an `AnnData` from `read_h5sc`.
    features
        Path of a table of features, or an `AnnData` made from one, with ``obs["scportrait_cell_id"]``. Its ``obs``,
        ``X`` and ``obsm`` become columns. None: the features beside the images, if there are any.
    save
        Folder for CSV files of ids. None: the folder of the project; if you give a file, the browser downloads them.

    Returns
    -------
    GalleryWidget or numpy.ndarray
        A widget, whose attribute ``selected`` has the ids of the selected cells. Outside of notebooks: these ids,
        uint64 (n,), when the page is closed.

    Raises
    ------
    ConfigError
        If an argument is invalid, or the packages for galleries are not installed.
    InputError
        If there are no single-cell images, or the features are those of other cells.

    Examples
    --------
    >>> cellstamp.browse("my_project")  # doctest: +SKIP
    """
    if not _is_interactive():
        return serve(h5sc, features, save=save)
    check_installed(_WIDGET)
    from cellstamp.gallery.widget import GalleryWidget

    found = find(h5sc, features)
    return GalleryWidget(found, folder_for(found, save))


def serve(
    given: Any,
    features: Any = None,
    *,
    save: PathLike | None = None,
    port: int = 0,
    opens: bool = True,
    report: Callable[[str], object] = lambda line: sys.stderr.write(f"{line}\n"),
) -> NDArray[np.uint64]:
    """Serve a page with a gallery until it is closed, or until Ctrl-C, and return the ids of the selected cells.

    Parameters
    ----------
    given, features, save
        As for `browse`.
    port
        Port; 0: a free one.
    opens
        Whether to open the page in the browser.
    report
        Shows a line to the user.

    Raises
    ------
    ConfigError
        If the port is in use; others as for `browse`.
    """
    check_installed(_PAGE)
    from cellstamp.gallery.server import GalleryServer

    found = find(given, features)
    session = GallerySession(found, folder_for(found, save))
    server = GalleryServer(Messages(session), port)
    session.prepare()
    report(f"Gallery of {session.n_cells:,} cells: {server.address}")
    report("Close the page or press Ctrl-C to end.")
    if opens:
        _open_in_browser(server.address)
    server.run()
    return session.selected_ids


def _open_in_browser(address: str) -> None:
    """Open a page, but not in a browser of text, which takes the terminal and runs no scripts."""
    with suppress(webbrowser.Error):
        browser = webbrowser.get()
        if type(browser) is not webbrowser.GenericBrowser:
            browser.open(address)


def folder_for(found: Found, save: PathLike | None) -> Path | None:
    """Return the folder for files of ids: the given one, or that of the project. None: the browser downloads them.

    Raises
    ------
    ConfigError
        If it is a file.
    """
    if save is None:
        return found.folder
    folder = Path(save)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"save = {str(folder)!r}: this is a file; give a folder for files of ids")
    return folder


def check_installed(packages: tuple[str, ...]) -> None:
    """Check that packages for galleries are installed.

    Raises
    ------
    ConfigError
        If one is missing.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ConfigError(f"the gallery needs {' and '.join(missing)}: install them with {INSTALL}")


def _is_interactive() -> bool:
    """Return whether widgets can be shown: in a kernel of Jupyter, or a notebook of marimo."""
    marimo = sys.modules.get("marimo")
    return in_notebook() or (marimo is not None and bool(marimo.running_in_notebook()))
