"""Copy pixels between a box of a plane and a list of its values, row by row."""

from cellstamp.compiling.decorators import compiled_inline


@compiled_inline
def list_box(plane, box, values):
    """List the box's values row by row."""
    width = box[3] - box[2]
    at = 0
    for y in range(box[0], box[1]):
        copy_row(plane[y, box[2] : box[3]], values[at : at + width])
        at += width


@compiled_inline
def unlist_box(values, box, plane):
    """Put values that are listed row by row into the box."""
    width = box[3] - box[2]
    at = 0
    for y in range(box[0], box[1]):
        copy_row(values[at : at + width], plane[y, box[2] : box[3]])
        at += width


@compiled_inline
def clear_box(plane, box):
    """Set the pixels of the box to 0."""
    for y in range(box[0], box[1]):
        row = plane[y, box[2] : box[3]]
        for x in range(row.size):
            row[x] = 0


@compiled_inline
def copy_row(source, target):
    """Copy a row. A plain loop: assigning a slice takes longer than copying a short row, and seconds to compile."""
    for x in range(target.size):
        target[x] = source[x]
