"""The checksum of stored bytes, by which a resumed run recognizes damaged ones."""

from typing import Any


def checksum(data: Any) -> int:
    """Return the CRC-32 of some bytes."""
    from imagecodecs import zlibng_crc32  # the process that forks workers does not need it

    return int(zlibng_crc32(data))
