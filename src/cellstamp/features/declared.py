"""Declare all features: names, units and definitions, in the order in which they are measured and stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

NUCLEUS, CELL, CYTOPLASM = "nucleus", "cell", "cytoplasm"
SHAPE, INTENSITY, TEXTURE = "shape", "intensity", "texture"
GROUPS = (SHAPE, INTENSITY, TEXTURE)
"""Groups of features; a user chooses them by name."""
DEFAULT_GROUPS = (SHAPE, INTENSITY)
OF_FUNCTIONS = "function"
"""Group of the features that a user's functions return."""

_REGIONPROPS = "`skimage.measure.regionprops`"


@dataclass(frozen=True)
class Definition:
    """One feature of a mask, or of a channel in a compartment.

    Attributes
    ----------
    name
        Its name, without compartment and channel.
    unit
        Unit of its values.
    formula
        Its definition, in words or as a formula.
    source
        The function that returns the same value.
    cellprofiler
        Name of the same measurement in CellProfiler; empty if it has none.
    """

    name: str
    unit: str
    formula: str
    source: str
    cellprofiler: str = ""


def _box(axis: int, formula: str, cellprofiler: str) -> Definition:
    return Definition(f"bbox-{axis}", "px", formula, _REGIONPROPS, cellprofiler)


SHAPES = (
    Definition("area", "px²", "number of pixels", _REGIONPROPS, "AreaShape_Area"),
    Definition(
        "perimeter",
        "px",
        "length of the line through the centres of the border pixels (4-connected)",
        "`skimage.measure.perimeter`",
        "AreaShape_Perimeter",
    ),
    Definition(
        "axis_major_length",
        "px",
        "4 √λ₁: long axis of the ellipse with the same second moments; λ₁ ≥ λ₂ are the variances along its axes",
        _REGIONPROPS,
        "AreaShape_MajorAxisLength",
    ),
    Definition(
        "axis_minor_length", "px", "4 √λ₂: short axis of this ellipse", _REGIONPROPS, "AreaShape_MinorAxisLength"
    ),
    Definition(
        "eccentricity",
        "",
        "√(1 - λ₂ / λ₁): 0 for a circle, towards 1 for a line",
        _REGIONPROPS,
        "AreaShape_Eccentricity",
    ),
    Definition(
        "orientation",
        "rad",
        "angle between the y axis and the long axis, from -π/2 to π/2",
        _REGIONPROPS,
        "AreaShape_Orientation (in degrees)",
    ),
    Definition("extent", "", "area / area of the bounding box", _REGIONPROPS, "AreaShape_Extent"),
    Definition(
        "equivalent_diameter_area",
        "px",
        "√(4 area / π): diameter of the circle with the same area",
        _REGIONPROPS,
        "AreaShape_EquivalentDiameter",
    ),
    Definition("solidity", "", "area / area of the convex hull", _REGIONPROPS, "AreaShape_Solidity"),
    _box(0, "first row", "AreaShape_BoundingBoxMinimum_Y"),
    _box(1, "first column", "AreaShape_BoundingBoxMinimum_X"),
    _box(2, "row after the last", "AreaShape_BoundingBoxMaximum_Y"),
    _box(3, "column after the last", "AreaShape_BoundingBoxMaximum_X"),
    Definition("centroid-0", "px", "mean row of the pixels", _REGIONPROPS, "AreaShape_Center_Y"),
    Definition("centroid-1", "px", "mean column of the pixels", _REGIONPROPS, "AreaShape_Center_X"),
)
"""Of each mask, in the order of `cellstamp.cells.kernels.shape.measure_shape`."""

AREA_RATIO = Definition("area_ratio", "", "area of the nucleus / area of the cell", "cellstamp")
"""Of the nucleus, if there are two masks."""


def _quantile(share: str, formula: str, cellprofiler: str = "") -> Definition:
    return Definition(f"intensity_quantile-{share}", "image value", formula, "`numpy.quantile`", cellprofiler)


