"""Find nuclei and cells in an image, block by block."""
