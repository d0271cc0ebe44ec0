"""Configure Sphinx. `make docs` builds the documentation without network."""

import logging
import os
import sys
from pathlib import Path

from nbclient import NotebookClient
from traitlets.config import Config

from cellstamp import __version__

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)
# The pages that are notebooks import example_stores.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [HERE, os.environ.get("PYTHONPATH")]))
# Their plots are readable in the light and in the dark theme.
os.environ["MATPLOTLIBRC"] = str(Path(HERE, "matplotlibrc"))

project = "cellstamp"
author = "the cellstamp developers"
copyright = "2026, the cellstamp developers"
version = release = __version__

extensions = [
    "config_reference",
    "dead_links",
    "feature_reference",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

# Each build executes the pages that are notebooks, in temporary folders.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_timeout = 300
nb_merge_streams = True
logging.getLogger("traitlets").setLevel(logging.WARNING)
# Kernels without encryption print a warning.
NotebookClient._config_default = lambda _: Config(KernelManager={"transport_encryption": "auto"})
nb_render_image_options = {"align": "center"}

# Unresolved names in docstrings are errors, except names of other libraries: those links would need a network.
nitpicky = True
nitpick_ignore_regex = [
    (
        "py:class",
        r"(anndata|collections|matplotlib|np|numpy|os|pathlib|spatialdata|torch|xarray)\..*"
        r"|AnnData|Axes|DataArray|NDArray|Path|PathLike|SpatialData",
    ),
    # aliases and short names in signatures, explained in the docstrings
    ("py:class", "AnyPath|Colours|Format|GalleryWidget|Path|Precision|ProgressMode|Project|Region|Scale"),
]

autodoc_member_order = "bysource"
autodoc_mock_imports = ["torch"]  # optional, and not needed for the API reference
autodoc_typehints = "signature"
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_title = f"cellstamp {release}"

linkcheck_ignore = [r"https://example\.org"]
