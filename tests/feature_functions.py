"""Functions of users that measure cells; importable by workers. Not a test module."""

from __future__ import annotations

from typing import Any

import numpy as np


def brightest(masks: np.ndarray, image: np.ndarray) -> dict[str, Any]:
    """The largest value of each channel in the cell, the types of the arguments, and the pixels of both masks."""
    image = image.copy()
    image[:, ~masks[-1]] = 0
    values = {f"brightest_{number}": channel.max() for number, channel in enumerate(image)}
    return {**values, "pixels": int(masks.sum()), "is_bool": masks.dtype == np.bool_}


def changing(masks: np.ndarray, image: np.ndarray) -> dict[str, float]:
    """Changes its arguments, which must not matter to others."""
    total = float(image.sum())
    masks[...], image[...] = False, 0
    return {"total": total}


def failing(masks: np.ndarray, image: np.ndarray) -> dict[str, float]:
    raise ValueError("no such cell")


def a_number(masks: np.ndarray, image: np.ndarray) -> Any:
    return float(image.sum())


def a_text(masks: np.ndarray, image: np.ndarray) -> Any:
    return {"shade": "dark"}


def other_names(masks: np.ndarray, image: np.ndarray) -> dict[str, float]:
    """A name that depends on the cell."""
    return {f"of_{int(masks.sum())}": 1.0}


def a_known_name(masks: np.ndarray, image: np.ndarray) -> dict[str, float]:
    return {"cell__area": 1.0}


NOT_A_FUNCTION = 3


def zero(masks: np.ndarray, image: np.ndarray) -> dict[str, float]:
    return {"zero": 0.0}
