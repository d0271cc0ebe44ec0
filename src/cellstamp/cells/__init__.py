"""Cut, process and compress the single-cell images of batches of cells. This runs in the workers."""