INTENSITIES = (
    Definition("intensity_mean", "image value", "mean", _REGIONPROPS, "Intensity_MeanIntensity"),
    Definition(
        "intensity_std", "image value", "standard deviation, divided by n", _REGIONPROPS, "Intensity_StdIntensity"
    ),
    Definition("intensity_min", "image value", "smallest value", _REGIONPROPS, "Intensity_MinIntensity"),
    Definition("intensity_max", "image value", "largest value", _REGIONPROPS, "Intensity_MaxIntensity"),
    Definition("intensity_sum", "image value", "sum", "`numpy.sum`", "Intensity_IntegratedIntensity"),
    Definition("intensity_median", "image value", "median", "`numpy.median`", "Intensity_MedianIntensity"),
    _quantile("0.05", "quantile 0.05, interpolated linearly"),
    _quantile("0.25", "lower quartile", "Intensity_LowerQuartileIntensity"),
    _quantile("0.75", "upper quartile", "Intensity_UpperQuartileIntensity"),
    _quantile("0.95", "quantile 0.95, interpolated linearly"),
)
"""Of each channel in each compartment, in the order of `cellstamp.cells.kernels.intensity.measure_values`."""


_GRAYCOPROPS = "`skimage.feature.graycoprops`"
TEXTURES = (
    Definition("texture_contrast", "", "Σ p(i, j) (i - j)²", _GRAYCOPROPS, "Texture_Contrast"),
    Definition("texture_dissimilarity", "", "Σ p(i, j) |i - j|", _GRAYCOPROPS),
    Definition(
        "texture_homogeneity", "", "Σ p(i, j) / (1 + (i - j)²)", _GRAYCOPROPS, "Texture_InverseDifferenceMoment"
    ),
    Definition("texture_ASM", "", "Σ p(i, j)²", _GRAYCOPROPS, "Texture_AngularSecondMoment"),
    Definition("texture_energy", "", "√ASM", _GRAYCOPROPS),
    Definition("texture_correlation", "", "correlation of i and j", _GRAYCOPROPS, "Texture_Correlation"),
)
"""Of each channel in each mask, in the order of `cellstamp.features.texture.measure_texture`."""


@dataclass(frozen=True)
class Feature:
    """A column of the table of features.

    Attributes
    ----------
    name
        Its complete name, such as ``cell__intensity_mean__DAPI``.
    group, compartment, channel, unit
        What it describes; empty if this does not apply.
    """

    name: str
    group: str
    compartment: str = ""
    channel: str = ""
    unit: str = ""


def compartments_of(masks: Sequence[str]) -> tuple[str, ...]:
    """Return the compartments in which intensities are measured, for the masks nucleus, cell, or both."""
    return (*masks, CYTOPLASM) if len(masks) == 2 else tuple(masks)


def declared_features(groups: Sequence[str], masks: Sequence[str], channels: Sequence[str]) -> tuple[Feature, ...]:
    """Return the features of these groups, in the order in which they are measured.

    Parameters
    ----------
    groups
        Some of `GROUPS`.
    masks
        ``("nucleus", "cell")`` or one of them.
    channels
        Names of the image's channels.
    """
    features: list[Feature] = []
    if SHAPE in groups:
        features += _shapes(masks)
    if INTENSITY in groups:
        features += _of_channels(INTENSITY, INTENSITIES, compartments_of(masks), channels)
    if TEXTURE in groups:
        features += _of_channels(TEXTURE, TEXTURES, masks, channels)
    return tuple(features)


def _shapes(masks: Sequence[str]) -> Iterator[Feature]:
    for mask in masks:
        for each in SHAPES:
            yield Feature(f"{mask}__{each.name}", SHAPE, mask, unit=each.unit)
    if len(masks) == 2:
        yield Feature(f"{NUCLEUS}__{AREA_RATIO.name}", SHAPE, NUCLEUS, unit=AREA_RATIO.unit)


def _of_channels(
    group: str, definitions: Sequence[Definition], compartments: Sequence[str], channels: Sequence[str]
) -> Iterator[Feature]:
    for channel in _distinct(channels):
        for compartment in compartments:
            for each in definitions:
                yield Feature(f"{compartment}__{each.name}__{channel}", group, compartment, channel, each.unit)


def _distinct(channels: Sequence[str]) -> list[str]:
    """Return the names of channels; repeated ones get "-1", "-2", ... as in anndata's ``var_names_make_unique``."""
    seen: Counter[str] = Counter()
    taken, names = set(channels), []
    for channel in channels:
        name = channel
        while seen[channel] and name in taken:
            name = f"{channel}-{seen[channel]}"
            seen[channel] += name in taken
        seen[channel] += 1
        taken.add(name)
        names.append(name)
    return names
