"""Rounding errors in positions of pixels."""

ROUNDING = 1e-6
"""Pixels that are only rounding errors."""
