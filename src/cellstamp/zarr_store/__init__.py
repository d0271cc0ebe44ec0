"""Zarr stores of single-cell images, in shards that workers write themselves."""
