"""Whether an image and labels share a pixel grid; if not, by how much they differ and what brings them together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import zarr

from cellstamp.errors import InputError
from cellstamp.source import ome
from cellstamp.source.arrays import ArrayHandle
from cellstamp.source.placement import Matrix, differences, differing, placements

_SAME_PLACE = """
    from spatialdata.transformations import get_transformation, set_transformation

    set_transformation(sdata["{labels}"], get_transformation(sdata["{image}"], get_all=True), set_all=True)
"""
# rasterize looks up the corner of a pixel, not its middle: where pixels differ in size, that is half a pixel off.
_RASTERIZE = """
    import spatialdata
    from spatialdata.models import Labels2DModel
    from spatialdata.transformations import Sequence, Translation, get_transformation, set_transformation

    image, labels = sdata["{image}"], sdata["{labels}"]
    middle = Translation([0.5, 0.5], axes=("y", "x"))
    there, back = get_transformation(labels, "{system}"), get_transformation(image, "{system}").inverse()
    set_transformation(labels, Sequence([middle, there, back, middle.inverse()]), "pixels")
    drawn = spatialdata.rasterize(labels, ("x", "y"), [0, 0], [{width}, {height}], "pixels", target_width={width})
    moved = Labels2DModel.parse(drawn.data[0], dims=("y", "x"))
    set_transformation(moved, get_transformation(image, get_all=True), set_all=True)
    sdata["{labels}_on_image"] = moved
"""


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


def _advice(
    root: zarr.Group, image: ArrayHandle, labels: ArrayHandle, here: Mapping[str, Matrix], there: Mapping[str, Matrix]
) -> str:
    fitting = [name for name in sorted(root["images"].keys()) if _fits(root, name, labels, there)]  # type: ignore[union-attr]
    if fitting:
        return f"The labels lie on {' and on '.join(map(repr, fitting))}: set image to that."
    shared = [*differing(here, there), *sorted(set(here) & set(there))]
    if not shared:
        return (
            f"They have no coordinate system in common (the image's: {', '.join(here) or 'none'}; the labels': "
            f"{', '.join(there) or 'none'}): say where the labels lie with "
            "spatialdata.transformations.set_transformation, then try again, and you will be told what to do"
        )
    steps = list(_steps(same_size=image.shape[-2:] == labels.shape))
    height, width = image.shape[-2:]
    return "\n".join(
        step.format(image=image.name, labels=labels.name, system=shared[0], height=height, width=width)
        for step in steps
    )


def _steps(*, same_size: bool) -> Iterator[str]:
    """What to do, in Python."""
    yield "With sdata the SpatialData object:"
    if same_size:
        yield f"If pixel by pixel they show the same, give both one transformation:\n{_SAME_PLACE}"
    yield f"To draw the labels on the pixels of the image:\n{_RASTERIZE}"
    yield (
        "Then extract from it (filehandler=sdata), or write what is new into its store first (sdata.write_element, "
        "sdata.write_transformations)"
    )


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
