"""Check that an image and labels share a pixel grid; if not, report the differences and how to resolve them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from textwrap import indent
from typing import Any

import numpy as np
import zarr

from cellstamp.errors import InputError
from cellstamp.source import ome
from cellstamp.source.find.placement import Matrix, differences, differing, extent, only_scales, placements
from cellstamp.source.read.arrays import ArrayHandle

_SAME_PLACE = """
from spatialdata.transformations import Affine, get_transformation, set_transformation

axes = ("y", "x")
places = get_transformation(sdata[{image!r}], get_all=True)
places = {{name: Affine(way.to_affine_matrix(axes, axes), axes, axes) for name, way in places.items()}}
set_transformation(sdata[{labels!r}], places, set_all=True)
"""
_RASTERIZE = """
import cellstamp

name, system = {on_image!r}, {system!r}
sdata[name] = cellstamp.rasterize_labels(sdata, {labels!r}, {image!r}, coordinate_system=system)
"""
_SAME_FIELD = """
import cellstamp

sdata[{on_image!r}] = cellstamp.rasterize_labels(sdata, {labels!r}, {image!r}, same_field=True)
"""
_SET_POSITION = (
    "set the position of the labels with spatialdata.transformations.set_transformation, then try again; the next "
    "error shows the next step"
)
_INDENT = "    "
"""Indentation of code in a message, which notebooks and ``textwrap.dedent`` remove."""
_CROPPED = (0.9, 1.1)
"""Range of ratios of sizes that suggests cropping, not another resolution."""


def check_same_grid(root: zarr.Group, image: ArrayHandle, labels: ArrayHandle) -> None:
    """Check that labels and an image have the same pixel grid.

    Raises
    ------
    InputError
        If they do not; the message has the differences and the next steps.
    """
    here, there = _placements_of(root, "images", image.name), _placements_of(root, "labels", labels.name)
    found = [*_size_difference(image, labels), *differences(here, there)]
    if found:
        message = (
            f"image '{image.name}' and labels '{labels.name}' in {image.store} do not match: "
            f"{'; '.join(found)}. Both must have the same pixel grid. {_advice(root, image, labels, here, there)}"
        )
        raise InputError(message)


def _size_difference(image: ArrayHandle, labels: ArrayHandle) -> list[str]:
    (height, width), (rows, columns) = image.shape[-2:], labels.shape
    if (height, width) == (rows, columns):
        return []
    return [
        f"the image is {height} x {width} pixels (y, x) and the labels {rows} x {columns}, which is "
        f"{_more(rows - height, 'rows')} and {_more(columns - width, 'columns')}"
    ]


def _more(n: int, what: str) -> str:
    return f"{abs(n)} {what} {'more' if n > 0 else 'fewer'}" if n else f"as many {what}"


@dataclass(frozen=True)
class _Step:
    """A step to take: words, and Python code or none."""

    words: str
    code: str = ""

    def text(self, names: Mapping[str, str]) -> str:
        """Return the words, and the code with these names, indented to be easy to see and to copy."""
        return f"{self.words}\n{indent(self.code.format(**names), _INDENT)}" if self.code else self.words


def _advice(
    root: zarr.Group, image: ArrayHandle, labels: ArrayHandle, here: Mapping[str, Matrix], there: Mapping[str, Matrix]
) -> str:
    shared = [*differing(here, there), *sorted(set(here) & set(there))]
    system = shared[0] if shared else ""
    steps = list(
        _steps_in_system(system, image, labels, here[system], there[system])
        if shared
        else _steps_without_system(image, labels, here, there)
    )
    if any(step.code for step in steps):
        steps = [_Step("sdata is the SpatialData object:"), *steps, _EXTRACT_NEXT]
    if fitting := [name for name in sorted(root["images"].keys()) if _fits(root, name, labels, there)]:  # type: ignore[union-attr]
        on = " and ".join(map(repr, fitting))
        words = f"The labels match {on}: set image to that. To extract from '{image.name}' itself:"
        steps = [_Step(words), *steps]
    names = {"image": image.name, "labels": labels.name, "on_image": f"{labels.name}_on_image", "system": system}
    return "\n".join(step.text(names) for step in steps)


def _steps_in_system(
    system: str, image: ArrayHandle, labels: ArrayHandle, here: Matrix, there: Matrix
) -> Iterator[_Step]:
    """Yield the steps to take if image and labels have a coordinate system in common."""
    area, of_labels = extent(here, image.shape[-2:]), extent(there, labels.shape)
    overlap = bool((np.minimum(area[:, 1], of_labels[:, 1]) > np.maximum(area[:, 0], of_labels[:, 0])).all())
    if image.shape[-2:] == labels.shape:
        yield _Step("If they match pixel by pixel, give both the same transformation:", _SAME_PLACE)
        if overlap:
            yield _Step("If the transformations are right, resample the labels to the image's pixels:", _RASTERIZE)
        return
    if _coincide(area, of_labels, here, there):
        yield _Step("To resample the labels to the image's pixels:", _RASTERIZE)
        return
    yield _Step(f"In '{system}' the image covers {_area_in_words(area)}, the labels {_area_in_words(of_labels)}.")
    if _of_one_field(image, labels) and only_scales(np.linalg.pinv(here) @ there):
        yield _Step("If both show the same field of view, resample the labels to the image's size:", _SAME_FIELD)
        yield _Step("If the labels cover that part only, leave out same_field=True.")
    elif overlap:
        yield _Step("If the position of the labels is correct, resample them to the image's pixels:", _RASTERIZE)
        yield _Step(f"If not, {_SET_POSITION}.")
    else:
        yield _Step(f"They do not overlap: {_SET_POSITION}.")


def _steps_without_system(
    image: ArrayHandle, labels: ArrayHandle, here: Mapping[str, Matrix], there: Mapping[str, Matrix]
) -> Iterator[_Step]:
    """Yield the steps to take if image and labels have no coordinate system in common."""
    none = (
        f"They have no coordinate system in common (the image's: {', '.join(here) or 'none'}; the labels': "
        f"{', '.join(there) or 'none'})"
    )
    if image.shape[-2:] == labels.shape:
        yield _Step(f"{none}. If they match pixel by pixel, give both the same transformation:", _SAME_PLACE)
    elif _of_one_field(image, labels):
        words = "If both show the same field of view, resample the labels to the image's size:"
        yield _Step(f"{none}. {words}", _SAME_FIELD)
    else:
        yield _Step(f"{none}: {_SET_POSITION}.")


_EXTRACT_NEXT = _Step(
    "Then extract from it (filehandler=sdata), or write the changes into its store first (sdata.write_element, "
    "sdata.write_transformations)"
)


def _coincide(area: Matrix, of_labels: Matrix, *matrices: Matrix) -> bool:
    """Return whether the edges of two areas differ by less than a pixel, the larger one of the placements."""
    pixel = max(float(np.abs(matrix[:2, :2]).sum(axis=1).max()) for matrix in matrices)
    return bool((np.abs(area - of_labels) < pixel).all())


def _of_one_field(image: ArrayHandle, labels: ArrayHandle) -> bool:
    """Return whether labels have the aspect ratio of an image, at a clearly different resolution."""
    (height, width), (rows, columns) = image.shape[-2:], labels.shape
    if not min(rows, columns, height, width) or _CROPPED[0] < rows / height < _CROPPED[1]:
        return False
    return abs(rows - columns * height / width) < 1 or abs(columns - rows * width / height) < 1


def _area_in_words(area: Matrix) -> str:
    (top, bottom), (left, right) = area.tolist()
    return f"y {top:g} to {bottom:g} and x {left:g} to {right:g}"


def _fits(root: zarr.Group, image: str, labels: ArrayHandle, there: Mapping[str, Matrix]) -> bool:
    """Return whether another image of the store is on the grid of the labels."""
    try:
        multiscale = ome.metadata_of(root, f"images/{image}")["multiscales"][0]
        array: Any = root[f"images/{image}/{multiscale['datasets'][0]['path']}"]
        sides = dict(zip(ome.axes_of(multiscale), array.shape, strict=True))
        here = _placements_of(root, "images", image)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return False
    common = set(here) & set(there)
    return (sides.get("y"), sides.get("x")) == labels.shape and bool(common) and not differing(here, there)


def _placements_of(root: zarr.Group, kind: str, name: str) -> dict[str, Matrix]:
    return placements(ome.metadata_of(root, f"{kind}/{name}"))
