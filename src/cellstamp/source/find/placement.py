"""Read an element's position from the transformations in its OME metadata, and compare positions of two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.source import ome
from cellstamp.source.values import Way

_TOLERANCE = 1e-6
"""Matrices from pixels to pixels that differ less are equal; of others, the part of a pixel."""
_SHIFT = 1e-3
"""Elements that are moved less, in pixels, have the same position: stages and files round positions."""
_ROUNDING = 1e-12
"""Relative error of an offset, such as the position of a stage, after some transformations."""

Matrix = NDArray[np.float64]


def placements(metadata: Mapping[str, Any]) -> dict[str, Matrix]:
    """Return the matrices from full-resolution pixels to each coordinate system, by its name.

    Parameters
    ----------
    metadata
        OME metadata of an image or of labels.

    Returns
    -------
    dict
        float64 (3, 3): an affine matrix for (y, x, 1). Transformations that are not affine are left out.
    """
    multiscale = metadata["multiscales"][0]
    axes = ome.axes_of(multiscale)
    own = _sequence(multiscale["datasets"][0].get("coordinateTransformations", []), axes)
    found = _by_system(multiscale.get("coordinateTransformations", []), axes)
    return {} if own is None else {name: matrix @ own for name, matrix in found.items()}


def point_placements(attributes: Mapping[str, Any]) -> dict[str, Matrix]:
    """Return the matrices from coordinates of points to each coordinate system, for (y, x, 1); see `placements`."""
    return _by_system(attributes.get("coordinateTransformations", []), attributes.get("axes", ["x", "y"]))


def as_transformations(matrices: Mapping[str, Matrix]) -> list[dict[str, Any]]:
    """Return the transformations of labels, as SpatialData writes them, given their placements."""
    return [
        {
            "type": "affine",
            "affine": matrix[:2].tolist(),
            "input": identity["input"],
            "output": {**identity["output"], "name": name},
        }
        for name, matrix in matrices.items()
        for identity in [ome.identity(ome.AXES["labels"])]
    ]


def as_shapes_transformations(matrices: Mapping[str, Matrix]) -> list[dict[str, Any]]:
    """Return the transformations of shapes, with x before y, given their placements for (y, x, 1)."""
    swapped = {name: matrix[np.ix_([1, 0, 2], [1, 0, 2])] for name, matrix in matrices.items()}
    axes = ome.identity(ome.SHAPES_AXES)
    return [
        {**each, "input": axes["input"], "output": {**axes["output"], "name": each["output"]["name"]}}
        for each in as_transformations(swapped)
    ]


def differing(here: Mapping[str, Matrix], there: Mapping[str, Matrix]) -> list[str]:
    """Return the names of the shared coordinate systems in which two elements have different positions."""
    return [name for name in sorted(set(here) & set(there)) if not _agree(here[name], there[name], _SHIFT)]


def _agree(here: Matrix, there: Matrix, shift: float) -> bool:
    """Return whether placements agree in pixels of the first, whatever the unit; `shift`: what an offset may differ."""
    pixel = np.abs(here[:2, :2]).max(axis=1, keepdims=True)
    allowed = pixel * [_TOLERANCE, _TOLERANCE, shift] + _ROUNDING * np.abs(here[:2])
    return bool((np.abs(here[:2] - there[:2]) <= allowed).all())


def same(here: Mapping[str, Matrix], there: Mapping[str, Matrix]) -> bool:
    """Return whether two elements have the same coordinate systems and the same position in each, up to rounding."""
    return set(here) == set(there) and all(_agree(here[name], there[name], _TOLERANCE) for name in here)


def differences(image: Mapping[str, Matrix], other: Mapping[str, Matrix], kind: str = "labels") -> list[str]:
    """Describe how the positions of an image and another element differ, one sentence for each coordinate system."""
    return [
        f"in '{name}' a pixel (y, x) of the image is at {_formula(image[name])}, one of {_the(kind)} at "
        f"{_formula(other[name])}{_offset(image[name], other[name], kind)}"
        for name in differing(image, other)
    ]


def between(origin: Matrix, target: Matrix) -> Matrix:
    """Return the matrix from pixels of one element to pixels of another, given both placements in one system.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the target has no extent there, so its matrix has no inverse.
    """
    return np.asarray(np.linalg.inv(target) @ origin, np.float64)


def as_way(matrix: Matrix) -> Way:
    """Return the rows of a matrix that say where pixels lie."""
    (a, b, c), (d, e, f), _ = matrix.tolist()
    return (a, b, c), (d, e, f)


def extent(placement: Matrix, shape: Sequence[int]) -> NDArray[np.float64]:
    """Return the box around an element of `shape` (y, x) in a coordinate system: float64 (2, 2), (y, x) from and to."""
    height, width = shape
    corners = placement[:2] @ np.array([[0, 0, height, height], [0, width, 0, width], [1, 1, 1, 1]])
    return np.stack([corners.min(axis=1), corners.max(axis=1)], axis=1)


def extents_agree(area: Matrix, other: Matrix, *matrices: Matrix) -> bool:
    """Return whether two areas end within a pixel of each other: the larger one that the placements give."""
    pixel = max(float(np.abs(matrix[:2, :2]).sum(axis=1).max()) for matrix in matrices)
    return bool((np.abs(area - other) < pixel).all())


def are_proportional(shape: Sequence[int], sides: Sequence[int]) -> bool:
    """Return whether two sizes (y, x) have the same proportions, up to a pixel."""
    (height, width), (rows, columns) = shape, sides
    return abs(rows - columns * height / width) < 1 or abs(columns - rows * width / height) < 1


def same_field_scale(target: Sequence[int], origin: Sequence[int]) -> Matrix:
    """Return the matrix from pixels of one element to those of another of the same field of view, for (y, x, 1)."""
    return np.diag([*np.divide(target, origin), 1.0])


def only_scales(matrix: Matrix) -> bool:
    """Return whether a transformation only scales: no rotation, shear or translation."""
    return np.allclose(matrix[[0, 1, 0, 1], [1, 0, 2, 2]], 0, atol=_TOLERANCE)


def _by_system(transformations: Sequence[Mapping[str, Any]], axes: Sequence[str]) -> dict[str, Matrix]:
    found = {}
    for transformation in transformations:
        matrix = _matrix(transformation, axes)
        if matrix is not None:
            output = transformation.get("output") or {}
            found[str(output.get("name", "global"))] = matrix
    return found


def _matrix(transformation: Mapping[str, Any], axes: Sequence[str]) -> Matrix | None:
    """Return the y and x part of a transformation of coordinates along these axes; None if it is not affine."""
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
    """Return the names of a coordinate system's axes in their order, or `axes` if it has none."""
    named = [str(axis.get("name")) for axis in (system or {}).get("axes", [])]
    return named if {"y", "x"} <= set(named) else list(axes)


