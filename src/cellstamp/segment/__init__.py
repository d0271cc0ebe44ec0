"""Nuclei and cells of an image, block by block."""
