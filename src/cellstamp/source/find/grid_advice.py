"""Advise on an image and another element whose pixels do not match, in words and in code that runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from textwrap import indent
from typing import Any

import numpy as np
import zarr

from cellstamp.source import ome
from cellstamp.source.find.placement import (
    Matrix,
    are_proportional,
    differing,
    extent,
    extents_agree,
    only_scales,
    placements,
)
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
_SAME_VIEW = """
from spatialdata.transformations import Affine, Scale, Sequence, get_transformation, set_transformation

axes = ("y", "x")
to_image = Scale({scale!r}, axes)
places = get_transformation(sdata[{image!r}], get_all=True)
places = {{name: Affine(way.to_affine_matrix(axes, axes), axes, axes) for name, way in places.items()}}
places = {{name: Sequence([to_image, way]) for name, way in places.items()}}
set_transformation(sdata[{labels!r}], places, set_all=True)
"""
_INDENT = "    "
"""Separates code from words in a message: notebooks and ``textwrap.dedent`` remove it."""
_CROPPED = (0.9, 1.1)
"""Ratios of sizes that suggest cropping, not another resolution."""


@dataclass(frozen=True)
class Misfit:
    """An image and an element with other pixels.

    Attributes
    ----------
    root
        The opened store.
    image, shape, here
        Name of the image, its height and width, and its placements.
    array, there
        The element, an image or labels, and its placements.
    """

    root: zarr.Group
    image: str
    shape: tuple[int, int]
    here: Mapping[str, Matrix]
    array: ArrayHandle
    there: Mapping[str, Matrix]

    @property
    def is_labels(self) -> bool:
        """Return whether the element is labels."""
        return len(self.array.shape) == 2

    @property
    def kind(self) -> str:
        """Return what the element is, for messages."""
        return "labels" if self.is_labels else "image"

    @property
    def sides(self) -> tuple[int, int]:
        """Return the height and width of the element."""
        return self.array.shape[-2], self.array.shape[-1]

    @property
    def same_size(self) -> bool:
        """Return whether both have the same height and width."""
        return self.shape == self.sides


def size_difference(misfit: Misfit) -> list[str]:
    """Describe how the sizes differ, in at most one sentence."""
    (height, width), (rows, columns) = misfit.shape, misfit.sides
    if misfit.same_size:
        return []
    other = "labels" if misfit.is_labels else "other image"
    return [
        f"the image is {height} x {width} pixels (y, x) and the {other} {rows} x {columns}, which is "
        f"{_more(rows - height, 'rows')} and {_more(columns - width, 'columns')}"
    ]


def _set_position(kind: str) -> str:
    other = "labels" if kind == "labels" else "other image"
    return f"set the position of the {other} with spatialdata.transformations.set_transformation, then try again"


def _more(n: int, what: str) -> str:
    return f"{abs(n)} {what} {'more' if n > 0 else 'fewer'}" if n else f"as many {what}"


@dataclass(frozen=True)
class _Step:
    """A step to take: words, and Python code or none."""

    words: str
    code: str = ""

    def text(self, names: Mapping[str, Any]) -> str:
        """Return the words, and the code with these names, indented so that it is easy to see and to take out."""
        return f"{self.words}\n{indent(self.code.format(**names), _INDENT)}" if self.code else self.words


def advice_on(misfit: Misfit, system: str | None = None) -> str:
    """Return the next steps, in words and in code that runs.

    Parameters
    ----------
    system
        Coordinate system that places both; None: the first in which they differ.
    """
    here, there = misfit.here, misfit.there
    shared = [*differing(here, there), *sorted(set(here) & set(there))] if system is None else [system]
    chosen = shared[0] if shared else ""
    steps = list(_steps_in_system(misfit, chosen) if shared else _steps_without_system(misfit))
    if any(step.code for step in steps):
        steps = [_Step("sdata is the SpatialData object:"), *steps, _EXTRACT_NEXT]
    if fitting := _fitting_images(misfit):
        on = " and ".join(map(repr, fitting))
        words = f"The labels match {on}: set image to that. To extract from '{misfit.image}' itself:"
        steps = [_Step(words), *steps]
    names = {
        "image": misfit.image,
        "labels": misfit.array.name,
        "on_image": f"{misfit.array.name}_on_image",
        "system": chosen,
        "scale": [float(n / m) for n, m in zip(misfit.shape, misfit.sides, strict=True)],
    }
    return "\n".join(step.text(names) for step in steps)


def _steps_in_system(misfit: Misfit, system: str) -> Iterator[_Step]:
    """Yield the steps to take if both have a coordinate system in common."""
    here, there, kind = misfit.here[system], misfit.there[system], misfit.kind
    area, other = extent(here, misfit.shape), extent(there, misfit.sides)
    overlap = bool((np.minimum(area[:, 1], other[:, 1]) > np.maximum(area[:, 0], other[:, 0])).all())
    cover = f"In '{system}' the image covers {_area_in_words(area)}, the {_other(misfit)} {_area_in_words(other)}."
    if misfit.same_size:
        yield _Step(f"{cover} If they match pixel by pixel, give both the same transformation:", _SAME_PLACE)
        if overlap and misfit.is_labels:
            yield _Step("If the transformations are right, resample the labels to the image's pixels:", _RASTERIZE)
        return
    if extents_agree(area, other, here, there) and misfit.is_labels:
        yield _Step("To resample the labels to the image's pixels:", _RASTERIZE)
        return
    yield _Step(cover)
    if _of_one_field(misfit) and only_scales(np.linalg.pinv(here) @ there):
        yield _same_field(misfit)
        if misfit.is_labels:
            yield _Step("If the labels cover that part only, leave out same_field=True.")
    elif overlap and misfit.is_labels:
        yield _Step("If the position of the labels is correct, resample them to the image's pixels:", _RASTERIZE)
        yield _Step(f"If not, {_set_position(kind)}.")
    else:
        yield _Step(f"{'' if overlap else 'They do not overlap: '}{_set_position(kind)}.")


def _steps_without_system(misfit: Misfit) -> Iterator[_Step]:
    """Yield the steps to take if both have no coordinate system in common."""
    whose = "labels'" if misfit.is_labels else "other image's"
    none = (
        f"They have no coordinate system in common (the image's: {', '.join(misfit.here) or 'none'}; the {whose}: "
        f"{', '.join(misfit.there) or 'none'})"
    )
    if misfit.same_size:
        yield _Step(f"{none}. If they match pixel by pixel, give both the same transformation:", _SAME_PLACE)
    elif _of_one_field(misfit):
        step = _same_field(misfit)
        yield _Step(f"{none}. {step.words}", step.code)
    else:
        yield _Step(f"{none}: {_set_position(misfit.kind)}.")


def _same_field(misfit: Misfit) -> _Step:
    if misfit.is_labels:
        return _Step("If both show the same field of view, resample the labels to the image's size:", _SAME_FIELD)
    return _Step("If both show the same field of view, give the other image the position of the first:", _SAME_VIEW)


def _other(misfit: Misfit) -> str:
    return "labels" if misfit.is_labels else "other image"


_EXTRACT_NEXT = _Step(
    "Then extract from it (filehandler=sdata), or write the changes into its store first (sdata.write_element, "
    "sdata.write_transformations)"
)


def _of_one_field(misfit: Misfit) -> bool:
    """Return whether an element has the proportions of the image and clearly another number of pixels."""
    (height, width), (rows, columns) = misfit.shape, misfit.sides
    if not min(rows, columns, height, width) or _CROPPED[0] < rows / height < _CROPPED[1]:
        return False
    return are_proportional(misfit.shape, misfit.sides)


def _area_in_words(area: Matrix) -> str:
    (top, bottom), (left, right) = area.tolist()
    return f"y {top:g} to {bottom:g} and x {left:g} to {right:g}"


def _fitting_images(misfit: Misfit) -> list[str]:
    """Return other images of the store that are on the grid of the labels."""
    if not misfit.is_labels:
        return []
    return [name for name in sorted(misfit.root["images"].keys()) if _fits(misfit, name)]  # type: ignore[union-attr]


def _fits(misfit: Misfit, image: str) -> bool:
    try:
        metadata = ome.metadata_of(misfit.root, f"images/{image}")
        multiscale = metadata["multiscales"][0]
        array: Any = misfit.root[f"images/{image}/{multiscale['datasets'][0]['path']}"]
        sides = dict(zip(ome.axes_of(multiscale), array.shape, strict=True))
        here = placements(metadata)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return False
    common = set(here) & set(misfit.there)
    return (sides.get("y"), sides.get("x")) == misfit.sides and bool(common) and not differing(here, misfit.there)
