"""Compile functions, and keep their machine code."""
