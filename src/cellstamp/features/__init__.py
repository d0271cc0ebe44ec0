"""Features of cells: which there are, and how they are named."""
