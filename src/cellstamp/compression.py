"""The compressions of single-cell images that cellstamp writes and decodes itself."""

from typing import Literal, get_args

Compression = Literal["lzf", "gzip"]
"""What a configuration names: HDF5 filters."""
Codec = Literal["lzf", "gzip", "lz4", "zstd"]
"""How a chunk is encoded; lz4 is in Blosc's format."""
OF_ZARR: dict[Compression, Codec] = {"lzf": "lz4", "gzip": "zstd"}
"""Codecs of zarr stores, by what a configuration names: the fast one and the small one."""
COMPRESSIONS: tuple[Compression, ...] = get_args(Compression)
DEFAULT_COMPRESSION: Compression = "lzf"
