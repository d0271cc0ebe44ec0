"""Define the names of a project's elements, which are scportrait's: the only place for default names."""

IMAGE_NAME = "input_image"
IMAGE = f"images/{IMAGE_NAME}"
SEGMENTATION_KEY = "seg_all"
"""Beginning of the names of both masks."""
MASK_KINDS = ("nucleus", "cytosol")

_MASK_PREFIX = f"labels/{SEGMENTATION_KEY}_"
_SHAPES_PREFIX = f"shapes/{SEGMENTATION_KEY}_"
NUCLEUS = f"{_MASK_PREFIX}nucleus"
CYTOSOL = f"{_MASK_PREFIX}cytosol"
NUCLEUS_SHAPES = f"{_SHAPES_PREFIX}nucleus"
CYTOSOL_SHAPES = f"{_SHAPES_PREFIX}cytosol"
SHAPES_MASKS = (NUCLEUS_SHAPES, CYTOSOL_SHAPES)
MASKS = (NUCLEUS, CYTOSOL, *SHAPES_MASKS)
"""All elements that can be masks: labels, then shapes."""

SHAPES_FILE = "shapes.parquet"
"""GeoParquet file in the group of a shapes element."""


def mask_of(kind: str) -> str:
    """Return the element of a mask, given its kind: ``"nucleus"`` or ``"cytosol"``."""
    return f"{_MASK_PREFIX}{kind}"


def shapes_of(kind: str) -> str:
    """Return the element of a mask that is shapes, given its kind: ``"nucleus"`` or ``"cytosol"``."""
    return f"{_SHAPES_PREFIX}{kind}"


def mask_kind(mask: str) -> str:
    """Return the kind of a mask, given its element: labels or shapes."""
    return mask.removeprefix(_MASK_PREFIX).removeprefix(_SHAPES_PREFIX)


def other_form(mask: str) -> str:
    """Return the element of the same mask as shapes if it is labels, and as labels if it is shapes."""
    return mask_of(mask_kind(mask)) if is_shapes(mask) else shapes_of(mask_kind(mask))


def is_shapes(mask: str) -> bool:
    """Return whether the element of a mask is shapes."""
    return mask.startswith("shapes/")


def centers_of(labels: str) -> str:
    """Return the element with the centres of labels, given as an element or by name."""
    return f"points/centers_{labels.removeprefix('labels/')}"
