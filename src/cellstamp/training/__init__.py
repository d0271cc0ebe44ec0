"""Finished stamps -> batches for training."""
