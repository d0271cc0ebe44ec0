"""A gallery of single-cell images, in a notebook or on a local page."""
