"""Where an element lies in the world, from the transformations in its OME metadata; and whether two lie alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.source import ome

_TOLERANCE = 1e-6
"""Pixels, and parts of them, that are no difference."""

Matrix = NDArray[np.float64]


def placements(metadata: Mapping[str, Any]) -> dict[str, Matrix]:
    """From pixels of the full resolution to each coordinate system, by its name.

    Parameters
    ----------
    metadata
        OME metadata of an image or of labels.

    Returns
    -------
    dict
        float64 (3, 3): an affine matrix for (y, x, 1). What cannot be told by one is left out.
    """
    multiscale = metadata["multiscales"][0]
    axes = ome.axes_of(multiscale)
    own = _sequence(multiscale["datasets"][0].get("coordinateTransformations", []), axes)
    found = _by_system(multiscale.get("coordinateTransformations", []), axes)
    return {} if own is None else {name: matrix @ own for name, matrix in found.items()}


def point_placements(attributes: Mapping[str, Any]) -> dict[str, Matrix]:
    """From the coordinates of points to each coordinate system: matrices like those of `placements`, for (y, x, 1)."""
    return _by_system(attributes.get("coordinateTransformations", []), attributes.get("axes", ["x", "y"]))


def as_transformations(places: Mapping[str, Matrix]) -> list[dict[str, Any]]:
    """Placements of labels -> their transformations, as SpatialData writes them."""
    return [
        {
            "type": "affine",
            "affine": matrix[:2].tolist(),
            "input": identity["input"],
            "output": {**identity["output"], "name": name},
        }
        for name, matrix in places.items()
        for identity in [ome.identity(ome.AXES["labels"])]
    ]


def differing(here: Mapping[str, Matrix], there: Mapping[str, Matrix]) -> list[str]:
    """Names of the coordinate systems in which two elements are, and not at the same place."""
    return [
        name
        for name in sorted(set(here) & set(there))
        if not np.allclose(here[name], there[name], rtol=_TOLERANCE, atol=_TOLERANCE)
    ]


def same(here: Mapping[str, Matrix], there: Mapping[str, Matrix]) -> bool:
    """Whether two elements are in the same coordinate systems and at the same place in each."""
    return set(here) == set(there) and not differing(here, there)


def differences(image: Mapping[str, Matrix], labels: Mapping[str, Matrix]) -> list[str]:
    """Tell in which coordinate systems an image and labels lie differently, and how, one sentence each."""
    return [
        f"in '{name}' a pixel (y, x) of the image is at {_told(image[name])}, one of the labels at "
        f"{_told(labels[name])}{_by_how_much(image[name], labels[name])}"
        for name in differing(image, labels)
    ]


def between(origin: Matrix, target: Matrix) -> Matrix:
    """From the pixels of one element to those of another, given where both lie in one system.

    Raises
    ------
    numpy.linalg.LinAlgError
        When the target has no extent there, so that there is no way back.
    """
    return np.asarray(np.linalg.inv(target) @ origin, np.float64)


def extent(place: Matrix, shape: Sequence[int]) -> NDArray[np.float64]:
    """The box around an element of `shape` (y, x) in a coordinate system: float64 (2, 2), (y, x) from and to."""
    height, width = shape
    corners = place[:2] @ np.array([[0, 0, height, height], [0, width, 0, width], [1, 1, 1, 1]])
    return np.stack([corners.min(axis=1), corners.max(axis=1)], axis=1)


def same_field_scale(target: Sequence[int], origin: Sequence[int]) -> Matrix:
    """From pixels of one element to those of another that shows the same field of view, for (y, x, 1)."""
    return np.diag([*np.divide(target, origin), 1.0])


def only_scales(way: Matrix) -> bool:
    """Whether a transformation is no more than a size of pixels: neither turned nor moved."""
    return np.allclose(way[[0, 1, 0, 1], [1, 0, 2, 2]], 0, atol=_TOLERANCE)


def _by_system(transformations: Sequence[Mapping[str, Any]], axes: Sequence[str]) -> dict[str, Matrix]:
    found = {}
    for transformation in transformations:
        matrix = _matrix(transformation, axes)
        if matrix is not None:
            output = transformation.get("output") or {}
            found[str(output.get("name", "global"))] = matrix
    return found


def _matrix(transformation: Mapping[str, Any], axes: Sequence[str]) -> Matrix | None:
    """One transformation of coordinates along these axes, as far as it is about y and x."""
    kind, matrix = transformation.get("type"), np.eye(3)
    inputs, outputs = (_axes_of(transformation.get(side), axes) for side in ("input", "output"))
    y_x = [inputs.index("y"), inputs.index("x")]
    if kind == "identity":
        return matrix
    if kind == "scale":
        matrix[[0, 1], [0, 1]] = np.asarray(transformation["scale"], np.float64)[y_x]
        return matrix
    if kind == "translation":
        matrix[:2, 2] = np.asarray(transformation["translation"], np.float64)[y_x]
        return matrix
    if kind == "affine":
        given = np.asarray(transformation["affine"], np.float64)
        matrix[:2] = given[np.ix_([outputs.index("y"), outputs.index("x")], [*y_x, -1])]
        return matrix
    if kind == "sequence":
        return _sequence(transformation["transformations"], inputs)
    return None


def _axes_of(system: Any, axes: Sequence[str]) -> list[str]:
    """Names of a coordinate system's axes in their order, where it says so."""
    named = [str(axis.get("name")) for axis in (system or {}).get("axes", [])]
    return named if {"y", "x"} <= set(named) else list(axes)


def _sequence(transformations: Sequence[Mapping[str, Any]], axes: Sequence[str]) -> Matrix | None:
    """Transformations one after the other."""
    matrices = [matrix for each in transformations if (matrix := _matrix(each, axes)) is not None]
    if len(matrices) < len(transformations):
        return None
    return reduce(lambda done, matrix: matrix @ done, matrices, np.eye(3))


def _told(matrix: Matrix) -> str:
    (a, b, up), (c, d, left) = matrix[:2].tolist()
    if b == c == 0:
        return f"({a:g} y {up:+g}, {d:g} x {left:+g})"
    return f"({a:g} y {b:+g} x {up:+g}, {c:g} y {d:+g} x {left:+g})"


def _by_how_much(image: Matrix, labels: Matrix) -> str:
    """How labels lie on an image, in its pixels."""
    try:
        (a, b, down), (c, d, right) = between(labels, image)[:2].round(6).tolist()
    except np.linalg.LinAlgError:
        return ""
    turned = ["the labels are turned or sheared"] if b or c else []
    scaled = [f"a pixel of the labels is {a:g} pixels high and {d:g} wide"] if (a, d) != (1, 1) and not turned else []
    lower = [f"the labels lie {abs(down):g} pixels {'lower' if down > 0 else 'higher'}"] if down else []
    aside = [f"the labels lie {abs(right):g} pixels further {'right' if right > 0 else 'left'}"] if right else []
    return f": in pixels of the image, {', '.join([*turned, *scaled, *lower, *aside])}"
