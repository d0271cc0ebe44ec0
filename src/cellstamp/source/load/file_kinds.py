"""Detect the kind of a file by its first bytes: extensions are often wrong."""

from __future__ import annotations

from pathlib import Path

from cellstamp.errors import InputError

_SIGNATURES = (
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"BM", "BMP"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"\x93NUMPY", "NumPy"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x89HDF\r\n\x1a\n", "HDF5"),
    (b"MATLAB 7", "HDF5"),
    (b"MATLAB 5", "MATLAB"),
    (b"\x1f\x8b", "gzip"),
    (b"Iout", "ImageJ outline"),
    (b"PAR1", "parquet"),
    (b"ZISRAWFILE", "CZI"),
    (b"\xda\xce\xbe\x0a", "ND2"),
)
_LONGEST = max(len(signature) for signature, _ in _SIGNATURES)


def kind_of_file(path: Path) -> str:
    """Return the kind of a file, like ``"TIFF"`` or ``"PNG"``; ``"unknown"`` for other kinds.

    Raises
    ------
    InputError
        If the file is missing, empty, or cannot be read.
    """
    start = first_bytes(path, _LONGEST)
    if start.lstrip()[:1] in (b"{", b"["):
        return "JSON"
    return next((kind for signature, kind in _SIGNATURES if start.startswith(signature)), "unknown")


def first_bytes(path: Path, n: int) -> bytes:
    """Read the first bytes of a file, at least one.

    Raises
    ------
    InputError
        If the file is missing, empty, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(n)
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if not start:
        raise InputError(f"{path}: is empty (0 bytes); write or copy the file again")
    return start
