"""Where an element lies in the world, from the transformations in its OME metadata; and whether two lie alike."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TOLERANCE = 1e-6
"""Pixels, and parts of them, that are no difference."""


def placements(metadata: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
    """From pixels of the full resolution to each coordinate system, by its name.

    Parameters
    ----------
    metadata
        OME metadata of an image or of labels; axes y and x come last.

    Returns
    -------
    dict
        float64 (3, 3): an affine matrix for (y, x, 1). What cannot be told by one is left out.
    """
    multiscale = metadata["multiscales"][0]
    own = _sequence(multiscale["datasets"][0].get("coordinateTransformations", []))
    found = {}
    for transformation in multiscale.get("coordinateTransformations", []):
        matrix = _matrix(transformation)
        if own is not None and matrix is not None:
            output = transformation.get("output") or {}
            found[str(output.get("name", "global"))] = matrix @ own
    return found


def differences(image: Mapping[str, Any], labels: Mapping[str, Any]) -> list[str]:
    """Tell in which coordinate systems an image and labels lie differently, and how, one sentence each."""
    here, there = placements(image), placements(labels)
    return [
        f"in '{name}' a pixel (y, x) of the image is at {_told(here[name])}, one of the labels at {_told(there[name])}"
        for name in sorted(set(here) & set(there))
        if not np.allclose(here[name], there[name], rtol=_TOLERANCE, atol=_TOLERANCE)
    ]


def _matrix(transformation: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """One transformation, as far as it is about y and x."""
    kind, matrix = transformation.get("type"), np.eye(3)
    if kind == "identity":
        return matrix
    if kind == "scale":
        matrix[[0, 1], [0, 1]] = transformation["scale"][-2:]
        return matrix
    if kind == "translation":
        matrix[:2, 2] = transformation["translation"][-2:]
        return matrix
    if kind == "affine":
        given = np.asarray(transformation["affine"], np.float64)
        matrix[:2] = given[-2:, -3:]
        return matrix
    if kind == "sequence":
        return _sequence(transformation["transformations"])
    return None


def _sequence(transformations: list[Mapping[str, Any]]) -> NDArray[np.float64] | None:
    """Transformations one after the other."""
    matrices = [matrix for each in transformations if (matrix := _matrix(each)) is not None]
    if len(matrices) < len(transformations):
        return None
    return reduce(lambda done, matrix: matrix @ done, matrices, np.eye(3))


def _told(matrix: NDArray[np.float64]) -> str:
    (a, b, up), (c, d, left) = matrix[:2].tolist()
    if b == c == 0:
        return f"({a:g} y {up:+g}, {d:g} x {left:+g})"
    return f"({a:g} y {b:+g} x {up:+g}, {c:g} y {d:+g} x {left:+g})"
