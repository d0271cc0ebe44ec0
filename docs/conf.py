"""Settings of the documentation; `make docs` builds it without any network."""

import sys
from pathlib import Path

from cellstamp import __version__

sys.path.insert(0, str(Path(__file__).parent))

project = "cellstamp"
author = "the cellstamp developers"
copyright = "2026, the cellstamp developers"
version = release = __version__

extensions = [
    "config_reference",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

autodoc_member_order = "bysource"
autodoc_mock_imports = ["torch"]  # optional, and not needed to describe what uses it
autodoc_typehints = "signature"
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"cellstamp {release}"
