"""Read windows of pixels, and compute centres and extents of cells; runs in the workers."""
