"""What the elements of a project's store are called, as scportrait calls them."""

IMAGE_NAME = "input_image"
IMAGE = f"images/{IMAGE_NAME}"
NUCLEUS = "labels/seg_all_nucleus"
CYTOSOL = "labels/seg_all_cytosol"


def centers_of(labels: str) -> str:
    """Return the element with the centres of labels, given as an element or by name."""
    return f"points/centers_{labels.removeprefix('labels/')}"
