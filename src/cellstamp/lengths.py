"""Convert lengths with a unit to micrometres."""

from __future__ import annotations

import math
import re
import unicodedata

PixelSize = tuple[float, float]
"""Micrometres per pixel along y and x."""

_IN_MICROMETRES = {
    "pm": 1e-6,
    "nm": 1e-3,
    "um": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "dm": 1e5,
    "m": 1e6,
    "å": 1e-4,
}
_LONG = {
    "picometer": "pm",
    "nanometer": "nm",
    "micrometer": "um",
    "micron": "um",
    "millimeter": "mm",
    "centimeter": "cm",
    "decimeter": "dm",
    "meter": "m",
    "angstrom": "å",
}
_LENGTH = re.compile(r"(\d+\.?\d*|\.\d+)\s*([^\W\d]*)")
_SAME = 1e-3
"""Sides of a pixel that differ by less than this share are equal: programs round them."""


def in_micrometres(unit: str) -> float | None:
    """Return the micrometres of a unit; None if it is not a known unit of length.

    Parameters
    ----------
    unit
        Symbol (``"um"``, ``"µm"``, ``"nm"``) or English name (``"micrometer"``, ``"microns"``).
    """
    # the micro sign and the Greek letter are one letter here; ImageJ escapes it
    text = unicodedata.normalize("NFKC", unit.replace("\\u00B5", "u")).strip().replace("\N{GREEK SMALL LETTER MU}", "u")
    if text in _IN_MICROMETRES:  # before lower case: Mm is not mm
        return _IN_MICROMETRES[text]
    name = text.lower().replace("metre", "meter").removesuffix("s")
    return _IN_MICROMETRES.get(_LONG.get(name, "å" if name == "å" else ""))


def parse_length(text: str) -> float | None:
    """Return a length such as ``"30 um"``, ``"30 µm"`` or ``"0.03 mm"`` in micrometres; None if it is not one."""
    number, name = number_and_unit(text) or ("", "")
    unit = in_micrometres(name)
    return None if unit is None else float(number) * unit


def number_and_unit(text: str) -> tuple[str, str] | None:
    """Return the number and the unit of a text such as ``"30 um"`` or ``"30"``; None if it is something else."""
    found = _LENGTH.fullmatch(text.strip())
    return (found[1], found[2]) if found else None


def scaled(size: PixelSize, factors: tuple[float, float]) -> PixelSize:
    """Return the size of a pixel that is larger by two factors, without the rounding errors of the product."""
    height, width = (float(f"{side * factor:.12g}") for side, factor in zip(size, factors, strict=True))
    return height, width


def is_square(size: PixelSize) -> bool:
    """Return whether pixels are as high as wide, up to rounding."""
    return math.isclose(*size, rel_tol=_SAME)


def is_same(size: PixelSize, other: PixelSize) -> bool:
    """Return whether two sizes of pixels are equal, up to rounding."""
    return all(math.isclose(side, of_other, rel_tol=_SAME) for side, of_other in zip(size, other, strict=True))


def size_in_words(size: PixelSize) -> str:
    """Return the size of a pixel for a message, like ``"0.325 um"`` or ``"0.5 x 0.6 um (y, x)"``."""
    height, width = size
    return f"{height:.6g} um" if height == width else f"{height:.6g} x {width:.6g} um (y, x)"


def even_pixels(length: float, pixel: float) -> int:
    """Return the smallest even number of pixels, at least 2, that is at least a length; both in micrometres."""
    # a rounding error must not add two pixels
    return max(2, 2 * math.ceil(length / pixel / 2 - 1e-9))
