"""Run a network on finished single-cell images, and record its values."""