def _sequence(transformations: Sequence[Mapping[str, Any]], axes: Sequence[str]) -> Matrix | None:
    """Return the product of transformations; None if one of them is not affine."""
    matrices = [matrix for each in transformations if (matrix := _matrix(each, axes)) is not None]
    if len(matrices) < len(transformations):
        return None
    return reduce(lambda done, matrix: matrix @ done, matrices, np.eye(3))


def _formula(matrix: Matrix) -> str:
    (a, b, up), (c, d, left) = matrix[:2].tolist()
    if b == c == 0:
        return f"({a:g} y {up:+g}, {d:g} x {left:+g})"
    return f"({a:g} y {b:+g} x {up:+g}, {c:g} y {d:+g} x {left:+g})"


def _offset(image: Matrix, other: Matrix, kind: str) -> str:
    """Describe the position of an element on an image, in pixels of the image."""
    try:
        return f": in pixels of the image, {', '.join(_parts(between(other, image), kind))}"
    except np.linalg.LinAlgError:
        return ""


def _parts(matrix: Matrix, kind: str) -> list[str]:
    the, are = _the(kind), "is" if kind == "image" else "are"
    (a, b, down), (c, d, right) = matrix[:2].round(6).tolist()
    turned = [f"{the} {are} rotated or sheared"] if b or c else []
    one = "one unit" if kind == "shapes" else "a pixel"
    scaled = [f"{one} of {the} is {a:g} pixels high and {d:g} wide"] if (a, d) != (1, 1) and not turned else []
    lower = [f"{the} {are} {abs(down):g} pixels {'lower' if down > 0 else 'higher'}"] if down else []
    aside = [f"{the} {are} {abs(right):g} pixels further {'right' if right > 0 else 'left'}"] if right else []
    return [*turned, *scaled, *lower, *aside]


def in_words(matrix: Matrix, kind: str) -> str:
    """Describe a transformation from pixels of an element to pixels of the image: its type, then its parts.

    Parameters
    ----------
    matrix
        For (y, x, 1).
    kind
        ``"labels"``, ``"image"`` or ``"shapes"``.
    """
    linear, moved = matrix[:2, :2], not np.allclose(matrix[:2, 2], 0, atol=_TOLERANCE)
    if np.allclose(linear, np.eye(2), atol=_TOLERANCE):
        return f"shift ({', '.join(_parts(matrix, kind))})" if moved else "identity"
    if np.allclose(linear[[0, 1], [1, 0]], 0, atol=_TOLERANCE) and (np.diag(linear) > 0).all():
        return f"scale{' and shift' if moved else ''} ({', '.join(_parts(matrix, kind))})"
    height, width = np.linalg.norm(linear, axis=0)
    turn = np.degrees(np.arctan2(linear[1, 0], linear[0, 0]))
    mirrored = "mirrored, " if np.linalg.det(linear) < 0 else ""
    unit = "one unit is" if kind == "shapes" else "a pixel is"
    size = f"{unit} {height:.4g} x {width:.4g} pixels of the image"
    return f"affine ({mirrored}turned by {abs(turn):.3g} degrees, {size})"


def sizes_in(system: str, image: Matrix, other: Matrix, kind: str) -> str:
    """Describe the sizes of the pixels of an image and of another element in a coordinate system."""
    (height, width), (rows, columns) = (np.linalg.norm(each[:2, :2], axis=0) for each in (image, other))
    return (
        f"In '{system}', a pixel of the image is {height:.6g} x {width:.6g} (y, x), one of {_the(kind)} {rows:.6g} x "
        f"{columns:.6g}"
    )


def _the(kind: str) -> str:
    """Return what an element is called beside an image, given its kind in the singular."""
    return "the other image" if kind == "image" else f"the {kind}"
