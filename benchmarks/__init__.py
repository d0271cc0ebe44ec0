"""How fast cellstamp is, and what it costs: run ``python -m benchmarks --help`` in the repository's folder."""
