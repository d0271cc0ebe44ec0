"""Default colours of channels and outlines, without matplotlib: pictures and the gallery have the same."""

from __future__ import annotations

from collections.abc import Sequence

NUCLEUS, CELL = "#ffd23f", "#3fc1ff"
"""Colours of the outlines of nuclei and cells."""

CYCLE = ("#3c78ff", "#2fd04a", "#ff3b30", "#ff3df2", "#ffd60a", "#23dbe8", "#ffffff", "#ff9500")
"""Default colours of channels, in turn."""

_COLOUR_IMAGES = (("red", "green", "blue"), ("r", "g", "b"))
"""Names of the channels of colour images: of cellstamp and of spatialdata-io."""


def numbers_of_rgb(names: Sequence[str]) -> list[int]:
    """Return the numbers of the channels red, green and blue of a colour image; of other images, none."""
    lower = [name.lower() for name in names]
    return next(([lower.index(name) for name in rgb] for rgb in _COLOUR_IMAGES if set(rgb) <= set(lower)), [])


def default_colours(names: Sequence[str]) -> list[str]:
    """Return a colour for each channel: its own in a colour image, otherwise the next of the cycle."""
    chosen = [CYCLE[number % len(CYCLE)] for number in range(len(names))]
    for number, colour in zip(numbers_of_rgb(names), ("#ff0000", "#00ff00", "#0000ff"), strict=False):
        chosen[number] = colour
    return chosen


def is_nucleus(name: str, names: Sequence[str]) -> bool:
    """Return whether a mask is the nucleus mask: the first of two, or one with "nucle" in its name."""
    return name == names[0] if len(names) > 1 else "nucle" in name.lower()
