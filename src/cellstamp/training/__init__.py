"""Read finished single-cell images in batches for training."""
