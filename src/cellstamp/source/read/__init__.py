"""Windows of pixels, centres and extents of cells; runs in the workers."""
