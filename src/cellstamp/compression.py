"""The compressions of single-cell images: the HDF5 filters that cellstamp writes and decodes itself."""

from typing import Literal, get_args

Compression = Literal["lzf", "gzip"]
COMPRESSIONS: tuple[Compression, ...] = get_args(Compression)
DEFAULT_COMPRESSION: Compression = "lzf"
