"""Compiled kernels: from one cell's window of masks and image to its planes of a single-cell image.

Each mask is processed in a *box*: the bounding box of the cell inside the window, grown by the blur radius and clipped
to the window. Outside the box the blurred mask is exactly 0, and so is every masked and normalised channel. The box of
a channel without a mask is the complete window.

Coordinates are pixels. Arrays are indexed (y, x). A box is (top, bottom, left, right), half open.
"""
