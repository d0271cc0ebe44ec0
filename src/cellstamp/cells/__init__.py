"""A batch of cells -> compressed stamps; this runs in the workers."""
