"""The checksum of stored bytes, by which a resumed run recognizes damaged ones."""

from typing import Any

from imagecodecs import zlibng_crc32


def checksum(data: Any) -> int:
    """Return the CRC-32 of some bytes."""
    return int(zlibng_crc32(data))
