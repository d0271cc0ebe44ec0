"""The `.h5sc` file format."""
