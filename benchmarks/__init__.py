"""Measure the speed and memory of cellstamp: run ``python -m benchmarks --help`` in the repository's folder."""
