"""Whether an image and labels share a pixel grid; if not, by how much they differ and what brings them together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
_SAY_WHERE = (
    "say where the labels lie with spatialdata.transformations.set_transformation, then try again; the next error says "
    "what to do"
)
_NEARLY = (0.9, 1.1)
"""How much sizes may differ and still mean that something was cut off, rather than another resolution."""


def check_same_grid(root: zarr.Group, image: ArrayHandle, labels: ArrayHandle) -> None:
    """Refuse labels that do not lie on an image pixel by pixel.

    Raises
    ------
    InputError
        Saying in what they differ, by how much, and what to do.
    """
    here, there = _places(root, "images", image.name), _places(root, "labels", labels.name)
    told = [*_told_sizes(image, labels), *differences(here, there)]
    if told:
        message = (
            f"image '{image.name}' and labels '{labels.name}' in {image.store} do not lie on each other: "
            f"{'; '.join(told)}. Both must have the same pixel grid. {_advice(root, image, labels, here, there)}"
        )
        raise InputError(message)


def _told_sizes(image: ArrayHandle, labels: ArrayHandle) -> list[str]:
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
    """What to do, in words and in Python; without the Python there is none."""

    words: str
    code: str = ""


def _advice(
    root: zarr.Group, image: ArrayHandle, labels: ArrayHandle, here: Mapping[str, Matrix], there: Mapping[str, Matrix]
) -> str:
    shared = [*differing(here, there), *sorted(set(here) & set(there))]
    system = shared[0] if shared else ""
    steps = list(
        _for_shared(system, image, labels, here[system], there[system])
        if shared
        else _for_none(image, labels, here, there)
    )
    if any(step.code for step in steps):
        steps = [_Step("With sdata the SpatialData object:"), *steps, _THEN]
    if fitting := [name for name in sorted(root["images"].keys()) if _fits(root, name, labels, there)]:  # type: ignore[union-attr]
        on = " and on ".join(map(repr, fitting))
        words = f"The labels lie on {on}: set image to that. To extract from '{image.name}' itself:"
        steps = [_Step(words), *steps]
    names = {"image": image.name, "labels": labels.name, "on_image": f"{labels.name}_on_image", "system": system}
    return "\n".join(f"{step.words}\n{step.code.format(**names)}" if step.code else step.words for step in steps)


def _for_shared(system: str, image: ArrayHandle, labels: ArrayHandle, here: Matrix, there: Matrix) -> Iterator[_Step]:
    """What to do where a coordinate system says where both lie."""
    area, of_labels = extent(here, image.shape[-2:]), extent(there, labels.shape)
    overlap = bool((np.minimum(area[:, 1], of_labels[:, 1]) > np.maximum(area[:, 0], of_labels[:, 0])).all())
    if image.shape[-2:] == labels.shape:
        yield _Step("If pixel by pixel they show the same, give both one transformation:", _SAME_PLACE)
        if overlap:
            yield _Step("If the transformations are right, resample the labels to the image's pixels:", _RASTERIZE)
        return
    if _coincide(area, of_labels, here, there):
        yield _Step("To resample the labels to the image's pixels:", _RASTERIZE)
        return
    yield _Step(f"In '{system}' the image covers {_told_area(area)}, the labels {_told_area(of_labels)}.")
    if _of_one_field(image, labels) and only_scales(np.linalg.pinv(here) @ there):
        yield _Step("If both show the same field of view, resample the labels to the image's size:", _SAME_FIELD)
        yield _Step("If the labels do cover that part only, leave out same_field=True.")
    elif overlap:
        yield _Step("If that is where the labels lie, resample them to the image's pixels:", _RASTERIZE)
        yield _Step(f"If not, {_SAY_WHERE}.")
    else:
        yield _Step(f"So they do not overlap: {_SAY_WHERE}.")


def _for_none(
    image: ArrayHandle, labels: ArrayHandle, here: Mapping[str, Matrix], there: Mapping[str, Matrix]
) -> Iterator[_Step]:
    """What to do where no coordinate system says where both lie."""
    none = (
        f"They have no coordinate system in common (the image's: {', '.join(here) or 'none'}; the labels': "
        f"{', '.join(there) or 'none'})"
    )
    if image.shape[-2:] == labels.shape:
        yield _Step(f"{none}. If pixel by pixel they show the same, give both one transformation:", _SAME_PLACE)
    elif _of_one_field(image, labels):
        words = "If both show the same field of view, resample the labels to the image's size:"
        yield _Step(f"{none}. {words}", _SAME_FIELD)
    else:
        yield _Step(f"{none}: {_SAY_WHERE}.")


_THEN = _Step(
    "Then extract from it (filehandler=sdata), or write what is new into its store first (sdata.write_element, "
    "sdata.write_transformations)"
)


def _coincide(area: Matrix, of_labels: Matrix, *places: Matrix) -> bool:
    """Whether two areas end within a pixel of each other; a pixel as large as the places make it."""
    pixel = max(float(np.abs(place[:2, :2]).sum(axis=1).max()) for place in places)
    return bool((np.abs(area - of_labels) < pixel).all())


def _of_one_field(image: ArrayHandle, labels: ArrayHandle) -> bool:
    """Whether labels have the proportions of an image and clearly another number of pixels."""
    (height, width), (rows, columns) = image.shape[-2:], labels.shape
    if not min(rows, columns, height, width) or _NEARLY[0] < rows / height < _NEARLY[1]:
        return False
    return abs(rows - columns * height / width) < 1 or abs(columns - rows * width / height) < 1


def _told_area(area: Matrix) -> str:
    (top, bottom), (left, right) = area.tolist()
    return f"y {top:g} to {bottom:g} and x {left:g} to {right:g}"


def _fits(root: zarr.Group, image: str, labels: ArrayHandle, there: Mapping[str, Matrix]) -> bool:
    """Whether another image of the store is on the grid of the labels."""
    try:
        multiscale = ome.metadata_of(root, f"images/{image}")["multiscales"][0]
        array: Any = root[f"images/{image}/{multiscale['datasets'][0]['path']}"]
        sides = dict(zip(ome.axes_of(multiscale), array.shape, strict=True))
        place = _places(root, "images", image)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return False
    common = set(place) & set(there)
    return (sides.get("y"), sides.get("x")) == labels.shape and bool(common) and not differing(place, there)


def _places(root: zarr.Group, kind: str, name: str) -> dict[str, Matrix]:
    return placements(ome.metadata_of(root, f"{kind}/{name}"))
