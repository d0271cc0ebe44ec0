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

NONE = "-"
"""Entry of a feature that another program does not have."""

_REGIONPROPS = "`skimage.measure.regionprops`"


@dataclass(frozen=True)
class Definition:
    """One feature of a mask, or of a channel in a compartment; all texts are Markdown.

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
        Name of this measurement in CellProfiler 4, and how its values differ; or `NONE`.
    cellfeaturizer
        Column of scportrait's CellFeaturizer, where MASK is nucleus, cytosol or cytosol_only; or `NONE`.
    """

    name: str
    unit: str
    formula: str
    source: str
    cellprofiler: str
    cellfeaturizer: str


def _shape(name: str, unit: str, formula: str, cellprofiler: str, cellfeaturizer: str = NONE) -> Definition:
    return Definition(name, unit, formula, _REGIONPROPS, f"`AreaShape_{cellprofiler}`", cellfeaturizer)


SHAPES = (
    _shape("area", "px²", "number of pixels", "Area", "`MASK_area`"),
    Definition(
        "perimeter",
        "px",
        "length of the line through the centres of the border pixels (4-connected)",
        "`skimage.measure.perimeter`",
        "`AreaShape_Perimeter`",
        NONE,
    ),
    _shape(
        "axis_major_length",
        "px",
        "4 √λ₁: long axis of the ellipse with the same second moments; λ₁ ≥ λ₂ are the variances along its axes",
        "MajorAxisLength",
    ),
    _shape("axis_minor_length", "px", "4 √λ₂: short axis of this ellipse", "MinorAxisLength"),
    _shape("eccentricity", "", "√(1 - λ₂ / λ₁): 0 for a circle, towards 1 for a line", "Eccentricity"),
    Definition(
        "orientation",
        "rad",
        "angle between the y axis and the long axis, from -π/2 to π/2",
        _REGIONPROPS,
        "`AreaShape_Orientation`, in degrees",
        NONE,
    ),
    _shape("extent", "", "area / area of the bounding box", "Extent"),
    _shape(
        "equivalent_diameter_area",
        "px",
        "√(4 area / π): diameter of the circle with the same area",
        "EquivalentDiameter",
    ),
    _shape("solidity", "", "area / area of the convex hull", "Solidity"),
    _shape("bbox-0", "px", "first row", "BoundingBoxMinimum_Y"),
    _shape("bbox-1", "px", "first column", "BoundingBoxMinimum_X"),
    _shape("bbox-2", "px", "row after the last", "BoundingBoxMaximum_Y"),
    _shape("bbox-3", "px", "column after the last", "BoundingBoxMaximum_X"),
    _shape("centroid-0", "px", "mean row of the pixels", "Center_Y"),
    _shape("centroid-1", "px", "mean column of the pixels", "Center_X"),
)
"""Of each mask, in the order of `cellstamp.cells.kernels.shape.measure_shape`."""

AREA_RATIO = Definition("area_ratio", "", "area of the nucleus / area of the cell", "cellstamp", NONE, NONE)
"""Of the nucleus, if there are two masks."""


def _intensity(name: str, formula: str, source: str, cellprofiler: str, cellfeaturizer: str) -> Definition:
    return Definition(f"intensity_{name}", "image value", formula, source, cellprofiler, cellfeaturizer)


def _quantile(share: str, formula: str, cellprofiler: str = NONE, cellfeaturizer: str = NONE) -> Definition:
    return _intensity(f"quantile-{share}", formula, "`numpy.quantile`", cellprofiler, cellfeaturizer)


INTENSITIES = (
    _intensity("mean", "mean", _REGIONPROPS, "`Intensity_MeanIntensity_CHANNEL`", "`CHANNEL_mean_MASK`"),
    _intensity("std", "standard deviation, divided by n", _REGIONPROPS, "`Intensity_StdIntensity_CHANNEL`", NONE),
    _intensity("min", "smallest value", _REGIONPROPS, "`Intensity_MinIntensity_CHANNEL`", NONE),
    _intensity("max", "largest value", _REGIONPROPS, "`Intensity_MaxIntensity_CHANNEL`", NONE),
    _intensity(
        "sum", "sum", "`numpy.sum`", "`Intensity_IntegratedIntensity_CHANNEL`", "`CHANNEL_summed_intensity_MASK`"
    ),
    _intensity(
        "median",
        "median",
        "`numpy.median`",
        "`Intensity_MedianIntensity_CHANNEL`, at rank n/2",
        "`CHANNEL_median_MASK`",
    ),
    _quantile("0.05", "quantile 0.05, interpolated linearly"),
    _quantile(
        "0.25", "lower quartile", "`Intensity_LowerQuartileIntensity_CHANNEL`, at rank n/4", "`CHANNEL_quant25_MASK`"
    ),
    _quantile(
        "0.75", "upper quartile", "`Intensity_UpperQuartileIntensity_CHANNEL`, at rank 3n/4", "`CHANNEL_quant75_MASK`"
    ),
    _quantile("0.95", "quantile 0.95, interpolated linearly"),
)
"""Of each channel in each compartment, in the order of `cellstamp.cells.kernels.intensity.measure_values`."""


def _texture(name: str, formula: str, cellprofiler: str = NONE) -> Definition:
    return Definition(f"texture_{name}", "", formula, "`skimage.feature.graycoprops`", cellprofiler, NONE)


TEXTURES = (
    _texture("contrast", "Σ p(i, j) (i - j)²", "`Texture_Contrast_CHANNEL_3_00_256`"),
    _texture("dissimilarity", "Σ p(i, j) |i - j|"),
    _texture(
        "homogeneity",
        "Σ p(i, j) / (1 + (i - j)²)",
        "`Texture_InverseDifferenceMoment_CHANNEL_3_00_256`",
    ),
    _texture("ASM", "Σ p(i, j)²", "`Texture_AngularSecondMoment_CHANNEL_3_00_256`"),
    _texture("energy", "√ASM"),
    _texture("correlation", "correlation of i and j", "`Texture_Correlation_CHANNEL_3_00_256`"),
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
