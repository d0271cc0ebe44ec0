"""What the elements of a project's store are called, as scportrait calls them."""

IMAGE_NAME = "input_image"
IMAGE = f"images/{IMAGE_NAME}"
_MASK_PREFIX = "labels/seg_all_"
NUCLEUS = f"{_MASK_PREFIX}nucleus"
CYTOSOL = f"{_MASK_PREFIX}cytosol"


def mask_of(kind: str) -> str:
    """Return the element of a mask, given its kind: ``"nucleus"`` or ``"cytosol"``."""
    return f"{_MASK_PREFIX}{kind}"


def mask_kind(mask: str) -> str:
    """Return the kind of a mask, given its element."""
    return mask.removeprefix(_MASK_PREFIX)


def centers_of(labels: str) -> str:
    """Return the element with the centres of labels, given as an element or by name."""
    return f"points/centers_{labels.removeprefix('labels/')}"
